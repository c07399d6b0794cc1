"""Statistics of codes: how long, how sparse, how many dimensions, how much about classes."""

import numpy as np

from stages.measures.distances import l2_normalised


def code_statistics(codes: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return what codes are like, whatever they are used for.

    Args:
        codes: (n, dim), float32.
        labels: (n,), integers, the class of each.

    Returns:
        - `dimensions`: of a code.
        - `zeros`: share of values that are 0, as relu leaves them.
        - `norm` and `norm_deviation`: mean and standard deviation of the Euclidean lengths.
        - `effective_dimensions`: (Σ λ)² / Σ λ² with λ the eigenvalues of the covariance: dim when
          codes vary alike in all directions, 1 when in a single one (the participation ratio;
          Gao et al. 2017, "A theory of multineuronal dimensionality, dynamics and measurement").
        - `class_separation`: 1 - (mean cosine distance within a class) / (mean over all pairs):
          0 when classes play no part, 1 when a class is a point (Kornblith et al. 2021, "Why do
          better loss functions lead to less transferable features?", section 3.2: R²). Each class
          weighs alike.

    Raises:
        ValueError: when shapes do not fit or values are not finite.
    """
    codes, labels = np.asarray(codes, np.float32), np.asarray(labels)
    if codes.ndim != 2 or labels.shape != (len(codes),) or not np.isfinite(codes).all():
        raise ValueError(
            "codes must be finite, (n, dim), with labels (n,). "
            f"Received: codes.shape={codes.shape}, labels.shape={labels.shape}"
        )
    lengths = np.sqrt(np.vecdot(codes, codes).astype(np.float64))
    return {
        "dimensions": codes.shape[1],
        "zeros": float((codes == 0).mean()),
        "norm": float(lengths.mean()),
        "norm_deviation": float(lengths.std()),
        "effective_dimensions": effective_dimensions(codes),
        "class_separation": class_separation(codes, labels),
    }


def effective_dimensions(codes: np.ndarray) -> float:
    """Return (Σ λ)² / Σ λ² of the covariance's eigenvalues λ; 0 when all codes are alike.

    No eigenvalue is needed: Σ λ is the trace and Σ λ² the sum of squares of the covariance, or
    of the smaller matrix of products between images, whose eigenvalues are the same.

    Args:
        codes: (n, dim), float32.
    """
    centred = codes - codes.mean(axis=0, dtype=np.float64).astype(np.float32)
    if len(centred) > centred.shape[1]:
        centred = centred.T
    products = centred @ centred.T  # of one array with itself: a symmetric product, half the work
    squares = float(np.square(products, dtype=np.float64).sum())
    return float(np.trace(products, dtype=np.float64)) ** 2 / squares if squares else 0.0


def class_separation(codes: np.ndarray, labels: np.ndarray) -> float:
    """Return 1 - (mean cosine distance within a class) / (mean over all pairs); see above.

    Args:
        codes: (n, dim), float32.
        labels: (n,), integers.
    """
    units = l2_normalised(codes)
    means = np.stack(
        [units[labels == label].mean(axis=0, dtype=np.float64) for label in np.unique(labels)]
    )
    # The mean cosine of all pairs of two sets, each image with itself too, is the product of
    # their means.
    within = 1 - np.vecdot(means, means).mean()
    overall = 1 - np.square(means.mean(axis=0)).sum()
    return float(1 - within / overall) if overall > 0 else 0.0
