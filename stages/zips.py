"""Zip archives, by their directory (PKWARE's APPNOTE.TXT, sections 4.3 and 4.4).

Python's zipfile makes an object of each of Tiny ImageNet's 120,000 files before it reads the first,
and reads a file in Python, under the interpreter's lock, so that two threads of it are slower than
one. Here a member is what its bytes need, and nearly all of the rest is libdeflate's, which unpacks
a small file in two thirds of zlib's time and without the lock.
"""

import mmap
import struct
from typing import NamedTuple

import deflate

from stages.command import UserError

_LOCAL = struct.Struct("<4s22xHH")  # before a member: lengths of its name and its extra field
_ENTRY = struct.Struct("<4s4xHH4xLLLHHH8xL")  # of the directory: flags, method, …, see `Member`
_END = struct.Struct("<4s6xHLL2x")  # of the directory: number of entries, size and place
_END64_PLACE = struct.Struct("<4s4xQ4x")  # stands before it where it has a larger twin
_END64 = struct.Struct("<4s28xQQQ")  # as `_END`
_LONGEST_COMMENT = 2**16 - 1  # bytes; it ends the file

_STORED, _DEFLATED = 0, 8
_ENCRYPTED = 0x1  # a flag of a member


class Member(NamedTuple):
    """What an archive's directory says of a file or a folder; the latter's path ends in a slash."""

    flags: int
    method: int  # of packing
    checksum: int  # CRC-32
    packed: int  # bytes
    size: int  # bytes unpacked
    place: int  # of its local header, in bytes


class Archive:
    """A zip archive that is open; `stages.readers.reading_zip` opens one.

    Args:
        data: all of its bytes.
        source: what to call it in an error.

    Attributes:
        members: by path, in the order of the directory.

    Raises:
        ValueError: for a directory that is missing or damaged.
        struct.error: for one that is cut off.
    """

    def __init__(self, data: mmap.mmap, source: str) -> None:
        self._data, self._source = data, source
        self.members = _directory(data)

    def content(self, path: str, *, largest: int) -> bytes:
        """Return a member's bytes, checked by its checksum.

        Raises:
            UserError: for a member that has more than `largest` bytes, is encrypted or is packed in
                another way than official archives are.
            ValueError: for one that is damaged.
        """
        member, data = self.members[path], self._data
        if max(member.size, member.packed) > largest:
            raise UserError(f"{self._source}: {path}: larger than {largest} bytes")
        if member.flags & _ENCRYPTED or member.method not in (_STORED, _DEFLATED):
            raise UserError(
                f"{self._source}: {path}: encrypted, or packed in a way that no official archive is"
            )
        begin = member.place + _LOCAL.size
        header = data[member.place : begin]
        if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
            raise ValueError(f"no {path} where the directory says")
        _, name, extra = _LOCAL.unpack(header)
        if _path(data[begin : begin + name]) != path:
            raise ValueError(f"{path} has another name in its place")
        begin += name + extra
        content = data[begin : begin + member.packed]
        if member.method == _DEFLATED:
            try:
                content = bytes(deflate.deflate_decompress(content, member.size))
            except deflate.DeflateError:
                raise ValueError(f"{path} does not unpack to its size") from None
        if len(content) != member.size or deflate.crc32(content) != member.checksum:
            raise ValueError(f"{path} does not have its size or checksum")
        return content


def _directory(data: mmap.mmap) -> dict[str, Member]:
    """Return an archive's members by path.

    Raises:
        ValueError: for a directory that is missing or damaged.
        struct.error: for one that is cut off.
    """
    count, size, place = _end(data)
    entries = data[place : place + size]
    members, at = {}, 0
    while at < len(entries):
        (
            signature, flags, method, checksum, packed, unpacked, name, extra, comment, local,
        ) = _ENTRY.unpack_from(entries, at)  # fmt: skip
        if signature != b"PK\1\2":
            raise ValueError(f"no entry of the directory where entry {len(members) + 1} should be")
        at += _ENTRY.size
        path = _path(entries[at : at + name])
        members[path] = Member(flags, method, checksum, packed, unpacked, local)
        at += name + extra + comment
    if at != size or len(members) != count:
        raise ValueError(f"the directory has {len(members)} different members, expected {count}")
    return members


def _path(name: bytes) -> str:
    """Return a member's path: UTF-8, or else, as Windows has long packed them, code page 437."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")


def _end(data: mmap.mmap) -> tuple[int, int, int]:
    """Return the directory's number of entries, its size and its place."""
    at = data.rfind(b"PK\5\6", max(len(data) - _END.size - _LONGEST_COMMENT, 0))
    if at < 0:
        raise ValueError("no end of a zip archive's directory")
    _, *found = _END.unpack_from(data, at)
    if at >= _END64_PLACE.size:
        signature, place = _END64_PLACE.unpack_from(data, at - _END64_PLACE.size)
        if signature == b"PK\6\7":
            signature, *found = _END64.unpack(data[place : place + _END64.size])
            if signature != b"PK\6\6":
                raise ValueError("no end of the directory where it should be")
    return tuple(found)
