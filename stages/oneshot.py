"""Stage `oneshot`: how often the nearest of N support images is of the query's class.

data/codes/<dataset>/<experiment>, data/tasks/<dataset>
->  in metrics/<dataset>/<experiment>: oneshot.json, and ways.csv, the accuracy for every number of
ways up to that of the widest set of tasks
"""

from pathlib import Path

import numpy as np

from stages import codes, files, params
from stages.command import run
from stages.measures.episodes import hits_by_ways, one_shot_hits
from stages.measures.intervals import wilson

_DIGITS = 6  # decimals of a fraction in a metrics file, far below any interval's width


def figures(hits: np.ndarray) -> dict[str, float]:
    """Return the accuracy over tasks with its 95 % Wilson interval.

    Args:
        hits: float64 (tasks,): 1 for a hit, 0 for a miss, 1/n for a tie of n.
    """
    low, high = wilson(hits.sum(), len(hits))
    named = {"accuracy": hits.mean(), "ci95_low": low, "ci95_high": high}
    return {name: round(float(value), _DIGITS) for name, value in named.items()}


def main(name: str) -> None:
    """Score one experiment on every task set of its dataset."""
    experiment = params.load().experiment(name)
    tasks = files.read_tasks(experiment.dataset)
    labels = codes.labels_of(experiment.dataset)
    found = {
        each: {("chance",): 1 / (drawn.shape[1] - 1), ("tasks",): len(drawn)}
        for each, drawn in tasks.items()
    }
    widest = max(tasks.values(), key=lambda drawn: drawn.shape[1])
    courses: list[tuple] = []
    layers, distances = experiment.codes.layers, experiment.oneshot.distances
    for space in codes.spaces(experiment.dataset, name, layers, distances):
        for each, drawn in tasks.items():
            with codes.refused(experiment.dataset, name):
                hits = one_shot_hits(space.codes, drawn, labels, head=space.head)
            found[each][space.keys] = figures(hits)
            print(f"{name}: {each}: {'/'.join(space.keys)} {hits.mean():.3f}", flush=True)
        by_ways = hits_by_ways(space.codes, widest, labels, head=space.head)
        for ways, hits in enumerate(by_ways.T, 2):
            courses.append(("/".join(space.keys), ways, *figures(hits).values()))
    metrics = Path("metrics", experiment.dataset, name)
    files.write_json(
        metrics / "oneshot.json", {each: codes.nested(figure) for each, figure in found.items()}
    )
    files.write_csv(
        metrics / "ways.csv", ("series", "ways", "accuracy", "ci95_low", "ci95_high"), courses
    )


if __name__ == "__main__":
    run(main)
