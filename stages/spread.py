"""What several seeds say of an experiment, and of two: read back from metrics/seeds."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic

from stages import files, params
from stages.command import UserError
from stages.measures.comparison import paired_by_seed
from stages.seeds import Figure, Spread

_WORDS = {"network": "seen classes", "retrieval": "retrieval, mAP"}
_MEASURES = {"accuracy", "mean_average_precision"}


def read(name: str) -> Spread:
    """Return what an experiment measured from several seeds.

    Raises:
        UserError: for a file that is missing, no JSON, or without a value of every seed.
    """
    path = Path("metrics/seeds", f"{name}.json")
    content = files.read_json(path)
    try:
        return Spread.model_validate(content)
    except pydantic.ValidationError as error:
        raise UserError(
            f"{path}: damaged ({str(error)[:200]}); delete it and run {files.maker_of(path)}"
        ) from None


def ended(settings: params.Params) -> dict[str, Spread]:
    """Return by experiment what several seeds measured, of those whose seeds have ended."""
    return {
        name: read(name)
        for name in settings.seeds
        if Path("metrics/seeds", f"{name}.json").exists()
    }


def best_by_measure(found: Spread) -> dict[str, tuple[tuple[str, ...], Figure]]:
    """Return of each measure the layer and distance whose mean over the seeds is highest.

    Returns:
        (where, figure) by the measure in words; where is (layer, distance), or () of seen classes.
    """
    best: dict[str, tuple[tuple[str, ...], Figure]] = {}
    for path, figure in found.figures.items():
        part, *place, measure = path.split("/")
        if measure not in _MEASURES:
            continue
        if part == "oneshot":
            tasks, *place = place
            words = f"{tasks.replace('_', ' ')} one-shot"
        else:
            words = _WORDS[part]
        where = () if part == "network" else tuple(place)
        if words not in best or figure.mean > best[words][1].mean:
            best[words] = where, figure
    return best


def rows(settings: params.Params) -> Iterator[dict[str, Any]]:
    """Yield a row for each experiment with several seeds and each of its measures.

    Yields:
        `experiment`, `dataset`, `seeds` (how many), `measure` in words, `where` (layer and
        distance), `mean`, `sd`; and `against`, the experiment from which it differs in a single
        setting, or else the first one of the dataset, of those that have these seeds, too, with
        what `paired_by_seed` says of both as `compared`: None where it is the first.
    """
    # By experiment the first one from which it differs in a single setting.
    varied = {each.second: each.first for each in reversed(settings.differences())}
    there = ended(settings)
    for name, found in there.items():
        dataset = settings.seeds[name].dataset
        alike = [
            other for other in there
            if settings.seeds[other].dataset == dataset
            and there[other].seeds[: len(found.seeds)] == found.seeds
        ]  # fmt: skip
        reference = varied[name] if varied.get(name) in alike else alike[0]
        beside = best_by_measure(there[reference])
        for measure, (where, figure) in best_by_measure(found).items():
            compared = None
            if reference != name and measure in beside:
                theirs = beside[measure][1].values[: len(found.seeds)]
                compared = paired_by_seed(figure.values, theirs)
            yield {
                "experiment": name,
                "dataset": dataset,
                "seeds": len(found.seeds),
                "measure": measure,
                "where": where,
                "mean": figure.mean,
                "sd": figure.sd,
                "against": reference if compared else None,
                "compared": compared,
            }
