"""Classification of the seen classes by softmax and cross-entropy."""

import numpy as np

from stages.objectives import Objective


def build(network, classes: int) -> Objective:
    """Put one linear layer upon the network and train it by cross-entropy.

    Args:
        network: Keras model from images to (n, dim).
        classes: number of seen classes.
    """
    import keras

    logits = keras.layers.Dense(classes, name="logits")(network.output)
    return Objective(
        model=keras.Model(network.input, logits),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        draw=draw,
        targets=lambda labels: labels,
        outputs=logits,
        seen_figures=seen_figures,
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


def seen_figures(
    outputs: dict[str, np.ndarray],
    rng: np.random.Generator,
    *,
    examples: dict[str, int],
    pairs: int,
) -> dict[str, dict[str, float]]:
    """Return cross-entropy (nats), accuracy and top-5 accuracy of each seen split.

    A class tied with the right one counts as ranked before it, so that a network whose outputs
    are all alike scores 0.
    """
    figures = {}
    for split, logits in outputs.items():
        labels = np.arange(len(logits)) // examples[split]
        logits = logits.astype(np.float64)
        right = logits[np.arange(len(labels)), labels][:, None]
        top = logits.max(axis=1, keepdims=True)
        normaliser = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
        rank = (logits >= right).sum(axis=1)
        figures[split] = {
            "accuracy": float((rank == 1).mean()),
            "top5_accuracy": float((rank <= 5).mean()),
            "cross_entropy": float((normaliser - right).mean()),
        }
    return figures
