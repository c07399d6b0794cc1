"""The questions: each answer is found in what was measured, whatever the experiments are called."""

import pytest
from test_dvc import ROOT

from stages import params, questions

PARAMS = params.load(ROOT / "params.yaml")
GREY = PARAMS.experiments["cifar100-classifier-grey"]
COLOUR = PARAMS.experiments["cifar100-classifier"]


def figures(measure, value):
    return {measure: value, "ci95_low": value - 0.01, "ci95_high": value + 0.01}


def found(accuracy, *, learned=None, layers=("neural_codes",), seen=None):
    """Return what is read of an experiment whose later layers are a hundredth better each."""
    scores = {"chance": 0.05, "tasks": 100, "pixels": {"l2": figures("accuracy", 0.1)}}
    ranked = {
        "chance": 0.06,
        "queries": 9,
        "pixels": {"l2": figures("mean_average_precision", 0.07)},
    }
    for number, layer in enumerate(layers):
        value = accuracy + number / 100
        scores[layer] = {"l2": figures("accuracy", value)}
        if learned:
            scores[layer]["learned"] = figures("accuracy", learned)
        ranked[layer] = {"l2_normalised": figures("mean_average_precision", value)}
    easy = {"5-way": scores | {"chance": 0.2}, "20-way": scores}
    network = seen and {
        "parameters": 7,
        "seen": {"train": {"accuracy": 0.9}, "test": {"accuracy": seen}},
    }
    return {"network": network, "oneshot": easy, "retrieval": ranked}


def settings(**experiments):
    return PARAMS.model_copy(update={"experiments": experiments})


def test_floors_are_chance_and_pixels_of_every_measure():
    rows = questions.floors({"cifar100": {"a": found(0.3), "b": found(0.4)}})
    assert [row["measure"] for row in rows] == ["5-way", "20-way", "retrieval"]
    assert [row["chance"] for row in rows] == [0.2, 0.05, 0.06]
    assert [row["pixels"] for row in rows] == [0.1, 0.1, 0.07]
    assert {(row["experiment"], row["best"]) for row in rows} == {("b", 0.4)}


def test_a_difference_of_one_setting_is_found_with_both_figures():
    given = settings(colour=COLOUR, grey=GREY)
    (row,) = questions.costs(given, {"colour": found(0.3, seen=0.5), "grey": found(0.2, seen=0.4)})
    assert row["difference"] == params.Difference("colour", "grey", "images.channels", 3, 1)
    assert [each["value"] for each in row["one-shot"]] == [0.3, 0.2]
    assert [each["value"] for each in row["retrieval"]] == [0.3, 0.2]
    assert row["seen"] == [0.5, 0.4]
    assert "learned" not in row


def test_experiments_that_differ_in_two_settings_say_nothing_of_either():
    small = COLOUR.model_copy(
        update={"images": COLOUR.images.model_copy(update={"size": 16, "channels": 1})}
    )
    assert settings(colour=COLOUR, small=small).differences() == []
    assert settings(colour=COLOUR, same=COLOUR).differences() == []


def test_an_experiment_of_another_dataset_is_no_variant():
    other = COLOUR.model_copy(update={"dataset": "another"})
    given = settings(**{"colour": COLOUR, "colour-other": other})
    assert given.differences() == []
    assert given.variants() == set()


def test_a_difference_of_an_experiment_not_run_is_left_out():
    assert questions.costs(settings(colour=COLOUR, grey=GREY), {"colour": found(0.3)}) == []


def test_a_siamese_network_is_compared_with_the_classifier_of_its_dataset():
    siamese = PARAMS.experiments["cifar100-siamese"]
    given = settings(s=siamese, c=COLOUR, later=GREY)
    measured = {"s": found(0.2, learned=0.1), "c": found(0.3), "later": found(0.9)}
    (row,) = questions.objectives(given, measured)
    assert (row["siamese"]["name"], row["classifier"]["name"]) == ("s", "c")
    assert row["siamese"]["distances"] == {"l2": 0.2, "learned": 0.1}
    assert questions.objectives(given, {"c": measured["c"]}) == []


def test_likeness_compares_tasks_of_one_group_with_those_of_all():
    omniglot = PARAMS.experiments["omniglot-siamese"]
    scores = found(0.95)["oneshot"]["20-way"]
    within = {"chance": 0.05, "tasks": 9, "neural_codes": {"l2": figures("accuracy", 0.8)}}
    measured = {"oneshot": {"20-way": scores, "within_alphabet": within}}
    assert questions.likeness(settings(o=omniglot), {"o": measured}) == [
        {"name": "o", "ways": 20, "apart": 0.95, "alike": 0.8}
    ]


def test_layers_are_compared_where_there_are_several():
    several = COLOUR.model_copy(
        update={"codes": COLOUR.codes.model_copy(update={"layers": ["L5", "L6"]})}
    )
    measured = {"one": found(0.3), "several": found(0.3, layers=("L5", "L6"))}
    (row,) = questions.layers(settings(one=COLOUR, several=several), measured)
    assert (row["name"], row["best"], list(row["rows"])) == ("several", "L6", ["L5", "L6"])
    ahead = figures("mean_average_precision", 0.9)
    measured["several"]["retrieval"]["L5"]["l2_centred_l2_normalised"] = ahead
    (row,) = questions.layers(settings(one=COLOUR, several=several), measured)
    assert (row["best"], row["rows"]["L5"]["distance"]) == ("L5", "l2_centred_l2_normalised")
    joined = several.model_copy(
        update={"codes": COLOUR.codes.model_copy(update={"layers": ["L5", "L6", "L5+L6"]})}
    )
    measured = {"several": found(0.3, layers=("L5", "L6", "L5+L6"))}
    (row,) = questions.layers(settings(several=joined), measured)
    assert (row["best"], list(row["rows"])) == ("L6", ["L5", "L6"])


def test_a_layer_is_the_last_on_either_side_of_its_relu():
    both = ["L5", "L6", "L5_before_relu", "L6_before_relu"]
    sides = COLOUR.model_copy(update={"codes": COLOUR.codes.model_copy(update={"layers": both})})
    for layer, last in {"L6": True, "L6_before_relu": True, "L5": False}.items():
        measured = {"sides": found(0.3, layers=both)}
        ahead = figures("mean_average_precision", 0.9)
        measured["sides"]["retrieval"][layer]["l2_centred_l2_normalised"] = ahead
        (row,) = questions.layers(settings(sides=sides), measured)
        assert (row["best"], row["last"]) == (layer, last)


@pytest.mark.parametrize("part", ["network", "oneshot", "retrieval"])
def test_a_part_that_is_missing_stops_no_answer(part):
    given = settings(colour=COLOUR, grey=GREY)
    measured = {"colour": found(0.3, seen=0.5), "grey": found(0.2, seen=0.4) | {part: None}}
    questions.answers(given, {"cifar100": measured})
    questions.answers(
        given, {"cifar100": {name: each | {part: None} for name, each in measured.items()}}
    )
