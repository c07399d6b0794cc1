"""Ranked retrieval: every image is a query against all the others, exactly and to the end.

No index, no cut-off: mean average precision that is silently computed on the first k neighbours
is another measure under the same name.
"""

from multiprocessing.pool import ThreadPool

import numpy as np

from stages.measures.distances import distances_of

MEASURES = (
    "average_precision",
    "precision_at_1",
    "precision_at_5",
    "r_precision",
    "average_precision_at_r",
)


RECALLS = np.arange(1, 21) / 20


def retrieval_scores(
    codes: np.ndarray, labels: np.ndarray, *, block_bytes: int
) -> dict[str, np.ndarray]:
    """Score each image as a query against all others, ranked by Euclidean distance of the codes.

    An image is relevant when it has the query's class; R is the number of them, the query
    itself, excluded by its index, not among them. P(i) is the share of relevant images among
    the first i. For each query:

    - `average_precision`: (1/R) Σ P(i) over the ranks i of the relevant images.
    - `precision_at_1`, `precision_at_5`: P(1), P(5).
    - `r_precision`: P(R).
    - `average_precision_at_r`: (1/R) Σ P(i) over the ranks i ≤ R of the relevant images (MAP@R
      of Musgrave et al. 2020, "A metric learning reality check", section 3.2).

    - `precision_at_recall`: P(i) at the first rank i by which the share `RECALLS` of the relevant
      images is found.

    Ties do not depend on the order of the images. In `average_precision` equally far images are
    retrieved at once: a relevant image counts with the precision behind its whole group, as in
    `sklearn.metrics.average_precision_score`; so in `precision_at_recall`. Codes that know nothing
    of the classes can only lose by ties: constant codes get R / (n - 1), less than chance. The four
    measures with a cut-off, which may cut through a group, take the irrelevant images of a group
    first.

    Distances are |g|² / 2 - q·g in float32, which orders as |q - g| does; only the values are
    sorted, and the ranks of the relevant images looked up among them.

    Args:
        codes: (n, dim), float32.
        labels: (n,), integers, the class of each image.
        block_bytes: bytes of the block of distances, (queries, n) float32, held at a time (at
            least one row). In addition there is one copy of the codes. With 4 n² bytes and more
            it is one product of an array with itself, which costs half.

    Returns:
        For each of `MEASURES`, in this order, an array (n,), float64, from 0 to 1; and
        `precision_at_recall`, (n, 20).

    Raises:
        ValueError: when shapes do not fit, codes are not finite, `block_bytes` is not
            positive, or a class has one image only, so that its query has none to find.
    """
    codes, labels = np.asarray(codes, np.float32), np.asarray(labels)
    if codes.ndim != 2 or labels.shape != (len(codes),):
        raise ValueError(
            "codes must be (n, dim) and labels (n,). "
            f"Received: codes.shape={codes.shape}, labels.shape={labels.shape}"
        )
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be positive. Received: block_bytes={block_bytes}")
    classes, sizes = _classes(labels)
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(sizes)[:-1])

    # Distances do not change when all codes are shifted, but |g|² / 2 - q·g cancels less near
    # the origin, and constant codes become exact zeros.
    codes = codes - codes[0]
    half_squares = np.vecdot(codes, codes) / 2
    if not np.isfinite(half_squares).all():
        raise ValueError(
            "codes must be finite, their squares too. "
            f"Received: {np.count_nonzero(~np.isfinite(half_squares))} images where they are not"
        )
    scores = np.empty((len(codes), len(MEASURES) + len(RECALLS)))
    rows = max(1, block_bytes // (len(codes) * codes.itemsize))
    with ThreadPool() as pool:  # sorting and searching release the interpreter's lock
        for start in range(0, len(codes), rows):
            block = codes[start : start + rows]
            distances = block @ codes.T
            np.subtract(half_squares, distances, out=distances)
            queries = np.arange(start, start + len(block))
            distances[queries - start, queries] = np.inf  # last, whatever its duplicates do
            relevant = [members[label] for label in classes[queries]]
            scores[queries] = pool.starmap(_scores_of_query, zip(distances, relevant, strict=True))
    single = dict(zip(MEASURES, scores.T[: len(MEASURES)].copy(), strict=True))
    return single | {"precision_at_recall": scores[:, len(MEASURES) :].copy()}


def nearest(codes: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """Return the images nearest to each query, by Euclidean distance of the codes.

    Args:
        codes: (n, dim), float32.
        queries: int (q,), indices into `codes`.
        count: how many, less than n; the query itself is left out by its index.

    Returns:
        int (q, count), nearest first; of equally far ones the first of `codes` comes first.
    """
    found = np.empty((len(queries), count), np.int64)
    for row, query in enumerate(queries):
        distances = distances_of(codes - codes[query])
        distances[query] = np.inf
        found[row] = np.argsort(distances, kind="stable")[:count]
    return found


def _scores_of_query(distances: np.ndarray, relevant: np.ndarray) -> tuple[float, ...]:
    """Score one query; its own distance is infinite, it is among `relevant`, ranks are sorted."""
    found = np.sort(distances[relevant])[:-1]
    distances.sort()
    total = len(found)
    # Of each relevant image: how many images, and how many relevant ones, are at most as far.
    ranks = distances.searchsorted(found, side="right")
    hits = found.searchsorted(found, side="right")
    place = np.arange(1, total + 1)
    worst = ranks - hits + place  # the rank, with the irrelevant of a tied group before it
    at_r = worst <= total
    return (
        (hits / ranks).mean(),
        (worst[:1] <= 1).sum(),
        (worst[:5] <= 5).sum() / 5,
        at_r.sum() / total,
        (place / worst)[at_r].sum() / total,
        *(hits / ranks)[-(-np.arange(1, len(RECALLS) + 1) * total // len(RECALLS)) - 1],
    )


def chance_average_precision(labels: np.ndarray) -> float:
    """Return the mean average precision expected of a random order.

    With R relevant among n images, rank k holds a relevant one with probability R / n, and then
    1 + (k - 1)(R - 1) / (n - 1) of the first k are relevant on average. So E[AP] = (1/R) Σ_k
    (R/n) (1 + (k - 1)(R - 1) / (n - 1)) / k = (1/n) (H_n + (R - 1) / (n - 1) · (n - H_n)), where
    H_n = 1 + 1/2 + … + 1/n.

    Args:
        labels: (images,), integers, the class of each image; each is a query against the
            n = images - 1 others.

    Returns:
        The mean over all queries; about .101 for 10 classes of 500.

    Raises:
        ValueError: when a class has one image only.
    """
    labels = np.asarray(labels)
    classes, sizes = _classes(labels)
    others = len(labels) - 1
    relevant = sizes[classes] - 1
    harmonic = (1 / np.arange(1, others + 1)).sum()
    share = (relevant - 1) / max(others - 1, 1)
    return float(((harmonic + share * (others - harmonic)) / others).mean())


def _classes(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the class of each image counted from 0, and the number of images of each class."""
    names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    if not sizes.size or sizes.min() < 2:
        raise ValueError(
            "every class must have two images, a query and one to find. "
            f"Received: len(labels)={len(labels)}, with a single image: {names[sizes < 2]}"
        )
    return classes, sizes
