"""The representations of one experiment's unseen images, as `oneshot` and `retrieval` score them.

Codes of every layer, of the trained and of the untrained network, and raw pixels: each in the
Euclidean space of each distance.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages import files
from stages.command import UserError
from stages.measures.distances import DISTANCES, Means, means_of
from stages.measures.expansion import expanded

_BLOCK = 1000  # seen codes at a time; memory against speed
BESIDE = ("pixels", "untrained", "pca", "expanded", "search")  # keys beside a metrics file's layers


@dataclasses.dataclass(frozen=True)
class Space:
    """One representation of the unseen images in which nearer means more alike.

    Attributes:
        keys: where its figures stand in a metrics file, such as ("untrained", "L6", "l2").
        codes: float32 (images, dim), class-sorted; compared by Euclidean distance, or by `head`.
        head: (w, b) of a learned distance, or None.
        queries: float32 (images, dim), by what the images are compared as queries; None: by codes.
    """

    keys: tuple[str, ...]
    codes: np.ndarray
    head: tuple[np.ndarray, float] | None = None
    queries: np.ndarray | None = None


@contextlib.contextmanager
def refused(dataset: str, name: str) -> Iterator[None]:
    """Turn what a measure refuses (codes not finite, or not of these images) into a `UserError`."""
    try:
        yield
    except ValueError as error:
        raise UserError(
            f"data/codes/{dataset}/{name} does not fit data/arrays/{dataset} and "
            f"data/tasks/{dataset}: {error}; delete them and run dvc repro"
        ) from None


def labels_of(dataset: str) -> np.ndarray:
    """Return int (images,): the class of each unseen image."""
    return files.labels_of(files.read_splits(dataset)["unseen"])


def spaces(dataset: str, name: str, layers: list[str], distances: list[str]) -> Iterator[Space]:
    """Yield every space of an experiment: of its layers, of pixels, of its layers untrained.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        layers: names of the layers whose codes were written.
        distances: names from `DISTANCES`, and `learned`, which trained codes alone have.

    Raises:
        UserError: for files that are missing or damaged, and for `learned` without a head.
    """
    yield from trained_spaces(dataset, name, layers, distances)
    plain = [distance for distance in distances if distance in DISTANCES]
    pixels, means = _pixels(dataset)
    for distance in plain:
        yield Space(("pixels", distance), DISTANCES[distance](pixels, means))
    for layer in layers:
        codes, means = _codes_and_means(dataset, name, "untrained", layer)
        for distance in plain:
            yield Space(("untrained", layer, distance), DISTANCES[distance](codes, means))


def trained_spaces(
    dataset: str, name: str, layers: list[str], distances: list[str]
) -> Iterator[Space]:
    """Yield the spaces of an experiment's trained layers; see `spaces`."""
    for layer in layers:
        codes, means = _codes_and_means(dataset, name, "trained", layer)
        for distance in (each for each in distances if each in DISTANCES):
            yield Space((layer, distance), DISTANCES[distance](codes, means))
        if "learned" in distances:
            yield Space((layer, "learned"), codes, _head(Path("data/codes", dataset, name), name))


def expanded_spaces(
    dataset: str,
    name: str,
    layers: list[str],
    distances: list[str],
    counts: list[int],
    *,
    block_bytes: int,
) -> Iterator[Space]:
    """Yield the spaces of an experiment's trained layers, each image asked for with those nearest.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        layers: names of the layers whose codes were written.
        distances: see `spaces`.
        counts: of how many nearest images; see `stages.measures.expansion.expanded`.
        block_bytes: see there.

    Raises:
        UserError: for files that are missing or damaged.
    """
    if not counts:
        return
    for space in trained_spaces(dataset, name, layers, distances):
        with refused(dataset, name):
            for count, queries in expanded(space.codes, counts, block_bytes=block_bytes):
                keys = ("expanded", *space.keys, str(count))
                yield dataclasses.replace(space, keys=keys, queries=queries)


def read(dataset: str, name: str, state: str, layer: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of the unseen images, and those of some seen ones.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        state: `trained` or `untrained`.
        layer: the layer's name.

    Returns:
        Two arrays float32 (images, dim), memory-mapped read-only.

    Raises:
        UserError: for files that are missing or damaged.
    """
    folder = Path("data/codes", dataset, name, state)
    codes = files.read_array(folder / f"{layer}.npy", dtype="float32", dimensions=2)
    seen = files.read_array(folder / f"{layer}.seen.npy", dtype="float32", dimensions=2)
    return codes, seen


def _codes_and_means(*where: str) -> tuple[np.ndarray, Means]:
    codes, seen = read(*where)
    return codes, means_of(seen[start : start + _BLOCK] for start in range(0, len(seen), _BLOCK))


def _head(folder: Path, name: str) -> tuple[np.ndarray, float]:
    if not (folder / "head.npy").exists():
        raise UserError(
            f"{folder}/head.npy: no such file; where the objective learns a distance, run the "
            f"stage that makes it: {files.maker_of(folder)}; where it has none, take 'learned' "
            f"out of params.yaml: experiments.{name}.oneshot.distances"
        )
    head = files.read_array(folder / "head.npy", dtype="float32", dimensions=1)
    return head[:-1], float(head[-1])


def _pixels(dataset: str) -> tuple[np.ndarray, Means]:
    """Return the unseen images as codes from 0 to 1, and the means of all seen training images."""
    arrays = files.read_splits(dataset)

    def flat(images: np.ndarray) -> np.ndarray:
        return images.reshape(-1, np.prod(images.shape[-3:])).astype(np.float32)

    # Sums of whole numbers are exact, so the mean is taken before the values are scaled.
    codes, directions = means_of(flat(of_class) for of_class in arrays["seen_train"])
    return flat(arrays["unseen"]) / np.float32(255), Means(codes / 255, directions)


def nested(figures: dict[tuple[str, ...], dict]) -> dict:
    """Return figures by their keys as nested dictionaries, in the order given."""
    root: dict = {}
    for keys, value in figures.items():
        place = root
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = value
    return root
