"""dvc.yaml names what each stage reads, so that a change reruns what it must and nothing else."""

import ast
from pathlib import Path

import pytest
import yaml
from dvc.dependency import ParamsDependency
from dvc.repo import Repo

from stages import files, params

ROOT = Path(__file__).parent.parent

# They check or move values and never alter one, so a change in them changes no result.
FRAME = {f"stages/{name}.py" for name in ("command", "engine", "files", "params", "peers")}


def module_path(module: str) -> str | None:
    """Return the file of a local module, or None for what is not one."""
    for path in (f"{module.replace('.', '/')}.py", f"{module.replace('.', '/')}/__init__.py"):
        if (ROOT / path).is_file():
            return path
    return None


def imports(path: str) -> set[str]:
    """Return the local files that a file imports, at its top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {module_path(name.name) for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {module_path(f"{node.module}.{name.name}") for name in node.names}
            found.add(module_path(node.module))
    return {each for each in found if each and not is_only_a_docstring(each)} - {path}


def is_only_a_docstring(path: str) -> bool:
    return len(ast.parse((ROOT / path).read_text(encoding="utf-8")).body) <= 1


def all_imports(*paths: str) -> set[str]:
    """Return `paths` and every local file that they import, directly or not, without the frame."""
    found, new = set(), set(paths)
    while new:
        found |= new
        new = {each for path in new for each in imports(path)} - found - FRAME
    return found


with Repo(ROOT) as repo:
    STAGES = {stage.name: stage for stage in repo.index.stages}


def modules_of(name: str) -> set[str]:
    """Return the files that the code of a stage consists of, by its imports and params.yaml."""
    stage, _, entry = name.partition("@")
    settings = params.load(ROOT / "params.yaml")
    named = set()
    if stage in ("train", "encode"):
        experiment = settings.experiments[entry]
        named.add(f"stages/networks/{experiment.network.name}.py")
        named.add(f"stages/objectives/{experiment.objective.name}.py")
        if stage == "train":
            named.add(f"stages/optimizers/{experiment.training.optimizer.name}.py")
    elif stage == "prepare":
        named.add(f"stages/readers/{settings.datasets[entry].reader}.py")
    return all_imports(f"stages/{stage}.py", *named)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_the_modules_that_it_imports(name):
    if name.startswith("download@"):
        pytest.skip("archives are identified by their digests, not by the code that fetched them")
    listed = {dep.def_path for dep in STAGES[name].deps if dep.def_path.endswith(".py")}
    assert modules_of(name) <= listed, "imported but not listed"
    # A template cannot list by case, so what one objective imports is listed for all of them.
    rooms = [f"stages/{room}/" for room in ("networks", "objectives", "optimizers")]
    by_name = [path for room in rooms for path in ROOT.glob(f"{room}[a-z]*.py")]
    shared = all_imports(*(path.relative_to(ROOT).as_posix() for path in by_name))
    allowed = {path for path in shared if not path.startswith(tuple(rooms))}
    extra = listed - modules_of(name)
    assert extra <= (allowed if name.startswith(("train@", "encode@")) else set()), "not imported"


def test_every_entry_of_params_has_its_stages():
    settings = params.load(ROOT / "params.yaml")
    expected = {"plots", "index"}
    for stage in ("download", "prepare", "tasks", "report"):
        expected |= {f"{stage}@{dataset}" for dataset in settings.datasets}
    for stage in ("train", "encode", "oneshot", "retrieval", "predictions"):
        expected |= {f"{stage}@{experiment}" for experiment in settings.experiments}
    expected |= {f"seeds@{experiment}" for experiment in settings.seeds}
    assert set(STAGES) == expected


def test_no_setting_turns_the_run_cache_off():
    """But of predictions, which git keeps: there it spares seconds."""
    for stage in STAGES.values():
        for out in stage.outs:
            assert not out.persist, f"{stage.name}: {out}"
            kept = out.use_cache or out.metric or out.plot
            assert kept or stage.name.startswith("predictions@"), f"{stage.name}: {out}"


@pytest.mark.parametrize("name", [name for name in STAGES if not name.startswith("report@")])
def test_a_file_that_is_missing_is_traced_to_its_stage(name):
    """Pages, which nothing reads, are left out."""
    for out in STAGES[name].outs:
        there = name if "@" in name else ""
        assert files.maker_of(out.def_path) == f"dvc repro {there}".rstrip(), out
        if out.def_path.startswith("data/") and not Path(out.def_path).suffix:
            assert files.maker_of(f"{out.def_path}/trained/L5.npy") == f"dvc repro {there}"


def params_of(name: str) -> set[str]:
    return {
        key for dep in STAGES[name].deps if isinstance(dep, ParamsDependency) for key in dep.params
    }


@pytest.mark.parametrize("name", [name for name in STAGES if "@" in name])
def test_editing_one_entry_reruns_no_other(name):
    entry = name.partition("@")[2]
    for key in params_of(name):
        assert key == "seed" or key.split(".")[1] == entry


@pytest.mark.parametrize("name", [name for name in STAGES if name.startswith("train@")])
def test_editing_an_evaluation_setting_reruns_no_training(name):
    sections = {key.split(".")[2] for key in params_of(name) - {"seed"}}
    assert sections == {"dataset", "images", "network", "objective", "training"}


def test_a_sixth_experiment_is_an_entry_of_params_alone(tmp_path, monkeypatch):
    given = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    given["experiments"]["sixth"] = given["experiments"]["digits-classifier"]
    given["check"]["sixth"] = given["check"]["digits-classifier"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(given), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_bytes((ROOT / "dvc.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    with Repo.init(no_scm=True) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    stages_of_one = ("train", "encode", "oneshot", "retrieval", "predictions")
    new = {f"{stage}@sixth" for stage in stages_of_one}
    assert set(stages) - set(STAGES) == new
    outs = [out.def_path for name in new for out in stages[name].outs]
    assert "metrics/digits/sixth/oneshot.json" in outs
    params.load()
