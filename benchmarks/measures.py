"""Time the measures beside the way the assignments compute them: python -m benchmarks.measures.

Both sides run in turn in one process, A B A B, so that a machine's noise falls on both; a row
gives the median of `REPEATS` and the ratio. Images and weights are random: speed only, but both
sides must come to the same figure. Takes two to four minutes on two cores.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from sklearn.neighbors import NearestNeighbors

from stages.backend import keras
from stages.measures.episodes import draw_tasks, one_shot_hits
from stages.measures.ranking import retrieval_scores
from stages.networks import cifar_siamese

REPEATS = 3
PREDICTED = 50  # tasks of one timing of the assignment's way, whose time is that times tasks
BLOCK_BYTES = 2**27  # 128 MiB: 5,000 queries in one block


def main() -> None:
    print(f"{'seconds, median of ' + str(REPEATS):<58}{'theirs':>9}{'ours':>9}{'ratio':>8}")
    one_shot()
    for dim in 512, 16_384:
        retrieval(dim)
    imports()
    repro()


def in_turn(*functions: Callable[[], object]) -> tuple[list[float], list[object]]:
    """Return the median seconds of each function, called in turn, and what each returned."""
    seconds = [[] for _ in functions]
    for _ in range(REPEATS):
        results = []
        for spent, function in zip(seconds, functions, strict=True):
            begin = time.perf_counter()
            results.append(function())
            spent.append(time.perf_counter() - begin)
    return [median(spent) for spent in seconds], results


def row(name: str, theirs: float | None, ours: float) -> None:
    compared = ("", "") if theirs is None else (f"{theirs:.3f}", f"{theirs / ours:.2f}")
    print(f"{name:<58}{compared[0]:>9}{ours:>9.3f}{compared[1]:>8}", flush=True)


def one_shot() -> None:
    """A `predict` for every task, beside encoding every image once and comparing codes."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(10_000, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(10_000) // 500
    tasks = draw_tasks(rng, classes=20, examples=500, ways=20, count=10_000)
    leg = cifar_siamese.build(
        (32, 32, 3), scale=1 / 255, offset=0.0, dropout=0.25, convolution_l2=2e-4, dense_l2=1e-3
    )
    pair = keras.Input((32, 32, 3), dtype="uint8"), keras.Input((32, 32, 3), dtype="uint8")
    head = keras.layers.Dense(1, activation="sigmoid")
    siamese = keras.Model(pair, head(keras.ops.absolute(leg(pair[0]) - leg(pair[1]))))
    w, b = head.kernel.numpy()[:, 0], float(head.bias.numpy()[0])

    def predict_each() -> np.ndarray:
        hits = []
        for query, *support in tasks[:PREDICTED]:
            queries = np.repeat(images[query][None], len(support), axis=0)
            probabilities = siamese.predict([queries, images[support]], verbose=0)
            hits.append(labels[support[np.argmax(probabilities)]] == labels[query])
        return np.array(hits)

    def encode() -> np.ndarray:
        return leg.predict(images, batch_size=256, verbose=0)

    def score(count: int) -> np.ndarray:
        return one_shot_hits(codes, tasks[:count], labels, head=(w, b))

    codes = encode()  # both models are traced before the clock runs
    siamese.predict([images[:20], images[:20]], verbose=0)
    (each, encoding, few, many), (predicted, _, scored, _) = in_turn(
        predict_each, encode, lambda: score(250), lambda: score(10_000)
    )
    if np.mean(predicted != scored[:PREDICTED]) > 0.05:  # rounding may turn a near tie
        raise RuntimeError(f"hits differ. Received: {predicted} and {scored[:PREDICTED]}")
    for count, scoring in (250, few), (10_000, many):
        theirs = each / PREDICTED * count
        row(f"one-shot, {count:,} tasks: a predict each | ours", theirs, encoding + scoring)
        row(f"  {count:,} tasks: of ours, scoring the codes", None, scoring)


def retrieval(dim: int) -> None:
    """Sorted neighbours of scikit-learn and a loop over queries, beside ranks of the relevant."""
    rng = np.random.default_rng(0)
    labels = np.arange(5000) // 500
    codes = rng.normal(size=(5000, dim)).astype(np.float32)
    codes += rng.normal(size=(10, dim)).astype(np.float32)[labels] / 10

    def neighbours_and_loop() -> float:
        search = NearestNeighbors(n_neighbors=len(codes), algorithm="brute").fit(codes)
        found = search.kneighbors(codes, return_distance=False)
        precisions = []
        for query, neighbours in enumerate(found):
            relevant = labels[neighbours[neighbours != query]] == labels[query]
            ranks = 1 + np.flatnonzero(relevant)
            precisions.append((np.arange(1, 1 + len(ranks)) / ranks).mean())
        return np.mean(precisions)

    def ours() -> float:
        scores = retrieval_scores(codes, labels, block_bytes=BLOCK_BYTES)
        return scores["average_precision"].mean()

    def product() -> None:
        codes @ codes.T

    (theirs, own, bare), (expected, found, _) = in_turn(neighbours_and_loop, ours, product)
    if abs(expected - found) > 1e-4:
        raise RuntimeError(f"mAP differs. Received: {expected} and {found}")
    row(f"mAP, 5,000 x {dim:,}: scikit-learn neighbours, loop | ours", theirs, own)
    row(f"  5,000 x {dim:,}: the bare product codes @ codes.T | ours", bare, own)


def imports() -> None:
    """A fresh interpreter that imports Keras, beside one that imports the measures."""

    def interpreter(modules: str) -> None:
        program = [sys.executable, "-c", f"import {modules}"]
        subprocess.run(program, stderr=subprocess.DEVNULL, check=True)

    measures = ("distances", "episodes", "intervals", "ranking", "verification")
    (theirs, own), _ = in_turn(
        lambda: interpreter("keras"),
        lambda: interpreter(", ".join(f"stages.measures.{module}" for module in measures)),
    )
    row("import, from a fresh interpreter: keras | the measures", theirs, own)


def repro() -> None:
    """A `dvc repro` that has nothing to do."""

    def dvc(*words: str) -> int:
        command = [sys.executable, "-m", "dvc", *words, "--quiet"]
        return subprocess.run(command, capture_output=True).returncode

    if not Path("dvc.yaml").exists() or dvc("status"):
        print("dvc repro with nothing to do: skipped, for `dvc status` is not clean")
        return
    (spent,), _ = in_turn(lambda: dvc("repro"))
    row("dvc repro with nothing to do", None, spent)


if __name__ == "__main__":
    main()
