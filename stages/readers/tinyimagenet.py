"""Tiny ImageNet (Le and Yang 2015), from the official zip archive of JPEG files."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from stages.command import UserError
from stages.readers import Contents, Part, check_sizes, reading_zip
from stages.zips import Archive

_ARCHIVE = "tiny-imagenet-200.zip"
_LAYOUT = re.compile(r"tiny-imagenet-200/train/(n\d{8})/images/([^/]+\.JPEG)")
_WORDS = "tiny-imagenet-200/words.txt"
_SIDE = 64  # pixels
_LARGEST = 2**20  # bytes of a JPEG file; the official ones have some 2,000
_LARGEST_WORDS = 16 * 2**20  # bytes; the official words.txt has 2.7 million


def read(folder: Path) -> Contents:
    """Return part `train` (200 classes x 500), 64x64 RGB; grey files are read as RGB.

    Classes stand in the order of their WordNet ids, examples in that of their file names as
    strings. A class is called by the words that words.txt gives its id. The folders val and test
    are not read: the assignment splits the training images, and test has no labels.

    Args:
        folder: holds tiny-imagenet-200.zip.

    Raises:
        UserError: for an archive that is missing, truncated or of another layout.
    """
    path = folder / _ARCHIVE
    with reading_zip(path) as archive:
        classes: dict[str, list[str]] = {}
        for name in archive.members:
            if match := _LAYOUT.fullmatch(name):
                classes.setdefault(match[1], []).append(name)
        if not classes:
            raise UserError(f"{path}: no tiny-imagenet-200/train/<id>/images/*.JPEG in it")
        words = _words(archive, path)
        ids = sorted(classes)
        check_sizes(ids, [len(classes[each]) for each in ids], str(path))
        images = np.empty((len(ids), len(classes[ids[0]]), _SIDE, _SIDE, 3), np.uint8)

        def read_class(index: int) -> None:
            for name, image in zip(sorted(classes[ids[index]]), images[index], strict=True):
                _decode(archive.content(name, largest=_LARGEST), image, f"{path}: {name}")

        # More threads than cores would queue for the interpreter's lock.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(read_class, range(len(ids))):
                pass
    return Contents({"train": Part(images, [words.get(each, each) for each in ids])})


def _words(archive: Archive, path: Path) -> dict[str, str]:
    """Return the words of each WordNet id."""
    if _WORDS not in archive.members:
        raise UserError(f"{path}: no {_WORDS} in it; expected the official layout")
    text = archive.content(_WORDS, largest=_LARGEST_WORDS)
    rows = (line.partition("\t") for line in text.decode("utf-8", "replace").splitlines())
    return {name: words.strip() for name, _, words in rows if words.strip()}


def _decode(data: bytes, image: np.ndarray, source: str) -> None:
    """Decode a JPEG file into uint8 (64, 64, 3): the same pixels as Pillow's.

    Raises:
        UserError: for a file that is none, or of another size.
    """
    try:
        height, width = simplejpeg.decode_jpeg(data, "RGB", buffer=image).shape[:2]
    except ValueError as error:
        damaged = UserError(f"{source}: damaged JPEG file ({error}); download the archive again")
        try:  # it may be larger than what there is room for
            height, width, *_ = simplejpeg.decode_jpeg_header(data)
        except ValueError:
            raise damaged from None
        if (height, width) == (_SIDE, _SIDE):
            raise damaged from None
    if (height, width) != (_SIDE, _SIDE):
        raise UserError(f"{source}: expected {_SIDE}x{_SIDE} pixels, got {width}x{height}")
