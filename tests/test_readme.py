"""The tables of README.md and docs/results.md say what metrics/ says."""

import json
import subprocess
from pathlib import Path

import pytest
from test_report import make_toy

from stages import files, params, readme, results, seeds
from stages.command import UserError

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("document", readme._DOCUMENTS)
def test_the_tables_are_those_of_the_committed_metrics(document, tmp_path, monkeypatch):
    """As git has them, added or committed: `dvc repro` on another processor rounds otherwise."""
    command = ["git", "checkout-index", "--all", f"--prefix={tmp_path}/"]
    subprocess.run(command, cwd=ROOT, check=True)
    monkeypatch.chdir(tmp_path)
    text = Path(document).read_text(encoding="utf-8")
    assert readme.filled(text, params.load()) == text, "run python -m stages.readme"


def test_the_readme_counts_the_experiments():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    count = len(params.load().experiments)
    assert f"{count} of {count} experiments clear every baseline" in text


def test_every_table_stands_in_one_document():
    texts = [(ROOT / each).read_text(encoding="utf-8") for each in readme._DOCUMENTS]
    for name in readme._TABLES:
        assert sum(text.count(f"<!-- table {name}: ") for text in texts) == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no markers", "expected tables between the lines"),
        ("<!-- table costs: python -m stages.readme -->\nwithout an end", "expected tables"),
        (
            "<!-- table costs: python -m stages.readme -->\nits end is lost, and this text is not\n"
            "<!-- table seeds: python -m stages.readme -->\n<!-- end -->\n",
            "expected tables",
        ),
        (
            "<!-- table sums: python -m stages.readme -->\n<!-- end -->\n",
            "<!-- table sums: .*: no such table; expected one of overview, costs",
        ),
    ],
)
def test_a_document_without_tables_that_are_known_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        readme.filled(text, params.load())


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Return params of two experiments whose figures are known."""
    make_toy(tmp_path, monkeypatch)
    settings = params.load()
    experiment = settings.experiments["digits-siamese"].model_copy(update={"dataset": "toy"})
    named = dict.fromkeys(("toy-classifier", "toy-siamese"), experiment)
    three = params.TaskSet(draw="all_classes", ways=3, count=4)
    dataset = settings.dataset("toy")
    dataset = dataset.model_copy(
        update={"tasks": dataset.tasks.model_copy(update={"sets": {"3-way": three}})}
    )
    counts = dict.fromkeys(named, params.Seeds(dataset="toy", count=3))
    updated = {"experiments": named, "datasets": {"toy": dataset}, "seeds": counts}
    return settings.model_copy(update=updated)


def cells(table):
    return [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines()]


def test_the_overview_has_chance_pixels_and_the_best_of_each_experiment(toy):
    head, _, chance, pixels, classifier, siamese = cells(readme.overview(toy))
    assert head == ["toy", "parameters", "minutes", "seen classes, test", "3-way", "mAP"]
    assert chance == ["chance", "", "", "", "33.3", "33.3"]
    assert pixels == ["raw pixels", "", "", "", "60.0", "60.0"]
    best = "**75.1** <sub>74.1–76.1</sub>"
    assert classifier == ["toy-classifier", "1,234,567", "0.1", "98.8 % accuracy", best, best]
    assert siamese[3] == "90.0 % pair AUC"


def test_the_best_of_a_column_is_bold_and_pixels_are_the_best_of_all_distances(toy):
    path = Path("metrics/toy/toy-siamese/retrieval.json")
    figures = json.loads(path.read_text())
    figures["pixels"]["l2_normalised"] = figures["pixels"]["l2"] | {"mean_average_precision": 0.8}
    path.write_text(json.dumps(figures))
    _, _, _, pixels, classifier, _ = cells(readme.overview(toy))
    assert pixels[-2:] == ["60.0", "**80.0**"]
    assert classifier[-2:] == ["**75.1** <sub>74.1–76.1</sub>", "75.1 <sub>74.1–76.1</sub>"]


def test_the_device_is_named_where_it_is_no_cpu(toy):
    path = Path("metrics/toy/toy-siamese/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "gpu:0"}))
    assert [row[2] for row in cells(readme.overview(toy))[4:]] == ["0.1", "0.1, gpu:0"]


def test_a_dataset_without_experiments_has_no_table(toy):
    datasets = toy.datasets | {"other": toy.datasets["toy"]}
    both = toy.model_copy(update={"datasets": datasets})
    assert readme.overview(both) == readme.overview(toy)


def test_tasks_that_were_not_scored_are_refused(toy):
    path = Path("metrics/toy/toy-siamese/oneshot.json")
    path.write_text("{}")
    with pytest.raises(UserError, match="no figures of 3-way of toy-siamese or of pixels"):
        readme.overview(toy)


def test_the_full_table_has_a_row_for_each_measure(toy):
    head, _, first, second, *_ = cells(readme.measured(toy))
    assert head[-5:] == ["best distance", "% (95 % interval)", "pixels", "untrained", "chance"]
    figures = ["L2", "**75.1** (74.1–76.1)", "60.0", "40.0", "33.3"]
    what = ["toy-classifier", "1,234,567", "0.1", "98.8 % accuracy"]
    assert first == [*what, "3-way one-shot", *figures]
    assert second == ["", "", "", "", "retrieval, mAP", *figures]


def classifiers(toy):
    """Return two experiments that differ in the batch alone, twice as large in the second."""
    first = toy.experiments["toy-classifier"]
    training = first.training.model_copy(update={"batch": first.training.batch * 2})
    return first, first.model_copy(update={"training": training})


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("toy-siamese", ["toy-classifier", "toy-siamese"]),
        ("toy-classifier-batch", ["toy-classifier"]),
    ],
)
def test_a_variant_named_after_its_experiment_stands_among_the_costs_alone(toy, name, there):
    named = dict(zip(["toy-classifier", name], classifiers(toy), strict=True))
    settings = toy.model_copy(update={"experiments": named})
    assert [row[0] for row in cells(readme.overview(settings))[4:]] == there
    assert [row[0] for row in cells(readme.measured(settings))[2:] if row[0]] == there


def test_what_a_setting_costs_is_the_difference_of_the_best_figures(toy):
    first, second = classifiers(toy)
    named = {"toy-classifier": first, "toy-siamese": second}
    path = Path("metrics/toy/toy-siamese/retrieval.json")
    figures = json.loads(path.read_text())
    for distance in figures["neural_codes"].values():
        distance["mean_average_precision"] -= 0.1
    path.write_text(json.dumps(figures))
    batch = first.training.batch
    (row,) = cells(readme.costs(toy.model_copy(update={"experiments": named})))[2:]
    changed = ["toy-classifier", f"`training.batch`: {batch} → {batch * 2}"]
    minus = "\N{MINUS SIGN}"
    assert row == [*changed, "–", "75.1 → 75.1 (0.0)", f"75.1 → 65.1 ({minus}10.0)"]


@pytest.mark.parametrize("lacks", ["neural_codes", "pixels"])
def test_an_overview_without_figures_is_refused(toy, lacks):
    path = Path("metrics/toy/toy-siamese/retrieval.json")
    figures = json.loads(path.read_text())
    del figures[lacks]
    path.write_text(json.dumps(figures))
    with pytest.raises(UserError, match="no figures of mAP of toy-siamese or of pixels"):
        readme.overview(toy)


def test_published_figures_stand_beside_those_of_the_same_network_and_the_best(toy):
    people, other, third = cells(readme.reproduced(toy))[2:]
    best = "75.1 (`toy-classifier`)"
    assert people == ["people & co", "3-way one-shot", "95.5", "–", best, "tasks"]
    ours = "98.8 (`toy-classifier`)"
    assert other == ["other", "accuracy on the seen classes", "50.0", ours, ours, ""]
    assert third == ["third", "something else", "25.0", "–", "–", "none"]


def test_seeds_have_a_row_beside_the_first_experiment(toy):
    for name, values in (("toy-classifier", [0.5, 0.6, 0.7]), ("toy-siamese", [0.4, 0.4, 0.4])):
        measured = ("oneshot/3-way/codes/l2/accuracy", "retrieval/codes/l2/mean_average_precision")
        runs = [dict.fromkeys(measured, value) for value in values]
        found = {"seeds": [1, 2, 3], "figures": seeds.spread(runs)}
        files.write_json(Path("metrics/seeds", f"{name}.json"), found)
    classifier, siamese = cells(readme.seeds_overview(toy))[2:]
    mean = "60.0 ± 10.0"
    assert classifier == ["toy-classifier", "3", "–", mean, mean, "–", "–"]
    minus = "\N{MINUS SIGN}"
    below = f"toy-classifier: {minus}20.0 ({minus}44.8 to +4.8)"
    full = cells(readme.seeds(toy))[2:]
    shown = ["3-way one-shot", "L2", "**60.0** ± 10.0", "–"]
    assert full[0] == ["toy-classifier", "3", *shown]
    assert full[3] == ["", "", "retrieval, mAP", "L2", "**40.0** ± 0.0", below]
    assert siamese == ["toy-siamese", "3", "–", *["40.0 ± 0.0"] * 2, below, below]


def test_seen_classes_are_told_by_accuracy_or_by_pair_auc():
    assert results.seen_measure({"top5_accuracy": 0.9, "accuracy": 0.5}) == "accuracy"
    assert results.seen_measure({"pair_accuracy": 0.8, "pair_auc": 0.9}) == "pair_auc"
    with pytest.raises(ValueError, match="neither"):
        results.seen_measure({"top5_accuracy": 0.9})


@pytest.mark.parametrize(("seconds", "expected"), [(2.2, "0.04"), (3, "0.1"), (3708, "61.8")])
def test_no_training_takes_no_time(seconds, expected):
    assert results.minutes(seconds) == expected
