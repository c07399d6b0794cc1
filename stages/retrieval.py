"""Stage `retrieval`: each unseen image a query against all the others.

data/codes/<dataset>/<experiment>  ->  in metrics/<dataset>/<experiment>:
retrieval.json, recall.csv and compression.csv; and pictures of what was found:
data/pictures/<dataset>/<experiment>/<layer>.png
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages import codes, files, params, pictures
from stages.command import run
from stages.measures.compression import compressed
from stages.measures.intervals import bootstrap_mean
from stages.measures.ranking import RECALLS, chance_average_precision, retrieval_scores

_DIGITS = 6  # decimals of a fraction in a metrics file, far below any interval's width

_MEANS = {  # name in the metrics file: name of the scores of which it is the mean over queries
    "precision_at_1": "precision_at_1",
    "precision_at_5": "precision_at_5",
    "r_precision": "r_precision",
    "mean_average_precision_at_r": "average_precision_at_r",
}


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
    courses: list[tuple[str, float, float]] = []
    scored = itertools.chain(
        codes.spaces(*here, chosen.distances),
        compressed_spaces(*here, chosen.dimensions, seed=settings.seed),
    )
    for space in scored:
        with codes.refused(experiment.dataset, name):
            scores = retrieval_scores(space.codes, labels, block_bytes=chosen.memory * 2**20)
        rng = np.random.default_rng(settings.seed)  # the same resamples for each: paired
        found[space.keys] = figures(scores, rng, chosen.resamples)
        if space.keys[0] != "pca":
            curve = zip(RECALLS, scores["precision_at_recall"].mean(axis=0), strict=True)
            courses += [("/".join(space.keys), *map(float, point)) for point in curve]
        mean = found[space.keys]["mean_average_precision"]
        print(f"{name}: {'/'.join(space.keys)}: mAP {mean:.3f}", flush=True)
    metrics = Path("metrics", experiment.dataset, name)
    files.write_json(metrics / "retrieval.json", codes.nested(found))
    files.write_csv(metrics / "recall.csv", ("series", "recall", "precision"), courses)
    files.write_csv(
        metrics / "compression.csv",
        ("series", "dimensions", "mean_average_precision"),
        [
            (f"{keys[1]}/{keys[3]}", int(keys[2]), figure["mean_average_precision"])
            for keys, figure in found.items()
            if keys[0] == "pca"
        ],
    )
    with files.replacing(Path("data/pictures", experiment.dataset, name)) as folder:
        folder.mkdir()
        for grid in pictures.nearest_grids(*here, chosen.pictures):
            pictures.write(folder / f"{grid.layer}.png", grid)


if __name__ == "__main__":
    run(main)
