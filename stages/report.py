"""Stage `report`: one page of all that was measured on a dataset.

metrics/<dataset>, predictions/<dataset>, data/arrays, data/tasks  ->  reports/<dataset>.html

The page is one file that asks nothing of a network. It shows the experiments that stand under
metrics/<dataset>; what one of them lacks is said in its place. Here figures are gathered, drawn
and pictured; pages/dataset.html puts them into words and tables, and escapes every text.
"""

from pathlib import Path
from typing import Any

import markupsafe
import numpy as np

from stages import choices, drawings, files, pages, params, pictures, predictions, thumbnails
from stages.choices import mark
from stages.command import UserError, run
from stages.drawings import Line
from stages.published import SEEN
from stages.results import best_of, expanded_courses, label, most_ways, read_results, rows_of

_PICTURED = 4  # tasks chosen right, and as many chosen wrong, of each experiment
_PICTURE_BYTES = 4_500_000  # pixels of a whole page; many experiments picture fewer tasks each
_EXAMPLES = 8  # images of a class that show what the data looks like
_CLASSES = 20  # of which so many are shown, of the seen and of the unseen ones
_MAP_SIDE, _THUMBNAIL = 960, 30  # pixels

_KINDS = {"l2_normalised": ("", False), "whitened": (", whitened", True)}  # and if dashed


def section(name: str, scores: dict[str, dict], measure: str) -> dict[str, Any]:
    """Return what the page says of one kind of score: rows, drawing, each one's best, the leader.

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
        "leader": max(best, key=lambda each: best[each][measure], default=None),
        "pixels": max(
            (each[measure] for row in rows if not row.experiment for each in row.figures.values()),
            default=None,
        ),
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


def courses(
    results: dict[str, dict], part: str, *, x: str, y: str, scale: str = "linear"
) -> markupsafe.Markup | None:
    """Draw a course of each layer, by its best distance, and of pixels; None without any.

    Args:
        results: what was read.
        part: `ways`, `recall`, `expansion` or `unlabelled`.
        x: the name of the horizontal axis.
        y: that of the vertical one.
        scale: of the horizontal axis; see `drawings.lines`.
    """
    drawn: dict[str, tuple[float, list[tuple[float, float]]]] = {}
    for experiment, found in results.items():
        best: dict[str, tuple[float, str, list]] = {}
        for series, points in found[part].items():
            layer, _, distance = series.rpartition("/")
            mean = sum(point[1] for point in points) / len(points)
            if not layer.startswith("untrained") and mean > best.get(layer, (-1.0,))[0]:
                best[layer] = mean, distance, points
        for layer, (mean, distance, points) in best.items():
            own = layer != "pixels"  # of every experiment the same, but for its distances
            title = f"{experiment}: {label(layer)}, {label(distance)}" if own else layer
            if title not in drawn or mean > drawn[title][0]:
                drawn[title] = mean, points
    if not drawn:
        return None
    courses = [
        Line(name, points, number) for number, (name, (_, points)) in enumerate(drawn.items())
    ]
    return drawings.lines(part, courses, x=x, y=y, scale=scale)


def unlabelled(results: dict[str, dict]) -> dict[str, dict]:
    """Return the courses of one-shot accuracy by the nearest images averaged with each.

    Returns:
        By experiment, under `unlabelled`, the points of each series as `courses` draws them, of the
        tasks with the most ways.
    """
    found: dict[str, dict] = {}
    for experiment, parts in results.items():
        sets = parts["oneshot"] or {}
        scores = sets.get(most_ways(sets), {})
        series = expanded_courses(scores, "accuracy").items()
        found[experiment] = {
            "unlabelled": {"/".join(keys): list(course.items()) for keys, course in series}
        }
    return found


def compression(
    results: dict[str, dict], published: list[params.Published]
) -> dict[str, Any] | None:
    """Return the figures of compressed codes: their dimensions, rows, drawings; None without any.

    Returns:
        `dimensions`: list of int. `rows`: by the name of what is compressed, the figures by
        dimensions; `published`: so the published ones. `drawings`: of each experiment, and of
        what was published.
    """
    rows: dict[str, dict[int, dict]] = {}
    panels: dict[str, list[Line]] = {}
    for experiment, found in results.items():
        compressed = (found["retrieval"] or {}).get("pca") or {}
        for number, (layer, cut) in enumerate(compressed.items()):
            for kind, (words, dashed) in _KINDS.items():
                row = {int(each): kinds[kind] for each, kinds in cut.items() if kind in kinds}
                rows[f"{experiment}: {label(layer)}{words}"] = row
                points = [(each, row[each]["mean_average_precision"]) for each in row]
                line = Line(f"{label(layer)}{words}", points, number, dashed)
                panels.setdefault(experiment, []).append(line)
    others: dict[str, dict[int, float]] = {}
    for each in published:
        if each.dimensions:
            cut = others.setdefault(f"{each.system}, {each.protocol}", {})
            cut[each.dimensions] = each.figure
    if others:
        panels["Published"] = [
            Line(name.partition(", mAP")[0], list(row.items()), number)
            for number, (name, row) in enumerate(others.items())
        ]
    if not rows:
        return None
    top = max(
        [figures["mean_average_precision"] for row in rows.values() for figures in row.values()],
        default=1,
    )
    return {
        "dimensions": sorted({each for row in (rows | others).values() for each in row}),
        "rows": rows,
        "published": others,
        "drawings": {
            name: drawings.lines(
                f"compression-{name}",
                panel,
                x="dimensions",
                y="mAP",
                scale="log",
                top=None if name == "Published" else top,
            )
            for name, panel in panels.items()
        },
    }


def searches(results: dict[str, dict]) -> dict[str, dict[str, Any]]:
    """Return by experiment what indexes find in the space in which exact search is best.

    Returns:
        `series`: its layer and distance. `found`: the figures by index. `drawing`.
    """
    searched: dict[str, dict[str, Any]] = {}
    for name, each in results.items():
        if each["search"]:
            series, found = max(
                each["search"].items(),
                key=lambda found: next(iter(found[1].values()))["mean_average_precision"],
            )
            drawing = drawings.searches(f"search-{name}", found)
            searched[name] = {"series": series, "found": found, "drawing": drawing}
    return searched


def layers_of(name: str, found: dict[str, Any]) -> list[str]:
    """Return the layers of an experiment whose codes were ranked."""
    scored = rows_of({name: found["retrieval"] or {}})
    return [row.layer for row in scored if row.experiment and row.trained]


def found_images(
    dataset: str, results: dict[str, dict], unseen: np.ndarray, names: list[str]
) -> dict[str, list[tuple[str, list[list[dict]]]] | str]:
    """Return, for each experiment and layer, queries with the images nearest to them.

    Returns:
        By experiment a list of layer and rows; a row holds the query and the nearest as dicts of
        `png`, `name` and `mark`. Or, by experiment, what is missing.
    """
    labels, images = files.labels_of(unseen), unseen.reshape(-1, *unseen.shape[2:])

    def rows(name: str, layer: str) -> list[list[dict]]:
        nearest = predictions.read_nearest(dataset, name, layer, len(images))
        grid = pictures.Grid(layer, nearest, labels, names, images)
        return [
            [
                {"png": thumbnails.picture(image), "name": words, "mark": mark(True, right)}
                for image, words, right in row
            ]
            for row in grid.rows()
        ]

    found: dict[str, Any] = {}
    for name, each in results.items():
        try:
            found[name] = [(layer, rows(name, layer)) for layer in layers_of(name, each)]
        except UserError as error:
            found[name] = str(error)
    return found


def examples(images: np.ndarray, names: list[str]) -> list[tuple[str, str]]:
    """Return the names of some classes, evenly chosen, each with a picture of its first images.

    Args:
        images: uint8 (classes, examples, height, width, channels).
        names: of the classes.
    """
    shown = np.linspace(0, len(names) - 1, min(_CLASSES, len(names))).round().astype(int)
    return [(names[index], thumbnails.strip(images[index, :_EXAMPLES])) for index in shown]


def statistics(
    dataset: str, results: dict[str, dict]
) -> dict[str, list[tuple[str, dict[str, float]]] | str]:
    """Return by experiment what its codes are like: a row a layer, trained and untrained.

    Returns:
        By experiment a list of what it is and its figures; or what is missing.
    """
    found: dict[str, Any] = {}
    for name in results:
        try:
            found[name] = [
                (label(layer) + ("" if state == "trained" else ", untrained"), figures)
                for layer, states in predictions.read_statistics(dataset, name).items()
                for state, figures in states.items()
            ]
        except UserError as error:
            found[name] = str(error)
    return found


def map_of(dataset: str, name: str, unseen: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Return a map on which images stand where an experiment's codes have their places.

    Returns:
        `png`: the images, each at its place. `names`: of the classes, each with the place of the
        middle of its images, from 0 to 1 from left to right and from top to bottom.
    """
    places = predictions.read_map(dataset, name, unseen.shape)
    classes, each, _ = places.shape
    images = unseen[:classes, :each].reshape(-1, *unseen.shape[2:])
    flat, middles = places.reshape(-1, 2), np.median(places, axis=1)
    return {
        "png": thumbnails.scattered(images, flat, side=_MAP_SIDE, thumbnail=_THUMBNAIL),
        "images": len(images),
        "names": [
            (name, *map(float, middle)) for name, middle in zip(names, middles, strict=False)
        ],
    }


def main(dataset: str) -> None:
    """Write the page of one dataset."""
    settings = params.load()
    published = settings.dataset(dataset).published
    results = read_results(dataset)
    arrays = files.read_splits(dataset)
    unseen, labels = arrays["unseen"], files.labels_of(arrays["unseen"])
    names = files.read_classes(dataset)
    tasks = files.read_tasks(dataset)
    oneshot, retrieval = sections(results)
    # Looked at closely is the set with the most ways, as in the predictions.
    scored = {each["name"]: each for each in oneshot if each["name"] in tasks}
    shown = scored.get(most_ways(scored), {"name": None, "best": {}})
    drawn = tasks.get(shown["name"], np.empty((0, 2), np.int32))
    chosen, missing = choices.choices_of(dataset, shown["best"], drawn, labels)
    classes = choices.by_class(chosen, drawn, labels, names["unseen"])
    best = max(chosen, key=lambda name: chosen[name].hits.mean(), default=None)
    room = _PICTURE_BYTES // (2 * drawn.shape[1] * unseen[0, 0].size * max(len(chosen), 1))
    text = pages.filled(
        "dataset.html",
        dataset=dataset,
        provenance=pages.provenance(settings, [dataset]),
        published=[each for each in published if not each.dimensions],
        results=results,
        seen_parts=SEEN,
        draws={name: each.draw for name, each in settings.dataset(dataset).tasks.sets.items()},
        arrays=arrays,
        names=names["unseen"],
        examples={
            "Seen classes, training images": examples(arrays["seen_train"], names["seen"]),
            "Unseen classes": examples(unseen, names["unseen"]),
        },
        oneshot=oneshot,
        retrieval=retrieval,
        leading=[each for each in (*oneshot, retrieval) if each and each["leader"]],
        ways=courses(results, "ways", x="ways", y="accuracy"),
        unlabelled=courses(
            unlabelled(results), "unlabelled", x="nearest", y="accuracy", scale="symlog"
        ),
        recall=courses(results, "recall", x="recall", y="precision"),
        compression=compression(results, published),
        expansion=courses(results, "expansion", x="nearest", y="mAP", scale="symlog"),
        searches=searches(results),
        found=found_images(dataset, results, unseen, names["unseen"]),
        curves={
            name: drawings.curves(found["history"], name)
            for name, found in results.items()
            if found["history"]
        },
        shown=shown,
        missing=missing,
        pairs=list(choices.compared(chosen)),
        classes=classes,
        confusion=classes and drawings.heat("confusion", classes["rates"], classes["names"]),
        statistics=statistics(dataset, results),
        best=best,
        map=best and map_of(dataset, best, unseen, names["unseen"]),
        pictured=choices.pictured(
            chosen, drawn, unseen, names["unseen"], min(_PICTURED, max(room, 1))
        ),
    )
    path = Path("reports", f"{dataset}.html")
    files.write_text(path, text)
    print(f"{path}: {len(results)} experiments, {len(text.encode()) / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
