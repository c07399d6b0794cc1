import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from stages.measures.ranking import retrieval_scores
from stages.measures.search import Found, exact_search, index_search, search_scores

BLOCK = 2**20
LINE = np.float32([[0], [1], [2], [4], [8]])  # of classes a a b b a
CLASSES = np.array([0, 0, 1, 1, 0])


def clusters(classes=20, each=30, dim=16, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    centres = rng.normal(size=(classes, dim))
    return np.float32(centres[labels] + rng.normal(size=(len(labels), dim))), labels


def measured(name, codes, labels, depth, queries=None):
    """Return what an index finds, and its mean scores beside exact search."""
    queries = np.arange(len(codes)) if queries is None else queries
    exact = exact_search(codes, queries, depth=max(depth, 10), block_bytes=BLOCK)
    found = exact if name == "exact" else index_search(name, codes, queries, depth=depth)
    scores = search_scores(found, exact, codes, labels, queries)
    return found, {key: value.mean() for key, value in scores.items()}


# By eye


@pytest.mark.parametrize("name", ["exact", "Flat", "HNSW8"])
def test_neighbours_on_a_line_are_found_in_order(name):
    found, _ = measured(name, LINE, CLASSES, depth=10)
    # To 1 equally near are 0 and 2, which may come in any order.
    assert found.images[[0, 2, 3, 4]].tolist()[0] == [1, 2, 3, 4]
    assert set(found.images[1, :2]) == {0, 2}
    assert found.images[4].tolist() == [3, 2, 1, 0]
    assert found.distances[4].tolist() == [16, 36, 49, 64]


def test_average_precision_is_checked_by_eye():
    queries = np.arange(5)
    exact = exact_search(LINE, queries, depth=10, block_bytes=1)
    precision = search_scores(exact, exact, LINE, CLASSES, queries)["average_precision"]
    # As in test_ranking.py: all others are found.
    np.testing.assert_allclose(precision, [3 / 4, 1 / 2, 1 / 3, 1, 5 / 12])
    first = Found(exact.images[:, :2], exact.distances[:, :2], 0, 0, 0)
    precision = search_scores(first, exact, LINE, CLASSES, queries)["average_precision"]
    # From 0: a b, of two relevant: (1/1) / 2. From 1: a and b tie: (1/2) / 2. From 2: a, then a
    # and b tie, of which a comes first: none. From 4: b, of one: 1. From 8: b b: none.
    np.testing.assert_allclose(precision, [1 / 2, 1 / 4, 0, 1, 0])


def test_recall_is_checked_by_eye():
    codes, labels = np.float32([[0], [1], [2], [3], [4]]), np.zeros(5, int)
    queries = np.array([0])
    exact = exact_search(codes, queries, depth=10, block_bytes=BLOCK)
    for images, first, ten in (
        ([1, 2, 3, 4], 1, 1),
        ([4, 3, 2, 1], 0, 1),  # of four others, all are among the ten nearest
        ([1, -1, -1, -1], 1, 1 / 4),
        ([-1, -1, -1, -1], 0, 0),
    ):
        found = Found(np.array([images]), np.float32([[1, 2, 3, 4]]), 0, 0, 0)
        scores = search_scores(found, exact, codes, labels, queries)
        assert (scores["recall_at_1"], scores["recall_at_10"]) == (first, ten)
        found_ranks = np.arange(4)[np.array(images) >= 0]
        assert scores["average_precision"] == len(found_ranks) / 4


def test_which_of_equally_far_images_are_found_does_not_matter():
    codes = np.float32([[0]] + [[1], [-1]] * 8)
    queries, labels = np.array([0]), np.zeros(17, int)
    exact = exact_search(codes, queries, depth=10, block_bytes=BLOCK)
    others = np.setdiff1d(np.arange(1, 17), exact.images)
    images = np.concatenate([others, exact.images[0, : 10 - len(others)]])[None]
    found = Found(images, np.ones((1, 10), np.float32), 0, 0, 0)
    scores = search_scores(found, exact, codes, labels, queries)
    assert scores["recall_at_1"] == scores["recall_at_10"] == 1


@pytest.mark.parametrize("name", ["exact", "Flat", "HNSW8", "PQ2x2"])
def test_a_query_is_left_out_by_its_index_whatever_its_duplicates_do(name):
    codes = np.repeat(np.float32([[0, 0], [3, 4]]), 20, axis=0)
    labels = np.repeat([0, 1], 20)
    found, means = measured(name, codes, labels, depth=10)
    assert found.images.shape == (40, 10)
    assert not (found.images == np.arange(40)[:, None]).any()
    assert (labels[found.images] == labels[:, None]).all()
    assert means["recall_at_1"] == means["recall_at_10"] == 1
    assert means["average_precision"] == pytest.approx(10 / 19)


# Against others


@pytest.mark.parametrize("name", ["exact", "Flat", "IVF4,Flat,nprobe=4"])
def test_to_the_end_it_is_mean_average_precision(name):
    codes, labels = clusters()
    _, means = measured(name, codes, labels, depth=len(codes))
    assert means["recall_at_1"] == means["recall_at_10"] == 1
    whole = retrieval_scores(codes, labels, block_bytes=BLOCK)["average_precision"].mean()
    assert means["average_precision"] == pytest.approx(whole, abs=1e-6)
    by_sklearn = [
        average_precision_score(
            np.delete(labels == labels[query], query),
            -np.delete(np.linalg.norm(codes - codes[query], axis=1), query),
        )
        for query in range(len(codes))
    ]
    assert means["average_precision"] == pytest.approx(np.mean(by_sklearn), abs=1e-6)


def test_exact_search_finds_what_sorting_finds_whatever_its_blocks():
    codes, _ = clusters()
    queries = np.array([5, 0, 599])
    distances = np.linalg.norm(codes[queries, None] - codes, axis=2)
    distances[np.arange(3), queries] = np.inf
    expected = distances.argsort(axis=1, kind="stable")[:, :50]
    for block in (1, 5000, BLOCK):
        found = exact_search(codes, queries, depth=50, block_bytes=block)
        np.testing.assert_array_equal(found.images, expected)
        np.testing.assert_allclose(
            found.distances, np.sort(distances, axis=1)[:, :50] ** 2, rtol=1e-4
        )
    assert (found.bytes_per_code, found.build_seconds) == (64, 0)


def test_an_index_of_compressed_codes_loses_some_and_is_smaller():
    codes, labels = clusters()
    flat, exact = measured("Flat", codes, labels, depth=100)
    small, lossy = measured("PQ4x4", codes, labels, depth=100)
    assert 0 < lossy["recall_at_10"] < exact["recall_at_10"] == 1
    assert 0 < lossy["average_precision"] < exact["average_precision"]
    assert small.bytes_per_code < flat.bytes_per_code
    assert 64 <= flat.bytes_per_code < 65  # and a few bytes of a head
    for found in (small, flat):
        assert found.build_seconds >= 0
        assert found.query_milliseconds > 0


def test_settings_of_the_search_stand_behind_the_name():
    codes, labels = clusters()
    recalls = [
        measured(name, codes, labels, depth=10)[1]["recall_at_10"]
        for name in ("IVF16,Flat", "IVF16,Flat,nprobe=4", "IVF16,Flat,nprobe=16")
    ]
    assert recalls[0] < recalls[1] < recalls[2] == 1
    both = "IVF16_HNSW8,Flat,nprobe=16,quantizer_efSearch=64"
    assert measured(both, codes, labels, depth=10)[1]["recall_at_10"] == 1


def test_images_that_an_index_does_not_find_count_nothing():
    codes, labels = clusters()
    found, means = measured("IVF16,Flat,nprobe=1", codes, labels, depth=300)
    assert (found.images == -1).any()
    expected = []
    for query, row in enumerate(found.images):
        right = labels[row[row >= 0]] == labels[query]
        expected.append((right * right.cumsum() / np.arange(1, len(right) + 1)).sum() / 29)
    assert means["average_precision"] == pytest.approx(np.mean(expected))


@pytest.mark.parametrize("name", ["IVF16,Flat", "HNSW8", "PQ4x4", "OPQ4,IVF8,PQ4x4,nprobe=2"])
def test_the_same_again(name):
    codes, labels = clusters()
    first, again = (measured(name, codes, labels, depth=20)[0] for _ in range(2))
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.distances, again.distances)
    assert first.bytes_per_code == again.bytes_per_code


def test_building_leaves_the_number_of_threads():
    import faiss

    codes, labels = clusters()
    before = faiss.omp_get_max_threads()
    measured("Flat", codes, labels, depth=10)
    with pytest.raises(ValueError, match="faiss refuses"):
        index_search("Flut", codes, np.arange(3), depth=10)
    assert faiss.omp_get_max_threads() == before


# Invariants


@given(
    st.integers(2, 40),
    st.integers(1, 5),
    st.integers(1, 50),
    st.sampled_from([1, 3, 1000]),
    st.integers(0, 2**32 - 1),
)
def test_a_flat_index_is_exact(count, dim, depth, values, seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(-values, values, (2 * count, dim), endpoint=True).astype(np.float32)
    labels = np.repeat(np.arange(count), 2)
    rng.shuffle(labels)
    found, means = measured("Flat", codes, labels, depth=max(depth, 10))
    exact, same = measured("exact", codes, labels, depth=max(depth, 10))
    np.testing.assert_allclose(found.distances, exact.distances, rtol=1e-5)
    assert means["recall_at_1"] == means["recall_at_10"] == 1
    if depth >= 2 * count - 1:  # else a tied group may be cut elsewhere
        assert means["average_precision"] == pytest.approx(same["average_precision"])


@settings(max_examples=30)
@given(
    st.sampled_from(["IVF4,Flat", "IVF4,PQ2x3", "HNSW4", "PQ2x3", "SQ4"]),
    st.integers(10, 60),
    st.integers(0, 2**32 - 1),
)
def test_scores_are_fractions(name, depth, seed):
    codes, labels = clusters(classes=5, each=10, dim=4, seed=seed)
    found, means = measured(name, codes, labels, depth=depth)
    assert found.images.shape == (50, min(depth, 49))
    assert all(0 <= value <= 1 for value in means.values())
    assert not (found.images == np.arange(50)[:, None]).any()
    for row in found.images:
        there = row[row >= 0]
        assert len(set(there)) == len(there)


# Refused


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Flut", "could not parse index string Flut"),
        ("IVF1024,Flat", r"training points \(600\) should be at least as large .* \(1024\)"),
        ("PQ3", "should be a multiple of the number of subquantizers"),
        ("Flat,nprobe=8", "could not set parameter nprobe"),
        ("IVF4,Flat,nprobe=", "could not interpret parameters nprobe="),
        ("IVF4,Flat,nprobe=0", "faiss refuses an index"),
        ("", "Received: ''"),
    ],
)
def test_what_faiss_refuses_is_told(name, reason):
    codes, _ = clusters()
    with pytest.raises(ValueError, match=reason):
        index_search(name, codes, np.arange(5), depth=10)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"codes": LINE[:, 0]}, r"codes must be \(n, dim\).*codes.shape=\(5,\)"),
        ({"codes": LINE[:1]}, r"codes.shape=\(1, 1\)"),
        ({"queries": []}, r"queries.shape=\(0,\)"),
        ({"queries": [5]}, "from 5 to 5"),
        ({"queries": [-1]}, "from -1 to -1"),
        ({"depth": 0}, "depth=0"),
        ({"block_bytes": 0}, "block_bytes=0"),
        ({"codes": LINE * np.float32("nan")}, "Received: 5 images"),
    ],
)
def test_what_does_not_fit_is_refused(change, reason):
    given_ = {"codes": LINE, "queries": [0], "depth": 10, "block_bytes": BLOCK} | change
    with pytest.raises(ValueError, match=reason):
        exact_search(given_.pop("codes"), given_.pop("queries"), **given_)


def test_scores_of_what_does_not_fit_are_refused():
    queries = np.arange(5)
    exact = exact_search(LINE, queries, depth=10, block_bytes=BLOCK)
    with pytest.raises(ValueError, match=r"labels.shape=\(4,\)"):
        search_scores(exact, exact, LINE, CLASSES[:4], queries)
    with pytest.raises(ValueError, match="found of 5, exactly of 5"):
        search_scores(exact, exact, LINE, CLASSES, queries[:4])
    with pytest.raises(ValueError, match=r"queries without: \[4\]"):
        search_scores(exact, exact, LINE, np.array([0, 0, 1, 1, 2]), queries)
    one = exact_search(LINE, queries, depth=1, block_bytes=BLOCK)
    with pytest.raises(ValueError, match=r"exact must be of the first 4\. Received: of 1"):
        search_scores(exact, one, LINE, CLASSES, queries)
