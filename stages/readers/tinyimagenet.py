"""Tiny ImageNet (Le and Yang 2015), from the official zip archive of JPEG files."""

import mmap
import os
import re
import struct
import zipfile
import zlib
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
_HEADER = struct.Struct("<26xHH")  # before a member: lengths of its name and its extra field
_ENCRYPTED = 0x1  # a flag of a member
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
        with mmap.mmap(archive.fp.fileno(), 0, access=mmap.ACCESS_READ) as mapped:

            def read_class(index: int) -> None:
                members = sorted(classes[ids[index]], key=lambda member: member.filename)
                for member, image in zip(members, images[index], strict=True):
                    source = f"{path}: {member.filename}"
                    _decode(_content(mapped, member, source), image, source)

            # More threads than cores would queue for the interpreter's lock.
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


def _content(mapped: mmap.mmap, member: zipfile.ZipInfo, source: str) -> bytes:
    """Return a member's bytes, checked by its checksum.

    As `ZipFile.read`, which spends its time in Python under the interpreter's lock, so that two
    threads of it are slower than one: here nearly all of it is zlib's, without the lock.

    Raises:
        UserError: for a member that is too large, encrypted or packed in another way.
        zipfile.BadZipFile: for one that is damaged.
    """
    stored = member.compress_type == zipfile.ZIP_STORED
    if member.flag_bits & _ENCRYPTED or not (
        stored or member.compress_type == zipfile.ZIP_DEFLATED
    ):
        raise UserError(f"{source}: encrypted, or packed in a way that no official archive is")
    if max(member.file_size, member.compress_size) > _LARGEST:
        raise UserError(f"{source}: larger than {_LARGEST} bytes")
    header = mapped[member.header_offset : member.header_offset + _HEADER.size]
    if len(header) < _HEADER.size or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"no {member.filename} where the directory says")
    name_length, extra_length = _HEADER.unpack(header)
    start = member.header_offset + _HEADER.size + name_length
    if mapped[start - name_length : start] != member.filename.encode():
        raise zipfile.BadZipFile(f"{member.filename} has another name in its place")
    data = mapped[start + extra_length : start + extra_length + member.compress_size]
    if not stored:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, member.file_size + 1)
    if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
        raise zipfile.BadZipFile(f"{member.filename} does not have its size or checksum")
    return data


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
