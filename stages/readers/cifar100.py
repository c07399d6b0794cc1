"""CIFAR-100 (Krizhevsky 2009), from the official archive of Python pickles."""

import gzip
import io
import pickle
import pickletools
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from stages import files
from stages.command import UserError
from stages.readers import Contents, Part, check_path, class_sorted

_ARCHIVE = "cifar-100-python.tar.gz"
_SHAPE = (3, 32, 32)  # channels, height, width of a row of pixels
_LARGEST = 200 * 2**20  # bytes of a member; the official `train` has 155 million
_LARGEST_ARCHIVE = 2**30  # bytes of them all, unpacked
_MOST_MEMBERS = 100  # the official archive has five


class _Stream(gzip.GzipFile):
    """An archive's bytes, as many as an official one may have: a bomb ends as a damaged file."""

    def read(self, size: int = -1) -> bytes:
        if size > _LARGEST:
            raise OSError(f"a piece of {size} bytes, larger than any of the official archive")
        return super().read(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset > _LARGEST_ARCHIVE:
            raise OSError(f"larger than {_LARGEST_ARCHIVE} bytes, unpacked")
        return super().seek(offset, whence)


class _Dtype:
    """A dtype as a pickle states it: its name, `u1`, and what a byte has no need of."""

    def __init__(self, name: object, *_: object):
        self.name = name

    def __setstate__(self, details: object) -> None:
        pass


class _Array:
    """An array as a pickle states it, whose bytes become uint8 when they are as many as its shape.

    NumPy's own functions are not given what an archive says: they were not made for an enemy.
    """

    def __init__(self, *_: object):
        self.values = np.zeros(0, np.uint8)

    def __setstate__(self, state: object) -> None:
        match state:
            case (1, tuple(shape), _Dtype(name="u1" | b"u1"), False, bytes(pixels)):
                self.values = np.frombuffer(pixels, np.uint8).reshape(shape)
            case _:
                raise pickle.UnpicklingError("expected arrays of uint8 in C order")


# All that the official files need: NumPy 1 named the first as its older, NumPy 2 as its newer.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that cannot run code: it admits arrays of bytes and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None


def _check_pickle(data: bytes) -> None:
    """Refuse a pickle that would take time or memory out of proportion to its length.

    It may number its values by their order alone (a table of them is made as long as the largest
    number), and not repeat a tuple (tuples of tuples of the same tuple take for ever to hash).

    Raises:
        UnpicklingError: saying where.
    """
    tuples, last = set(), ""
    for count, (opcode, argument, place) in enumerate(pickletools.genops(data)):
        kind = opcode.name
        if opcode.proto > 2 or kind == "DUP":
            raise pickle.UnpicklingError(f"{kind} at {place}, which no official file has")
        if kind.endswith("PUT"):
            if argument > count:
                raise pickle.UnpicklingError(f"value number {argument} at {place}, out of order")
            if last.startswith("TUPLE"):
                tuples.add(argument)
        if kind.endswith("GET") and argument in tuples:
            raise pickle.UnpicklingError(f"a tuple repeated at {place}, which no official file has")
        last = kind


def read(folder: Path) -> Contents:
    """Return parts `train` (100 classes x 500) and `test` (100 x 100), 32x32 RGB.

    Args:
        folder: holds cifar-100-python.tar.gz.

    Raises:
        UserError: for an archive that is missing, truncated, of another layout or hostile.
    """
    path = folder / _ARCHIVE
    members = _members(path)
    names = _names(members["meta"], path)
    return Contents({part: _part(members[part], names, path) for part in ("train", "test")})


def _names(content: dict, path: Path) -> list[str]:
    names = _field(content, b"fine_label_names", list, path)
    if not all(type(name) is bytes and name.isascii() for name in names):
        raise UserError(f"{path}: expected fine_label_names as bytes of ASCII")
    return [name.decode() for name in names]


def _members(path: Path) -> dict[str, dict]:
    """Return the three pickled dictionaries, unpacking nothing to disk."""
    wanted = {f"cifar-100-python/{name}": name for name in ("train", "test", "meta")}
    found = {}
    try:
        with _Stream(path) as whole, tarfile.open(fileobj=whole, mode="r:") as archive:
            for count, member in enumerate(archive):
                check_path(member.name, str(path))
                if count >= _MOST_MEMBERS:
                    raise UserError(f"{path}: more than {_MOST_MEMBERS} members in it")
                if member.size > _LARGEST or (member.name in wanted and not member.isfile()):
                    raise UserError(
                        f"{path}: {member.name}: expected a file of at most {_LARGEST} bytes"
                    )
                if member.name in wanted:
                    found[member.name] = archive.extractfile(member).read()
            while whole.read(2**20):  # to the end, where gzip keeps the checksum of it all
                whole.seek(whole.tell())
    except FileNotFoundError:
        raise files.missing(path) from None
    except (tarfile.TarError, OSError, EOFError, zlib.error, RecursionError) as error:
        raise UserError(f"{path}: damaged archive ({error}); download it again") from None
    for name in wanted:
        if name not in found:
            raise UserError(f"{path}: no {name} in it; expected the official layout")
    return {short: _unpickle(found[name], f"{path}: {name}") for name, short in wanted.items()}


def _unpickle(data: bytes, source: str) -> dict:
    try:
        _check_pickle(data)
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except (
        pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError,
        TypeError, ImportError, OverflowError, struct.error, MemoryError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{source}: refused as a pickle: {str(error)[:200]}; download the archive again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected a pickled dictionary, got {type(content).__name__}")
    return content


def _field(content: dict, key: bytes, kind: type, path: Path) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        expected, got = (each.__name__.strip("_").lower() for each in (kind, type(value)))
        raise UserError(f"{path}: expected {key.decode()} as {expected}, got {got}")
    return value


def _part(content: dict, names: list[str], path: Path) -> Part:
    rows = _field(content, b"data", _Array, path).values
    labels = _field(content, b"fine_labels", list, path)
    files = _field(content, b"filenames", list, path)
    expected = (len(labels), int(np.prod(_SHAPE)))
    if rows.dtype != np.uint8 or rows.shape != expected or len(files) != len(labels):
        raise UserError(
            f"{path}: expected pixels as uint8 {expected} with as many file names, "
            f"got {rows.dtype} {rows.shape} with {len(files)}"
        )
    if not all(type(label) is int for label in labels) or not all(
        type(file) is bytes for file in files
    ):
        raise UserError(f"{path}: expected whole numbers as labels and bytes as file names")
    images = rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1)
    texts = [file.decode("latin-1") for file in files]
    return class_sorted(images, np.array(labels), texts, names, str(path))
