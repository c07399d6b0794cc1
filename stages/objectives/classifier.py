"""Classification of the seen classes by softmax and cross-entropy."""

import numpy as np

from stages.objectives import Objective
from stages.params import Positive


def build(network, classes: int, *, temperature: Positive) -> Objective:
    """Put a linear layer upon the network and train it by cross-entropy.

    Upon each member, where the network is an ensemble: the loss is the sum of the members' own, so
    that each is trained as if it were alone, and the class is told by the mean of their logits.

    Args:
        network: Keras model from images to (n, dim), or to (n, members, dim).
        classes: number of seen classes.
        temperature: the layer's outputs are divided by it before the softmax. Codes of large
            values need one, or the first losses are large and throw the training off its course.
    """
    import keras
    from keras import layers, ops

    codes = network.output
    if codes.ndim == 2:
        logits = layers.Dense(classes, name="logits", dtype="float32")(codes) / temperature
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        outputs, targets = logits, np.asarray
    else:
        members = codes.shape[1]
        shape = (members, classes)
        head = layers.EinsumDense(
            "nmd,mdc->nmc", shape, bias_axes="mc", name="logits", dtype="float32"
        )
        logits = head(codes) / temperature
        outputs = ops.mean(logits, axis=1)

        def loss(labels, logits):
            return ops.sum(
                ops.sparse_categorical_crossentropy(labels, logits, from_logits=True), axis=1
            )

        def targets(labels):
            return np.repeat(labels[:, None], members, axis=1)

    return Objective(
        model=keras.Model(network.input, logits),
        loss=loss,
        metrics=["accuracy"],
        draw=draw,
        targets=targets,
        outputs=outputs,
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
