"""Query expansion: checked by hand, by a search in float64, and on codes of which it knows more."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measures.expansion import expanded
from stages.measures.ranking import retrieval_scores

BLOCK = 2**20


def expand(codes, counts):
    return dict(expanded(np.asarray(codes, np.float32), counts, block_bytes=BLOCK))


def test_means_by_hand():
    found = expand([[0], [1], [3], [10]], [2, 1])
    assert list(found) == [1, 2]  # from few to many
    np.testing.assert_array_equal(found[1], [[0.5], [0.5], [2], [6.5]])
    np.testing.assert_allclose(found[2], [[4 / 3], [4 / 3], [4 / 3], [14 / 3]], rtol=1e-6)
    assert found[2].dtype == np.float32


def test_all_others_give_the_mean_of_all_and_more_there_are_not():
    codes = np.arange(12).reshape(6, 2)
    found = expand(codes, [5, 6, 100])
    assert list(found) == [5]
    np.testing.assert_allclose(found[5], np.tile(codes.mean(axis=0), (6, 1)))
    assert expand(codes, [6]) == expand(codes, []) == {}


@given(seed=st.integers(0, 2**32), rows=st.integers(1, 30))
def test_against_sorting_in_float64(seed, rows):
    codes = np.random.default_rng(seed).normal(size=(30, 4)).astype(np.float32)
    counts = [1, 4, 29]
    for count, means in expanded(codes, counts, block_bytes=rows * 30 * 4):
        for query, mean in enumerate(means):
            squared = ((codes.astype(float) - codes[query]) ** 2).sum(axis=1)
            squared[query] = -1  # the image itself is first, then those nearest to it
            first = np.argsort(squared)[: count + 1]
            np.testing.assert_allclose(mean, codes[first].mean(axis=0), atol=1e-5)


def test_a_duplicate_counts_and_the_image_itself_does_so_once():
    found = expand([[0], [0], [3]], [1, 2])
    np.testing.assert_array_equal(found[1], [[0], [0], [1.5]])
    np.testing.assert_array_equal(found[2], [[1], [1], [1]])


def test_it_finds_more_where_classes_lie_apart():
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    codes = (rng.normal(size=(4, 8))[labels] + rng.normal(size=(120, 8))).astype(np.float32)
    means = [
        retrieval_scores(codes, labels, block_bytes=BLOCK, query_codes=each)
        for each in (None, expand(codes, [10])[10])
    ]
    before, after = (each["average_precision"].mean() for each in means)
    assert after > before + 0.01


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        (np.full((4, 2), np.nan), "codes must be finite"),
        (np.zeros(4), r"codes must be \(n, dim\)"),
    ],
)
def test_wrong_codes_are_refused(codes, message):
    with pytest.raises(ValueError, match=message):
        expand(codes, [1])
