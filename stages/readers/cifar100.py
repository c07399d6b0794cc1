"""CIFAR-100 (Krizhevsky 2009), from the official archive of Python pickles."""

import gzip
import io
import pickle
import struct
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from stages.command import UserError
from stages.readers import Contents, Part, check_path, class_sorted

_ARCHIVE = "cifar-100-python.tar.gz"
_SHAPE = (3, 32, 32)  # channels, height, width of a row of pixels
_LARGEST = 200 * 2**20  # bytes of a member; the official `train` has 155 million

# All that the official files need: NumPy 1 named the first as its older, NumPy 2 as its newer.
_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _Unpickler(pickle.Unpickler):
    """An unpickler that cannot run code: it admits NumPy arrays and plain containers only."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused") from None


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
        with gzip.open(path) as whole, tarfile.open(fileobj=whole, mode="r:") as archive:
            for member in archive:
                check_path(member.name, str(path))
                if member.name not in wanted:
                    continue
                if not member.isfile() or member.size > _LARGEST:
                    raise UserError(
                        f"{path}: {member.name}: expected a file of at most {_LARGEST} bytes"
                    )
                found[member.name] = archive.extractfile(member).read()
            while whole.read(2**20):  # to the end, where gzip keeps the checksum of it all
                pass
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run the stage that makes it: dvc repro") from None
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: damaged archive ({error}); download it again") from None
    for name in wanted:
        if name not in found:
            raise UserError(f"{path}: no {name} in it; expected the official layout")
    return {short: _unpickle(found[name], f"{path}: {name}") for name, short in wanted.items()}


def _unpickle(data: bytes, source: str) -> dict:
    try:
        content = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except (
        pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, AttributeError,
        TypeError, ImportError, OverflowError, struct.error, MemoryError,
    ) as error:  # fmt: skip
        raise UserError(
            f"{source}: refused as a pickle: {error}; download the archive again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{source}: expected a pickled dictionary, got {type(content).__name__}")
    return content


def _field(content: dict, key: bytes, kind: type, path: Path) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        raise UserError(
            f"{path}: expected {key.decode()} as {kind.__name__}, got {type(value).__name__}"
        )
    return value


def _part(content: dict, names: list[str], path: Path) -> Part:
    rows = _field(content, b"data", np.ndarray, path)
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
