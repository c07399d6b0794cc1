"""An experiment's network and the objective upon it, as `train` and `encode` both need them."""

import importlib
from typing import Any

from stages import params
from stages.command import UserError
from stages.objectives import Objective


def assemble(
    experiment: params.Experiment, shape: tuple[int, int, int], classes: int
) -> tuple[Any, Objective]:
    """Return the untrained Keras network of an experiment, and the objective upon it.

    Args:
        experiment: the experiment's section of params.yaml.
        shape: (height, width, channels) of the uint8 images.
        classes: number of classes that are trained on.

    Raises:
        UserError: for settings that do not go together, and for layers that are not there.
    """
    chosen = experiment.network
    try:
        network = _module("networks", chosen.name).build(tuple(shape), **chosen.settings)
    except ValueError as error:
        raise UserError(f"network {chosen.name} on {tuple(shape)} images: {error}") from None
    layers = [layer.name for layer in network.layers]
    for name in experiment.codes.layers:
        if name not in layers:
            raise UserError(f"codes.layers: no layer {name!r}; there are: {', '.join(layers)}")
    chosen = experiment.objective
    return network, _module("objectives", chosen.name).build(network, classes, **chosen.settings)


def _module(room: str, name: str) -> Any:
    return importlib.import_module(f"stages.{room}.{name}")
