"""What was published elsewhere, beside what is measured here."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from stages import params
from stages.results import label, rows_of

# Measures of the seen classes, and of which of their images.
SEEN = {
    "accuracy on the seen classes": "test",
    "accuracy on the seen classes, validation images": "validation",
}


class Measured(NamedTuple):
    """An experiment's own figure of what was published, and the ends of its 95 % interval.

    Where no interval is measured, as of accuracy on the seen classes, both ends are the figure.
    """

    experiment: str
    figure: float
    low: float
    high: float


def beside_ours(
    settings: params.Params, results: dict[str, dict[str, dict]]
) -> Iterator[tuple[str, params.Published, dict[str, Measured | None]]]:
    """Yield each published figure with its dataset and what stands beside it; see `counterparts`.

    Those of compressed codes are left out: the page of their dataset shows them.

    Args:
        settings: the params.
        results: what was read, by dataset and experiment.
    """
    for dataset, chosen in settings.datasets.items():
        for each in chosen.published:
            if not each.dimensions:
                yield dataset, each, counterparts(each, dataset, settings, results[dataset])


def words(each: params.Published) -> str:
    """Return what was measured, and by which distance where it is told."""
    measure = "retrieval, mAP" if each.measure == "retrieval" else label(each.measure)
    return f"{measure}, {label(each.distance)}" if each.distance else measure


def part_of(each: params.Published) -> str:
    """Return of what a published figure is: `seen` classes, `retrieval` or `oneshot` tasks."""
    if each.measure in SEEN:
        return "seen"
    return "retrieval" if each.measure == "retrieval" else "oneshot"


def measured(each: params.Published, name: str, found: dict[str, Any]) -> Measured | None:
    """Return an experiment's own figure of a published measure, None if it has none.

    Args:
        each: what was published: its measure and, if they are told, the layer and the distance.
        name: of the experiment.
        found: what was read of it.
    """
    part = part_of(each)
    if part == "seen":
        seen = (found["network"] or {"seen": {}})["seen"]
        figure = seen.get(SEEN[each.measure], {}).get("accuracy")
        return None if figure is None else Measured(name, figure, figure, figure)
    scores, measure = found[part], "mean_average_precision"
    if part == "oneshot":
        measure = "accuracy"
        scores = (scores or {}).get(each.measure.removesuffix(" one-shot"))
    figures = [
        Measured(
            name,
            figures[measure],
            figures.get("ci95_low", figures[measure]),
            figures.get("ci95_high", figures[measure]),
        )
        for row in rows_of({"": scores or {}})
        if each.layer in (None, row.layer) and (row.trained or each.layer == "pixels")
        for distance, figures in row.figures.items()
        if each.distance in (None, distance)
    ]
    return max(figures, key=lambda own: own.figure, default=None)


def counterparts(
    each: params.Published, dataset: str, settings: params.Params, results: dict[str, dict]
) -> dict[str, Measured | None]:
    """Return what stands beside a published figure.

    Returns:
        `same`: the first experiment of the same network, or the first of all where it is of pixels;
        `best`: the best one, of any network, layer and distance. None without any.
    """
    own = {
        name: results[name]
        for name, experiment in settings.experiments.items()
        if experiment.dataset == dataset and name in results
    }
    if each.measure in SEEN:  # of fewer classes it is no counterpart
        whole = settings.datasets[dataset].split.seen_train.count("classes")
        own = {n: v for n, v in own.items() if settings.experiments[n].images.classes == whole}
    any_layer = each.model_copy(update={"layer": None, "distance": None})
    same = (
        measured(each, name, found)
        for name, found in own.items()
        if each.layer == "pixels" or settings.experiments[name].network.name == each.network
    )
    best = filter(None, (measured(any_layer, name, found) for name, found in own.items()))
    return {
        "same": next(filter(None, same), None),
        "best": max(best, key=lambda own: own.figure, default=None),
    }


def best_accuracy(settings: params.Params, dataset: str) -> float | None:
    """Return the highest accuracy on the seen classes that was published, None without any."""
    return max(
        (
            each.figure
            for each in settings.datasets[dataset].published
            if SEEN.get(each.measure) == "test"
        ),
        default=None,
    )
