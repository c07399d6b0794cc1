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


def test_every_class_and_every_image_of_it_is_as_likely_in_a_batch_of_all_pairs():
    drawn = siamese.draw_classes(
        rng(), classes=5, examples=4, batch=4, steps=2000, examples_per_class=2
    )
    np.testing.assert_allclose(
        np.bincount(np.concatenate(drawn), minlength=20), 400, atol=5 * 400**0.5
    )
    together = np.zeros((5, 5))
    for batch in drawn:
        together[np.ix_(np.unique(batch // 4), np.unique(batch // 4))] += 1
    np.testing.assert_allclose(np.diag(together), 800, atol=5 * 800**0.5)
    np.testing.assert_allclose(together[~np.eye(5, dtype=bool)], 200, atol=5 * 200**0.5)


@pytest.mark.parametrize(
    ("batch", "examples_per_class"),
    [(10, 3), (21, 3), (12, 6), (3, 3)],
    ids=["no multiple", "seven classes of six", "six images of five", "one class"],
)
def test_a_batch_that_cannot_be_made_is_refused(batch, examples_per_class):
    with pytest.raises(UserError, match=rf"training\.batch: .* got {batch}$"):
        siamese.draw_classes(
            rng(), classes=6, examples=5, batch=batch, steps=1,
            examples_per_class=examples_per_class,
        )  # fmt: skip


@pytest.mark.parametrize("changed", [{"batch": 7}, {"classes": 1}, {"examples": 1}])
def test_random_pairs_that_cannot_be_drawn_are_refused(changed):
    chosen = {"classes": 2, "examples": 2, "batch": 6, "steps": 1}
    assert len(siamese.draw_random_pairs(rng(), **chosen)) == 1
    with pytest.raises(UserError, match=r"training\.batch: expected an even number of pairs"):
        siamese.draw_random_pairs(rng(), **chosen | changed)


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


def pixels_as_codes(dim):
    """Return a network whose codes are a hundredth of the pixels that it is given."""
    import keras

    network = keras.Sequential(
        [
            keras.Input((1, 1, dim), dtype="uint8"),
            keras.layers.Rescaling(0.01),
            keras.layers.Flatten(),
        ]
    )
    return keras.Model(network.inputs[0], network.outputs[0])


def siamese_of(dim, *, pairs="all", **changed):
    settings = {
        "pairs": pairs,
        "examples_per_class": 2 if pairs == "all" else 0,
        "similarity": "learned",
        "loss": "binary",
        "temperature": 1.0,
    }
    return siamese.build(pixels_as_codes(dim), 3, **settings | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pairs": "random", "examples_per_class": 2}, "examples_per_class"),
        ({"examples_per_class": 0}, "examples_per_class"),
        ({"examples_per_class": 1}, "examples_per_class"),
        ({"pairs": "random", "loss": "softmax"}, "softmax needs"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changed, message):
    with pytest.raises(UserError, match=message):
        siamese_of(4, **changed)


def test_codes_of_several_members_are_not_compared():
    import keras

    images = keras.Input((6,))
    ensemble = keras.Model(images, keras.layers.Reshape((2, 3))(images))
    settings = {"pairs": "all", "examples_per_class": 2, "similarity": "cosine"}
    with pytest.raises(UserError, match=r"network\.members: .* expected 1"):
        siamese.build(ensemble, 3, **settings, loss="softmax", temperature=1.0)


def test_a_loss_of_all_pairs_is_the_one_that_is_named():
    assert siamese_of(4, loss="binary").loss is siamese.binary_of_all_pairs
    assert siamese_of(4, loss="softmax").loss is siamese.softmax_of_all_pairs


def test_the_losses_of_random_pairs_and_of_classes_by_hand_take_logits():
    loss = siamese_of(4, pairs="random").loss(np.float32([1, 0]), np.log(np.float32([3, 1])))
    assert float(loss) == pytest.approx((-math.log(3 / 4) - math.log(1 / 2)) / 2, abs=1e-6)
    logits = np.log(np.float32([[2, 1, 1], [2, 1, 1]]))
    loss = classifier.build(pixels_as_codes(4), 3, temperature=1.0).loss(np.array([0, 2]), logits)
    assert float(loss) == pytest.approx((-math.log(2 / 4) - math.log(1 / 4)) / 2, abs=1e-6)


def shown(objective, images):
    """Return what a model computes of images, of which those of two halves are random pairs."""
    if objective.draw is siamese.draw_random_pairs:
        images = np.stack(np.split(images, 2), axis=1)
    return objective.model.predict_on_batch(images)


@pytest.mark.parametrize("pairs", ["random", "all"])
def test_the_model_computes_its_head_divided_by_the_temperature(pairs):
    objective = siamese_of(6, pairs=pairs, temperature=2.0)
    objective.model.set_weights([rng().normal(size=(6, 1)), np.array([0.7])])
    weights, bias = objective.head()
    assert bias == pytest.approx(0.7)
    images = rng().integers(0, 256, (8, 1, 1, 6)).astype(np.uint8)
    codes = np.float32(images.reshape(8, 6)) * np.float32(0.01)
    a, b = (codes[:4], codes[4:]) if pairs == "random" else (codes[:, None], codes[None])
    expected = (np.abs(a - b) @ weights + bias) / 2
    np.testing.assert_allclose(shown(objective, images), expected, atol=1e-5)


@pytest.mark.parametrize("pairs", ["random", "all"])
def test_the_cosine_by_hand_is_divided_by_the_temperature_and_has_no_head(pairs):
    objective = siamese_of(2, pairs=pairs, similarity="cosine", temperature=2.0)
    images = np.array([[3, 4], [0, 200], [40, 30], [0, 1]], np.uint8).reshape(4, 1, 1, 2)
    cosines = np.array([[25, 20, 24, 20], [20, 25, 15, 25], [24, 15, 25, 15], [20, 25, 15, 25]])
    if pairs == "random":  # the first with the third, the second with the fourth
        cosines = cosines[[0, 1], [2, 3]]
    np.testing.assert_allclose(shown(objective, images), cosines / 25 / 2, atol=1e-6)
    assert objective.head() is None


def test_the_classifier_divides_what_its_layer_says_by_the_temperature():
    objective = classifier.build(pixels_as_codes(6), 3, temperature=2.0)
    weights, bias = rng().normal(size=(6, 3)), np.array([0.7, -0.2, 0.1])
    objective.model.set_weights([weights, bias])
    images = rng().integers(0, 256, (8, 1, 1, 6)).astype(np.uint8)
    expected = (images.reshape(8, 6) * 0.01 @ weights + bias) / 2
    np.testing.assert_allclose(objective.model.predict_on_batch(images), expected, atol=1e-5)
