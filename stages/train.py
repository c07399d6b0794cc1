"""Stage `train`: one network, for one objective, on the seen classes of one dataset.

data/arrays/<dataset>  ->  data/models/<dataset>/<experiment>.weights.h5, and in
metrics/<dataset>/<experiment>: history.csv (a row an epoch) and run.json (seconds, device).

After each epoch the state is kept under .resume/, so that a killed run goes on from there and
ends with the same bytes: everything random is drawn anew each epoch from (seed, epoch). The last
state stays until `encode` has read the weights: by then DVC has them, too. Several processes that
train together (params.yaml: cluster.launcher) leave their states there as well.
"""

import collections
import csv
import hashlib
import importlib
import io
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from stages import augmentation, backend, devices, files, params, peers, pixels
from stages.assembly import assemble
from stages.backend import keras
from stages.command import UserError, run
from stages.objectives import Objective
from stages.optimizers import learning_rates


class Batches:
    """The batches of one epoch after another, the same for the same (seed, epoch).

    Args:
        images: uint8 (classes, examples, height, width, channels).
        objective: says which images make a batch and what they are to be.
        training: batch size, steps and augmentation.
        seed: where every draw comes from.
        augment: False for validation, whose batches are the same in every epoch.
    """

    def __init__(self, images, objective: Objective, training: params.Training, seed, *, augment):
        self.classes, self.examples = images.shape[:2]
        self.images = images.reshape(-1, *images.shape[2:])
        self.objective, self.training = objective, training
        self.seed, self.augment = seed, augment
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw the batches of an epoch."""
        self.epoch = epoch
        self.size = self.training.sizes()[epoch] if self.augment else None
        self.drawn = self.objective.draw(
            np.random.default_rng([self.seed, epoch]),
            classes=self.classes,
            examples=self.examples,
            batch=self.training.batch,
            steps=self.training.steps if self.augment else None,
        )

    def __len__(self) -> int:
        return len(self.drawn)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """Return images and targets of one batch of the epoch."""
        indices = self.drawn[step]
        images = self.images[indices]
        if self.augment:
            rng = np.random.default_rng([self.seed, self.epoch, step])
            chosen = self.training.augmentation
            images = augmentation.augmented(rng, images, chosen, size=self.size)
        return images, self.objective.targets(indices // self.examples)

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the epoch's batches, made by other threads while those before are used.

        By a thread for every two cores: on two of them, the other one computes. With a GPU they
        have to be as fast together as it is.
        """
        threads = max(1, (os.cpu_count() or 1) // 2)
        coming = collections.deque()
        with ThreadPoolExecutor(threads) as makers:
            for step in range(len(self)):
                coming.append(makers.submit(self.batch, step))
                if len(coming) > threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


class Progress:
    """Keeps the state of a training after each epoch, and takes it up again.

    An epoch counts from the moment that its weights stand under their name, with the history in
    a file beside them: a run killed at any moment finds one whole state.

    Args:
        folder: where the state is kept.
        patience: epochs without a lower validation loss after which training stops; None: never.
    """

    def __init__(self, folder: Path, *, patience: int | None):
        self.folder, self.patience = folder, patience
        self.history: list[dict[str, float]] = []
        self.seconds, self.images = 0.0, 0
        self.description: dict[str, object] = {}

    def best(self) -> int:
        """Return the epoch whose weights are kept: of lowest validation loss, or the last."""
        if self.patience is None:
            return len(self.history) - 1
        return int(np.argmin([row["val_loss"] for row in self.history]))

    def finished(self) -> bool:
        """Return whether the validation loss has not fallen for `patience` epochs."""
        if self.patience is None or not self.history:
            return False
        return len(self.history) - 1 - self.best() >= self.patience

    def weights(self, epoch: int) -> Path:
        """Return where the weights and the optimizer's state after an epoch are kept."""
        return self.folder / f"epoch-{epoch:04}.weights.h5"

    def resume(self, model: keras.Model) -> None:
        """Load the last whole state, if there is one."""
        kept = sorted(self.folder.glob("epoch-*.weights.h5"))
        devices.agreed("the epochs that were finished", len(kept) and int(kept[-1].name[6:10]) + 1)
        if not kept:
            return
        try:
            path = kept[-1].with_name(kept[-1].name.replace(".weights.h5", ".json"))
            state = files.read_json(path)
            self.history = state["history"]
            self.seconds, self.images = state["seconds"], state["images"]
            self.description = state["description"]
        except (UserError, KeyError, TypeError):
            raise UserError(
                f"{path}: no state of a training in it; delete the folder {self.folder}, and the "
                "training starts anew"
            ) from None
        model.optimizer.build(model.trainable_variables)
        backend.load_weights(model, kept[-1])
        if devices.is_first():
            print(f"going on after epoch {len(self.history)}", flush=True)

    def keep(
        self, model: keras.Model, row: dict[str, float], *, seconds: float, images: int
    ) -> None:
        """Keep the state after an epoch of so many images, of which `row` is the history.

        Of several processes the first one writes it.
        """
        epoch = len(self.history)
        self.history.append({"epoch": epoch + 1} | row)
        self.seconds += seconds
        self.images += images
        self.description = backend.description()
        if not devices.is_first():
            return
        state = self.weights(epoch)
        files.write_json(
            state.with_name(f"epoch-{epoch:04}.json"),
            {
                "history": self.history,
                "seconds": self.seconds,
                "images": self.images,
                "description": self.description,
            },
        )
        with devices.alone(), files.replacing(state) as partial:
            save_weights(model, partial)
        kept = {self.weights(self.best()).name, state.name}
        for old in self.folder.glob("epoch-*.weights.h5"):
            if old.name not in kept:
                old.unlink()


def fit(
    images: np.ndarray,
    validation: np.ndarray | None,
    experiment: params.Experiment,
    *,
    seed: int,
    folder: Path,
) -> tuple[Objective, Progress]:
    """Train an experiment's network, going on from what `folder` keeps.

    Args:
        images: uint8 (classes, examples, height, width, channels) to train on.
        validation: the same of other images of these classes, or None; looked at after each
            epoch, for early stopping.
        experiment: its section of params.yaml.
        seed: where initial weights, batches, dropout and augmentation come from.
        folder: where the state is kept from epoch to epoch.

    Returns:
        The objective after the last epoch, and the progress with history and seconds, which keeps
        the weights of the best one.

    Raises:
        UserError: when the loss is no number, and when the network cannot take smaller images.
    """
    training = experiment.training
    backend.set_up(seed, precision=training.precision, jit_compile=training.jit_compile)
    devices.use_all()
    if keras.config.dtype_policy().name != training.precision and devices.is_first():
        print("this processor does not compute bfloat16: float32 in its place", flush=True)
    _, objective = assemble(experiment, images.shape[2:], len(images))
    model = objective.model
    batches = Batches(images, objective, training, seed, augment=True)
    models = make_ready(objective, training, steps=training.epochs * len(batches))
    progress = Progress(folder, patience=training.early_stopping)
    progress.resume(model)
    if validation is not None:
        looked_at = Batches(validation, objective, training, seed, augment=False)
    while len(progress.history) < training.epochs and not progress.finished():
        epoch, started = len(progress.history), time.perf_counter()
        batches.begin(epoch)
        seed_dropout(model, seed, epoch)
        title = f"epoch {epoch + 1}/{training.epochs}"
        row = one_pass(models[batches.size], batches, title, learn=True)
        if validation is not None and math.isfinite(row["loss"]):
            figures = one_pass(model, looked_at, f"{title}, validation", learn=False)
            row |= {f"val_{name}": figure for name, figure in figures.items()}
        for figure in ("loss", "val_loss"):
            if not math.isfinite(row.get(figure, 0)):
                raise UserError(
                    f"the {figure} is {row[figure]} in epoch {epoch + 1}; lower "
                    "training.optimizer.learning_rate or look at the images"
                )
        seconds = time.perf_counter() - started
        drawn = sum(each.size for each in batches.drawn)
        progress.keep(model, row, seconds=seconds, images=drawn)
        figures = ", ".join(f"{name} {figure:.4f}" for name, figure in row.items())
        if devices.is_first():
            print(f"{title}: {figures}, {seconds:.0f} s", flush=True)
    return objective, progress


def one_pass(model: keras.Model, batches: Batches, title: str, *, learn: bool) -> dict[str, float]:
    """Give every batch to the model, and return the mean loss and metrics of the images.

    Where the device computes a step while the next one is prepared, by `model.fit`. Elsewhere batch
    by batch: the TensorFlow pipeline of `model.fit` may sleep at the end of an epoch for as long as
    the epoch took (its tuning thread wakes after 10, 20, 40 seconds).

    Args:
        model: compiled.
        batches: of one epoch.
        title: what the bar on a terminal is called.
        learn: False to look at the batches only.
    """
    hidden = None if devices.is_first() else True  # None: shown on a terminal
    bar = tqdm.tqdm(batches, title, total=len(batches), unit="batch", disable=hidden, leave=False)
    if devices.runs_ahead():
        given, steps = (batch for batch in bar), len(batches)
        if not learn:
            return model.evaluate(given, steps=steps, verbose=0, return_dict=True)
        history = model.fit(given, steps_per_epoch=steps, shuffle=False, verbose=0).history
        return {name: figures[0] for name, figures in history.items()}
    step = model.train_on_batch if learn else model.test_on_batch
    totals, count = collections.Counter(), 0
    for images, targets in bar:
        for name, figure in step(*devices.part(images, targets), return_dict=True).items():
            totals[name] += float(figure) * len(images)
        count += len(images)
    return {name: total / count for name, total in totals.items()}


def save_weights(model: keras.Model, path: Path) -> None:
    """Save a model's weights, and the optimizer's state where it has one.

    The room is asked for before: on a full disk HDF5 ends Python by a signal.

    Raises:
        OSError: when the disk has no room for them.
    """
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *(optimizer.variables if optimizer else [])]
    room = sum(4 * math.prod(each.shape) + 4096 for each in variables)  # and HDF5's own pages
    with open(path, "wb") as file:
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, room)
    model.save_weights(path)


def seed_dropout(model: keras.Model, seed: int, epoch: int) -> None:
    """Seed each dropout layer for an epoch, so that its draws do not depend on those before."""
    for index, layer in enumerate(model._flatten_layers()):
        if generator := getattr(layer, "seed_generator", None):
            draws = np.random.default_rng([seed, epoch, index])
            generator.state.assign(draws.integers(0, 2**31, 2))


def make_ready(
    objective: Objective, training: params.Training, *, steps: int
) -> dict[int | None, keras.Model]:
    """Compile an objective's model, to be trained for so many steps.

    Returns:
        The compiled model for each of `params.Training.sizes`; of the same layers, weights and
        optimizer, so that what the one learns the others know.

    Raises:
        UserError: when a layer's weights are made for images of the whole size.
    """
    models = {None: objective.model}
    for resizing in training.progressive_resizing:
        models[resizing.size] = at_size(objective.model, resizing.size)
    chosen = optimizer(training.optimizer, steps=steps)
    for model in models.values():
        model.compile(
            optimizer=chosen,
            loss=objective.loss,
            metrics=objective.metrics,
            jit_compile=training.jit_compile,
        )
    return models


def at_size(model: keras.Model, size: int) -> keras.Model:
    """Return a model of the same layers for images of another size."""
    *others, _, _, channels = model.input.shape[1:]
    images = keras.Input((*others, size, size, channels), dtype=model.input.dtype)
    try:
        return keras.models.clone_model(model, images, clone_function=lambda layer: layer)
    except ValueError as error:
        raise UserError(
            f"training.progressive_resizing: the network takes no {size} x {size} images; "
            f"set it to [] ({' '.join(str(error).split())[:200]})"
        ) from None


def optimizer(chosen: params.Optimizer, *, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer, its learning rate's course stretched over all `steps` batches."""
    rates = learning_rates(chosen.learning_rate, chosen.schedule, steps=steps)
    build = importlib.import_module(f"stages.optimizers.{chosen.name}").build
    return build(rates if isinstance(rates, float) else Course(rates), **chosen.settings)


class Course(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate for each step.

    Args:
        rates: float32 (steps,).
    """

    def __init__(self, rates: np.ndarray):
        super().__init__()
        self.rates = rates

    def __call__(self, step):
        """Return the learning rate of a step, counted from 0; after the last one, the last."""
        return keras.ops.take(self.rates, keras.ops.minimum(step, len(self.rates) - 1))


def modules(experiment: params.Experiment) -> list[str]:
    """Return the files of stages/ that a training's code consists of, as dvc.yaml names them."""
    rooms = {"networks": experiment.network, "objectives": experiment.objective}
    rooms["optimizers"] = experiment.training.optimizer
    core = ("train", "assembly", "augmentation", "backend", "devices", "pixels", "measures/pairs")
    shared = (f"{room}/__init__" for room in ("objectives", "optimizers"))
    chosen = (f"{room}/{each.name}" for room, each in rooms.items())
    return [f"{module}.py" for module in (*core, *shared, *chosen)]


def resume_folder(
    name: str,
    experiment: params.Experiment,
    seed: int,
    images: np.ndarray,
    validation: np.ndarray | None,
) -> Path:
    """Return where a training's state is kept: another place when anything that it uses changes.

    That are versions of packages, too, of all backends: which one trains may be for the training's
    own processes to say.
    """
    digest = hashlib.sha256(repr((seed, experiment.network, experiment.objective)).encode())
    digest.update(repr(experiment.training).encode())
    digest.update(repr(backend.versions()).encode())
    for module in modules(experiment):
        digest.update((Path(__file__).parent / module).read_bytes())
    for array in (images, validation):
        if array is not None:
            digest.update(repr(array.shape).encode())
            digest.update(array)
    return files.state_folder("train", name, digest.hexdigest()[:16])


def as_csv(history: list[dict[str, float]]) -> str:
    """Return the history as CSV, a row an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def inputs(settings: params.Params, name: str) -> dict[str, Any]:
    """Return what `fit` is given for an experiment, by the names of its arguments."""
    experiment = settings.experiment(name)
    arrays = pixels.as_given(files.read_splits(experiment.dataset), experiment.images)
    images, validation = arrays["seen_train"], arrays.get("seen_validation")
    folder = resume_folder(name, experiment, settings.seed, images, validation)
    if experiment.training.augmentation.rotated_classes:
        images = augmentation.with_rotated_classes(images)
        validation = None if validation is None else augmentation.with_rotated_classes(validation)
    return {
        "images": images,
        "validation": validation,
        "experiment": experiment,
        "seed": settings.seed,
        "folder": folder,
    }


def main(name: str) -> None:
    """Train one experiment and write its weights, history and run."""
    settings = params.load()
    experiment = settings.experiment(name)
    given = inputs(settings, name)
    if settings.cluster.launcher:
        peers.train_together(settings.cluster.launcher, name)
    objective, progress = fit(**given)  # what is left of it: after several processes, nothing
    backend.load_weights(objective.model, progress.weights(progress.best()))

    metrics = Path("metrics", experiment.dataset, name)
    with files.replacing(Path("data/models", experiment.dataset, f"{name}.weights.h5")) as partial:
        # A new model around the same layers: without the optimizer's state, three times smaller.
        save_weights(keras.Model(objective.model.inputs, objective.model.outputs), partial)
    files.write_text(metrics / "history.csv", as_csv(progress.history))
    files.write_json(
        metrics / "run.json",
        {
            "epochs": len(progress.history),
            "seconds": round(progress.seconds, 1),
            "images_per_second": round(progress.images / progress.seconds),
            **progress.description,
        },
    )


if __name__ == "__main__":
    run(main)
