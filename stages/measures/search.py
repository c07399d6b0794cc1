"""Approximate search: what an index of faiss finds of what exact search finds, at what cost.

An index answers with the first `depth` images, some of which may be others than the nearest. Its
names are those of faiss's index_factory (Douze et al. 2024, "The faiss library"), as in
`IVF64,Flat`, behind which settings of the search may stand: `IVF64,Flat,nprobe=8`.

faiss is asked for where it is needed only: exact search does without.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from multiprocessing.pool import ThreadPool
from typing import NamedTuple

import numpy as np

from stages.measures.distances import distances_of

_SETTING = re.compile(r",(\w+=[^,]*)$")

# A squared distance is computed as |q|² + |g|² - 2 q·g in float32, by faiss as here, which is off
# by a few units in the last place of the squared lengths.
_ROUNDING = 1e-6


class Found(NamedTuple):
    """What a search found, and what it took.

    Attributes:
        images: int64 (q, depth), indices of the codes found for each query, nearest first; -1
            where an index found no more.
        distances: float32 (q, depth), their squared Euclidean distances, as the search knows them.
        build_seconds: for the training of the index and adding all codes to it, on one core.
        query_milliseconds: for each query of them all at once, on all cores.
        bytes_per_code: size of the index, all of it, a code.
    """

    images: np.ndarray
    distances: np.ndarray
    build_seconds: float
    query_milliseconds: float
    bytes_per_code: float


def exact_search(codes: np.ndarray, queries: np.ndarray, *, depth: int, block_bytes: int) -> Found:
    """Find the images nearest to each query, by Euclidean distance of the codes.

    Args:
        codes: (n, dim), float32.
        queries: int (q,), indices into `codes`; a query itself is left out by its index.
        depth: how many to find; all others if there are no more.
        block_bytes: bytes of the block of distances, (queries, n) float32, held at a time (at
            least one row).

    Returns:
        See `Found`; nothing is built, and an index of the codes would be as large as they are.

    Raises:
        ValueError: when a shape does not fit, or `depth` or `block_bytes` is not positive.
    """
    codes, squares, queries, depth = _checked(codes, queries, depth)
    if block_bytes < 1:
        raise ValueError(f"block_bytes must be positive. Received: block_bytes={block_bytes}")
    images = np.empty((len(queries), depth), np.int64)
    distances = np.empty((len(queries), depth), np.float32)
    rows = max(1, block_bytes // (len(codes) * codes.itemsize))
    begin = time.perf_counter()
    with ThreadPool() as pool:  # sorting releases the interpreter's lock
        for start in range(0, len(queries), rows):
            block = queries[start : start + rows]
            squared = codes[block] @ codes.T
            squared *= -2
            squared += squares
            squared += squares[block, None]
            squared[np.arange(len(block)), block] = np.inf
            found = pool.starmap(_nearest_of_query, ((row, depth) for row in squared))
            for place, (row, nearest) in enumerate(zip(squared, found, strict=True), start):
                images[place], distances[place] = nearest, row[nearest]
    seconds = time.perf_counter() - begin
    return Found(images, distances, 0.0, 1000 * seconds / len(queries), float(codes[0].nbytes))


class Index:
    """An index of faiss, trained on codes, that holds them.

    It is built on one core, so that it is the same from run to run on any machine: the graph of
    HNSW depends on which code is added first. What else is random in it, as the first centroids of
    k-means, comes from seeds that faiss sets.

    Attributes:
        build_seconds: for training it and adding all codes.
        bytes_per_code: its size, a code.
    """

    def __init__(self, name: str, codes: np.ndarray):
        """Build an index.

        Args:
            name: as faiss's index_factory takes it.
            codes: (n, dim), float32.

        Raises:
            ImportError: when faiss is not installed.
            ValueError: when the shape does not fit, or faiss refuses: a name that it does not
                know, or too few codes to train with.
        """
        import faiss

        self._faiss = faiss
        self._codes, *_ = _checked(codes, np.zeros(1, int), 1)
        cores = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(1)
        begin = time.perf_counter()
        try:
            with _refusals(name):
                index = faiss.index_factory(self._codes.shape[1], name, faiss.METRIC_L2)
                index.train(self._codes)
                index.add(self._codes)
        finally:
            faiss.omp_set_num_threads(cores)
        self._index = index
        self.build_seconds = time.perf_counter() - begin
        self.bytes_per_code = self._size() / len(self._codes)

    def search(self, queries: np.ndarray, *, depth: int, settings: str = "") -> Found:
        """Find images near to each query.

        An index returns what it knows: distances of compressed codes are those of what they are
        decoded to.

        Args:
            queries: int (q,), indices of the codes; a query itself is left out by its index.
            depth: how many to find; all others if there are no more.
            settings: as faiss's ParameterSpace takes them, such as "nprobe=8"; they stay. HNSW
                may find fewer than `depth` where its efSearch is less.

        Returns:
            See `Found`.

        Raises:
            ValueError: when a shape does not fit, `depth` is not positive, or faiss refuses a
                setting that it does not know, or a search by it.
        """
        _, _, queries, depth = _checked(self._codes, queries, depth)
        with _refusals(settings):
            self._faiss.ParameterSpace().set_index_parameters(self._index, settings)
            begin = time.perf_counter()
            distances, images = self._index.search(self._codes[queries], depth + 1)
            seconds = time.perf_counter() - begin
        # A query need not come first among its duplicates, nor be found at all.
        others = np.argsort(images == queries[:, None], axis=1, kind="stable")[:, :depth]
        return Found(
            np.take_along_axis(images, others, axis=1),
            np.take_along_axis(distances, others, axis=1),
            self.build_seconds,
            1000 * seconds / len(queries),
            self.bytes_per_code,
        )

    def _size(self) -> int:
        """Return the bytes of the index as faiss writes it, without holding them."""
        sizes: list[int] = []

        def note(block: bytes) -> int:
            sizes.append(len(block))
            return len(block)

        self._faiss.write_index(self._index, self._faiss.PyCallbackIOWriter(note))
        return sum(sizes)


def index_search(name: str, codes: np.ndarray, queries: np.ndarray, *, depth: int) -> Found:
    """Find images near to each query by an index of faiss, built of the codes.

    Args:
        name: of an `Index`, then settings of its search: "IVF64,Flat,nprobe=8".
        codes: (n, dim), float32.
        queries: int (q,), indices into `codes`; a query itself is left out by its index.
        depth: how many to find; all others if there are no more.

    Returns:
        See `Found`.

    Raises:
        ImportError: when faiss is not installed.
        ValueError: see `Index`.
    """
    settings: list[str] = []
    while setting := _SETTING.search(name):
        settings.insert(0, setting[1])
        name = name[: setting.start()]
    return Index(name, codes).search(queries, depth=depth, settings=",".join(settings))


def search_scores(
    found: Found, exact: Found, codes: np.ndarray, labels: np.ndarray, queries: np.ndarray
) -> dict[str, np.ndarray]:
    """Score what a search found for each query.

    - `recall_at_1`, `recall_at_10`: the share of the k nearest images that are among the first k
      found ("k-recall@k" of Douze et al. 2024, section 2). An image counts that is no farther
      than the k-th nearest one, but for rounding: which of equally far images are found does not
      matter.
    - `average_precision`: (1/R) Σ P(i) over the ranks i of the relevant images found, those of
      the query's class; R is the number of them all, so that those not found count 0. P(i) is the
      share of relevant images among the first i. Equally far images, as the search knows their
      distances, are retrieved at once: see `stages.measures.ranking.retrieval_scores`, which this
      is when all images are found, nearest first.

    Args:
        found: what is scored.
        exact: what `exact_search` found for the same queries; at least the first 10.
        codes: (n, dim), float32.
        labels: (n,), integers, the class of each image.
        queries: int (q,), indices into `codes`.

    Returns:
        Arrays (q,), float64, from 0 to 1, by name. With fewer than 10 other images k is their
        number instead of 10.

    Raises:
        ValueError: when shapes do not fit, or the class of a query has one image only.
    """
    codes, squares, queries, nearest = _checked(codes, queries, 10)
    labels = np.asarray(labels)
    rows, columns = exact.images.shape
    if labels.shape != (len(codes),) or {rows, len(found.images)} != {len(queries)}:
        raise ValueError(
            "labels must be (n,), and images found of all queries. Received: "
            f"labels.shape={labels.shape}, codes.shape={codes.shape}, queries.shape="
            f"{queries.shape}, found of {len(found.images)}, exactly of {rows}"
        )
    if columns < nearest:
        raise ValueError(f"exact must be of the first {nearest}. Received: of {columns}")
    _, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    relevant = sizes[classes[queries]] - 1
    if relevant.min() < 1:
        raise ValueError(
            "the class of a query must have another image to find. "
            f"Received: queries without: {queries[relevant < 1]}"
        )
    first = found.images[:, :nearest]
    far = np.full(first.shape, np.inf, np.float32)
    for rank, images in enumerate(first.T):
        rounding = _ROUNDING * (squares[queries] + squares[images])
        there = distances_of(codes[images] - codes[queries]) - rounding
        far[:, rank] = np.where(images < 0, np.inf, there)
    recalls = {
        f"recall_at_{k}": (far[:, :k] <= exact.distances[:, min(k, nearest) - 1, None]).sum(axis=1)
        / min(k, nearest)
        for k in (1, 10)
    }
    return recalls | {"average_precision": _average_precisions(found, labels, queries) / relevant}


def _average_precisions(found: Found, labels: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Return Σ P(i) over the ranks i of the relevant images that were found, of each query."""
    right = (labels[found.images] == labels[queries, None]) & (found.images >= 0)
    ranks = np.arange(1, right.shape[1] + 1, dtype=np.int32)
    last = np.ones(right.shape, bool)  # of a group of equally far images
    last[:, :-1] = found.distances[:, 1:] != found.distances[:, :-1]
    ends = np.where(last, ranks, ranks[-1])
    ends = np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]  # the rank of one's group's last
    hits = np.take_along_axis(right.cumsum(axis=1, dtype=np.int32), ends - 1, axis=1)
    return (right * hits / ends).sum(axis=1)


def _nearest_of_query(distances: np.ndarray, depth: int) -> np.ndarray:
    """Return the indices of the smallest distances, sorted; of equal ones the first first.

    Where not all of equally far images are found, it is not said which.
    """
    first = np.sort(np.argpartition(distances, depth - 1)[:depth])
    return first[np.argsort(distances[first], kind="stable")]


@contextlib.contextmanager
def _refusals(name: str) -> Iterator[None]:
    """Turn what faiss refuses into a ValueError, without which line of faiss it is."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2]
        raise ValueError(f"faiss refuses an index: {reason}. Received: {name!r}") from None


def _checked(
    codes: np.ndarray, queries: np.ndarray, depth: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Return codes near the origin, their squares, the queries, how many images each can find."""
    codes, queries = np.asarray(codes, np.float32), np.asarray(queries)
    if codes.ndim != 2 or len(codes) < 2 or queries.ndim != 1 or not len(queries) or depth < 1:
        raise ValueError(
            "codes must be (n, dim), two at least, queries (q,), one at least, depth positive. "
            f"Received: codes.shape={codes.shape}, queries.shape={queries.shape}, depth={depth}"
        )
    if queries.min() < 0 or queries.max() >= len(codes):
        raise ValueError(
            "queries must be indices of codes. "
            f"Received: from {queries.min()} to {queries.max()}, codes.shape={codes.shape}"
        )
    codes = codes - codes[0]  # distances do not change, but are rounded less
    squares = np.vecdot(codes, codes)
    if not np.isfinite(squares).all():
        raise ValueError(
            "codes must be finite, their squares too. "
            f"Received: {np.count_nonzero(~np.isfinite(squares))} images where they are not"
        )
    return codes, squares, queries, min(depth, len(codes) - 1)
