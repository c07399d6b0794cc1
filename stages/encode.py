"""Stage `encode`: the codes of a trained network, and what it says of seen classes.

data/models/<dataset>/<experiment>.weights.h5, data/arrays/<dataset>
->  data/codes/<dataset>/<experiment>: under trained/ and untrained/ for each layer <layer>.npy, the
codes of the unseen images, float32 (images, dim), and <layer>.seen.npy, those of some seen training
images, whose mean and principal components are taken; head.npy, float32 (dim + 1,), w and b of a
learned distance
->  metrics/<dataset>/<experiment>/network.json
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from stages import backend, files, params, pixels
from stages.command import UserError, run
from stages.encoder import Architecture, Encoder, codes_of, judged_of, objective_of
from stages.engine import Here, OnDask, engine
from stages.measures import verification
from stages.measures.classification import classification_scores
from stages.measures.distances import l2_normalised
from stages.measures.pairs import draw_pairs


def outputs_of(
    function: Callable[[Encoder, np.ndarray], Any],
    encoder: Any,
    images: np.ndarray,
    batch: int,
    workers: Here | OnDask,
) -> Iterator[Any]:
    """Yield what `codes_of` or `judged_of` returns for class-sorted images, a batch at a time.

    Args:
        function: which of the two.
        encoder: the `Encoder`, as `workers` share it.
        images: uint8 (classes, examples, height, width, channels).
        batch: images at a time.
        workers: who computes it.
    """
    flat = images.reshape(-1, *images.shape[2:])
    starts = range(0, len(flat), batch)
    jobs = ((encoder, np.asarray(flat[start : start + batch])) for start in starts)
    outputs = workers.map(function, jobs)
    yield from tqdm.tqdm(outputs, total=len(starts), unit="batch", disable=None, leave=False)


def write_codes(folder: Path, ending: str, outputs: Iterable[dict], count: int) -> None:
    """Write the codes of images, in <layer><ending> for each layer.

    They go to disk as they are made: memory holds few batches of each layer, never a whole one.

    Args:
        folder: where to.
        ending: of the files' names.
        outputs: float32 (batch, dim) by the name of the layer, of one batch after another.
        count: images in all.
    """
    with contextlib.ExitStack() as stack:
        write = {}
        for batch in outputs:
            for name, codes in batch.items():
                if name not in write:
                    file = files.writing_array(
                        folder / f"{name}{ending}", (count, codes.shape[1]), "<f4"
                    )
                    write[name] = stack.enter_context(file)
                write[name](codes)


def classification_figures(
    outputs: dict[str, np.ndarray], labels: dict[str, np.ndarray], **_: Any
) -> dict[str, dict[str, float]]:
    """Return accuracy, top-5 accuracy and cross-entropy of each seen split from its logits."""
    return {split: classification_scores(outputs[split], labels[split]) for split in outputs}


def verification_figures(
    outputs: dict[str, np.ndarray],
    labels: dict[str, np.ndarray],
    *,
    head: tuple[np.ndarray, float] | None,
    pairs: int,
    rng: np.random.Generator,
) -> dict[str, dict[str, float]]:
    """Return accuracy and area under the ROC curve on balanced pairs of each seen split.

    The threshold of "same class" is the best one on the training pairs (as Huang et al. 2007 do
    for faces); codes without a learned distance are compared by their cosine.

    Args:
        outputs: class-sorted codes by split, `train` first.
        labels: the class of each.
        head: (w, b) of the learned distance, or None.
        pairs: how many to draw of each split.
        rng: where they come from.

    Raises:
        UserError: when there are not two images of each of two classes.
    """
    figures = {}
    for split, codes in outputs.items():
        classes = int(labels[split][-1]) + 1
        try:
            drawn = draw_pairs(rng, classes=classes, examples=len(codes) // classes, count=pairs)
        except ValueError as error:
            raise UserError(f"no pairs of seen_{split}'s images: {error}") from None
        same = labels[split][drawn[:, 0]] == labels[split][drawn[:, 1]]
        codes = codes if head else l2_normalised(codes)
        scores = verification.pair_scores(codes[drawn[:, 0]], codes[drawn[:, 1]], head=head)
        if split == "train":
            threshold = verification.best_threshold(scores, same)
        figures[split] = {
            "pair_accuracy": verification.pair_accuracy(scores, same, threshold=threshold),
            "pair_auc": verification.area_under_roc(scores, same),
        }
    return figures


_JUDGES = {"classes": classification_figures, "pairs": verification_figures}


def main(name: str) -> None:
    """Write the codes of one experiment, trained and untrained, and its network.json."""
    settings = params.load()
    experiment = settings.experiment(name)
    chosen = experiment.codes
    arrays = pixels.as_given(files.read_splits(experiment.dataset), experiment.images)
    images = arrays["seen_train"]
    if chosen.seen > images.shape[1]:
        raise UserError(
            f"params.yaml: experiments.{name}.codes.seen: {chosen.seen} asks for more than the "
            f"{images.shape[1]} training images of a class"
        )
    turns = 4 if experiment.training.augmentation.rotated_classes else 1
    architecture = Architecture(experiment, settings.seed, images.shape[2:], turns * len(images))
    objective = objective_of(architecture)
    seen = {
        split.removeprefix("seen_"): arrays[split]
        for split in ("seen_train", "seen_validation", "seen_test")
        if split in arrays
    }
    with (
        files.replacing(Path("data/codes", experiment.dataset, name)) as folder,
        engine(settings.cluster.scheduler) as workers,
    ):
        for state in ("untrained", "trained"):
            if state == "trained":
                backend.load_weights(
                    objective.model, Path("data/models", experiment.dataset, f"{name}.weights.h5")
                )
            shared = workers.share(Encoder(architecture, objective.model.get_weights()))
            for ending, array in {
                ".npy": arrays["unseen"], ".seen.npy": images[:, : chosen.seen]
            }.items():  # fmt: skip
                outputs = outputs_of(codes_of, shared, array, chosen.batch, workers)
                write_codes(folder / state, ending, outputs, array.shape[0] * array.shape[1])
            print(f"{name}: {state} codes of {', '.join(chosen.layers)}", flush=True)
        head = objective.head()
        if head:
            files.write_array(folder / "head.npy", np.append(*head).astype(np.float32))
        judged = {
            split: np.concatenate(list(outputs_of(judged_of, shared, array, chosen.batch, workers)))
            for split, array in seen.items()
        }
        figures = _JUDGES[objective.judged_by](
            judged,
            {split: files.labels_of(array) for split, array in seen.items()},
            head=head,
            pairs=chosen.pairs,
            rng=np.random.default_rng(settings.seed),
        )
    parameters = objective.model.count_params()
    files.write_json(
        Path("metrics", experiment.dataset, name, "network.json"),
        {"parameters": parameters, "seen": figures},
    )
    files.forget_states("train", name)


if __name__ == "__main__":
    run(main)
