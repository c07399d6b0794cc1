"""Statistics of codes: by hand, beside eigenvalues, beside all pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances

from stages.measures.statistics import class_separation, code_statistics, effective_dimensions


def test_by_hand():
    codes = np.float32([[3, 4, 0], [0, 0, 1], [0, 0, 0]])
    found = code_statistics(codes, np.array([0, 1, 1]))
    assert found["dimensions"] == 3
    assert found["zeros"] == pytest.approx(6 / 9)
    assert found["norm"] == pytest.approx(2)
    assert found["norm_deviation"] == pytest.approx(np.std([5, 1, 0]))


@given(st.integers(0, 100), st.integers(2, 40), st.integers(1, 40))
def test_effective_dimensions_beside_eigenvalues(seed, count, dimensions):
    rng = np.random.default_rng(seed)
    codes = rng.normal(2, rng.random(dimensions) + 0.1, (count, dimensions)).astype(np.float32)
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(codes.T.astype(float))))
    expected = values.sum() ** 2 / np.square(values).sum()
    assert effective_dimensions(codes) == pytest.approx(expected, rel=1e-3)
    assert 0.999 <= effective_dimensions(codes) <= min(count, dimensions) + 1e-3


def test_codes_on_a_line_have_one_dimension_and_equal_ones_none():
    line = np.float32(np.outer(np.arange(9), [1, 2, 3]))
    assert effective_dimensions(line) == pytest.approx(1)
    assert effective_dimensions(np.ones((4, 3), np.float32)) == 0


@given(st.integers(0, 100))
def test_class_separation_beside_all_pairs(seed):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(4), 6)
    codes = (rng.normal(size=(24, 5)) + rng.normal(size=(4, 5))[labels]).astype(np.float32)
    apart = cosine_distances(codes)
    within = np.mean([apart[np.ix_(labels == c, labels == c)].mean() for c in range(4)])
    assert class_separation(codes, labels) == pytest.approx(1 - within / apart.mean(), abs=1e-4)


def test_classes_that_are_points_and_classes_that_are_alike():
    points = np.repeat(np.float32([[1, 0], [0, 1]]), 3, axis=0)
    assert class_separation(points, np.repeat([0, 1], 3)) == pytest.approx(1)
    alike = np.tile(np.float32([[1, 0], [0, 1]]), (3, 1))
    assert class_separation(alike, np.repeat([0, 1, 2], 2)) == pytest.approx(0, abs=1e-6)
    assert class_separation(np.ones((4, 2), np.float32), np.array([0, 0, 1, 1])) == 0


@pytest.mark.parametrize(
    ("codes", "labels"),
    [
        (np.zeros(3), np.zeros(3)),
        (np.zeros((3, 2)), np.zeros(2)),
        (np.full((2, 2), np.nan), np.zeros(2)),
    ],
)
def test_refused(codes, labels):
    with pytest.raises(ValueError, match=r"codes must be finite.*Received"):
        code_statistics(codes, labels)
