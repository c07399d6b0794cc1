"""Thumbnails of images, as addresses that are their own content: a page asks nobody for them."""

import base64
import io

import numpy as np
from PIL import Image


def picture(image: np.ndarray) -> str:
    """Return uint8 (height, width, 1, 3 or 4) as the address of a picture that is its own content.

    Drawings are PNG; photographs are WebP, to the eye the same in an eighth of the bytes.
    """
    content = io.BytesIO()
    grey = image.shape[-1] == 1
    pixels = image[..., 0] if grey else image
    kind, how = ("PNG", {"optimize": True}) if grey else ("WEBP", {"quality": 72, "method": 6})
    Image.fromarray(np.ascontiguousarray(pixels)).save(content, kind, **how)
    coded = base64.b64encode(content.getvalue()).decode()
    return f"data:image/{kind.lower()};base64,{coded}"


def strip(images: np.ndarray) -> str:
    """Return uint8 (n, height, width, channels) side by side, as the address of one picture."""
    return picture(np.concatenate(list(images), axis=1))


def scattered(images: np.ndarray, places: np.ndarray, *, side: int, thumbnail: int) -> str:
    """Return images scattered over a square, as the address of one picture.

    Args:
        images: uint8 (n, height, width, 1 or 3).
        places: (n, 2), from 0 to 1: from left to right, from top to bottom, of their centres.
        side: of the square, in pixels.
        thumbnail: height and width of each image, in pixels.
    """
    square = Image.new("RGBA", (side, side))
    for image, (left, top) in zip(images, places, strict=True):
        small = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).convert("RGBA")
        corner = [round(each * (side - thumbnail)) for each in (left, top)]
        square.paste(small.resize((thumbnail, thumbnail), Image.Resampling.LANCZOS), corner)
    return picture(np.asarray(square))
