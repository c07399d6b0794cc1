"""Stage `index`: every experiment of every dataset on one page, beside what was published.

metrics/  ->  reports/index.html
"""

import functools
from pathlib import Path
from typing import Any

import markupsafe

from stages import drawings, files, pages, params, published, questions, spread
from stages.command import run
from stages.results import label, read_results, seen_measure


def summary(dataset: str, network: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment's row: what it is, what it took, its main figures with their chance.

    The one-shot figure is that of the tasks with the most ways, the first of such.

    Args:
        dataset: its name.
        network: the network's name.
        found: what was read of the experiment; None is what is not there.
    """
    best = questions.measured(found)
    row = {"dataset": dataset, "network": network, "run": found["run"]}
    row |= {"parameters": None, "seen": None, "published": {}}
    row |= {"oneshot": best.get("one-shot"), "retrieval": best.get("retrieval")}
    if found["network"]:
        test = found["network"]["seen"]["test"]
        measure = seen_measure(test)
        row |= {"parameters": found["network"]["parameters"], "seen": (measure, test[measure])}
    return row


def main() -> None:
    """Write the page."""
    settings = params.load()
    results = {dataset: read_results(dataset) for dataset in settings.datasets}
    rows = {
        name: summary(each.dataset, each.network.name, results[each.dataset][name])
        for name, each in settings.experiments.items()
        if name in results[each.dataset]
    }
    compared = list(published.beside_ours(settings, results))
    for _, each, beside in compared:
        of_test = published.SEEN.get(each.measure, "test") == "test"  # as the row's own figures
        if each.network and beside["same"] and of_test:
            shown = rows[beside["same"][0]]["published"]
            shown.setdefault(published.part_of(each), []).append(each.figure)
    answers = questions.answers(settings, results)
    differing = dict.fromkeys(
        name for row in answers["costs"] for name in row["difference"][:2] if rows[name]["oneshot"]
    )
    text = pages.filled(
        "index.html",
        rows=rows,
        missing=[name for name in settings.experiments if name not in rows],
        provenance=pages.provenance(settings, list(settings.datasets)),
        compared=compared,
        words=published.words,
        seeds=list(spread.rows(settings)),
        datasets=settings.datasets,
        published_accuracy=functools.partial(published.best_accuracy, settings),
        answers=answers,
        oneshot=bars("one-shot", rows, "oneshot", "accuracy"),
        retrieval=bars("retrieval", rows, "retrieval", "mean_average_precision"),
        differences=bars(
            "differences", {name: rows[name] for name in differing}, "oneshot", "accuracy"
        ),
        by_layer={
            each["name"]: drawings.ranges(
                f"layers-{each['name']}",
                [
                    (label(layer), figures, each["chance"])
                    for layer, figures in each["rows"].items()
                ],
                "mean_average_precision",
            )
            for each in answers["layers"]
        },
    )
    path = Path("reports/index.html")
    files.write_text(path, text)
    for name, found in spread.ended(settings).items():
        for seed in found.seeds[1:]:
            files.forget_states("seeds", f"{name}-{seed}")
    print(f"{path}: {len(rows)} experiments")


def bars(name: str, rows: dict[str, dict], part: str, measure: str) -> markupsafe.Markup:
    """Draw one figure of each experiment that has it, with its interval, beside chance.

    Args:
        name: of the drawing.
        rows: of the experiments; see `summary`.
        part: `oneshot` or `retrieval`.
        measure: the name of the figure.
    """
    drawn = {each: row[part] for each, row in rows.items() if row[part]}
    return drawings.ranges(
        name,
        [
            (f"{each}, {best['set']}" if "set" in best else each, best, best["chance"])
            for each, best in drawn.items()
        ],
        measure,
    )


if __name__ == "__main__":
    run(main)
