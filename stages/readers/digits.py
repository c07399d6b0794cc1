"""The handwritten digits that ship inside scikit-learn (UCI, Alpaydin and Kaynak 1998)."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from stages.readers import Contents, Part

_LEVELS = 16  # ink in a pixel of the source: 0 to 16


def read(folder: Path) -> Contents:
    """Return part `all`: 10 classes x 174 examples of 8x8 grey pixels, 0 to 255.

    The source has 174 to 183 images of a digit; the first 174 of each are taken, in its order.

    Args:
        folder: unused, since nothing is downloaded.
    """
    digits = load_digits()
    images = (digits.images * 255 / _LEVELS).round().astype(np.uint8)[..., None]
    classes = [images[digits.target == digit] for digit in range(10)]
    examples = min(len(each) for each in classes)
    names = [str(digit) for digit in range(10)]
    return Contents({"all": Part(np.stack([each[:examples] for each in classes]), names)})
