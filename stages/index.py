"""Stage `index`: every experiment of every dataset on one page, beside what was published.

metrics/  ->  reports/index.html
"""

from pathlib import Path
from typing import Any

from stages import drawings, files, pages, params
from stages.command import run
from stages.results import best_of, read_results


def summary(dataset: str, network: str, found: dict[str, Any]) -> dict[str, Any]:
    """Return an experiment's row: what it is, what it took, its main figures with their chance.

    The one-shot figure is that of the tasks with the most ways, the first of such.

    Args:
        dataset: its name.
        network: the network's name.
        found: what was read of the experiment; None is what is not there.
    """
    sets = sorted((found["oneshot"] or {}).items(), key=lambda each: each[1]["chance"])
    row = {"dataset": dataset, "network": network, "run": found["run"]}
    row |= {"parameters": None, "seen": None, "oneshot": None, "retrieval": None}
    if found["network"]:
        test = found["network"]["seen"]["test"]
        measure = "accuracy" if "accuracy" in test else "pair_auc"
        row |= {"parameters": found["network"]["parameters"], "seen": (measure, test[measure])}
    if sets and (best := best_of(sets[0][1], "accuracy")):
        row["oneshot"] = best | {"set": sets[0][0], "chance": sets[0][1]["chance"]}
    if found["retrieval"] and (best := best_of(found["retrieval"], "mean_average_precision")):
        row["retrieval"] = best | {"chance": found["retrieval"]["chance"]}
    return row


def counterpart(measure: str, results: dict[str, dict]) -> tuple[str, float] | None:
    """Return which experiment is best at a published measure, and its figure; None without any."""
    figures = {}
    for name, found in results.items():
        test = (found["network"] or {"seen": {"test": {}}})["seen"]["test"]
        scores = (found["oneshot"] or {}).get(measure.removesuffix(" one-shot"))
        if measure == "accuracy on the seen classes" and "accuracy" in test:
            figures[name] = test["accuracy"]
        elif measure == "retrieval" and found["retrieval"]:
            best = best_of(found["retrieval"], "mean_average_precision")
            figures[name] = best["mean_average_precision"]
        elif scores:
            figures[name] = best_of(scores, "accuracy")["accuracy"]
    return max(figures.items(), key=lambda each: each[1], default=None)


def main() -> None:
    """Write the page."""
    settings = params.load()
    rows, compared = {}, []
    for dataset, chosen in settings.datasets.items():
        results = read_results(dataset)
        for name, found in results.items():
            if name in settings.experiments:
                network = settings.experiments[name].network.name
                rows[name] = summary(dataset, network, found)
        for each in chosen.published:
            if not each.dimensions:  # of compressed codes; the dataset's page shows them
                compared.append((dataset, each, counterpart(each.measure, results)))
    text = pages.filled(
        "index.html",
        rows=rows,
        provenance=pages.provenance(settings, list(settings.datasets)),
        compared=compared,
        oneshot=drawings.ranges(
            "one-shot",
            [
                (f"{name}, {row['oneshot']['set']}", row["oneshot"], row["oneshot"]["chance"])
                for name, row in rows.items()
                if row["oneshot"]
            ],
            "accuracy",
        ),
        retrieval=drawings.ranges(
            "retrieval",
            [
                (name, row["retrieval"], row["retrieval"]["chance"])
                for name, row in rows.items()
                if row["retrieval"]
            ],
            "mean_average_precision",
        ),
    )
    path = Path("reports/index.html")
    files.write_text(path, text)
    print(f"{path}: {len(rows)} experiments")


if __name__ == "__main__":
    run(main)
