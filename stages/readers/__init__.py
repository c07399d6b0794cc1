"""Readers of the official archives: one module a dataset, each with one function `read`.

A reader takes the folder that holds the archives and returns their `Contents`. It unpacks
nothing to disk, runs nothing that an archive holds, and raises `UserError` for what it refuses.
"""

import contextlib
import dataclasses
import mmap
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from stages import files
from stages.command import UserError
from stages.zips import Archive

_LARGEST_ARCHIVE = 2**30  # bytes unpacked; the largest official one has a quarter of it


@dataclasses.dataclass(frozen=True)
class Part:
    """Images of one part of a dataset.

    Attributes:
        images: uint8 (classes, examples, height, width, channels), classes in official order,
            examples by file name.
        names: the name of each class; "group/name" where classes come in groups.
    """

    images: np.ndarray
    names: list[str]


@dataclasses.dataclass(frozen=True)
class FixedTasks:
    """One-shot tasks that come with a dataset.

    Attributes:
        part: the part whose images they name.
        indices: int (tasks, 1 + ways): the query and its support set, each as
            class * examples + example.
    """

    part: str
    indices: np.ndarray


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a dataset's archives hold: parts by name, and fixed tasks by name."""

    parts: dict[str, Part]
    tasks: dict[str, FixedTasks] = dataclasses.field(default_factory=dict)


def class_sorted(
    images: np.ndarray, labels: np.ndarray, files: list[str], names: list[str], source: str
) -> Part:
    """Return a part with `images` sorted by class, and within a class by file name.

    Args:
        images: uint8 (n, height, width, channels).
        labels: int (n,), indices into `names`.
        files: n file names.
        names: the names of the classes, in official order.
        source: what to call the archive in an error.

    Raises:
        UserError: when a label is out of range or the classes are not of one size.
    """
    if len(labels) == 0 or labels.min() < 0 or labels.max() >= len(names):
        raise UserError(f"{source}: expected labels from 0 to {len(names) - 1}")
    check_sizes(names, np.bincount(labels, minlength=len(names)), source)
    order = np.lexsort((np.array(files), labels))
    return Part(images[order].reshape(len(names), -1, *images.shape[1:]), names)


def check_sizes(names: list[str], sizes: Sequence[int], source: str) -> None:
    """Refuse an archive whose classes are not of one size.

    Raises:
        UserError: naming the smallest class.
    """
    smallest = int(np.argmin(sizes))
    if sizes[smallest] != max(sizes):
        raise UserError(
            f"{source}: class {names[smallest]!r} has {sizes[smallest]} images, expected "
            f"{max(sizes)} as in the largest class; the archive is not whole: download it again"
        )


@contextlib.contextmanager
def reading_zip(path: Path) -> Iterator[Archive]:
    """Yield a zip archive of a sensible size, none of whose members leaves it.

    Raises:
        UserError: for an archive that is missing or, in the block too, turns out damaged.
    """
    try:
        with (
            path.open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            archive = Archive(data, str(path))
            for name in archive.members:
                check_path(name, str(path))
            unpacked = sum(member.size for member in archive.members.values())
            if unpacked > _LARGEST_ARCHIVE:
                raise UserError(
                    f"{path}: {unpacked} bytes unpacked, expected at most {_LARGEST_ARCHIVE}; "
                    "do not use this archive"
                )
            yield archive
    except FileNotFoundError:
        raise files.missing(path) from None
    except (OSError, ValueError, struct.error) as error:
        raise UserError(f"{path}: damaged archive ({error}); download it again") from None


def check_path(path: str, source: str) -> None:
    """Refuse a member of an archive whose path is absolute or leaves the archive.

    Raises:
        UserError: naming the path.
    """
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or ":" in parts[0]:
        raise UserError(f"{source}: member {path!r} leaves the archive; do not use this archive")
