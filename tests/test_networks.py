"""The reference networks are those of the assignments, to the parameter."""

import importlib
from pathlib import Path

import pytest

import stages.networks
from stages import params
from stages.assembly import assemble
from stages.command import UserError

PARAMS = params.load(Path(__file__).parent.parent / "params.yaml")


@pytest.mark.parametrize(
    ("name", "in_the_network", "in_all"),
    [("cifar100-siamese", 1_219_840, 1_220_865), ("cifar100-classifier", 2_906_944, 2_947_984)],
)
def test_reference_networks_have_the_published_number_of_parameters(name, in_the_network, in_all):
    network, objective = assemble(PARAMS.experiments[name], (32, 32, 3), 80)
    assert network.count_params() == in_the_network
    assert objective.model.count_params() == in_all


@pytest.mark.parametrize("name", PARAMS.experiments)
def test_every_experiment_builds_with_the_layers_it_names(name):
    experiment = PARAMS.experiments[name]
    image = PARAMS.datasets[experiment.dataset].image
    network, objective = assemble(experiment, (image.size, image.size, image.channels), 10)
    for layer in experiment.codes.layers:
        assert len(network.get_layer(layer).output.shape) == 2
    assert not objective.model.compiled


def test_a_layer_that_is_not_there_is_refused_before_training():
    experiment = PARAMS.experiments["digits-classifier"]
    codes = experiment.codes.model_copy(update={"layers": ["L7"]})
    with pytest.raises(UserError, match=r"no layer 'L7'; there are: .*neural_codes"):
        assemble(experiment.model_copy(update={"codes": codes}), (8, 8, 1), 5)


def test_networks_take_settings_by_keyword_alone():
    for path in Path(stages.networks.__file__).parent.glob("[a-z]*.py"):
        build = importlib.import_module(f"stages.networks.{path.stem}").build
        assert build.__code__.co_argcount == 1, f"{path.stem}: build(shape, *, …)"
