"""What was measured on a dataset, read back from metrics/ for pages and tables."""

import csv
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pydantic

from stages import codes, files
from stages.command import UserError

_LABELS = {
    "l2": "L2",
    "l2_normalised": "L2-normalised",
    "centred_l2_normalised": "centred, L2-normalised",
    "l2_centred_l2_normalised": "twice L2-normalised",
    "top5_accuracy": "top-5 accuracy",
    "cross_entropy": "cross-entropy",
    "pair_auc": "pair AUC",
    "precision_at_1": "precision@1",
    "precision_at_5": "precision@5",
    "r_precision": "R-precision",
    "mean_average_precision_at_r": "mAP@R",
    "recall_at_1": "recall@1",
    "recall_at_10": "recall@10",
}


Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
_Count = Annotated[str, pydantic.Field(pattern="^[1-9][0-9]*$")]  # a key


class _Metrics(pydantic.BaseModel):
    """Part of a metrics file: the keys that there must be, and of what type all others are."""

    model_config = pydantic.ConfigDict(extra="allow", strict=True)


class _Figures(_Metrics):
    ci95_low: Finite
    ci95_high: Finite
    __pydantic_extra__: dict[str, Finite]


class _Accuracy(_Figures):
    accuracy: Finite


class _Precision(_Figures):
    mean_average_precision: Finite


class _Ranked(_Precision):
    mean_average_precision_at_r: Finite
    precision_at_1: Finite
    precision_at_5: Finite
    r_precision: Finite


class _Scored(_Metrics):
    """What is expanded is shown beside the same codes as they are, so they have to be there."""

    @pydantic.model_validator(mode="after")
    def _with_those_as_they_are(self) -> "_Scored":
        for layer, distances in self.expanded.items():
            for distance in distances:
                if distance not in (self.__pydantic_extra__ or {}).get(layer, {}):
                    raise ValueError(f"expanded/{layer}/{distance}, but no {layer}/{distance}")
        return self


class _OneShot(_Scored):
    chance: Finite
    tasks: int
    pixels: dict[str, _Accuracy] = {}
    untrained: dict[str, dict[str, _Accuracy]] = {}
    expanded: dict[str, dict[str, dict[_Count, _Accuracy]]] = {}
    __pydantic_extra__: dict[str, dict[str, _Accuracy]]


class _Searched(_Metrics):
    recall_at_1: Finite
    recall_at_10: Finite
    mean_average_precision: Finite
    bytes_per_code: Finite


_NAMES = ("series", "index")  # columns of a CSV file that hold words
_SEARCHED = (*_Searched.model_fields, "build_seconds", "query_milliseconds")


class _Retrieval(_Scored):
    chance: Finite
    queries: int
    pixels: dict[str, _Ranked] = {}
    untrained: dict[str, dict[str, _Ranked]] = {}
    pca: dict[str, dict[_Count, dict[str, _Precision]]] = {}
    expanded: dict[str, dict[str, dict[_Count, _Precision]]] = {}
    search: dict[str, dict[str, dict[str, _Searched]]] = {}
    __pydantic_extra__: dict[str, dict[str, _Ranked]]


def seen_measure(figures: dict[str, float]) -> str:
    """Return which figure of the seen classes' images stands for all: a classifier's accuracy.

    Of a siamese network the pair AUC.

    Raises:
        ValueError: when there is neither.
    """
    for measure in ("accuracy", "pair_auc"):
        if measure in figures:
            return measure
    raise ValueError("neither accuracy nor pair_auc")


def _has_seen_measure(figures: dict[str, float]) -> dict[str, float]:
    seen_measure(figures)
    return figures


class _Seen(_Metrics):
    train: Annotated[dict[str, Finite], pydantic.AfterValidator(_has_seen_measure)]
    test: Annotated[dict[str, Finite], pydantic.AfterValidator(_has_seen_measure)]
    __pydantic_extra__: dict[str, dict[str, Finite]]


class _Network(_Metrics):
    parameters: int
    seen: _Seen


class _Run(_Metrics):
    epochs: int
    seconds: Finite
    images_per_second: int
    device: str
    cores: int
    backend: str
    versions: dict[str, str]


_COURSES = {  # files of a course, and the columns of its axes
    "ways": ("ways", "accuracy"),
    "recall": ("recall", "precision"),
    "expansion": ("nearest", "mean_average_precision"),
}

_PARTS = {
    "network": pydantic.TypeAdapter(_Network),
    "run": pydantic.TypeAdapter(_Run),
    "oneshot": pydantic.TypeAdapter(dict[str, _OneShot]),
    "retrieval": pydantic.TypeAdapter(_Retrieval),
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


def minutes(seconds: float) -> str:
    """Return seconds in minutes, to the tenth, or to the first digit that is not 0."""
    return f"{seconds / 60:.1f}" if seconds >= 3 else f"{seconds / 60:.1g}"


def read_results(dataset: str) -> dict[str, dict[str, Any]]:
    """Return what stands in the folder of each experiment; None is what is not there."""
    results = {}
    for folder in sorted(path for path in Path("metrics", dataset).glob("*") if path.is_dir()):
        results[folder.name] = {"history": read_history(folder / "history.csv")}
        for part, columns in _COURSES.items():
            results[folder.name][part] = read_courses(folder / f"{part}.csv", *columns)
        results[folder.name]["search"] = read_search(folder / "search.csv")
        for part in _PARTS:
            there = (folder / f"{part}.json").exists()
            results[folder.name][part] = read_metrics(folder, part) if there else None
    return results


def read_metrics(folder: Path, part: str) -> dict[str, Any]:
    """Return the content of a metrics file of an experiment.

    Args:
        folder: of the experiment, metrics/<dataset>/<experiment>.
        part: `network`, `run`, `oneshot` or `retrieval`.

    Raises:
        UserError: for a file that is missing, no JSON, or without the figures that it should have.
    """
    return read_checked(folder / f"{part}.json", _PARTS[part])


def read_checked(path: Path, form: pydantic.TypeAdapter) -> dict[str, Any]:
    """Return the content of a JSON file of a form.

    Raises:
        UserError: for a file that is missing, no JSON, or of another form.
    """
    content = files.read_json(path)
    try:
        form.validate_python(content)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        place = "/".join(map(str, problem["loc"])) or "all of it"
        raise UserError(
            f"{path}: {place}: {problem['msg']}; delete it and run {files.maker_of(path)}"
        ) from None
    return content


def read_history(path: Path) -> list[dict[str, float]] | None:
    """Return the rows of history.csv, one an epoch, or None without any."""
    return [
        {name: float(value or math.nan) for name, value in row.items()}
        for row in _read_table(path, "epoch", "loss")
    ] or None


def read_courses(path: Path, x: str, y: str) -> dict[str, list[tuple[float, float]]]:
    """Return the points of each series of a CSV file by two of its columns; none without it."""
    courses: dict[str, list[tuple[float, float]]] = {}
    for row in _read_table(path, "series", x, y):
        courses.setdefault(row["series"], []).append((float(row[x]), float(row[y])))
    return courses


def read_search(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of search.csv by series, layer and distance, and by index; or none."""
    searched: dict[str, dict[str, dict[str, float]]] = {}
    for row in _read_table(path, *_NAMES, *_SEARCHED):
        figures = {name: float(row[name]) for name in _SEARCHED}
        searched.setdefault(row["series"], {})[row["index"]] = figures
    return searched


def _read_table(path: Path, *columns: str) -> list[dict[str, str]]:
    """Return the rows of a CSV file by the names of its columns; none without the file.

    Args:
        path: the file.
        columns: that there must be among others; all but names hold numbers, other ones numbers
            or nothing.

    Raises:
        UserError: for a file that is damaged.
    """
    if not path.exists():
        return []
    try:
        names, *rows = list(csv.reader(path.read_text(encoding="utf-8").splitlines(), strict=True))
        table = [dict(zip(names, row, strict=True)) for row in rows]
        if not set(columns) <= set(names) or len(set(names)) < len(names):
            raise ValueError(f"expected columns, {' and '.join(columns)} among them, got {names}")
        for row in table:
            words = [row[name] for name in _NAMES if name in row]
            if not all(map(str.isprintable, words)):
                raise ValueError(f"{words} are no names")
            for name, value in row.items():
                asked = name in columns or value
                if name not in _NAMES and asked and not math.isfinite(float(value or "nan")):
                    raise ValueError(f"{value!r} is no figure of {name}")
    except (ValueError, csv.Error) as error:
        raise UserError(
            f"{path}: damaged CSV file ({str(error)[:200]}); delete it and run "
            f"{files.maker_of(path)}"
        ) from None
    return table


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


def expanded_courses(
    scores: dict[str, Any], measure: str
) -> dict[tuple[str, str], dict[int, float]]:
    """Return figures by how many nearest images' codes are averaged with each; 0: the codes alone.

    Args:
        scores: the content of retrieval.json or of one task set in oneshot.json.
        measure: which figure.

    Returns:
        By (layer, distance) the figures, by the number of nearest images; none without any.
    """
    return {
        (layer, distance): {0: scores[layer][distance][measure]}
        | {int(count): figures[measure] for count, figures in by_count.items()}
        for layer, distances in scores.get("expanded", {}).items()
        for distance, by_count in distances.items()
    }


def most_ways(sets: dict[str, dict[str, Any]]) -> str | None:
    """Return the task set with the most ways, of several the first; None without any.

    Args:
        sets: by their names, such as the content of oneshot.json, each with `chance`.
    """
    return min(sets, key=lambda name: sets[name]["chance"], default=None)


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
