"""The results table of README.md, written from metrics/: `python -m stages.readme`.

No stage of dvc.yaml, since README.md is written by hand around it; a test fails when the table is
not what metrics/ says.
"""

from collections.abc import Iterator
from pathlib import Path

from stages import files, params
from stages.command import UserError, run

_BEGIN, _END = "<!-- results: python -m stages.readme -->\n", "<!-- end of results -->\n"
_HEAD = (
    "| experiment | parameters | seen classes, test | measured on unseen classes | best distance | "
    "% (95 % interval) | pixels | untrained | chance |\n"
    "|---|--:|---|---|---|--:|--:|--:|--:|\n"
)
_SEEN = {"accuracy": "accuracy", "pair_auc": "pair AUC"}
_DISTANCES = {
    "l2": "L2",
    "l2_normalised": "L2-normalised",
    "centred_l2_normalised": "centred, L2-normalised",
    "learned": "learned",
}


def table(settings: params.Params) -> str:
    """Return the table in Markdown, a row for each experiment, layer and measure."""
    lines = []
    for name, experiment in settings.experiments.items():
        folder = Path("metrics", experiment.dataset, name)
        network = files.read_json(folder / "network.json")
        first = [name, f"{network['parameters']:,}", _seen(network["seen"]["test"])]
        oneshot = files.read_json(folder / "oneshot.json")
        retrieval = files.read_json(folder / "retrieval.json")
        measured = [(f"{_words(each)} one-shot", "accuracy", oneshot[each]) for each in oneshot]
        measured.append(("retrieval, mAP", "mean_average_precision", retrieval))
        for layer in experiment.codes.layers:
            for title, measure, figures in measured:
                cells = [*first, title, *_cells(figures, layer, measure)]
                lines.append(f"| {' | '.join(cells)} |\n")
                first = ["", "", ""]
    return _HEAD + "".join(lines)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _seen(figures: dict[str, float]) -> str:
    key = next(key for key in _SEEN if key in figures)
    return f"{_percent(figures[key])} % {_SEEN[key]}"


def _cells(figures: dict, layer: str, measure: str) -> Iterator[str]:
    distance, best = max(figures[layer].items(), key=lambda row: row[1][measure])
    yield _DISTANCES[distance]
    low, high = _percent(best["ci95_low"]), _percent(best["ci95_high"])
    yield f"**{_percent(best[measure])}** ({low}–{high})"
    for baseline in (figures["pixels"], figures["untrained"][layer]):
        yield _percent(max(row[measure] for row in baseline.values()))
    yield _percent(figures["chance"])


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}"


def filled(text: str, results: str) -> str:
    """Return README.md's text with `results` between the two markers.

    Raises:
        UserError: when a marker is missing.
    """
    if _BEGIN not in text or _END not in text:
        raise UserError(f"README.md: expected the lines {_BEGIN.strip()} and {_END.strip()}")
    before, rest = text.split(_BEGIN, 1)
    return f"{before}{_BEGIN}{results}{_END}{rest.split(_END, 1)[1]}"


def main() -> None:
    """Write the table into README.md."""
    path = Path("README.md")
    files.write_text(path, filled(path.read_text(encoding="utf-8"), table(params.load())))


if __name__ == "__main__":
    run(main)
