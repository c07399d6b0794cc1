"""Confusion: rates by hand and beside the one-shot accuracy; an order that joins what is alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix

from stages.measures.confusion import choice_rates, likeness_order
from stages.measures.episodes import hits_of


def test_by_hand():
    distances = np.array([[0, 1, 2], [1, 1, 2], [5, 4, 3]])
    classes = np.array([[0, 0, 1, 2], [0, 1, 0, 2], [1, 0, 2, 1]])
    # Class 0: once itself, once a tie with 1. Class 1: itself. Class 2 is never asked for.
    found = choice_rates(distances, classes, 3)
    assert found[:2].tolist() == [[0.75, 0.25, 0], [0, 1, 0]]
    assert np.isnan(found[2]).all()


def tasks(seed, ways=5, count=300):
    rng = np.random.default_rng(seed)
    support = rng.permuted(np.tile(np.arange(ways), (count, 1)), axis=1)
    query = rng.integers(ways, size=(count, 1))
    return rng.random((count, ways)), np.concatenate([query, support], axis=1)


def test_beside_scikit_learn():
    distances, classes = tasks(3)
    chosen = classes[np.arange(len(classes)), 1 + distances.argmin(axis=1)]
    expected = confusion_matrix(classes[:, 0], chosen, normalize="true")
    np.testing.assert_allclose(choice_rates(distances, classes, 5), expected)


@given(st.integers(0, 1000), st.integers(1, 4))
def test_rows_add_up_and_the_diagonal_is_the_accuracy(seed, levels):
    distances, classes = tasks(seed)
    distances = np.floor(distances * levels)  # with ties
    found = choice_rates(distances, classes, 5)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    share = np.bincount(classes[:, 0], minlength=5) / len(classes)
    assert found.diagonal() @ share == pytest.approx(hits_of(distances, classes).mean())


def test_what_is_taken_for_each_other_stands_together():
    rates = np.eye(6) * 0.5
    for a, b in ((0, 3), (1, 5), (2, 4)):
        rates[a, b] = rates[b, a] = 0.5
    place = np.argsort(likeness_order(rates))
    assert all(abs(place[a] - place[b]) == 1 for a, b in ((0, 3), (1, 5), (2, 4)))


@given(st.integers(0, 100), st.integers(1, 12))
def test_an_order_holds_each_class_once(seed, count):
    rates = np.random.default_rng(seed).random((count, count))
    rates[seed % count] = np.nan  # a class that is never asked for
    assert sorted(likeness_order(rates)) == list(range(count))


def test_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match=r"classes must be.*Received"):
        choice_rates(np.zeros((3, 2)), np.zeros((3, 2), int), 2)
