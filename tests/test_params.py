import copy
import importlib
import inspect
import itertools
import math
import os
import random
import subprocess
import sys
import typing
from pathlib import Path

import archives
import pydantic
import pytest
import yaml

import stages
from stages import params
from stages.command import UserError

REAL = archives.PARAMS.read_text(encoding="utf-8")
GIVEN = yaml.safe_load(REAL)
MISSING = object()


def changed(given, key, value):
    """Return a copy of params in which a dotted key has another value, or is not there."""
    given = copy.deepcopy(given)
    *parents, last = key.split(".")
    place = given
    for parent in parents:
        place = place[parent]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return given


def load(folder, given):
    archives.write_params(folder, given)
    return params.load(folder / "params.yaml")


def refusal(folder, given):
    """Return the message with which params are refused."""
    with pytest.raises(UserError) as error:
        load(folder, given)
    message = str(error.value)
    assert message.startswith(f"{folder / 'params.yaml'}: ")
    assert "\n" not in message
    return message.removeprefix(f"{folder / 'params.yaml'}: ")


def test_the_real_params_load_as_they_are():
    loaded = params.load(archives.PARAMS)
    assert loaded.model_dump() == GIVEN
    assert loaded.dataset("digits").split.unseen.count("classes") == 5


def test_small_params_load(tmp_path):
    assert load(tmp_path, archives.small_params())


# One row a mistake: the key, what it is set to, and how the line begins (or is).
MISTAKES = {
    "unknown key": (
        "datasets.digits.imgae",
        {},
        "datasets.digits: unknown key 'imgae'; allowed: reader, sources, digests, pixels, image",
    ),
    "unknown section": ("metrics", {}, "top level: unknown key 'metrics'; allowed: seed, datasets"),
    "unknown key of a split": (
        "datasets.digits.split.seen",
        None,
        "datasets.digits.split: unknown key 'seen'; allowed: seed, shuffle, seen_train",
    ),
    "number as a key": (
        "datasets.digits.image",
        {1: 2},
        "datasets.digits.image: unknown key 1; allowed: size, channels",
    ),
    "missing key": (
        "experiments.digits-siamese.training.batch",
        MISSING,
        "experiments.digits-siamese.training.batch: missing key",
    ),
    "missing section": ("experiments", MISSING, "experiments: missing key"),
    "missing name": (
        "experiments.digits-siamese.network.name",
        MISSING,
        "experiments.digits-siamese.network.name: missing key",
    ),
    "text for a number": (
        "experiments.digits-siamese.training.batch",
        "many",
        "experiments.digits-siamese.training.batch: input should be a valid integer, got 'many'",
    ),
    "fraction for a whole number": (
        "experiments.digits-siamese.training.epochs",
        2.5,
        "experiments.digits-siamese.training.epochs: input should be a valid integer, got 2.5",
    ),
    "yes for a number": ("seed", True, "seed: input should be a valid integer, got True"),
    "number for yes or no": (
        "datasets.digits.split.shuffle",
        1,
        "datasets.digits.split.shuffle: input should be a valid boolean, got 1",
    ),
    "nothing for a section": (
        "experiments.digits-siamese.training",
        None,
        "experiments.digits-siamese.training: input should be a valid dictionary",
    ),
    "list for a section": (
        "datasets.digits.split",
        [1, 2],
        "datasets.digits.split: input should be a valid dictionary",
    ),
    "text for a list": (
        "experiments.digits-siamese.codes.layers",
        "L6",
        "experiments.digits-siamese.codes.layers: input should be a valid list, got 'L6'",
    ),
    "zero": (
        "datasets.digits.image.size",
        0,
        "datasets.digits.image.size: input should be greater than or equal to 1, got 0",
    ),
    "negative": (
        "datasets.digits.tasks.seed",
        -1,
        "datasets.digits.tasks.seed: input should be greater than or equal to 0, got -1",
    ),
    "too much": (
        "experiments.digits-siamese.training.augmentation.scale",
        1.0,
        "experiments.digits-siamese.training.augmentation.scale: input should be less than 1, "
        "got 1.0",
    ),
    "infinite": (
        "experiments.digits-siamese.training.optimizer.learning_rate",
        math.inf,
        "experiments.digits-siamese.training.optimizer.learning_rate: input should be a finite "
        "number, got inf",
    ),
    "not a number": (
        "experiments.digits-siamese.training.augmentation.rotation",
        math.nan,
        "experiments.digits-siamese.training.augmentation.rotation: input should be ",
    ),
    # Keras takes seeds of 32 bits only.
    "too large a seed": ("seed", 2**32, "seed: input should be less than "),
    "odd number of pairs": (
        "experiments.digits-siamese.codes.pairs",
        11,
        "experiments.digits-siamese.codes.pairs: input should be a multiple of 2, got 11",
    ),
    "number not among the choices": (
        "datasets.digits.image.channels",
        2,
        "datasets.digits.image.channels: input should be 1 or 3, got 2",
    ),
    "name not among the choices": (
        "experiments.digits-siamese.training.precision",
        "float16",
        "experiments.digits-siamese.training.precision: input should be 'float32' or "
        "'mixed_bfloat16', got 'float16'",
    ),
    "neither told nor left to Keras": (
        "experiments.digits-siamese.training.jit_compile",
        "maybe",
        "experiments.digits-siamese.training.jit_compile: input should be 'auto', True or False, "
        "got 'maybe'",
    ),
    "unknown optimizer": (
        "experiments.digits-siamese.training.optimizer.name",
        "adagrad",
        "experiments.digits-siamese.training.optimizer: no module 'adagrad' in stages/optimizers; "
        "there are: adam, muon, sgd",
    ),
    "setting of another optimizer": (
        "experiments.digits-siamese.training.optimizer.momentum",
        0.9,
        "experiments.digits-siamese.training.optimizer: unknown key 'momentum'; allowed: amsgrad",
    ),
    "one way": (
        "datasets.digits.tasks.sets.2-way.ways",
        1,
        "datasets.digits.tasks.sets.2-way.ways: input should be greater than or equal to 2, got 1",
    ),
    "no tasks": ("datasets.digits.tasks.sets", {}, "datasets.digits.tasks.sets: dictionary should"),
    "range of one number": (
        "datasets.digits.split.unseen.classes",
        [5],
        "datasets.digits.split.unseen.classes: list should have at least 2 items",
    ),
    "empty range": (
        "datasets.digits.split.unseen.examples",
        [9, 9],
        "datasets.digits.split.unseen: examples: expected [first, stop) with first < stop, "
        "got (9, 9)",
    ),
    "no pairs": (
        "datasets.digits.split.unseen.examples",
        [0, 1],
        "datasets.digits.split.unseen: expected two or more examples of a class",
    ),
    "no sha256": (
        "datasets.digits.pixels.all",
        "79fa",
        "datasets.digits.pixels.all: string should match pattern '^[0-9a-f]{64}$', got '79fa'",
    ),
    "capitals in a name": (
        "experiments.Digits",
        {},
        "experiments.Digits: string should match pattern '^[a-z0-9][a-z0-9_-]*$', got 'Digits'",
    ),
    "unknown dataset": (
        "experiments.digits-siamese.dataset",
        "digitz",
        "experiments.digits-siamese.dataset: no dataset 'digitz'; there are: digits, cifar100",
    ),
    "unknown reader": (
        "datasets.digits.reader",
        "digitz",
        "datasets.digits.reader: no module 'digitz' in stages/readers; there are: cifar100, digits",
    ),
    "reader outside its folder": (
        "datasets.digits.reader",
        "../train",
        "datasets.digits.reader: string should match pattern",
    ),
    "unknown network": (
        "experiments.digits-siamese.network.name",
        "conv_bricks",
        "experiments.digits-siamese.network: no module 'conv_bricks' in stages/networks; "
        "there are: alexnet, cifar_classifier, cifar_siamese, ",
    ),
    "unknown objective": (
        "experiments.digits-siamese.objective.name",
        "triplet",
        "experiments.digits-siamese.objective: no module 'triplet' in stages/objectives; "
        "there are: classifier, ",
    ),
    "unknown network setting": (
        "experiments.digits-siamese.network.filter",
        32,
        "experiments.digits-siamese.network: unknown key 'filter'; allowed: scale, offset, blocks",
    ),
    "missing network setting": (
        "experiments.digits-siamese.network.filters",
        MISSING,
        "experiments.digits-siamese.network.filters: missing key",
    ),
    "network setting out of range": (
        "experiments.digits-siamese.network.dropout",
        1.0,
        "experiments.digits-siamese.network.dropout: input should be less than 1, got 1.0",
    ),
    "network setting of a wrong type": (
        "experiments.digits-siamese.network.blocks",
        "2",
        "experiments.digits-siamese.network.blocks: input should be a valid integer, got '2'",
    ),
    "unknown objective setting": (
        "experiments.digits-classifier.objective.margin",
        1.0,
        "experiments.digits-classifier.objective: unknown key 'margin'; allowed: ",
    ),
    "objective setting not among the choices": (
        "experiments.digits-siamese.objective.loss",
        "hinge",
        "experiments.digits-siamese.objective.loss: input should be 'binary' or 'softmax', "
        "got 'hinge'",
    ),
    "early stopping without validation": (
        "experiments.cifar100-classifier.training.early_stopping",
        3,
        "experiments.cifar100-classifier.training.early_stopping: datasets.cifar100.split has no "
        "seen_validation to watch; give it one or set early_stopping to null",
    ),
    "resizing to no smaller images": (
        "experiments.cifar100-fast.training.progressive_resizing",
        [{"size": 24, "epochs": 1}, {"size": 32, "epochs": 1}],
        "experiments.cifar100-fast.training.progressive_resizing: expected sizes that grow to less "
        "than the 32 of images.size, got [24, 32]",
    ),
    "smaller images in all epochs": (
        "experiments.cifar100-fast.training.progressive_resizing",
        [{"size": 16, "epochs": 1}, {"size": 24, "epochs": 3}],
        "experiments.cifar100-fast.training.progressive_resizing: 4 epochs on smaller images leave "
        "none of the 4 of training.epochs for whole ones",
    ),
    "more ways than unseen classes": (
        "datasets.cifar100.tasks.sets.20-way.ways",
        21,
        "datasets.cifar100.tasks.sets.20-way.ways: 21 is more than the 20 unseen classes",
    ),
    "mistake 5: a class to train on is unseen": (
        "datasets.cifar100.split.seen_train.classes",
        [0, 81],
        "datasets.cifar100.split.seen_train: shares classes with unseen",
    ),
    "mistake 5: a class to stop by is unseen": (
        "datasets.digits.split.seen_validation",
        {"part": "all", "classes": [4, 6], "examples": [114, 134]},
        "datasets.digits.split.seen_validation: shares classes with unseen",
    ),
    "images to train on and to test on": (
        "datasets.digits.split.seen_test.examples",
        [133, 173],
        "datasets.digits.split: seen_test and seen_validation share images",
    ),
    "part without a digest": (
        "datasets.omniglot.split.seen_test.part",
        "backgrounds",
        "datasets.omniglot.split.seen_test.part: 'backgrounds' has no digest under "
        "datasets.omniglot.pixels; there are: background, evaluation",
    ),
    "archive without a digest": (
        "datasets.cifar100.sources",
        {"other.zip": []},
        "datasets.cifar100: sources and digests must name the same archives",
    ),
    "no digest for an archive": (
        "datasets.cifar100.digests",
        {"cifar-100-python.tar.gz": []},
        "datasets.cifar100.digests.cifar-100-python.tar.gz: list should have at least 1 item",
    ),
    "archive outside its folder": (
        "datasets.digits.sources",
        {"../a.zip": []},
        "datasets.digits.sources.../a.zip: string should match pattern",
    ),
    "check of no experiment": (
        "check.digits-triplet",
        {"beat": [], "at_least": {}},
        "check.digits-triplet: no such experiment; there are: digits-siamese, digits-classifier",
    ),
    "experiment without a check": (
        "check.digits-siamese",
        MISSING,
        "check: no entry for the experiment 'digits-siamese'",
    ),
    "unknown baseline": (
        "check.digits-siamese.beat",
        ["random"],
        "check.digits-siamese.beat.0: input should be 'chance', 'pixels' or 'untrained', "
        "got 'random'",
    ),
}


@pytest.mark.parametrize(("key", "value", "line"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_with_key_value_and_what_is_allowed(tmp_path, key, value, line):
    message = refusal(tmp_path, changed(GIVEN, key, value))
    assert message.startswith(line)


def test_every_mistake_is_named(tmp_path):
    given = GIVEN
    for key in ("seed", "datasets.digits.image.size", "experiments.digits-siamese.codes.batch"):
        given = changed(given, key, 0.5)
    message = refusal(tmp_path, given)
    assert message.count("should be a valid integer, got 0.5") == 3


# Mistakes of the text itself: what is replaced, by what, and what the message says.
TEXTS = {
    "YAML 1.1": (
        "learning_rate: 0.002",
        "learning_rate: 1e-4",
        "training.optimizer.learning_rate: input should be a valid number, got '1e-4' "
        "(YAML reads a number like 1e-4 as text: write 1.0e-4)",
    ),
    "key given twice": ("seed: 1 ", "seed: 1\nseed: 2 ", "key 'seed' given twice"),
    "key given twice in one line": (
        "image: {size: 8, ",
        "image: {size: 8, size: 8, ",
        "key 'size' given twice",
    ),
    "experiment given twice": (
        "  digits-classifier:\n",
        "  digits-siamese:\n",
        "key 'digits-siamese' given twice",
    ),
    "open bracket": ("classes: [0, 5]", "classes: [0, 5", "no valid YAML"),
    "tab": ("  digits:", "\tdigits:", "no valid YAML"),
    "object of Python": ("seed: 1 ", "seed: !!python/object:os.system 1 ", "no valid YAML"),
    "unknown alias": ("seed: 1 ", "seed: *one ", "no valid YAML"),
    "date that is none": ("seed: 1 ", "seed: 2026-13-45 ", "no valid YAML"),
    "date": ("seed: 1 ", "seed: 2026-01-02 ", "seed: input should be a valid integer"),
    "a template left as it is": ("seed: 1 ", "seed: {{ seed }} ", "no valid YAML"),
    "control character": ("seed: 1 ", "seed: \x00 ", "no valid YAML"),
}


@pytest.mark.parametrize(("old", "new", "says"), TEXTS.values(), ids=TEXTS)
def test_a_mistake_of_the_text_is_a_user_error(tmp_path, old, new, says):
    assert old in REAL
    path = tmp_path / "params.yaml"
    path.write_text(REAL.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError) as error:
        params.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)


@pytest.mark.parametrize("content", [b"", b"- 1\n", b"seed\n", b"\xff\xfe\xff", b"a: \xe9\n"])
def test_a_file_of_something_else_is_a_user_error(tmp_path, content):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"params.yaml: (top level|no valid YAML): "):
        params.load(tmp_path / "params.yaml")


def test_an_unknown_name_lists_those_there_are():
    loaded = params.load(archives.PARAMS)
    with pytest.raises(UserError, match=r"datasets: no entry 'mnist'; there are: digits, cifar100"):
        loaded.dataset("mnist")
    with pytest.raises(UserError, match=r"experiments: no entry 'mnist'; there are: digits-siames"):
        loaded.experiment("mnist")


# Through the command line


def run(folder, *words):
    """Run a stage in a folder; return its exit code and its lines on standard error."""
    path = {"PYTHONPATH": str(Path(stages.__file__).parents[1])}
    ended = subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=os.environ | path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stdout == ""
    return ended.returncode, ended.stderr.splitlines()


@pytest.mark.parametrize(
    ("dataset", "old", "new", "says"),
    [
        ("digits", None, None, "params.yaml: no such file; run from the project's top folder"),
        ("digits", "classes: [0, 5]", "classes: [0, 5", "params.yaml: no valid YAML"),
        ("digits", "seed: 1 ", "seed: 1\nseed: 2 ", "key 'seed' given twice"),
        ("digits", "  digits: ", "  digits: {} ", "params.yaml: "),
        ("digits", "learning_rate: 0.002", "learning_rate: 1e-4", "write 1.0e-4"),
        ("digits", "ways: 5", "ways: 6", "6 is more than the 5 unseen classes"),
        ("digitz", "", "", "datasets: no entry 'digitz'; there are: digits, "),
    ],
    ids=["missing", "not YAML", "twice", "not a section", "1e-4", "ways", "unknown dataset"],
)
def test_through_the_command_line_one_line_and_nothing_written(tmp_path, dataset, old, new, says):
    if old is not None:
        (tmp_path / "params.yaml").write_text(REAL.replace(old, new, 1), encoding="utf-8")
    before = sorted(tmp_path.rglob("*"))
    code, lines = run(tmp_path, "stages.tasks", dataset)
    assert code == 1
    assert len(lines) == 1
    assert lines[0].startswith(f"stages.tasks {dataset}: params.yaml: ")
    assert says in lines[0]
    assert sorted(tmp_path.rglob("*")) == before


# No default: what params.yaml says is all there is, so that dvc.yaml need not name params.py.


def sections(kind, found):
    """Add to `found` every section that a type is made of."""
    if isinstance(kind, type) and issubclass(kind, pydantic.BaseModel) and kind not in found:
        found.add(kind)
        for field in kind.model_fields.values():
            sections(field.annotation, found)
    for inner in typing.get_args(kind):
        sections(inner, found)
    return found


def test_no_section_has_a_default():
    found = sections(params.Params, set())
    defined = {
        each
        for each in vars(params).values()
        if isinstance(each, type) and issubclass(each, params.Section)
    }
    assert found == defined - {params.Section}
    for section in found:
        for name, field in section.model_fields.items():
            assert field.is_required(), f"{section.__name__}.{name} has a default"
            assert field.alias is None


def modules(room):
    return sorted(path.stem for path in (Path(stages.__file__).parent / room).glob("[a-z]*.py"))


BUILDERS = [(room, name) for room in ("networks", "objectives") for name in modules(room)]


@pytest.mark.parametrize(("room", "name"), BUILDERS, ids=str)
def test_every_setting_of_a_module_is_typed_and_has_no_default(room, name):
    build = importlib.import_module(f"stages.{room}.{name}").build
    settings = [
        parameter
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for parameter in settings:
        assert parameter.default is parameter.empty, f"{parameter.name} has a default"
        assert parameter.annotation is not parameter.empty, f"{parameter.name} has no type"
        assert not isinstance(parameter.annotation, str), "annotations are read as types"
    section = params.settings_of(room, name)
    assert list(section.model_fields) == [parameter.name for parameter in settings]
    assert all(field.is_required() for field in section.model_fields.values())


def test_params_are_checked_without_keras(tmp_path):
    code = "import sys; from stages import params; params.load(sys.argv[1]); "
    code += "sys.exit(bool({'keras', 'tensorflow', 'sklearn', 'dvc'} & sys.modules.keys()))"
    ended = subprocess.run(
        [sys.executable, "-c", code, archives.PARAMS],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(stages.__file__).parents[1])},
        timeout=60,
    )
    assert ended.returncode == 0


# Whatever is changed, params are accepted or refused.

SMALL = archives.small_params()
SMALL = {
    "seed": 1,
    "datasets": {"digits": SMALL["datasets"]["digits"]},
    "experiments": {name: SMALL["experiments"][name] for name in ("digits-siamese",)},
    "seeds": SMALL["seeds"],
    "cluster": SMALL["cluster"],
    "check": {name: SMALL["check"][name] for name in ("digits-siamese",)},
}
VALUES = [
    MISSING, None, True, False, -1, 0, 1, 2, 3, 10**30, 0.5, -0.5, math.nan, math.inf, "", "x",
    "1e-4", "all", "digits", "seen_train", "../x", "\n", "é", [], {}, [0, 5], [5, 0], ["l2"], [[]],
    {"": 1}, {"x": None}, {1: 2}, {None: 1},
]  # fmt: skip


def keys(given, prefix=""):
    """Return the dotted keys of params, sections and values alike."""
    found = []
    for key, value in given.items():
        found.append(f"{prefix}{key}")
        if isinstance(value, dict):
            found += keys(value, f"{prefix}{key}.")
    return found


def answer(path):
    """Return how params are refused, or nothing; any other end than a `UserError` is passed on."""
    try:
        params.load(path)
    except UserError as error:
        assert str(error).startswith(f"{path}: ")
        return str(error)
    return ""


def test_300_changed_values_are_accepted_or_refused_by_name(tmp_path):
    rng = random.Random(0)
    found = []
    for _ in range(300):
        given, named = SMALL, set()
        for _ in range(rng.choice([1, 1, 1, 2])):
            key = rng.choice(keys(given))
            named |= set(key.split(".")[-2:])
            given = changed(given, key, rng.choice(VALUES))
        archives.write_params(tmp_path, given)
        message = answer(tmp_path / "params.yaml")
        assert len(message.splitlines()) <= 1
        assert not message or any(name in message for name in named), message
        found.append(not message)
        assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
    assert 0 < sum(found) < len(found) / 2  # changes matter, and not every one is refused


def test_300_changed_texts_are_accepted_or_refused(tmp_path):
    archives.write_params(tmp_path, SMALL)
    path = tmp_path / "params.yaml"
    text = path.read_text(encoding="utf-8")
    rng = random.Random(0)
    for _ in range(300):
        place = rng.randrange(len(text))
        new = rng.choice([*"{}[]:,-?!&*#|>%@`'\"\t\n 01.ea", "- ", ": ", "? ", "!!", "2026-13-45"])
        removed = rng.choice([0, 1, 1, 10])
        path.write_text(text[:place] + new + text[place + removed :], encoding="utf-8")
        answer(path)


LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [*{old}, *{old}, *{old}, *{old}]\n"
    for old, new in itertools.pairwise("abcdefghijklmnopqrstuvwxyz")
)


@pytest.mark.parametrize(
    "text",
    ["seed: !!bool maybe", "seed: !!timestamp soon", "seed: !!int x", "? [a]\n: 1", "seed: !!set 1",
     "[" * 5000, LAUGHS, "seed: &a [*a]", "seed: !!python/object/apply:os.system [touch ran]"],
    ids=["bool", "time", "int", "list as key", "set", "deep", "laughs", "itself", "code"],
)  # fmt: skip
def test_a_hostile_text_is_one_line(tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(text, encoding="utf-8")
    message = answer(Path("params.yaml"))
    assert 0 < len(message) < 10_000
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]
