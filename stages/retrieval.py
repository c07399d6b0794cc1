"""Stage `retrieval`: each unseen image a query against all the others.

data/codes/<dataset>/<experiment>  ->  in metrics/<dataset>/<experiment>:
retrieval.json, recall.csv, compression.csv, expansion.csv and search.csv; and pictures of what was
found:
data/pictures/<dataset>/<experiment>/<layer>.png
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages import codes, files, params, pictures
from stages.command import UserError, run
from stages.engine import engine
from stages.measures.compression import compressed
from stages.measures.intervals import bootstrap_mean
from stages.measures.ranking import RECALLS, chance_average_precision, retrieval_scores
from stages.measures.search import exact_search, index_search, search_scores

_DIGITS = 6  # decimals of a fraction in a metrics file, far below any interval's width

_MEANS = {  # name in the metrics file: name of the scores of which it is the mean over queries
    "precision_at_1": "precision_at_1",
    "precision_at_5": "precision_at_5",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "average_precision_at_r",
}
_TIMES = ("build_seconds", "query_milliseconds")  # never the same twice: not in retrieval.json
_SEARCHED = ("recall_at_1", "recall_at_10", "mean_average_precision", *_TIMES, "bytes_per_code")


def figures(
    scores: dict[str, np.ndarray], rng: np.random.Generator, resamples: int
) -> dict[str, float]:
    """Return means over queries, and the 95 % bootstrap interval of the first.

    Args:
        scores: of each query, as `retrieval_scores` returns them.
        rng: where the resamples come from.
        resamples: number of bootstrap resamples of the queries.
    """
    precision = scores["average_precision"]
    low, high = bootstrap_mean(precision, rng, resamples=resamples)
    named = {"mean_average_precision": precision.mean(), "ci95_low": low, "ci95_high": high}
    named |= {name: scores[each].mean() for name, each in _MEANS.items()}
    return {name: round(float(value), _DIGITS) for name, value in named.items()}


def compressed_spaces(
    dataset: str, name: str, layers: list[str], dimensions: list[int], *, seed: int
) -> Iterator[codes.Space]:
    """Yield an experiment's trained codes in fewer dimensions, compared at unit length.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        layers: names of the layers whose codes were written.
        dimensions: to which to compress; see `compressed`.
        seed: of the decomposition.

    Raises:
        UserError: for files that are missing or damaged.
    """
    for layer in layers:
        unseen, seen = codes.read(dataset, name, "trained", layer)
        with codes.refused(dataset, name):
            for each, kinds in compressed(unseen, seen, dimensions, seed=seed):
                for kind, cut in kinds.items():
                    yield codes.Space(("pca", layer, str(each), kind), cut)


def searches(
    dataset: str, name: str, chosen: params.Retrieval, layers: list[str], labels: np.ndarray
) -> Iterator[tuple[tuple[str, str, str], dict[str, float]]]:
    """Yield what exact search and each index find of an experiment's trained codes.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        chosen: the experiment's params of retrieval; without indexes there is nothing to yield.
        layers: names of the layers whose codes were written.
        labels: (images,), the class of each unseen image; all of them are queries.

    Yields:
        Layer, distance and index, first "exact"; and the figures.

    Raises:
        UserError: for files that are missing or damaged, without faiss, and for an index that it
            refuses.
    """
    if not chosen.search.indexes:
        return
    queries, depth = np.arange(len(labels)), chosen.search.depth
    setting = f"params.yaml: experiments.{name}.retrieval.search.indexes"
    for space in codes.trained_spaces(dataset, name, layers, chosen.distances):
        with codes.refused(dataset, name):
            memory = chosen.memory * 2**20
            exact = exact_search(space.codes, queries, depth=depth, block_bytes=memory)
        found = {"exact": exact}
        for index in chosen.search.indexes:
            try:
                found[index] = index_search(index, space.codes, queries, depth=depth)
            except ImportError:
                raise UserError(
                    f'{setting}: faiss is not installed; pip install -e ".[search]", or leave the '
                    "indexes empty"
                ) from None
            except ValueError as error:
                raise UserError(
                    f"{setting}: {error}; {'/'.join(space.keys)} has "
                    f"{len(labels)} codes of {space.codes.shape[1]} dimensions"
                ) from None
        for index, each in found.items():
            with codes.refused(dataset, name):
                scores = search_scores(each, exact, space.codes, labels, queries)
            measured = {key: value.mean() for key, value in scores.items()} | each._asdict()
            measured["mean_average_precision"] = measured["average_precision"]
            yield (
                (*space.keys, index),
                {key: round(float(measured[key]), _DIGITS) for key in _SEARCHED},
            )


def main(name: str) -> None:
    """Score one experiment."""
    settings = params.load()
    experiment = settings.experiment(name)
    chosen = experiment.retrieval
    labels = codes.labels_of(experiment.dataset)
    found = {
        ("queries",): len(labels),
        ("chance",): round(chance_average_precision(labels), _DIGITS),
    }
    layers = experiment.codes.layers
    here = experiment.dataset, name, layers
    searched = dict(searches(experiment.dataset, name, chosen, layers, labels))
    courses: list[tuple[str, float, float]] = []
    scored = itertools.chain(
        codes.spaces(*here, chosen.distances),
        compressed_spaces(*here, chosen.dimensions, seed=settings.seed),
        codes.expanded_spaces(
            *here, chosen.distances, chosen.query_expansion, block_bytes=chosen.memory * 2**20
        ),
    )
    with engine(settings.cluster.scheduler) as workers:
        for space in scored:
            with codes.refused(experiment.dataset, name):
                scores = retrieval_scores(
                    space.codes,
                    labels,
                    block_bytes=chosen.memory * 2**20,
                    query_codes=space.queries,
                    shards=settings.cluster.shards,
                    workers=workers,
                )
            rng = np.random.default_rng(settings.seed)  # the same resamples for each: paired
            found[space.keys] = figures(scores, rng, chosen.resamples)
            if space.keys[0] not in ("pca", "expanded"):
                curve = zip(RECALLS, scores["precision_at_recall"].mean(axis=0), strict=True)
                courses += [("/".join(space.keys), *map(float, point)) for point in curve]
            mean = found[space.keys]["mean_average_precision"]
            print(f"{name}: {'/'.join(space.keys)}: mAP {mean:.3f}", flush=True)
    metrics = Path("metrics", experiment.dataset, name)
    found |= {
        ("search", *keys): {key: value for key, value in row.items() if key not in _TIMES}
        for keys, row in searched.items()
    }
    files.write_json(metrics / "retrieval.json", codes.nested(found))
    files.write_csv(metrics / "recall.csv", ("series", "recall", "precision"), courses)
    files.write_csv(
        metrics / "search.csv",
        ("series", "index", *_SEARCHED),
        [("/".join(keys[:2]), keys[2], *row.values()) for keys, row in searched.items()],
    )
    files.write_csv(
        metrics / "compression.csv",
        ("series", "dimensions", "mean_average_precision"),
        [
            (f"{keys[1]}/{keys[3]}", int(keys[2]), figure["mean_average_precision"])
            for keys, figure in found.items()
            if keys[0] == "pca"
        ],
    )
    asked = [keys for keys in found if keys[0] == "expanded"]
    curves = {keys[1:3]: [(0, found[keys[1:3]])] for keys in asked}
    for keys in asked:
        curves[keys[1:3]].append((int(keys[3]), found[keys]))
    files.write_csv(
        metrics / "expansion.csv",
        ("series", "nearest", "mean_average_precision"),
        [
            ("/".join(keys), count, figure["mean_average_precision"])
            for keys, curve in curves.items()
            for count, figure in curve
        ],
    )
    with files.replacing(Path("data/pictures", experiment.dataset, name)) as folder:
        folder.mkdir()
        for grid in pictures.nearest_grids(*here, chosen.pictures):
            pictures.write(folder / f"{grid.layer}.png", grid)


if __name__ == "__main__":
    run(main)
