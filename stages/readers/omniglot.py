"""Omniglot (Lake, Salakhutdinov and Tenenbaum 2015) and its 20 fixed one-shot runs."""

import io
import re
import zlib
from pathlib import Path

import numpy as np
import PIL.Image

from stages.command import UserError
from stages.readers import Contents, FixedTasks, Part, class_sorted, reading_zip

_LARGEST = 2**20  # bytes of a member; drawings have hundreds
_SIDE = 105  # pixels


def read(folder: Path) -> Contents:
    """Return parts `background` (964 characters x 20 drawings), `evaluation` (659 x 20) and `all`.

    Drawings are 105x105, one channel, ink 255 on paper 0; classes are alphabet/character. `all` is
    the one after the other, by which other splits are counted: the one of Vinyals et al. (2016), as
    Snell et al. (2017) released it, is the first 1,200 characters against the other 423.

    The tasks `lake` are Lake's 400 trials. Their drawings are found again among those of the
    evaluation set by their pixels, so that a task is a row of indices like any other.

    Args:
        folder: holds images_background.zip, images_evaluation.zip and all_runs.zip.

    Raises:
        UserError: for an archive that is missing, truncated or of another layout.
    """
    parts = {part: _part(folder / f"images_{part}.zip") for part in ("background", "evaluation")}
    parts["all"] = Part(
        np.concatenate([each.images for each in parts.values()]),
        [name for each in parts.values() for name in each.names],
    )
    runs = FixedTasks("evaluation", _runs(folder / "all_runs.zip", parts["evaluation"].images))
    return Contents(parts, {"lake": runs})


def _members(path: Path) -> dict[str, bytes]:
    """Return the archive's files by path, unpacking nothing to disk."""
    with reading_zip(path) as archive:
        return {
            name: archive.content(name, largest=_LARGEST)
            for name in archive.members
            if not name.endswith("/")
        }


def _drawing(data: bytes, source: str) -> np.ndarray:
    """Return a drawing as uint8 (105, 105), ink 255 on paper 0."""
    try:
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.size != (_SIDE, _SIDE):
                raise UserError(f"{source}: expected {_SIDE}x{_SIDE} pixels, got {image.size}")
            return np.where(np.asarray(image.convert("L")) < 128, np.uint8(255), np.uint8(0))
    except (
        OSError, SyntaxError, ValueError, zlib.error, PIL.Image.DecompressionBombError
    ) as error:  # fmt: skip
        raise UserError(
            f"{source}: damaged PNG file ({error}); download the archive again"
        ) from None


def _part(path: Path) -> Part:
    layout = re.compile(rf"{path.stem}/([^/]+/[^/]+)/([^/]+\.png)")
    drawings = {
        match.groups(): _drawing(data, f"{path}: {name}")
        for name, data in _members(path).items()
        if (match := layout.fullmatch(name))
    }
    if not drawings:
        raise UserError(f"{path}: no drawings {path.stem}/<alphabet>/<character>/*.png in it")
    names = sorted({character for character, _ in drawings})
    label = {name: index for index, name in enumerate(names)}
    labels = np.array([label[character] for character, _ in drawings])
    images = np.stack(list(drawings.values()))[..., None]
    return class_sorted(images, labels, [file for _, file in drawings], names, str(path))


def _runs(path: Path, evaluation: np.ndarray) -> np.ndarray:
    """Return the trials as int (trials, 1 + ways): query and support set of each."""
    members = _members(path)
    drawn = evaluation.reshape(-1, *evaluation.shape[2:])
    places = {image.tobytes(): index for index, image in enumerate(drawn)}

    def place(name: str) -> int:
        source = f"{path}: {name}"
        if name not in members:
            raise UserError(f"{source}: named in class_labels.txt but not in the archive")
        found = places.get(_drawing(members[name], source).tobytes())
        if found is None:
            raise UserError(f"{source}: no such drawing in images_evaluation.zip")
        return found

    trials = []
    for run in sorted(name for name in members if name.endswith("/class_labels.txt")):
        folder = run.removesuffix("class_labels.txt") + "training/"
        support = [place(name) for name in sorted(members) if name.startswith(folder)]
        for line in members[run].decode("latin-1").splitlines():
            words = line.split()
            if len(words) != 2:
                raise UserError(f"{path}: {run}: expected two file names, got {line!r}")
            query, true = map(place, words)
            if true not in support:
                raise UserError(f"{path}: {run}: {line!r}: not among the run's training drawings")
            trials.append([query, *support])
    if not trials or len({len(trial) for trial in trials}) != 1:
        raise UserError(f"{path}: expected runs of one size, each with a class_labels.txt")
    return np.array(trials, np.int32)
