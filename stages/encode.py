"""Stage `encode`: the codes of a trained network, and what it says of seen classes.

data/models/<dataset>/<experiment>.weights.h5, data/arrays/<dataset>
->  data/codes/<dataset>/<experiment>: under trained/ and untrained/ for each layer <layer>.npy, the
codes of the unseen images, float32 (images, dim), and <layer>.seen.npy, those of some seen training
images, whose mean and principal components are taken; head.npy, float32 (dim + 1,), w and b of a
learned distance
->  metrics/<dataset>/<experiment>/network.json
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tqdm

from stages import backend, files, params, pixels
from stages.assembly import assemble
from stages.backend import keras
from stages.command import UserError, run
from stages.measures import verification
from stages.measures.classification import classification_scores
from stages.measures.distances import l2_normalised
from stages.measures.pairs import draw_pairs


def predicted(
    extractor: keras.Model, images: np.ndarray, batch: int, *, mirrored: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Yield the outputs for class-sorted images, a batch at a time.

    Args:
        extractor: Keras model from images to a dict of outputs.
        images: uint8 (classes, examples, height, width, channels).
        batch: images at a time.
        mirrored: yield the mean of an image's outputs and of those of its mirror image.

    Yields:
        float32 (batch, dim) by the name of the output; feature maps are flattened.
    """
    flat = images.reshape(-1, *images.shape[2:])
    for start in tqdm.trange(0, len(flat), batch, unit="batch", disable=None, leave=False):
        given = flat[start : start + batch]
        outputs = extractor.predict_on_batch(given)
        if mirrored:
            others = extractor.predict_on_batch(given[:, :, ::-1])
            outputs = {name: (outputs[name] + others[name]) / 2 for name in outputs}
        yield {name: np.float32(each).reshape(len(each), -1) for name, each in outputs.items()}


def write_codes(
    folder: Path, ending: str, extractor: keras.Model, images: np.ndarray, chosen: params.Codes
) -> None:
    """Write the codes of images, in <layer><ending> for each output of `extractor`.

    They go to disk as they are made: memory holds one batch of each layer, never a whole one.
    """
    count = images.shape[0] * images.shape[1]
    with contextlib.ExitStack() as stack:
        write = {}
        for outputs in predicted(extractor, images, chosen.batch, mirrored=chosen.mirrored):
            for name, codes in outputs.items():
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
    """
    figures = {}
    for split, codes in outputs.items():
        classes = int(labels[split][-1]) + 1
        drawn = draw_pairs(rng, classes=classes, examples=len(codes) // classes, count=pairs)
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
    backend.set_up(settings.seed)  # the untrained network is the one trained from
    network, objective = assemble(experiment, images.shape[2:], turns * len(images))
    layers = {layer: network.get_layer(layer).output for layer in chosen.layers}
    extractor = keras.Model(network.input, layers)
    outputs = keras.Model(network.input, {"outputs": objective.outputs})

    with files.replacing(Path("data/codes", experiment.dataset, name)) as folder:
        for state in ("untrained", "trained"):
            if state == "trained":
                backend.load_weights(
                    objective.model, Path("data/models", experiment.dataset, f"{name}.weights.h5")
                )
            write_codes(folder / state, ".npy", extractor, arrays["unseen"], chosen)
            write_codes(folder / state, ".seen.npy", extractor, images[:, : chosen.seen], chosen)
            print(f"{name}: {state} codes of {', '.join(layers)}", flush=True)
        head = objective.head()
        if head:
            files.write_array(folder / "head.npy", np.append(*head).astype(np.float32))
        seen = {
            split.removeprefix("seen_"): arrays[split]
            for split in ("seen_train", "seen_validation", "seen_test")
            if split in arrays
        }
        figures = _JUDGES[objective.judged_by](
            {
                split: np.concatenate(
                    [each["outputs"] for each in predicted(outputs, array, chosen.batch)]
                )
                for split, array in seen.items()
            },
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
