from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from stages import params
from stages.measures.distances import (
    DISTANCES,
    Means,
    centred_l2_normalised,
    distances_of,
    l2_normalised,
    means_of,
)

matrices = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=8),
    elements=st.integers(-100, 100).map(float),
)


def test_l2_normalised_by_eye():
    codes = l2_normalised(np.float32([[3, 4], [0, -2], [0, 0]]))
    np.testing.assert_allclose(codes, [[0.6, 0.8], [0, -1], [0, 0]], rtol=1e-6)
    assert codes.dtype == np.float32


def test_centred_l2_normalised_by_eye():
    codes = centred_l2_normalised(np.float32([[4, 5], [1, -1], [1, 1]]), np.float32([1, 1]))
    np.testing.assert_allclose(codes, [[0.6, 0.8], [0, -1], [0, 0]], rtol=1e-6)
    assert codes.dtype == np.float32


@given(codes=matrices)
def test_lengths_are_one_or_zero_and_the_input_stays(codes):
    before = codes.copy()
    lengths = np.linalg.norm(l2_normalised(codes), axis=1)
    np.testing.assert_allclose(lengths, codes.any(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(codes, before)


@given(codes=matrices, scale=st.floats(0.01, 100))
def test_the_length_of_a_code_does_not_matter(codes, scale):
    np.testing.assert_allclose(
        l2_normalised(codes * np.float32(scale)), l2_normalised(codes), atol=1e-5
    )


def test_distances_transform_codes_in_the_order_of_the_report():
    codes, means = np.float32([[3, 4], [0, 1]]), Means(np.float32([0, 1]), np.float32([0.6, 0]))
    assert tuple(DISTANCES) == get_args(params.Distance)
    transformed = [transform(codes, means) for transform in DISTANCES.values()]
    np.testing.assert_array_equal(transformed[0], codes)
    np.testing.assert_array_equal(transformed[1], l2_normalised(codes))
    np.testing.assert_array_equal(transformed[2], centred_l2_normalised(codes, means.codes))
    # (3, 4) has length 5; less (0.6, 0) it is (0, 0.8), and (0, 1) becomes (-0.6, 1)
    expected = [[0, 1], np.array([-0.6, 1]) / np.hypot(0.6, 1)]
    np.testing.assert_allclose(transformed[3], expected, atol=1e-6)
    assert all(array.dtype == np.float32 for array in transformed)


def test_means_by_eye():
    means = means_of([np.float32([[3, 4]]), np.float32([[0, 2], [0, 0]])])
    np.testing.assert_allclose(means.codes, [1, 2], rtol=1e-6)
    np.testing.assert_allclose(means.directions, [0.2, 0.6], rtol=1e-6)
    assert {array.dtype for array in means} == {np.dtype(np.float64)}


@given(codes=matrices, block=st.integers(1, 8))
def test_means_do_not_depend_on_the_blocks(codes, block):
    in_blocks = means_of(codes[start : start + block] for start in range(0, len(codes), block))
    np.testing.assert_allclose(in_blocks.codes, codes.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(in_blocks.directions, l2_normalised(codes).mean(axis=0), atol=1e-6)


@given(codes=matrices)
def test_mistake_8_a_squared_distance_is_of_differences_not_of_squares(codes):
    differences = codes - codes[:1]
    expected = np.linalg.norm(codes - codes[:1], axis=1)
    np.testing.assert_allclose(np.sqrt(distances_of(differences)), expected, rtol=1e-5)


def test_mistake_8_by_eye():
    # sqrt(a² - b²) would call 5 and 3 four apart, and 3 and 5 no number at all
    np.testing.assert_array_equal(distances_of(np.float32([[5 - 3], [3 - 5]])), [4, 4])


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"Received: codes\.shape=\(3,\)$"):
        l2_normalised(np.zeros(3))
    with pytest.raises(ValueError, match=r"Received: mean\.shape=\(3,\), codes\.shape=\(2, 4\)$"):
        centred_l2_normalised(np.zeros((2, 4)), np.zeros(3))
