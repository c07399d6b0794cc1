"""Stage `report`: one page of all that was measured on a dataset.

metrics/<dataset>/<experiment>, data/arrays, data/tasks, data/codes  ->  reports/<dataset>.html

The page is one file that asks nothing of a network. It shows the experiments that stand under
metrics/<dataset>; what one of them lacks is said in its place. Here figures are gathered, drawn
and pictured; report.html puts them into words and tables, and escapes every text.
"""

import base64
import csv
import dataclasses
import io
import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from PIL import Image

from stages import codes, files, params, pictures
from stages.command import UserError, run
from stages.measures.episodes import support_distances

_LOOKED_AT = 500  # first tasks of a set, among which those to picture are found
_PICTURED = 3  # tasks chosen right, and as many chosen wrong, of each experiment
_FOUND = params.Pictures(queries=10, nearest=5)  # pictured of each layer
_PICTURE_BYTES = 2_000_000  # pixels of a whole page; many experiments picture fewer tasks each

_KINDS = {"l2_normalised": ("", False), "whitened": (", whitened", True)}  # and if dashed
_COMPRESSED = "PCA to "  # a published measure, and the dimensions

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

# Drawings are made in stand-ins for colours, and the page's style says what each of them is, so
# that one drawing is right on light and on dark paper.
_INK, _RULE, _PAPER, *_PAINTS = (f"#f0f0{number:02}" for number in range(9))
_MARKERS = "osD^vP"
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",  # the same ids in every run
    "font.size": 10,
    "legend.frameon": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    **dict.fromkeys(("axes.spines.left", "axes.spines.right", "axes.spines.top"), False),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color"), _RULE),
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


def section(name: str, scores: dict[str, dict], measure: str) -> dict[str, Any]:
    """Return what the page says of one kind of score: its rows, their drawing, the best of each.

    Args:
        name: of the task set, or "retrieval".
        scores: see `rows_of`; at least one.
        measure: the measure that has intervals, and is drawn.
    """
    rows = list(rows_of(scores))
    found = next(iter(scores.values()))
    best: dict[str, dict] = {}  # by experiment; the first of equal ones
    for row in rows:
        for distance, figures in row.figures.items() if row.trained else ():
            if figures[measure] > best.get(row.experiment, {measure: -1})[measure]:
                best[row.experiment] = {"layer": row.layer, "distance": distance, **figures}
    content = {
        "name": name,
        "measure": measure,
        "chance": found["chance"],
        "count": found["queries"] if "queries" in found else found["tasks"],
        "distances": list(dict.fromkeys(distance for row in rows for distance in row.figures)),
        "rows": rows,
        "best": best,
    }
    return content | {"drawing": dots(**content)}


def sections(results: dict[str, dict]) -> tuple[list[dict], dict | None]:
    """Return the section of each task set that any experiment has, and that of retrieval."""
    sets: dict[str, dict] = {}
    for experiment, found in results.items():
        for name, scores in (found["oneshot"] or {}).items():
            sets.setdefault(name, {})[experiment] = scores
    ranked = {name: found["retrieval"] for name, found in results.items() if found["retrieval"]}
    return (
        [section(name, scores, "accuracy") for name, scores in sets.items()],
        section("retrieval", ranked, "mean_average_precision") if ranked else None,
    )


def dots(
    *, name: str, rows: list[Row], distances: list[str], measure: str, chance: float, **_: Any
) -> markupsafe.Markup:
    """Draw each figure with its interval, in a band for each layer's codes and for pixels."""
    bands: dict[tuple, list[Row]] = {}
    for row in rows:
        bands.setdefault((row.experiment, row.layer), []).append(row)
    paints = [(_PAINTS[index % 6], _MARKERS[index % 6]) for index in range(len(distances))]
    lines = len(distances) + 1.4  # of a band: its title, a line a distance, a gap
    with matplotlib.rc_context(_STYLE):
        figure = Figure((3.9, 1.1 + 0.18 * lines * len(bands)), layout="constrained")
        axes = figure.subplots()
        axes.set(ylim=(lines * len(bands) - 0.7, -1), yticks=[], xlabel=f"{label(measure)}, %")
        left, top = axes.get_yaxis_transform(), axes.get_xaxis_transform()
        axes.axvline(100 * chance, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.text(100 * chance, 1.01, f"chance {percent(chance)} %", transform=top)
        for number, ((experiment, layer), members) in enumerate(bands.items()):
            title = f"{experiment}: {label(layer)}" if experiment else label(layer)
            behind = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1}
            axes.text(0, lines * number, title, transform=left, va="center", bbox=behind)
            for row in members:
                for line, (distance, paint) in enumerate(zip(distances, paints, strict=True), 1):
                    if figures := row.figures.get(distance):
                        ends = figures["ci95_low"], figures[measure], figures["ci95_high"]
                        _dot(axes, lines * number + line, *ends, *paint, filled=row.trained)
        handles = [
            Line2D([], [], color=color, marker=marker, linestyle="", label=label(distance))
            for distance, (color, marker) in zip(distances, paints, strict=True)
        ]
        spacing = {"handletextpad": 0, "columnspacing": 1}
        figure.legend(handles=handles, loc="outside upper left", ncols=2, **spacing)
        return as_svg(figure, f"dots-{name}")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a drawing.

    Attributes:
        name: in the legend.
        points: (x, y) pairs, y from 0 to 1.
        number: which paint and marker it has.
        dashed: whether it is.
    """

    name: str
    points: list[tuple[float, float]]
    number: int
    dashed: bool = False


def lines(
    name: str, panels: list[list[Line]], *, x: str, y: str, scale: str = "linear"
) -> markupsafe.Markup:
    """Draw lines, in a panel for each list of them, one below the other."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure((3.9, 0.4 + 2.9 * len(panels)), layout="constrained")
        for axes, panel in zip(
            figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
        ):
            for line in panel:
                axes.plot(
                    [point[0] for point in line.points],
                    [100 * point[1] for point in line.points],
                    "--" if line.dashed else "-",
                    color=_PAINTS[line.number % 6],
                    marker=_MARKERS[line.number % 6],
                    markersize=3.5,
                    label=line.name,
                )
            if scale == "log":
                axes.set_xscale("log", base=2)
                ticks = sorted({point[0] for line in panel for point in line.points})
                axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
                axes.minorticks_off()
            else:
                axes.xaxis.set_major_locator(MaxNLocator(integer=x == "ways"))
            axes.set(xlabel=x, ylabel=f"{y}, %")
            axes.legend(fontsize=7, loc="best")
        return as_svg(figure, name)


def courses(results: dict[str, dict], part: str, *, x: str, y: str) -> markupsafe.Markup | None:
    """Draw a course of each layer, by its best distance, and of pixels; None without any.

    Args:
        results: what was read.
        part: `ways` or `recall`.
        x: the name of the horizontal axis.
        y: that of the vertical one.
    """
    drawn: dict[str, list[tuple[float, float]]] = {}
    for experiment, found in results.items():
        best: dict[str, tuple[float, str, list]] = {}
        for series, points in found[part].items():
            layer, _, distance = series.rpartition("/")
            mean = sum(point[1] for point in points) / len(points)
            if not layer.startswith("untrained") and mean > best.get(layer, (-1.0,))[0]:
                best[layer] = mean, distance, points
        for layer, (_, distance, points) in best.items():
            own = layer != "pixels"  # those of every experiment are the same
            drawn[f"{experiment}: {label(layer)}, {label(distance)}" if own else layer] = points
    if not drawn:
        return None
    panel = [Line(name, points, number) for number, (name, points) in enumerate(drawn.items())]
    return lines(part, [panel], x=x, y=y)


def compression(
    results: dict[str, dict], published: list[params.Published]
) -> dict[str, Any] | None:
    """Return the figures of compressed codes: their dimensions, rows, drawing; None without any.

    Returns:
        `dimensions`: list of int. `rows`: by the name of what is compressed, the figures by
        dimensions; `published`: so the published ones. `drawing`: of both.
    """
    rows: dict[str, dict[int, dict]] = {}
    panels: list[list[Line]] = [[], []]
    for experiment, found in results.items():
        for layer, cut in ((found["retrieval"] or {}).get("pca") or {}).items():
            number = len({line.number for line in panels[0]})
            for kind, (words, dashed) in _KINDS.items():
                row = {int(each): kinds[kind] for each, kinds in cut.items() if kind in kinds}
                name = f"{experiment}: {label(layer)}{words}"
                rows[name] = row
                points = [(each, row[each]["mean_average_precision"]) for each in row]
                panels[0].append(Line(name, points, number, dashed))
    others: dict[str, dict[int, float]] = {}
    for each in published:
        if each.measure.startswith(_COMPRESSED):
            cut = others.setdefault(f"{each.system}, {each.protocol}", {})
            cut[int(each.measure.removeprefix(_COMPRESSED))] = each.figure
    for name, row in others.items():
        panels[1].append(Line(name.partition(", mAP")[0], list(row.items()), len(panels[1])))
    if not rows:
        return None
    return {
        "dimensions": sorted({each for row in (rows | others).values() for each in row}),
        "rows": rows,
        "published": others,
        "drawing": lines(
            "compression",
            [panel for panel in panels if panel],
            x="dimensions",
            y="mAP",
            scale="log",
        ),
    }


def found_images(
    dataset: str, results: dict[str, dict]
) -> dict[str, list[tuple[str, list[list[dict]]]] | str]:
    """Return, for each experiment and layer, queries with the images nearest to them.

    Returns:
        By experiment a list of layer and rows; a row holds the query and the nearest as dicts of
        `png`, `name` and `mark`. Or, by experiment, what is missing.
    """
    found: dict[str, Any] = {}
    for name, each in results.items():
        scored = rows_of({name: each["retrieval"] or {}})
        layers = [row.layer for row in scored if row.experiment and row.trained]
        try:
            found[name] = [
                (
                    grid.layer,
                    [
                        [
                            {"png": picture(image), "name": words, "mark": _mark(True, right)}
                            for image, words, right in row
                        ]
                        for row in grid.rows()
                    ],
                )
                for grid in pictures.nearest_grids(dataset, name, layers, _FOUND)
            ]
        except UserError as error:
            found[name] = str(error)
    return found


def _dot(axes, y, low, value, high, color, marker, *, filled) -> None:
    """Draw one figure, from 0 to 1, with its interval; a hollow one stands a little lower."""
    ends = [[100 * max(value - low, 0)], [100 * max(high - value, 0)]]
    inside = color if filled else _PAPER
    axes.errorbar(
        100 * value,
        y if filled else y + 0.3,
        xerr=ends,
        fmt=marker,
        color=color,
        markersize=4.5,
        markerfacecolor=inside,
    )


def curves(history: list[dict[str, float]], name: str) -> markupsafe.Markup:
    """Draw the course of loss and, where there is one, of accuracy over the epochs."""
    quantities = [each for each in ("loss", "accuracy") if each in history[0]]
    epochs = [row["epoch"] for row in history]
    with matplotlib.rc_context(_STYLE):
        figure = Figure((3.6, 0.6 + 1.3 * len(quantities)), layout="constrained")
        panels = figure.subplots(len(quantities), sharex=True, squeeze=False)[:, 0]
        for axes, quantity in zip(panels, quantities, strict=True):
            for key, title, line in (
                (quantity, "training", ".-"),
                (f"val_{quantity}", "validation", ".--"),
            ):
                if key in history[0]:
                    values = [row[key] for row in history]
                    axes.plot(
                        epochs,
                        values,
                        line,
                        color=_PAINTS[key != quantity],
                        label=title,
                        markersize=4,
                    )
            axes.set_ylabel(quantity)
            axes.grid(axis="x", visible=False)
        panels[0].legend(loc="upper right")
        panels[-1].set_xlabel("epoch")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        return as_svg(figure, f"curves-{name}")


def as_svg(figure: Figure, name: str) -> markupsafe.Markup:
    """Return a figure as SVG to stand within a page, its colours left to the page's style."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = re.sub(r"#f0f0(\d\d)", r"var(--paint-\1)", svg[svg.index("<svg") :])
    # An id is to be the only one of a page that holds many drawings.
    return markupsafe.Markup(re.sub(r'( id="|url\(#|href="#)', rf"\1{name}-", svg))


def picture(image: np.ndarray) -> str:
    """Return uint8 (height, width, 1 or 3) as the address of a picture that is its own content.

    Drawings are PNG; photographs are JPEG, a third of the bytes and to the eye the same.
    """
    content = io.BytesIO()
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    kind, how = ("PNG", {}) if image.shape[-1] == 1 else ("JPEG", {"quality": 92, "subsampling": 0})
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, kind, optimize=True, **how)
    coded = base64.b64encode(content.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{coded}"


def choices(space: codes.Space, tasks: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the first tasks chosen right and the first chosen wrong, `count` of each.

    Returns:
        int (tasks, 2): the row of a task, and the place of its choice in the support set. A task
        in which two images are equally near has no choice and is left out.
    """
    distances = support_distances(space.codes, tasks, head=space.head)
    chosen = distances.argmin(axis=1)
    decided = (distances == distances.min(axis=1, keepdims=True)).sum(axis=1) == 1
    right = labels[tasks[np.arange(len(tasks)), 1 + chosen]] == labels[tasks[:, 0]]
    rows = np.concatenate([np.flatnonzero(decided & kind)[:count] for kind in (right, ~right)])
    return np.stack([rows, chosen[rows]], axis=1)


def pictured_tasks(
    dataset: str,
    scores: dict[str, Any],
    tasks: np.ndarray,
    unseen: np.ndarray,
    names: list[str],
) -> dict[str, list[dict] | str]:
    """Return, for each experiment, tasks as its best distance chose, or what is missing.

    Args:
        dataset: its name.
        scores: the section of the task set.
        tasks: int32 (tasks, 1 + ways), the first of the set.
        unseen: uint8 (classes, examples, height, width, channels).
        names: of the unseen classes.
    """
    labels = codes.labels_of(dataset)
    images = unseen.reshape(-1, *unseen.shape[2:])
    room = _PICTURE_BYTES // (2 * tasks.shape[1] * images[0].size * max(len(scores["best"]), 1))
    found: dict[str, list[dict] | str] = {}
    for experiment, best in scores["best"].items():
        try:
            space = next(codes.spaces(dataset, experiment, [best["layer"]], [best["distance"]]))
        except UserError as error:
            found[experiment] = str(error)
            continue
        found[experiment] = [
            {
                "number": row + 1,
                "images": [  # the query, then the support set
                    {
                        "name": names[labels[index]],
                        "mark": _mark(place == chosen + 1, labels[index] == labels[tasks[row, 0]]),
                        "png": picture(images[index]),
                    }
                    for place, index in enumerate(tasks[row])
                ],
            }
            for row, chosen in choices(space, tasks, labels, min(_PICTURED, max(room, 1)))
        ]
    return found


def _mark(chosen: bool, right: bool) -> str:
    """Return how an image of a support set is marked."""
    if chosen:
        return "right" if right else "wrong"
    return "true" if right else ""


def page(**content: Any) -> str:
    """Return report.html filled with `content`."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"label": label, "percent": percent}
    return environment.get_template("report.html").render(content)


def main(dataset: str) -> None:
    """Write the page of one dataset."""
    published = params.load().dataset(dataset).published
    results = read_results(dataset)
    arrays = files.read_splits(dataset)
    names = files.read_json(Path("data/arrays", dataset, "classes.json"))["unseen"]
    tasks = files.read_tasks(dataset)
    oneshot, retrieval = sections(results)
    # Pictured is the set with the most ways, the first of such.
    shown = min(
        (each for each in oneshot if each["name"] in tasks),
        key=lambda each: each["chance"],
        default={"name": None, "best": {}},
    )
    first = tasks.get(shown["name"], np.empty((0, 2), np.int32))[:_LOOKED_AT]
    text = page(
        dataset=dataset,
        published=[each for each in published if not each.measure.startswith(_COMPRESSED)],
        results=results,
        arrays=arrays,
        names=names,
        oneshot=oneshot,
        retrieval=retrieval,
        ways=courses(results, "ways", x="ways", y="accuracy"),
        recall=courses(results, "recall", x="recall", y="precision"),
        compression=compression(results, published),
        found=found_images(dataset, results),
        curves={
            name: curves(found["history"], name)
            for name, found in results.items()
            if found["history"]
        },
        shown=shown,
        pictured=pictured_tasks(dataset, shown, first, arrays["unseen"], names),
    )
    path = Path("reports", f"{dataset}.html")
    files.write_text(path, text)
    print(f"{path}: {len(results)} experiments, {len(text.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
