"""Classification of the seen classes by softmax and cross-entropy."""

import numpy as np

from stages.objectives import Objective
from stages.params import Positive


def build(network, classes: int, *, temperature: Positive) -> Objective:
    """Put one linear layer upon the network and train it by cross-entropy.

    Args:
        network: Keras model from images to (n, dim).
        classes: number of seen classes.
        temperature: the layer's outputs are divided by it before the softmax. Codes of large
            values need one, or the first losses are large and throw the training off its course.
    """
    import keras

    logits = (
        keras.layers.Dense(classes, name="logits", dtype="float32")(network.output) / temperature
    )
    return Objective(
        model=keras.Model(network.input, logits),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        draw=draw,
        targets=lambda labels: labels,
        outputs=logits,
        judged_by="classes",
        head=lambda: None,
    )


def draw(
    rng: np.random.Generator, *, classes: int, examples: int, batch: int, steps: int | None
) -> list[np.ndarray]:
    """Return an epoch's batches: images in a new order, each once in a pass."""
    images = classes * examples
    passes = 1 if steps is None else -(-steps * batch // images)
    order = np.concatenate([rng.permutation(images) for _ in range(passes)])
    return np.split(order, range(batch, len(order), batch))[:steps]
