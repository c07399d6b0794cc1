"""Indexes of faiss beside exact search: python -m benchmarks.search [codes] [queries] [dim] [out].

Random codes of many classes, of length one. Of each index is measured what it finds of the hundred
images nearest to a query, what it takes and how large it is, in a process of its own, whose peak of
memory before scoring is told. Needs faiss (`pip install -e ".[search]"`). The table is also written
as search.csv and drawn as search.png, in the folder docs if none is given. Of a million codes the
graph of HNSW takes longest, which is built on one core.
"""

import csv
import multiprocessing
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from stages.measures.search import Found, Index, exact_search, search_scores

DEPTH = 100
CLASS = 100  # codes of a class: all its others can be among those found
SPREAD = 1.4  # of a class, where the centres of classes have 1: some are mistaken
BLOCK = 2**29  # bytes of a block of distances, 512 MiB

# HNSW may find fewer images than it is asked for where efSearch is less than DEPTH.
SETTINGS = {
    "Flat": [""],
    "IVF1024,Flat": ["nprobe=1", "nprobe=4", "nprobe=16", "nprobe=64"],
    "HNSW16": ["efSearch=128", "efSearch=256", "efSearch=512"],
    "PQ32": [""],
    "IVF1024,PQ32": ["nprobe=16", "nprobe=64"],
}
COLUMNS = {  # name: of how many decimals
    "recall_at_1": 3,
    "recall_at_10": 3,
    "mean_average_precision": 3,
    "build_seconds": 1,
    "query_milliseconds": 3,
    "bytes_per_code": 0,
    "peak_gib": 2,
}


def draw(count: int, dim: int, scored: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return random codes, the class of each, and which are the queries."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) // CLASS
    codes = rng.standard_normal((count, dim), np.float32)
    codes *= SPREAD
    codes += rng.standard_normal((labels[-1] + 1, dim), np.float32)[labels]
    codes /= np.linalg.norm(codes, axis=1, keepdims=True)
    return codes, labels, rng.permutation(count)[:scored]


def measure(
    index: str, sizes: tuple[int, int, int], folder: Path
) -> dict[tuple[str, str], dict[str, float]]:
    """Return the figures of an index by each of its settings, beside exact search, the first."""
    codes, labels, queries = draw(*sizes)
    if index == "exact":
        exact = exact_search(codes, queries, depth=DEPTH, block_bytes=BLOCK)
        np.savez(folder / "exact.npz", **exact._asdict())
        found = {"": exact}
    else:
        with np.load(folder / "exact.npz") as kept:
            exact = Found(**kept)
        built = Index(index, codes)
        found = {
            setting: built.search(queries, depth=DEPTH, settings=setting)
            for setting in SETTINGS[index]
        }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rows = {}
    for setting, each in found.items():
        scores = search_scores(each, exact, codes, labels, queries)
        means = {key: value.mean() for key, value in scores.items()} | each._asdict()
        means |= {"mean_average_precision": means["average_precision"], "peak_gib": peak}
        rows[index, setting] = {key: float(means[key]) for key in COLUMNS}
    return rows


def picture(rows: dict[tuple[str, str], dict[str, float]]) -> Figure:
    """Draw recall by time, a line for each index through its settings."""
    figure = Figure((8, 5), layout="constrained")
    axes = figure.subplots()
    for index in ("exact", *SETTINGS):
        found = {setting: row for (name, setting), row in rows.items() if name == index}
        times = [row["query_milliseconds"] for row in found.values()]
        recalls = [100 * row["recall_at_10"] for row in found.values()]
        axes.plot(times, recalls, "o-", label=index)
        for setting, *place in zip(found, times, recalls, strict=True):
            axes.annotate(setting, place, (5, -10), textcoords="offset points", fontsize=8)
    axes.set(xscale="log", xlabel="milliseconds a query", ylabel="recall@10, %", ylim=(0, 105))
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def main(count="1000000", scored="10000", dim="128", folder="docs") -> None:
    sizes = int(count), int(dim), int(scored)
    rows: dict[tuple[str, str], dict[str, float]] = {}
    print(f"{sizes[0]:,} codes x {dim}, {sizes[2]:,} queries, {DEPTH} images each")
    print(f"{'':<26}", *(f"{key.replace('_', ' '):>22}" for key in COLUMNS))
    with (
        tempfile.TemporaryDirectory() as room,
        ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
        ) as processes,
    ):
        for index in ("exact", *SETTINGS):
            found = processes.submit(measure, index, sizes, Path(room)).result()
            for name, row in found.items():
                cells = (f"{value:22,.{COLUMNS[key]}f}" for key, value in row.items())
                print(f"{' '.join(name):<26}", *cells, flush=True)
            rows |= found
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder, "search.csv"), "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "settings", *COLUMNS])
        for name, row in rows.items():
            writer.writerow([*name, *(round(row[key], COLUMNS[key]) for key in COLUMNS)])
    nothing = {"Software": None}  # the same bytes of the same figures
    picture(rows).savefig(Path(folder, "search.png"), dpi=120, metadata=nothing)


if __name__ == "__main__":
    main(*sys.argv[1:])
