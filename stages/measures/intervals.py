"""Intervals: how far a figure may be from that of more tasks, or of more images like these."""

import math
from statistics import NormalDist

import numpy as np

_CHUNK_VALUES = 2**20  # resampled values held at a time, 16 MiB with their indices


def wilson(successes: float, trials: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Return the score interval of a proportion.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference". Unlike
    p ± z·sqrt(p(1 - p) / n) it stays within 0 and 1 and is right for few trials and for
    proportions near either end. With p = successes / trials and z the normal quantile:

        (p + z²/2n ± z·sqrt(p(1 - p)/n + z²/4n²)) / (1 + z²/n)

    Args:
        successes: how often it happened; need not be whole, since a tied task scores a fraction.
        trials: how often it could have.
        confidence: how often such intervals contain the true proportion.

    Returns:
        `(low, high)`, from 0 to 1, with the measured proportion between them.

    Raises:
        ValueError: when an argument is out of range.
    """
    if trials < 1:
        raise ValueError(f"trials must be at least 1. Received: trials={trials}")
    if not 0 <= successes <= trials:
        raise ValueError(
            f"successes must be from 0 to trials. Received: successes={successes}, trials={trials}"
        )
    _check_confidence(confidence)
    p, z = successes / trials, NormalDist().inv_cdf((1 + confidence) / 2)
    centre = p + z**2 / (2 * trials)
    half = z * math.sqrt(p * (1 - p) / trials + z**2 / (4 * trials**2))
    scale = 1 + z**2 / trials
    # At p = 0 and p = 1 an end is p itself, but for rounding.
    return max(0.0, min(p, (centre - half) / scale)), min(1.0, max(p, (centre + half) / scale))


def bootstrap_mean(
    values: np.ndarray, rng: np.random.Generator, *, resamples: int, confidence: float = 0.95
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a mean.

    Efron and Tibshirani 1993, "An introduction to the bootstrap", chapter 13. For mean average
    precision the values are the average precisions of the queries: the interval says what other
    queries of the same classes would give, not what other classes would.

    Args:
        values: (n,), numbers.
        rng: source of randomness.
        resamples: how many times n values are drawn with replacement.
        confidence: the share of resampled means within the interval.

    Returns:
        `(low, high)`; equal when all values are.

    Raises:
        ValueError: when an argument is out of range or a value is not finite.
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not values.size or not np.isfinite(values).all():
        raise ValueError(
            "values must be one or more finite numbers in one dimension. "
            f"Received: values.shape={values.shape}"
        )
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1. Received: resamples={resamples}")
    _check_confidence(confidence)
    means = np.empty(resamples)
    chunk = max(1, _CHUNK_VALUES // len(values))
    for start in range(0, resamples, chunk):
        part = means[start : start + chunk]
        drawn = rng.integers(len(values), size=(len(part), len(values)))
        values[drawn].mean(axis=1, out=part)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1. Received: confidence={confidence}")
