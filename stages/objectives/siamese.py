"""Siamese training: are two images of one class or not (Koch et al. 2015)."""

import functools
from typing import Literal

import numpy as np

from stages.command import UserError
from stages.measures.pairs import draw_pairs
from stages.objectives import Objective
from stages.params import Positive, Whole


def build(
    network,
    classes: int,
    *,
    pairs: Literal["random", "all"],
    examples_per_class: Whole,
    similarity: Literal["learned", "cosine"],
    loss: Literal["binary", "softmax"],
    temperature: Positive,
) -> Objective:
    """Compare the codes of two images that pass through the same network.

    Args:
        network: Keras model from images to codes (n, dim).
        classes: number of seen classes.
        pairs: `random`: a batch holds that many pairs drawn at random, half of one class.
            `all`: a batch holds images, and every two of them are a pair.
        examples_per_class: images of each class in a batch of all pairs; 0 with random pairs.
        similarity: `learned`: w·|a-b| + b with w and b trained (Koch et al. 2015, section 3.1).
            `cosine`: the cosine of the angle between the codes.
        loss: `binary`: cross-entropy of same class or not, both kinds weighed equally.
            `softmax`: of all pairs with one image, those of its class are to have the highest
            similarity (Khosla et al. 2020, equation 2); it needs all pairs.
        temperature: the similarity is divided by it before the loss.

    Raises:
        UserError: for settings that do not go together.
    """
    import keras
    from keras import ops

    if (pairs == "all") != (examples_per_class >= 2):
        raise UserError(
            "objective.examples_per_class: expected 2 or more with pairs: all, 0 with random"
        )
    if loss == "softmax" and pairs == "random":
        raise UserError("objective.loss: softmax needs pairs: all")
    if network.output.ndim != 2:
        raise UserError("network.members: the siamese objective compares one code; expected 1")
    distance = keras.layers.Dense(1, name="distance", dtype="float32")

    def learned(differences):
        return ops.squeeze(distance(ops.abs(differences)), -1)

    def cosine(compared, a, b):
        return ops.einsum(compared, ops.normalize(a), ops.normalize(b))

    if pairs == "random":
        images = keras.Input((2, *network.input.shape[1:]), dtype="uint8", name="pairs")
        a, b = (ops.cast(network(images[:, side]), "float32") for side in (0, 1))
        alike = learned(a - b) if similarity == "learned" else cosine("nd,nd->n", a, b)
        model = keras.Model(images, alike / temperature)
        trained_by = keras.losses.BinaryCrossentropy(from_logits=True)
        draw, targets = draw_random_pairs, of_one_class
    else:
        codes = ops.cast(network.output, "float32")
        if similarity == "learned":
            alike = learned(codes[:, None] - codes[None, :])
        else:
            alike = cosine("nd,md->nm", codes, codes)
        model = keras.Model(network.input, alike / temperature)
        trained_by = binary_of_all_pairs if loss == "binary" else softmax_of_all_pairs
        draw = functools.partial(draw_classes, examples_per_class=examples_per_class)
        targets = np.asarray

    def head():
        if similarity == "cosine":
            return None
        weights, bias = distance.get_weights()
        return weights[:, 0], float(bias[0])

    return Objective(
        model=model,
        loss=trained_by,
        metrics=[],
        draw=draw,
        targets=targets,
        outputs=network.output,
        judged_by="pairs",
        head=head,
    )


def draw_random_pairs(
    rng: np.random.Generator, *, classes: int, examples: int, batch: int, steps: int | None
) -> list[np.ndarray]:
    """Return an epoch's batches of pairs, (batch, 2) each, half of them of one class.

    Raises:
        UserError: when the batch cannot be halved, or there are not two classes of two examples.
    """
    if batch % 2 or classes < 2 or examples < 2:
        raise UserError(
            f"training.batch: expected an even number of pairs, of at least 2 classes of at least "
            f"2 images, got {batch} of {classes} classes of {examples}"
        )
    steps = steps or max(1, classes * examples // (2 * batch))
    count = steps * (batch // 2)
    drawn = draw_pairs(rng, classes=classes, examples=examples, count=2 * count)
    halves = drawn.reshape(2, steps, batch // 2, 2)
    return list(np.concatenate(halves, axis=1))


def of_one_class(labels: np.ndarray) -> np.ndarray:
    """Return float32 (pairs,): 1 where the two labels of a pair are the same, else 0."""
    return (labels[:, 0] == labels[:, 1]).astype(np.float32)


def draw_classes(
    rng: np.random.Generator,
    *,
    classes: int,
    examples: int,
    batch: int,
    steps: int | None,
    examples_per_class: int,
) -> list[np.ndarray]:
    """Return an epoch's batches, each of several images of each of several classes.

    Raises:
        UserError: when the batch is no multiple of `examples_per_class`, or asks for one class
            alone, or for more classes or examples than there are.
    """
    ways = batch // examples_per_class
    if batch % examples_per_class or not 2 <= ways <= classes or examples_per_class > examples:
        raise UserError(
            f"training.batch: expected a multiple of {examples_per_class} images a class, for 2 to "
            f"{classes} classes of {examples}, got {batch}"
        )
    steps = steps or max(1, classes * examples // batch)
    drawn_classes = rng.random((steps, classes)).argsort(axis=1)[:, :ways, None]
    order = rng.random((steps, ways, examples)).argpartition(examples_per_class - 1, axis=2)
    return list((drawn_classes * examples + order[..., :examples_per_class]).reshape(steps, -1))


def binary_of_all_pairs(labels, logits):
    """Return the cross-entropy of same class or not, both kinds of pair weighed equally.

    Args:
        labels: (n,) classes of a batch.
        logits: (n, n) similarity of every two images; an image with itself is left out.
    """
    from keras import ops

    same, other = _pairs(labels, logits)
    attracted = ops.sum(same * ops.softplus(-logits)) / ops.sum(same)
    repelled = ops.sum(other * ops.softplus(logits)) / ops.sum(other)
    return (attracted + repelled) / 2


def softmax_of_all_pairs(labels, logits):
    """Return minus the log-probability of each image's own class among all its pairs.

    Supervised contrastive loss (Khosla et al. 2020, equation 2, L_out).

    Args:
        labels: (n,) classes of a batch.
        logits: (n, n) similarity of every two images; an image with itself is left out.
    """
    from keras import ops

    same, other = _pairs(labels, logits)
    apart = logits - 1e9 * (1 - same - other)
    probable = logits - ops.logsumexp(apart, axis=1, keepdims=True)
    return -ops.mean(ops.sum(same * probable, axis=1) / ops.sum(same, axis=1))


def _pairs(labels, logits):
    """Return (n, n) masks of the pairs of one class and of two; the diagonal is in neither."""
    from keras import ops

    labels = ops.reshape(labels, (-1, 1))
    alike = ops.cast(ops.equal(labels, ops.transpose(labels)), logits.dtype)
    return alike - ops.eye(ops.shape(logits)[0], dtype=logits.dtype), 1 - alike
