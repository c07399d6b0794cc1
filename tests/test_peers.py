"""Training by several processes: the figures of one, and one clear line when a process is lost."""

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import yaml
from sklearn.datasets import load_digits

from stages import files, params, peers
from stages.command import UserError

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="needs jax")

# Not the softmax over pairs, on which the bias of the learned distance has no influence: Adam
# makes steps of its rounding errors.
ALL = {"examples_per_class": 2, "loss": "binary"}
RANDOM = {"pairs": "random", "examples_per_class": 0, "loss": "binary"}
SYSTEMS = {  # experiment, objective, batch: 60 images make batches of 11 that two cannot share, too
    "classifier": ("digits-classifier", {}, 11),
    "all-pairs": ("digits-siamese", ALL, 8),
    "random-pairs": ("digits-siamese", RANDOM, 8),
}
COMPILED = tempfile.TemporaryDirectory()
COMPILED_ONCE = {  # by jax, for all processes: it takes as long as all else that they do
    "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
}
LINE = "training by several processes: process 2 of 2"


def project(folder, system="classifier", *, launcher=None, epochs=2):
    """Make a project of one experiment on some real digits, and return the experiment's name."""
    name, objective, batch = SYSTEMS[system]
    given = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    experiment = given["experiments"][name]
    experiment["training"] |= {"epochs": epochs, "batch": batch, "early_stopping": None}
    experiment["objective"] |= objective
    given["cluster"]["launcher"] = launcher
    files.write_text(folder / "params.yaml", yaml.safe_dump(given))
    digits = load_digits()
    by_class = [digits.images[digits.target == label][:48] for label in range(5)]
    images = (15 * np.stack(by_class)[..., None]).astype(np.uint8)
    for place, split in enumerate(("seen_train", "seen_test", "seen_validation", "unseen")):
        there = images[:, 12 * place : 12 * place + 12]
        files.write_array(folder / f"data/arrays/digits/{split}.npy", there)
    return name


def start(folder, name, **environment):
    words = [sys.executable, "-m", "stages.train", name]
    here = os.environ | COMPILED_ONCE | {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": "jax"}
    here |= environment
    return subprocess.Popen(words, cwd=folder, env=here, stderr=subprocess.PIPE, text=True)


def trained(folder, name, **environment):
    """Train, and return history and weights."""
    process = start(folder, name, **environment)
    error = process.communicate(timeout=300)[1]
    assert process.returncode == 0, error
    history = np.genfromtxt(folder / f"metrics/digits/{name}/history.csv", delimiter=",")[1:]
    weights = []
    with h5py.File(folder / f"data/models/digits/{name}.weights.h5") as file:
        file.visititems(
            lambda _, item: weights.append(item[()]) if hasattr(item, "shape") else None
        )
    return history, weights


@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_end_with_the_figures_of_one(system, tmp_path):
    name = project(tmp_path / "one", system)
    history, weights = trained(tmp_path / "one", name)
    project(tmp_path / "two", system, launcher=2)
    # They compute with jax whatever the stage that starts them would compute with.
    other_history, other_weights = trained(tmp_path / "two", name, KERAS_BACKEND="tensorflow")
    np.testing.assert_allclose(other_history, history, rtol=1e-5)
    assert len(weights) > 4
    for one, two in zip(weights, other_weights, strict=True):
        np.testing.assert_allclose(two, one, rtol=1e-3, atol=1e-5)
    run = files.read_json(tmp_path / f"two/metrics/digits/{name}/run.json")
    assert run["backend"] == "jax"
    assert len(run["device"].split(", ")) == 2


def test_several_devices_of_one_process_end_with_the_figures_of_one(tmp_path):
    name = project(tmp_path / "one")
    history, weights = trained(tmp_path / "one", name)
    project(tmp_path / "four")
    devices = "--xla_force_host_platform_device_count=4"
    found = trained(tmp_path / "four", name, XLA_FLAGS=devices)
    np.testing.assert_allclose(found[0], history, rtol=1e-5)
    for one, four in zip(weights, found[1], strict=True):
        np.testing.assert_allclose(four, one, rtol=1e-3, atol=1e-5)


def test_a_command_starts_the_processes(tmp_path):
    """The command stands for srun or mpirun: it starts what it is given twice."""
    port = peers._free_port()
    files.write_text(
        tmp_path / "twice",
        "#!/bin/sh\n"
        f"export KERAS_DISTRIBUTION_JOB_ADDRESSES=127.0.0.1:{port}\n"
        "export KERAS_DISTRIBUTION_NUM_PROCESSES=2\n"
        'KERAS_DISTRIBUTION_PROCESS_ID=1 "$@" &\n'
        'KERAS_DISTRIBUTION_PROCESS_ID=0 "$@" && wait $!\n',
    )
    name = project(tmp_path / "two", launcher=f"sh '{tmp_path / 'twice'}'")
    history, _ = trained(tmp_path / "two", name)
    assert history.shape == (2, 5)
    run = files.read_json(tmp_path / f"two/metrics/digits/{name}/run.json")
    assert len(run["device"].split(", ")) == 2


def children_of(pid):
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(each) for each in found.stdout.split()]


def test_a_lost_process_ends_the_stage_with_one_line_and_the_run_goes_on(tmp_path):
    name = project(tmp_path / "whole", launcher=2, epochs=20)
    history, weights = trained(tmp_path / "whole", name)
    folder = tmp_path / "lost"
    project(folder, launcher=2, epochs=20)
    stage = start(folder, name)
    until = time.monotonic() + 120
    while len(list(folder.glob(".resume/*/epoch-*.json"))) < 2:
        assert time.monotonic() < until and stage.poll() is None
        time.sleep(0.02)
    started = children_of(stage.pid)
    os.kill(max(started), signal.SIGKILL)
    error = stage.communicate(timeout=60)[1]
    assert stage.returncode == 1
    assert "Traceback" not in error
    assert error.splitlines()[-1].startswith(f"stages.train {name}: {LINE} was ended by SIGKILL")
    assert not list(folder.glob("data/models/**/*.h5"))
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    kept = len(list(folder.glob(".resume/*/epoch-*.json")))
    assert 2 <= kept < 20
    resumed_history, resumed_weights = trained(folder, name)
    np.testing.assert_array_equal(resumed_history, history)
    for one, two in zip(weights, resumed_weights, strict=True):
        np.testing.assert_array_equal(one, two)


def test_processes_end_when_the_stage_that_started_them_is_killed(tmp_path):
    name = project(tmp_path, launcher=2, epochs=2000)
    stage = start(tmp_path, name)
    until = time.monotonic() + 120
    while not list(tmp_path.glob(".resume/*/epoch-*.json")):
        assert time.monotonic() < until and stage.poll() is None
        time.sleep(0.05)
    started = children_of(stage.pid)
    assert len(started) == 2
    stage.kill()
    stage.communicate()
    while any(Path("/proc", str(pid)).exists() for pid in started):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_process_that_finds_its_mistake_tells_it(tmp_path):
    name = project(tmp_path, launcher=2)
    given = yaml.safe_load((tmp_path / "params.yaml").read_text(encoding="utf-8"))
    given["experiments"][name]["codes"]["layers"] = ["nowhere"]
    files.write_text(tmp_path / "params.yaml", yaml.safe_dump(given))
    stage = start(tmp_path, name)
    error = stage.communicate(timeout=120)[1]
    assert stage.returncode == 1
    assert "Traceback" not in error
    assert f"stages.peers {name}: codes.layers: no layer 'nowhere'" in error


def test_without_jax_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"cluster\.launcher.*pip install -e '\.\[cluster\]'"):
        peers.train_together(2, "digits-siamese")


@pytest.mark.parametrize("launcher", [0, -1, "", True, 1.5])
def test_a_launcher_is_a_number_or_a_command(tmp_path, launcher):
    project(tmp_path, launcher=launcher)
    with pytest.raises(UserError, match=r"cluster\.launcher"):
        params.load(tmp_path / "params.yaml")


def test_a_launcher_with_a_quote_too_few_is_one_clear_line():
    with pytest.raises(UserError, match=r"cluster\.launcher: no command: No closing quotation"):
        peers.train_together("srun 'x", "digits-siamese")


def test_a_missing_launcher_is_one_clear_line(tmp_path):
    name = project(tmp_path, launcher="no-such-launcher --ntasks=2")
    stage = start(tmp_path, name)
    error = stage.communicate(timeout=120)[1]
    assert stage.returncode == 1
    assert error.strip() == f"stages.train {name}: no-such-launcher: No such file or directory"
