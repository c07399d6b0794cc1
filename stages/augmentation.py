"""Augmentation of training images: whole batches at once, uint8 in, uint8 out, NumPy alone."""

import numpy as np

from stages.params import Augmentation

_BLOCK = 32  # images that are turned at a time: what is computed of them stays in the cache


def augmented(
    rng: np.random.Generator,
    images: np.ndarray,
    chosen: Augmentation,
    *,
    size: int | None = None,
) -> np.ndarray:
    """Return the images with every chosen change drawn anew for each.

    Args:
        rng: where the draws come from.
        images: uint8 (..., height, width, channels).
        chosen: which changes, and how strong.
        size: the new side in pixels of square images that are made smaller; None: as they are.

    Returns:
        uint8 (..., height, width, channels), or (..., size, size, channels).
    """
    batch = images.reshape(-1, *images.shape[-3:])
    if chosen.flip:
        batch = flipped(rng, batch)
    if chosen.rotation or chosen.scale:
        batch = turned(rng, batch, degrees=chosen.rotation, scale=chosen.scale)
    if chosen.shift:
        batch = shifted(rng, batch, pixels=chosen.shift)
    if size:
        batch = shrunk(batch, size)
    if chosen.colour:  # last: of small images it takes less time
        batch = recoloured(rng, batch, amount=chosen.colour)
    return batch.reshape(*images.shape[:-3], *batch.shape[1:])


def flipped(rng: np.random.Generator, images: np.ndarray) -> np.ndarray:
    """Mirror each image left to right with probability one half."""
    mirrored = rng.random(len(images)) < 0.5
    batch = images.copy()
    batch[mirrored] = images[mirrored, :, ::-1]
    return batch


def shifted(rng: np.random.Generator, images: np.ndarray, *, pixels: int) -> np.ndarray:
    """Move each image by up to `pixels` in each direction; the border's pixels fill the gap."""
    count, height, width, _ = images.shape
    margin = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = np.pad(images, margin, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    top, left = rng.integers(0, 2 * pixels + 1, (2, count))
    return np.moveaxis(windows[np.arange(count), top, left], 1, -1)


def turned(
    rng: np.random.Generator, images: np.ndarray, *, degrees: float, scale: float
) -> np.ndarray:
    """Turn and scale each image about its centre, with bilinear interpolation.

    Args:
        rng: where the draws come from.
        images: uint8 (n, height, width, channels).
        degrees: the largest angle, to either side.
        scale: the largest relative change of the distance between the pixels that are looked up,
            each axis by itself; with 0.2 a thing comes out 1 / 1.2 to 1 / 0.8 times as large.
    """
    count, height, width, _ = images.shape
    angle = np.deg2rad(rng.uniform(-degrees, degrees, (count, 1, 1))).astype(np.float32)
    zoom_y, zoom_x = rng.uniform(1 - scale, 1 + scale, (2, count, 1, 1)).astype(np.float32)
    cosine, sine = np.cos(angle), np.sin(angle)
    y = np.arange(height, dtype=np.float32)[:, None] - (height - 1) / 2
    x = np.arange(width, dtype=np.float32)[None, :] - (width - 1) / 2
    changed = np.empty_like(images)
    for first in range(0, count, _BLOCK):
        some = slice(first, first + _BLOCK)
        source_y = (cosine[some] * y - sine[some] * x) * zoom_y[some] + (height - 1) / 2
        source_x = (sine[some] * y + cosine[some] * x) * zoom_x[some] + (width - 1) / 2
        changed[some] = interpolated(images[some], source_y, source_x)
    return changed


def interpolated(images: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Look places between the pixels up, bilinearly; beyond the border, the border's pixels.

    Args:
        images: uint8 (n, height, width, channels).
        y: float32 (n, height, width), where to look in each image, in pixels from its first row.
        x: the same from its first column.
    """
    count, height, width, channels = images.shape
    y, x = y.clip(0, height - 1), x.clip(0, width - 1)
    top, left = y.astype(np.int32), x.astype(np.int32)
    down, right = (y - top)[..., None], (x - left)[..., None]
    # By places among the pixels of all images, which is sooner than by image, row and column.
    pixels = images.reshape(-1, channels)
    place = (np.arange(count)[:, None, None] * height + top) * width + left
    beside, below = left < width - 1, width * (top < height - 1)  # none from the border on
    upper = pixels.take(place, 0) * (1 - right) + pixels.take(place + beside, 0) * right
    place += below
    lower = pixels.take(place, 0) * (1 - right) + pixels.take(place + beside, 0) * right
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def recoloured(rng: np.random.Generator, images: np.ndarray, *, amount: float) -> np.ndarray:
    """Change brightness, contrast and saturation of each image (Howard 2014, section 2.1).

    Args:
        rng: where the draws come from.
        images: uint8 (n, height, width, channels).
        amount: the largest relative change of each of the three; 0.4 is 0.6 to 1.4.
    """
    count, *_, channels = images.shape
    draws = rng.uniform(1 - amount, 1 + amount, (3, count, 1, 1)).astype(np.float32)
    brightness, contrast, saturation = draws
    # Away from a pixel's grey, from the image's mean and from black, in one step for all three.
    own, grey = np.eye(channels), np.full((channels, channels), 1 / channels)
    mixed = brightness * contrast * (saturation * own + (1 - saturation) * grey).astype(np.float32)
    mean = images.mean(axis=(1, 2, 3), dtype=np.float32)[:, None, None]
    changed = images.reshape(count, -1, channels).astype(np.float32) @ mixed
    changed += brightness * (1 - contrast) * mean
    np.rint(changed.clip(0, 255, out=changed), out=changed)
    return changed.astype(np.uint8).reshape(images.shape)


def shrunk(images: np.ndarray, size: int) -> np.ndarray:
    """Make images smaller: each pixel is the mean of the area that it covers.

    Args:
        images: uint8 (..., side, side, channels).
        size: the new side in pixels, at most the old one.

    Returns:
        uint8 (..., size, size, channels).
    """
    *before, side, _, channels = images.shape
    edges = np.arange(size + 1) * (side / size)
    first, last = edges[:-1, None], edges[1:, None]
    pixel = np.arange(side)
    covered = (np.minimum(last, pixel + 1) - np.maximum(first, pixel)).clip(0)
    weights = (covered * (size / side)).astype(np.float32)
    rows = weights @ images.reshape(-1, side, side * channels).astype(np.float32)
    both = weights @ rows.reshape(-1, size, side, channels)
    return np.rint(both).astype(np.uint8).reshape(*before, size, size, channels)


def with_rotated_classes(images: np.ndarray) -> np.ndarray:
    """Add every class turned by 90, 180 and 270 degrees as classes of their own.

    The usual enlargement of Omniglot's background set (Santoro et al. 2016, section 4.1).

    Args:
        images: uint8 (classes, examples, side, side, channels).

    Returns:
        uint8 (4 * classes, examples, side, side, channels).
    """
    return np.concatenate([np.rot90(images, turns, axes=(2, 3)) for turns in range(4)])
