"""The steps of each optimizer.

Muon: a kernel's step is as long as it is told to be, in all directions alike.
"""

import numpy as np
import pytest

from stages.backend import keras
from stages.optimizers import adam, muon, sgd

REST = {"momentum": 0.9, "weight_decay": 0.0, "others": 5.0, "iterations": 5}


def stepped(weights, *gradients, rate=0.1, **changed):
    """Return weights after a step of Muon along each gradient."""
    return stepped_by(muon.build(rate, **REST | changed), weights, *gradients)


def stepped_by(optimizer, weights, *gradients):
    """Return weights after a step along each gradient."""
    variable = keras.Variable(weights)
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


def test_a_step_goes_along_the_momentum_that_the_next_one_would_have():
    """By hand: the last gradient g is such that 0.9 m + g, where m = 0.9 first + g, is 7 I."""
    given, first = kernel(1, 1, 2, 2), kernel(1, 1, 2, 2, seed=1)
    last = (7 * np.eye(2, dtype=np.float32) - np.float32(0.81) * first) / np.float32(1.9)
    before = stepped(given, first)[0, 0]
    length = np.linalg.norm(before)
    moved = before - 0.1 * length * np.eye(2) / np.sqrt(2)
    expected = length * moved / np.linalg.norm(moved)
    np.testing.assert_allclose(stepped(given, first, last)[0, 0], expected, atol=1e-4)


def test_weight_decay_takes_from_the_norm_of_a_kernel_alone():
    given, gradient = kernel(3, 3, 4, 8), kernel(3, 3, 4, 8, seed=1)
    without, decayed = (stepped(given, gradient, weight_decay=decay) for decay in (0.0, 0.5))
    np.testing.assert_allclose(decayed, 0.95 * without, rtol=1e-4, atol=1e-6)


def test_weights_that_are_no_kernel_take_the_steps_of_sgd():
    given, gradients = kernel(5, 3), [kernel(5, 3, seed=seed) for seed in (1, 2)]
    optimizer = keras.optimizers.SGD(0.5, momentum=0.9, nesterov=True)  # 5 times 0.1
    expected = stepped_by(optimizer, given, *gradients)
    np.testing.assert_allclose(stepped(given, *gradients), expected, rtol=1e-5)


def test_no_gradient_is_no_step():
    given = kernel(3, 3, 4, 8)
    np.testing.assert_allclose(stepped(given, np.zeros_like(given)), given, rtol=1e-5)


def test_sgd_looks_ahead_and_decays_weights_apart_from_the_momentum_by_hand():
    given, gradients = np.float32([2]), (np.float32([1]), np.float32([3]))
    optimizer = sgd.build(0.1, momentum=0.9, weight_decay=0.5)
    decayed = 2 * (1 - 0.1 * 0.5)
    momentum = -0.1 * 1
    once = decayed + 0.9 * momentum - 0.1 * 1
    momentum = 0.9 * momentum - 0.1 * 3
    twice = once * (1 - 0.1 * 0.5) + 0.9 * momentum - 0.1 * 3
    assert twice == pytest.approx(0.9735)
    np.testing.assert_allclose(stepped_by(optimizer, given, *gradients), [twice], rtol=1e-5)
    plain = sgd.build(0.1, momentum=0.0, weight_decay=0.0)
    np.testing.assert_allclose(stepped_by(plain, given, *gradients), [2 - 0.1 - 0.3], rtol=1e-5)


def test_adam_divides_by_the_largest_second_moment_when_amsgrad_is_asked_for():
    """By hand: of gradients 100 and 0 the moments keep 0.9 and 0.999, or the largest one all."""
    gradients = np.float32([100]), np.float32([0])
    for amsgrad, moment in (False, 0.999 * 0.001 * 100**2), (True, 0.001 * 100**2):
        found = stepped_by(adam.build(0.1, amsgrad=amsgrad), np.float32([0]), *gradients)
        second = (0.9 * 0.1 * 100 / (1 - 0.9**2)) / np.sqrt(moment / (1 - 0.999**2))
        np.testing.assert_allclose(found, [-0.1 * (1 + second)], rtol=5e-5)
