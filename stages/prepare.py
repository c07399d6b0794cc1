"""Stage `prepare`: archives to class-sorted arrays, split by class and by example.

data/raw/<dataset>  ->  data/arrays/<dataset>/{seen_train,seen_test,unseen,…}.npy, classes.json
"""

import dataclasses
import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from stages import files, params
from stages.command import UserError, run
from stages.pixels import converted
from stages.readers import Contents, Part


def check_pixels(parts: dict[str, Part], digests: dict[str, str]) -> None:
    """Check that the pixels of each part are the known ones, whichever archive they come from.

    Raises:
        UserError: for a part that is missing or whose sha256 (uint8, C order) is another.
    """
    for name, expected in digests.items():
        if name not in parts:
            raise UserError(f"pixels: no part {name!r} was read; there are: {', '.join(parts)}")
        found = hashlib.sha256(np.ascontiguousarray(parts[name].images)).hexdigest()
        if found != expected:
            raise UserError(
                f"pixels of part {name!r} {parts[name].images.shape}: sha256 {found}, expected "
                f"{expected}; the archive holds other images: download it again, or, where they "
                "are your own, put the one found into params.yaml"
            )


@dataclasses.dataclass(frozen=True)
class Selected:
    """The images of a split, made a class at a time: memory holds a dataset's images once.

    Attributes:
        part: where they come from.
        classes: int (classes,), of the part.
        order: int (classes, examples), of each class.
        image: the size and channels that they get.
    """

    part: Part
    classes: np.ndarray
    order: np.ndarray
    image: params.Image

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all of them: (classes, examples, height, width, channels)."""
        return (*self.order.shape, self.image.size, self.image.size, self.image.channels)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield uint8 (1, examples, height, width, channels) for each class."""
        for label, order in zip(self.classes, self.order, strict=True):
            images = self.part.images[label, order][None]
            yield converted(images, self.image.size, self.image.channels)


def split(contents: Contents, dataset: params.Dataset) -> tuple[dict[str, Selected], dict]:
    """Split the parts of a dataset, in which pixels are turned into what params.yaml asks for.

    Args:
        contents: what the reader returned.
        dataset: the dataset's section of params.yaml.

    Returns:
        The images of each split by its name, and the class names of seen and unseen classes.

    Raises:
        UserError: for a split that asks for more than there is or whose classes leak.
    """
    selected, names = {}, {}
    for name, chosen in dataset.split.selections().items():
        part = contents.parts[chosen.part]
        for axis, there in zip(("classes", "examples"), part.images.shape[:2], strict=True):
            if getattr(chosen, axis)[1] > there:
                raise UserError(
                    f"split.{name}.{axis}: {getattr(chosen, axis)} asks for more than the "
                    f"{there} {axis} of part {chosen.part!r}"
                )
        classes = np.arange(*chosen.classes)
        order = example_order(part, dataset.split)[classes][:, slice(*chosen.examples)]
        selected[name] = Selected(part, classes, order, dataset.image)
        names[name] = [part.names[label] for label in classes]
    for name in (each for each in names if each != "unseen"):
        if leaked := set(names[name]) & set(names["unseen"]):
            raise UserError(f"split: classes both seen and unseen: {', '.join(sorted(leaked))}")
        if names[name] != names["seen_train"]:
            raise UserError(f"split: {name} and seen_train must have the same classes")
    return selected, {"seen": names["seen_train"], "unseen": names["unseen"]}


def example_order(part: Part, split: params.Split) -> np.ndarray:
    """Return int (classes, examples): the order in which a split takes a class's examples."""
    order = np.tile(np.arange(part.images.shape[1]), (part.images.shape[0], 1))
    return np.random.default_rng(split.seed).permuted(order, axis=1) if split.shuffle else order


def fixed_tasks(contents: Contents, split: params.Split) -> dict[str, np.ndarray]:
    """Return the tasks that come with the dataset, as int32 indices into the unseen images.

    Tasks of images that are not all unseen are left out: stage `tasks` says so where they are asked
    for.
    """
    unseen = split.unseen
    part = contents.parts[unseen.part]
    order = example_order(part, split)[slice(*unseen.classes), slice(*unseen.examples)]
    place = np.full(part.images.shape[:2], -1)
    np.put_along_axis(
        place[slice(*unseen.classes)], order, np.arange(order.size).reshape(order.shape), axis=1
    )
    arrays = {}
    for name, fixed in contents.tasks.items():
        there = fixed.part == unseen.part
        if there and (indices := place.ravel()[fixed.indices]).min() >= 0:
            arrays[f"tasks_{name}"] = indices.astype(np.int32)
    return arrays


def main(dataset: str) -> None:
    """Read, check, split and write one dataset."""
    settings = params.load().dataset(dataset)
    reader = importlib.import_module(f"stages.readers.{settings.reader}")
    contents = reader.read(Path("data/raw", dataset))
    check_pixels(contents.parts, settings.pixels)
    selected, classes = split(contents, settings)
    with files.replacing(Path("data/arrays", dataset)) as folder:
        for name, images in selected.items():
            with files.writing_array(folder / f"{name}.npy", images.shape, "uint8") as append:
                for of_class in images:
                    append(of_class)
            print(f"{dataset}: {name} {' x '.join(map(str, images.shape))}")
        for name, tasks in fixed_tasks(contents, settings.split).items():
            files.write_array(folder / f"{name}.npy", tasks)
            print(f"{dataset}: {name} {' x '.join(map(str, tasks.shape))}")
        files.write_json(folder / "classes.json", classes)
    for archive in settings.digests:
        files.forget_states("download", archive)


if __name__ == "__main__":
    run(main)
