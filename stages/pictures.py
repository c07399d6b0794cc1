"""Pictures of what was retrieved: queries, each beside the images nearest to it.

Right ones are framed in green and marked ✓, wrong ones in red with dashes and marked ✗.
"""

import dataclasses
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from stages import codes, files, params
from stages.measures.ranking import nearest

_SHOWN_BY = "l2_normalised"  # the distance of Babenko et al. 2014, section 3
_RIGHT = {"color": "#1a7f37", "linestyle": "-"}
_WRONG = {"color": "#cf222e", "linestyle": (0, (3, 2))}
_CELL = 1.15  # inches, of an image and its name
_WORDS = 17  # characters of a line of a name


@dataclasses.dataclass(frozen=True)
class Grid:
    """Queries and what was found.

    Attributes:
        layer: whose codes were compared.
        found: int (queries, 1 + nearest): indices of the query and of its nearest images.
        labels: int (images,): the class of each unseen image.
        names: of the unseen classes.
        images: uint8 (images, height, width, channels): all unseen ones.
    """

    layer: str
    found: np.ndarray
    labels: np.ndarray
    names: list[str]
    images: np.ndarray

    def rows(self) -> Iterator[list[tuple[np.ndarray, str, bool]]]:
        """Yield of each query and its nearest: pixels, class name, and whether it is right."""
        for row in self.found:
            right = self.labels[row] == self.labels[row[0]]
            yield [
                (self.images[index], self.names[self.labels[index]], bool(hit))
                for index, hit in zip(row, right, strict=True)
            ]


def nearest_grids(
    dataset: str, name: str, layers: list[str], chosen: params.Pictures
) -> Iterator[Grid]:
    """Yield for each layer what its codes of unit length find.

    Images are sorted by class, so that the first ones would all be of one class: the queries are
    the first image of each class, then the second of each, as many as there are to be.

    Raises:
        UserError: for files that are missing or damaged, and for codes of other images.
    """
    unseen = files.read_splits(dataset)["unseen"]
    names = files.read_classes(dataset)["unseen"]
    in_turn = np.arange(unseen.shape[0] * unseen.shape[1]).reshape(unseen.shape[:2]).T.ravel()
    queries = in_turn[: chosen.queries]
    for layer in layers:
        space = next(codes.spaces(dataset, name, [layer], [_SHOWN_BY]))
        with codes.refused(dataset, name):
            if len(space.codes) != len(in_turn):
                raise ValueError(f"{len(space.codes)} codes of {len(in_turn)} images")
            found = nearest(space.codes, queries, min(chosen.nearest, len(in_turn) - 1))
        yield Grid(
            layer=layer,
            found=np.column_stack([queries, found]),
            labels=files.labels_of(unseen),
            names=names,
            images=unseen.reshape(-1, *unseen.shape[2:]),
        )


def write(path: Path, grid: Grid) -> None:
    """Write a grid as a PNG file: a row a query, the query first."""
    queries, columns = grid.found.shape
    figure = Figure((_CELL * columns, 1.25 * _CELL * queries), layout="constrained", dpi=100)
    for panels, row in zip(figure.subplots(queries, columns, squeeze=False), grid.rows()):  # noqa: B905
        for place, (axes, (image, name, right)) in enumerate(zip(panels, row, strict=True)):
            axes.imshow(image, cmap="gray_r" if image.shape[-1] == 1 else None)
            axes.set(xticks=[], yticks=[])
            mark = "" if place == 0 else "✓ " if right else "✗ "
            style = _RIGHT if right else _WRONG
            title = textwrap.fill(
                mark + name.replace("_", " "), _WORDS, max_lines=2, placeholder=" …"
            )
            color = "black" if place == 0 else style["color"]
            axes.set_title(title, fontsize=7, color=color, parse_math=False)  # a name may hold $
            for spine in axes.spines.values():
                spine.set(linewidth=0 if place == 0 else 2.5, **style)
    figure.suptitle("To the left queries, beside them the nearest of all other images", fontsize=8)
    with files.replacing(path) as partial:
        figure.savefig(partial, format="png", metadata={"Software": None})
