"""What encode says of seen classes; its codes are tested where the whole pipeline is."""

import types

import numpy as np
import pytest

from stages import encode, encoder
from stages.command import UserError


def test_the_threshold_of_pairs_is_chosen_on_training_pairs():
    centres = np.eye(4, dtype=np.float32).repeat(5, axis=0)
    labels = np.repeat(np.arange(4), 5)
    found = encode.verification_figures(
        {"train": centres, "test": -centres},  # the same angles within, so as easy as training
        {"train": labels, "test": labels},
        head=None,
        pairs=200,
        rng=np.random.default_rng(1),
    )
    assert found == {split: {"pair_accuracy": 1.0, "pair_auc": 1.0} for split in ("train", "test")}


def test_the_threshold_is_not_chosen_again_on_the_pairs_that_it_judges():
    codes = np.array([[0], [0.1], [1], [1.1]], np.float32)
    labels = np.array([0, 0, 1, 1])
    found = encode.verification_figures(
        {"train": codes, "test": 10 * codes},  # ordered as well, but all farther than the threshold
        {"train": labels, "test": labels},
        head=(np.array([-1], np.float32), 0.0),
        pairs=200,
        rng=np.random.default_rng(1),
    )
    assert found["train"] == {"pair_accuracy": 1.0, "pair_auc": 1.0}
    assert found["test"] == {"pair_accuracy": 0.5, "pair_auc": 1.0}


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_of_one_image_a_class_has_no_pairs_and_is_named(split):
    codes, labels = np.eye(4, dtype=np.float32), np.array([0, 0, 1, 1])
    outputs, classes = {"train": codes, "test": codes}, {"train": labels, "test": labels}
    outputs[split], classes[split] = codes[:2], np.array([0, 1])
    message = rf"^no pairs of seen_{split}'s images: .*Received: examples=1$"
    with pytest.raises(UserError, match=message):
        encode.verification_figures(
            outputs, classes, head=None, pairs=20, rng=np.random.default_rng(1)
        )


def test_a_learned_distance_compares_the_codes_as_they_are():
    codes = np.array([[0, 0], [0, 1], [5, 0], [5, 1]], np.float32)  # classes by the first value
    labels = np.array([0, 0, 1, 1])
    for weights, accuracy in (((-1, 0), 1.0), ((0, -1), 0.5)):
        found = encode.verification_figures(
            {"train": codes},
            {"train": labels},
            head=(np.array(weights, np.float32), 2.5),
            pairs=400,
            rng=np.random.default_rng(1),
        )
        assert abs(found["train"]["pair_accuracy"] - accuracy) < 0.1


def test_images_as_a_layer_are_averaged_with_their_mirror_images(monkeypatch):
    """As numbers: two bytes added would begin at 0 again."""
    images = np.array([[[[200], [100]]]], np.uint8)
    model = types.SimpleNamespace(predict_on_batch=lambda given: {"images": given})
    monkeypatch.setattr(encoder, "_with_weights", lambda _: types.SimpleNamespace(codes=model))
    asked = types.SimpleNamespace(codes=types.SimpleNamespace(mirrored=True))
    given = types.SimpleNamespace(architecture=types.SimpleNamespace(experiment=asked))
    np.testing.assert_array_equal(encoder.codes_of(given, images)["images"], [[150, 150]])
