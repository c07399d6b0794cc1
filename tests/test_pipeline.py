"""Every stage, from small archives in the official layouts to metrics, once and in one process."""

import csv
import functools
import itertools
import json
import math
import random
import sys
from pathlib import Path

import mutations
import numpy as np
import PIL.Image
import pytest
from archives import write_project
from sklearn.metrics import average_precision_score

from stages import (
    check,
    codes,
    download,
    encode,
    oneshot,
    params,
    predictions,
    prepare,
    report,
    results,
    retrieval,
    tasks,
    train,
)
from stages.command import UserError
from stages.measures.distances import l2_normalised

DATASETS = ("digits", "cifar100", "tinyimagenet", "omniglot")
OF_A_DATASET = {"download": download, "prepare": prepare, "tasks": tasks}
OF_AN_EXPERIMENT = {
    "train": train,
    "encode": encode,
    "oneshot": oneshot,
    "retrieval": retrieval,
    "predictions": predictions,
}
FIGURES = {"accuracy", "ci95_low", "ci95_high"}
CODES = "data/codes/digits/digits-siamese"


class Reads:
    """A section of params that notes which of its keys are read."""

    def __init__(self, section, path: str, noted: set[str]):
        self._section, self._path, self._noted = section, path, noted

    def __getattr__(self, name):
        value = getattr(self._section, name)
        if callable(value) and name in ("dataset", "experiment"):
            return lambda key: Reads(value(key), f"{name}s.{key}", self._noted)
        if isinstance(value, params.Section):
            return Reads(value, f"{self._path}.{name}".lstrip("."), self._noted)
        whole = callable(value) or name not in type(self._section).model_fields
        self._noted.add(self._path if whole else f"{self._path}.{name}".lstrip("."))
        return value

    def __repr__(self):
        self._noted.add(self._path)
        return repr(self._section)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Run everything, and return the params and what each stage read of them."""
    folder = tmp_path_factory.mktemp("project")
    read = {}
    load = params.load
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv(download.MIRROR, "mirror")
        given = write_project(folder)

        def run(stage, name):
            noted = read.setdefault(f"{stage.__name__.removeprefix('stages.')}@{name}", set())
            patch.setattr(params, "load", lambda: Reads(load(), "", noted))
            stage.main(name)

        for stage in OF_A_DATASET.values():
            for name in DATASETS:
                run(stage, name)
        for stage in OF_AN_EXPERIMENT.values():
            for name in given["experiments"]:
                run(stage, name)
        for name in DATASETS:
            run(report, name)
        patch.setattr(params, "load", load)
        yield given, read


def metrics(given, name, file):
    path = Path("metrics", given["experiments"][name]["dataset"], name, f"{file}.json")
    return json.loads(path.read_text(encoding="utf-8"))


def leaves(content):
    """Yield every number below a dictionary."""
    for value in content.values():
        if isinstance(value, dict):
            yield from leaves(value)
        else:
            yield value


def test_every_experiment_has_its_four_metrics_files(project):
    given, _ = project
    for name in given["experiments"]:
        for file in ("network", "oneshot", "retrieval"):
            for value in leaves(metrics(given, name, file)):
                assert math.isfinite(value)
        assert metrics(given, name, "run")["epochs"] == 2


def test_network_json(project):
    given, _ = project
    classifier = metrics(given, "digits-classifier", "network")
    assert set(classifier) == {"parameters", "seen"}
    assert set(classifier["seen"]) == {"train", "validation", "test"}
    assert set(classifier["seen"]["test"]) == {"accuracy", "top5_accuracy", "cross_entropy"}
    siamese = metrics(given, "cifar100-siamese", "network")
    assert siamese["parameters"] == 1_220_865
    assert set(siamese["seen"]) == {"train", "test"}
    assert set(siamese["seen"]["test"]) == {"pair_accuracy", "pair_auc"}


def test_oneshot_json(project):
    given, _ = project
    found = metrics(given, "cifar100-siamese", "oneshot")
    assert set(found) == {"4-way", "2-way"}
    four = found["4-way"]
    assert (four["chance"], four["tasks"]) == (0.25, 60)
    distances = {"l2", "l2_normalised", "centred_l2_normalised"}
    assert set(four) == {"chance", "tasks", "neural_codes", "pixels", "untrained", "expanded"}
    assert set(four["neural_codes"]) == distances | {"learned"}
    assert set(four["pixels"]) == set(four["untrained"]["neural_codes"]) == distances
    for row in four["pixels"].values():
        assert set(row) == FIGURES
        assert row["ci95_low"] <= row["accuracy"] <= row["ci95_high"]
    assert set(metrics(given, "omniglot-siamese", "oneshot")) == {
        "4-way",
        "within_alphabet",
        "lake",
    }


def test_retrieval_json(project):
    given, _ = project
    found = metrics(given, "digits-classifier", "retrieval")
    assert found["queries"] == 100
    assert 0.19 < found["chance"] < 0.26
    row = found["neural_codes"]["l2_normalised"]
    assert row["ci95_low"] <= row["mean_average_precision"] <= row["ci95_high"]
    assert {"precision_at_1", "precision_at_5", "r_precision", "mean_average_precision_at_r"} < set(
        row
    )


def test_mistake_2_a_figure_is_of_all_frozen_tasks_and_the_same_each_time(project):
    given, _ = project
    name = "cifar100-classifier"
    experiment = params.load().experiments[name]
    images = np.load("data/codes/cifar100/cifar100-classifier/trained/neural_codes.npy")
    hits = []
    for query, *support in np.load("data/tasks/cifar100/4-way.npy"):
        nearest = np.linalg.norm(images[support] - images[query], axis=1).argmin()
        hits.append(support[nearest] // 12 == query // 12)  # 12 images a class
    found = metrics(given, name, "oneshot")
    assert found["4-way"]["tasks"] == len(hits)
    assert found["4-way"]["neural_codes"]["l2"]["accuracy"] == pytest.approx(np.mean(hits))
    for _ in range(2):  # scored again, nothing is drawn again and no better figure is kept
        oneshot.main(name)
        assert metrics(given, name, "oneshot") == found
    assert set(experiment.oneshot.distances) == set(found["4-way"]["neural_codes"])


def unit(images):
    lengths = np.linalg.norm(images, axis=1, keepdims=True)
    return images / np.where(lengths, lengths, 1)


AS_COMPARED = {  # what each distance makes of codes, from the formulas of its paper
    "l2": lambda images, seen: images,
    "l2_normalised": lambda images, seen: unit(images),
    "centred_l2_normalised": lambda images, seen: unit(images - seen.mean(axis=0)),
    "l2_centred_l2_normalised": lambda images, seen: unit(unit(images) - unit(seen).mean(axis=0)),
    "learned": lambda images, seen: images,
}


def labels_by_hand(dataset):
    classes, examples = np.load(f"data/arrays/{dataset}/unseen.npy").shape[:2]
    return np.arange(classes * examples) // examples


def spaces_by_hand(dataset, name, distances):
    """Return the unseen images as each distance compares them, by where their figures stand."""

    def read(*files):
        return [np.load(Path("data", file)).astype(float) for file in files]

    unseen, seen = read(*(f"arrays/{dataset}/{split}.npy" for split in ("unseen", "seen_train")))
    given = {("pixels",): [each.reshape(-1, unseen[0, 0].size) / 255 for each in (unseen, seen)]}
    for state, keys in (("trained", ()), ("untrained", ("untrained",))):
        file = f"codes/{dataset}/{name}/{state}/neural_codes"
        given[*keys, "neural_codes"] = read(f"{file}.npy", f"{file}.seen.npy")
    return {
        (*keys, distance): AS_COMPARED[distance](*images)
        for keys, images in given.items()
        for distance in distances
        if distance != "learned" or keys == ("neural_codes",)
    }


def squared(differences):
    return np.square(differences).sum(axis=-1)


def nudged(distances, same, nearer):
    """Return distances with those of the query's class nearer by what float32 rounds away.

    Farther, where `nearer` is -1. A figure in which ties count, or are decided by rounding, lies
    between what both give.
    """
    return distances - nearer * 2e-6 * np.abs(distances).max() * same


def one_shot_by_hand(images, labels, drawn, distance, nearer):
    hits = []
    for query, *support in drawn:
        same = labels[support] == labels[query]
        distances = nudged(distance(images[support] - images[query]), same, nearer)
        hits.append(same[distances.argmin()])
    return {"accuracy": np.mean(hits)}


def retrieval_by_hand(images, labels, nearer):
    found = []
    for query, image in enumerate(images):
        same = np.delete(labels == labels[query], query)
        distances = nudged(squared(np.delete(images, query, axis=0) - image), same, nearer)
        hits, relevant = same[distances.argsort()], same.sum()
        precision = [hits[:rank].mean() for rank in range(1, len(hits) + 1)]
        found.append(
            {
                "mean_average_precision": average_precision_score(same, -distances),
                "precision_at_1": precision[0],
                "precision_at_5": precision[4],
                "r_precision": precision[relevant - 1],
                "mean_average_precision_at_r": (hits * precision)[:relevant].sum() / relevant,
            }
        )
    return {figure: np.mean([each[figure] for each in found]) for figure in found[0]}


def assert_measured(figures, by_hand):
    """Assert that there are these rows, with each figure between what `by_hand` gives for it."""
    layers = (("neural_codes",), ("pixels",), ("untrained", "neural_codes"))
    rows = {
        (*layer, distance): row
        for layer in layers
        for distance, row in functools.reduce(dict.get, layer, figures).items()
    }
    assert rows.keys() == by_hand.keys()
    widths = []
    for keys, measured in by_hand.items():
        low, high = measured(-1), measured(1)
        assert rows[keys].keys() == low.keys() | {"ci95_low", "ci95_high"}
        for figure in low:
            assert low[figure] - 1e-6 <= rows[keys][figure] <= high[figure] + 1e-6, (keys, figure)
            widths.append(high[figure] - low[figure])
    assert np.median(widths) < 1e-4, "too many ties to tell"


SIAMESE = ("digits-siamese", "cifar100-siamese")  # which learn a distance, too


@pytest.mark.parametrize("name", SIAMESE)
def test_one_shot_accuracies_are_those_worked_out_by_hand(project, name):
    given, _ = project
    dataset = given["experiments"][name]["dataset"]
    distances = given["experiments"][name]["oneshot"]["distances"]
    assert distances[-1] == "learned"
    labels = labels_by_hand(dataset)
    *weights, bias = np.load(f"data/codes/{dataset}/{name}/head.npy").astype(float)

    def minus_the_logit(differences):
        return -(np.abs(differences) @ weights + bias)

    for each, figures in metrics(given, name, "oneshot").items():
        drawn = np.load(f"data/tasks/{dataset}/{each}.npy")
        assert_measured(figures, {
            keys: functools.partial(
                one_shot_by_hand, images, labels, drawn,
                minus_the_logit if keys[-1] == "learned" else squared,
            )
            for keys, images in spaces_by_hand(dataset, name, distances).items()
        })  # fmt: skip


def test_with_unlabelled_images_at_hand_each_code_is_a_mean_with_those_nearest(project):
    given, _ = project
    name = "cifar100-siamese"
    distances = given["experiments"][name]["oneshot"]["distances"]
    spaces = spaces_by_hand("cifar100", name, distances)
    labels, drawn = labels_by_hand("cifar100"), np.load("data/tasks/cifar100/4-way.npy")
    found = metrics(given, name, "oneshot")["4-way"]["expanded"]["neural_codes"]
    assert list(found) == distances
    for distance in distances[:-1]:  # but for the learned one, which is no other space
        images = spaces["neural_codes", distance]
        nearest = squared(images[:, None] - images).argsort(axis=1)  # each itself first
        assert list(found[distance]) == ["1", "3"]  # others than 48 images there are not
        for count, figures in found[distance].items():
            means = images[nearest[:, : int(count) + 1]].mean(axis=1)
            low, high = (
                one_shot_by_hand(means, labels, drawn, squared, nearer)["accuracy"]
                for nearer in (-1, 1)
            )
            assert low - 1e-6 <= figures["accuracy"] <= high + 1e-6
            assert figures["ci95_low"] < figures["accuracy"] < figures["ci95_high"]


@pytest.mark.parametrize("name", SIAMESE)
def test_retrieval_figures_are_those_worked_out_by_hand(project, name):
    given, _ = project
    dataset = given["experiments"][name]["dataset"]
    distances = given["experiments"][name]["retrieval"]["distances"]
    labels = labels_by_hand(dataset)
    assert_measured(metrics(given, name, "retrieval"), {
        keys: functools.partial(retrieval_by_hand, images, labels)
        for keys, images in spaces_by_hand(dataset, name, distances).items()
    })  # fmt: skip


def test_training_changes_the_codes(project):
    given, _ = project
    for name, experiment in given["experiments"].items():
        for trained in Path("data/codes", experiment["dataset"], name, "trained").iterdir():
            untrained = trained.parents[1] / "untrained" / trained.name
            assert not np.allclose(np.load(trained), np.load(untrained), atol=1e-4), trained


def test_mistake_6_methods_are_scored_on_the_same_images_and_tasks(project):
    given, _ = project
    first, second = (
        metrics(given, f"cifar100-{name}", "oneshot") for name in ("siamese", "classifier")
    )
    assert first["4-way"]["pixels"] == second["4-way"]["pixels"]
    experiments = {name: params.load().experiments[name] for name in given["experiments"]}
    for name, experiment in experiments.items():
        images = len(codes.labels_of(experiment.dataset))
        layers, distances = experiment.codes.layers, experiment.oneshot.distances
        for space in codes.spaces(experiment.dataset, name, layers, distances):
            assert len(space.codes) == images


def test_the_history_has_a_row_an_epoch(project):
    given, _ = project
    for name, experiment in given["experiments"].items():
        path = Path("metrics", experiment["dataset"], name, "history.csv")
        with open(path, encoding="utf-8", newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2"]


def test_codes_are_what_the_layers_put_out(project):
    from stages.assembly import assemble
    from stages.backend import keras

    del project
    images = np.load("data/arrays/cifar100/unseen.npy")
    seen = np.load("data/arrays/cifar100/seen_train.npy")
    network, objective = assemble(params.load().experiments["cifar100-siamese"], (32, 32, 3), 6)
    objective.model.load_weights("data/models/cifar100/cifar100-siamese.weights.h5")
    folder = Path("data/codes/cifar100/cifar100-siamese")
    found = np.load(folder / "trained/neural_codes.npy")
    assert (found.dtype, found.shape) == (np.float32, (48, 1024))
    whole = keras.ops.convert_to_numpy(network(images.reshape(-1, 32, 32, 3), training=False))
    np.testing.assert_allclose(found, whole, atol=1e-5)
    first = seen[:, :3].reshape(-1, 32, 32, 3)  # three of each class, as params.yaml asks
    whole = keras.ops.convert_to_numpy(network(first, training=False))
    np.testing.assert_allclose(np.load(folder / "trained/neural_codes.seen.npy"), whole, atol=1e-5)
    head = np.load(folder / "head.npy")
    np.testing.assert_array_equal(head[:-1], objective.head()[0])


def test_layers_joined_by_a_plus_are_one_code(project):
    del project
    for state, ending in itertools.product(("trained", "untrained"), (".npy", ".seen.npy")):
        folder = Path("data/codes/tinyimagenet/tinyimagenet-layers", state)
        parts = [l2_normalised(np.load(folder / f"{each}{ending}")) for each in ("L5", "L7")]
        joined = np.load(folder / f"L5+L7{ending}")
        np.testing.assert_allclose(joined, np.hstack(parts), atol=1e-6)


def test_mirrored_codes_are_the_mean_of_both(project):
    from stages.assembly import assemble
    from stages.backend import keras

    del project
    images = np.load("data/arrays/tinyimagenet/unseen.npy").reshape(-1, 64, 64, 3)
    experiment = params.load().experiments["tinyimagenet-fast"]
    assert experiment.codes.mirrored
    network, objective = assemble(experiment, (64, 64, 3), 6)
    objective.model.load_weights("data/models/tinyimagenet/tinyimagenet-fast.weights.h5")
    coded = keras.Model(network.input, network.get_layer("neural_codes").output)
    both = [coded(each, training=False) for each in (images, images[:, :, ::-1])]
    mean = sum(keras.ops.convert_to_numpy(each) for each in both) / 2
    found = np.load("data/codes/tinyimagenet/tinyimagenet-fast/trained/neural_codes.npy")
    np.testing.assert_allclose(found, mean, atol=1e-5)


def test_compressed_codes_stand_beside_the_whole_ones(project):
    given, _ = project
    found = metrics(given, "tinyimagenet-layers", "retrieval")
    layers = {"L5", "L6_before_relu", "L7", "L5+L7"}
    assert set(found["pca"]) == layers == set(found) - {"queries", "chance", *codes.BESIDE}
    for layer in layers:
        # of 2, 4 and 512 dimensions, the last are more than 18 seen images have
        assert set(found["pca"][layer]) == {"2", "4"}
        for kinds in found["pca"][layer].values():
            assert set(kinds) == {"l2_normalised", "whitened"}
            for row in kinds.values():
                assert row["ci95_low"] <= row["mean_average_precision"] <= row["ci95_high"]


def rows(given, name, file):
    path = Path("metrics", given["experiments"][name]["dataset"], name, f"{file}.csv")
    with open(path, encoding="utf-8", newline="") as table:
        return list(csv.DictReader(table))


def test_courses_agree_with_the_figures(project):
    given, _ = project
    name = "cifar100-siamese"
    four = metrics(given, name, "oneshot")["4-way"]
    ranked = metrics(given, name, "retrieval")
    series = {f"neural_codes/{distance}" for distance in four["neural_codes"]}
    ways = rows(given, name, "ways")
    assert series < {row["series"] for row in ways}
    for row in ways:
        if row["series"] == "neural_codes/learned" and row["ways"] == "4":
            assert float(row["accuracy"]) == four["neural_codes"]["learned"]["accuracy"]
            assert float(row["ci95_low"]) == four["neural_codes"]["learned"]["ci95_low"]
    assert {row["ways"] for row in ways} == {"2", "3", "4"}
    assert {row["recall"] for row in rows(given, name, "recall")} >= {"0.05", "0.5", "1.0"}
    cut = rows(given, name, "compression")
    assert len(cut) == 4
    asked = rows(given, name, "expansion")
    assert len(asked) == 3 * len(ranked["neural_codes"])  # by none, one and three nearest
    for row in asked:
        layer, distance = row["series"].split("/")
        own = {"0": ranked[layer][distance]}
        figures = (own | ranked["expanded"][layer][distance])[row["nearest"]]
        assert float(row["mean_average_precision"]) == figures["mean_average_precision"]
    assert {
        "series": "neural_codes/whitened",
        "dimensions": "2",
        "mean_average_precision": str(
            ranked["pca"]["neural_codes"]["2"]["whitened"]["mean_average_precision"]
        ),
    } in cut


def test_what_was_found_is_pictured(project):
    given, _ = project
    for name, experiment in given["experiments"].items():
        folder = Path("data/pictures", experiment["dataset"], name)
        assert {path.stem for path in folder.iterdir()} == set(experiment["codes"]["layers"])
        for path in folder.iterdir():
            with PIL.Image.open(path) as image:
                assert image.format == "PNG"
                assert min(image.size) > 200


def test_nothing_is_left_behind(project):
    del project
    assert not list(Path().rglob("*partial*"))
    assert not [path for path in Path(".resume").rglob("*") if path.is_file()]


def test_the_gate_passes_what_is_asked_and_names_what_fails(project, monkeypatch, capsys):
    given, _ = project
    check.main()
    assert "8 of 8 experiments" in capsys.readouterr().out
    settings = params.load()
    accuracy = metrics(given, "digits-classifier", "network")["seen"]["test"]["accuracy"]
    asked = params.Check(beat=[], at_least={"network/seen/test/accuracy": accuracy + 0.01})
    changed = settings.model_copy(update={"check": settings.check | {"digits-classifier": asked}})
    monkeypatch.setattr(params, "load", lambda: changed)
    with pytest.raises(SystemExit) as stopped:
        check.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err == (
        f"metrics/digits/digits-classifier: network/seen/test/accuracy: {accuracy} "
        f"is below {accuracy + 0.01}\n"
    )


@pytest.mark.parametrize(
    ("stage", "name", "file", "content"),
    [
        (tasks, "digits", "data/arrays/digits/unseen.npy", b"\x93NUMPY\x01\x00v\x00{'descr'"),
        (train, "digits-siamese", "data/arrays/digits/seen_train.npy", b"no array"),
        (encode, "digits-siamese", "data/models/digits/digits-siamese.weights.h5", b"no weights"),
        (oneshot, "digits-siamese", "data/tasks/digits/5-way.npy", b""),
        (oneshot, "digits-siamese", f"{CODES}/head.npy", b"\x93NUM"),
        (retrieval, "digits-siamese", f"{CODES}/trained/neural_codes.npy", b"x"),
        (predictions, "digits-siamese", f"{CODES}/untrained/neural_codes.npy", b"\x93NUMPY"),
    ],
)  # fmt: skip
def test_a_damaged_file_between_stages_is_one_line(project, stage, name, file, content):
    del project
    path = Path(file)
    whole = path.read_bytes()
    before = {each: each.read_bytes() for each in Path("metrics").rglob("*.json")}
    try:
        path.write_bytes(content)
        with pytest.raises(UserError, match=path.name) as error:
            stage.main(name)
    finally:
        path.write_bytes(whole)
    assert "\n" not in str(error.value)
    assert before == {each: each.read_bytes() for each in Path("metrics").rglob("*.json")}


FOLDER, PREDICTIONS = (f"{top}/digits/digits-siamese" for top in ("metrics", "predictions"))
KEPT = ("data", "metrics", "predictions")
READ = [
    (tasks, "digits", "data/arrays/digits/classes.json", 15),
    (tasks, "digits", "data/arrays/digits/unseen.npy", 15),
    (encode, "digits-siamese", "data/models/digits/digits-siamese.weights.h5", 25),
    (oneshot, "digits-siamese", "data/tasks/digits/5-way.npy", 20),
    (oneshot, "digits-siamese", f"{CODES}/head.npy", 20),
    (oneshot, "digits-siamese", f"{CODES}/trained/neural_codes.seen.npy", 20),
    (retrieval, "digits-siamese", f"{CODES}/trained/neural_codes.npy", 10),
    (predictions, "digits-siamese", f"{FOLDER}/oneshot.json", 10),
    *((check, None, f"{FOLDER}/{part}.json", 20) for part in ("network", "oneshot", "retrieval")),
    *(
        (report, "digits", f"{FOLDER}/{part}.csv", 8)
        for part in ("history", "ways", "recall", "search")
    ),
    *((report, "digits", f"{FOLDER}/{part}.json", 8) for part in ("network", "run", "retrieval")),
    *((report, "digits", f"{PREDICTIONS}/{part}", 8) for part in ("choices.npy", "codes.json")),
]


# A code may become as large as a float32 can be. That it is another one, DVC sees by its digest.
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
@pytest.mark.parametrize(("stage", "name", "file", "count"), READ, ids=str)
def test_mutated_files_between_stages_are_read_or_refused_in_one_line(
    project, stage, name, file, count, capsys
):
    del project
    path, rng = Path(file), random.Random(file)
    whole = path.read_bytes()
    kept = {each: each.read_bytes() for top in KEPT for each in files_below(top)}
    for _ in range(count):
        # Half of the damages are in the first bytes, where a file says what it is.
        cut = rng.choice([len(whole), min(len(whole), 160)])
        path.write_bytes(rng.choice(mutations.OF_BYTES)(rng, whole[:cut]) + whole[cut:])
        damaged = path.read_bytes()
        try:
            stage.main(*[name] * (name is not None))
        except UserError as error:
            assert file in str(error) or "data/" in str(error)
            assert "\n" not in str(error)
            changed = {each for each in kept if each.read_bytes() != kept[each]}
            assert changed <= {path}
        except SystemExit as stopped:
            assert stage is check  # whose figures do not clear what they must
            assert stopped.code == 1
            assert "Traceback" not in capsys.readouterr().err
        finally:
            assert path.read_bytes() == damaged or stage is not check
            for each, content in kept.items():
                if not each.exists() or each.read_bytes() != content:
                    each.parent.mkdir(parents=True, exist_ok=True)
                    each.write_bytes(content)


def files_below(folder):
    return [path for path in Path(folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("stage", [oneshot, retrieval, predictions])
@pytest.mark.parametrize("damage", ["not a number", "too few"])
def test_codes_that_do_not_fit_are_one_line(project, stage, damage):
    del project
    path = Path(f"{CODES}/trained/neural_codes.npy")
    whole = path.read_bytes()
    codes_given = np.load(path)
    try:
        if damage == "too few":
            np.save(path, codes_given[:-1])
        else:
            codes_given[3, 4] = np.nan
            np.save(path, codes_given)
        with pytest.raises(UserError, match=r"data/codes/digits/digits-siamese does not fit"):
            stage.main("digits-siamese")
    finally:
        path.write_bytes(whole)


def test_a_learned_distance_that_the_objective_lacks_is_refused(project, monkeypatch):
    del project
    settings = params.load()
    experiment = settings.experiments["digits-classifier"]
    scored = experiment.oneshot.model_copy(update={"distances": ["learned"]})
    changed = experiment.model_copy(update={"oneshot": scored})
    monkeypatch.setattr(
        params,
        "load",
        lambda: settings.model_copy(update={"experiments": {"digits-classifier": changed}}),
    )
    with pytest.raises(UserError, match=r"experiments\.digits-classifier\.oneshot\.distances"):
        oneshot.main("digits-classifier")


@pytest.fixture
def searching(project, monkeypatch):
    """Return a function that scores the digits' siamese codes with indexes beside exact search."""
    given, _ = project
    settings, name = params.load(), "digits-siamese"
    experiment = settings.experiments[name]
    kept = {path: path.read_bytes() for path in Path(FOLDER).iterdir()}

    def run(*indexes):
        search = params.Search(indexes=list(indexes), depth=50)
        chosen = experiment.retrieval.model_copy(update={"search": search})
        changed = experiment.model_copy(update={"retrieval": chosen})
        experiments = settings.experiments | {name: changed}
        whole = settings.model_copy(update={"experiments": experiments})
        monkeypatch.setattr(params, "load", lambda: whole)
        retrieval.main(name)
        return metrics(given, name, "retrieval"), rows(given, name, "search")

    yield run
    for path, content in kept.items():
        path.write_bytes(content)


def test_indexes_are_measured_beside_exact_search(project, searching):
    given, _ = project
    before = metrics(given, "digits-siamese", "retrieval")
    indexes = ("Flat", "IVF4,Flat,nprobe=4", "HNSW8", "PQ4x2")
    found, table = searching(*indexes)
    assert {key: found[key] for key in before} == before
    distances = params.load().experiments["digits-siamese"].retrieval.distances
    assert set(found["search"]["neural_codes"]) == set(distances)
    for scores in found["search"]["neural_codes"].values():
        assert list(scores) == ["exact", *indexes]
        for index in indexes[:2]:
            # All but the size are alike; equally far images are cut elsewhere.
            size = {"bytes_per_code": scores[index]["bytes_per_code"]}
            assert scores[index] == pytest.approx(scores["exact"] | size, abs=0.01)
        assert scores["exact"]["recall_at_10"] == 1 > scores["PQ4x2"]["recall_at_10"]
    assert len(table) == len(distances) * 5
    for row in table:
        layer, distance = row.pop("series").split("/")
        figures = found["search"][layer][distance][row.pop("index")]
        assert {key: float(row[key]) for key in figures} == figures
        assert set(row) - set(figures) == {"build_seconds", "query_milliseconds"}
    assert searching(*indexes)[0] == found  # of times, no two are alike
    results.read_metrics(Path(FOLDER), "retrieval")
    report.main("digits")


def test_without_indexes_faiss_is_not_asked_for(project, searching, monkeypatch):
    given, _ = project
    before = metrics(given, "digits-siamese", "retrieval")
    monkeypatch.setitem(sys.modules, "faiss", None)  # an import of it fails
    assert searching() == (before, [])
    assert Path(FOLDER, "search.csv").read_text().startswith("series,index,recall_at_1,")
    with pytest.raises(
        UserError, match=r'search\.indexes: faiss is not installed; .*"\.\[search\]"'
    ):
        searching("Flat")


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        ("Flut", "could not parse"),
        ("PQ4", r"points \(100\) should .*clusters \(256\).*100 codes of"),
    ],
)
def test_an_index_that_faiss_refuses_is_one_line(searching, index, reason):
    before = Path(FOLDER, "retrieval.json").read_bytes()
    where = rf"experiments\.digits-siamese\.retrieval\.search\.indexes: .*{reason}"
    with pytest.raises(UserError, match=where) as error:
        searching("Flat", index)
    assert "\n" not in str(error.value)
    assert Path(FOLDER, "retrieval.json").read_bytes() == before


def test_dvc_yaml_lists_the_params_that_a_stage_reads(project):
    from test_dvc import STAGES, params_of

    _, read = project
    allowed = {  # read for a refusal or a place, not for a result
        "download": "datasets.{}.sources",  # the digests say which bytes come of it
        "prepare": "datasets.{}.digests",  # names of what `download` kept, to be removed
        "train": "experiments.{}.codes.layers",  # that they are there is checked before training
    }
    for name, noted in read.items():
        stage, _, entry = name.partition("@")
        if name not in STAGES:  # of an experiment that only the tests have
            continue
        listed = params_of(name)
        noted = {path for path in noted if not path.startswith("cluster.")}  # who does the work
        under = {path for path in noted for key in listed if f"{path}.".startswith(f"{key}.")}
        unlisted = {path for path in noted - under if path != allowed.get(stage, "").format(entry)}
        assert not unlisted, f"{name} reads, but dvc.yaml does not list: {sorted(unlisted)}"
        unread = {
            key for key in listed if not any(f"{path}.".startswith(f"{key}.") for path in noted)
        }
        assert not unread, f"{name} does not read, but dvc.yaml lists: {sorted(unread)}"
