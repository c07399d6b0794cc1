"""Training: the same bytes again, whole or in pieces; early stopping; a loss that is no number."""

import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from dvc.repo import Repo

from stages import backend, files, params, train
from stages.assembly import assemble
from stages.backend import keras
from stages.command import UserError
from stages.optimizers import learning_rates

ROOT = Path(__file__).parent.parent
PARAMS = params.load(ROOT / "params.yaml")


def images(examples=6, seed=0):
    """Return 4 classes of 8x8 images, each around a grey of its own."""
    rng = np.random.default_rng(seed)
    greys = np.array([30, 90, 150, 210])[:, None, None, None, None]
    return (greys + rng.integers(-25, 26, (4, examples, 8, 8, 1))).astype(np.uint8)


def experiment(name, *, network=None, objective=None, **changed):
    """Return one of the digits' experiments, small, with dropout and augmentation."""
    given = PARAMS.experiments[name].model_dump(by_alias=True)
    given["training"] |= {"epochs": 4, "batch": 8, "early_stopping": None} | changed
    given["network"] |= network or {}
    given["objective"] |= objective or {}
    return params.Experiment.model_validate(given)


SIAMESE = {"examples_per_class": 2}
SMALLER = {"progressive_resizing": [{"size": 4, "epochs": 2}, {"size": 6, "epochs": 1}]}
MUON = PARAMS.experiments["cifar100-fast-muon"].training.optimizer.model_dump()
SYSTEMS = {
    "classifier": ("digits-classifier", {}),
    "muon": ("digits-classifier", {"optimizer": MUON}),
    "progressive-resizing": ("cifar100-fast", {"network": {"filters": [8]}} | SMALLER),
    "fused": ("cifar100-fast-muon", {"network": {"filters": [8]}}),
    "members": ("cifar100-fast", {"network": {"filters": [8], "members": 2}} | SMALLER),
    "all-pairs": ("digits-siamese", {"objective": SIAMESE}),
    "random-pairs": (
        "digits-siamese",
        {"objective": {"pairs": "random", "examples_per_class": 0, "loss": "binary"}},
    ),
}


def fit(chosen, folder, validation=None):
    keras.backend.clear_session()
    objective, progress = train.fit(images(), validation, chosen, seed=3, folder=folder)
    return [value.tobytes() for value in objective.model.get_weights()], progress.history


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(system, tmp_path, monkeypatch):
    name, changed = SYSTEMS[system]
    chosen = experiment(name, **changed)
    whole = fit(chosen, tmp_path / "whole")
    assert fit(chosen, tmp_path / "again") == whole

    keep = train.Progress.keep

    def killed(self, *state, **cost):
        if len(self.history) == 2:
            raise KeyboardInterrupt
        keep(self, *state, **cost)

    monkeypatch.setattr(train.Progress, "keep", killed)  # at the end of the third epoch
    with pytest.raises(KeyboardInterrupt):
        fit(chosen, tmp_path / "parts")
    monkeypatch.undo()
    assert fit(chosen, tmp_path / "parts") == whole


def test_progressive_resizing_trains_the_same_network_on_smaller_images_first(
    tmp_path, monkeypatch
):
    sides, one_pass = [], train.one_pass

    def watched(model, batches, title, *, learn):
        sides.append({images.shape[1:3] for images, _ in batches})
        return one_pass(model, batches, title, learn=learn)

    monkeypatch.setattr(train, "one_pass", watched)
    chosen = experiment("cifar100-fast", network={"filters": [8]}, epochs=12, **SMALLER)
    _, history = fit(chosen, tmp_path, validation=images(seed=1))
    trained, validated = sides[::2], sides[1::2]
    assert trained == [{(4, 4)}] * 2 + [{(6, 6)}] + [{(8, 8)}] * 9
    assert validated == [{(8, 8)}] * 12
    assert history[-1]["val_loss"] < history[0]["val_loss"] - 0.2


def test_batches_come_in_their_order_however_many_threads_make_them(monkeypatch):
    keras.backend.clear_session()
    chosen = experiment("digits-classifier")
    _, objective = assemble(chosen, (8, 8, 1), 4)
    monkeypatch.setattr(train.os, "cpu_count", lambda: 8)
    batches = train.Batches(images(), objective, chosen.training, 3, augment=True)
    assert len(batches) == 3
    for step, (given, targets) in enumerate(batches):
        expected, expected_targets = batches.batch(step)
        np.testing.assert_array_equal(given, expected)
        np.testing.assert_array_equal(targets, expected_targets)
    assert step == 2


def test_what_is_learned_of_small_images_the_model_for_whole_ones_knows():
    keras.backend.clear_session()
    chosen = experiment("cifar100-fast", network={"filters": [8]}, **SMALLER)
    _, objective = assemble(chosen, (8, 8, 1), 4)
    models = train.make_ready(objective, chosen.training, steps=8)
    whole, small = models[None], models[4]
    assert list(models) == [None, 4, 6]
    assert whole is objective.model
    before = whole.get_weights()
    small.train_on_batch(images()[:, 0, ::2, ::2], np.arange(4))
    for one, other in zip(whole.variables, small.variables, strict=True):
        assert one is other
    assert not all((old == new).all() for old, new in zip(before, whole.get_weights(), strict=True))
    assert whole.optimizer is small.optimizer
    assert int(whole.optimizer.iterations) == 1


def test_a_network_made_for_one_size_of_images_says_so(tmp_path):
    chosen = experiment("digits-siamese", objective=SIAMESE, **SMALLER)
    message = "progressive_resizing: the network takes no 4 x 4 images; set it to \\[\\]"
    with pytest.raises(UserError, match=message):
        fit(chosen, tmp_path)


def test_a_finished_training_that_dvc_has_not_saved_is_not_repeated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = PARAMS.model_copy(
        update={"experiments": {"x": experiment("digits-siamese", objective=SIAMESE)}}
    )
    monkeypatch.setattr(params, "load", lambda: settings)
    for split in ("seen_train", "seen_test", "unseen"):
        files.write_array(f"data/arrays/digits/{split}.npy", images())

    def made():
        return {path: path.read_bytes() for path in tmp_path.rglob("*x*") if path.is_file()}

    keras.backend.clear_session()
    train.main("x")
    weights = made()
    shutil.rmtree("data/models")  # killed after the stage, DVC runs it again
    monkeypatch.setattr(train, "one_pass", None)  # not one epoch of it
    keras.backend.clear_session()
    train.main("x")
    assert made() == weights
    files.forget_states("train", "other")
    assert list(Path(".resume").iterdir())
    files.forget_states("train", "x")  # as `encode` does
    assert not list(Path(".resume").iterdir())


def test_a_gradient_over_many_images_has_the_same_bytes_every_time():
    """It had not where TensorFlow ran operations side by side: see backend.py."""
    backend.set_up(1)
    chosen = PARAMS.experiments["omniglot-siamese"]
    _, objective = assemble(chosen, (28, 28, 1), 128)
    given = np.random.default_rng(0).integers(0, 256, (512, 28, 28, 1)).astype(np.uint8)
    model = objective.model
    model.compile(keras.optimizers.SGD(0.1), objective.loss)
    first, found = model.get_weights(), set()
    for _ in range(20):
        model.set_weights(first)
        model.train_on_batch(given, np.repeat(np.arange(128), 4))
        found.add(b"".join(weights.tobytes() for weights in model.get_weights()))
    assert len(found) == 1


def test_another_seed_gives_other_weights(tmp_path):
    chosen = experiment("digits-classifier")
    first = train.fit(images(), None, chosen, seed=1, folder=tmp_path / "1")[1].history
    other = train.fit(images(), None, chosen, seed=2, folder=tmp_path / "2")[1].history
    assert first != other


def test_early_stopping_keeps_the_best_epoch_also_when_resumed(tmp_path):
    chosen = experiment("digits-classifier", epochs=30, early_stopping=2)
    shuffled = images(seed=5)[[1, 0, 3, 2]]  # wrong labels: the loss rises as training goes on
    weights, history = fit(chosen, tmp_path, shuffled)
    losses = [row["val_loss"] for row in history]
    assert len(losses) < 30
    assert len(losses) - 1 - int(np.argmin(losses)) == 2
    assert fit(chosen, tmp_path, shuffled) == (weights, history)  # finished: nothing is trained


def weights_in(path, chosen):
    """Return the bytes of the weights in a file, as `fit` returns those of a model."""
    _, objective = assemble(chosen, (8, 8, 1), 4)
    backend.load_weights(objective.model, path)
    return [value.tobytes() for value in objective.model.get_weights()]


def test_the_best_epoch_has_the_weights_of_a_training_that_ends_with_it(tmp_path):
    chosen = experiment("digits-classifier", epochs=30, early_stopping=2)
    assert chosen.training.optimizer.schedule == "constant"  # not stretched over the epochs
    shuffled = images(seed=5)[[1, 0, 3, 2]]
    last, history = fit(chosen, tmp_path / "longer", shuffled)
    progress = train.Progress(tmp_path / "longer", patience=2)
    progress.history = history
    kept = weights_in(progress.weights(progress.best()), chosen)
    assert kept != last
    shorter = experiment("digits-classifier", epochs=progress.best() + 1)
    assert kept == fit(shorter, tmp_path / "shorter", shuffled)[0]


def test_the_stage_writes_the_weights_of_the_best_epoch(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chosen = experiment("digits-classifier", epochs=30, early_stopping=2)
    settings = PARAMS.model_copy(update={"experiments": {"x": chosen}})
    monkeypatch.setattr(params, "load", lambda: settings)
    for split in ("seen_train", "seen_test", "unseen"):
        files.write_array(f"data/arrays/digits/{split}.npy", images())
    files.write_array("data/arrays/digits/seen_validation.npy", images(seed=5)[[1, 0, 3, 2]])
    keras.backend.clear_session()
    train.main("x")
    best, last = sorted(Path(".resume").rglob("*.weights.h5"))
    written = weights_in("data/models/digits/x.weights.h5", chosen)
    assert written == weights_in(best, chosen) != weights_in(last, chosen)


def test_learning_lowers_the_loss(tmp_path):
    _, history = fit(experiment("digits-classifier", epochs=8), tmp_path)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_a_loss_that_is_no_number_stops_with_a_clear_line_and_keeps_the_last_state(tmp_path):
    optimizer = PARAMS.experiments["digits-classifier"].training.optimizer.model_dump()
    broken = experiment("digits-classifier", optimizer=optimizer | {"learning_rate": 1e38})
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in epoch \d; lower"):
        fit(broken, tmp_path)
    for state in tmp_path.glob("*.json"):
        assert "NaN" not in state.read_text(encoding="utf-8")


SCHEDULES = {
    "constant": [0.1] * 5,
    "cosine": [0.1, 0.1 * (1 + 0.5**0.5) / 2, 0.05, 0.1 * (1 - 0.5**0.5) / 2, 0.0],
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_learning_rate_follows_its_schedule(schedule):
    chosen = params.Optimizer(name="adam", learning_rate=0.1, schedule=schedule, amsgrad=False)
    optimizer = train.optimizer(chosen, steps=8)
    assert optimizer.amsgrad is False
    rates = []
    for step in (0, 2, 4, 6):
        optimizer.iterations.assign(step)
        rates.append(float(optimizer.learning_rate))
    assert rates == pytest.approx(SCHEDULES[schedule][:4], abs=1e-6)


def test_a_one_cycle_rises_for_a_fifth_and_falls_for_the_rest():
    rates = learning_rates(0.5, "one_cycle", steps=100)
    assert rates.argmax() == 20
    assert rates[20] == pytest.approx(0.5)
    assert rates[0] == pytest.approx(0.5 / 21)
    assert (np.diff(rates[:21]) > 0).all()
    assert (np.diff(rates[20:]) < 0).all()
    assert rates[-1] < 1e-3
    course = train.Course(rates)
    assert float(course(7)) == pytest.approx(rates[7])
    assert float(course(100)) == float(course(99))  # asked for after the last step


def test_figures_of_an_epoch_are_the_means_over_its_images(monkeypatch):
    monkeypatch.setattr(train.devices, "runs_ahead", lambda: False)
    batches = [(np.zeros(3), 1), (np.zeros(1), 2)]  # 3 images, then 1
    told = {1: {"loss": 4.0}, 2: {"loss": 8.0}}
    model = types.SimpleNamespace(test_on_batch=lambda x, y, return_dict: told[y])
    assert train.one_pass(model, batches, "epoch", learn=False) == {"loss": 5.0}


@pytest.mark.parametrize(
    ("flags", "precision"),
    [("flags : avx2 avx512f avx512_bf16", "mixed_bfloat16"), ("flags : avx2 avx512f", "float32")],
)
def test_bfloat16_is_float32_on_a_processor_without_it(flags, precision, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(flags, encoding="utf-8")
    monkeypatch.setattr(backend, "_FLAGS", tmp_path / "cpuinfo")
    backend.set_up(1, precision="mixed_bfloat16")
    assert backend.description()["precision"] == precision
    monkeypatch.setattr(backend, "_FLAGS", tmp_path / "none")  # not on Linux
    backend.set_up(1, precision="mixed_bfloat16")
    assert backend.description()["precision"] == "float32"
    backend.set_up(1)


def test_a_processor_without_bfloat16_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(backend, "computes_bfloat16", lambda: False)
    fit(experiment("digits-classifier", precision="mixed_bfloat16", epochs=1), tmp_path)
    assert "float32 in its place" in capsys.readouterr().out
    backend.set_up(1)


def test_a_backend_that_is_not_there_is_one_line():
    name = "nonsense"
    words = [sys.executable, "-m", "stages.train", "digits-siamese"]
    here = os.environ | {"KERAS_BACKEND": name}
    stage = subprocess.run(words, cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert stage.returncode == 1
    assert stage.stderr.startswith(f"KERAS_BACKEND={name}: ")
    assert "Traceback" not in stage.stderr


def test_where_no_temporary_file_can_be_made_keras_is_imported_all_the_same(monkeypatch, capfd):
    def full():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(backend.tempfile, "TemporaryFile", full)
    with backend._quietly():
        os.write(2, b"a greeting")
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_mixed_precision_trains_float32_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "computes_bfloat16", lambda: True)
    chosen = experiment("digits-classifier", precision="mixed_bfloat16", epochs=8)
    keras.backend.clear_session()
    objective, progress = train.fit(images(), None, chosen, seed=3, folder=tmp_path)
    assert {str(weight.dtype) for weight in objective.model.get_weights()} == {"float32"}
    assert objective.model.output.dtype == "float32"
    assert progress.history[-1]["loss"] < 0.7 * progress.history[0]["loss"]
    backend.set_up(1)


_LOSSES = """
import pathlib, sys
from tests import test_train
chosen = test_train.experiment(
    "digits-classifier",
    network={"dropout": 0.0},  # XLA draws other numbers
    jit_compile=sys.argv[1] == "xla",
    epochs=2,
)
print([row["loss"] for row in test_train.fit(chosen, pathlib.Path(sys.argv[2]))[1]])
"""


def test_compiled_by_xla_the_same_is_learned(tmp_path):
    losses = []
    for way in ("xla", "graph"):  # a process each: TensorFlow is made deterministic once for all
        command = [sys.executable, "-W", "error::UserWarning", "-c", _LOSSES, way, tmp_path / way]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        losses.append(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)


@pytest.mark.parametrize(("has_gpu", "name"), [(False, "cpu:0"), (True, "cuda:0")])
def test_torch_whose_devices_keras_does_not_list_names_its_own(has_gpu, name, monkeypatch):
    cuda = types.SimpleNamespace(is_available=lambda: has_gpu)
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    monkeypatch.setattr(keras.distribution, "list_devices", None)  # as Keras 3.15 has it: broken
    assert backend.device_names() == [name]


def test_a_batch_that_cannot_be_made_ends_the_training(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise UserError("no such image")

    monkeypatch.setattr(train.augmentation, "augmented", broken)  # in the thread that makes them
    with pytest.raises(UserError, match="no such image"):
        fit(experiment("digits-classifier"), tmp_path)


def test_the_state_is_kept_apart_for_other_params_seed_or_images():
    first = experiment("digits-classifier")
    other = images(seed=1)
    given = [
        (first, 1, images(), None),
        (first, 2, images(), None),
        (first, 1, other, None),
        (experiment("digits-classifier", batch=4), 1, images(), None),
        (first, 1, images(), images()),
        (first, 1, images(), other),
        (first, 1, images().reshape(1, -1, *other.shape[2:]), None),
    ]
    folders = {train.resume_folder("x", *each) for each in given}
    assert len(folders) == len(given)
    assert train.resume_folder("x", first, 1, images(), None) in folders


def test_the_state_is_kept_apart_for_other_versions(monkeypatch):
    given = "x", experiment("digits-classifier"), 1, images(), None
    before = train.resume_folder(*given)
    assert backend.versions()["keras"] == keras.__version__
    monkeypatch.setattr(backend, "versions", lambda: {"keras": "4.0"})
    assert train.resume_folder(*given) != before


@pytest.mark.parametrize("content", ["{", "{}", "[]", '{"history": []}'])
def test_a_damaged_state_is_one_line_that_helps(tmp_path, content):
    chosen = experiment("digits-classifier", epochs=1)
    fit(chosen, tmp_path)
    (state,) = tmp_path.glob("*.json")
    state.write_text(content)
    with pytest.raises(UserError, match=f"{state}: no state .* delete the folder {tmp_path}"):
        fit(chosen, tmp_path)


def test_the_state_is_kept_apart_for_other_code():
    with Repo(ROOT) as repo:
        stages = {stage.name: stage for stage in repo.index.stages}
    for name, chosen in PARAMS.experiments.items():
        listed = {dep.def_path for dep in stages[f"train@{name}"].deps}
        code = {path for path in listed if path.endswith(".py")}
        assert {f"stages/{module}" for module in train.modules(chosen)} == code


def test_a_validation_loss_that_is_no_number_ends_the_training(tmp_path, monkeypatch):
    one_pass = train.one_pass

    def broken(model, batches, title, *, learn):
        return one_pass(model, batches, title, learn=True) if learn else {"loss": float("inf")}

    monkeypatch.setattr(train, "one_pass", broken)
    with pytest.raises(UserError, match="the val_loss is inf in epoch 1; lower"):
        fit(experiment("digits-classifier"), tmp_path, images(seed=1))
    assert not list(tmp_path.glob("epoch-*"))


def test_the_history_is_a_table_with_a_row_an_epoch():
    assert train.as_csv([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}]) == (
        "epoch,loss\n1,0.5\n2,0.25\n"
    )
