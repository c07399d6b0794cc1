"""Verification: do two images show the same class? Scores of pairs; higher is more alike."""

import numpy as np

from stages.measures.distances import distances_of

_CHUNK_BYTES = 2**21  # differences held at a time: stays in a core's cache


def pair_scores(
    codes_a: np.ndarray, codes_b: np.ndarray, *, head: tuple | None = None
) -> np.ndarray:
    """Score how alike the two images of each pair are.

    Args:
        codes_a: (n, dim), float32, codes of the first images.
        codes_b: (n, dim), float32, codes of the second images.
        head: None for minus the squared Euclidean distance, or `(w, b)`, (dim,) and a scalar,
            for the logit w·|a - b| + b of a siamese network (Koch et al. 2015, section 3).

    Returns:
        (n,), float32; higher is more alike.

    Raises:
        ValueError: when shapes do not fit.
    """
    codes_a, codes_b = np.asarray(codes_a, np.float32), np.asarray(codes_b, np.float32)
    if codes_a.ndim != 2 or codes_a.shape != codes_b.shape:
        raise ValueError(
            "codes_a and codes_b must both be (n, dim). "
            f"Received: codes_a.shape={codes_a.shape}, codes_b.shape={codes_b.shape}"
        )
    scores = np.empty(len(codes_a), np.float32)
    chunk = max(1, _CHUNK_BYTES // (codes_a.shape[1] * codes_a.itemsize))
    for start in range(0, len(scores), chunk):
        rows = slice(start, start + chunk)
        scores[rows] = -distances_of(codes_a[rows] - codes_b[rows], head=head)
    return scores


def area_under_roc(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the probability that a pair of one class scores above a pair of two.

    The Mann-Whitney statistic, which is the area under the receiver operating characteristic
    (Hanley and McNeil 1982, "The meaning and use of the area under a ROC curve"); a tie counts
    half, so that constant scores give 0.5.

    Args:
        scores: (n,), higher is more alike.
        same: (n,), bool, whether the pair is of one class.

    Raises:
        ValueError: when shapes do not fit, a score is not finite, or one kind is missing.
    """
    positive, negative = _by_kind(scores, same)
    below = negative.searchsorted(positive, side="left")
    at_most = negative.searchsorted(positive, side="right")
    return float((below + at_most).mean() / (2 * len(negative)))


def best_threshold(scores: np.ndarray, same: np.ndarray) -> float:
    """Return the threshold with the highest balanced accuracy on these pairs.

    To be chosen on pairs of seen classes and then applied to others, as the protocol of LFW
    chooses it on its training folds (Huang et al. 2007, "Labeled faces in the wild"). It lies
    midway between two neighbouring scores; of equally good ones the lowest is returned.

    Args:
        scores: (n,), higher is more alike.
        same: (n,), bool, whether the pair is of one class.

    Raises:
        ValueError: when shapes do not fit, a score is not finite, or one kind is missing.
    """
    positive, negative = _by_kind(scores, same)
    values = np.unique(np.concatenate([positive, negative]))
    # Of either kind, how many are told right when pairs from values[i] on are called the same;
    # each count is weighed by the number of the other kind, so both kinds weigh alike, exactly.
    accepted = len(positive) - positive.searchsorted(values)
    rejected = negative.searchsorted(values)
    best = int(np.argmax(accepted * len(negative) + rejected * len(positive)))
    lower, upper = values[max(best - 1, 0)], values[best]
    middle = lower / 2 + upper / 2
    # Between neighbouring floats there is no midpoint, and a rounded one may be the lower.
    return float(middle if middle > lower else upper)


def pair_accuracy(scores: np.ndarray, same: np.ndarray, *, threshold: float) -> float:
    """Return the share of pairs that are told right, those from `threshold` on as the same.

    Args:
        scores: (n,), higher is more alike.
        same: (n,), bool, whether the pair is of one class; half of them, for chance to be 0.5.
        threshold: chosen on other pairs, see `best_threshold`.

    Raises:
        ValueError: when shapes do not fit, a score is not finite, or one kind is missing.
    """
    positive, negative = _by_kind(scores, same)
    right = (positive >= threshold).sum() + (negative < threshold).sum()
    return float(right / (len(positive) + len(negative)))


def _by_kind(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sorted scores of the pairs of one class, and of those of two."""
    scores, same = np.asarray(scores, np.float64), np.asarray(same, bool)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(
            "scores and same must both be (n,). "
            f"Received: scores.shape={scores.shape}, same.shape={same.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite. Received: {np.count_nonzero(~np.isfinite(scores))} are not"
        )
    if same.all() or not same.any():
        raise ValueError(f"both kinds of pairs are needed. Received: same.sum()={same.sum()}")
    return np.sort(scores[same]), np.sort(scores[~same])
