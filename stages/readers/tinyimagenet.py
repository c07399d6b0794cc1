"""Tiny ImageNet (Le and Yang 2015), from the official zip archive of JPEG files."""

import os
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import simplejpeg

from stages.command import UserError
from stages.readers import Contents, Part, check_sizes, content, reading_zip

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
    are not read: one has no boxes to sort by, the other no labels.

    Args:
        folder: holds tiny-imagenet-200.zip.

    Raises:
        UserError: for an archive that is missing, truncated or of another layout.
    """
    path = folder / _ARCHIVE
    with reading_zip(path) as archive:
        classes: dict[str, list[zipfile.ZipInfo]] = {}
        for member in archive.infolist():
            if match := _LAYOUT.fullmatch(member.filename):
                classes.setdefault(match[1], []).append(member)
        if not classes:
            raise UserError(f"{path}: no tiny-imagenet-200/train/<id>/images/*.JPEG in it")
        words = _words(archive, path)
        ids = sorted(classes)
        check_sizes(ids, [len(classes[each]) for each in ids], str(path))
        images = np.empty((len(ids), len(classes[ids[0]]), _SIDE, _SIDE, 3), np.uint8)

        def read_class(index: int) -> None:
            members = sorted(classes[ids[index]], key=lambda member: member.filename)
            for member, image in zip(members, images[index], strict=True):
                data = content(archive, member, largest=_LARGEST)
                image[:] = _photograph(data, f"{path}: {member.filename}")

        # The decoder releases the interpreter's lock. More threads than cores would queue for it.
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(read_class, range(len(ids))):
                pass
    return Contents({"train": Part(images, [words.get(each, each) for each in ids])})


def _words(archive: zipfile.ZipFile, path: Path) -> dict[str, str]:
    """Return the words of each WordNet id."""
    if _WORDS not in archive.NameToInfo:
        raise UserError(f"{path}: no {_WORDS} in it; expected the official layout")
    text = content(archive, archive.getinfo(_WORDS), largest=_LARGEST_WORDS)
    rows = (line.partition("\t") for line in text.decode("utf-8", "replace").splitlines())
    return {name: words.strip() for name, _, words in rows if words.strip()}


def _photograph(data: bytes, source: str) -> np.ndarray:
    """Return a JPEG file as uint8 (64, 64, 3), the same pixels as Pillow's."""
    try:
        height, width, *_ = simplejpeg.decode_jpeg_header(data)  # before memory is taken for it
        if (height, width) != (_SIDE, _SIDE):
            raise UserError(f"{source}: expected {_SIDE}x{_SIDE} pixels, got {width}x{height}")
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        raise UserError(
            f"{source}: damaged JPEG file ({error}); download the archive again"
        ) from None
