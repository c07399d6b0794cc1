"""Objectives: what a network is trained for, and what its training says of seen classes.

One module each, with one function `build(network, classes, **settings)` that puts the objective
upon a network and returns an `Objective`. Keras is imported inside `build`, so that params.yaml
is checked without it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Objective:
    """A network made ready for training.

    Attributes:
        model: the uncompiled Keras model that is fitted and saved: network and head.
        loss: a Keras loss of (targets, outputs of `model`).
        metrics: Keras metrics of the same.
        draw: (rng, *, classes, examples, batch, steps) -> the batches of one epoch, each an
            int array of indices class * examples + example, of the shape that `model` takes;
            `steps` is None for one pass over the images.
        targets: int labels in the shape of a drawn batch -> targets of the loss.
        outputs: the Keras tensor, made from the network's input, by which seen classes are judged.
        judged_by: what it is: "classes", the logits of the seen classes, or "pairs", codes to be
            compared.
        head: () -> (w, b) of the learned distance, logit = w·|a-b| + b, or None without one.
    """

    model: Any
    loss: Any
    metrics: list
    draw: Callable[..., list[np.ndarray]]
    targets: Callable[[np.ndarray], np.ndarray]
    outputs: Any
    judged_by: Literal["classes", "pairs"]
    head: Callable[[], tuple[np.ndarray, float] | None]
