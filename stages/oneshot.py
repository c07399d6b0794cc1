"""Stage `oneshot`: how often the nearest of N support images is of the query's class.

data/codes/<dataset>/<experiment>, data/tasks/<dataset>
->  in metrics/<dataset>/<experiment>: oneshot.json, and ways.csv, the accuracy for every number of
ways up to that of the widest set of tasks
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages import codes, files, params
from stages.command import run
from stages.engine import Here, OnDask, engine
from stages.measures.episodes import hits_by_ways, one_shot_hits
from stages.measures.intervals import wilson

_TASKS = 2500  # of a job: seconds of work at most, and little to be sent
_BLOCK_BYTES = 512 * 2**20  # of distances at a time, where nearest images are searched
_DIGITS = 6  # decimals of a fraction in a metrics file, far below any interval's width


def figures(hits: np.ndarray) -> dict[str, float]:
    """Return the accuracy over tasks with its 95 % Wilson interval.

    Args:
        hits: float64 (tasks,): 1 for a hit, 0 for a miss, 1/n for a tie of n.
    """
    low, high = wilson(hits.sum(), len(hits))
    named = {"accuracy": hits.mean(), "ci95_low": low, "ci95_high": high}
    return {name: round(float(value), _DIGITS) for name, value in named.items()}


def in_blocks(
    measure: Callable[..., np.ndarray],
    shared: Any,
    tasks: np.ndarray,
    labels: np.ndarray,
    workers: Here | OnDask,
) -> np.ndarray:
    """Return what a measure returns for tasks, which are given to it block by block.

    Args:
        measure: (codes, tasks, labels) -> an array of a row a task, none of which depends on the
            other tasks.
        shared: the codes, as `workers` share them.
        tasks: (tasks, 1 + ways), integers.
        labels: (n,), integers, the class of each image.
        workers: who computes it.
    """
    starts = range(0, len(tasks), _TASKS)
    jobs = ((shared, np.asarray(tasks[start : start + _TASKS]), labels) for start in starts)
    return np.concatenate(list(workers.map(measure, jobs)))


def expanded(here: tuple, counts: list[int]) -> Iterator[codes.Space]:
    """Yield an experiment's trained spaces in which each image's code is a mean with those nearest.

    Queries' and supports' codes alike: the images that a task does not show are taken as at hand,
    if unlabelled, as in semi-supervised few-shot learning (Ren et al. 2018).

    Args:
        here: dataset, experiment, layers and distances; see `stages.codes.spaces`.
        counts: of how many nearest images.
    """
    for space in codes.expanded_spaces(*here, counts, block_bytes=_BLOCK_BYTES):
        yield dataclasses.replace(space, codes=space.queries, queries=None)


def main(name: str) -> None:
    """Score one experiment on every task set of its dataset."""
    settings = params.load()
    with engine(settings.cluster.scheduler) as workers:
        score(name, settings.experiment(name), workers)


def score(name: str, experiment: params.Experiment, workers: Here | OnDask) -> None:
    """Write the figures of one experiment."""
    tasks = files.read_tasks(experiment.dataset)
    labels = codes.labels_of(experiment.dataset)
    found = {
        each: {("chance",): 1 / (drawn.shape[1] - 1), ("tasks",): len(drawn)}
        for each, drawn in tasks.items()
    }
    widest = max(tasks.values(), key=lambda drawn: drawn.shape[1])
    courses: list[tuple] = []
    layers, distances = experiment.codes.layers, experiment.oneshot.distances
    here = experiment.dataset, name, layers, distances
    for space in itertools.chain(codes.spaces(*here), expanded(here, experiment.oneshot.expansion)):
        shared = workers.share(space.codes)
        for each, drawn in tasks.items():
            measure = functools.partial(one_shot_hits, head=space.head)
            with codes.refused(experiment.dataset, name):
                hits = in_blocks(measure, shared, drawn, labels, workers)
            found[each][space.keys] = figures(hits)
            print(f"{name}: {each}: {'/'.join(space.keys)} {hits.mean():.3f}", flush=True)
        if space.keys[0] == "expanded":
            continue
        measure = functools.partial(hits_by_ways, head=space.head)
        with codes.refused(experiment.dataset, name):
            by_ways = in_blocks(measure, shared, widest, labels, workers)
        for ways, hits in enumerate(by_ways.T, 2):  # means over choices: the interval is too wide
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
