"""What was published elsewhere, beside what is measured here."""

from collections.abc import Iterator
from typing import Any

from stages import params
from stages.results import best_of


def beside_ours(
    settings: params.Params, results: dict[str, dict[str, dict]]
) -> Iterator[tuple[str, params.Published, dict[str, tuple[str, float] | None]]]:
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


def figure_of(each: params.Published, found: dict[str, Any]) -> float | None:
    """Return an experiment's own figure of a published measure, None if it has none.

    Args:
        each: what was published: its measure and, if any, the layer.
        found: what was read of the experiment.
    """
    if each.measure == "accuracy on the seen classes":
        return ((found["network"] or {"seen": {"test": {}}})["seen"]["test"]).get("accuracy")
    kind, measure = "retrieval", "mean_average_precision"
    scores = found["retrieval"]
    if each.measure != kind:
        measure = "accuracy"
        scores = (found["oneshot"] or {}).get(each.measure.removesuffix(" one-shot"))
    if scores and each.layer:
        scores = {each.layer: scores[each.layer]} if each.layer in scores else None
    best = best_of(scores, measure) if scores else None
    return best and best[measure]


def counterparts(
    each: params.Published, dataset: str, settings: params.Params, results: dict[str, dict]
) -> dict[str, tuple[str, float] | None]:
    """Return what stands beside a published figure: an experiment and its figure.

    Returns:
        `same`: the first experiment of the same network; `best`: the best one, of any network
        and layer. None without any.
    """
    own = {
        name: results[name]
        for name, experiment in settings.experiments.items()
        if experiment.dataset == dataset and name in results
    }
    if each.measure == "accuracy on the seen classes":  # of fewer classes it is no counterpart
        whole = settings.datasets[dataset].split.seen_train.count("classes")
        own = {n: v for n, v in own.items() if settings.experiments[n].images.classes == whole}
    any_layer = each.model_copy(update={"layer": None})
    same = [
        (name, figure)
        for name, found in own.items()
        if settings.experiments[name].network.name == each.network
        and (figure := figure_of(each, found)) is not None
    ]
    best = [
        (name, figure)
        for name, found in own.items()
        if (figure := figure_of(any_layer, found)) is not None
    ]
    return {
        "same": same[0] if same else None,
        "best": max(best, key=lambda pair: pair[1], default=None),
    }


def best_accuracy(settings: params.Params, dataset: str) -> float | None:
    """Return the highest accuracy on the seen classes that was published, None without any."""
    return max(
        (
            each.figure
            for each in settings.datasets[dataset].published
            if each.measure == "accuracy on the seen classes"
        ),
        default=None,
    )
