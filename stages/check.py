"""The gate: exit code 1, and a line for each figure in metrics/ that does not clear its baseline.

Not a stage of dvc.yaml, since it makes nothing: `python -m stages.check`, in CI and by hand.
params.yaml says under `check` what each experiment has to beat and to reach.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from stages import params
from stages.codes import BESIDE
from stages.command import UserError, run
from stages.results import read_metrics

_FIGURE = {"oneshot": "accuracy", "retrieval": "mean_average_precision"}


def rows(figures: dict, name: str) -> Iterator[tuple[str, dict]]:
    """Yield every distance's figures below a layer, `pixels` or `untrained`, with their path."""
    for key, value in figures.items():
        if "ci95_low" in value:
            yield f"{name}/{key}", value
        else:
            yield from rows(value, f"{name}/{key}")


def not_beaten(figures: dict, measure: str, beat: list[str]) -> Iterator[str]:
    """Yield a line for each figure that does not clear its baseline.

    Every distance must clear chance with the lower end of its interval; the best distance of
    each layer must clear the best one of each other baseline.

    Args:
        figures: those of one task set, or of retrieval.
        measure: the name of the figure.
        beat: the baselines: `chance`, `pixels`, `untrained`.
    """
    layers = [key for key, value in figures.items() if isinstance(value, dict)]
    for layer in (key for key in layers if key not in BESIDE):
        scored = list(rows(figures[layer], layer))
        if not scored:
            continue  # `main` says so
        if "chance" in beat:
            for name, row in scored:
                if row["ci95_low"] <= (chance := figures["chance"]):
                    yield f"{name}: {_interval(row, measure)} does not clear chance {chance}"
        name, best = max(scored, key=lambda scored_row: scored_row[1][measure])
        for baseline in (key for key in beat if key != "chance"):
            others = rows(figures.get(baseline, {}), baseline)
            found = max((row[measure] for _, row in others), default=None)
            if found is None:
                yield f"{name}: no figures of {baseline} beside it; run dvc repro"
            elif best["ci95_low"] <= found:
                yield f"{name}: {_interval(best, measure)} does not clear {baseline} {found}"


def _interval(row: dict, measure: str) -> str:
    return f"{measure} {row[measure]} (from {row['ci95_low']})"


def not_reached(metrics: dict[str, dict], at_least: dict[str, float]) -> Iterator[str]:
    """Yield a line for each figure below its threshold.

    Args:
        metrics: the content of network.json, oneshot.json and retrieval.json by their stems.
        at_least: thresholds by path, such as network/seen/test/accuracy.

    Raises:
        UserError: for a path that leads to no number.
    """
    for path, threshold in at_least.items():
        found = metrics
        for key in path.split("/"):
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, int | float):
            raise UserError(f"params.yaml: check: at_least: {path}: no such figure in metrics/")
        if found < threshold:
            yield f"{path}: {found} is below {threshold}"


def main() -> None:
    """Check every experiment of params.yaml."""
    settings = params.load()
    failures, passed = [], 0
    for name, experiment in settings.experiments.items():
        folder = Path("metrics", experiment.dataset, name)
        metrics = {stem: read_metrics(folder, stem) for stem in ("network", "oneshot", "retrieval")}
        chosen = settings.check[name]
        sets = {f"oneshot/{key}": (value, "oneshot") for key, value in metrics["oneshot"].items()}
        sets["retrieval"] = (metrics["retrieval"], "retrieval")
        found = list(not_reached(metrics, chosen.at_least))
        # What is not there would clear every baseline.
        asked = [f"oneshot/{key}" for key in settings.dataset(experiment.dataset).tasks.sets]
        lacks = [place for place in asked if place not in sets]
        for place, (figures, stem) in sets.items():
            layers = experiment.codes.layers
            lacks += [f"{place}/{layer}" for layer in layers if not figures.get(layer)]
            lines = not_beaten(figures, _FIGURE[stem], chosen.beat)
            found += [f"{place}/{line}" for line in lines]
        found += [f"{place}: not measured; run dvc repro" for place in lacks]
        failures += [f"{folder}: {line}" for line in found]
        passed += not found
    known = {Path(each.dataset, name) for name, each in settings.experiments.items()}
    for folder in sorted(path for path in Path("metrics").glob("*/*") if path.is_dir()):
        if folder.relative_to("metrics") not in known:
            failures.append(f"{folder}: no such experiment in params.yaml; remove its metrics")
    print(f"{passed} of {len(settings.experiments)} experiments clear every baseline and threshold")
    for line in failures:
        print(line, file=sys.stderr)
    if failures:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
