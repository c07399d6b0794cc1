"""Muon: a kernel's step is as long as it is told to be, in all directions alike."""

import numpy as np
import pytest

from stages.backend import keras
from stages.optimizers import muon

REST = {"momentum": 0.9, "weight_decay": 0.0, "others": 5.0, "iterations": 5}


def stepped(weights, *gradients, rate=0.1, **changed):
    """Return weights after a step along each gradient."""
    variable = keras.Variable(weights)
    optimizer = muon.build(rate, **REST | changed)
    optimizer.build([variable])
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    return np.asarray(variable)


def kernel(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12)])
def test_a_matrix_keeps_its_singular_vectors_and_has_singular_values_near_one(shape):
    left, _, right = np.linalg.svd(kernel(*shape), full_matrices=False)
    values = np.geomspace(1, 0.05, len(right))
    given = keras.ops.convert_to_tensor(((left * values) @ right).astype(np.float32))
    found = left.T @ np.asarray(muon.orthogonalised(given, 5)) @ right.T
    assert ((np.diag(found) > 0.68) & (np.diag(found) < 1.21)).all()
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-4)


def test_a_step_is_the_learning_rate_s_share_of_the_norm_and_the_norm_stays():
    """By hand: a multiple of the identity is made one again, and of norm 1 it has 1/sqrt(2)."""
    given = np.array([[3.0, 0.0], [4.0, 0.0]], np.float32).reshape(1, 1, 2, 2)  # of norm 5
    found = stepped(given, 7 * np.eye(2, dtype=np.float32).reshape(1, 1, 2, 2))
    moved = given[0, 0] - 0.1 * 5 * np.eye(2) / np.sqrt(2)
    np.testing.assert_allclose(found[0, 0], 5 * moved / np.linalg.norm(moved), rtol=1e-5)


def test_only_the_direction_of_a_gradient_moves_a_kernel():
    given, gradient = kernel(3, 3, 4, 8), kernel(3, 3, 4, 8, seed=1)
    once = stepped(given, gradient)
    np.testing.assert_allclose(stepped(given, 1000 * gradient), once, atol=1e-5)
    assert np.linalg.norm(once) == pytest.approx(np.linalg.norm(given), rel=1e-5)


def test_past_gradients_are_kept_by_the_momentum():
    given, first, last = (kernel(3, 3, 4, 8, seed=seed) for seed in range(3))
    kept, forgotten = (stepped(given, first, last, momentum=m) for m in (0.9, 1e-9))
    np.testing.assert_allclose(forgotten, stepped(stepped(given, first), last), 1e-4)
    assert np.abs(kept - forgotten).max() > 0.01


def test_weight_decay_takes_from_the_norm_of_a_kernel_alone():
    given, gradient = kernel(3, 3, 4, 8), kernel(3, 3, 4, 8, seed=1)
    without, decayed = (stepped(given, gradient, weight_decay=decay) for decay in (0.0, 0.5))
    np.testing.assert_allclose(decayed, 0.95 * without, rtol=1e-4, atol=1e-6)


def test_weights_that_are_no_kernel_take_the_steps_of_sgd():
    given, gradients = kernel(5, 3), [kernel(5, 3, seed=seed) for seed in (1, 2)]
    variable = keras.Variable(given)
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True)  # 5 times 0.1
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
    np.testing.assert_allclose(stepped(given, *gradients), np.asarray(variable), rtol=1e-5)


def test_no_gradient_is_no_step():
    given = kernel(3, 3, 4, 8)
    np.testing.assert_allclose(stepped(given, np.zeros_like(given)), given, rtol=1e-5)
