"""Ranked retrieval: every image is a query against all the others, exactly and to the end.

No index, no cut-off: mean average precision that is silently computed on the first k neighbours
is another measure under the same name.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from stages.engine import HERE, Here, OnDask
from stages.measures.distances import distances_of

MEASURES = (
    "average_precision",
    "precision_at_1",
    "precision_at_5",
    "r_precision",
    "average_precision_at_r",
)


RECALLS = np.arange(1, 21) / 20

_CORES = os.cpu_count() or 1
_THREADS = ThreadPoolExecutor(_CORES)  # sorting and searching release the interpreter's lock


def retrieval_scores(
    codes: np.ndarray,
    labels: np.ndarray,
    *,
    block_bytes: int,
    queries: np.ndarray | None = None,
    query_codes: np.ndarray | None = None,
    shards: int = 1,
    workers: Here | OnDask = HERE,
) -> dict[str, np.ndarray]:
    """Score images as queries against all others, ranked by Euclidean distance of the codes.

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
    sorted. Equal codes are compared once, so that they tie whatever a processor does: a matrix
    product may round equal columns differently. The rank of a relevant image is the number of
    relevant images that are at most as far plus, summed over the shards, the number of irrelevant
    ones: exact, and no shard needs the codes of another.

    Args:
        codes: (n, dim), float32.
        labels: (n,), integers, the class of each image.
        block_bytes: bytes of the block of distances, (queries, n / shards) float32, held at a time
            by whoever computes it (at least one row). In addition there is one copy of the codes,
            one of `query_codes`, and one of the block where some codes are equal. With one shard of
            different codes, without `query_codes`, 4 n² bytes and more it is one product of an
            array with itself, which costs half.
        queries: int (q,), indices into `codes`, the images that are queries; None for all.
        query_codes: (q, dim), float32, by which the queries are compared with `codes`; None for
            their own. A query stays excluded by its index.
        shards: parts of the codes, of one size but for one image, which are compared with the
            queries one by one. Rounding may order two images otherwise whose distances differ by
            the last bits of float32.
        workers: who computes it.

    Returns:
        For each of `MEASURES`, in this order, an array (q,), float64, from 0 to 1; and
        `precision_at_recall`, (q, 20).

    Raises:
        ValueError: when shapes do not fit, codes are not finite, `shards` or `block_bytes` is not
            positive, `queries` are no indices, or a class has one image only, so that its query
            has none to find.
    """
    codes, labels = np.asarray(codes, np.float32), np.asarray(labels)
    if codes.ndim != 2 or labels.shape != (len(codes),):
        raise ValueError(
            "codes must be (n, dim) and labels (n,). "
            f"Received: codes.shape={codes.shape}, labels.shape={labels.shape}"
        )
    for name, value in (("block_bytes", block_bytes), ("shards", shards)):
        if value < 1:
            raise ValueError(f"{name} must be positive. Received: {name}={value}")
    classes, _ = _classes(labels)
    queries = np.arange(len(codes)) if queries is None else np.asarray(queries)
    in_range = (queries >= 0) & (queries < len(codes))
    if queries.ndim != 1 or queries.dtype.kind not in "iu" or not in_range.all():
        raise ValueError(f"queries must be indices of codes. Received: queries={queries}")
    if query_codes is not None:
        query_codes = np.asarray(query_codes, np.float32)
        if query_codes.shape != (len(queries), codes.shape[1]):
            raise ValueError(
                "query_codes must be (q, dim), one of each query. "
                f"Received: query_codes.shape={query_codes.shape}, q={len(queries)}"
            )
        if not np.isfinite(query_codes).all():
            raise ValueError("query_codes must be finite. Received: some that are not")

    # Sorted by class, the relevant images of a query lie side by side. Distances do not change when
    # all codes are shifted, but |g|² / 2 - q·g cancels less near the origin, and constant codes
    # become exact zeros.
    order = np.argsort(classes, kind="stable")
    origin, classes, codes = codes[0], classes[order], codes[order]
    codes -= origin
    half_squares = np.vecdot(codes, codes) / 2
    if not np.isfinite(half_squares).all():
        raise ValueError(
            "codes must be finite, their squares too. "
            f"Received: {np.count_nonzero(~np.isfinite(half_squares))} images where they are not"
        )
    places = np.argsort(order)[queries]
    order = np.argsort(places, kind="stable")
    places = places[order]

    first = _first_equal(codes, half_squares)
    edges = np.linspace(0, len(codes), min(shards, len(codes)) + 1).astype(int)
    shard_of = np.searchsorted(edges, first, side="right") - 1  # equal codes are in one shard
    parts, place_in = [], np.empty(len(codes), int)
    for index, (start, stop) in enumerate(itertools.pairwise(edges)):
        images = np.flatnonzero(shard_of == index)
        different, columns = np.unique(first[images], return_inverse=True)
        bounds = np.searchsorted(classes[images], np.arange(classes[-1] + 2))
        which = different if len(different) < stop - start else slice(start, stop)  # no copy
        where = columns if len(different) < len(images) else slice(None)
        parts.append(_Shard(codes[which], half_squares[which], where, bounds))
        place_in[images] = np.arange(len(images))
    rows = max(1, block_bytes // (np.bincount(shard_of).max() * codes.itemsize))
    cuts = range(rows, len(places), rows)
    blocks = np.split(places, cuts)
    if query_codes is None:
        asked = [None] * len(blocks)
    else:
        asked = np.split(query_codes[order] - origin, cuts)
    if len(parts) == 1:
        shared = workers.share(parts[0])
        jobs = ((shared, *each, classes[each[0]]) for each in zip(blocks, asked, strict=True))
        found = workers.map(_scores_in_one_shard, jobs)
    else:
        given = (
            (places, codes[places] if own is None else own)
            for places, own in zip(blocks, asked, strict=True)
        )
        found = _scores_over_shards(parts, shard_of, place_in, classes, given, workers)
    scores = np.empty((len(queries), len(MEASURES) + len(RECALLS)))
    scores[order] = np.concatenate(list(found))
    single = dict(zip(MEASURES, scores.T[: len(MEASURES)].copy(), strict=True))
    return single | {"precision_at_recall": scores[:, len(MEASURES) :].copy()}


def _first_equal(codes: np.ndarray, half_squares: np.ndarray) -> np.ndarray:
    """Return for each code, int (n,), the place of the first one that is equal to it."""
    first = np.arange(len(codes))
    _, lengths, counts = np.unique(half_squares, return_inverse=True, return_counts=True)
    known: dict[bytes, int] = {}
    for place in np.flatnonzero(counts[lengths] > 1):  # others have no equal
        first[place] = known.setdefault((codes[place] + 0).tobytes(), place)  # -0 is 0
    return first


@dataclasses.dataclass(frozen=True)
class _Shard:
    """Some of the class-sorted images.

    Attributes:
        codes: float32 (m, dim), those that differ.
        half_squares: float32 (m,), half the square of the length of each.
        columns: int (n,), which of the codes each image has; or all, where each has its own.
        bounds: int (classes + 1,): of a class it has those from bounds[class] to bounds[class + 1].
    """

    codes: np.ndarray
    half_squares: np.ndarray
    columns: np.ndarray | slice
    bounds: np.ndarray

    def members(self, classes: np.ndarray) -> list[slice]:
        """Return where those of each of some classes are."""
        return list(map(slice, self.bounds[classes], self.bounds[classes + 1]))

    def codes_at(self, places: np.ndarray) -> np.ndarray:
        """Return the codes of its images at some places."""
        if not isinstance(self.columns, slice):
            return self.codes[self.columns[places]]
        if (np.diff(places) == 1).all():  # a view: NumPy sees an array multiplied with itself
            return self.codes[places[0] : places[-1] + 1]
        return self.codes[places]

    def distances(self, queries: np.ndarray) -> np.ndarray:
        """Return float32 (queries, images): |g|² / 2 - q·g of its images."""
        distances = queries @ self.codes.T
        return np.subtract(self.half_squares, distances, out=distances)[:, self.columns]


def _scores_in_one_shard(
    shard: _Shard, places: np.ndarray, queries: np.ndarray | None, classes: np.ndarray
) -> np.ndarray:
    """Score queries at some places of a shard of all images: float64 (queries, scores)."""
    distances = shard.distances(shard.codes_at(places) if queries is None else queries)
    distances[np.arange(len(places)), places] = np.inf  # last, whatever its duplicates do
    return np.array(_of_each(_scores_of_query, distances, shard.members(classes)))


def _scores_of_query(distances: np.ndarray, members: slice) -> tuple[float, ...]:
    """Score a query, itself infinitely far, by its distances to all images; they are sorted."""
    found = np.sort(distances[members])[:-1]
    return _scores(found, _irrelevant_within(distances, members, found))


def _scores_over_shards(
    parts: list[_Shard],
    shard_of: np.ndarray,
    place_in: np.ndarray,
    classes: np.ndarray,
    blocks: Iterable[tuple[np.ndarray, np.ndarray]],
    workers: Here | OnDask,
) -> Iterator[np.ndarray]:
    """Yield the scores of blocks of queries, float64 (queries, scores).

    The shards are asked twice: how far the relevant images of a query are, where they have some,
    and how many irrelevant ones are as near. Few blocks are on their way from one question to the
    next at a time.

    Args:
        parts: the shards.
        shard_of: int (n,), in which of them each image is.
        place_in: int (n,), where in it.
        classes: int (n,), the class of each.
        blocks: the places of some queries at a time, and what they are compared by.
        workers: who computes it.
    """
    shared = [workers.share(part) for part in parts]
    given = ((workers.share(codes), places, classes[places]) for places, codes in blocks)
    first, second = itertools.tee(given)

    def with_members(of: np.ndarray) -> list[int]:
        return [
            index
            for index, part in enumerate(parts)
            if part.bounds[of[0]] < part.bounds[of[-1] + 1]
        ]

    distances = workers.map(
        _relevant_distances,
        (
            (shared[index], queries, np.where(shard_of[places] == index, place_in[places], -1), of)
            for queries, places, of in first
            for index in with_members(of)
        ),
    )
    asked = (
        (queries, of, _sorted_together([next(distances) for _ in with_members(of)]))
        for queries, _, of in second
    )
    third, fourth = itertools.tee(asked)
    counts = workers.map(
        _irrelevant_in_shard, ((shard, *each) for each in third for shard in shared)
    )
    for _, _, found in fourth:
        within = [sum(each) for each in zip(*(next(counts) for _ in shared), strict=True)]
        yield np.array(_of_each(_scores, found, within))


def _relevant_distances(
    shard: _Shard, queries: np.ndarray, places: np.ndarray, classes: np.ndarray
) -> list[np.ndarray]:
    """Return how far the relevant images in a shard are from each query, itself left out.

    The whole product, as in `_irrelevant_in_shard`: one of the relevant images alone might be
    rounded in another way.
    """
    found = []
    distances = shard.distances(queries)
    for row, own, place in zip(distances, shard.members(classes), places, strict=True):
        itself = [place - own.start] if place >= 0 else []
        found.append(np.delete(row[own], itself))
    return found


def _irrelevant_in_shard(
    shard: _Shard, queries: np.ndarray, classes: np.ndarray, found: list[np.ndarray]
) -> list[np.ndarray]:
    """Return `_irrelevant_within` a shard for each query."""
    return _of_each(_irrelevant_within, shard.distances(queries), shard.members(classes), found)


def _irrelevant_within(distances: np.ndarray, members: slice, found: np.ndarray) -> np.ndarray:
    """Return of each distance in `found` how many irrelevant images are at most as far.

    Args:
        distances: float32 (images,), from the query; they are overwritten.
        members: which of the images are of the query's class.
        found: float32 (R,), sorted.
    """
    irrelevant = len(distances) - (members.stop - members.start)
    distances[members] = np.inf
    distances.sort()
    return distances[:irrelevant].searchsorted(found, side="right")


def _sorted_together(parts: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Return the sorted distances of each query from those in each shard."""
    return [np.sort(np.concatenate(each)) for each in zip(*parts, strict=True)]


def _of_each(function: Callable, *rows: Sequence) -> list:
    """Return what a function returns for each query, in their order."""
    calls = list(zip(*rows, strict=True))
    size = -(-len(calls) // (4 * _CORES))
    parts = [calls[start : start + size] for start in range(0, len(calls), size)]
    results = _THREADS.map(lambda part: list(itertools.starmap(function, part)), parts)
    return list(itertools.chain.from_iterable(results))


def _scores(found: np.ndarray, within: np.ndarray) -> tuple[float, ...]:
    """Score a query.

    Args:
        found: float32 (R,), the sorted distances of the relevant images.
        within: int (R,), of each how many irrelevant images are at most as far.
    """
    total = len(found)
    hits = found.searchsorted(found, side="right")  # relevant images that are at most as far
    ranks = within + hits
    place = np.arange(1, total + 1)
    worst = within + place  # the rank, with the irrelevant of a tied group before it
    at_r = worst <= total
    return (
        (hits / ranks).mean(),
        (worst[:1] <= 1).sum(),
        (worst[:5] <= 5).sum() / 5,
        at_r.sum() / total,
        (place / worst)[at_r].sum() / total,
        *(hits / ranks)[-(-np.arange(1, len(RECALLS) + 1) * total // len(RECALLS)) - 1],
    )


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
