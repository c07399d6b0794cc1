"""The gate names each figure that does not clear its baseline, and no other."""

import pytest

from stages import check


def row(value, half=0.02):
    return {"accuracy": value, "ci95_low": value - half, "ci95_high": value + half}


FIGURES = {
    "chance": 0.2,
    "tasks": 1000,
    "L7": {"l2": row(0.21), "l2_normalised": row(0.4)},
    "pixels": {"l2": row(0.3), "l2_normalised": row(0.35)},
    "pca": {"L7": {"16": {"whitened": row(0.1)}}},  # of fewer dimensions: nothing is asked of it
    "expanded": {"L7": {"l2": {"5": row(0.1)}}},  # nor of queries expanded, unless by a threshold
    "search": {"L7": {"l2": {"Flat": {"mean_average_precision": 0.1}}}},  # nor of an index
    "untrained": {"L7": {"l2": row(0.25), "l2_normalised": row(0.39)}},
}


def lines(beat, **changed):
    return [line.split(": ", 1) for line in check.not_beaten(FIGURES | changed, "accuracy", beat)]


def test_every_distance_has_to_clear_chance_with_its_lower_end():
    ((name, message),) = lines(["chance"])  # 0.21 is above chance, its lower end is not
    assert name == "L7/l2"
    assert message.endswith("does not clear chance 0.2")


def test_the_best_distance_has_to_clear_the_best_of_a_baseline():
    assert lines(["pixels"]) == []
    ((name, message),) = lines(["untrained"])
    assert name == "L7/l2_normalised"
    assert message.endswith("does not clear untrained 0.39")


def test_each_failure_is_a_line_of_its_own():
    better = {"pixels": {"l2": row(0.5)}}
    assert [name for name, _ in lines(["chance", "pixels", "untrained"], **better)] == [
        "L7/l2",
        "L7/l2_normalised",
        "L7/l2_normalised",
    ]


def test_a_dead_network_passes_nothing():
    dead = {"L7": {"l2": row(0.2), "l2_normalised": row(0.2)}}
    assert len(lines(["chance"], **dead)) == 2


@pytest.mark.parametrize(("threshold", "count"), [(0.4, 0), (0.41, 1)])
def test_a_threshold_is_reached_or_named(threshold, count):
    asked = {"oneshot/L7/l2_normalised/accuracy": threshold}
    found = list(check.not_reached({"oneshot": FIGURES}, asked))
    assert len(found) == count


def test_a_threshold_on_no_figure_is_refused():
    with pytest.raises(check.UserError, match="oneshot/L9/l2/accuracy: no such figure"):
        list(check.not_reached({"oneshot": FIGURES}, {"oneshot/L9/l2/accuracy": 0.1}))
