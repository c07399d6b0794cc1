import shutil
from pathlib import Path

import archives
import numpy as np
import pytest
import yaml

from stages import files, prepare, tasks
from stages.command import UserError

DATASETS = ["digits", "cifar100", "omniglot"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with small archives, as `prepare` leaves it."""
    folder = tmp_path_factory.mktemp("project")
    archives.write_project(folder)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        for dataset in DATASETS:
            shutil.copytree(folder / "mirror", folder / "data" / "raw" / dataset)
            prepare.main(dataset)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it without archives, as the current folder."""
    shutil.copytree(made / "data" / "arrays", tmp_path / "data" / "arrays")
    shutil.copy(made / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def change(dataset, sets, *, seed=1):
    """Add or replace task sets in params.yaml; None takes one out."""
    given = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    there = given["datasets"][dataset]["tasks"]
    there["sets"] = {name: each for name, each in (there["sets"] | sets).items() if each}
    there["seed"] = seed
    archives.write_params(Path(), given)


def drawn(dataset):
    tasks.main(dataset)
    return {name: np.array(each) for name, each in files.read_tasks(dataset).items()}


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["Greek/a", "Greek/b", "Latin/a"], [0, 0, 1]),
        (["Latin/a", "Greek/a", "Latin/b"], [1, 0, 1]),
        (["old/Greek/a", "new/Greek/a", "old/Greek/b"], [1, 0, 1]),
        (["apple", "bear", "bee"], [0, 0, 0]),
        (["apple", "fish/cod"], [0, 1]),
    ],
    ids=str,
)
def test_groups_are_what_stands_before_the_last_slash(names, groups):
    np.testing.assert_array_equal(tasks.groups_of(names), groups)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_set_is_written_with_its_ways_and_count(project, dataset, capsys):
    found = drawn(dataset)
    sets = yaml.safe_load(Path("params.yaml").read_text())["datasets"][dataset]["tasks"]["sets"]
    assert found.keys() == sets.keys()
    for name, chosen in sets.items():
        assert found[name].dtype == np.int32
        assert found[name].shape == (chosen["count"], 1 + chosen["ways"])
    assert len(capsys.readouterr().out.splitlines()) == len(sets)
    assert {path.name for path in Path("data/tasks", dataset).iterdir()} == {
        f"{name}.npy" for name in sets
    }
    assert [path.name for path in Path("data/tasks").iterdir()] == [dataset]


@pytest.mark.parametrize("dataset", DATASETS)
def test_a_task_has_the_querys_class_once_by_another_image_of_the_one_pool(project, dataset):
    classes, examples = files.read_splits(dataset)["unseen"].shape[:2]
    for found in drawn(dataset).values():
        assert 0 <= found.min() <= found.max() < classes * examples
        labels = found // examples
        assert ((labels[:, 1:] == labels[:, :1]).sum(axis=1) == 1).all()
        assert (found[:, 1:] != found[:, :1]).all()
        assert all(len(set(row)) == len(row) for row in labels[:, 1:].tolist())


def test_tasks_of_one_group_are_within_one_alphabet_and_others_are_not(project):
    names = files.read_json("data/arrays/omniglot/classes.json")["unseen"]
    alphabets = np.array([name.split("/")[0] for name in names])
    examples = files.read_splits("omniglot")["unseen"].shape[1]
    found = {name: alphabets[each // examples] for name, each in drawn("omniglot").items()}
    within = {name: (each == each[:, :1]).all(axis=1) for name, each in found.items()}
    assert within["within_alphabet"].all()
    assert within["lake"].all()
    assert not within["4-way"].all()
    assert set(found["within_alphabet"][:, 0]) == {"Evaluation_1", "Evaluation_2"}


def test_fixed_tasks_are_those_that_came_with_the_dataset(project):
    _, trials = archives.write_omniglot(project / "again")
    np.testing.assert_array_equal(drawn("omniglot")["lake"], trials)


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_same_tasks_every_time_and_others_of_another_seed(project, dataset):
    first, again = drawn(dataset), drawn(dataset)
    change(dataset, {}, seed=2)
    other = drawn(dataset)
    for name, each in first.items():
        np.testing.assert_array_equal(again[name], each)
        assert (other[name] == each).all() == (name == "lake")


def test_a_set_of_tasks_does_not_depend_on_the_others(project):
    first = drawn("digits")
    change("digits", {"2-way": None, "3-way": {"draw": "all_classes", "ways": 3, "count": 5}})
    np.testing.assert_array_equal(drawn("digits")["5-way"], first["5-way"])


def test_sets_of_other_names_have_other_tasks(project):
    change("digits", {"again": {"draw": "all_classes", "ways": 5, "count": 60}})
    found = drawn("digits")
    assert (found["again"] != found["5-way"]).any(axis=1).mean() > 0.9


# One row a mistake: the dataset, the task sets that are changed, and what the message says.
MISTAKES = {
    "more fixed tasks than there are": (
        "omniglot",
        {"lake": {"draw": "fixed", "ways": 4, "count": 400}},
        "tasks.sets.lake: expected 400 tasks of 4 ways, found 8 of 4",
    ),
    "fewer fixed tasks than there are": (
        "omniglot",
        {"lake": {"draw": "fixed", "ways": 4, "count": 7}},
        "tasks.sets.lake: expected 7 tasks of 4 ways, found 8 of 4",
    ),
    "other ways than the fixed tasks": (
        "omniglot",
        {"lake": {"draw": "fixed", "ways": 20, "count": 8}},
        "tasks.sets.lake: expected 8 tasks of 20 ways, found 8 of 4",
    ),
    "more ways than a group has classes": (
        "omniglot",
        {"within_alphabet": {"draw": "one_group", "ways": 6, "count": 5}},
        "tasks.sets.within_alphabet: ",
    ),
    "more ways than unseen classes": (
        "digits",
        {"5-way": {"draw": "all_classes", "ways": 6, "count": 5}},
        "tasks.sets.5-way.ways: 6 is more than the 5 unseen classes",
    ),
    "fixed tasks where there are none": (
        "digits",
        {"lake": {"draw": "fixed", "ways": 4, "count": 8}},
        "tasks.sets.lake: this dataset comes with no tasks of that name whose images are all in "
        "split.unseen; take it out, or draw all_classes or one_group",
    ),
}


@pytest.mark.parametrize(("dataset", "sets", "says"), MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("before", [False, True], ids=["new", "there before"])
def test_a_set_that_cannot_be_is_refused_and_nothing_is_half_written(
    project, dataset, sets, says, before
):
    first = drawn(dataset) if before else None
    change(dataset, sets)
    with pytest.raises(UserError) as error:
        tasks.main(dataset)
    assert f"params.yaml: datasets.{dataset}.{says}" in str(error.value)
    assert "\n" not in str(error.value)
    if before:
        for name, each in files.read_tasks(dataset).items():
            np.testing.assert_array_equal(each, first[name])
        assert len(list(Path("data/tasks").iterdir())) == 1
    else:
        assert not list(Path("data").glob("tasks/*"))


@pytest.mark.parametrize("gone", ["", "unseen.npy", "classes.json"])
def test_missing_arrays_say_what_makes_them(project, gone):
    path = project / "data" / "arrays" / "omniglot" / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match="dvc repro"):
        tasks.main("omniglot")
    assert not list(Path("data").glob("tasks/*"))


def test_an_unknown_dataset_lists_those_there_are(project):
    with pytest.raises(UserError, match="no entry 'mnist'; there are: digits, cifar100, "):
        tasks.main("mnist")
