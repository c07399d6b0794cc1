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
    for name in "+".join(experiment.codes.layers).split("+"):
        if name not in layers:
            raise UserError(f"codes.layers: no layer {name!r}; there are: {', '.join(layers)}")
    chosen = experiment.objective
    return network, _module("objectives", chosen.name).build(network, classes, **chosen.settings)


def code_of(network: Any, name: str) -> Any:
    """Return the symbolic output of a hidden layer, or of several side by side.

    Side by side each is scaled to unit length, so that none counts for more because its values are
    large, and a feature map is the mean of each filter (global average pooling; Lin et al. 2014,
    "Network in network", section 3.2): what is in the image, not where.

    Args:
        network: a Keras network.
        name: a layer's name, or several joined by `+`, such as `L6+L7`.

    Returns:
        A Keras tensor: the one layer's, whatever its shape, or (batch, dim) of several.
    """
    from keras import layers

    outputs = [network.get_layer(each).output for each in name.split("+")]
    if len(outputs) == 1:
        return outputs[0]
    parts = [
        layers.GlobalAveragePooling2D()(each) if each.ndim == 4 else layers.Flatten()(each)
        for each in outputs
    ]
    return layers.Concatenate()([layers.UnitNormalization()(each) for each in parts])


def _module(room: str, name: str) -> Any:
    return importlib.import_module(f"stages.{room}.{name}")
