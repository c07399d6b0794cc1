import itertools
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.measures import episodes
from stages.measures.episodes import draw_tasks, hits_by_ways, one_shot_hits, support_distances

# Three classes of two images on a line; class 0 at 0 and 1, class 1 at 4 and 5, class 2 at 8, 6.
CODES = np.float32([[0], [1], [4], [5], [8], [6]])
LABELS = np.int32([0, 0, 1, 1, 2, 2])


def tasks_of(seed=0, **arguments):
    return draw_tasks(np.random.default_rng(seed), **arguments)


def test_hits_are_checked_by_eye():
    tasks = np.int32(
        [
            [0, 3, 1, 4],  # 0 from 5, 1, 8: nearest 1, its class
            [5, 1, 3, 4],  # 6 from 1, 5, 8: nearest 5, another class
            [5, 2, 0, 4],  # 6 from 4, 0, 8: 4 and 8 tie, one of two is right
            [2, 1, 3, 5],  # 4 from 1, 5, 6: nearest 5, its class
        ]
    )
    np.testing.assert_array_equal(
        support_distances(CODES, tasks), [[25, 1, 64], [25, 1, 4], [4, 36, 4], [9, 1, 4]]
    )
    np.testing.assert_array_equal(one_shot_hits(CODES, tasks, LABELS), [1, 0, 0.5, 1])


def test_the_learned_distance_is_the_logit_of_the_weighed_difference():
    codes = np.float32([[0, 0], [1, 3], [2, 1]])
    tasks = np.int32([[0, 1, 2]])
    head = (np.float32([-1, -2]), 5.0)  # logits 5 - 1 - 6 = -2 and 5 - 2 - 2 = 1
    np.testing.assert_array_equal(support_distances(codes, tasks, head=head), [[2, -1]])
    np.testing.assert_array_equal(one_shot_hits(codes, tasks, np.int32([0, 1, 0]), head=head), [1])


def test_a_saturated_sigmoid_makes_no_ties():
    codes = np.float32([[0], [1], [2]])
    head = (np.float32([-1]), 40.0)  # sigmoid(39) and sigmoid(38) are both 1 in float32
    hits = one_shot_hits(codes, np.int32([[0, 1, 2]]), np.int32([0, 0, 1]), head=head)
    np.testing.assert_array_equal(hits, [1])


@pytest.mark.parametrize("head", [None, (np.linspace(-1, 1, 7), 0.5)], ids=["l2", "learned"])
@pytest.mark.parametrize("ways", [2, 5, 20])
def test_mistake_1_a_dead_network_scores_chance_wherever_the_true_class_stands(ways, head):
    codes = np.full((200, 7), 0.3, np.float32)
    tasks = tasks_of(classes=20, examples=10, ways=ways, count=300)
    labels = np.arange(200) // 10
    np.testing.assert_array_equal(one_shot_hits(codes, tasks, labels, head=head), 1 / ways)
    # The popular arrangement, in which the argmin of equal distances is always right.
    position = 1 + np.argmax(labels[tasks[:, 1:]] == labels[tasks[:, :1]], axis=1)
    task, first = np.arange(300), tasks.copy()
    first[task, position], first[:, 1] = tasks[:, 1], tasks[task, position]
    assert (labels[first[:, 1]] == labels[first[:, 0]]).all()
    np.testing.assert_array_equal(one_shot_hits(codes, first, labels, head=head), 1 / ways)


def test_mistake_1_the_true_class_stands_at_any_position():
    tasks = tasks_of(classes=20, examples=10, ways=20, count=20_000)
    position = np.argmax(tasks[:, 1:] // 10 == tasks[:, :1] // 10, axis=1)
    counts = np.bincount(position, minlength=20)
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_codes_of_noise_score_within_binomial_noise_of_chance():
    rng = np.random.default_rng(0)
    tasks = draw_tasks(rng, classes=20, examples=500, ways=20, count=10_000)
    hits = one_shot_hits(rng.random((10_000, 8), np.float32), tasks, np.arange(10_000) // 500)
    assert abs(hits.mean() - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 10_000)


def test_perfect_codes_score_one():
    labels = np.arange(60) // 6
    tasks = tasks_of(classes=10, examples=6, ways=10, count=100)
    assert one_shot_hits(np.eye(10)[labels], tasks, labels).all()


@given(
    seed=st.integers(0, 2**32),
    classes=st.integers(2, 12),
    examples=st.integers(2, 6),
    data=st.data(),
)
def test_every_task_is_valid(seed, classes, examples, data):
    ways = data.draw(st.integers(2, classes))
    groups = np.array(data.draw(st.lists(st.integers(0, 2), min_size=classes, max_size=classes)))
    if np.bincount(groups).max() < ways:
        groups = None
    tasks = tasks_of(seed, classes=classes, examples=examples, ways=ways, count=50, groups=groups)
    assert tasks.shape == (50, 1 + ways)
    assert tasks.dtype == np.int32
    assert 0 <= tasks.min() <= tasks.max() < classes * examples
    of = tasks // examples
    assert all(len(set(row)) == ways for row in of[:, 1:].tolist())
    assert ((of[:, 1:] == of[:, :1]).sum(axis=1) == 1).all()
    assert not (tasks[:, 1:] == tasks[:, :1]).any()
    if groups is not None:
        assert (groups[of] == groups[of[:, :1]]).all()


def test_mistake_3_the_query_is_never_its_own_support_image():
    tasks = tasks_of(classes=5, examples=2, ways=5, count=5000)
    assert not (tasks[:, 1:] == tasks[:, :1]).any()


def test_groups_and_their_classes_and_images_are_equally_likely():
    groups = np.array([0] * 3 + [1] * 6 + [2] * 2)  # the last has too few classes for 3 ways
    tasks = tasks_of(classes=11, examples=4, ways=3, count=24_000, groups=groups)
    counts = np.bincount(tasks[:, 0], minlength=44)
    assert not counts[36:].any()
    np.testing.assert_allclose(counts[:12], 1000, atol=5 * 1000**0.5)
    np.testing.assert_allclose(counts[12:36], 500, atol=5 * 500**0.5)
    support = np.bincount(tasks[:, 1:].ravel(), minlength=44)
    np.testing.assert_allclose(support[:12], 3000, atol=5 * 3000**0.5)
    np.testing.assert_allclose(support[12:36], 1500, atol=5 * 1500**0.5)


def test_the_same_seed_draws_the_same_tasks():
    arguments = {"classes": 9, "examples": 5, "ways": 4, "count": 20}
    np.testing.assert_array_equal(tasks_of(7, **arguments), tasks_of(7, **arguments))
    assert (tasks_of(7, **arguments) != tasks_of(8, **arguments)).any()


@given(seed=st.integers(0, 2**32), dim=st.integers(1, 70), head=st.booleans())
def test_identical_codes_are_exactly_as_far(seed, dim, head):
    rng = np.random.default_rng(seed)
    codes = np.repeat(rng.normal(size=(2, dim)).astype(np.float32), [1, 30], axis=0)
    tasks = np.concatenate([[0], np.arange(1, 31)])[None].repeat(3, axis=0)
    distances = support_distances(codes, tasks, head=(codes[0], 1.5) if head else None)
    assert len(np.unique(distances)) == 1


@given(seed=st.integers(0, 2**32), scale=st.sampled_from([0.25, 1.0, 3.0]))
def test_rotation_and_scaling_leave_the_hits(seed, scale):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(40, 6))
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    labels = np.arange(40) // 4
    tasks = draw_tasks(rng, classes=10, examples=4, ways=5, count=60)
    moved = np.sort(support_distances(codes, tasks), axis=1)
    clear = moved[:, 1] - moved[:, 0] > 1e-4  # rounding may turn a near tie
    np.testing.assert_array_equal(
        one_shot_hits(scale * codes @ rotation, tasks[clear], labels),
        one_shot_hits(codes, tasks[clear], labels),
    )


@given(seed=st.integers(0, 2**32))
def test_the_order_of_the_images_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    codes = rng.integers(3, size=(40, 3)).astype(np.float32)  # many ties
    labels = np.arange(40) // 4
    tasks = draw_tasks(rng, classes=10, examples=4, ways=5, count=30)
    moved_to = rng.permutation(40)
    moved = np.empty_like(codes), np.empty_like(labels)
    moved[0][moved_to], moved[1][moved_to] = codes, labels
    np.testing.assert_array_equal(
        one_shot_hits(moved[0], moved_to[tasks], moved[1]), one_shot_hits(codes, tasks, labels)
    )


def test_mistake_8_the_distance_is_the_norm_of_the_difference():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(100, 33)).astype(np.float32)
    tasks = draw_tasks(rng, classes=10, examples=10, ways=5, count=50)
    expected = np.linalg.norm(codes[tasks[:, 1:]] - codes[tasks[:, :1]], axis=2)
    np.testing.assert_allclose(np.sqrt(support_distances(codes, tasks)), expected, rtol=1e-5)


@pytest.mark.parametrize("held", [1, 7 * 5 * 33 * 4], ids=["one task", "seven tasks"])
def test_each_chunk_of_tasks_is_measured_from_its_own_queries(monkeypatch, held):
    monkeypatch.setattr(episodes, "_CHUNK_BYTES", held)
    # Codes of its own, and the norm after the distances: in memory that was written to before, a
    # right answer may lie where none was put.
    rng = np.random.default_rng(held)
    codes = rng.normal(size=(100, 33)).astype(np.float32)
    tasks = draw_tasks(rng, classes=10, examples=10, ways=5, count=50)  # no multiple of seven
    found = np.sqrt(support_distances(codes, tasks))
    expected = np.linalg.norm(codes[tasks[:, 1:]] - codes[tasks[:, :1]], axis=2)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ways": 6}, r"ways must not exceed classes\. Received: ways=6, classes=5"),
        ({"ways": 1}, r"Received: ways=1$"),
        ({"examples": 1}, r"Received: examples=1$"),
        ({"count": 0}, r"Received: count=0$"),
        ({"groups": np.array([0, 0, 1, 1, 2])}, r"no group .* Received: ways=3$"),
        ({"groups": np.zeros(4)}, r"Received: groups\.shape=\(4,\)$"),
    ],
)
def test_wrong_tasks_are_refused(changed, message):
    arguments = {"classes": 5, "examples": 4, "ways": 3, "count": 10} | changed
    with pytest.raises(ValueError, match=message):
        tasks_of(**arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"codes": CODES[:, 0]}, r"Received: codes\.shape=\(6,\)$"),
        ({"codes": CODES * np.nan}, r"finite distances\. Received: 2 that are not$"),
        ({"tasks": np.int32([0, 1])}, r"Received: tasks\.shape=\(2,\)$"),
        ({"tasks": np.int32([[0, 1, 6]])}, r"Received: tasks from 0 to 6, len\(codes\)=6$"),
        ({"tasks": np.int32([[-1, 1, 2]])}, r"Received: tasks from -1 to 2"),
        ({"labels": LABELS[1:]}, r"Received: labels\.shape=\(5,\), len\(codes\)=6$"),
        ({"head": (np.ones((1, 1)), 0.0)}, r"Received: w\.shape=\(1, 1\), dim=1$"),
    ],
)
def test_wrong_codes_are_refused(changed, message):
    arguments = {"codes": CODES, "tasks": np.int32([[0, 1, 2]]), "labels": LABELS} | changed
    with pytest.raises(ValueError, match=message):
        one_shot_hits(**arguments)


def test_measures_load_numpy_and_nothing_heavier():
    program = (
        "import sys\n"
        "from stages.measures import distances, episodes, intervals, ranking, verification\n"
        "heavy = {'tensorflow', 'keras', 'jax', 'torch', 'sklearn', 'scipy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


@given(seed=st.integers(0, 50), values=st.integers(2, 40))
def test_hits_by_ways_are_the_mean_over_all_smaller_support_sets(seed, values):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, values, (12, 1)).astype(np.float32)  # few values: many ties
    labels = np.repeat(np.arange(4), 3)
    tasks = tasks_of(seed, classes=4, examples=3, ways=4, count=5)
    found = hits_by_ways(codes, tasks, labels)
    for task, expected in zip(tasks, found, strict=True):
        true = [image for image in task[1:] if labels[image] == labels[task[0]]]
        wrong = [image for image in task[1:] if labels[image] != labels[task[0]]]
        for ways in (2, 3, 4):
            smaller = [
                [task[0], *true, *chosen] for chosen in itertools.combinations(wrong, ways - 1)
            ]
            mean = one_shot_hits(codes, np.array(smaller), labels).mean()
            assert expected[ways - 2] == pytest.approx(mean)


def test_hits_with_all_ways_are_the_hits():
    rng = np.random.default_rng(1)
    codes, labels = rng.normal(size=(40, 3)).astype(np.float32), np.repeat(np.arange(10), 4)
    tasks = tasks_of(classes=10, examples=4, ways=10, count=200)
    found = hits_by_ways(codes, tasks, labels)
    assert found.shape == (200, 9)
    np.testing.assert_array_equal(found[:, -1], one_shot_hits(codes, tasks, labels))
    assert (np.diff(found, axis=1) <= 1e-12).all()  # more ways are never easier


def test_hits_by_over_a_thousand_ways_end_with_the_hits():
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(1100), 2)
    codes = labels[:, None] + rng.integers(0, 2, (2200, 1))  # as near as those of the next class
    tasks = draw_tasks(rng, classes=1100, examples=2, ways=1100, count=4)
    found, hits = (measure(codes, tasks, labels) for measure in (hits_by_ways, one_shot_hits))
    assert found.shape == (4, 1099)
    assert set(hits) == {0, 0.5, 1}
    np.testing.assert_array_equal(found[:, -1], hits)
    assert (np.diff(found, axis=1) <= 1e-12).all()


def test_constant_codes_score_chance_for_every_number_of_ways():
    tasks = tasks_of(classes=10, examples=4, ways=10, count=3)
    found = hits_by_ways(np.ones((40, 2), np.float32), tasks, np.repeat(np.arange(10), 4))
    np.testing.assert_allclose(found, 1 / np.arange(2, 11)[None].repeat(3, axis=0))


def test_a_task_with_two_images_of_the_class_has_no_smaller_sets():
    with pytest.raises(ValueError, match="one support image of the query's class"):
        hits_by_ways(CODES, np.int32([[0, 1, 1, 3]]), LABELS)
