"""Distances between codes: Euclidean, of codes as they are or normalised first.

Which one is taken matters more than most networks do (Wang et al. 2019: the same network, 15
points of one-shot accuracy apart), so an experiment reports several of `DISTANCES`, side by side.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np


def l2_normalised(codes: np.ndarray) -> np.ndarray:
    """Scale every code to unit Euclidean length; a zero code stays zero.

    Babenko et al. 2014, "Neural codes for image retrieval", section 3.

    Args:
        codes: (n, dim), float32.

    Returns:
        A new array (n, dim), float32.

    Raises:
        ValueError: when `codes` is not two-dimensional.
    """
    codes = _matrix(codes)
    lengths = np.sqrt(np.vecdot(codes, codes))
    lengths[lengths == 0] = 1
    return codes / lengths[:, None]


def centred_l2_normalised(codes: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Subtract `mean`, then scale every code to unit Euclidean length.

    "CL2N" of Wang et al. 2019, "SimpleShot", section 3, where the mean is that of the codes of
    the classes seen in training.

    Args:
        codes: (n, dim), float32.
        mean: (dim,), the mean code of seen classes; taken off as float32.

    Returns:
        A new array (n, dim), float32.

    Raises:
        ValueError: when the shapes do not fit.
    """
    codes = _matrix(codes)
    mean = np.asarray(mean, np.float32)
    if mean.shape != codes.shape[1:]:
        raise ValueError(
            "mean must have as many components as a code. "
            f"Received: mean.shape={mean.shape}, codes.shape={codes.shape}"
        )
    return l2_normalised(codes - mean)


class Means(NamedTuple):
    """Mean codes of seen classes, each float64 (dim,).

    Attributes:
        codes: of the codes as they are.
        directions: of the codes scaled to unit length.
    """

    codes: np.ndarray
    directions: np.ndarray


def means_of(blocks: Iterable[np.ndarray]) -> Means:
    """Return the means of codes that come block by block, so that memory holds one block.

    Args:
        blocks: float32 (n, dim) each, at least one code in all.
    """
    count, sums = 0, [0.0, 0.0]
    for block in blocks:
        count += len(block)
        for index, each in enumerate((_matrix(block), l2_normalised(block))):
            sums[index] = sums[index] + each.sum(axis=0, dtype=np.float64)
    return Means(*(total / count for total in sums))


# Each is the Euclidean distance of the codes that its function returns. In the last one no seen
# image counts for more because its code is long, which is worth a point (docs/tried.md).
DISTANCES: dict[str, Callable[[np.ndarray, Means], np.ndarray]] = {
    "l2": lambda codes, means: np.asarray(codes, np.float32),
    "l2_normalised": lambda codes, means: l2_normalised(codes),
    "centred_l2_normalised": lambda codes, means: centred_l2_normalised(codes, means.codes),
    "l2_centred_l2_normalised": lambda codes, means: centred_l2_normalised(
        l2_normalised(codes), means.directions
    ),
}


def distances_of(differences: np.ndarray, *, head: tuple | None = None) -> np.ndarray:
    """Measure differences a - b of pairs of codes; `differences` is overwritten.

    Without a head: the squared Euclidean distance, sum((a - b)²), which orders as its root does.
    With a head: minus the logit w·|a - b| + b of a siamese network (Koch et al. 2015, "Siamese
    neural networks for one-shot image recognition", section 3), whose sigmoid is the
    probability that both images are of one class. Logits are compared, not probabilities: in
    float32 the sigmoid of 17 is 1, and ties would be invented.

    Each distance is a dot product of its own, so equal differences give equal bits wherever
    they stand in the array, and ties are exact.

    Args:
        differences: (..., dim), float32.
        head: `(w, b)`, (dim,) and a scalar, or None.

    Returns:
        (...), float32; smaller is nearer.

    Raises:
        ValueError: when `w` does not have `dim` components.
    """
    if head is None:
        return np.vecdot(differences, differences)
    w, b = np.asarray(head[0], np.float32), np.float32(head[1])
    if w.shape != differences.shape[-1:]:
        raise ValueError(
            "w must have as many components as a code. "
            f"Received: w.shape={w.shape}, dim={differences.shape[-1]}"
        )
    return -(np.vecdot(np.abs(differences, out=differences), w) + b)


def _matrix(codes: np.ndarray) -> np.ndarray:
    codes = np.asarray(codes, np.float32)
    if codes.ndim != 2:
        raise ValueError(f"codes must be (n, dim). Received: codes.shape={codes.shape}")
    return codes
