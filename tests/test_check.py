"""The gate names each figure that does not clear its baseline, and no other."""

import json
from pathlib import Path

import archives
import pytest

from stages import check
from stages.command import UserError


def row(value, half=0.02):
    return {"accuracy": value, "ci95_low": value - half, "ci95_high": value + half}


FIGURES = {
    "chance": 0.2,
    "tasks": 1000,
    "L7": {"l2": row(0.21), "l2_normalised": row(0.4)},
    "pixels": {"l2": row(0.3), "l2_normalised": row(0.35)},
    "pca": {"L7": {"16": {"whitened": row(0.1)}}},  # of fewer dimensions: nothing is asked of it
    "expanded": {"L7": {"l2": {"5": row(0.1)}}},  # nor of queries expanded, unless by a threshold
    "search": {"L7": {"l2": {"Flat": {"mean_average_precision": 0.1}}}},  # nor of an index
    "untrained": {"L7": {"l2": row(0.25), "l2_normalised": row(0.39)}},
}


def lines(beat, **changed):
    return [line.split(": ", 1) for line in check.not_beaten(FIGURES | changed, "accuracy", beat)]


def test_every_distance_has_to_clear_chance_with_its_lower_end():
    ((name, message),) = lines(["chance"])  # 0.21 is above chance, its lower end is not
    assert name == "L7/l2"
    assert message.endswith("does not clear chance 0.2")


def test_the_best_distance_has_to_clear_the_best_of_a_baseline():
    assert lines(["pixels"]) == []
    ((name, message),) = lines(["untrained"])
    assert name == "L7/l2_normalised"
    assert message.endswith("does not clear untrained 0.39")


def test_each_failure_is_a_line_of_its_own():
    better = {"pixels": {"l2": row(0.5)}}
    assert [name for name, _ in lines(["chance", "pixels", "untrained"], **better)] == [
        "L7/l2",
        "L7/l2_normalised",
        "L7/l2_normalised",
    ]


def test_a_dead_network_passes_nothing():
    dead = {"L7": {"l2": row(0.2), "l2_normalised": row(0.2)}}
    assert len(lines(["chance"], **dead)) == 2


@pytest.mark.parametrize(("threshold", "count"), [(0.4, 0), (0.41, 1)])
def test_a_threshold_is_reached_or_named(threshold, count):
    asked = {"oneshot/L7/l2_normalised/accuracy": threshold}
    found = list(check.not_reached({"oneshot": FIGURES}, asked))
    assert len(found) == count


def test_a_threshold_on_no_figure_is_refused():
    with pytest.raises(check.UserError, match="oneshot/L9/l2/accuracy: no such figure"):
        list(check.not_reached({"oneshot": FIGURES}, {"oneshot/L9/l2/accuracy": 0.1}))


# The whole gate, over files.

SIAMESE, CLASSIFIER = "digits-siamese", "digits-classifier"
BELOW = f"metrics/digits/{SIAMESE}"  # one that falls short


OTHERS = dict.fromkeys(
    ("precision_at_1", "precision_at_5", "r_precision", "mean_average_precision_at_r"), 0.5
)


def compared(measure, chance, **representations):
    """Return figures of a layer and what it has to beat: (figure, lower end) of each distance."""
    layer, pixels, untrained = (
        {
            distance: {measure: value, "ci95_low": low, "ci95_high": 1.0}
            | dict.fromkeys(OTHERS, 0.5)
            for distance, (value, low) in representations[name].items()
        }
        for name in ("layer", "pixels", "untrained")
    )
    return {"chance": chance, "L7": layer, "pixels": pixels, "untrained": {"L7": untrained}}


SEEN = {"pair_auc": 0.75}
NETWORK = {"parameters": 9, "seen": {"train": SEEN, "test": SEEN}}
CLEAR = compared(
    "accuracy",
    chance=0.5,
    layer={"l2": (0.7, 0.61)},
    pixels={"l2": (0.6, 0.5)},
    untrained={"l2": (0.6, 0.5)},
)
EQUAL = compared(  # the lower ends are as high as chance and as the better distance of pixels
    "accuracy",
    chance=0.25,
    layer={"l2": (0.3, 0.25), "learned": (0.5, 0.4)},
    pixels={"l2": (0.2, 0.1), "l2_normalised": (0.4, 0.3)},
    untrained={"l2": (0.39, 0.3)},
)
RANKED = compared(  # the best distance counts, not the one whose lower end is the highest
    "mean_average_precision",
    chance=0.2,
    layer={"l2": (0.5, 0.35), "l2_normalised": (0.4, 0.38)},
    pixels={"l2": (0.34, 0.3)},
    untrained={"l2": (0.35, 0.3)},
)
FILES = {
    "network": NETWORK,
    "oneshot": {"2-way": CLEAR | {"tasks": 60}, "5-way": EQUAL | {"tasks": 60}},
    "retrieval": RANKED | {"queries": 100},
}


def write(folder, **files):
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        Path(folder, f"{name}.json").write_text(json.dumps(content), encoding="utf-8")


L7 = {"layers": ["L7"]}


def ask(**asked):
    """Write params.yaml, in which the siamese experiment has to reach what is asked."""
    given = archives.small_params()
    names = (SIAMESE, CLASSIFIER)
    reached = {"beat": ["chance"], "at_least": {"network/seen/test/pair_auc": 0.75}}
    given |= {
        "experiments": {
            name: given["experiments"][name] | {"codes": given["experiments"][name]["codes"] | L7}
            for name in names
        },
        "check": dict.fromkeys(names, reached) | {SIAMESE: {"at_least": {}} | asked},
        "seeds": {},
    }
    archives.write_params(Path(), given)


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Go to a folder with metrics of two experiments."""
    monkeypatch.chdir(tmp_path)
    write(BELOW, **FILES)
    clear = dict.fromkeys(FILES["oneshot"], FILES["oneshot"]["2-way"])
    write(f"metrics/digits/{CLASSIFIER}", **FILES | {"oneshot": clear})
    write("metrics/seeds", **{SIAMESE: {}})  # a file beside the folders, which is no experiment's


def answer(capsys):
    """Return the exit code of the gate, what it prints and each line of what is wrong."""
    code = 0
    try:
        check.main()
    except SystemExit as stopped:
        code = stopped.code
    out, err = capsys.readouterr()
    return code, out, err.splitlines()


def test_the_gate_names_each_figure_that_does_not_clear_its_baseline(measured, capsys):
    ask(beat=["chance", "pixels", "untrained"], at_least={"network/seen/test/pair_auc": 0.8})
    assert answer(capsys) == (
        1,
        "1 of 2 experiments clear every baseline and threshold\n",
        [
            f"{BELOW}: network/seen/test/pair_auc: 0.75 is below 0.8",
            f"{BELOW}: oneshot/5-way/L7/l2: accuracy 0.3 (from 0.25) does not clear chance 0.25",
            f"{BELOW}: oneshot/5-way/L7/learned: accuracy 0.5 (from 0.4) does not clear pixels 0.4",
            f"{BELOW}: retrieval/L7/l2: mean_average_precision 0.5 (from 0.35) does not clear "
            "untrained 0.35",
        ],
    )


def test_the_gate_passes_where_no_more_is_asked_than_was_reached(measured, capsys):
    ask(beat=[])
    assert answer(capsys) == (0, "2 of 2 experiments clear every baseline and threshold\n", [])


def test_folders_of_no_experiment_fail_the_gate_by_themselves(measured, capsys):
    ask(beat=[])
    strays = f"metrics/cifar100/{SIAMESE}", "metrics/digits/renamed"
    for stray in strays:
        write(stray, **FILES)
    ending = "no such experiment in params.yaml; remove its metrics"
    assert answer(capsys) == (
        1,
        "2 of 2 experiments clear every baseline and threshold\n",
        [f"{stray}: {ending}" for stray in strays],
    )


def test_a_baseline_that_was_not_measured_is_not_beaten(measured, capsys):
    ask(beat=["untrained"])
    ranked = {key: value for key, value in FILES["retrieval"].items() if key != "untrained"}
    write(BELOW, retrieval=ranked)
    code, _, lines = answer(capsys)
    assert code == 1
    assert lines[-1] == (
        f"{BELOW}: retrieval/L7/l2: no figures of untrained beside it; run dvc repro"
    )


@pytest.mark.parametrize(
    ("oneshot", "lines"),
    [
        ({}, ["oneshot/2-way", "oneshot/5-way"]),
        ({"2-way": CLEAR | {"tasks": 60}}, ["oneshot/5-way"]),
        ({"5-way": EQUAL | {"tasks": 60, "L7": {}}}, ["oneshot/2-way", "oneshot/5-way/L7"]),
    ],
)
def test_what_was_not_measured_clears_nothing(measured, capsys, oneshot, lines):
    ask(beat=["chance", "pixels"])
    write(BELOW, oneshot=oneshot)
    code, out, found = answer(capsys)
    assert (code, out[:6]) == (1, "1 of 2")
    assert sorted(found) == sorted(
        f"{BELOW}: {line}: not measured; run dvc repro" for line in lines
    )


@pytest.mark.parametrize("file", FILES)
def test_an_experiment_without_one_of_its_files_is_refused(measured, file):
    ask(beat=[])
    Path(BELOW, f"{file}.json").unlink()
    with pytest.raises(UserError, match=rf"^{BELOW}/{file}\.json: "):
        check.main()
