"""Classification: how often an image's class is the one, or among the five, of highest logit."""

import numpy as np


def classification_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracy, top-5 accuracy and cross-entropy.

    A class tied with the right one counts as ranked before it, so that a network whose outputs
    are all alike scores 0.

    Args:
        logits: (n, classes), natural logarithms of unnormalised probabilities.
        labels: (n,), int, the class of each image.

    Returns:
        `accuracy` and `top5_accuracy`, from 0 to 1, and `cross_entropy`, in nats.

    Raises:
        ValueError: when shapes do not fit.
    """
    if logits.ndim != 2 or labels.shape != (len(logits),):
        raise ValueError(
            "logits must be (n, classes) with labels (n,). "
            f"Received: logits.shape={logits.shape}, labels.shape={labels.shape}"
        )
    logits = logits.astype(np.float64)
    right = logits[np.arange(len(labels)), labels][:, None]
    top = logits.max(axis=1, keepdims=True)
    normaliser = top + np.log(np.exp(logits - top).sum(axis=1, keepdims=True))
    rank = (logits >= right).sum(axis=1)
    return {
        "accuracy": float((rank == 1).mean()),
        "top5_accuracy": float((rank <= 5).mean()),
        "cross_entropy": float((normaliser - right).mean()),
    }
