"""Images as an experiment is given them: smaller, grey, of fewer seen classes; unseen ones stay."""

import numpy as np
import pytest

from stages import params
from stages.pixels import as_given

RNG = np.random.default_rng(0)
SPLITS = {
    "seen_train": RNG.integers(0, 256, (6, 4, 8, 8, 3), np.uint8),
    "seen_test": RNG.integers(0, 256, (6, 2, 8, 8, 3), np.uint8),
    "unseen": RNG.integers(0, 256, (3, 5, 8, 8, 3), np.uint8),
}


def given(**changed):
    chosen = {"size": 8, "channels": 3, "classes": 6} | changed
    return as_given(SPLITS, params.Images(**chosen))


def test_all_there_is_is_left_as_it_is():
    for name, images in given().items():
        assert np.shares_memory(images, SPLITS[name])
        assert np.array_equal(images, SPLITS[name])


def test_fewer_classes_are_the_first_ones_and_no_unseen_one_is_left_out():
    found = given(classes=2)
    assert np.array_equal(found["seen_train"], SPLITS["seen_train"][:2])
    assert np.array_equal(found["seen_test"], SPLITS["seen_test"][:2])
    assert np.array_equal(found["unseen"], SPLITS["unseen"])


def test_smaller_is_the_mean_of_the_pixels_rounded_half_up():
    found = given(size=4)["unseen"]
    assert found.shape == (3, 5, 4, 4, 3)
    assert found.flags.c_contiguous
    means = SPLITS["unseen"].reshape(3, 5, 4, 2, 4, 2, 3).mean(axis=(3, 5))
    assert np.array_equal(found, np.floor(means + 0.5))


def test_grey_is_luma():
    found = given(channels=1)["seen_test"]
    luma = SPLITS["seen_test"].astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(found[..., 0] - luma).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("key", ["size", "channels", "classes"])
def test_nothing_can_be_given_that_is_not_there(key, tmp_path):
    from archives import small_params, write_params

    changed = small_params()
    changed["experiments"]["digits-siamese"]["images"] |= {
        key: {"size": 9, "channels": 3, "classes": 6}[key]
    }
    write_params(tmp_path, changed)
    with pytest.raises(params.UserError, match=rf"digits-siamese\.images\.{key}: \d is more than"):
        params.load(tmp_path / "params.yaml")
