"""Readers of the official archives: one module a dataset, each with one function `read`.

A reader takes the folder that holds the archives and returns their `Contents`. It unpacks
nothing to disk, runs nothing that an archive holds, and raises `UserError` for what it refuses.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stages.command import UserError


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


def check_path(path: str, source: str) -> None:
    """Refuse a member of an archive whose path is absolute or leaves the archive.

    Raises:
        UserError: naming the path.
    """
    parts = path.replace("\\", "/").split("/")
    if not parts[0] or ".." in parts or ":" in parts[0]:
        raise UserError(f"{source}: member {path!r} leaves the archive; do not use this archive")
