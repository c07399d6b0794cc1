"""What each experiment chose in the tasks of one set, by its best distance, for the pages."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from stages import predictions
from stages.command import UserError
from stages.measures.comparison import paired_difference
from stages.measures.confusion import choice_rates, likeness_order
from stages.measures.episodes import hits_of
from stages.thumbnails import picture

_MOST_CLASSES = 40  # rows of a table that a person reads; more are shown by their groups
_EXCHANGED = 5  # pairs of classes that are named as taken for each other most often


@dataclasses.dataclass(frozen=True)
class Choices:
    """What one experiment chose.

    Attributes:
        nearest: bool (tasks, ways), the support images nearest to the query: one, but for ties.
        hits: float64 (tasks,): 1 for a hit, 0 for a miss, a fraction for a tie.
    """

    nearest: np.ndarray
    hits: np.ndarray


def choices_of(
    dataset: str, names: Iterable[str], tasks: np.ndarray, labels: np.ndarray
) -> tuple[dict[str, Choices], dict[str, str]]:
    """Return what each experiment chose, and, of those of which it is not known, why.

    Args:
        dataset: its name.
        names: of experiments that were scored on these tasks.
        tasks: int32 (tasks, 1 + ways), those with the most ways.
        labels: int (images,), the class of each unseen image.
    """
    found, missing = {}, {}
    for name in names:
        try:
            nearest = predictions.read_choices(dataset, name, tasks[:, 1:].shape)
        except UserError as error:
            missing[name] = str(error)
        else:
            found[name] = Choices(nearest, hits_of(~nearest, labels[tasks]))
    return found, missing


def compared(found: dict[str, Choices]) -> Iterator[dict[str, Any]]:
    """Yield every two experiments, the better one `first`, with their paired difference.

    Those of the best experiment come first, and of each the other ones from the best to the worst.
    """
    by_accuracy = sorted(found, key=lambda name: -found[name].hits.mean())
    for first, second in itertools.combinations(by_accuracy, 2):
        yield {"first": first, "second": second} | paired_difference(
            found[first].hits, found[second].hits
        )


def by_class(
    found: dict[str, Choices], tasks: np.ndarray, labels: np.ndarray, names: list[str]
) -> dict[str, Any] | None:
    """Return how often each experiment chose right, by class, and what it took for what.

    Many classes are shown by their groups (the alphabets of characters), if they have any.

    Returns:
        `kind`: "class" or "group". `names`: of them, so ordered that those taken for each other
        stand together. `right`: by experiment, the share of right choices for queries of each.
        `best`: the experiment that is most often right; `rates`: float64 (classes, classes), the
        classes of its choices by those of the query. `exchanged`: the pairs of classes that it
        takes for each other most often, as (name, name, share of their queries). None without
        an experiment, or when there are too many classes.
    """
    kind = "class"
    if len(names) > _MOST_CLASSES:
        kind = "group"
        groups, group_of = np.unique(
            [name.rpartition("/")[0] for name in names], return_inverse=True
        )
        names, labels = groups.tolist(), group_of[labels]
    if not found or not 2 <= len(names) <= _MOST_CLASSES:
        return None
    rates = {
        name: choice_rates(~each.nearest, labels[tasks], len(names)) for name, each in found.items()
    }
    order = likeness_order(np.mean(list(rates.values()), axis=0))
    best = max(found, key=lambda name: found[name].hits.mean())
    shown = rates[best][np.ix_(order, order)]
    names = [names[index] for index in order]
    mutual = np.nan_to_num(np.triu(shown + shown.T, 1)) / 2
    first, second = np.unravel_index(mutual.ravel().argsort(stable=True)[::-1], mutual.shape)
    return {
        "kind": kind,
        "names": names,
        "right": {name: each.diagonal()[order] for name, each in rates.items()},
        "best": best,
        "rates": shown,
        "exchanged": [
            (names[a], names[b], float(mutual[a, b]))
            for a, b in itertools.islice(zip(first, second, strict=True), _EXCHANGED)
            if mutual[a, b] > 0
        ],
    }


def pictured(
    found: dict[str, Choices],
    tasks: np.ndarray,
    unseen: np.ndarray,
    names: list[str],
    count: int,
) -> dict[str, list[dict]]:
    """Return, for each experiment, tasks with the images as it chose among them.

    Args:
        found: what each experiment chose.
        tasks: int32 (tasks, 1 + ways).
        unseen: uint8 (classes, examples, height, width, channels).
        names: of the unseen classes.
        count: tasks chosen right, and as many chosen wrong.

    Returns:
        By experiment, tasks as dicts of `number`, counted from 1, and `images`, the query and
        then the support set, each a dict of `name`, `mark` and `png`.
    """
    labels = np.repeat(np.arange(unseen.shape[0]), unseen.shape[1])
    images = unseen.reshape(-1, *unseen.shape[2:])
    return {
        experiment: [
            {
                "number": row + 1,
                "images": [
                    {
                        "name": names[labels[index]],
                        "mark": mark(place == chosen + 1, labels[index] == labels[tasks[row, 0]]),
                        "png": picture(images[index]),
                    }
                    for place, index in enumerate(tasks[row])
                ],
            }
            for row, chosen in decided(each, count)
        ]
        for experiment, each in found.items()
    }


def decided(choices: Choices, count: int) -> np.ndarray:
    """Return the first tasks chosen right and the first chosen wrong, `count` of each.

    Returns:
        int (tasks, 2): the row of a task, and the place of its choice in the support set. A task
        in which two images are equally near has no choice and is left out.
    """
    alone = choices.nearest.sum(axis=1) == 1
    right = choices.hits == 1
    rows = np.concatenate([np.flatnonzero(alone & kind)[:count] for kind in (right, ~right)])
    return np.stack([rows, choices.nearest.argmax(axis=1)[rows]], axis=1)


def mark(chosen: bool, right: bool) -> str:
    """Return how an image beside a query is marked."""
    if chosen:
        return "right" if right else "wrong"
    return "true" if right else ""
