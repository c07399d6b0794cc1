"""Paired differences: by hand, and beside scipy's and statsmodels' definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, ttest_rel

from stages.measures.comparison import paired_by_seed, paired_difference


def test_by_hand():
    found = paired_difference(np.array([1, 1, 1, 0, 0]), np.array([1, 0, 0, 0, 1]))
    assert found["difference"] == pytest.approx(0.2)
    assert (found["first_only"], found["second_only"]) == (2, 1)
    assert found["p"] == 1.0  # 2 of 3 heads: as uneven as three throws can be at the least
    half = norm.ppf(0.975) * np.std([0, 1, 1, 0, -1], ddof=1) / np.sqrt(5)
    assert found["ci95_low"] == pytest.approx(0.2 - half)
    assert found["ci95_high"] == pytest.approx(0.2 + half)


def test_ten_of_ten_is_no_accident():
    found = paired_difference(np.ones(20), np.r_[np.zeros(10), np.ones(10)])
    assert found["p"] == pytest.approx(2 / 2**10)


def test_what_both_get_wrong_or_right_does_not_count():
    first, second = np.array([1, 1, 0, 1, 0]), np.array([0, 1, 1, 0, 0])
    more = np.r_[first, np.ones(1000)], np.r_[second, np.ones(1000)]
    assert paired_difference(*more)["p"] == paired_difference(first, second)["p"]


hits = st.lists(st.tuples(*[st.sampled_from([0, 1 / 3, 0.5, 1])] * 2), min_size=2, max_size=60)


@given(hits)
def test_the_other_way_round_is_the_opposite(pairs):
    first, second = np.array(pairs).T
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert one["difference"] == pytest.approx(-other["difference"])
    assert one["ci95_low"] == pytest.approx(-other["ci95_high"])
    assert one["p"] == pytest.approx(other["p"])
    assert one["first_only"] == other["second_only"]
    assert -1 <= one["ci95_low"] <= one["difference"] <= one["ci95_high"] <= 1


def test_a_method_is_as_good_as_itself():
    found = paired_difference(np.array([0, 1, 1]), np.array([0, 1, 1]))
    assert found == {
        "difference": 0, "ci95_low": 0, "ci95_high": 0, "first_only": 0, "second_only": 0, "p": 1,
    }  # fmt: skip


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(400):
        common = rng.random(500)
        first, second = common < 0.45, np.where(rng.random(500) < 0.5, common < 0.3, common < 0.5)
        found = paired_difference(first, second)
        covered += found["ci95_low"] <= 0.45 - 0.4 <= found["ci95_high"]
    assert 0.92 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("first", "second"), [((3,), (4,)), ((1,), (1,)), ((2, 2), (2, 2))])
def test_refused(first, second):
    with pytest.raises(ValueError, match=r"same two or more tasks.*Received"):
        paired_difference(np.zeros(first), np.zeros(second))


def test_seeds_by_hand():
    found = paired_by_seed([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])
    assert found["difference"] == pytest.approx(0.2)
    half = 4.302653 * 0.1 / np.sqrt(3)  # Student's t with 2 degrees of freedom, from a table
    assert found["ci95_low"] == pytest.approx(0.2 - half)
    assert found["ci95_high"] == pytest.approx(0.2 + half)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=9))
def test_seeds_have_the_interval_of_scipys_paired_test(pairs):
    first, second = np.array(pairs).T
    if np.ptp(first - second) < 1e-6:
        return
    found = paired_by_seed(list(first), list(second))
    interval = ttest_rel(first, second).confidence_interval(0.95)
    assert (found["ci95_low"], found["ci95_high"]) == pytest.approx(tuple(interval), abs=1e-9)


def test_seeds_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="the same two or more seeds"):
        paired_by_seed([0.5], [0.4])
    with pytest.raises(ValueError, match="the same two or more seeds"):
        paired_by_seed([0.5, 0.6], [0.4])
