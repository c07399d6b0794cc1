"""params.yaml, read into typed sections and checked as a whole before a stage does anything.

No field has a default: what params.yaml says is all there is, so this module never alters a
result, and stages do not list it among their dependencies in dvc.yaml.

A network, an objective or a reader is a module with one function; the function's keyword-only
parameters, with their annotations, are the settings that params.yaml may and must give it.
"""

import functools
import importlib
import importlib.util
import inspect
import itertools
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pydantic
import yaml

from stages.command import UserError

Count = Annotated[int, pydantic.Field(ge=1)]
Whole = Annotated[int, pydantic.Field(ge=0)]
Positive = Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Real = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Fraction = Annotated[float, pydantic.Field(ge=0, lt=1)]
Digest = Annotated[str, pydantic.Field(pattern="^[0-9a-f]{64}$")]
Key = Annotated[str, pydantic.Field(pattern="^[a-z0-9][a-z0-9_-]*$")]
Module = Annotated[str, pydantic.Field(pattern="^[a-z][a-z0-9_]*$")]
FileName = Annotated[str, pydantic.Field(pattern="^[A-Za-z0-9_][A-Za-z0-9_.-]*$")]
Range = Annotated[list[Whole], pydantic.Field(min_length=2, max_length=2)]

# The names of stages.measures.distances.DISTANCES, which is not imported: no stage that reads
# params.yaml is to run again when a measure changes.
Distance = Literal["l2", "l2_normalised", "centred_l2_normalised", "l2_centred_l2_normalised"]


class Section(pydantic.BaseModel):
    """A section of params.yaml: every key is required, none other is allowed."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {key!r}; allowed: {', '.join(cls.model_fields)}")
        return given


class Image(Section):
    """What the pixels are turned into."""

    size: Annotated[int, pydantic.Field(ge=1, le=256)]
    channels: Literal[1, 3]


class Images(Image):
    """What an experiment is given of a dataset's images."""

    classes: Count


class Selection(Section):
    """Classes and examples of one part of the archive, each as [first, stop)."""

    part: str
    classes: Range
    examples: Range

    @pydantic.model_validator(mode="after")
    def _not_empty(self) -> "Selection":
        for name in ("classes", "examples"):
            first, stop = getattr(self, name)
            if first >= stop:
                raise ValueError(
                    f"{name}: expected [first, stop) with first < stop, got {first, stop}"
                )
        return self

    def count(self, axis: Literal["classes", "examples"]) -> int:
        """Return the number of classes or of examples a class."""
        first, stop = getattr(self, axis)
        return stop - first


class Split(Section):
    """Which images are trained on, looked at while training, tested on, and never seen."""

    seed: Whole
    shuffle: bool
    seen_train: Selection
    seen_validation: Selection | None
    seen_test: Selection
    unseen: Selection

    @pydantic.field_validator("unseen")
    @classmethod
    def _an_image_and_another(cls, chosen: Selection) -> Selection:
        if chosen.count("examples") < 2:
            raise ValueError("expected two or more examples of a class: a query and what is sought")
        return chosen

    def selections(self) -> dict[str, Selection]:
        """Return the selections that are there, by name."""
        return {name: chosen for name, chosen in self if isinstance(chosen, Selection)}


class TaskSet(Section):
    """One set of frozen one-shot tasks."""

    draw: Literal["all_classes", "one_group", "fixed"]
    ways: Annotated[int, pydantic.Field(ge=2)]
    count: Count


class Tasks(Section):
    """The frozen one-shot tasks of a dataset."""

    seed: Whole
    sets: Annotated[dict[Key, TaskSet], pydantic.Field(min_length=1)]


class Published(Section):
    """A figure published elsewhere, to stand beside ours with its protocol.

    `network` is the module of stages/networks that is the published one, `layer` whose codes it is
    of, or `pixels`, `distance` by which they were compared; null where there is none or none told.
    """

    system: str
    network: Module | None
    layer: str | None
    distance: Distance | Literal["learned"] | None
    measure: str
    figure: Real
    protocol: str

    @property
    def dimensions(self) -> int | None:
        """Return N of the measure "PCA to N", of codes compressed to N dimensions, or None."""
        words, _, number = self.measure.rpartition(" ")
        return int(number) if words == "PCA to" and number.isdecimal() else None


class Dataset(Section):
    """What to fetch, how to split it, which tasks to draw."""

    reader: Module
    sources: dict[FileName, list[str]]
    digests: dict[FileName, Annotated[list[Digest], pydantic.Field(min_length=1)]]
    pixels: Annotated[dict[str, Digest], pydantic.Field(min_length=1)]
    image: Image
    split: Split
    tasks: Tasks
    published: list[Published]


class Chosen(Section):
    """A module by name, with the settings that its function takes."""

    model_config = pydantic.ConfigDict(extra="allow", frozen=True, strict=True)

    name: Module

    @pydantic.model_validator(mode="before")
    @classmethod
    def _name_unknown_keys(cls, given: Any) -> Any:
        return given

    @property
    def settings(self) -> dict[str, Any]:
        """Return the settings without the name."""
        return dict(self.model_extra or {})


class Optimizer(Chosen):
    """An optimizer, with the learning rate's course over the whole training."""

    learning_rate: Positive
    schedule: Literal["constant", "cosine", "one_cycle"]


class Augmentation(Section):
    """What is done to training images; validation and test images are left as they are."""

    flip: bool
    shift: Whole
    rotation: NotNegative
    scale: Fraction
    colour: Fraction
    rotated_classes: bool


class Resizing(Section):
    """So many epochs on images made smaller, which cost less.

    Progressive resizing (Howard 2018, fast.ai's entry to DAWNBench; Tan & Le 2021, section 4).
    """

    size: Count
    epochs: Count


class Training(Section):
    """How a network is trained."""

    epochs: Count
    steps: Count | None
    batch: Count
    precision: Literal["float32", "mixed_bfloat16"]
    jit_compile: Literal["auto", True, False]
    optimizer: Optimizer
    early_stopping: Count | None
    augmentation: Augmentation
    progressive_resizing: list[Resizing]

    def sizes(self) -> list[int | None]:
        """Return the side of the images of each epoch; None: as they are."""
        first = [each.size for each in self.progressive_resizing for _ in range(each.epochs)]
        return first + [None] * (self.epochs - len(first))


class Codes(Section):
    """Which hidden layers are written, and what is measured on seen classes beside them.

    Layers joined by `+` are one code, side by side; see `stages.assembly.code_of`.
    """

    layers: Annotated[list[str], pydantic.Field(min_length=1)]
    mirrored: bool
    seen: Count
    batch: Count
    pairs: Annotated[int, pydantic.Field(ge=2, multiple_of=2)]


class OneShot(Section):
    """What the one-shot tasks are scored with."""

    distances: Annotated[
        list[Distance | Literal["learned"]],
        pydantic.Field(min_length=1),
    ]
    expansion: list[Count]


class Pictures(Section):
    """How many queries are pictured, each with how many of its nearest images."""

    queries: Count
    nearest: Count


class Search(Section):
    """Which indexes of faiss are measured beside exact search, and how many images each returns."""

    indexes: list[Annotated[str, pydantic.Field(pattern="^[A-Za-z0-9_,()=.-]+$")]]
    depth: Annotated[int, pydantic.Field(ge=10)]


class Retrieval(Section):
    """What retrieval is scored with."""

    distances: Annotated[
        list[Distance],
        pydantic.Field(min_length=1),
    ]
    dimensions: list[Count]
    query_expansion: list[Count]
    resamples: Count
    memory: Count
    search: Search
    pictures: Pictures


class Experiment(Section):
    """One network, trained on one dataset for one objective, with what is measured on it."""

    dataset: Key
    images: Images
    network: Chosen
    objective: Chosen
    training: Training
    codes: Codes
    oneshot: OneShot
    retrieval: Retrieval


class Check(Section):
    """What the gate asks of one experiment."""

    beat: list[Literal["chance", "pixels", "untrained"]]
    at_least: dict[str, Real]


class Seeds(Section):
    """From how many seeds an experiment is run, the one of params.yaml and those that follow it.

    `dataset` is the experiment's, said again for dvc.yaml, which cannot look it up.
    """

    dataset: Key
    count: Annotated[int, pydantic.Field(ge=2)]


class Cluster(Section):
    """Which engines beyond this process do the work; see docs/cluster.md.

    `launcher` starts the processes of a training: their number on this machine, or a command.
    `scheduler` is Dask's: the number of workers on this machine, or an address.
    """

    launcher: Count | Annotated[str, pydantic.Field(min_length=1)] | None
    scheduler: Count | Annotated[str, pydantic.Field(pattern=r"^[a-z]+://[^\s]+$")] | None
    shards: Count


class Difference(NamedTuple):
    """Two experiments that are the same but for one setting: what it is worth can be read off.

    Attributes:
        first: the experiment that comes first in params.yaml.
        second: the other one.
        key: the setting's path below the experiment, such as images.channels.
        old: its value in the first.
        new: its value in the second.
    """

    first: str
    second: str
    key: str
    old: Any
    new: Any


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, pydantic.Field(ge=0, lt=2**32)]
    datasets: dict[Key, Dataset]
    experiments: dict[Key, Experiment]
    seeds: dict[Key, Seeds]
    cluster: Cluster
    check: dict[Key, Check]

    def dataset(self, name: str) -> Dataset:
        """Return the dataset of that name, or raise a `UserError` that lists those there are."""
        return _named("datasets", self.datasets, name)

    def experiment(self, name: str) -> Experiment:
        """Return the experiment of that name, or raise a `UserError` that lists those there are."""
        return _named("experiments", self.experiments, name)

    def differences(self) -> list[Difference]:
        """Return every two experiments of a dataset that differ in a single setting."""
        found = []
        settings = {name: leaves(each.model_dump()) for name, each in self.experiments.items()}
        for (first, a), (second, b) in itertools.combinations(settings.items(), 2):
            keys = [key for key in a.keys() | b.keys() if a.get(key) != b.get(key)]
            if len(keys) == 1 and (key := keys[0]) != "dataset":
                found.append(Difference(first, second, key, a.get(key), b.get(key)))
        return found

    def variants(self) -> set[str]:
        """Return the experiments that differ from one in a single setting and are named after it.

        So cifar100-classifier-grey is a variant of cifar100-classifier.
        """
        return {
            each.second for each in self.differences() if each.second.startswith(f"{each.first}-")
        }


def leaves(section: dict, separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Return the values of nested dictionaries by their paths."""
    found = {}
    for key, value in section.items():
        if isinstance(value, dict):
            found |= leaves(value, separator, f"{prefix}{key}{separator}")
        else:
            found[f"{prefix}{key}"] = value
    return found


def _named(section: str, entries: dict, name: str) -> Any:
    if name not in entries:
        raise UserError(
            f"params.yaml: {section}: no entry {name!r}; there are: {', '.join(entries)}"
        )
    return entries[name]


def load(path: str | Path = "params.yaml") -> Params:
    """Return the checked params.

    Raises:
        UserError: for a file that is missing or is no YAML, and for every key that is unknown or
            missing, of a wrong type, out of range, or at odds with another one: a line each.
    """
    try:
        given = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the project's top folder") from None
    except (
        yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError
    ) as error:  # fmt: skip  # not UTF-8, a date like 2026-13-45, a tag like !!bool on other text
        raise UserError(f"{path}: no valid YAML: {error}") from None
    try:
        params = Params.model_validate(given)
    except pydantic.ValidationError as error:
        raise UserError(f"{path}: {_lines(error)}") from None
    problems = [*_dataset_problems(params), *_experiment_problems(params)]
    if problems:
        raise UserError(f"{path}: {'; '.join(problems)}")
    return params


class _Loader(yaml.CSafeLoader):
    """PyYAML's safe loader by libyaml, eight times as fast, where a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for twice in {key for key in keys if keys.count(key) > 1}:
            raise yaml.constructor.ConstructorError(
                problem=f"key {twice!r} given twice", problem_mark=node.start_mark
            )
        return super().construct_mapping(node, deep)


_Loader.add_constructor(
    yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG,
    lambda loader, node: loader.construct_mapping(node, True),
)


def _lines(error: pydantic.ValidationError, prefix: str = "") -> str:
    """Return what is wrong as one line: key, what was expected, what was found."""
    lines = []
    for problem in error.errors():
        key = ".".join([prefix] * bool(prefix) + [str(p) for p in problem["loc"] if p != "[key]"])
        message = problem["msg"].removeprefix("Value error, ")
        given = problem["input"]
        if problem["type"] == "missing":
            message = "missing key"
        elif problem["type"] != "value_error":
            message = f"{message[0].lower()}{message[1:]}, got {reprlib.repr(given)}"
            if isinstance(given, str) and _is_number(given):
                message += " (YAML reads a number like 1e-4 as text: write 1.0e-4)"
        lines.append(f"{key or 'top level'}: {message}")
    return "; ".join(lines)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _dataset_problems(params: Params) -> list[str]:
    problems = []
    for name, dataset in params.datasets.items():
        here = f"datasets.{name}"
        problems += _module_problems(f"{here}.reader", "readers", dataset.reader)
        if set(dataset.sources) != set(dataset.digests):
            problems.append(f"{here}: sources and digests must name the same archives")
        for published in dataset.published:
            if published.network:
                there = f"{here}.published.network"
                problems += _module_problems(there, "networks", published.network)
        unseen = dataset.split.unseen
        for split, chosen in dataset.split.selections().items():
            if chosen.part not in dataset.pixels:
                problems.append(
                    f"{here}.split.{split}.part: {chosen.part!r} has no digest under "
                    f"{here}.pixels; there are: {', '.join(dataset.pixels)}"
                )
            shared = chosen.part == unseen.part and _overlap(chosen.classes, unseen.classes)
            if shared and chosen is not unseen:
                problems.append(f"{here}.split.{split}: shares classes with unseen")
            for other, also in dataset.split.selections().items():
                if (
                    split < other
                    and chosen.part == also.part
                    and _overlap(chosen.classes, also.classes)
                    and _overlap(chosen.examples, also.examples)
                ):
                    problems.append(f"{here}.split: {split} and {other} share images")
        for name_of_set, tasks in dataset.tasks.sets.items():
            if tasks.draw != "fixed" and tasks.ways > unseen.count("classes"):
                problems.append(
                    f"{here}.tasks.sets.{name_of_set}.ways: {tasks.ways} is more than the "
                    f"{unseen.count('classes')} unseen classes"
                )
    return problems


def _overlap(a: Range, b: Range) -> bool:
    return max(a[0], b[0]) < min(a[1], b[1])


def _experiment_problems(params: Params) -> list[str]:
    problems = []
    for name, experiment in params.experiments.items():
        here = f"experiments.{name}"
        if experiment.dataset not in params.datasets:
            problems.append(
                f"{here}.dataset: no dataset {experiment.dataset!r}; "
                f"there are: {', '.join(params.datasets)}"
            )
            continue
        problems += _module_problems(f"{here}.network", "networks", experiment.network)
        problems += _module_problems(f"{here}.objective", "objectives", experiment.objective)
        chosen = experiment.training.optimizer
        problems += _module_problems(f"{here}.training.optimizer", "optimizers", chosen)
        dataset, given = params.datasets[experiment.dataset], experiment.images
        split = dataset.split
        for key, most in (
            ("size", dataset.image.size),
            ("channels", dataset.image.channels),
            ("classes", split.seen_train.count("classes")),
        ):
            if getattr(given, key) > most:
                problems.append(
                    f"{here}.images.{key}: {getattr(given, key)} is more than the {most} "
                    f"of datasets.{experiment.dataset}"
                )
        if experiment.training.early_stopping and not split.seen_validation:
            problems.append(
                f"{here}.training.early_stopping: datasets.{experiment.dataset}.split has no "
                "seen_validation to watch; give it one or set early_stopping to null"
            )
        resizing = experiment.training.progressive_resizing
        sizes = [each.size for each in resizing] + [given.size]
        if any(one >= other for one, other in itertools.pairwise(sizes)):
            problems.append(
                f"{here}.training.progressive_resizing: expected sizes that grow to less than the "
                f"{given.size} of images.size, got {sizes[:-1]}"
            )
        epochs = sum(each.epochs for each in resizing)
        if epochs >= experiment.training.epochs:
            problems.append(
                f"{here}.training.progressive_resizing: {epochs} epochs on smaller images leave "
                f"none of the {experiment.training.epochs} of training.epochs for whole ones"
            )
    for name, seeds in params.seeds.items():
        if name not in params.experiments:
            problems.append(
                f"seeds.{name}: no such experiment; there are: {', '.join(params.experiments)}"
            )
        elif seeds.dataset != params.experiments[name].dataset:
            problems.append(
                f"seeds.{name}.dataset: expected {params.experiments[name].dataset!r}, as in "
                f"experiments.{name}, got {seeds.dataset!r}"
            )
    for name in params.experiments.keys() - params.check.keys():
        problems.append(f"check: no entry for the experiment {name!r}")
    for name in params.check:
        if name not in params.experiments:
            problems.append(
                f"check.{name}: no such experiment; there are: {', '.join(params.experiments)}"
            )
    return problems


def _module_problems(here: str, room: str, chosen: str | Chosen) -> list[str]:
    """Return what is wrong with a module's name and with the settings given to its function."""
    name = chosen if isinstance(chosen, str) else chosen.name
    modules = sorted(path.stem for path in (Path(__file__).parent / room).glob("[a-z]*.py"))
    if name not in modules:
        return [f"{here}: no module {name!r} in stages/{room}; there are: {', '.join(modules)}"]
    if isinstance(chosen, str):
        return []
    try:
        settings_of(room, name).model_validate(chosen.settings)
    except pydantic.ValidationError as error:
        return [_lines(error, prefix=here)]
    return []


@functools.cache
def settings_of(room: str, name: str) -> type[Section]:
    """Return the section whose keys are the keyword-only parameters of a module's `build`."""
    build = importlib.import_module(f"stages.{room}.{name}").build
    fields = {
        parameter.name: (parameter.annotation, ...)
        for parameter in inspect.signature(build).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return pydantic.create_model(name, __base__=Section, **fields)
