"""Classification figures, beside scikit-learn's."""

import numpy as np
import pytest
import sklearn.metrics

from stages.measures.classification import classification_scores

LABELS = np.repeat(np.arange(8), 10)


def test_they_agree_with_scikit_learn():
    logits = np.random.default_rng(1).normal(size=(80, 8)).astype(np.float32)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert classification_scores(logits, LABELS) == pytest.approx(
        {
            "accuracy": sklearn.metrics.accuracy_score(LABELS, logits.argmax(axis=1)),
            "top5_accuracy": sklearn.metrics.top_k_accuracy_score(LABELS, logits, k=5),
            "cross_entropy": sklearn.metrics.log_loss(LABELS, probabilities),
        },
        rel=1e-5,
    )


def test_mistake_1_a_dead_classifier_scores_nothing():
    found = classification_scores(np.zeros((80, 8), np.float32), LABELS)
    assert found == pytest.approx({"accuracy": 0, "top5_accuracy": 0, "cross_entropy": np.log(8)})


def test_large_logits_do_not_overflow():
    logits = np.full((80, 8), -1e4, np.float32)
    logits[np.arange(80), LABELS] = 1e4
    found = classification_scores(logits, LABELS)
    assert found == {"accuracy": 1, "top5_accuracy": 1, "cross_entropy": 0}


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="Received: logits"):
        classification_scores(np.zeros((80, 8)), LABELS[:-1])
