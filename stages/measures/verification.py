"""Verification: do two images show the same class? Scores of pairs; higher is more alike."""

import numpy as np

from stages.measures.distances import distances_of

_CHUNK_BYTES = 2**21  # differences held at a time: stays in a core's cache


def draw_pairs(rng: np.random.Generator, *, classes: int, examples: int, count: int) -> np.ndarray:
    """Draw pairs of different images from class-sorted images, half of them of one class.

    Every class, and within it every image, is as likely as any other, with replacement: `count`
    may exceed the number of classes and of images.

    Args:
        rng: source of randomness.
        classes: number of classes.
        examples: number of images of each class.
        count: number of pairs, even.

    Returns:
        (count, 2), int32, flat indices class * examples + example: two images of one class in
        the first half of the rows, of two classes in the second.

    Raises:
        ValueError: when an argument is out of range.
    """
    if classes < 2:
        raise ValueError(f"classes must be at least 2. Received: classes={classes}")
    if examples < 2:
        raise ValueError(f"examples must be at least 2. Received: examples={examples}")
    if count < 2 or count % 2:
        raise ValueError(f"count must be even and at least 2. Received: count={count}")
    half = count // 2
    label = rng.integers(classes, size=(count, 2), dtype=np.int32)
    example = rng.integers(examples, size=(count, 2), dtype=np.int32)
    first, second = slice(None, half), slice(half, None)
    # A step of 1 to n - 1 around a circle of n never comes back to the start: the other image
    # of a pair of one class is another image, the other class of a pair of two is another class.
    label[first, 1] = label[first, 0]
    example[first, 1] = (example[first, 0] + rng.integers(1, examples, size=half)) % examples
    label[second, 1] = (label[second, 0] + rng.integers(1, classes, size=half)) % classes
    return label * np.int32(examples) + example


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
