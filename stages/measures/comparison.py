"""Comparison of two methods on the same tasks, or from the same seeds: differences are paired."""

import math
from statistics import NormalDist

import numpy as np
from scipy.stats import binomtest, t

_Z = NormalDist().inv_cdf(0.975)  # of a 95 % interval


def paired_difference(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Return how much more often the first method hits than the second, and whether by chance.

    With d the differences of the n pairs, the 95 % interval is mean(d) ± z·sd(d)/sqrt(n): what both
    methods have in common, such as tasks that are easy for both, does not widen it. The test is
    McNemar's, exact: of the tasks that one method alone gets right (or gets more of, in a tie),
    were both equally good, each would be either's with probability one half (McNemar 1947, "Note
    on the sampling error of the difference between correlated proportions or percentages").

    Args:
        first: (n,), hits of the first method in each task, from 0 to 1.
        second: (n,), those of the second in the same tasks.

    Returns:
        `difference` of the means, `ci95_low` and `ci95_high`,
        `first_only` and `second_only`, the numbers of tasks that one of them gets more of, and
        `p`, McNemar's exact two-sided p-value: 1 when they never differ.

    Raises:
        ValueError: when the methods have not the same tasks, or there are fewer than two.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    if first.ndim != 1 or first.shape != second.shape or len(first) < 2:
        raise ValueError(
            "first and second must be hits in the same two or more tasks. "
            f"Received: first.shape={first.shape}, second.shape={second.shape}"
        )
    difference = first - second
    mean = float(difference.mean())
    half = _Z * float(difference.std(ddof=1)) / math.sqrt(len(difference))
    more, fewer = int((difference > 0).sum()), int((difference < 0).sum())
    return {
        "difference": mean,
        "ci95_low": max(mean - half, -1.0),
        "ci95_high": min(mean + half, 1.0),
        "first_only": more,
        "second_only": fewer,
        "p": float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0,
    }


def paired_by_seed(first: list[float], second: list[float]) -> dict[str, float]:
    """Return how far the first method's figure is above the second's over several seeds.

    With d the n differences by seed, the 95 % interval is mean(d) ± t·sd(d)/sqrt(n), where t is the
    97.5 % point of Student's distribution with n - 1 degrees of freedom (Student 1908, "The
    probable error of a mean"; the test of two learners by Dietterich 1998, section 3.3, whose
    trials share data as ours share images: it says how figures vary with the seed alone).

    Args:
        first: (n,), the figures of the first method, a seed each.
        second: (n,), those of the second from the same seeds.

    Returns:
        `difference` of the means, `ci95_low` and `ci95_high`.

    Raises:
        ValueError: when the methods have not the same seeds, or there are fewer than two.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(
            "first and second must be figures from the same two or more seeds. "
            f"Received: {len(first)} and {len(second)}"
        )
    difference = np.subtract(first, second)
    mean, n = float(difference.mean()), len(difference)
    half = float(t.ppf(0.975, n - 1) * difference.std(ddof=1)) / math.sqrt(n)
    return {"difference": mean, "ci95_low": mean - half, "ci95_high": mean + half}
