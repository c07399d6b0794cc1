"""Measure what grows with the number of images: python -m benchmarks.scale [retrieval | encoding].

Retrieval: every query against 10,000 to 1,000,000 codes of 128 values, exactly, each size in a
process of its own, with the exponents of time and memory; docs/scale.png is drawn of it. Encoding:
images a second in this process and on one and two of Dask's workers. A quarter of an hour on two
cores.
"""

import csv
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from stages import params
from stages.engine import engine
from stages.measures.distances import l2_normalised
from stages.measures.ranking import retrieval_scores

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)  # codes
DIM, QUERIES, CLASSES = 128, 10_000, 1_000
MEMORY = 2**30  # bytes of a block of distances
EXPERIMENT, IMAGES = "cifar100-resnet", 16_000


def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return class-sorted codes of unit length, around a centre for each class."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) * CLASSES // count
    codes = rng.standard_normal((count, DIM), np.float32)
    codes += rng.standard_normal((CLASSES, DIM), np.float32)[labels] / 2
    return l2_normalised(codes), labels


def retrieve(count: int) -> None:
    """Score the queries, and print seconds and mean average precision."""
    codes, labels = draw(count)
    queries = np.random.default_rng(1).permutation(count)[:QUERIES]
    started = time.perf_counter()
    scores = retrieval_scores(codes, labels, block_bytes=MEMORY, queries=np.sort(queries))
    print(time.perf_counter() - started, scores["average_precision"].mean())


def in_a_process(count: int) -> tuple[float, float, float]:
    """Return seconds, mean average precision and the peak of memory in GiB of one size."""
    words = [sys.executable, "-m", "benchmarks.scale", str(count)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        answer = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{words} failed")
    seconds, precision = map(float, answer.split())
    return seconds, precision, usage.ru_maxrss / 2**20


def exponent(sizes: np.ndarray, values: np.ndarray) -> float:
    """Return the p of values ~ sizes^p, by least squares of the logarithms."""
    return np.polyfit(np.log(sizes), np.log(values), 1)[0]


def retrieval() -> None:
    print(f"{QUERIES:,} queries, codes x {DIM}: seconds, GiB at most, mean average precision")
    rows = []
    for count in SIZES:
        seconds, precision, memory = in_a_process(count)
        rows.append((count, round(seconds, 2), round(memory, 3), round(precision, 4)))
        print(f"{count:>10,} {seconds:9.1f} {memory:9.2f} {precision:9.4f}", flush=True)
    sizes, seconds, memory, _ = np.array(rows).T
    empty = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # of Python and imports
    print(f"time grows as n^{exponent(sizes, seconds):.2f}, from 100,000 on as ", end="")
    print(
        f"n^{exponent(sizes[2:], seconds[2:]):.2f}; memory above the {empty:.2f} GiB of an ", end=""
    )
    print(f"empty process as n^{exponent(sizes, memory - empty):.2f}")
    with Path("docs/scale.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([("codes", "seconds", "gib", "mean_average_precision"), *rows])
    plot(sizes, seconds, memory)


def plot(sizes: np.ndarray, seconds: np.ndarray, memory: np.ndarray) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    for axes, values, label in zip(
        figure.subplots(1, 2), (seconds, memory), ("seconds", "GiB at most"), strict=True
    ):
        axes.loglog(sizes, values, "o-")
        axes.set(xlabel="codes", ylabel=label, title=f"{label}, {QUERIES:,} queries")
        axes.grid(alpha=0.3, which="both")
    figure.savefig("docs/scale.png", dpi=110)


def encoding() -> None:
    from stages import backend
    from stages.assembly import assemble
    from stages.encoder import Architecture, Encoder, codes_of

    experiment = params.load().experiment(EXPERIMENT)
    given = experiment.images
    shape = (given.size, given.size, given.channels)
    batch = experiment.codes.batch
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *shape), np.uint8)
    backend.set_up(1)
    _, objective = assemble(experiment, shape, given.classes)
    architecture = Architecture(experiment, 1, shape, given.classes)
    encoder = Encoder(architecture, objective.model.get_weights())
    print(
        f"images a second, {EXPERIMENT}, batches of {batch}; "
        f"this process has {os.cpu_count()} cores, a worker one:"
    )
    for scheduler in (None, 1, 2):
        with engine(scheduler) as workers:
            shared = workers.share(encoder)
            blocks = [images[start : start + batch] for start in range(0, IMAGES, batch)]
            jobs = [(shared, block) for block in blocks]
            list(workers.map(codes_of, jobs[:4]))  # builds and compiles
            started = time.perf_counter()
            list(workers.map(codes_of, jobs))
            seconds = time.perf_counter() - started
        os.environ["TF_NUM_INTRAOP_THREADS"] = "1"  # a core for each worker
        where = "this process" if scheduler is None else f"{scheduler} of Dask's workers"
        print(f"{where:<22}{IMAGES / seconds:8.0f}", flush=True)


def main() -> None:
    match sys.argv[1:]:
        case [count] if count.isdecimal():
            retrieve(int(count))
        case ["retrieval"]:
            retrieval()
        case ["encoding"]:
            encoding()
        case _:
            retrieval()
            encoding()


if __name__ == "__main__":
    main()
