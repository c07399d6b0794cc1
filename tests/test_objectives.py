"""Which images make a batch, what they are trained to be, and what is said of seen classes."""

import math

import numpy as np
import pytest

from stages.command import UserError
from stages.objectives import classifier, siamese


def rng():
    return np.random.default_rng(1)


def test_a_pass_of_the_classifier_takes_each_image_once():
    batches = classifier.draw(rng(), classes=3, examples=7, batch=4, steps=None)
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 4, 1]
    assert sorted(np.concatenate(batches)) == list(range(21))


def test_the_classifier_takes_as_many_steps_as_asked():
    batches = classifier.draw(rng(), classes=3, examples=7, batch=4, steps=13)
    assert len(batches) == 13
    drawn = np.concatenate(batches)
    assert sorted(drawn[:21]) == list(range(21))


def test_mistakes_3_and_4_a_pair_is_two_images_and_a_batch_may_exceed_the_classes():
    batches = siamese.draw_random_pairs(rng(), classes=3, examples=5, batch=64, steps=10)
    assert [batch.shape for batch in batches] == [(64, 2)] * 10
    for batch in batches:
        same = siamese.of_one_class(batch // 5)
        assert same.sum() == 32
        assert (batch[:, 0] != batch[:, 1]).all()


def test_a_batch_of_all_pairs_holds_several_images_of_several_classes():
    batches = siamese.draw_classes(
        rng(), classes=6, examples=5, batch=12, steps=20, examples_per_class=3
    )
    assert len(batches) == 20
    for batch in batches:
        assert len(set(batch)) == 12
        classes, sizes = np.unique(batch // 5, return_counts=True)
        assert len(classes) == 4
        assert (sizes == 3).all()


@pytest.mark.parametrize("batch", [10, 21, 3 * 7])
def test_a_batch_that_cannot_be_made_is_refused(batch):
    with pytest.raises(UserError, match=r"training\.batch"):
        siamese.draw_classes(
            rng(), classes=6, examples=5, batch=batch, steps=1, examples_per_class=3
        )


LABELS = np.array([0, 0, 1, 1], np.float32)
LOGITS = np.log(
    np.array([[9, 3, 1, 1], [3, 9, 1, 1], [1, 1, 9, 3], [1, 1, 3, 9]], np.float32)
)  # each image is three times as like its own as the others


def test_softmax_of_all_pairs_by_hand():
    # of the three others, weighing 3, 1 and 1, the own class has 3/5
    loss = siamese.softmax_of_all_pairs(LABELS, LOGITS)
    assert float(loss) == pytest.approx(-math.log(3 / 5), abs=1e-6)


def test_binary_of_all_pairs_by_hand_weighs_both_kinds_equally():
    # p(same) is 3/4 for pairs of a class, 1/2 for the others, of which there are twice as many
    loss = siamese.binary_of_all_pairs(LABELS, LOGITS)
    assert float(loss) == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2, abs=1e-6)


def test_an_image_is_no_pair_with_itself():
    changed = LOGITS + 100 * np.eye(4, dtype=np.float32)
    for loss in (siamese.softmax_of_all_pairs, siamese.binary_of_all_pairs):
        assert float(loss(LABELS, changed)) == pytest.approx(float(loss(LABELS, LOGITS)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": "random"}, "examples_per_class"),
        ({"examples_per_class": 0}, "examples_per_class"),
        ({"pairs": "random", "examples_per_class": 0, "loss": "softmax"}, "softmax needs"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, message):
    import keras

    network = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    settings = {
        "pairs": "all",
        "examples_per_class": 2,
        "similarity": "learned",
        "loss": "binary",
        "temperature": 1.0,
    }
    with pytest.raises(UserError, match=message):
        siamese.build(network, 3, **settings | changed)


@pytest.mark.parametrize("pairs", ["random", "all"])
def test_the_head_is_what_the_model_computes(pairs):
    import keras

    network = keras.Sequential(
        [
            keras.Input((1, 1, 6), dtype="uint8"),
            keras.layers.Rescaling(0.01),
            keras.layers.Flatten(),
        ]
    )
    network = keras.Model(network.inputs[0], network.outputs[0])
    objective = siamese.build(
        network,
        3,
        pairs=pairs,
        examples_per_class=2 if pairs == "all" else 0,
        similarity="learned",
        loss="binary",
        temperature=1.0,
    )
    images = rng().integers(0, 256, (8, 1, 1, 6)).astype(np.uint8)
    codes = np.float32(images.reshape(8, 6)) * np.float32(0.01)
    weights, bias = objective.head()
    a, b = (codes[:4], codes[4:]) if pairs == "random" else (codes[:, None], codes[None])
    given = np.stack([images[:4], images[4:]], axis=1) if pairs == "random" else images
    np.testing.assert_allclose(
        objective.model.predict_on_batch(given), np.abs(a - b) @ weights + bias, atol=1e-5
    )
