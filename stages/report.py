"""Stage `report`: one page of all that was measured on a dataset.

metrics/<dataset>/<experiment>, data/arrays, data/tasks, data/codes  ->  reports/<dataset>.html

The page is one file that asks nothing of a network. It shows the experiments that stand under
metrics/<dataset>; what one of them lacks is said in its place. Here figures are gathered, drawn
and pictured; pages/dataset.html puts them into words and tables, and escapes every text.
"""

from pathlib import Path
from typing import Any

import markupsafe
import numpy as np

from stages import codes, drawings, files, pages, params, pictures
from stages.command import UserError, run
from stages.drawings import Line
from stages.measures.episodes import support_distances
from stages.pictures import picture
from stages.results import best_of, label, read_results, rows_of

_LOOKED_AT = 500  # first tasks of a set, among which those to picture are found
_PICTURED = 3  # tasks chosen right, and as many chosen wrong, of each experiment
_FOUND = params.Pictures(queries=10, nearest=5)  # pictured of each layer
_PICTURE_BYTES = 2_000_000  # pixels of a whole page; many experiments picture fewer tasks each

_KINDS = {"l2_normalised": ("", False), "whitened": (", whitened", True)}  # and if dashed


def section(name: str, scores: dict[str, dict], measure: str) -> dict[str, Any]:
    """Return what the page says of one kind of score: its rows, their drawing, the best of each.

    Args:
        name: of the task set, or "retrieval".
        scores: see `rows_of`; at least one.
        measure: the measure that has intervals, and is drawn.
    """
    rows = list(rows_of(scores))
    found = next(iter(scores.values()))
    best = {each: figures for each in scores if (figures := best_of(scores[each], measure))}
    content = {
        "name": name,
        "measure": measure,
        "chance": found["chance"],
        "count": found["queries"] if "queries" in found else found["tasks"],
        "distances": list(dict.fromkeys(distance for row in rows for distance in row.figures)),
        "rows": rows,
        "best": best,
    }
    return content | {"drawing": drawings.dots(**content)}


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
    return drawings.lines(part, [panel], x=x, y=y)


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
        if each.dimensions:
            cut = others.setdefault(f"{each.system}, {each.protocol}", {})
            cut[each.dimensions] = each.figure
    for name, row in others.items():
        panels[1].append(Line(name.partition(", mAP")[0], list(row.items()), len(panels[1])))
    if not rows:
        return None
    return {
        "dimensions": sorted({each for row in (rows | others).values() for each in row}),
        "rows": rows,
        "published": others,
        "drawing": drawings.lines(
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


def main(dataset: str) -> None:
    """Write the page of one dataset."""
    settings = params.load()
    published = settings.dataset(dataset).published
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
    text = pages.filled(
        "dataset.html",
        dataset=dataset,
        provenance=pages.provenance(settings, [dataset]),
        published=[each for each in published if not each.dimensions],
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
            name: drawings.curves(found["history"], name)
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
