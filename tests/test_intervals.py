import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from stages import oneshot, retrieval
from stages.measures.intervals import bootstrap_mean, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [  # Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_intervals(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


@given(
    trials=st.integers(1, 10**6),
    share=st.floats(0, 1),
    confidence=st.floats(0.01, 0.999),
)
def test_wilson_stays_within_bounds_and_contains_the_proportion(trials, share, confidence):
    successes = share * trials  # fractional, as ties make it
    low, high = wilson(successes, trials, confidence=confidence)
    assert 0 <= low <= successes / trials <= high <= 1


@given(trials=st.integers(1, 1000), data=st.data())
def test_wilson_mirrors(trials, data):
    successes = data.draw(st.integers(0, trials))
    low, high = wilson(successes, trials)
    mirrored = wilson(trials - successes, trials)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


def test_wilson_narrows_with_trials_and_widens_with_confidence():
    def width(*arguments, **options):
        low, high = wilson(*arguments, **options)
        return high - low

    assert width(50, 250) > width(2000, 10_000)
    assert width(50, 250, confidence=0.99) > width(50, 250)


def test_wilson_contains_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    intervals = [wilson(k, 250) for k in rng.binomial(250, 0.05, size=2000)]
    assert 0.93 < np.mean([low <= 0.05 <= high for low, high in intervals]) < 0.975


def test_bootstrap_agrees_with_the_normal_interval_of_many_values():
    values = np.random.default_rng(0).normal(size=5000)
    low, high = bootstrap_mean(values, np.random.default_rng(1), resamples=2000)
    half = 1.96 * values.std() / np.sqrt(5000)
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)


def test_bootstrap_is_the_same_for_the_same_seed():
    values = np.random.default_rng(0).random(300)
    found = [bootstrap_mean(values, np.random.default_rng(5), resamples=100) for _ in range(2)]
    assert found[0] == found[1]


@pytest.mark.parametrize("size", [1, 3, 10_000])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3, 1.0])
def test_bootstrap_of_constant_values_is_their_mean(value, size):
    values = np.full(size, value)
    interval = bootstrap_mean(values, np.random.default_rng(0), resamples=20)
    assert interval == (values.mean(), values.mean())


@given(seed=st.integers(0, 2**32), size=st.integers(2, 400))
def test_bootstrap_contains_the_mean_and_stays_within_the_values(seed, size):
    values = np.random.default_rng(seed).random(size)
    low, high = bootstrap_mean(values, np.random.default_rng(0), resamples=200)
    assert low <= values.mean() <= high
    assert values.min() - 1e-12 <= low <= high <= values.max() + 1e-12  # sums are rounded


def test_bootstrap_does_not_depend_on_its_chunks(monkeypatch):
    values = np.random.default_rng(0).random(70)
    whole = bootstrap_mean(values, np.random.default_rng(5), resamples=90)
    monkeypatch.setattr("stages.measures.intervals._CHUNK_VALUES", 700)
    assert bootstrap_mean(values, np.random.default_rng(5), resamples=90) == whole


@pytest.mark.parametrize(
    ("successes", "trials", "confidence", "message"),
    [
        (0, 0, 0.95, r"Received: trials=0$"),
        (6, 5, 0.95, r"Received: successes=6, trials=5$"),
        (-1, 5, 0.95, r"Received: successes=-1, trials=5$"),
        (1, 5, 1.0, r"Received: confidence=1\.0$"),
        (1, 5, 95, r"Received: confidence=95$"),
    ],
)
def test_wrong_proportions_are_refused(successes, trials, confidence, message):
    with pytest.raises(ValueError, match=message):
        wilson(successes, trials, confidence=confidence)


@pytest.mark.parametrize(
    ("values", "resamples", "message"),
    [
        ([], 10, r"Received: values\.shape=\(0,\)$"),
        ([[1.0]], 10, r"Received: values\.shape=\(1, 1\)$"),
        ([np.nan], 10, r"Received: values\.shape=\(1,\)$"),
        ([1.0], 0, r"Received: resamples=0$"),
    ],
)
def test_wrong_values_are_refused(values, resamples, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(values, np.random.default_rng(0), resamples=resamples)


def test_the_stages_write_intervals_of_95_percent():
    """By the oracles of both: Wilson's of scipy, and the normal distribution of a mean."""
    hits = np.repeat([1.0, 0.0], [300, 700])
    found = oneshot.figures(hits)
    expected = stats.binomtest(300, 1000).proportion_ci(confidence_level=0.95, method="wilson")
    assert (found["ci95_low"], found["ci95_high"]) == pytest.approx(tuple(expected), abs=1e-6)
    values = np.random.default_rng(0).random(1000)
    scores = dict.fromkeys(("average_precision", *retrieval._MEANS.values()), values)
    found = retrieval.figures(scores, np.random.default_rng(1), 2000)
    half = stats.norm.ppf(0.975) * values.std() / np.sqrt(1000)
    ends = values.mean() - half, values.mean() + half
    assert (found["ci95_low"], found["ci95_high"]) == pytest.approx(ends, abs=0.1 * half)
