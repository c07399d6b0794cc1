"""The results tables of README.md, written from metrics/: `python -m stages.readme`.

No stage of dvc.yaml, since README.md is written by hand around it; a test fails when the table is
not what metrics/ says.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import files, params, questions, spread
from stages.command import UserError, run
from stages.results import label, percent, points, read_metrics, read_results

_BEGIN, _END = "<!-- results: python -m stages.readme -->\n", "<!-- end of results -->\n"
_HEAD = (
    "| experiment | parameters | minutes | seen classes, test | measured on unseen classes | "
    "best distance | % (95 % interval) | pixels | untrained | chance |\n"
    "|---|--:|--:|---|---|---|--:|--:|--:|--:|\n"
)
_COSTS = (
    "\n| experiment | one setting changed | seen classes, test | one-shot, most ways | mAP |\n"
    "|---|---|--:|--:|--:|\n"
)
_SEEDS = (
    "\n| experiment | seeds | measured | best distance | %, mean ± standard deviation | "
    "difference from (95 % interval) |\n"
    "|---|--:|---|---|--:|---|\n"
)
_SEEN = {"accuracy": "accuracy", "pair_auc": "pair AUC"}


def table(settings: params.Params) -> str:
    """Return the table in Markdown, a row for each experiment, layer and measure.

    An experiment that differs from an earlier one in a single setting stands in `costs` instead.
    """
    lines, varied = [], {each.second for each in settings.differences()}
    for name, experiment in settings.experiments.items():
        if name in varied:
            continue
        folder = Path("metrics", experiment.dataset, name)
        network = read_metrics(folder, "network")
        first = [name, f"{network['parameters']:,}", _minutes(read_metrics(folder, "run"))]
        first.append(_seen(network["seen"]["test"]))
        oneshot = read_metrics(folder, "oneshot")
        retrieval = read_metrics(folder, "retrieval")
        measured = [(f"{_words(each)} one-shot", "accuracy", oneshot[each]) for each in oneshot]
        measured.append(("retrieval, mAP", "mean_average_precision", retrieval))
        for layer in experiment.codes.layers:
            of_layer = f", {layer}" if len(experiment.codes.layers) > 1 else ""
            for title, measure, figures in measured:
                cells = [*first, title + of_layer, *_cells(figures, layer, measure)]
                lines.append(f"| {' | '.join(cells)} |\n")
                first = [""] * len(first)
    return _HEAD + "".join(lines)


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


def seeds(settings: params.Params) -> str:
    """Return what several seeds measured, in Markdown: a row for each experiment and measure."""
    lines, before = [], None
    for row in spread.rows(settings):
        new = row["experiment"] != before
        before = row["experiment"]
        above = "–"
        if compared := row["compared"]:
            ends = (points(compared[end]) for end in ("ci95_low", "ci95_high"))
            above = f"{row['against']}: {points(compared['difference'])} ({' to '.join(ends)})"
        cells = [
            before if new else "",
            str(row["seeds"]) if new else "",
            row["measure"],
            ", ".join(map(label, row["where"][-1:])) or "–",
            f"**{percent(row['mean'])}** ± {percent(row['sd'])}",
            above,
        ]
        lines.append(f"| {' | '.join(cells)} |\n")
    return _SEEDS + "".join(lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _minutes(run: dict[str, Any]) -> str:
    """Return what training took, and by what, where that is no CPU."""
    minutes = f"{run['seconds'] / 60:.1f}"
    return minutes if run["device"].startswith("cpu") else f"{minutes}, {run['device']}"


def _seen(figures: dict[str, float]) -> str:
    key = next(key for key in _SEEN if key in figures)
    return f"{percent(figures[key])} % {_SEEN[key]}"


def _cells(figures: dict, layer: str, measure: str) -> Iterator[str]:
    if not figures.keys() >= {layer, "pixels", "untrained"} or layer not in figures["untrained"]:
        raise UserError(f"metrics: no figures of {layer}, pixels and untrained; run dvc repro")
    distance, best = max(figures[layer].items(), key=lambda row: row[1][measure])
    yield label(distance)
    low, high = percent(best["ci95_low"]), percent(best["ci95_high"])
    yield f"**{percent(best[measure])}** ({low}–{high})"
    for baseline in (figures["pixels"], figures["untrained"][layer]):
        yield percent(max(row[measure] for row in baseline.values()))
    yield percent(figures["chance"])


def filled(text: str, between: str) -> str:
    """Return README.md's text with `between` between the two markers.

    Raises:
        UserError: when a marker is missing.
    """
    if _BEGIN not in text or _END not in text:
        raise UserError(f"README.md: expected the lines {_BEGIN.strip()} and {_END.strip()}")
    before, rest = text.split(_BEGIN, 1)
    return f"{before}{_BEGIN}{between}{_END}{rest.split(_END, 1)[1]}"


def results(settings: params.Params) -> str:
    """Return what stands between the markers: all tables."""
    return table(settings) + costs(settings) + seeds(settings)


def main() -> None:
    """Write the tables into README.md."""
    path = Path("README.md")
    files.write_text(path, filled(path.read_text(encoding="utf-8"), results(params.load())))


if __name__ == "__main__":
    run(main)
