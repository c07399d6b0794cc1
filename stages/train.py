"""Stage `train`: one network, for one objective, on the seen classes of one dataset.

data/arrays/<dataset>  ->  data/models/<dataset>/<experiment>.weights.h5, and in
metrics/<dataset>/<experiment>: history.csv (a row an epoch) and run.json (seconds, device).

After each epoch the state is kept under .resume/, so that a killed run goes on from there and
ends with the same bytes: everything random is drawn anew each epoch from (seed, epoch).
"""

import csv
import hashlib
import io
import math
import shutil
import sys
import time
from pathlib import Path

import numpy as np

from stages import augmentation, backend, files, params
from stages.assembly import assemble
from stages.backend import keras
from stages.command import UserError, run
from stages.objectives import Objective


class Batches(keras.utils.PyDataset):
    """The batches of one epoch after another, the same for the same (seed, epoch).

    Args:
        images: uint8 (classes, examples, height, width, channels).
        objective: says which images make a batch and what they are to be.
        training: batch size, steps and augmentation.
        seed: where every draw comes from.
        augment: False for validation, whose batches are the same in every epoch.
    """

    def __init__(self, images, objective: Objective, training: params.Training, seed, *, augment):
        super().__init__()
        self.classes, self.examples = images.shape[:2]
        self.images = images.reshape(-1, *images.shape[2:])
        self.objective, self.training = objective, training
        self.seed, self.augment = seed, augment
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw the batches of an epoch."""
        self.epoch = epoch
        self.drawn = self.objective.draw(
            np.random.default_rng([self.seed, epoch]),
            classes=self.classes,
            examples=self.examples,
            batch=self.training.batch,
            steps=self.training.steps if self.augment else None,
        )

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, step: int):
        indices = self.drawn[step]
        images = self.images[indices]
        if self.augment:
            rng = np.random.default_rng([self.seed, self.epoch, step])
            images = augmentation.augmented(rng, images, self.training.augmentation)
        return images, self.objective.targets(indices // self.examples)


class Progress(keras.callbacks.Callback):
    """Keeps the state of a training after each epoch, and takes it up again.

    An epoch counts from the moment that its weights stand under their name, with the history in
    a file beside them: a run killed at any moment finds one whole state.

    Args:
        folder: where the state is kept.
        batches: the training batches, told when an epoch begins.
        seed: where the dropout layers' draws come from.
        patience: epochs without a lower validation loss after which training stops; None: never.
    """

    def __init__(self, folder: Path, batches: Batches, *, seed: int, patience: int | None):
        super().__init__()
        self.folder, self.batches, self.seed, self.patience = folder, batches, seed, patience
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0

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

    def resume(self) -> int:
        """Load the last whole state, if there is one, and return the epoch to begin with."""
        kept = sorted(self.folder.glob("epoch-*.weights.h5"))
        if not kept:
            return 0
        state = files.read_json(kept[-1].with_name(kept[-1].name.replace(".weights.h5", ".json")))
        self.history, self.seconds = state["history"], state["seconds"]
        self.model.optimizer.build(self.model.trainable_variables)
        backend.load_weights(self.model, kept[-1])
        print(f"going on after epoch {len(self.history)}", flush=True)
        return len(self.history)

    def on_epoch_begin(self, epoch, logs=None):
        """Draw the epoch's batches, and seed each dropout layer for it."""
        self.started = time.perf_counter()
        self.batches.begin(epoch)
        for index, layer in enumerate(self.model._flatten_layers()):
            if generator := getattr(layer, "seed_generator", None):
                draws = np.random.default_rng([self.seed, epoch, index])
                generator.state.assign(draws.integers(0, 2**31, 2))

    def on_epoch_end(self, epoch, logs=None):
        """Keep the state, or stop when the loss is no number."""
        if not math.isfinite(logs["loss"]):
            raise UserError(
                f"the loss is {logs['loss']} in epoch {epoch + 1}; lower "
                "training.optimizer.learning_rate or look at the images"
            )
        self.history.append({"epoch": epoch + 1} | {name: float(logs[name]) for name in logs})
        self.seconds += time.perf_counter() - self.started
        state = self.weights(epoch)
        files.write_json(
            state.with_name(f"epoch-{epoch:04}.json"),
            {"history": self.history, "seconds": self.seconds},
        )
        with files.replacing(state) as partial:
            self.model.save_weights(partial)
        kept = {self.weights(self.best()).name, state.name}
        for old in self.folder.glob("epoch-*.weights.h5"):
            if old.name not in kept:
                old.unlink()
        self.model.stop_training = self.finished()


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
        The trained objective, and the progress with history and seconds.
    """
    training = experiment.training
    backend.make_deterministic(seed)
    _, objective = assemble(experiment, images.shape[2:], len(images))
    batches = Batches(images, objective, training, seed, augment=True)
    looked_at = None
    if validation is not None:
        looked_at = Batches(validation, objective, training, seed, augment=False)
    objective.model.compile(
        optimizer=optimizer(training.optimizer, steps=training.epochs * len(batches)),
        loss=objective.loss,
        metrics=objective.metrics,
    )
    progress = Progress(folder, batches, seed=seed, patience=training.early_stopping)
    progress.set_model(objective.model)
    first = progress.resume()
    if first < training.epochs and not progress.finished():
        objective.model.fit(
            batches,
            validation_data=looked_at,
            epochs=training.epochs,
            initial_epoch=first,
            callbacks=[progress],
            verbose=1 if sys.stdout.isatty() else 2,
            shuffle=False,
        )
    backend.load_weights(objective.model, progress.weights(progress.best()))
    return objective, progress


def optimizer(chosen: params.Optimizer, *, steps: int) -> keras.optimizers.Optimizer:
    """Return the optimizer, its learning rate's course stretched over all `steps` batches."""
    rate = chosen.learning_rate
    if chosen.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)
    return keras.optimizers.Adam(rate, amsgrad=chosen.amsgrad)


def resume_folder(name: str, experiment: params.Experiment, seed: int, images: np.ndarray) -> Path:
    """Return where a training's state is kept: another place when anything that it uses changes."""
    digest = hashlib.sha256(repr((seed, experiment.network, experiment.objective)).encode())
    digest.update(repr(experiment.training).encode())
    code = ("train.py", "assembly.py", "augmentation.py", f"networks/{experiment.network.name}.py",
            f"objectives/{experiment.objective.name}.py")  # fmt: skip
    for module in code:
        digest.update((Path(__file__).parent / module).read_bytes())
    digest.update(images)
    return Path(".resume", f"train-{name}-{digest.hexdigest()[:16]}")


def as_csv(history: list[dict[str, float]]) -> str:
    """Return the history as CSV, a row an epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def main(name: str) -> None:
    """Train one experiment and write its weights, history and run."""
    settings = params.load()
    experiment = settings.experiment(name)
    arrays = files.read_splits(experiment.dataset)
    images, validation = arrays["seen_train"], arrays.get("seen_validation")
    folder = resume_folder(name, experiment, settings.seed, images)
    if experiment.training.augmentation.rotated_classes:
        images = augmentation.with_rotated_classes(images)
        validation = None if validation is None else augmentation.with_rotated_classes(validation)

    objective, progress = fit(images, validation, experiment, seed=settings.seed, folder=folder)

    seen = sum(batch.size for batch in progress.batches.drawn) * len(progress.history)
    metrics = Path("metrics", experiment.dataset, name)
    with files.replacing(Path("data/models", experiment.dataset, f"{name}.weights.h5")) as partial:
        # A new model around the same layers: without the optimizer's state, three times smaller.
        keras.Model(objective.model.inputs, objective.model.outputs).save_weights(partial)
    files.write_text(metrics / "history.csv", as_csv(progress.history))
    files.write_json(
        metrics / "run.json",
        {
            "epochs": len(progress.history),
            "seconds": round(progress.seconds, 1),
            "images_per_second": round(seen / progress.seconds),
            **backend.description(),
        },
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    run(main)
