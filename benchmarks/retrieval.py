"""Time mean average precision beside public tools: python -m benchmarks.retrieval.

The tools that are installed are timed (`pip install -e ".[benchmarks]"`), each in its own usual
way, on the same codes of ten classes, and must come to the same figure but for ties and float32.
A tool that scores query by query is given as many queries as fit a minute, and its time is taken
times the rest: such rows say "of … queries". Takes about half an hour on two cores.
"""

import importlib.util
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from stages.measures.ranking import retrieval_scores

REPEATS = 3
MEMORY = 2**29  # bytes of a block of distances, 512 MiB
SIZES = {(5_000, 16_384): 5_000, (50_000, 512): 2_000}  # codes x dim: queries of the others


def draw(count: int, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random codes of ten classes, somewhat apart."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) * 10 // count
    codes = rng.normal(size=(count, dim)).astype(np.float32)
    codes += rng.normal(size=(10, dim)).astype(np.float32)[labels] / 10
    return codes, labels


def average_precisions(found: np.ndarray, queries: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the average precision of each query from its neighbours, as a notebook does."""
    precisions = []
    for query, neighbours in zip(queries, found, strict=True):
        relevant = labels[neighbours[neighbours != query]] == labels[query]
        ranks = 1 + np.flatnonzero(relevant)
        precisions.append((np.arange(1, 1 + len(ranks)) / ranks).mean())
    return np.array(precisions)


def assignment(codes, labels, queries) -> float:
    """scikit-learn's neighbours, all of them, and a loop."""
    from sklearn.neighbors import NearestNeighbors

    search = NearestNeighbors(n_neighbors=len(codes), algorithm="brute").fit(codes)
    found = search.kneighbors(codes[queries], return_distance=False)
    return average_precisions(found, queries, labels).mean()


def faiss_flat(codes, labels, queries) -> float:
    """The exact index of faiss, all neighbours, and the same loop."""
    import faiss

    index = faiss.IndexFlatL2(codes.shape[1])
    index.add(codes)
    _, found = index.search(codes[queries], len(codes))
    return average_precisions(found, queries, labels).mean()


def metric_learning(codes, labels, queries) -> float:
    """pytorch-metric-learning's calculator, its neighbours not cut off."""
    import torch
    from pytorch_metric_learning.distances import LpDistance
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    calculator = AccuracyCalculator(
        include=("mean_average_precision",),
        k=len(codes) - 1,
        knn_func=CustomKNN(LpDistance(normalize_embeddings=False), batch_size=500),
        device=torch.device("cpu"),
    )
    gallery, classes = torch.from_numpy(codes), torch.from_numpy(labels)
    of_queries = torch.from_numpy(queries)
    # It leaves out the first neighbour, so the queries have to be the gallery's first images.
    order = torch.cat([of_queries, torch.from_numpy(np.setdiff1d(np.arange(len(codes)), queries))])
    scores = calculator.get_accuracy(
        gallery[of_queries],
        classes[of_queries],
        reference=gallery[order],
        reference_labels=classes[order],
        ref_includes_query=True,
    )
    return scores["mean_average_precision"]


def torch_metrics(codes, labels, queries) -> float:
    """The average precision of torchmetrics, in a loop over the queries."""
    import torch
    from torchmetrics.functional.retrieval import retrieval_average_precision

    gallery, classes = torch.from_numpy(codes), torch.from_numpy(labels)
    total = 0.0
    for chunk in np.array_split(queries, max(1, len(queries) // 500)):
        distances = torch.cdist(gallery[chunk], gallery)
        similar = distances.max() + 1 - distances  # it takes what is not positive for irrelevant
        for row, query in zip(similar, chunk, strict=True):
            others = torch.arange(len(codes)) != query
            relevant = classes[others] == classes[query]
            total += float(retrieval_average_precision(row[others], relevant))
    return total / len(queries)


PEERS: dict[str, tuple[str, Callable]] = {
    "scikit-learn's neighbours and a loop (the assignment)": ("sklearn", assignment),
    "faiss-cpu's flat index and a loop": ("faiss", faiss_flat),
    "pytorch-metric-learning": ("pytorch_metric_learning", metric_learning),
    "torchmetrics": ("torchmetrics", torch_metrics),
}


def timed(function: Callable[[], float]) -> tuple[float, float]:
    begin = time.perf_counter()
    result = function()
    return time.perf_counter() - begin, result


def compare(count: int, dim: int, scored: int) -> None:
    codes, labels = draw(count, dim)
    queries = np.random.default_rng(1).permutation(count)[:scored]

    def ours() -> np.ndarray:
        return retrieval_scores(codes, labels, block_bytes=MEMORY)["average_precision"]

    def product() -> np.ndarray:
        if count * count * 4 <= MEMORY:
            return codes @ codes.T
        for start in range(0, count, rows := MEMORY // (4 * count)):
            block = codes[start : start + rows] @ codes.T
        return block

    rounds = [(timed(ours), timed(product)[0]) for _ in range(REPEATS)]
    own = median(seconds for (seconds, _), _ in rounds)
    bare = median(seconds for _, seconds in rounds)
    precisions = rounds[0][0][1]
    print(f"\n{count:,} codes x {dim:,}, seconds")
    print(f"  {'ours, all queries':<66}{own:8.2f}")
    ratio = f"ours takes {own / bare:.2f} times as long"
    print(f"  {'the bare product, in the same blocks':<66}{bare:8.2f}   {ratio}")
    for name, (module, score) in PEERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"  {name:<66} not installed")
            continue
        few, kinds = draw(100, 8)
        score(few, kinds, np.arange(10))  # imported, and warm, as ours is
        seconds, found = timed(lambda score=score: score(codes, labels, queries))
        if abs(found - precisions[queries].mean()) > 1e-4:
            raise RuntimeError(f"{name}: {found}, ours {precisions[queries].mean()}")
        seconds *= count / scored
        part = "" if scored == count else f", of {scored:,} queries, times {count / scored:g}"
        print(f"  {name + part:<66}{seconds:8.2f}   {seconds / own:.1f} times ours", flush=True)


def memory(count: int, dim: int) -> None:
    """Score many codes in a process of its own, whose peak of memory is told."""
    program = (
        "from benchmarks.retrieval import MEMORY, draw, retrieval_scores\n"
        f"retrieval_scores(*draw({count}, {dim}), block_bytes=MEMORY)"
    )
    seconds, _ = timed(lambda: subprocess.run([sys.executable, "-c", program], check=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"\n{count:,} codes x {dim}: {seconds:.0f} s, {peak:.2f} GiB at most, for all queries")


def main() -> None:
    memory(200_000, 128)
    for (count, dim), scored in SIZES.items():
        compare(count, dim, scored)


if __name__ == "__main__":
    main()
