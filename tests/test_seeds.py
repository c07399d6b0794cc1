"""An experiment from several seeds: what is gathered, and what is said of it."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import archives
import pytest

from stages import params, seeds, spread
from stages.command import UserError

ONESHOT = {
    "2-way": {
        "chance": 0.5,
        "neural_codes": {"l2": {"accuracy": 0.75, "ci95_low": 0.7, "ci95_high": 0.8}},
        "pixels": {"l2": {"accuracy": 0.6}},
        "untrained": {"neural_codes": {"l2": {"accuracy": 0.55}}},
    }
}
RETRIEVAL = {
    "neural_codes": {"l2": {"mean_average_precision": 0.5, "precision_at_1": 0.7}},
    "pca": {"neural_codes": {"16": {"plain": {"mean_average_precision": 0.4}}}},
    "expanded": {"neural_codes": {"l2": {"5": {"mean_average_precision": 0.9}}}},
    "search": {"neural_codes": {"l2": {"exact": {"mean_average_precision": 0.3}}}},
}
NETWORK = {"parameters": 9, "seen": {"train": {"accuracy": 1.0}, "test": {"accuracy": 0.9}}}
NETWORK["seen"]["validation"] = {"accuracy": 0.95}


def write_metrics(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for part, found in (("oneshot", ONESHOT), ("retrieval", RETRIEVAL), ("network", NETWORK)):
        (folder / f"{part}.json").write_text(json.dumps(found))
    return folder


def test_figures_are_those_of_trained_codes_and_of_test_images(tmp_path):
    assert seeds.figures_of(write_metrics(tmp_path / "metrics")) == {
        "network/seen/test/accuracy": 0.9,
        "oneshot/2-way/neural_codes/l2/accuracy": 0.75,
        "retrieval/neural_codes/l2/mean_average_precision": 0.5,
    }


def test_spread_by_hand():
    values = [0.5, 0.25, 0.75, 0.5, 0.5]
    found = seeds.spread([{"a": value} for value in values])
    sd = round(statistics.stdev(values), 6)
    assert found == {"a": {"mean": 0.5, "sd": sd, "values": values}}


def test_seeds_that_measured_other_things_are_refused():
    with pytest.raises(UserError, match="differ in what was measured"):
        seeds.spread([{"a": 0.5}, {"b": 0.5}])


def written(folder: Path, name: str, **figures: list[float]) -> None:
    """Write metrics/seeds/<name>.json by figures of retrieval in two distances."""
    runs = [
        {f"retrieval/codes/{distance}/mean_average_precision": value for distance, value in each}
        for each in zip(*([(d, v) for v in values] for d, values in figures.items()), strict=True)
    ]
    path = folder / "metrics/seeds" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"seeds": list(range(1, len(runs) + 1)), "figures": seeds.spread(runs)}
    path.write_text(json.dumps(content))


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Return params of two experiments with three seeds, whose figures stand in metrics/seeds."""
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "digits-siamese", l2=[0.3, 0.4, 0.5], l2_normalised=[0.3, 0.4, 0.4])
    written(tmp_path, "digits-classifier", l2=[0.5, 0.5, 0.8], l2_normalised=[0.6, 0.7, 0.8])
    given = params.load(archives.PARAMS)
    three = params.Seeds(dataset="digits", count=3)
    named = {"digits-siamese": three, "digits-classifier": three, "cifar100-siamese": three}
    return given.model_copy(update={"seeds": named})


def test_two_experiments_are_compared_by_their_seeds_in_the_best_distance_of_each(settings):
    first, second = spread.rows(settings)
    assert (first["experiment"], first["where"]) == ("digits-siamese", ("codes", "l2"))
    assert (first["mean"], first["sd"]) == (0.4, 0.1)
    assert first["against"] is None
    assert second["where"] == ("codes", "l2_normalised")
    assert second["against"] == "digits-siamese"
    assert second["compared"]["difference"] == pytest.approx(0.3)
    assert second["compared"]["ci95_low"] == pytest.approx(0.3)  # the same with every seed


def test_an_experiment_is_compared_with_the_one_that_it_differs_from_in_one_setting(settings):
    written(Path(), "varied", l2=[0.6, 0.6, 0.7])
    classifier = settings.experiments["digits-classifier"]
    training = classifier.training.model_copy(update={"batch": 2 * classifier.training.batch})
    varied = classifier.model_copy(update={"training": training})
    updated = {
        "experiments": settings.experiments | {"varied": varied},
        "seeds": settings.seeds | {"varied": settings.seeds["digits-classifier"]},
    }
    *_, row = spread.rows(settings.model_copy(update=updated))
    assert row["against"] == "digits-classifier"
    assert row["compared"]["difference"] == pytest.approx(-0.2 / 3)
    # Where that one has more seeds, by those that both have.
    more = {"l2": [0.5, 0.5, 0.8, 0.9], "l2_normalised": [0.6, 0.7, 0.8, 0.9]}
    written(Path(), "digits-classifier", **more)
    *_, row = spread.rows(settings.model_copy(update=updated))
    assert (row["against"], row["seeds"]) == ("digits-classifier", 3)
    assert row["compared"]["difference"] == pytest.approx(-0.2 / 3)
    # Where it has fewer, it is the first of the dataset again.
    written(Path(), "digits-classifier", l2=[0.5, 0.5], l2_normalised=[0.6, 0.7])
    *_, row = spread.rows(settings.model_copy(update=updated))
    assert row["against"] == "digits-siamese"


def commit(folder: Path) -> None:
    """Commit a folder's metrics, in a repository of its own."""
    here = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "metrics"], ["commit", "-q", "-m", "measured"]):
        subprocess.run([*here, *words], check=True)


def test_committed_seeds_stand_where_others_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "digits-siamese", l2=[0.3, 0.123457, 0.5])
    path = "retrieval/codes/l2/mean_average_precision"
    first = {path: 0.3000000001}  # rounded when it is written
    assert seeds.committed("digits-siamese", [1, 2], first) == {}  # not committed
    commit(tmp_path)
    Path("metrics/seeds/digits-siamese.json").unlink()  # as DVC does before it runs the stage
    found = {1: {path: 0.3}, 2: {path: 0.123457}, 3: {path: 0.5}}
    assert seeds.committed("digits-siamese", [1, 2, 3, 4], first) == found
    assert seeds.committed("digits-siamese", [1, 2], first) == found
    # The seeds that are there: something else has changed, or all are to be run anew.
    assert seeds.committed("digits-siamese", [1, 2, 3], first) == {}
    # Another network than that of the committed figures, another first seed, another experiment.
    assert seeds.committed("digits-siamese", [1, 2], {path: 0.31}) == {}
    assert seeds.committed("digits-siamese", [7, 8], first) == {}
    assert seeds.committed("digits-classifier", [1, 2], first) == {}


@pytest.mark.parametrize("text", ["{", "{}", '{"seeds": [1, 2], "figures": {"a": 1}}'])
def test_what_is_committed_and_damaged_is_run_again(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    path = Path("metrics/seeds/digits-siamese.json")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    commit(tmp_path)
    assert seeds.committed("digits-siamese", [1, 2, 3], {}) == {}


def test_a_seed_that_was_interrupted_goes_on_with_the_stage_that_did_not_end(tmp_path, monkeypatch):
    """No stage that has ended is run again: after `encode` the training's own state is gone."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("seed: 1\n")
    experiment = params.load(archives.PARAMS).experiments["digits-siamese"]
    ran, paths, fails = [], [], {"stages.retrieval"}

    def stage(words, *, cwd, env, check):
        ran.append(words[2])
        paths.append(env["PYTHONPATH"].split(os.pathsep))
        metrics = cwd / "metrics/digits/x" / seeds._STAGES[words[2].removeprefix("stages.")]
        if words[2] not in fails:
            metrics.parent.mkdir(parents=True, exist_ok=True)
            metrics.write_text("{}")
        return subprocess.CompletedProcess(words, words[2] in fails)

    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setattr(subprocess, "run", stage)
    with pytest.raises(UserError, match="retrieval from seed 2 failed"):
        seeds.run_again("x", experiment, 2, Path("state"))
    stages = ["stages.train", "stages.encode", "stages.oneshot", "stages.retrieval"]
    assert ran == stages
    assert all(each[-1] == "/elsewhere" and len(each) == 2 for each in paths)
    fails.clear()
    assert seeds.run_again("x", experiment, 2, Path("state")) == Path("state/metrics/digits/x")
    assert ran[4:] == ["stages.retrieval"]
    seeds.run_again("x", experiment, 2, Path("state"))
    assert len(ran) == 5


def content(path: str, *, seeds: int = 2, values: int = 2) -> str:
    figure = {"mean": 1, "sd": 0, "values": [1] * values}
    return json.dumps({"seeds": list(range(1, seeds + 1)), "figures": {path: figure}})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        content("retrieval/codes/l2/mean_average_precision", values=1),
        content("retrieval/codes/l2/mean_average_precision", seeds=1, values=1),
        content("accuracy"),
        content("oneshot/codes/l2/accuracy"),
        content("other/codes/l2/accuracy"),
    ],
)
def test_a_damaged_file_is_one_line(settings, text):
    Path("metrics/seeds/digits-siamese.json").write_text(text)
    with pytest.raises(UserError, match=r"metrics/seeds/digits-siamese\.json: damaged"):
        list(spread.rows(settings))


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a small project in which one experiment was run from one seed."""
    folder = tmp_path_factory.mktemp("seeds")
    archives.write_project(folder)
    for stage, what in (
        ("prepare", "digits"), ("tasks", "digits"), *((s, "digits-siamese") for s in seeds._STAGES)
    ):  # fmt: skip
        assert run_stage(folder, stage, what).returncode == 0
    return folder


def run_stage(folder: Path, stage: str, what: str) -> subprocess.CompletedProcess:
    words = [sys.executable, "-m", f"stages.{stage}", what]
    env = os.environ | {"PYTHONPATH": str(archives.PARAMS.parent)}
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_the_second_seed_is_what_its_own_run_would_measure(project):
    assert run_stage(project, "seeds", "digits-siamese").returncode == 0
    found = json.loads((project / "metrics/seeds/digits-siamese.json").read_text())
    assert found["seeds"] == [1, 2]
    own = seeds.figures_of(project / "metrics/digits/digits-siamese")
    assert {path: each["values"][0] for path, each in found["figures"].items()} == own

    given = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(f"seed: 2\n{given.removeprefix('seed: 1')}")
    for stage in seeds._STAGES:
        assert run_stage(project, stage, "digits-siamese").returncode == 0
    again = seeds.figures_of(project / "metrics/digits/digits-siamese")
    assert {path: each["values"][1] for path, each in found["figures"].items()} == again
    (project / "params.yaml").write_text(given)


def test_a_seed_that_fails_is_said_and_nothing_is_written(project):
    (project / "metrics/seeds/digits-siamese.json").unlink(missing_ok=True)
    for state in (project / ".resume").glob("seeds-*/metrics"):
        state.rename(state.with_name("gone"))
    (project / "data/tasks/digits").rename(project / "data/tasks/away")
    done = run_stage(project, "seeds", "digits-siamese")
    (project / "data/tasks/away").rename(project / "data/tasks/digits")
    assert done.returncode == 1
    assert "oneshot from seed 2 failed" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (project / "metrics/seeds/digits-siamese.json").exists()


def test_a_seed_more_is_one_run_more(project):
    # The second seed as no run would measure it, so that it shows whether it was run.
    own = seeds.figures_of(project / "metrics/digits/digits-siamese")
    known = seeds.spread([own, dict.fromkeys(own, 0.125)])
    path = project / "metrics/seeds/digits-siamese.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"seeds": [1, 2], "figures": known}))
    commit(project)
    path.unlink()
    given = (project / "params.yaml").read_text()
    more = given.replace("count: 2", "count: 3")
    assert more != given
    (project / "params.yaml").write_text(more)
    done = run_stage(project, "seeds", "digits-siamese")
    (project / "params.yaml").write_text(given)
    assert done.returncode == 0
    said = done.stdout.splitlines()
    assert "seed 2: committed" in said
    assert "seed 2: train" not in said
    assert "seed 3: train" in said
    found = json.loads(path.read_text())
    assert found["seeds"] == [1, 2, 3]
    for figure, each in found["figures"].items():
        assert each["values"][:2] == [round(own[figure], 6), 0.125]
