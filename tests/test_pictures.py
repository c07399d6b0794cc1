"""Pictures of what was retrieved."""

import numpy as np
import PIL.Image

from stages import pictures


def test_a_name_of_a_class_may_hold_what_matplotlib_takes_for_mathematics(tmp_path):
    grid = pictures.Grid(
        layer="codes",
        found=np.array([[0, 1]]),
        labels=np.array([0, 1]),
        names=[r"a $\foo$ b", "$ $"],
        images=np.zeros((2, 6, 6, 3), np.uint8),
    )
    pictures.write(tmp_path / "codes.png", grid)
    with PIL.Image.open(tmp_path / "codes.png") as image:
        assert image.format == "PNG"
