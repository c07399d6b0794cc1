import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from stages.measures.pairs import draw_pairs
from stages.measures.verification import (
    area_under_roc,
    best_threshold,
    pair_accuracy,
    pair_scores,
)

SCORES = np.float32([4, 3, 1, 2, 0, 1])
SAME = np.array([True, True, True, False, False, False])


def pairs_of(seed=0, **arguments):
    return draw_pairs(np.random.default_rng(seed), **arguments)


@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 6),
    examples=st.integers(2, 6),
    half=st.integers(1, 100),
)
def test_every_pair_is_valid(seed, classes, examples, half):
    pairs = pairs_of(seed, classes=classes, examples=examples, count=2 * half)
    assert pairs.shape == (2 * half, 2)
    assert pairs.dtype == np.int32
    assert 0 <= pairs.min() <= pairs.max() < classes * examples
    same = pairs[:, 0] // examples == pairs[:, 1] // examples
    np.testing.assert_array_equal(same, np.arange(2 * half) < half)


@pytest.mark.parametrize("examples", [2, 3, 10])
def test_mistake_3_a_pair_is_never_the_same_image_twice(examples):
    pairs = pairs_of(classes=3, examples=examples, count=10_000)
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_mistake_4_more_pairs_than_classes_can_be_drawn():
    assert pairs_of(classes=2, examples=2, count=1000).shape == (1000, 2)


def test_all_images_and_all_partners_are_equally_likely():
    pairs = pairs_of(classes=4, examples=3, count=48_000)
    for column in pairs[:24_000].T, pairs[24_000:].T:
        for images in column:
            np.testing.assert_allclose(np.bincount(images), 2000, atol=5 * 2000**0.5)
    kinds = np.bincount(pairs[24_000:] // 3 @ [4, 1], minlength=16).reshape(4, 4)
    np.testing.assert_allclose(kinds[~np.eye(4, dtype=bool)], 2000, atol=5 * 2000**0.5)


def test_the_area_is_checked_by_eye():
    # 4 and 3 beat all three; 1 loses to 2, ties with 1, beats 0: (3 + 3 + 1.5) / 9
    assert area_under_roc(SCORES, SAME) == pytest.approx(7.5 / 9)


@given(seed=st.integers(0, 2**32), size=st.integers(2, 60), values=st.integers(1, 30))
def test_the_area_is_that_of_scikit_learn(seed, size, values):
    rng = np.random.default_rng(seed)
    scores, same = rng.integers(values, size=size), rng.permutation(np.arange(size) < size // 2)
    assert area_under_roc(scores, same) == pytest.approx(roc_auc_score(same, scores))


def test_the_threshold_is_checked_by_eye():
    # From 3 on: two of three and all three. From 1 on: all three and one of three.
    assert best_threshold(SCORES, SAME) == 2.5
    assert pair_accuracy(SCORES, SAME, threshold=2.5) == pytest.approx(5 / 6)


@given(seed=st.integers(0, 2**32), size=st.integers(2, 40), values=st.integers(1, 12))
def test_no_threshold_is_better(seed, size, values):
    rng = np.random.default_rng(seed)
    scores = rng.integers(values, size=size).astype(np.float32)
    same = rng.permutation(np.arange(size) < rng.integers(1, size))

    def accuracy(threshold):
        return balanced_accuracy_score(same, scores >= threshold)

    best = accuracy(best_threshold(scores, same))
    assert best >= max(accuracy(threshold) for threshold in np.unique(scores)) - 1e-12
    assert best >= 0.5


def test_a_threshold_between_neighbouring_floats_parts_them():
    low = 1.0
    scores, same = np.array([np.nextafter(low, 2), low]), np.array([True, False])
    assert pair_accuracy(scores, same, threshold=best_threshold(scores, same)) == 1


def test_mistake_1_a_dead_network_scores_chance():
    scores, same = np.full(100, 0.3), np.arange(100) < 50
    assert area_under_roc(scores, same) == 0.5
    assert pair_accuracy(scores, same, threshold=best_threshold(scores, same)) == 0.5


@given(seed=st.integers(0, 2**32))
def test_the_area_does_not_change_under_what_keeps_the_order(seed):
    rng = np.random.default_rng(seed)
    scores, same = rng.integers(-5, 5, size=30), np.arange(30) < 15
    assert area_under_roc(np.exp(scores), same) == area_under_roc(scores, same)
    assert area_under_roc(-scores, same) == pytest.approx(1 - area_under_roc(scores, same))


def test_pair_scores_are_checked_by_eye():
    a, b = np.float32([[0, 0], [5, 1]]), np.float32([[3, 4], [5, 1]])
    np.testing.assert_array_equal(pair_scores(a, b), [-25, 0])
    head = (np.float32([-1, -2]), 5.0)  # 5 - 3 - 8 and 5
    np.testing.assert_array_equal(pair_scores(a, b, head=head), [-6, 5])
    np.testing.assert_array_equal(a, [[0, 0], [5, 1]])  # not overwritten


def test_mistake_8_the_score_is_minus_the_squared_norm_of_the_difference():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 3000, 300)).astype(np.float32)  # more than one chunk
    expected = -(np.linalg.norm(a - b, axis=1) ** 2)
    np.testing.assert_allclose(pair_scores(a, b), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": 1}, r"Received: classes=1$"),
        ({"examples": 1}, r"Received: examples=1$"),
        ({"count": 0}, r"Received: count=0$"),
        ({"count": 7}, r"Received: count=7$"),
    ],
)
def test_wrong_pairs_are_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        pairs_of(**({"classes": 4, "examples": 3, "count": 8} | changed))


@pytest.mark.parametrize(
    ("scores", "same", "message"),
    [
        (np.zeros(3), np.ones(2, bool), r"Received: scores\.shape=\(3,\), same\.shape=\(2,\)$"),
        (np.array([0, np.nan]), np.array([True, False]), r"Received: 1 are not$"),
        (np.zeros(3), np.ones(3, bool), r"Received: same\.sum\(\)=3$"),
        (np.zeros(3), np.zeros(3, bool), r"Received: same\.sum\(\)=0$"),
    ],
)
def test_wrong_scores_are_refused(scores, same, message):
    for measure in area_under_roc, best_threshold:
        with pytest.raises(ValueError, match=message):
            measure(scores, same)
    with pytest.raises(ValueError, match=message):
        pair_accuracy(scores, same, threshold=0.0)


def test_codes_of_pairs_must_match():
    with pytest.raises(ValueError, match=r"codes_b\.shape=\(2, 4\)$"):
        pair_scores(np.zeros((2, 3)), np.zeros((2, 4)))
