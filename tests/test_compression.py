"""Principal components: fitted to seen codes alone, checked by hand and by a decomposition."""

import numpy as np
import pytest

from stages.measures.compression import compressed


def codes(n, dim, seed):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, dim)) * np.arange(dim, 0, -1) + 3).astype(np.float32)


def compress(given, seen, dimensions):
    return dict(compressed(given, seen, dimensions, seed=0))


def test_against_a_singular_value_decomposition():
    seen, given = codes(60, 8, 1), codes(20, 8, 2)
    unit_seen, unit = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (seen, given))
    mean = unit_seen.mean(axis=0)
    _, values, axes = np.linalg.svd(unit_seen - mean, full_matrices=False)
    turned = (unit - mean) @ axes.T
    for dimensions, kinds in compress(given, seen, [2, 5, 8]).items():
        whitened = turned / (values / np.sqrt(len(seen) - 1))
        for kind, expected in (("l2_normalised", turned), ("whitened", whitened)):
            cut = expected[:, :dimensions]
            cut = cut / np.linalg.norm(cut, axis=1, keepdims=True)
            # a component's sign is free: compare the angles between codes
            np.testing.assert_allclose(kinds[kind] @ kinds[kind].T, cut @ cut.T, atol=1e-4)


def test_all_dimensions_keep_the_angles_of_centred_codes():
    seen, given = codes(60, 8, 1), codes(20, 8, 2)
    whole = compress(given, seen, [8])[8]["l2_normalised"]
    mean = (seen / np.linalg.norm(seen, axis=1, keepdims=True)).mean(axis=0)
    centred = given / np.linalg.norm(given, axis=1, keepdims=True) - mean
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    np.testing.assert_allclose(whole @ whole.T, centred @ centred.T, atol=1e-4)


def test_codes_are_of_unit_length_and_float32():
    for kinds in compress(codes(20, 8, 2), codes(60, 8, 1), [3, 6]).values():
        for each in kinds.values():
            assert each.dtype == np.float32
            np.testing.assert_allclose(np.linalg.norm(each, axis=1), 1, atol=1e-5)


def test_dimensions_that_there_are_not_are_left_out():
    assert list(compress(codes(20, 8, 2), codes(60, 8, 1), [2, 8, 9, 512])) == [2, 8]
    assert list(compress(codes(20, 8, 2), codes(5, 8, 1), [2, 4, 5])) == [2, 4]  # of five images
    assert compress(codes(20, 8, 2), codes(60, 8, 1), [16]) == {}


def test_directions_in_which_seen_codes_do_not_differ_are_not_blown_up():
    seen = codes(60, 8, 1)
    seen[:, 4:] = 0
    given = codes(20, 8, 2)
    found = compress(given, seen, [8])[8]["whitened"]
    assert np.isfinite(found).all()


def test_codes_of_a_dead_layer_stay_what_they_are():
    found = compress(np.zeros((20, 8), np.float32), np.zeros((60, 8), np.float32), [4])[4]
    for kind in ("l2_normalised", "whitened"):
        np.testing.assert_array_equal(found[kind], 0)


def test_the_codes_that_are_compressed_do_not_move_the_components():
    seen, given = codes(60, 8, 1), codes(20, 8, 2)
    alone = compress(given[:3], seen, [4])[4]["whitened"]
    np.testing.assert_allclose(compress(given, seen, [4])[4]["whitened"][:3], alone, atol=1e-5)


def test_codes_that_are_not_finite_are_refused():
    seen = codes(60, 8, 1)
    seen[3, 2] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        compress(codes(20, 8, 2), seen, [4])
