"""The reference networks are those of the assignments, to the parameter."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow

import stages.networks
from stages import params
from stages.assembly import assemble, code_of
from stages.backend import FusedBatchNormalization, keras
from stages.command import UserError
from stages.objectives import classifier

PARAMS = params.load(Path(__file__).parent.parent / "params.yaml")


@pytest.mark.parametrize(
    ("name", "side", "classes", "in_the_network", "in_all"),
    [
        ("cifar100-siamese", 32, 80, 1_219_840, 1_220_865),
        ("cifar100-classifier", 32, 80, 2_906_944, 2_947_984),
        ("tinyimagenet-compact", 64, 190, 4_149_696, 4_344_636),
    ],
)
def test_networks_have_the_published_number_of_parameters(
    name, side, classes, in_the_network, in_all
):
    network, objective = assemble(PARAMS.experiments[name], (side, side, 3), classes)
    assert network.count_params() == in_the_network
    assert objective.model.count_params() == in_all


@pytest.mark.parametrize("name", PARAMS.experiments)
def test_every_experiment_builds_with_the_layers_it_names(name):
    experiment = PARAMS.experiments[name]
    image = PARAMS.datasets[experiment.dataset].image
    network, objective = assemble(experiment, (image.size, image.size, image.channels), 10)
    for layer in experiment.codes.layers:
        assert len(code_of(network, layer).shape) == 2
    assert not objective.model.compiled


def test_the_alexnet_has_the_published_number_of_parameters():
    chosen = {"name": "alexnet", "scale": 1 / 255, "offset": 0.0, "units": 2048, "dropout": 0.5}
    experiment = PARAMS.experiments["tinyimagenet-compact"].model_dump()
    experiment["codes"] |= {"layers": ["L5", "L6", "L7"]}
    experiment = params.Experiment.model_validate(experiment | {"network": chosen})
    _, objective = assemble(experiment, (64, 64, 3), 190)
    assert objective.model.count_params() == 40_516_382


def test_codes_of_the_alexnet_before_relu_are_those_after_it_and_more():
    build = importlib.import_module("stages.networks.alexnet").build
    network = build((64, 64, 3), scale=1 / 255, offset=0.0, units=64, dropout=0.5)
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    names = ("L5", "L6", "L7")
    layers = [name + state for name in names for state in ("", "_before_relu")]
    found = keras.Model(network.input, {each: network.get_layer(each).output for each in layers})
    codes = {name: np.asarray(each) for name, each in found(images).items()}
    assert [codes[name].shape[1] for name in names] == [16_384, 64, 64]
    for name in names:
        before = codes[f"{name}_before_relu"]
        assert (before < 0).any()
        np.testing.assert_array_equal(codes[name], np.maximum(before, 0))


def test_codes_of_the_resnet_are_the_largest_of_each_filter_or_all_values():
    build = importlib.import_module("stages.networks.resnet9").build
    chosen = {"scale": 1 / 255, "offset": 0.0, "stem": 2, "stride": 1, "filters": [3, 5]}
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    networks = {
        pool: build(
            (12, 12, 3), **chosen, momentum=0.9, fused=False, pool=pool, dense=None, members=1
        )
        for pool in ("max", "none")
    }
    networks["max"].set_weights(networks["none"].get_weights())
    codes = {pool: np.asarray(network(images)) for pool, network in networks.items()}
    assert codes["none"].shape == (2, 3 * 3 * 5)  # 12 pixels halved twice leave 3
    largest = codes["none"].reshape(2, 9, 5).max(axis=1)
    np.testing.assert_allclose(codes["max"], largest, rtol=1e-6)


def test_codes_of_the_resnet_with_a_dense_layer_are_its_values():
    build = importlib.import_module("stages.networks.resnet9").build
    chosen = {"scale": 1 / 255, "offset": 0.0, "stem": 2, "stride": 1, "filters": [3, 5]}
    network = build(
        (12, 12, 3), **chosen, momentum=0.9, fused=False, pool="max", dense=7, members=1
    )
    images = np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), dtype=np.uint8)
    pooled = np.asarray(keras.Model(network.input, network.get_layer("pooled").output)(images))
    assert pooled.shape == (2, 5) and (pooled >= 0).all() and pooled.any(axis=1).all()
    assert network.layers[-3].kernel.shape == (5, 7)
    kernel = np.outer(np.arange(1, 6), np.arange(-3, 4))  # so four units are 0, three are not
    network.layers[-3].set_weights([kernel])
    expected = np.maximum(pooled @ kernel / np.sqrt(1 + 1e-3), 0)  # new statistics: 0 and 1
    assert ((expected > 0) == [0, 0, 0, 0, 1, 1, 1]).all()
    np.testing.assert_allclose(np.asarray(network(images)), expected, rtol=1e-5)


def test_layers_side_by_side_are_each_of_unit_length_and_a_feature_map_is_its_filters_means():
    build = importlib.import_module("stages.networks.resnet9").build
    chosen = {"scale": 1 / 255, "offset": 0.0, "stem": 2, "stride": 1, "filters": [3, 5]}
    network = build(
        (12, 12, 3), **chosen, momentum=0.9, fused=False, pool="max", dense=7, members=1
    )
    images = np.random.default_rng(1).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    names = ("add", "neural_codes", "add+neural_codes")
    found = keras.Model(network.input, {each: code_of(network, each) for each in names})(images)
    feature_map, dense, joined = (np.asarray(found[each]) for each in names)
    assert feature_map.shape == (4, 6, 6, 3) and dense.shape == (4, 7)
    parts = feature_map.mean((1, 2)), dense
    expected = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in parts]
    np.testing.assert_allclose(joined, np.hstack(expected), rtol=1e-5)


def test_layers_side_by_side_may_be_of_any_shape():
    build = importlib.import_module("stages.networks.resnet9").build
    chosen = {"scale": 1 / 255, "offset": 0.0, "stem": 2, "stride": 1, "filters": [3, 5]}
    network = build(
        (12, 12, 3), **chosen, momentum=0.9, fused=False, pool="max", dense=None, members=2
    )
    images = np.random.default_rng(1).integers(0, 256, (4, 12, 12, 3), dtype=np.uint8)
    of_members = network.layers[-1].name  # (batch, members, dim), as the objective takes it
    code = np.asarray(
        keras.Model(network.input, code_of(network, f"{of_members}+add_of_member_2"))(images)
    )
    assert network.get_layer(of_members).output.shape == (None, 2, 5)
    assert code.shape == (4, 2 * 5 + 3)
    np.testing.assert_allclose(np.linalg.norm(code[:, :10], axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("dense", [None, 7])
def test_an_ensemble_is_trained_as_its_members_are_alone(dense):
    build = importlib.import_module("stages.networks.resnet9").build
    chosen = {"scale": 1 / 255, "offset": 0.0, "stem": 2, "stride": 1, "filters": [3, 5]}
    chosen |= {"momentum": 0.9, "fused": False, "pool": "max", "dense": dense}
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (6, 12, 12, 3), dtype=np.uint8)
    labels = rng.integers(0, 4, 6)

    def trained(objective):
        objective.model.compile(keras.optimizers.SGD(0.1, momentum=0.9), objective.loss)
        for _ in range(3):
            loss = objective.model.train_on_batch(images, objective.targets(labels))
        return float(loss)

    alone = [build((12, 12, 3), **chosen, members=1) for _ in range(2)]
    ensemble = build((12, 12, 3), **chosen, members=2)
    objectives = [classifier.build(each, 4, temperature=2.5) for each in (*alone, ensemble)]
    members = [
        keras.Model(ensemble.input, ensemble.get_layer(f"neural_codes_of_member_{number}").output)
        for number in (1, 2)
    ]
    heads = [objective.model.get_layer("logits") for objective in objectives]
    for member, network in zip(members, alone, strict=True):
        member.set_weights(network.get_weights())
    kept = zip(*(head.get_weights() for head in heads[:2]), strict=True)
    heads[2].set_weights([np.stack(each) for each in kept])
    *losses, together = map(trained, objectives)
    assert together == pytest.approx(sum(losses), rel=1e-5)
    codes = [np.asarray(network(images)) for network in alone]
    joined = keras.Model(ensemble.input, ensemble.get_layer("neural_codes").output)(images)
    np.testing.assert_allclose(joined, np.hstack(codes), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ensemble(images), np.stack(codes, axis=1), rtol=1e-3, atol=1e-4)
    judged = [keras.Model(each.model.input, each.outputs)(images) for each in objectives]
    np.testing.assert_allclose(judged[2], (judged[0] + judged[1]) / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_fused_batch_normalisation_is_that_of_keras(precision):
    rng = np.random.default_rng(2)
    images, outer = rng.normal(3, 2, (2, 4, 5, 6, 3)).astype("float32")
    found = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.7, dtype=precision)
        layer.build(images.shape)
        layer.set_weights(
            [np.float32(each) for each in ([1, 2, -3], [4, 0, 5], [2, 3, 4], [1, 4, 9])]
        )
        with tensorflow.GradientTape() as tape:
            inputs = tensorflow.constant(images)
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            score = tensorflow.reduce_sum(tensorflow.cast(outputs, "float32") * outer)
        gradients = tape.gradient(score, [inputs, *layer.trainable_variables])
        assert outputs.dtype == layer.compute_dtype
        later = layer(images, training=False)  # by the moving statistics, 3 parts in 10 of them new
        found.append([np.float32(each) for each in (outputs, *gradients, *layer.weights, later)])
    moving = 0.7 * np.float32([2, 3, 4]) + 0.3 * images.mean((0, 1, 2))
    tolerance = 1e-2 if "16" in precision else 1e-6
    np.testing.assert_allclose(np.asarray(layer.moving_mean), moving, rtol=tolerance)
    for ours, theirs in zip(*found, strict=True):
        size = np.abs(theirs).max()
        np.testing.assert_allclose(
            ours / size, theirs / size, atol=2e-2 if "16" in precision else 1e-5
        )


@pytest.mark.parametrize("layer", ["L7", "L7+neural_codes", "neural_codes+L7"])
def test_a_layer_that_is_not_there_is_refused_before_training(layer):
    experiment = PARAMS.experiments["digits-classifier"]
    codes = experiment.codes.model_copy(update={"layers": ["neural_codes", layer]})
    with pytest.raises(UserError, match=r"no layer 'L7'; there are: .*neural_codes"):
        assemble(experiment.model_copy(update={"codes": codes}), (8, 8, 1), 5)


def test_networks_take_settings_by_keyword_alone():
    for path in Path(stages.networks.__file__).parent.glob("[a-z]*.py"):
        build = importlib.import_module(f"stages.networks.{path.stem}").build
        assert build.__code__.co_argcount == 1, f"{path.stem}: build(shape, *, …)"
