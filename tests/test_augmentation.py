"""Augmentation: what each change does to a batch, seen on images that a reader can check."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages import augmentation
from stages.params import Augmentation

OFF = {
    "flip": False,
    "shift": 0,
    "rotation": 0.0,
    "scale": 0.0,
    "colour": 0.0,
    "rotated_classes": False,
}


def rng():
    return np.random.default_rng(0)


def images(count=50, side=6, channels=3):
    return rng().integers(0, 256, (count, side, side, channels)).astype(np.uint8)


def test_nothing_chosen_changes_nothing():
    given = images()
    assert (augmentation.augmented(rng(), given, Augmentation(**OFF)) == given).all()


def test_half_of_the_images_are_mirrored_and_none_is_anything_else():
    given = images(400)
    found = augmentation.flipped(rng(), given)
    kept = (found == given).all(axis=(1, 2, 3))
    mirrored = (found == given[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (kept ^ mirrored).all()
    assert 150 < mirrored.sum() < 250


def test_a_shift_moves_every_pixel_alike_and_repeats_the_border():
    given = np.arange(5, dtype=np.uint8).reshape(1, 1, 5, 1).repeat(5, axis=1).repeat(200, axis=0)
    rows = {
        tuple(row)
        for image in augmentation.shifted(rng(), given, pixels=1)
        for row in image[..., 0]
    }
    assert rows == {(0, 0, 1, 2, 3), (0, 1, 2, 3, 4), (1, 2, 3, 4, 4)}


def test_a_shift_by_a_pixel_gives_each_of_the_nine_windows_and_no_other_image():
    image = np.arange(25, dtype=np.uint8).reshape(5, 5)
    padded = np.pad(image, 1, mode="edge")
    windows = {padded[top : top + 5, left : left + 5].tobytes() for top, left in np.ndindex(3, 3)}
    given = image[None, :, :, None].repeat(300, axis=0)
    found = augmentation.shifted(rng(), given, pixels=1)
    assert {each.tobytes() for each in found} == windows


def test_turning_by_nothing_changes_nothing_and_constants_stay():
    given = images()
    assert (augmentation.turned(rng(), given, degrees=0, scale=0) == given).all()
    constant = np.full((3, 7, 7, 1), 99, np.uint8)
    assert (augmentation.turned(rng(), constant, degrees=30, scale=0.3) == 99).all()


def test_a_turned_image_keeps_its_centre():
    given = np.zeros((20, 9, 9, 1), np.uint8)
    given[:, 3:6, 3:6] = 200
    found = augmentation.turned(rng(), given, degrees=45, scale=0.1)
    assert (found[:, 4, 4] == 200).all()
    assert (found != given).any()


class Drawn:
    """Draws what it is told to draw between two bounds."""

    def __init__(self, draws):
        self.draws = draws

    def uniform(self, low, high, shape):
        return np.broadcast_to(self.draws[low, high], shape)


def turned(given, *, angles=0.0, zooms=(1.0, 1.0)):
    """Return images turned by an angle each, all zoomed by the same two factors, of y and x."""
    draws = {
        (-180, 180): np.reshape(angles, (-1, 1, 1)),
        (0.5, 1.5): np.reshape(zooms, (2, 1, 1, 1)),
    }
    return augmentation.turned(Drawn(draws), given, degrees=180, scale=0.5)


def test_what_becomes_of_an_image_does_not_depend_on_how_many_there_are():
    given = rng().integers(0, 256, (2 * augmentation._BLOCK + 3, 9, 7, 3), np.uint8)
    angles = rng().uniform(-180, 180, len(given))
    together = turned(given, angles=angles, zooms=(0.9, 1.2))
    for image, angle, found in zip(given, angles, together, strict=True):
        assert (turned(image[None], angles=angle, zooms=(0.9, 1.2))[0] == found).all()


def test_each_image_is_turned_clockwise_by_its_own_angle():
    given = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1).repeat(4, axis=0)
    for quarters, found in enumerate(turned(given, angles=[0, 90, 180, -90])):
        assert (found == np.rot90(given[0], -quarters)).all()
    oblong = images(2)[:, :3]
    assert (turned(oblong, angles=180) == oblong[:, ::-1, ::-1]).all()


def test_a_zoom_weighs_the_two_nearest_pixels_by_hand():
    row = np.array([0, 40, 80, 160, 200], np.uint8).reshape(1, 1, 5, 1)
    # The factor is that of the distance from the centre at which a pixel is looked up.
    for zoom, expected in {
        0.5: [40, 60, 80, 120, 160],  # at 1, 1.5, 2, 2.5 and 3
        0.75: [20, 50, 80, 140, 180],  # at 0.5, 1.25, 2, 2.75 and 3.5
        1.5: [0, 20, 80, 180, 200],  # at -1, 0.5, 2, 3.5 and 5, where the border's pixels are
    }.items():
        assert turned(row, zooms=(1, zoom)).ravel().tolist() == expected
        assert turned(row.reshape(1, 5, 1, 1), zooms=(zoom, 1)).ravel().tolist() == expected


def test_each_axis_is_zoomed_by_its_own_factor():
    row, column = np.array([0, 40, 80, 160, 200]), np.array([0, 2, 4, 8, 16])
    given = np.uint8(column[:, None] + row)[None, :, :, None]
    expected = np.array([2, 3, 4, 6, 8])[:, None] + [20, 50, 80, 140, 180]  # by 0.5 and 0.75
    assert (turned(given, zooms=(0.5, 0.75))[0, ..., 0] == expected).all()


@pytest.mark.parametrize("chosen", [{"rotation": 30.0}, {"scale": 0.3}])
def test_images_are_turned_when_a_rotation_or_a_scale_is_asked_for(chosen):
    given, chosen = images(), Augmentation(**OFF | chosen)
    expected = augmentation.turned(rng(), given, degrees=chosen.rotation, scale=chosen.scale)
    assert (expected != given).any()
    assert (augmentation.augmented(rng(), given, chosen) == expected).all()


def recoloured(*draws):
    """Return two pixels, 30 90 60 and 100 100 100, of a mean of 80, with other colours.

    What is drawn is the brightness, the contrast and the saturation.
    """
    given = np.array([[[[30, 90, 60], [100, 100, 100]]]], np.uint8)
    drawn = Drawn({(0.5, 1.5): np.reshape(draws, (3, 1, 1, 1))})
    return augmentation.recoloured(drawn, given, amount=0.5)[0, 0].tolist()


def test_brightness_multiplies_contrast_leaves_the_mean_and_saturation_the_grey():
    assert recoloured(1, 1, 1) == [[30, 90, 60], [100, 100, 100]]
    assert recoloured(1.5, 1, 1) == [[45, 135, 90], [150, 150, 150]]
    assert recoloured(1, 0.5, 1) == [[55, 85, 70], [90, 90, 90]]  # half as far from 80
    assert recoloured(1, 1, 0.5) == [[45, 75, 60], [100, 100, 100]]  # half as far from 60, its grey
    assert recoloured(1, 1, 1.5) == [[15, 105, 60], [100, 100, 100]]
    assert recoloured(1.5, 1.5, 1.5)[0][0] == 0  # and not 1.5 * (80 + 1.5 * (15 - 80)) = -26


def test_colours_of_each_image_are_drawn_anew_and_grey_images_stay_grey():
    given = np.full((200, 4, 4, 3), 100, np.uint8)
    found = augmentation.augmented(rng(), given, Augmentation(**OFF | {"colour": 0.4}))
    assert (found == found[:, :1, :1, :1]).all()
    brightness = found[:, 0, 0, 0]
    assert brightness.min() in range(60, 63)
    assert brightness.max() in range(138, 141)
    assert len(set(brightness)) > 60
    one_channel = augmentation.recoloured(rng(), given[..., :1], amount=0.4)
    assert (one_channel[..., 0] == found[..., 0]).all()


def test_images_are_made_smaller_after_all_else_but_colours():
    given = images(20, side=8)
    chosen = Augmentation(**OFF | {"flip": True, "shift": 2, "colour": 0.3})
    found = augmentation.augmented(rng(), given, chosen, size=4)
    draws = rng()
    expected = augmentation.flipped(draws, given)
    expected = augmentation.shrunk(augmentation.shifted(draws, expected, pixels=2), 4)
    expected = augmentation.recoloured(draws, expected, amount=0.3)
    assert found.shape == (20, 4, 4, 3)
    assert (found == expected).all()


def test_pairs_of_images_keep_their_shape():
    given = images(8).reshape(4, 2, 6, 6, 3)
    chosen = Augmentation(**OFF | {"flip": True, "shift": 2, "rotation": 5.0})
    found = augmentation.augmented(rng(), given, chosen)
    assert (found.shape, found.dtype) == (given.shape, given.dtype)


def test_rotated_classes_are_the_quarter_turns():
    given = images(6)[None]
    found = augmentation.with_rotated_classes(given)
    assert found.shape == (4, 6, 6, 6, 3)
    for turns in range(4):
        assert (found[turns, 0] == np.rot90(given[0, 0], turns)).all()


def test_a_shrunk_image_has_the_mean_of_what_each_pixel_covers():
    image = np.array([[0, 4, 40, 44], [8, 12, 48, 52], [100, 100, 7, 7], [100, 100, 7, 7]])
    halved = augmentation.shrunk(image.astype(np.uint8)[None, :, :, None], 2)
    assert halved[0, ..., 0].tolist() == [[6, 46], [100, 7]]
    # Of 3 pixels in the place of 4 each covers one and a third: 4/3 x mean = a + b / 3.
    row = np.array([[30, 60, 90, 120]], dtype=np.uint8).repeat(4, axis=0)[None, :, :, None]
    expected = [(30 + 60 / 3) * 0.75, (60 * 2 / 3 + 90 * 2 / 3) * 0.75, (90 / 3 + 120) * 0.75]
    assert augmentation.shrunk(row, 3)[0, :, :, 0].tolist() == [np.rint(expected).tolist()] * 3


@given(side=st.integers(1, 12), size=st.integers(1, 12), before=st.sampled_from([(2,), (2, 3)]))
def test_shrinking_keeps_a_plain_image_and_stays_within_the_pixels(side, size, before):
    size = min(side, size)
    drawn = rng().integers(0, 256, (*before, side, side, 3)).astype(np.uint8)
    found = augmentation.shrunk(drawn, size)
    assert found.shape == (*before, size, size, 3)
    assert found.min() >= drawn.min()
    assert found.max() <= drawn.max()
    plain = np.full_like(drawn, 201)
    assert (augmentation.shrunk(plain, size) == 201).all()
    if size == side:
        assert (found == drawn).all()
