"""One-shot tasks: drawn once as indices, then scored for any codes of the same images.

A task is one query and a support set of one image for each of `ways` classes, one of them the
query's (Lake et al. 2015, "Human-level concept learning through probabilistic program
induction"; Koch et al. 2015, section 4). Since tasks are indices, every method is scored on the
same ones, and a difference between two methods is a paired one.
"""

import math

import numpy as np

from stages.measures.distances import distances_of

_CHUNK_BYTES = 2**21  # differences held at a time: stays in a core's cache, measured fastest


def draw_tasks(
    rng: np.random.Generator,
    *,
    classes: int,
    examples: int,
    ways: int,
    count: int,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Draw one-shot tasks from class-sorted images.

    The support classes are a uniformly random ordered choice of `ways` different classes; with
    `groups` (an alphabet for each character) a group is drawn first, each that is large enough
    with the same probability, and all classes are of that group. The query's class stands at
    any position with the same probability, and its support image is another image than the
    query. Tasks are independent: any of the rows are themselves a set of tasks.

    Args:
        rng: source of randomness.
        classes: number of classes.
        examples: number of images of each class.
        ways: number of support images of a task.
        count: number of tasks.
        groups: (classes,), integers, the group of each class; None for a single group.

    Returns:
        (count, 1 + ways), int32: the query in column 0, the support set in columns 1 to `ways`,
        each as the flat index class * examples + example.

    Raises:
        ValueError: when an argument is out of range or no group has `ways` classes.
    """
    if ways < 2:
        raise ValueError(f"ways must be at least 2. Received: ways={ways}")
    if ways > classes:
        raise ValueError(f"ways must not exceed classes. Received: ways={ways}, classes={classes}")
    if examples < 2:
        raise ValueError(
            f"examples must be at least 2, a query and a support image. Received: {examples=}"
        )
    if count < 1:
        raise ValueError(f"count must be at least 1. Received: count={count}")
    groups = np.zeros(classes, int) if groups is None else np.asarray(groups)
    if groups.shape != (classes,):
        raise ValueError(
            f"groups must name the group of each class. Received: groups.shape={groups.shape}"
        )
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    members = [group for group in members if len(group) >= ways]
    if not members:
        raise ValueError(f"no group has as many as ways classes. Received: ways={ways}")

    # A row a task holds the classes of its group; a Fisher-Yates shuffle of all rows at once,
    # stopped after `ways` steps, brings the chosen ones to the front.
    sizes = np.array([len(group) for group in members])
    table = np.zeros((len(members), sizes.max()), np.int32)
    for row, group in zip(table, members, strict=True):
        row[: len(group)] = group
    drawn = rng.integers(len(members), size=count)
    pool, task = table[drawn], np.arange(count)
    for step in range(ways):
        other = rng.integers(step, sizes[drawn])
        pool[task, step], pool[task, other] = pool[task, other], pool[task, step]
    support_classes = pool[:, :ways]

    support_examples = rng.integers(examples, size=(count, ways), dtype=np.int32)
    position = rng.integers(ways, size=count)
    # A step of 1 to examples - 1 around the circle of examples never comes back to the start.
    step = rng.integers(1, examples, size=count, dtype=np.int32)
    query_example = (support_examples[task, position] + step) % examples

    tasks = np.empty((count, 1 + ways), np.int32)
    tasks[:, 0] = support_classes[task, position] * examples + query_example
    tasks[:, 1:] = support_classes * examples + support_examples
    return tasks


def support_distances(
    codes: np.ndarray, tasks: np.ndarray, *, head: tuple | None = None
) -> np.ndarray:
    """Measure how far each support image of each task is from the task's query.

    Differences are taken directly, (a - b), never through |a|² + |b|² - 2 a·b, whose rounding
    would break ties between identical codes.

    Args:
        codes: (n, dim), float32.
        tasks: (tasks, 1 + ways), integers, as `draw_tasks` returns them.
        head: None for the squared Euclidean distance, or `(w, b)`, (dim,) and a scalar, for
            the learned distance of a siamese network, minus the logit w·|a - b| + b.

    Returns:
        (tasks, ways), float32; smaller is nearer.

    Raises:
        ValueError: when shapes do not fit, an index is out of range, or a distance is not
            finite.
    """
    codes, tasks = np.asarray(codes, np.float32), np.asarray(tasks)
    if codes.ndim != 2:
        raise ValueError(f"codes must be (n, dim). Received: codes.shape={codes.shape}")
    if tasks.ndim != 2 or tasks.shape[1] < 2:
        raise ValueError(f"tasks must be (tasks, 1 + ways). Received: tasks.shape={tasks.shape}")
    if tasks.size and not 0 <= tasks.min() <= tasks.max() < len(codes):
        raise ValueError(
            "tasks must index codes. "
            f"Received: tasks from {tasks.min()} to {tasks.max()}, len(codes)={len(codes)}"
        )
    query, support = tasks[:, :1], tasks[:, 1:]
    distances = np.empty(support.shape, np.float32)
    chunk = max(1, _CHUNK_BYTES // (support.shape[1] * codes.shape[1] * codes.itemsize))
    for start in range(0, len(tasks), chunk):
        rows = slice(start, start + chunk)
        differences = codes[support[rows]]
        differences -= codes[query[rows]]
        distances[rows] = distances_of(differences, head=head)
    if not np.isfinite(distances).all():
        raise ValueError(
            "codes and head must give finite distances. "
            f"Received: {np.count_nonzero(~np.isfinite(distances))} that are not"
        )
    return distances


def one_shot_hits(
    codes: np.ndarray, tasks: np.ndarray, labels: np.ndarray, *, head: tuple | None = None
) -> np.ndarray:
    """Score one-shot tasks by whether the nearest support image is of the query's class.

    The mean over tasks is the one-shot accuracy. When n support images are equally near, a
    prediction would pick one of them at random, so a task scores the share of them that is of
    the query's class: codes that are all the same score exactly chance, 1 / ways, wherever the
    true class stands.

    Args:
        codes: (n, dim), float32.
        tasks: (tasks, 1 + ways), integers, as `draw_tasks` returns them.
        labels: (n,), integers, the class of each image.
        head: see `support_distances`.

    Returns:
        (tasks,), float64: 1 for a hit, 0 for a miss, a fraction for a tie.

    Raises:
        ValueError: as `support_distances`, and when `labels` does not fit `codes`.
    """
    labels = np.asarray(labels)
    if labels.shape != (len(codes),):
        raise ValueError(
            "labels must name the class of each code. "
            f"Received: labels.shape={labels.shape}, len(codes)={len(codes)}"
        )
    return hits_of(support_distances(codes, tasks, head=head), labels[tasks])


def hits_of(distances: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Score one-shot tasks whose distances are measured already; see `one_shot_hits`.

    Args:
        distances: (tasks, ways), as `support_distances` returns them.
        classes: (tasks, 1 + ways), of the query and of each support image.

    Returns:
        (tasks,), float64: 1 for a hit, 0 for a miss, a fraction for a tie.
    """
    nearest = distances == distances.min(axis=1, keepdims=True)
    right = nearest & (classes[:, 1:] == classes[:, :1])
    return right.sum(axis=1) / nearest.sum(axis=1)


def hits_by_ways(
    codes: np.ndarray, tasks: np.ndarray, labels: np.ndarray, *, head: tuple | None = None
) -> np.ndarray:
    """Score tasks as if their support sets were smaller: the mean over all choices of classes.

    Of a task with W classes, f of the wrong support images are farther from the query than the
    true one, and e equally far. With n ways, n - 1 of the W - 1 wrong ones are there, each
    choice with the same probability; the task is a hit when all of them are farther, and with j
    equally far ones the share 1 / (1 + j) of a hit. Since C(e, j) / (1 + j) equals
    C(e + 1, j + 1) / (e + 1), the sum over j is Vandermonde's, but for its first term:

        Σ_j C(e, j) C(f, n - 1 - j) / (1 + j) / C(W - 1, n - 1)
          = (C(e + f + 1, n) - C(f, n)) / ((e + 1) C(W - 1, n - 1))

    So one set of tasks gives the accuracy for every number of ways up to its own, exactly, where
    other tasks for each would add their noise.

    Args:
        codes: (n, dim), float32.
        tasks: (tasks, 1 + W), integers, as `draw_tasks` returns them.
        labels: (n,), integers, the class of each image.
        head: see `support_distances`.

    Returns:
        (tasks, W - 1), float64: expected hits with 2, 3, … W ways; the last is what
        `one_shot_hits` returns.

    Raises:
        ValueError: as `support_distances`, and when a task has not exactly one support image of
            the query's class.
    """
    classes = np.asarray(labels)[tasks]
    same = classes[:, 1:] == classes[:, :1]
    if (same.sum(axis=1) != 1).any():
        raise ValueError("each task must have one support image of the query's class")
    distances = support_distances(codes, tasks, head=head)
    true = distances[same][:, None]
    farther = (distances > true).sum(axis=1)
    equal = (distances == true).sum(axis=1) - 1
    ways = same.shape[1]
    kinds, kind_of_task = np.unique(farther * ways + equal, return_inverse=True)
    choices = [math.comb(ways - 1, n - 1) for n in range(2, ways + 1)]
    expected = [
        [
            (math.comb(e + f + 1, n) - math.comb(f, n)) / ((e + 1) * all_choices)
            for n, all_choices in enumerate(choices, start=2)
        ]
        for f, e in (divmod(kind, ways) for kind in kinds.tolist())
    ]
    return np.array(expected)[kind_of_task]
