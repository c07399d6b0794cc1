"""What an experiment chose and found, image by image, worked out by hand on a line of codes."""

import json
from pathlib import Path

import numpy as np
import pytest

from stages import oneshot, params, predictions
from stages.codes import Space
from stages.command import UserError
from stages.measures.episodes import draw_tasks, hits_of
from stages.results import most_ways

ROOT = Path(__file__).parent.parent
PARAMS = params.load(ROOT / "params.yaml")
CLASSES, EXAMPLES = 4, 3
# Four classes on a line, and a last image of class 3 that looks like class 0.
CODES = np.float32([[0], [1], [2], [10], [11], [12], [20], [21], [22], [30], [31], [0.4]])
TASKS = np.int32(
    [
        [0, 1, 3, 6],
        [3, 1, 4, 6],
        [11, 9, 3, 0],
        [4, 3, 5, 9],  # two are equally near
    ]
)
SHAPE = (len(TASKS), 3)


def save(path, array):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)


def scored(**accuracies):
    """Return the figures of a task set, by distance."""
    figures = {"ci95_low": 0.0, "ci95_high": 1.0}
    codes = {name: figures | {"accuracy": value} for name, value in accuracies.items()}
    return {"chance": 1 / 3, "tasks": len(TASKS), "neural_codes": codes}


def write_scores(**sets):
    path = Path("metrics/toy/toy-siamese/oneshot.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(sets | {"2-way": scored(learned=1.0) | {"chance": 1 / 2}}))


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    experiment = PARAMS.experiments["digits-siamese"].model_copy(update={"dataset": "toy"})
    settings = PARAMS.model_copy(
        update={
            "datasets": {"toy": PARAMS.datasets["digits"]},
            "experiments": {"toy-siamese": experiment},
        }
    )
    monkeypatch.setattr(params, "load", lambda: settings)
    images = np.zeros((CLASSES, EXAMPLES, 2, 2, 1), np.uint8)
    for split in ("seen_train", "seen_test", "unseen"):
        save(f"data/arrays/toy/{split}.npy", images)
    Path("data/arrays/toy/classes.json").write_text(
        json.dumps({"seen": list("abcd"), "unseen": list("efgh")})
    )
    save("data/tasks/toy/3-way.npy", TASKS)
    save("data/tasks/toy/2-way.npy", TASKS[:, :3])
    for state, codes in (("trained", CODES), ("untrained", CODES + 1)):
        save(f"data/codes/toy/toy-siamese/{state}/neural_codes.npy", codes)
        save(f"data/codes/toy/toy-siamese/{state}/neural_codes.seen.npy", codes[:2])
    save("data/codes/toy/toy-siamese/head.npy", np.float32([1, 0]))  # far is alike
    write_scores(**{"3-way": scored(l2=0.75, l2_normalised=0.5, learned=0.25)})


def test_the_nearest_of_each_task_by_the_best_distance_ties_and_all():
    predictions.main("toy-siamese")
    found = predictions.read_choices("toy", "toy-siamese", SHAPE)
    assert found.tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [True, True, False],
    ]


def test_a_learned_distance_may_be_the_best():
    write_scores(**{"3-way": scored(l2=0.75, learned=0.8)})
    predictions.main("toy-siamese")
    found = predictions.read_choices("toy", "toy-siamese", SHAPE)
    assert found.argmax(axis=1).tolist() == [2, 2, 0, 2]  # the farthest


def test_queries_are_of_each_class_in_turn_and_what_is_found_is_others():
    codes = np.float32([[np.cos(angle), np.sin(angle)] for angle in CODES[:, 0] / 40])
    save("data/codes/toy/toy-siamese/trained/neural_codes.npy", codes)
    save("data/codes/toy/toy-siamese/trained/neural_codes.seen.npy", codes[:2])
    save("data/codes/toy/toy-siamese/head.npy", np.float32([1, 1, 0]))
    predictions.main("toy-siamese")
    found = predictions.read_nearest("toy", "toy-siamese", "neural_codes", len(CODES))
    assert found[:, 0].tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5]
    assert found[0].tolist() == [0, 11, 1, 2, 3, 4]
    assert found[3].tolist() == [9, 10, 8, 7, 6, 5]


def test_statistics_are_those_of_each_state():
    predictions.main("toy-siamese")
    (states,) = predictions.read_statistics("toy", "toy-siamese").values()
    assert states["trained"]["norm"] == pytest.approx(CODES.mean(), abs=1e-6)
    assert states["untrained"]["norm"] == pytest.approx(CODES.mean() + 1, abs=1e-6)
    assert states["trained"]["zeros"] == pytest.approx(1 / 12, abs=1e-6)


def test_statistics_without_a_figure_are_refused():
    predictions.main("toy-siamese")
    path = Path("predictions/toy/toy-siamese/codes.json")
    found = json.loads(path.read_text())
    del found["neural_codes"]["untrained"]["zeros"]
    path.write_text(json.dumps(found))
    wrong = r"codes\.json: neural_codes/untrained/zeros: .* dvc repro predictions@toy-siamese"
    with pytest.raises(UserError, match=wrong):
        predictions.read_statistics("toy", "toy-siamese")


def test_a_map_keeps_clusters_together_and_is_the_same_again():
    rng = np.random.default_rng(0)
    codes = np.repeat(np.eye(CLASSES, dtype=np.float32), 30, axis=0) * 10
    space = Space(("x", "l2"), codes + rng.normal(0, 0.1, codes.shape).astype(np.float32))
    places = predictions.map_places(space, (CLASSES, 30), seed=1)
    assert places.shape == (CLASSES, 30, 2)
    assert places.dtype == np.float32
    assert places.min() == 0
    assert places.max() == 1
    middles = places.mean(axis=1)
    apart = np.linalg.norm(places.reshape(-1, 1, 2) - middles, axis=-1).argmin(axis=1)
    assert apart.tolist() == np.repeat(np.arange(CLASSES), 30).tolist()
    assert (predictions.map_places(space, (CLASSES, 30), seed=1) == places).all()


def test_a_map_of_many_images_shows_the_first_of_the_first_classes():
    assert predictions.map_shape((20, 600, 32, 32, 3)) == (20, 25)
    assert predictions.map_shape((100, 20, 35, 35, 1)) == (20, 20)
    assert predictions.map_shape((10, 500, 64, 64, 3)) == (10, 50)
    codes = np.arange(25 * 40, dtype=np.float32)[:, None]  # of 25 classes the first 20, 25 of each
    kept = np.arange(25 * 40).reshape(25, 40)[:20, :25].ravel()
    whole = predictions.map_places(Space(("x", "l2"), codes), (25, 40), seed=1)
    same = predictions.map_places(Space(("x", "l2"), codes[kept]), (20, 25), seed=1)
    assert (whole == same).all()


@pytest.mark.parametrize(
    "scores",
    [{"3-way": {"chance": 1 / 3, "tasks": 4}}, {"4-way": scored(l2=0.5) | {"chance": 1 / 4}}],
    ids=["without layers", "of other tasks"],
)
def test_figures_without_layers_or_of_other_tasks_are_refused(scores):
    write_scores(**scores)
    with pytest.raises(UserError, match=r"oneshot\.json: no figures .* dvc repro oneshot@toy-siam"):
        predictions.main("toy-siamese")
    assert not list(Path("predictions").rglob("*.npy"))


def test_without_figures_there_is_no_best_distance():
    Path("metrics/toy/toy-siamese/oneshot.json").unlink()
    with pytest.raises(
        UserError, match=r"oneshot\.json: no such file.* dvc repro oneshot@toy-siam"
    ):
        predictions.main("toy-siamese")


@pytest.mark.parametrize("count", [11, 13], ids=["fewer", "more"])
def test_codes_of_other_images_are_refused_and_nothing_is_written(count):
    save("data/codes/toy/toy-siamese/trained/neural_codes.npy", np.resize(CODES, (count, 1)))
    with pytest.raises(UserError, match="does not fit data/arrays/toy and data/tasks/toy"):
        predictions.main("toy-siamese")
    assert not list(Path("predictions").rglob("*.npy"))


@pytest.mark.parametrize(
    "folder", sorted(ROOT.glob("predictions/*/*")), ids=lambda folder: folder.name
)
def test_committed_predictions_are_of_the_committed_figures(folder):
    metrics = ROOT / "metrics" / folder.parent.name / folder.name
    scores = json.loads((metrics / "oneshot.json").read_text())
    widest = scores[most_ways(scores)]
    layers = PARAMS.experiments[folder.name].codes.layers
    arrays = {path.stem: np.load(path) for path in folder.glob("*.npy")}
    assert set(arrays) == {"choices", "map", *(f"nearest-{layer}" for layer in layers)}
    nearest = np.unpackbits(arrays["choices"], axis=1, count=round(1 / widest["chance"]))
    assert len(nearest) == widest["tasks"]
    assert nearest.any(axis=1).all()
    # The tasks are drawn as they were frozen, so that the choices give the figures again.
    dataset = PARAMS.datasets[folder.parent.name]
    chosen = dataset.tasks.sets[most_ways(scores)]
    assert chosen.draw == "all_classes"
    classes, examples = (dataset.split.unseen.count(axis) for axis in ("classes", "examples"))
    rng = np.random.default_rng([dataset.tasks.seed, *most_ways(scores).encode()])
    tasks = draw_tasks(
        rng, classes=classes, examples=examples, ways=chosen.ways, count=chosen.count
    )
    found = oneshot.figures(hits_of(np.where(nearest, 0.0, 1.0), tasks // examples))
    figures = (each for layer in layers for each in widest[layer].values())
    assert found == max(figures, key=lambda each: each["accuracy"])
    assert set(json.loads((folder / "codes.json").read_text())) == set(layers)
