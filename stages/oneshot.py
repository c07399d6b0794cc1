"""Stage `oneshot`: how often the nearest of N support images is of the query's class.

data/codes/<dataset>/<experiment>, data/tasks/<dataset>
->  metrics/<dataset>/<experiment>/oneshot.json
"""

from pathlib import Path

import numpy as np

from stages import codes, files, params
from stages.command import run
from stages.measures.episodes import one_shot_hits
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
    layers, distances = experiment.codes.layers, experiment.oneshot.distances
    for space in codes.spaces(experiment.dataset, name, layers, distances):
        for each, drawn in tasks.items():
            with codes.refused(experiment.dataset, name):
                hits = one_shot_hits(space.codes, drawn, labels, head=space.head)
            found[each][space.keys] = figures(hits)
            print(f"{name}: {each}: {'/'.join(space.keys)} {hits.mean():.3f}", flush=True)
    files.write_json(
        Path("metrics", experiment.dataset, name, "oneshot.json"),
        {each: codes.nested(figure) for each, figure in found.items()},
    )


if __name__ == "__main__":
    run(main)
