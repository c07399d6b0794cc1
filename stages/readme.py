"""The results tables of README.md and docs/results.md, from metrics/: `python -m stages.readme`.

README.md shows the best figure of each network, docs/results.md every layer by its best distance,
beside both baselines. No stage of dvc.yaml, since both are written by hand around them; a test
fails when a table is not what metrics/ says.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from stages import files, params, published, questions, spread
from stages.command import UserError, run
from stages.results import (
    best_of,
    expanded_courses,
    label,
    minutes,
    percent,
    points,
    read_metrics,
    read_results,
    seen_measure,
)

_PARTS = ("network", "run", "oneshot", "retrieval")
_HEAD = (
    "| experiment | parameters | minutes | seen classes, test | measured on unseen classes | "
    "best distance | % (95 % interval) | pixels | untrained | chance |\n"
    "|---|--:|--:|---|---|---|--:|--:|--:|--:|\n"
)
_COSTS = (
    "| experiment | one setting changed | seen classes, test | one-shot, most ways | mAP |\n"
    "|---|---|--:|--:|--:|\n"
)
_SEEDS = (
    "| experiment | seeds | measured | best distance | %, mean ± standard deviation | "
    "difference from (95 % interval) |\n"
    "|---|--:|---|---|--:|---|\n"
)
_REPRODUCED = (
    "| published | measured | % | same network here | best here | how it was measured |\n"
    "|---|---|--:|--:|--:|---|\n"
)
_SEEDS_OVERVIEW = (
    "| experiment | seeds | seen classes, test | one-shot, most ways | mAP | "
    "one-shot, difference from | mAP, difference from |\n"
    "|---|--:|--:|--:|--:|---|---|\n"
)
_MAP = "mean_average_precision"


def overview(settings: params.Params) -> str:
    """Return the best figures in Markdown: a table for each dataset, a row for each network.

    Chance and the best of raw pixels come first; the best of a column is bold. A variant stands in
    `costs` alone.
    """
    there = {each.dataset for each in settings.experiments.values()}
    return "\n".join(_glance(settings, each) for each in settings.datasets if each in there)


def _glance(settings: params.Params, dataset: str) -> str:
    variants = settings.variants()
    found = {
        name: {part: read_metrics(Path("metrics", dataset, name), part) for part in _PARTS}
        for name, each in settings.experiments.items()
        if each.dataset == dataset and name not in variants
    }
    # The measures of the dataset: by name what all experiments got, and which figure it is.
    measures = {
        label(tasks): (
            {name: each["oneshot"].get(tasks, {}) for name, each in found.items()},
            "accuracy",
        )
        for tasks in settings.dataset(dataset).tasks.sets
    }
    measures["mAP"] = {name: each["retrieval"] for name, each in found.items()}, _MAP
    head = [dataset, "parameters", "minutes", "seen classes, test", *measures]
    chance, pixels = ["chance", "", "", ""], ["raw pixels", "", "", ""]
    rows = {
        name: [
            name,
            f"{parts['network']['parameters']:,}",
            _minutes(parts["run"]),
            _seen(parts["network"]["seen"]["test"]),
        ]
        for name, parts in found.items()
    }
    for title, (scores, measure) in measures.items():
        best = {name: best_of(each, measure) for name, each in scores.items()}
        for name, each in scores.items():
            if "pixels" not in each or not best[name]:
                raise UserError(
                    f"metrics: no figures of {title} of {name} or of pixels; run dvc repro"
                )
        chance.append(percent(next(iter(scores.values()))["chance"]))
        figures = [
            distance[measure] for each in scores.values() for distance in each["pixels"].values()
        ]
        highest = max(figures + [each[measure] for each in best.values()])
        pixels.append(_cell(max(figures), highest))
        for name, each in best.items():
            rows[name].append(f"{_cell(each[measure], highest)} <sub>{_interval(each)}</sub>")
    rules = ["---", *["--:"] * (len(head) - 1)]
    return "".join(
        f"| {' | '.join(row)} |\n" for row in (head, rules, chance, pixels, *rows.values())
    )


def _cell(figure: float, highest: float) -> str:
    """Return a figure in percent, in bold when it is the highest of its column."""
    return f"**{percent(figure)}**" if figure == highest else percent(figure)


def reproduced(settings: params.Params) -> str:
    """Return published figures in Markdown, each beside what is measured here."""
    results = {dataset: read_results(dataset) for dataset in settings.datasets}
    lines = []
    for _, each, ours in published.beside_ours(settings, results):
        cells = [each.system, published.words(each), percent(each.figure)]
        for beside in ("same", "best"):
            own = ours[beside]
            cells.append(f"{percent(own.figure)} (`{own.experiment}`)" if own else "–")
        lines.append(f"| {' | '.join([*cells, each.protocol])} |\n")
    return _REPRODUCED + "".join(lines)


def measured(settings: params.Params) -> str:
    """Return the table in Markdown, a row for each experiment, layer and measure.

    A variant stands in `costs` alone.
    """
    lines, variants = [], settings.variants()
    for name, experiment in settings.experiments.items():
        if name in variants:
            continue
        folder = Path("metrics", experiment.dataset, name)
        network = read_metrics(folder, "network")
        first = [name, f"{network['parameters']:,}", _minutes(read_metrics(folder, "run"))]
        first.append(_seen(network["seen"]["test"]))
        scored = list(_scored(folder))
        for layer in experiment.codes.layers:
            of_layer = f", {layer}" if len(experiment.codes.layers) > 1 else ""
            for title, measure, figures in scored:
                cells = [*first, title + of_layer, *_cells(figures, layer, measure)]
                lines.append(f"| {' | '.join(cells)} |\n")
                first = [""] * len(first)
    return _HEAD + "".join(lines)


def expanded(settings: params.Params) -> str:
    """Return figures of expanded codes in Markdown: a row for each experiment, layer and measure.

    Each by the distance that is best on average over the numbers of nearest images.
    """
    rows: list[tuple[list[str], dict[int, str]]] = []
    for name, experiment in settings.experiments.items():
        for title, measure, figures in _scored(Path("metrics", experiment.dataset, name)):
            best: dict[str, tuple[str, dict[int, float]]] = {}
            for (layer, distance), course in expanded_courses(figures, measure).items():
                if layer not in best or sum(course.values()) > sum(best[layer][1].values()):
                    best[layer] = distance, course
            for layer, (distance, course) in best.items():
                of_layer = f", {layer}" if len(experiment.codes.layers) > 1 else ""
                cells = {count: percent(figure) for count, figure in course.items()}
                rows.append(([name, title + of_layer, label(distance)], cells))
    counts = sorted({count for _, cells in rows for count in cells})
    head = ["experiment", "measured", "distance", *map(str, counts)]
    lines = [
        " | ".join([*first, *(cells.get(each, "") for each in counts)]) for first, cells in rows
    ]
    return f"| {' | '.join(head)} |\n|---|---|---|{'--:|' * len(counts)}\n" + "".join(
        f"| {line} |\n" for line in lines
    )


def costs(settings: params.Params) -> str:
    """Return what one setting costs, in Markdown: a row for each two experiments that differ in it.

    Figures are the best ones of both, as on the page of all experiments.
    """
    results = {dataset: read_results(dataset) for dataset in settings.datasets}
    lines = []
    for row in questions.answers(settings, results)["costs"]:
        changed = row["difference"]
        pairs = [row.get("seen")]
        for key in ("one-shot", "retrieval"):
            pairs.append([each["value"] for each in row[key]] if key in row else None)
        cells = [changed.first, f"`{changed.key}`: {changed.old} → {changed.new}"]
        for pair in pairs:
            cells.append(
                f"{percent(pair[0])} → {percent(pair[1])} ({points(pair[1] - pair[0])})"
                if pair
                else "–"
            )
        lines.append(f"| {' | '.join(cells)} |\n")
    return _COSTS + "".join(lines)


def seeds_overview(settings: params.Params) -> str:
    """Return what several seeds measured, in Markdown: a row for each experiment."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for row in spread.rows(settings):
        found.setdefault(row["experiment"], {})[row["measure"]] = row
    lines = []
    for name, rows in found.items():
        first = next(iter(rows.values()))
        sets = settings.dataset(first["dataset"]).tasks.sets
        most = max(sets, key=lambda tasks: sets[tasks].ways)
        measures = ("seen classes", f"{label(most)} one-shot", "retrieval, mAP")
        ours = [rows.get(measure) for measure in measures]
        cells = [name, str(first["seeds"])]
        cells += [f"{percent(row['mean'])} ± {percent(row['sd'])}" if row else "–" for row in ours]
        cells += [_above(row) if row else "–" for row in ours[1:]]
        lines.append(f"| {' | '.join(cells)} |\n")
    return _SEEDS_OVERVIEW + "".join(lines)


def seeds(settings: params.Params) -> str:
    """Return what several seeds measured, in Markdown: a row for each experiment and measure."""
    lines, before = [], None
    for row in spread.rows(settings):
        new = row["experiment"] != before
        before = row["experiment"]
        cells = [
            before if new else "",
            str(row["seeds"]) if new else "",
            row["measure"],
            ", ".join(map(label, row["where"][-1:])) or "–",
            f"**{percent(row['mean'])}** ± {percent(row['sd'])}",
            _above(row),
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return _SEEDS + "".join(lines)


def _above(row: dict[str, Any]) -> str:
    """Return by how much an experiment's seeds differ from those of the one it is compared with."""
    if not (compared := row["compared"]):
        return "–"
    ends = (points(compared[end]) for end in ("ci95_low", "ci95_high"))
    return f"{row['against']}: {points(compared['difference'])} ({' to '.join(ends)})"


def _scored(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield what is measured on unseen classes: its name, the figure that counts, and scores."""
    for tasks, scores in read_metrics(folder, "oneshot").items():
        yield f"{label(tasks)} one-shot", "accuracy", scores
    yield "retrieval, mAP", _MAP, read_metrics(folder, "retrieval")


def _interval(figures: dict[str, float]) -> str:
    return "–".join(percent(figures[end]) for end in ("ci95_low", "ci95_high"))


def _minutes(run: dict[str, Any]) -> str:
    """Return what training took, and by what, where that is no CPU."""
    took = minutes(run["seconds"])
    return took if run["device"].startswith("cpu") else f"{took}, {run['device']}"


def _seen(figures: dict[str, float]) -> str:
    measure = seen_measure(figures)
    return f"{percent(figures[measure])} % {label(measure)}"


def _cells(figures: dict, layer: str, measure: str) -> Iterator[str]:
    if not figures.keys() >= {layer, "pixels", "untrained"} or layer not in figures["untrained"]:
        raise UserError(f"metrics: no figures of {layer}, pixels and untrained; run dvc repro")
    distance, best = max(figures[layer].items(), key=lambda row: row[1][measure])
    yield label(distance)
    yield f"**{percent(best[measure])}** ({_interval(best)})"
    for baseline in (figures["pixels"], figures["untrained"][layer]):
        yield percent(max(row[measure] for row in baseline.values()))
    yield percent(figures["chance"])


_TABLES: dict[str, Callable[[params.Params], str]] = {
    each.__name__: each
    for each in (overview, costs, seeds_overview, reproduced, measured, expanded, seeds)
}
_DOCUMENTS = ("README.md", "docs/results.md")
_MARKED = re.compile(  # a table that does not end takes none of what comes after it
    r"(<!-- table (\S+): python -m stages\.readme -->\n)(?:(?!<!-- table ).)*?(<!-- end -->\n)",
    re.DOTALL,
)


def filled(text: str, settings: params.Params) -> str:
    """Return a document's text with every table between its two markers written anew.

    Raises:
        UserError: when there is no table in it, one that does not end, or one that is not known.
    """

    def written(marked: re.Match) -> str:
        if marked[2] not in _TABLES:
            known = ", ".join(_TABLES)
            raise UserError(f"{marked[1].strip()}: no such table; expected one of {known}")
        return marked[1] + _TABLES[marked[2]](settings) + marked[3]

    begun = text.count("<!-- table ")
    text, count = _MARKED.subn(written, text)
    if not count or count < begun:
        raise UserError(
            "expected tables between the lines <!-- table NAME: python -m stages.readme --> and "
            "<!-- end -->"
        )
    return text


def main() -> None:
    """Write the tables into the documents."""
    settings = params.load()
    for path in map(Path, _DOCUMENTS):
        files.write_text(path, filled(path.read_text(encoding="utf-8"), settings))


if __name__ == "__main__":
    run(main)
