"""Pairs of images, half of one class: what siamese networks are trained and judged on."""

import numpy as np


def draw_pairs(rng: np.random.Generator, *, classes: int, examples: int, count: int) -> np.ndarray:
    """Draw pairs of different images from class-sorted images, half of them of one class.

    Every class, and within it every image, is as likely as any other, with replacement: `count`
    may exceed the number of classes and of images.

    Args:
        rng: source of randomness.
        classes: number of classes.
        examples: number of images of each class.
        count: number of pairs, even.

    Returns:
        (count, 2), int32, flat indices class * examples + example: two images of one class in
        the first half of the rows, of two classes in the second.

    Raises:
        ValueError: when an argument is out of range.
    """
    if classes < 2:
        raise ValueError(f"classes must be at least 2. Received: classes={classes}")
    if examples < 2:
        raise ValueError(f"examples must be at least 2. Received: examples={examples}")
    if count < 2 or count % 2:
        raise ValueError(f"count must be even and at least 2. Received: count={count}")
    half = count // 2
    label = rng.integers(classes, size=(count, 2), dtype=np.int32)
    example = rng.integers(examples, size=(count, 2), dtype=np.int32)
    first, second = slice(None, half), slice(half, None)
    # A step of 1 to n - 1 around a circle of n never comes back to the start: the other image
    # of a pair of one class is another image, the other class of a pair of two is another class.
    label[first, 1] = label[first, 0]
    example[first, 1] = (example[first, 0] + rng.integers(1, examples, size=half)) % examples
    label[second, 1] = (label[second, 0] + rng.integers(1, classes, size=half)) % classes
    return label * np.int32(examples) + example
