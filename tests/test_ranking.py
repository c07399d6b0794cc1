import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from stages.measures.ranking import MEASURES, chance_average_precision, nearest, retrieval_scores

BLOCK = 2**20


def scores_of(codes, labels, block_bytes=BLOCK):
    return retrieval_scores(
        np.asarray(codes, np.float32), np.asarray(labels), block_bytes=block_bytes
    )


def sklearn_average_precision(codes, labels):
    """One query at a time, in float64, the query deleted."""
    codes = np.asarray(codes, np.float64)
    found = []
    for query in range(len(codes)):
        squared = ((codes - codes[query]) ** 2).sum(axis=1)
        relevant = labels == labels[query]
        found.append(
            average_precision_score(np.delete(relevant, query), -np.delete(squared, query))
        )
    return found


def test_scores_are_checked_by_eye():
    # On a line:  0:a  1:a  2:b  4:b  8:a
    scores = scores_of([[0], [1], [2], [4], [8]], [0, 0, 1, 1, 0])
    # From 0: a b b a, relevant at ranks 1 and 4: (1/1 + 2/4) / 2 = 3/4
    # From 1: 0:a and 2:b tie, then b, a: the tie counts behind both: (1/2 + 2/4) / 2 = 1/2
    # From 2: 1:a, then 0:a and 4:b tie, a: (1/3) / 1
    # From 4: 2:b first: 1
    # From 8: 4:b 2:b 1:a 0:a: (1/3 + 2/4) / 2 = 5/12
    np.testing.assert_allclose(scores["average_precision"], [3 / 4, 1 / 2, 1 / 3, 1, 5 / 12])
    np.testing.assert_array_equal(scores["precision_at_1"], [1, 0, 0, 1, 0])
    np.testing.assert_allclose(scores["precision_at_5"], [2 / 5, 2 / 5, 1 / 5, 1 / 5, 2 / 5])
    np.testing.assert_allclose(scores["r_precision"], [1 / 2, 1 / 2, 0, 1, 0])
    # From 0, R = 2: P(1) / 2. From 1: the relevant of the tie is second, P(2) / 2 = 1/4.
    np.testing.assert_allclose(scores["average_precision_at_r"], [1 / 2, 1 / 4, 0, 1, 0])


def test_a_cut_off_through_a_tie_takes_the_irrelevant_first():
    # From the first, all others but the last tie: b a a, R = 2.
    scores = scores_of([[0, 0], [1, 0], [-1, 0], [0, 1], [9, 9]], [0, 0, 0, 1, 1])
    first = {name: scores[name][0] for name in MEASURES}
    assert first == pytest.approx(
        {
            "average_precision": 2 / 3,  # both behind the tie, where two of three are relevant
            "precision_at_1": 0,
            "precision_at_5": 2 / 5,
            "r_precision": 1 / 2,
            "average_precision_at_r": 1 / 4,
        }
    )


def test_measures_are_named_in_order_and_are_float64():
    scores = scores_of(np.eye(4), [0, 0, 1, 1])
    assert tuple(scores) == (*MEASURES, "precision_at_recall")
    assert all(scores[name].shape == (4,) for name in MEASURES)
    assert scores["precision_at_recall"].shape == (4, 20)
    assert all(values.dtype == np.float64 for values in scores.values())


@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(1, 5),
    spread=st.integers(1, 20),
    block_bytes=st.sampled_from([1, 500, BLOCK]),
)
def test_average_precision_is_that_of_scikit_learn_ties_and_all(seed, classes, spread, block_bytes):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(classes), rng.integers(2, 8, size=classes)))
    codes = rng.integers(spread, size=(len(labels), 2))  # small integers: many exact ties
    scores = scores_of(codes, labels, block_bytes)
    np.testing.assert_allclose(
        scores["average_precision"], sklearn_average_precision(codes, labels)
    )


def test_average_precision_is_that_of_scikit_learn_on_wide_codes_far_from_zero():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 10
    codes = (100 + rng.normal(size=(200, 64))).astype(np.float32)
    np.testing.assert_allclose(
        scores_of(codes, labels)["average_precision"],
        sklearn_average_precision(codes, labels),
        atol=1e-3,  # float32 may swap two images that are about equally far
    )


@given(seed=st.integers(0, 2**32))
def test_moving_the_images_with_their_labels_moves_the_scores(seed):
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(6, size=(30, 2)), np.arange(30) % 4
    order = rng.permutation(30)
    before, after = scores_of(codes, labels), scores_of(codes[order], labels[order])
    for name in MEASURES:
        np.testing.assert_array_equal(after[name], before[name][order])


@given(seed=st.integers(0, 2**32))
def test_measures_keep_their_order(seed):
    rng = np.random.default_rng(seed)
    scores = scores_of(rng.integers(5, size=(24, 2)), np.arange(24) % 4)
    for values in scores.values():
        assert ((values >= 0) & (values <= 1)).all()
    assert (scores["average_precision_at_r"] <= scores["r_precision"] + 1e-12).all()
    assert (scores["average_precision_at_r"] <= scores["average_precision"] + 1e-12).all()


def test_blocks_do_not_matter():
    rng = np.random.default_rng(0)
    codes, labels = rng.normal(size=(101, 16)), np.arange(101) % 7
    whole, single = scores_of(codes, labels), scores_of(codes, labels, block_bytes=1)
    for name in MEASURES:
        np.testing.assert_allclose(whole[name], single[name], atol=0.02)
        assert abs(whole[name].mean() - single[name].mean()) < 1e-4


def test_perfect_codes_score_one():
    labels = np.arange(40) % 5  # eight images a class, so seven relevant
    for values in scores_of(np.eye(5)[labels], labels).values():
        np.testing.assert_array_equal(values, 1)


def test_mistake_1_constant_codes_stay_below_chance_in_every_measure():
    labels = np.arange(60) // 12  # sorted: a stable argsort would favour the first class
    codes = np.full((60, 33), 0.1, np.float32)
    for block_bytes in 1, 1000, BLOCK:
        scores = scores_of(codes, labels, block_bytes)
        np.testing.assert_allclose(scores["average_precision"], 11 / 59, rtol=1e-12)
        assert scores["average_precision"].mean() < chance_average_precision(labels)
        assert all(not scores[name].any() for name in MEASURES[1:])


def test_mistake_7_the_query_is_not_its_own_neighbour():
    # Alternating classes on a line: every nearest neighbour is wrong, unless it is the query.
    scores = scores_of(np.arange(8)[:, None], np.arange(8) % 2)
    assert not scores["precision_at_1"].any()


def test_mistake_7_a_duplicate_does_not_push_the_query_out_of_the_first_rank():
    # 0 and 1 are the same code in different classes; by rank, the first neighbour of either
    # may be itself or the other. By index, the query is left out and the duplicate counts.
    codes, labels = [[0], [0], [1], [5]], [0, 1, 0, 1]
    scores = scores_of(codes, labels)
    np.testing.assert_array_equal(scores["precision_at_1"], [0, 0, 0, 0])
    np.testing.assert_allclose(scores["average_precision"], [1 / 2, 1 / 3, 1 / 2, 1 / 3])


def test_mistake_7_duplicates_of_the_right_class_are_found():
    scores = scores_of([[0], [0], [0], [9], [9]], [0, 0, 0, 1, 1])
    np.testing.assert_array_equal(scores["precision_at_1"], 1)
    np.testing.assert_array_equal(scores["average_precision_at_r"], 1)


def test_mistake_7_average_precision_is_not_cut_off():
    # The only relevant image is the last of 1,999.
    codes = np.concatenate([[0], 1 + np.arange(1999) / 1e3])[:, None]
    labels = np.r_[0, np.ones(1998, int), 0]
    assert scores_of(codes, labels)["average_precision"][0] == pytest.approx(1 / 1999)


def test_chance_is_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [2, 5, 9])
    found = [scores_of(rng.random((16, 8)), labels)["average_precision"].mean() for _ in range(500)]
    assert abs(np.mean(found) - chance_average_precision(labels)) < 0.01


def test_chance_of_a_few_known_cases():
    assert chance_average_precision(np.zeros(2)) == 1
    assert chance_average_precision(np.zeros(9)) == pytest.approx(1)
    # One relevant among three, at rank 1, 2 or 3: (1 + 1/2 + 1/3) / 3
    assert chance_average_precision(np.array([0, 0, 1, 1])) == pytest.approx(11 / 18)
    assert chance_average_precision(np.arange(5000) // 500) == pytest.approx(0.101, abs=5e-4)


@given(
    seed=st.integers(0, 2**32),
    spread=st.sampled_from([2, 9, 1000]),  # few different codes: ties and duplicates
    rows=st.integers(1, 40),
    shards=st.integers(1, 5),
    asked=st.integers(1, 40),
)
def test_queries_by_other_codes_are_scored_as_by_scikit_learn(seed, spread, rows, shards, asked):
    rng = np.random.default_rng(seed)
    codes, labels = rng.integers(spread, size=(40, 2)), rng.permutation(np.arange(40) % 5)
    queries, others = rng.integers(40, size=asked), rng.integers(spread, size=(asked, 2))
    found = retrieval_scores(
        codes,
        labels,
        block_bytes=rows * 40 * 4,
        queries=queries,
        query_codes=others,
        shards=shards,
    )
    for place, (query, other) in enumerate(zip(queries, others, strict=True)):
        squared = np.delete(((codes - other) ** 2).sum(axis=1), query)
        relevant = np.delete(labels == labels[query], query)
        expected = average_precision_score(relevant, -squared)
        assert found["average_precision"][place] == pytest.approx(expected)


def test_wrong_query_codes_are_refused():
    codes, labels = np.arange(8).reshape(4, 2), np.array([0, 0, 1, 1])
    for wrong, message in (
        (np.zeros((3, 2)), r"Received: query_codes\.shape=\(3, 2\), q=4"),
        (np.zeros((4, 3)), r"Received: query_codes\.shape=\(4, 3\), q=4"),
        (np.full((4, 2), np.inf), "query_codes must be finite"),
    ):
        with pytest.raises(ValueError, match=message):
            retrieval_scores(codes, labels, block_bytes=BLOCK, query_codes=wrong)


@pytest.mark.parametrize(
    ("codes", "labels", "block_bytes", "message"),
    [
        (np.zeros(4), np.zeros(4), 1, r"Received: codes\.shape=\(4,\), labels\.shape=\(4,\)$"),
        (np.zeros((4, 1)), np.zeros(3), 1, r"Received: .* labels\.shape=\(3,\)$"),
        (np.zeros((4, 1)), np.zeros(4), 0, r"Received: block_bytes=0$"),
        (np.full((4, 1), np.nan), np.zeros(4), 1, r"finite.* Received: 4 images"),
        (np.zeros((3, 1)), np.int32([7, 7, 5]), 1, r"Received: .*single image: \[5\]$"),
        (np.zeros((0, 1)), np.int32([]), 1, r"Received: len\(labels\)=0"),
    ],
)
def test_wrong_arguments_are_refused(codes, labels, block_bytes, message):
    with pytest.raises(ValueError, match=message):
        retrieval_scores(codes, labels, block_bytes=block_bytes)


def test_precision_at_recall_by_hand():
    # From 0: a a b a b, so 1/1, 2/2 and 3/4 at thirds of the recall.
    scores = scores_of([[0], [1], [2], [3], [4], [5]], [0, 0, 0, 1, 0, 1])
    found = scores["precision_at_recall"][0]
    np.testing.assert_allclose(found, [1] * 13 + [3 / 4] * 7)  # 13/20 is below two thirds


@given(seed=st.integers(0, 99), size=st.integers(2, 30))
def test_precision_at_recall_is_that_at_the_first_rank_that_finds_enough(seed, size):
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], size)
    codes = rng.integers(0, 1000, (2 * size, 2)).astype(np.float32)  # distances without rounding
    squared = ((codes[:, None] - codes) ** 2).sum(axis=-1)
    assume(all(len(set(row)) == len(row) for row in squared))
    found = scores_of(codes, labels)["precision_at_recall"]
    for query, row in enumerate(nearest(codes, np.arange(2 * size), 2 * size - 1)):
        hits = np.cumsum(labels[row] == labels[query])
        for step in range(1, 21):
            rank = np.argmax(20 * hits >= step * (size - 1))
            assert found[query, step - 1] == pytest.approx(hits[rank] / (rank + 1))


def test_nearest_by_hand():
    codes = np.array([[0], [5], [1], [0], [-3]], np.float32)
    found = nearest(codes, np.array([0, 1]), 3)
    assert found.tolist() == [[3, 2, 4], [2, 0, 3]]  # a duplicate is found, the query is not


@given(seed=st.integers(0, 99))
def test_nearest_is_the_order_of_the_distances(seed):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(30, 4)).astype(np.float32)
    for query, row in enumerate(nearest(codes, np.arange(30), 29)):
        distances = np.linalg.norm(codes - codes[query], axis=1)
        assert sorted(row) == [index for index in range(30) if index != query]
        assert (np.diff(distances[row]) >= -1e-6).all()
