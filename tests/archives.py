"""Small archives in the official layouts, with random content that can be learned.

Each `write_*` function makes archives in a folder and returns the images that a reader must find
in them, sorted by class and file name: known from the making, not by reading. `write_project`
makes all of them and a params.yaml to match, on which the whole pipeline runs in seconds.
"""

import copy
import gzip
import hashlib
import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import yaml
from sklearn.datasets import load_digits

PARAMS = Path(__file__).parents[1] / "params.yaml"  # the real one
TAR = "cifar-100-python.tar.gz"
TINY = "tiny-imagenet-200.zip"
ZIPS = ("images_background.zip", "images_evaluation.zip", "all_runs.zip")
SIDE = 105  # pixels of a drawing of Omniglot


def digest(array: np.ndarray) -> str:
    """Return the sha256 of an array's values in C order."""
    return hashlib.sha256(array.tobytes("C")).hexdigest()


# Archives of any content


def pickled(content) -> bytes:
    """Return a pickle as Python 2 and NumPy 1 wrote it: protocol 2, text as byte strings.

    Python 3 cannot write it: where text should be, it asks for `_codecs.encode`.
    """
    return b"\x80\x02" + _pickled(content) + b"."


def _pickled(value) -> bytes:
    match value:
        case None | True | False:
            return {None: b"N", True: b"\x88", False: b"\x89"}[value]
        case bytes() if len(value) < 256:
            return b"U" + bytes([len(value)]) + value
        case bytes():
            return b"T" + struct.pack("<i", len(value)) + value
        case int():
            return b"I%d\n" % value
        case list():
            return b"](" + b"".join(map(_pickled, value)) + b"e"
        case tuple():
            return b"(" + b"".join(map(_pickled, value)) + b"t"
        case dict():
            return (
                b"}(" + b"".join(_pickled(each) for pair in value.items() for each in pair) + b"u"
            )
        case np.ndarray():
            order, kind = value.dtype.str[:1].encode(), value.dtype.str[1:].encode()
            dtype = b"cnumpy\ndtype\n" + _pickled((kind, 0, 1)) + b"R"
            dtype += _pickled((3, order, None, None, None, -1, -1, 0)) + b"b"
            empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
            empty += _pickled((0,)) + _pickled(b"b") + b"tR"
            shape, values = _pickled(value.shape), _pickled(value.tobytes())
            return empty + b"(" + _pickled(1) + shape + dtype + _pickled(False) + values + b"tb"
    raise TypeError(f"not in the official pickles: {type(value).__name__}")


def write_tar(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> None:
    """Write a .tar.gz, the same bytes every time; a `TarInfo` is a header without content."""
    tar = b""
    for name, content in members.items():
        if isinstance(content, tarfile.TarInfo):
            tar += content.tobuf(tarfile.GNU_FORMAT)
        else:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar += header.tobuf(tarfile.GNU_FORMAT) + content + bytes(-len(content) % 512)
    tar += bytes(1024)  # two empty blocks are the end
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzipped(tar))


def gzipped(content: bytes) -> bytes:
    """Return the content compressed, the same bytes every time."""
    return gzip.compress(content, compresslevel=1, mtime=0)


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    """Write a .zip, the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, compresslevel=1)


def shuffled(members: dict, seed: int) -> dict:
    """Return the same members in an order drawn from the seed."""
    return dict(random.Random(seed).sample(list(members.items()), len(members)))


# CIFAR-100


def write_cifar100(folder: Path, *, packing: int = 0, **sizes: int) -> dict[str, np.ndarray]:
    """Write cifar-100-python.tar.gz and return the parts that are in it.

    Args:
        folder: where to.
        packing: another one gives the same images in another order.
        sizes: see `cifar100_parts`.
    """
    parts = cifar100_parts(**sizes)
    members = cifar100_members(cifar100_contents(parts, packing=packing))
    write_tar(folder / TAR, shuffled(members, packing))
    return parts


def cifar100_parts(
    *, classes: int = 10, train: int = 12, test: int = 6, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return uint8 (classes, examples, 32, 32, 3) by part.

    A class is a pattern of patches; an image of it has a tint and noise of its own.
    """
    rng = np.random.default_rng(seed)
    patches = rng.integers(90, 166, (classes, 1, 4, 4, 3)).repeat(8, axis=2).repeat(8, axis=3)
    parts = {}
    for part, examples in (("train", train), ("test", test)):
        tint = rng.normal(0, 40, (classes, examples, 1, 1, 3))
        images = patches + tint + rng.normal(0, 20, (classes, examples, 32, 32, 3))
        parts[part] = images.clip(0, 255).astype(np.uint8)
    return parts


def cifar100_contents(parts: dict[str, np.ndarray], *, packing: int = 0) -> dict[str, dict]:
    """Return the three dictionaries that are pickled, the images in the order of `packing`."""
    names = cifar100_names(len(parts["train"]))
    contents = {"meta": {b"fine_label_names": names, b"coarse_label_names": [b"things"]}}
    for part, images in parts.items():
        # Numbers of any length: as text they sort in another order than as numbers.
        numbers = random.Random(part).sample(range(10**6), images.shape[1])
        files = sorted(f"thing_s_{number}.png".encode() for number in numbers)
        rows = [
            (file, label, image.transpose(2, 0, 1).ravel())
            for label, of_class in enumerate(images)
            for file, image in zip(files, of_class, strict=True)
        ]
        random.Random(packing).shuffle(rows)
        contents[part] = {
            b"filenames": [file for file, _, _ in rows],
            b"batch_label": f"{part}ing batch 1 of 1".encode(),
            b"fine_labels": [label for _, label, _ in rows],
            b"coarse_labels": [0] * len(rows),
            b"data": np.stack([pixels for _, _, pixels in rows]),
        }
    return contents


def cifar100_names(classes: int) -> list[bytes]:
    """Return the names of the classes."""
    return [f"class_{label:02}".encode() for label in range(classes)]


def cifar100_members(contents: dict[str, dict]) -> dict[str, bytes]:
    """Return the files of the archive by path."""
    return {f"cifar-100-python/{name}": pickled(content) for name, content in contents.items()}


# Omniglot


def write_omniglot(
    folder: Path, *, packing: int = 0, runs: int = 2, ways: int = 4, **sizes: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Write the three archives; return the parts that are in them, and the trials of the runs.

    Args:
        folder: where to.
        packing: another one gives the same drawings in another order.
        runs: number of fixed runs.
        ways: training drawings, and test drawings, of a run.
        sizes: see `omniglot_parts`.

    Returns:
        uint8 (classes, drawings, 105, 105, 1) by part, and of both under "all"; and int (trials,
        1 + ways) indices class * drawings + drawing.
    """
    parts = omniglot_parts(**sizes)
    for part, images in parts.items():
        members = omniglot_members(part, images)
        write_zip(folder / f"images_{part}.zip", shuffled(members, packing))
    members, trials = runs_members(parts["evaluation"], runs=runs, ways=ways)
    write_zip(folder / "all_runs.zip", shuffled(members, packing))
    written = {part: flat(images, 2) for part, images in parts.items()}
    return written | {"all": np.concatenate([*written.values()])}, trials


def flat(images: np.ndarray, axes: int) -> np.ndarray:
    """Return the same images with the first axes made one."""
    return images.reshape(-1, *images.shape[axes:])


def omniglot_parts(
    *, alphabets: int = 2, characters: int = 5, drawings: int = 6, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return uint8 (alphabets, characters, drawings, 105, 105, 1) by part, ink 255 on paper 0.

    A character is a grid of blots; a drawing of it is moved a little and has specks of its own.
    """
    rng = np.random.default_rng(seed)
    parts = {}
    for part in ("background", "evaluation"):
        blots = rng.random((alphabets, characters, 5, 5)) < 0.4
        blots = blots.repeat(15, axis=2).repeat(15, axis=3)
        ink = rng.random((alphabets, characters, drawings, SIDE, SIDE, 1)) < 0.005
        for alphabet, character, drawing in np.ndindex(alphabets, characters, drawings):
            top, left = rng.integers(10, 21, 2)
            here = ink[alphabet, character, drawing, top : top + 75, left : left + 75, 0]
            here ^= blots[alphabet, character]
        parts[part] = np.where(ink, np.uint8(255), np.uint8(0))
    return parts


def omniglot_names(part: str, images: np.ndarray) -> list[str]:
    """Return the names alphabet/character of a part's classes, in order."""
    return [
        f"{part.capitalize()}_{alphabet + 1}/character{character + 1:02}"
        for alphabet, character in np.ndindex(images.shape[:2])
    ]


def omniglot_members(part: str, images: np.ndarray) -> dict[str, bytes]:
    """Return the files of images_background.zip or images_evaluation.zip by path."""
    first = {"background": 1, "evaluation": 965}[part]  # numbers run on over both archives
    return {
        f"images_{part}/{name}/{first + label:04}_{drawing + 1:02}.png": png(image)
        for label, name in enumerate(omniglot_names(part, images))
        for drawing, image in enumerate(flat(images, 2)[label])
    }


def png(image: np.ndarray) -> bytes:
    """Return a drawing (height, width, 1), ink 255, as a 1-bit PNG file, black on white."""
    file = io.BytesIO()
    PIL.Image.fromarray(image[..., 0] == 0).save(file, "PNG")
    return file.getvalue()


def runs_members(
    evaluation: np.ndarray, *, runs: int = 2, ways: int = 4, seed: int = 0
) -> tuple[dict[str, bytes], np.ndarray]:
    """Return the files of all_runs.zip by path, and its trials.

    A run takes two drawings of each of `ways` characters of one alphabet: one is for training,
    the other is to be recognised.
    """
    rng = np.random.default_rng(seed)
    alphabets, characters, drawings = evaluation.shape[:3]
    images = flat(evaluation, 3)
    members, trials = {}, []
    for run in range(1, runs + 1):
        folder = f"run{run:02}"
        classes = run % alphabets * characters + rng.permutation(characters)[:ways]
        pairs = np.array([label * drawings + rng.permutation(drawings)[:2] for label in classes])
        for way, index in enumerate(pairs[:, 0]):
            members[f"{folder}/training/class{way + 1:02}.png"] = png(images[index])
        lines = []
        for item, way in enumerate(rng.permutation(ways)):
            test = f"{folder}/test/item{item + 1:02}.png"
            members[test] = png(images[pairs[way, 1]])
            lines.append(f"{test} {folder}/training/class{way + 1:02}.png\n")
            trials.append([pairs[way, 1], *pairs[:, 0]])
        members[f"{folder}/class_labels.txt"] = "".join(lines).encode()
    return members, np.array(trials)


# Tiny ImageNet


def write_tinyimagenet(
    folder: Path, *, packing: int = 0, classes: int = 10, examples: int = 12, seed: int = 0
) -> dict[str, np.ndarray]:
    """Write tiny-imagenet-200.zip and return the part that is in it, as Pillow decodes it.

    The first image of every class is a grey file. Beside the training images stand the files
    that the official archive has and no reader needs.

    Args:
        folder: where to.
        packing: another one gives the same images in another order.
        classes: number of them.
        examples: images of each.
        seed: another one gives other images.

    Returns:
        uint8 (classes, examples, 64, 64, 3) by part.
    """
    images, members = tinyimagenet_members(classes=classes, examples=examples, seed=seed)
    write_zip(folder / TINY, shuffled(members, packing))
    return {"train": images}


def tinyimagenet_ids(classes: int) -> list[str]:
    """Return the WordNet ids of the classes, in order."""
    return [f"n{1_000_007 * (label + 1):08}" for label in range(classes)]


def tinyimagenet_members(
    *, classes: int = 10, examples: int = 12, seed: int = 0
) -> tuple[np.ndarray, dict[str, bytes]]:
    """Return the images, and the files of tiny-imagenet-200.zip by path."""
    rng = np.random.default_rng(seed)
    top, ids = "tiny-imagenet-200", tinyimagenet_ids(classes)
    patches = rng.integers(60, 196, (classes, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    images = np.empty((classes, examples, 64, 64, 3), np.uint8)
    members = {
        f"{top}/wnids.txt": "\n".join(reversed(ids)).encode(),
        f"{top}/words.txt": "".join(
            f"{each}\tthing {label:02}, matter\n" for label, each in enumerate(ids)
        ).encode(),
        f"{top}/val/images/val_0.JPEG": jpeg(images[0, 0]),
        f"{top}/val/val_annotations.txt": f"val_0.JPEG\t{ids[0]}\t0\t0\t9\t9\n".encode(),
        f"{top}/test/images/test_0.JPEG": b"never looked at",
    }
    for label, each in enumerate(ids):
        members[f"{top}/train/{each}/{each}_boxes.txt"] = b"x.JPEG\t0\t0\t9\t9\n"
        # Numbers as they are: as text, 10 sorts before 2.
        names = sorted(f"{each}_{example}.JPEG" for example in range(examples))
        for example, name in enumerate(names):
            drawn = patches[label] + rng.normal(0, 12, (64, 64, 3)) + rng.normal(0, 20, 3)
            drawn = drawn.clip(0, 255).astype(np.uint8)
            content = jpeg(drawn[..., :1] if example == 0 else drawn)
            members[f"{top}/train/{each}/images/{name}"] = content
            with PIL.Image.open(io.BytesIO(content)) as image:
                images[label, example] = np.asarray(image.convert("RGB"))
    return images, members


def jpeg(image: np.ndarray) -> bytes:
    """Return uint8 (height, width, 1 or 3) as a JPEG file, grey or in colour."""
    file = io.BytesIO()
    PIL.Image.fromarray(image.squeeze()).save(file, "JPEG", quality=90)
    return file.getvalue()


# The digits of scikit-learn


def digits() -> np.ndarray:
    """Return uint8 (10, 174, 8, 8, 1): the first 174 of each digit, ink from 0 to 255."""
    source = load_digits()
    ink = np.floor(source.images * 255 / 16 + 0.5).astype(np.uint8)
    of_class = [
        [image for image, label in zip(ink, source.target, strict=True) if label == digit][:174]
        for digit in range(10)
    ]
    return np.array(of_class)[..., None]


# A whole project

_SPLITS = {
    "digits": {
        "seen_train": {"part": "all", "classes": [0, 5], "examples": [0, 24]},
        "seen_validation": {"part": "all", "classes": [0, 5], "examples": [24, 30]},
        "seen_test": {"part": "all", "classes": [0, 5], "examples": [30, 40]},
        "unseen": {"part": "all", "classes": [5, 10], "examples": [0, 20]},
    },
    "cifar100": {
        "seen_train": {"part": "train", "classes": [0, 6], "examples": [0, 12]},
        "seen_test": {"part": "test", "classes": [0, 6], "examples": [0, 6]},
        "unseen": {"part": "train", "classes": [6, 10], "examples": [0, 12]},
    },
    "tinyimagenet": {
        "seen_train": {"part": "train", "classes": [0, 6], "examples": [0, 8]},
        "seen_validation": {"part": "train", "classes": [0, 6], "examples": [8, 10]},
        "seen_test": {"part": "train", "classes": [0, 6], "examples": [10, 12]},
        "unseen": {"part": "train", "classes": [6, 10], "examples": [0, 12]},
    },
    "omniglot": {
        "seen_train": {"part": "background", "classes": [0, 10], "examples": [0, 4]},
        "seen_test": {"part": "background", "classes": [0, 10], "examples": [4, 6]},
        "unseen": {"part": "evaluation", "classes": [0, 10], "examples": [0, 6]},
    },
}
_SETS = {
    "digits": {
        "5-way": {"draw": "all_classes", "ways": 5, "count": 60},
        "2-way": {"draw": "all_classes", "ways": 2, "count": 60},
    },
    "cifar100": {
        "4-way": {"draw": "all_classes", "ways": 4, "count": 60},
        "2-way": {"draw": "all_classes", "ways": 2, "count": 60},
    },
    "tinyimagenet": {
        "4-way": {"draw": "all_classes", "ways": 4, "count": 60},
    },
    "omniglot": {
        "4-way": {"draw": "all_classes", "ways": 4, "count": 60},
        "within_alphabet": {"draw": "one_group", "ways": 4, "count": 60},
        "lake": {"draw": "fixed", "ways": 4, "count": 8},
    },
}
_EPOCHS = 2
_STEPS = 2
_LEFT_OUT = {  # like another one but for a setting: they would run no other line of code
    "cifar100-classifier-16px",
    "cifar100-classifier-20-classes",
    "cifar100-classifier-no-dropout",
    "cifar100-siamese-binary",
    "cifar100-alexnet",
    "tinyimagenet-alexnet",
    "cifar100-fast",
    "cifar100-fast-muon",
    "cifar100-resnet",
    "cifar100-siamese-resnet",
    "cifar100-best",
    "tinyimagenet-fast-no-shift",
    "tinyimagenet-fast-no-weight-decay",
    "tinyimagenet-compact",
    "tinyimagenet-best",
    "omniglot-siamese-80-characters",
    "omniglot-best",
}
_SMALL = {  # settings of networks, where one has them
    "conv_blocks": {"blocks": 2, "filters": 4},
    "alexnet": {"units": 16},
    "resnet9": {"stem": 4, "filters": [4, 8], "members": 2},
}


def write_project(folder: Path) -> dict:
    """Write params.yaml, and the archives that it names under mirror/; return the params.

    The params are the real ones, with the digests of the small archives and with fewer images,
    tasks, epochs and steps.
    """
    mirror = folder / "mirror"
    parts = {
        "digits": {"all": digits()},
        "cifar100": write_cifar100(mirror),
        "tinyimagenet": write_tinyimagenet(mirror),
        "omniglot": write_omniglot(mirror)[0],
    }
    params = small_params()
    for name, dataset in params["datasets"].items():
        dataset["pixels"] = {part: digest(parts[name][part]) for part in dataset["pixels"]}
        for archive in dataset["digests"]:
            sha256 = hashlib.sha256((mirror / archive).read_bytes())
            dataset["digests"][archive] = [sha256.hexdigest()]
    write_params(folder, params)
    return params


def small_params() -> dict:
    """Return the real params made small, with the digests of the real archives."""
    params = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    datasets = {name: params["datasets"][name] for name in _SPLITS}
    for name, dataset in datasets.items():
        none = dict.fromkeys(dataset["split"].keys() - {"seed", "shuffle"})
        dataset["split"] |= none | copy.deepcopy(_SPLITS[name])
        dataset["tasks"]["sets"] = copy.deepcopy(_SETS[name])
        dataset["sources"] = {archive: [] for archive in dataset["sources"]}
    experiments = {
        name: experiment
        for name, experiment in params["experiments"].items()
        if experiment["dataset"] in datasets and name not in _LEFT_OUT
    }
    layers = copy.deepcopy(experiments["tinyimagenet-fast"])  # of a network with several
    layers["network"] = {"name": "alexnet", "scale": 1 / 255, "offset": 0.0, "dropout": 0.5}
    layers["training"]["progressive_resizing"] = []  # alexnet's layers are made for one size
    layers["codes"] |= {"layers": ["L5", "L6_before_relu", "L7", "L5+L7"], "mirrored": False}
    experiments["tinyimagenet-layers"] = layers
    for experiment in experiments.values():
        _shrink(experiment, datasets[experiment["dataset"]]["split"])
    # So small, a network need not beat anything.
    check = {name: {"beat": [], "at_least": {}} for name in experiments}
    seeds = {"digits-siamese": {"dataset": "digits", "count": 2}}
    small = {"datasets": datasets, "experiments": experiments, "seeds": seeds, "check": check}
    return params | small


def _shrink(experiment: dict, split: dict) -> None:
    """Make an experiment's training short and its batches fit the small split."""
    network, objective, training = (experiment[key] for key in ("network", "objective", "training"))
    network |= _SMALL.get(network["name"], {})
    training |= {"epochs": _EPOCHS, "steps": _STEPS, "batch": 8}
    images, (first, stop) = experiment["images"], split["seen_train"]["classes"]
    images["classes"] = min(images["classes"], stop - first)
    if objective.get("examples_per_class"):
        objective["examples_per_class"] = 2
    if split["seen_validation"] is None:
        training["early_stopping"] = None
    training["progressive_resizing"] = [
        each | {"epochs": 1} for each in training["progressive_resizing"][: _EPOCHS - 1]
    ]
    experiment["codes"] |= {"batch": 50, "pairs": 20, "seen": 3}
    experiment["oneshot"] |= {"expansion": [3, 1, 10_000]}
    pictures = {"queries": 3, "nearest": 2}
    retrieval = {"resamples": 20, "memory": 1, "dimensions": [2, 4, 512], "pictures": pictures}
    experiment["retrieval"] |= retrieval | {"query_expansion": [3, 1, 10_000]}


def write_params(folder: Path, params: dict) -> None:
    """Write params.yaml."""
    text = yaml.safe_dump(params, sort_keys=False, allow_unicode=True)
    (folder / "params.yaml").write_text(text, encoding="utf-8")
