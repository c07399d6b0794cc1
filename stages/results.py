"""What was measured on a dataset, read back from metrics/ for pages and tables."""

import csv
import dataclasses
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import codes, files

_LABELS = {
    "l2": "L2",
    "l2_normalised": "L2-normalised",
    "centred_l2_normalised": "centred, L2-normalised",
    "top5_accuracy": "top-5 accuracy",
    "cross_entropy": "cross-entropy",
    "pair_auc": "pair AUC",
    "precision_at_1": "precision@1",
    "precision_at_5": "precision@5",
    "r_precision": "R-precision",
    "mean_average_precision_at_r": "mAP@R",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """The figures of one representation of the unseen images.

    Attributes:
        experiment: whose network it is, or None for pixels.
        layer: which layer's codes, or "pixels".
        trained: False for an untrained network and for pixels.
        figures: by distance, then by measure.
    """

    experiment: str | None
    layer: str
    trained: bool
    figures: dict[str, dict[str, float]]


def label(name: str) -> str:
    """Return a name from params.yaml or from a metrics file as words."""
    return _LABELS.get(name, name.replace("_", " "))


def percent(fraction: float) -> str:
    """Return a fraction in percent, to the tenth: ten times finer than the usual interval."""
    return f"{100 * fraction:.1f}"


def points(change: float) -> str:
    """Return the difference of two fractions in points of a percentage, with its sign."""
    text = f"{100 * change:+.1f}"
    return "0.0" if text[1:] == "0.0" else text.replace("-", "\N{MINUS SIGN}")


def read_results(dataset: str) -> dict[str, dict[str, Any]]:
    """Return what stands in the folder of each experiment; None is what is not there."""
    results = {}
    for folder in sorted(path for path in Path("metrics", dataset).glob("*") if path.is_dir()):
        results[folder.name] = {"history": read_history(folder / "history.csv")}
        for part in ("ways", "recall"):
            results[folder.name][part] = read_courses(folder / f"{part}.csv")
        for part in ("network", "run", "oneshot", "retrieval"):
            path = folder / f"{part}.json"
            results[folder.name][part] = files.read_json(path) if path.exists() else None
    return results


def read_history(path: Path) -> list[dict[str, float]] | None:
    """Return the rows of history.csv, one an epoch, or None without any."""
    if not path.exists():
        return None
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{key: float(row[key] or math.nan) for key in row} for row in rows] or None


def read_courses(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each series of ways.csv or recall.csv; none without the file."""
    courses: dict[str, list[tuple[float, float]]] = {}
    if path.exists():
        with open(path, encoding="utf-8", newline="") as file:
            for series, x, y, *_ in itertools.islice(csv.reader(file), 1, None):
                courses.setdefault(series, []).append((float(x), float(y)))
    return courses


def rows_of(scores: dict[str, dict]) -> Iterator[Row]:
    """Yield the rows of one kind of score: pixels once, then the layers of each experiment.

    Args:
        scores: by experiment, the content of retrieval.json or of one task set in oneshot.json.
    """
    pixels: dict = {}
    for found in scores.values():
        pixels |= found.get("pixels", {})  # the same for every experiment
    if pixels:
        yield Row(None, "pixels", False, pixels)
    for experiment, found in scores.items():
        for layer, figures in found.items():
            if isinstance(figures, dict) and layer not in codes.BESIDE:
                yield Row(experiment, layer, True, figures)
                if untrained := found.get("untrained", {}).get(layer):
                    yield Row(experiment, layer, False, untrained)


def best_of(scores: dict[str, Any], measure: str) -> dict[str, Any] | None:
    """Return the best figures of an experiment's trained layers, None without any.

    Args:
        scores: the content of retrieval.json or of one task set in oneshot.json.
        measure: by which they are the best; of equal ones the first.

    Returns:
        The figures, with `layer` and `distance`.
    """
    found = [
        {"layer": row.layer, "distance": distance, **figures}
        for row in rows_of({"": scores})
        if row.trained
        for distance, figures in row.figures.items()
    ]
    return max(found, key=lambda figures: figures[measure], default=None)
