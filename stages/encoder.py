"""What turns images into codes: a network with its weights, in this process or in any other."""

import dataclasses
import threading
from typing import NamedTuple

import numpy as np

from stages import backend, params
from stages.assembly import assemble, code_of
from stages.backend import keras
from stages.objectives import Objective


@dataclasses.dataclass(frozen=True)
class Architecture:
    """All that a network is built from.

    Attributes:
        experiment: the experiment's section of params.yaml.
        seed: that of params.yaml, by which weights are drawn before a training.
        shape: (height, width, channels) of the uint8 images.
        classes: number of classes that are trained on.
    """

    experiment: params.Experiment
    seed: int
    shape: tuple[int, int, int]
    classes: int

    def key(self) -> tuple:
        """Return what tells one network from another."""
        chosen = self.experiment
        layers = tuple(chosen.codes.layers)
        named = repr(chosen.network), repr(chosen.objective)
        return *named, layers, self.seed, tuple(self.shape), self.classes


class Encoder(NamedTuple):
    """All that a process needs to compute the outputs of a network.

    Attributes:
        architecture: what the network is built from.
        weights: those of the objective's model, in Keras' order.
    """

    architecture: Architecture
    weights: list[np.ndarray]


@dataclasses.dataclass
class _Network:
    """A network that this process has built."""

    key: tuple
    objective: Objective
    codes: keras.Model
    judged: keras.Model
    weights: list[np.ndarray] | None = None  # that were set last


_built: list[_Network] = []  # the last one: a worker outlives the stages that it works for
_lock = threading.RLock()  # a worker may have several threads


def objective_of(architecture: Architecture) -> Objective:
    """Return the objective upon a network, with the weights from which it is trained.

    Raises:
        UserError: for settings that do not go together, and for layers that are not there.
    """
    with _lock:
        _built.clear()
        return _network(architecture).objective


def codes_of(encoder: Encoder, images: np.ndarray) -> dict[str, np.ndarray]:
    """Return the codes of a batch of images.

    Args:
        encoder: of which the chosen layers' outputs are the codes; where it has
            `codes.mirrored`, the mean of an image's outputs and of those of its mirror image.
        images: uint8 (batch, height, width, channels).

    Returns:
        float32 (batch, dim) by the name of the layer; feature maps are flattened.
    """
    with _lock:
        predict = _with_weights(encoder).codes.predict_on_batch
        outputs = predict(images)
        if encoder.architecture.experiment.codes.mirrored:
            others = predict(images[:, :, ::-1])
            # Halved first: the images themselves, of bytes, may be a layer.
            outputs = {name: outputs[name] / 2 + others[name] / 2 for name in outputs}
    return {name: np.float32(each).reshape(len(each), -1) for name, each in outputs.items()}


def judged_of(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    """Return what seen classes are judged by, of a batch of images.

    Args:
        encoder: of whose objective it is the outputs.
        images: uint8 (batch, height, width, channels).

    Returns:
        float32 (batch, dim).
    """
    with _lock:
        outputs = _with_weights(encoder).judged.predict_on_batch(images)
    return np.float32(outputs).reshape(len(outputs), -1)


def _network(architecture: Architecture) -> _Network:
    key = architecture.key()
    if not _built or _built[0].key != key:
        _built.clear()
        chosen = architecture.experiment
        backend.set_up(architecture.seed)
        network, objective = assemble(chosen, architecture.shape, architecture.classes)
        outputs = {layer: code_of(network, layer) for layer in chosen.codes.layers}
        codes = keras.Model(network.input, outputs)
        judged = keras.Model(network.input, objective.outputs)
        _built.append(_Network(key, objective, codes, judged))
    return _built[0]


def _with_weights(encoder: Encoder) -> _Network:
    """Return the network of an encoder, which is built and given its weights where it was not."""
    network = _network(encoder.architecture)
    if network.weights is not encoder.weights:  # a worker gets an encoder once, for many batches
        network.objective.model.set_weights(encoder.weights)
        network.weights = encoder.weights
    return network
