"""Query expansion: an image is asked for together with what was found nearest to it."""

from collections.abc import Iterator

import numpy as np

from stages.measures.search import exact_search


def expanded(
    codes: np.ndarray, counts: list[int], *, block_bytes: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield what takes the place of the images' codes when they are queries.

    The mean of an image's code and of the codes of the images nearest to it, by Euclidean distance:
    "average query expansion" of Chum et al. 2007, "Total Recall", here of all that was found and
    not of what a spatial check confirmed. No label is looked at, and the images that are searched
    keep their codes.

    Args:
        codes: (n, dim), float32; each is a query once.
        counts: of how many nearest images; those that are more than there are others are left out.
        block_bytes: see `stages.measures.search.exact_search`.

    Yields:
        From few images to many, the count and float32 (n, dim).

    Raises:
        ValueError: when the shape does not fit, codes are not finite, or `block_bytes` is not
            positive.
    """
    possible = sorted(each for each in counts if each < len(codes))
    if not possible:
        return
    codes, queries = np.asarray(codes, np.float32), np.arange(len(codes))
    found = exact_search(codes, queries, depth=max(possible), block_bytes=block_bytes)
    total, taken = codes.copy(), 0
    for count in possible:
        for images in found.images.T[taken:count]:  # a rank at a time: memory holds one more copy
            total += codes[images]
        taken = count
        yield count, total / np.float32(count + 1)
