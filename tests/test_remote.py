"""Made in one clone, pushed, pulled in another: what is shared is not made again.

The stages and dvc.yaml are the real ones, with one small experiment on the digits. The remote is
a folder, then a server on this machine that speaks S3. What DVC is said to do was found by trial.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import archives
import pytest
import requests
import yaml

ROOT = Path(__file__).parents[1]
COPIED = (
    ".gitattributes",
    "dvc.yaml",
    "stages",
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
)
NAME = "digits-classifier"
STAGES = {
    *(f"{stage}@digits" for stage in ("download", "prepare", "tasks", "report")),
    *(f"{stage}@{NAME}" for stage in ("train", "encode", "oneshot", "retrieval", "predictions")),
    "plots",
    "index",
}
BUCKET = "codes"


def environment(clone: Path) -> dict[str, str]:
    """Return what DVC, git and the stages find around them: nothing of who runs the tests."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "GIT_"))}
    home = clone.parent
    people = {f"GIT_{role}_NAME": "Test" for role in ("AUTHOR", "COMMITTER")}
    people |= {f"GIT_{role}_EMAIL": "test@example.org" for role in ("AUTHOR", "COMMITTER")}
    amazon = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(home / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(home / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    own = {
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
        "PYTHONPATH": str(clone),  # its stages, not those of the checkout that is installed
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_NO_ANALYTICS": "1",
        **{f"DVC_{each}_DIR": str(home / "dvc") for each in ("GLOBAL_CONFIG", "SYSTEM_CONFIG")},
        "DVC_SITE_CACHE_DIR": str(home / "dvc/cache"),
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    return kept | people | amazon | own


def ran(clone: Path, *words: str, code: int = 0) -> str:
    """Run a command in a clone, which must end with `code`, and return what it printed."""
    done = subprocess.run(
        words,
        cwd=clone,
        env=environment(clone),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert done.returncode == code, f"{' '.join(words)}: {done.returncode}\n{done.stdout}"
    return done.stdout


def dvc(clone: Path, *words: str, code: int = 0) -> str:
    return ran(clone, sys.executable, "-m", "dvc", *words, code=code)


def run_stages(output: str) -> set[str]:
    """Return the stages that `dvc repro` ran, by what it printed."""
    lines = [line.split("'") for line in output.splitlines() if line.startswith("Running stage ")]
    return {name for _, name, _ in lines}


def content(clone: Path) -> dict[str, bytes]:
    """Return the files that DVC keeps, by path."""
    files = [path for top in ("data", "reports") for path in (clone / top).rglob("*")]
    return {str(path.relative_to(clone)): path.read_bytes() for path in files if path.is_file()}


def edit(clone: Path, change) -> None:
    """Change a clone's params.yaml."""
    params = yaml.safe_load((clone / "params.yaml").read_text(encoding="utf-8"))
    change(params)
    archives.write_params(clone, params)


def alter(module: Path) -> None:
    """Change a module, and nothing that it makes: what comes after its stage stays as it is."""
    with open(module, "a", encoding="utf-8") as file:
        file.write("# another line\n")


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Return a clone in which everything was run once and committed."""
    clone = tmp_path_factory.mktemp("team") / "first"
    for name in COPIED:
        source, target = ROOT / name, clone / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    params = archives.small_params()
    for section, name in (("datasets", "digits"), ("experiments", NAME), ("check", NAME)):
        params[section] = {name: params[section][name]}
    params["seeds"] = {}
    params["check"][NAME]["at_least"] = {"retrieval/queries": 100}  # 20 images of 5 unseen digits
    archives.write_params(clone, params)
    ran(clone, "git", "init", "--quiet", "--initial-branch=main")
    output = dvc(clone, "repro")
    assert run_stages(output) == STAGES
    ran(clone, "git", "add", "--all")
    ran(clone, "git", "commit", "--quiet", "--message=All stages")
    return clone


@pytest.fixture(scope="module")
def s3():
    """Return the address of a server that speaks S3 and has one bucket."""
    pytest.importorskip("dvc_s3")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with requests.Session() as session:
        session.trust_env = False
        session.put(f"http://{host}:{port}/{BUCKET}", timeout=10).raise_for_status()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="module", params=["folder", "s3"])
def shared(request, first):
    """Push everything to a remote, and return the first clone and a maker of others."""
    if request.param == "folder":
        dvc(first, "remote", "add", "--force", "--default", "shared", str(first.parent / "store"))
    else:
        server = request.getfixturevalue("s3")
        dvc(first, "remote", "add", "--force", "--default", "shared", f"s3://{BUCKET}/digits")
        dvc(first, "remote", "modify", "shared", "endpointurl", server)
    ran(first, "git", "commit", "--quiet", "--all", f"--message=Share by {request.param}")
    pushed = dvc(first, "push")
    assert "files pushed" in pushed
    assert "in sync" in dvc(first, "status", "--cloud")

    def clone(name: str, origin: Path = first) -> Path:
        path = first.parent / f"{request.param}-{name}"
        ran(first, "git", "clone", "--quiet", str(origin), str(path))
        assert not content(path)
        return path

    return SimpleNamespace(first=first, clone=clone)


def test_what_was_pulled_is_the_same_and_nothing_runs(shared):
    second = shared.clone("second")
    dvc(second, "pull")
    assert content(second) == content(shared.first)
    assert "up to date" in dvc(second, "status")
    output = dvc(second, "repro")
    assert not run_stages(output)
    assert "up to date" in output
    assert not ran(second, "git", "status", "--porcelain")


def test_one_network_can_be_pulled_alone(shared):
    clone = shared.clone("weights")
    dvc(clone, "pull", f"train@{NAME}")
    weights = f"data/models/digits/{NAME}.weights.h5"
    assert content(clone) == {weights: content(shared.first)[weights]}


def test_ci_checks_without_data(shared):
    clone = shared.clone("ci")
    unchanged = ("repro", "--pull", "--allow-missing")
    output = dvc(clone, *unchanged)
    assert not run_stages(output)
    assert "up to date" in output
    assert "1 of 1 experiments" in ran(clone, sys.executable, "-m", "stages.check")
    assert not content(clone)  # what is committed says enough: nothing was fetched
    assert not ran(clone, "git", "status", "--porcelain")
    edit(clone, lambda params: params["check"][NAME]["at_least"].update({"retrieval/queries": 101}))
    assert not run_stages(dvc(clone, *unchanged))
    assert "below 101" in ran(clone, sys.executable, "-m", "stages.check", code=1)


def test_ci_sees_that_a_result_was_not_made_again(shared):
    clone = shared.clone("forgotten")
    dry = ("repro", "--dry", "--allow-missing")
    assert "up to date" in dvc(clone, *dry)
    alter(clone / "stages/plots.py")
    output = dvc(clone, *dry)
    assert run_stages(output) == {"plots"}
    assert "up to date" not in output
    edit(clone, lambda params: params["experiments"][NAME]["training"].update(epochs=3))
    output = dvc(clone, *dry, code=255)  # since what `train` would read is not here
    assert f"failed to reproduce 'train@{NAME}'" in output
    assert "up to date" not in output
    assert not content(clone)


def test_what_is_to_be_made_again_pulls_what_it_reads_and_no_more(shared):
    clone = shared.clone("change")
    alter(clone / "stages/oneshot.py")
    output = dvc(clone, "repro", "--pull", "--allow-missing")
    assert run_stages(output) == {f"oneshot@{NAME}"}
    pulled, whole = content(clone), content(shared.first)
    read = ("data/arrays/", "data/tasks/", "data/codes/")
    assert pulled == {path: whole[path] for path in whole if path.startswith(read)}
    assert ran(clone, "git", "diff", "--name-only").split() == ["dvc.lock", "stages/oneshot.py"]


def worker(clone: Path, stage: str, code: int = 0) -> str:
    return ran(clone, sys.executable, "-m", "stages.worker", stage, code=code)


def test_workers_run_a_stage_each_and_give_it_back(shared):
    origin = shared.first.parent / f"{shared.clone('mine').name}.git"
    ran(shared.first, "git", "clone", "--quiet", "--bare", str(shared.first), str(origin))
    lead, one, two = (shared.clone(name, origin) for name in ("lead", "one", "two"))
    edit(lead, lambda params: params["experiments"][NAME]["training"].update(epochs=3))
    ran(lead, "git", "commit", "--quiet", "--all", "--message=Longer")
    ran(lead, "git", "push", "--quiet")

    worker(one, f"train@{NAME}")
    assert {path.split("/")[1] for path in content(one)} == {"arrays", "models"}
    worker(two, f"encode@{NAME}")  # on the other machine, of weights that came by the remote
    for clone, stage in ((one, "oneshot"), (two, "retrieval")):
        worker(clone, f"{stage}@{NAME}")

    ran(lead, "git", "pull", "--quiet")
    dry = dvc(lead, "repro", "--dry", "--allow-missing", f"oneshot@{NAME}", f"retrieval@{NAME}")
    assert "up to date" in dry
    messages = ran(lead, "git", "log", "--format=%s", "-4").split("\n")
    assert messages[:4] == [f"Run {s}@{NAME}" for s in ("retrieval", "oneshot", "encode", "train")]
    assert "nothing to do" in worker(one, f"train@{NAME}")


def test_workers_that_end_at_one_time_both_give_back(shared):
    origin = shared.first.parent / f"{shared.clone('ours').name}.git"
    ran(shared.first, "git", "clone", "--quiet", "--bare", str(shared.first), str(origin))
    lead, late = shared.clone("lead-2", origin), shared.clone("late", origin)
    for module in ("oneshot", "retrieval"):
        alter(lead / f"stages/{module}.py")
    ran(lead, "git", "commit", "--quiet", "--all", "--message=Altered")
    ran(lead, "git", "push", "--quiet")
    # The late one has taken what is newest, then the other one gives back before it does.
    hook = late / ".git/hooks/pre-commit"
    words = (
        f"cd {lead} && unset $(git rev-parse --local-env-vars) && {sys.executable} -m stages.worker"
    )
    hook.write_text(f"#!/bin/sh\n{words} oneshot@{NAME}\n", encoding="utf-8")
    hook.chmod(0o755)
    output = worker(late, f"retrieval@{NAME}")
    assert "rejected" in output
    ran(lead, "git", "pull", "--quiet")
    assert "up to date" in dvc(lead, "repro", "--dry", "--allow-missing")


def test_a_worker_whose_stage_fails_gives_nothing_back(shared):
    clone = shared.clone("failing")
    before = ran(clone, "git", "rev-parse", "HEAD")
    output = worker(clone, "train@none", code=1)
    assert "train@none failed, see the lines before" in output.splitlines()[-1]
    assert ran(clone, "git", "rev-parse", "HEAD") == before
    assert not ran(clone, "git", "status", "--porcelain")


def test_a_worker_whose_commits_conflict_leaves_them_as_they_were(shared):
    origin = shared.first.parent / f"{shared.clone('theirs').name}.git"
    ran(shared.first, "git", "clone", "--quiet", "--bare", str(shared.first), str(origin))
    lead, late = shared.clone("lead-3", origin), shared.clone("late-2", origin)
    for clone, epochs in ((lead, 3), (late, 4)):
        training = {"epochs": epochs}
        edit(clone, lambda params, to=training: params["experiments"][NAME]["training"].update(to))
        ran(clone, "git", "commit", "--quiet", "--all", f"--message={epochs} epochs")
    ran(lead, "git", "push", "--quiet")
    before = ran(late, "git", "rev-parse", "HEAD")
    for _ in range(2):  # and the second time for the same reason
        output = worker(late, f"train@{NAME}", code=1)
        assert "pull --quiet --rebase failed, see the lines before" in output.splitlines()[-1]
        assert "CONFLICT" in output
    assert ran(late, "git", "rev-parse", "HEAD") == before
    assert not ran(late, "git", "status", "--porcelain")
