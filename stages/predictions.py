"""Stage `predictions`: what an experiment chose and found, and what its codes are like.

data/codes, data/arrays, data/tasks, oneshot.json  ->  predictions/<dataset>/<experiment>

Small files, kept in git as the figures are, so that a page shows each image's part where no network
was trained:

- choices.npy: uint8 (tasks, ways / 8, rounded up), a bit for each support image, set for the
  nearest, by the experiment's best distance, in the tasks with the most ways.
- nearest-<layer>.npy: int32 (queries, 1 + nearest), indices of unseen images: queries, each with
  the images nearest to it by codes of length one.
- map.npy: float32 (classes, images, 2), the places of unseen images on a map.
- codes.json: statistics of the codes of each layer, trained and untrained.
"""

from pathlib import Path

import numpy as np
import pydantic
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from stages import codes, files, params, pictures
from stages.command import UserError, run
from stages.measures.episodes import support_distances
from stages.measures.statistics import code_statistics
from stages.results import Finite, best_of, most_ways, read_checked, read_metrics

_FOUND = params.Pictures(queries=10, nearest=5)  # of each layer
_CLASSES, _ON_MAP = 20, 500  # on the map: so many classes, and so many images in all
_DIGITS = 6  # decimals of a statistic


class _Statistics(pydantic.BaseModel, strict=True):
    """Of codes; see `stages.measures.statistics.code_statistics`."""

    dimensions: int
    zeros: Finite
    norm: Finite
    norm_deviation: Finite
    effective_dimensions: Finite
    class_separation: Finite


_OF_CODES = pydantic.TypeAdapter(dict[str, dict[str, _Statistics]])


def statistics(
    dataset: str, name: str, layers: list[str], labels: np.ndarray
) -> dict[str, dict[str, dict[str, float]]]:
    """Return by layer, and by `trained` and `untrained`, what an experiment's codes are like.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        layers: names of the layers whose codes were written.
        labels: int (images,), the class of each unseen image.

    Raises:
        UserError: for files that are missing or damaged.
        ValueError: for codes of other images.
    """

    def of(state: str, layer: str) -> dict[str, float]:
        figures = code_statistics(codes.read(dataset, name, state, layer)[0], labels)
        return {measure: round(figure, _DIGITS) for measure, figure in figures.items()}

    return {
        layer: {state: of(state, layer) for state in ("trained", "untrained")} for layer in layers
    }


def map_places(space: codes.Space, shape: tuple[int, int], *, seed: int) -> np.ndarray:
    """Return places on a map where images with like codes stand together, as far as a plane allows.

    By t-SNE (van der Maaten and Hinton 2008), of as many images of each of the first classes.

    Args:
        space: the codes of the unseen images, as they are compared.
        shape: how many classes, and of how many images each.
        seed: of the start, which is random.

    Returns:
        float32 (classes, images, 2), from 0 to 1, from left to right and from top to bottom.
    """
    classes, each = map_shape(shape)
    rows = np.arange(np.prod(shape)).reshape(shape)[:classes, :each]
    shown = space.codes[rows.ravel()]
    perplexity = min(30, (len(shown) - 1) / 3)
    with threadpool_limits(1):  # more of them spin on a busy machine: a minute, not a second
        places = TSNE(perplexity=perplexity, init="random", random_state=seed).fit_transform(shown)
    places -= places.min(axis=0)
    places /= np.maximum(places.max(axis=0), 1e-9)
    return places.reshape(classes, each, 2)


def map_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return how many classes, and how many images of each, the map of such an array shows."""
    classes = min(_CLASSES, shape[0])
    return classes, min(max(_ON_MAP // classes, 2), shape[1])


def read_choices(dataset: str, name: str, shape: tuple[int, int]) -> np.ndarray:
    """Return which support images were nearest to the query: one a task, but for ties.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        shape: (tasks, ways).

    Returns:
        bool (tasks, ways).

    Raises:
        UserError: for a file that is missing or damaged, or of other tasks.
    """
    tasks, ways = shape
    packed = _read(dataset, name, "choices", "uint8", (tasks, -(-ways // 8)), 255)
    return np.unpackbits(packed, axis=1, count=ways).astype(bool)


def read_nearest(dataset: str, name: str, layer: str, images: int) -> np.ndarray:
    """Return queries, each with the images nearest to it by a layer's codes of unit length.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        layer: the layer's name.
        images: how many unseen ones there are.

    Returns:
        int32 (queries, 1 + nearest), indices.

    Raises:
        UserError: for a file that is missing or damaged, or of other images.
    """
    shape = min(_FOUND.queries, images), 1 + min(_FOUND.nearest, images - 1)
    return _read(dataset, name, f"nearest-{layer}", "int32", shape, images - 1)


def read_map(dataset: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the places of an experiment's map; see `map_places`.

    Args:
        dataset: the dataset's name.
        name: the experiment's name.
        shape: of the unseen images, by classes.

    Raises:
        UserError: for a file that is missing or damaged, or of other images.
    """
    return _read(dataset, name, "map", "float32", (*map_shape(shape), 2), 1)


def read_statistics(dataset: str, name: str) -> dict[str, dict[str, dict[str, float]]]:
    """Return what an experiment's codes are like; see `statistics`.

    Raises:
        UserError: for a file that is missing or damaged.
    """
    return read_checked(_folder(dataset, name) / "codes.json", _OF_CODES)


def _read(
    dataset: str, name: str, part: str, dtype: str, shape: tuple[int, ...], top: int
) -> np.ndarray:
    path = _folder(dataset, name) / f"{part}.npy"
    found = files.read_array(path, dtype=dtype, dimensions=len(shape))
    if found.shape != shape or not ((found >= 0) & (found <= top)).all():
        raise UserError(
            f"{path}: expected shape {shape} and values from 0 to {top}, as data/arrays/{dataset} "
            f"and data/tasks/{dataset} have them, found shape {found.shape}; delete it and run "
            f"{files.maker_of(path)}"
        )
    return found


def _folder(dataset: str, name: str) -> Path:
    return Path("predictions", dataset, name)


def main(name: str) -> None:
    """Write what one experiment chose and found."""
    settings = params.load()
    experiment = settings.experiment(name)
    dataset, layers = experiment.dataset, experiment.codes.layers
    metrics = Path("metrics", dataset, name)
    scores = read_metrics(metrics, "oneshot")
    shape = files.read_splits(dataset)["unseen"].shape[:2]

    widest = most_ways(scores)
    best = best_of(scores.get(widest, {}), "accuracy")
    tasks = files.read_tasks(dataset)
    if not best or widest not in tasks:
        path = metrics / "oneshot.json"
        raise UserError(
            f"{path}: no figures of layers on tasks of data/tasks/{dataset}; delete it and run "
            f"{files.maker_of(path)}"
        )
    drawn = tasks[widest]
    space = next(codes.trained_spaces(dataset, name, [best["layer"]], [best["distance"]]))
    with codes.refused(dataset, name):
        distances = support_distances(space.codes, drawn, head=space.head)
        figures = statistics(dataset, name, layers, codes.labels_of(dataset))
    nearest = distances == distances.min(axis=1, keepdims=True)
    with files.replacing(_folder(dataset, name)) as folder:
        files.write_array(folder / "choices.npy", np.packbits(nearest, axis=1))
        for grid in pictures.nearest_grids(dataset, name, layers, _FOUND):
            files.write_array(folder / f"nearest-{grid.layer}.npy", grid.found.astype(np.int32))
        files.write_array(folder / "map.npy", map_places(space, shape, seed=settings.seed))
        files.write_json(folder / "codes.json", figures)
    print(f"{name}: {widest}, {best['layer']}, {best['distance']}: {len(drawn)} tasks", flush=True)


if __name__ == "__main__":
    run(main)
