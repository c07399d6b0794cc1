"""Pixels: images made smaller, grey, or fewer, always to the same bits."""

import numpy as np

from stages import params


def as_given(arrays: dict[str, np.ndarray], chosen: params.Images) -> dict[str, np.ndarray]:
    """Return a dataset's splits as an experiment is given them.

    An experiment that differs from another one here alone tells what colour, resolution or the
    number of seen classes is worth.

    Args:
        arrays: uint8 (classes, examples, height, width, channels) by the name of the split.
        chosen: the size and channels of all images, and how many of the seen classes there are:
            the first ones.

    Returns:
        The same; an array that needs no change is the one that was given, or a view of it.
    """
    given = {}
    for name, images in arrays.items():
        chosen_classes = images if name == "unseen" else images[: chosen.classes]
        given[name] = converted(chosen_classes, chosen.size, chosen.channels)
    return given


def converted(images: np.ndarray, size: int, channels: int) -> np.ndarray:
    """Return class-sorted images of another size and with other channels, a class at a time.

    Args:
        images: uint8 (classes, examples, height, width, channels).
        size: height and width of the result.
        channels: 1 or 3.
    """
    if images.shape[2:] == (size, size, channels):
        return images
    changed = np.empty((*images.shape[:2], size, size, channels), np.uint8)
    for into, of_class in zip(changed, images, strict=True):
        into[...] = with_channels(area_averaged(of_class, size), channels)
    return changed


def area_averaged(images: np.ndarray, size: int) -> np.ndarray:
    """Shrink images to `size` x `size` by averaging over the area that each new pixel covers.

    The weights are whole numbers and every sum is exact in float64, so the result is the same
    to the last bit on any machine.

    Args:
        images: uint8 (n, height, width, channels), at least `size` high and wide.
        size: height and width of the result.

    Returns:
        uint8 (n, size, size, channels), rounded half up.
    """
    height, width = images.shape[1:3]
    if (height, width) == (size, size):
        return images
    rows, columns = _coverage(height, size), _coverage(width, size)
    sums = np.einsum("ih,nhwc,jw->nijc", rows, images.astype(np.float64), columns, optimize=True)
    return (np.floor(sums / (height * width) + 0.5)).astype(np.uint8)


def _coverage(old: int, new: int) -> np.ndarray:
    """Return float64 (new, old): how much of each old pixel a new one covers, in 1/new pixels."""
    starts = np.arange(new)[:, None] * old
    pixels = np.arange(old)[None, :] * new
    covered = np.minimum(starts + old, pixels + new) - np.maximum(starts, pixels)
    return np.maximum(covered, 0).astype(np.float64)


def with_channels(images: np.ndarray, channels: int) -> np.ndarray:
    """Turn RGB into grey (ITU-R BT.601 luma, rounded) or grey into RGB, where needed."""
    if images.shape[-1] == channels:
        return images
    if channels == 1:
        return ((images @ np.array([299, 587, 114]) + 500) // 1000).astype(np.uint8)[..., None]
    return np.repeat(images, channels, axis=-1)
