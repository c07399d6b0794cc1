import dataclasses
import itertools
import shutil
from pathlib import Path

import archives
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from stages import files, params, pixels, prepare
from stages.command import UserError
from stages.readers import Contents, FixedTasks, Part, digits

DATASETS = ["digits", "cifar100", "tinyimagenet", "omniglot"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project with small archives, as `download` leaves it."""
    folder = tmp_path_factory.mktemp("project")
    archives.write_project(folder)
    for dataset in DATASETS:
        shutil.copytree(folder / "mirror", folder / "data" / "raw" / dataset)
    return folder


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    """A copy of it, as the current folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Shrinking


def shrunk(rows, size):
    image = np.array(rows, np.uint8)[None, :, :, None]
    return pixels.area_averaged(image, size)[0, :, :, 0].tolist()


def test_blocks_are_averaged_and_halves_rounded_up():
    assert shrunk(
        [
            [0, 0, 1, 1],
            [0, 1, 2, 2],  # 1/4 is 0, 6/4 is 2
            [0, 0, 255, 255],
            [1, 1, 255, 254],  # 2/4 is 1, 254 3/4 is 255
        ],
        2,
    ) == [[0, 2], [1, 255]]


def test_a_pixel_between_two_is_shared_by_area():
    # A new pixel covers one and a half old ones: (0 + 90/2) / 1.5 = 30, (90/2 + 255) / 1.5 = 200.
    assert shrunk([[0, 90, 255]] * 3, 2) == [[30, 200]] * 2
    assert shrunk(np.transpose([[0, 90, 255]] * 3), 2) == [[30, 30], [200, 200]]
    # The middle one counts a quarter, those beside it a half, of 2.25 in all: 36 / 2.25 = 16.
    assert shrunk([[0, 0, 0], [0, 144, 0], [0, 0, 0]], 2) == [[16, 16], [16, 16]]


def test_channels_and_images_are_kept_apart():
    images = np.zeros((2, 2, 2, 3), np.uint8)
    images[0, :, :, 1], images[1, :, :, 2] = 8, 4
    assert pixels.area_averaged(images, 1).tolist() == [[[[0, 8, 0]]], [[[0, 0, 4]]]]


def test_an_image_of_the_right_size_is_left_as_it_is():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 5, 1), dtype=np.uint8)
    assert pixels.area_averaged(images, 5) is images


sizes = st.tuples(st.integers(1, 12), st.integers(1, 12)).map(lambda two: sorted(two)[::-1])


@settings(max_examples=60)
@given(sizes, st.integers(0, 2**32 - 1))
def test_it_is_the_mean_of_finer_pixels_and_keeps_the_mean(sizes, seed):
    old, new = sizes
    image = np.random.default_rng(seed).integers(0, 256, (old, old))
    # Cut each pixel into new x new finer ones: each new pixel is then a block of old x old.
    finer = image.repeat(new, axis=0).repeat(new, axis=1).reshape(new, old, new, old)
    sums = finer.sum(axis=(1, 3))
    found = shrunk(image, new)
    assert found == ((2 * sums + old * old) // (2 * old * old)).tolist()
    assert abs(np.mean(found) - image.mean()) <= 0.5


@settings(max_examples=20)
@given(sizes, st.integers(0, 255))
def test_a_constant_image_stays_constant(sizes, value):
    old, new = sizes
    assert shrunk(np.full((old, old), value), new) == np.full((new, new), value).tolist()


# Grey and colour


@pytest.mark.parametrize(
    ("colour", "grey"),
    [
        ((0, 0, 0), 0),
        ((255, 255, 255), 255),
        ((255, 0, 0), 76),  # 0.299 * 255 = 76.2
        ((0, 255, 0), 150),  # 0.587 * 255 = 149.7
        ((0, 0, 255), 29),  # 0.114 * 255 = 29.1
        ((10, 20, 30), 18),  # 2.99 + 11.74 + 3.42 = 18.15
        ((0, 2, 3), 2),  # 1.174 + 0.342 = 1.516
    ],
    ids=str,
)
def test_grey_is_the_luma_of_the_colour(colour, grey):
    images = np.full((2, 3, 4, 3), colour, np.uint8)
    found = pixels.with_channels(images, 1)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.full((2, 3, 4, 1), grey))


def test_grey_is_repeated_where_colour_is_asked_for():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 3, 1), dtype=np.uint8)
    colour = pixels.with_channels(images, 3)
    assert (colour.dtype, colour.shape) == (np.uint8, (2, 3, 3, 3))
    assert (colour == images).all()
    np.testing.assert_array_equal(pixels.with_channels(colour, 1), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_the_right_channels_are_left_as_they_are(channels):
    images = np.ones((1, 2, 2, channels), np.uint8)
    assert pixels.with_channels(images, channels) is images


# Splitting: images whose one pixel says which class and example they are.


def part(classes, examples, prefix="class"):
    labels, places = np.indices((classes, examples), np.uint8)
    images = (20 * labels + places)[..., None, None, None]
    return Part(images, [f"{prefix}_{label}" for label in range(classes)])


def selection(part, classes, examples):
    return {"part": part, "classes": list(classes), "examples": list(examples)}


SPLIT = {
    "seed": 1,
    "shuffle": False,
    "seen_train": selection("all", (0, 3), (0, 4)),
    "seen_validation": selection("all", (0, 3), (4, 6)),
    "seen_test": selection("all", (0, 3), (6, 9)),
    "unseen": selection("all", (3, 7), (1, 9)),
}


def dataset(**split):
    section = archives.small_params()["datasets"]["digits"]
    section |= {"split": SPLIT | split, "image": {"size": 1, "channels": 1}}
    return params.Dataset.model_validate(section)


def arrays_of(contents, chosen):
    """Return what `prepare` writes: the arrays by file name, and the names of the classes."""
    selected, classes = prepare.split(contents, chosen)
    arrays = {name: np.concatenate(list(images)) for name, images in selected.items()}
    assert all(array.shape == selected[name].shape for name, array in arrays.items())
    return arrays | prepare.fixed_tasks(contents, chosen.split), classes


def test_splits_are_the_classes_and_examples_asked_for():
    arrays, classes = arrays_of(Contents({"all": part(7, 10)}), dataset())
    assert list(arrays) == ["seen_train", "seen_validation", "seen_test", "unseen"]
    found = {name: array[..., 0, 0, 0].tolist() for name, array in arrays.items()}
    assert found["seen_train"] == [[0, 1, 2, 3], [20, 21, 22, 23], [40, 41, 42, 43]]
    assert found["seen_validation"] == [[4, 5], [24, 25], [44, 45]]
    assert found["seen_test"] == [[6, 7, 8], [26, 27, 28], [46, 47, 48]]
    assert found["unseen"] == [list(range(20 * label + 1, 20 * label + 9)) for label in range(3, 7)]
    assert classes == {
        "seen": ["class_0", "class_1", "class_2"],
        "unseen": ["class_3", "class_4", "class_5", "class_6"],
    }
    assert all(array.dtype == np.uint8 for array in arrays.values())


def test_a_split_without_validation_has_no_such_array():
    arrays, _ = arrays_of(Contents({"all": part(7, 10)}), dataset(seen_validation=None))
    assert list(arrays) == ["seen_train", "seen_test", "unseen"]


@pytest.mark.parametrize("shuffle", [False, True])
def test_no_image_is_in_two_splits_and_every_one_in_its_class(shuffle):
    arrays, _ = arrays_of(Contents({"all": part(7, 10)}), dataset(shuffle=shuffle))
    pixels = np.concatenate([array.ravel() for array in arrays.values()])
    assert len(np.unique(pixels)) == len(pixels) == 3 * 9 + 4 * 8
    for name, array in arrays.items():
        first = 3 if name == "unseen" else 0
        labels = np.arange(first, first + len(array))[:, None]
        assert (array[..., 0, 0, 0] // 20 == labels).all()


def test_shuffling_is_a_permutation_of_each_class_that_the_seed_says():
    images = part(7, 10)
    order = prepare.example_order(images, dataset(shuffle=True).split)
    np.testing.assert_array_equal(np.sort(order, axis=1), np.tile(np.arange(10), (7, 1)))
    assert len({tuple(row) for row in order}) == 7  # each class in an order of its own
    again = prepare.example_order(images, dataset(shuffle=True).split)
    np.testing.assert_array_equal(again, order)
    other = prepare.example_order(images, dataset(shuffle=True, seed=2).split)
    assert (other != order).any()
    unshuffled = prepare.example_order(images, dataset().split)
    np.testing.assert_array_equal(unshuffled, np.tile(np.arange(10), (7, 1)))


@pytest.mark.parametrize(
    ("split", "says"),
    [
        ({"unseen": selection("all", (3, 8), (0, 10))}, "split.unseen.classes: "),
        ({"unseen": selection("all", (3, 7), (0, 11))}, "more than the 10 examples of part 'all'"),
        ({"seen_test": selection("all", (0, 2), (6, 9))}, "must have the same classes"),
        ({"seen_test": selection("turned", (0, 3), (6, 9))}, "must have the same classes"),
    ],
    ids=["classes", "examples", "other classes to test on", "in another order"],
)
def test_a_split_that_cannot_be_is_refused(split, says):
    whole = part(7, 10)
    turned = dataclasses.replace(whole, names=[*whole.names[2::-1], *whole.names[3:]])
    with pytest.raises(UserError) as error:
        prepare.split(Contents({"all": whole, "turned": turned}), dataset(**split))
    assert says in str(error.value)


# params.yaml cannot tell that two parts hold the same classes; their names can.
@pytest.mark.parametrize(
    "leak",
    [
        {
            "seen_train": selection("test", (0, 4), (0, 4)),
            "seen_validation": None,
            "seen_test": selection("test", (0, 4), (6, 9)),
        },
        {"seen_validation": selection("test", (3, 6), (0, 4))},
        {"seen_validation": selection("test", (2, 5), (0, 4))},
    ],
    ids=["to train on", "to stop by", "some to stop by"],
)
def test_mistake_5_a_class_is_not_seen_and_unseen_in_another_part(leak):
    contents = Contents({"all": part(7, 10), "test": part(7, 10)})
    with pytest.raises(UserError, match=r"classes both seen and unseen: class_3"):
        prepare.split(contents, dataset(**leak))


def test_classes_of_two_parts_with_other_names_do_not_leak():
    contents = Contents({"all": part(7, 10), "test": part(7, 10, "other")})
    _, classes = prepare.split(contents, dataset(unseen=selection("test", (0, 4), (0, 4))))
    assert not set(classes["seen"]) & set(classes["unseen"])


# Fixed tasks


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("examples", [(0, 10), (2, 9)], ids=str)
def test_fixed_tasks_name_the_same_images_after_the_split(shuffle, examples):
    images = part(7, 10)
    chosen = dataset(shuffle=shuffle, unseen=selection("all", (3, 7), examples))
    order = prepare.example_order(images, chosen.split)[:, slice(*examples)]
    rng = np.random.default_rng(0)
    # Rows of images that the split keeps, as the reader numbers them.
    tasks = np.array(
        [[label * 10 + rng.choice(order[label]) for label in (3, 6, 4, 5)] for _ in range(50)]
    )
    contents = Contents({"all": images}, {"lake": FixedTasks("all", tasks)})
    arrays, _ = arrays_of(contents, chosen)
    found = arrays["tasks_lake"]
    assert (found.dtype, found.shape) == (np.int32, (50, 4))
    np.testing.assert_array_equal(arrays["unseen"].ravel()[found], images.images.ravel()[tasks])


@pytest.mark.parametrize(
    ("name", "index"),
    [("all", 2 * 10 + 5), ("all", 3 * 10 + 0), ("all", 3 * 10 + 9), ("more", 3 * 10 + 5)],
    ids=["seen class", "example before", "example after", "other part"],
)
def test_fixed_tasks_of_images_that_are_not_unseen_are_left_out(name, index):
    others, some = np.array([[35, 45, 55]]), np.array([[35, 45, index]])
    tasks = {"whole": FixedTasks("all", others), "lake": FixedTasks(name, some)}
    contents = Contents({"all": part(7, 10), "more": part(7, 10, "more")}, tasks)
    arrays, _ = arrays_of(contents, dataset())
    assert "tasks_whole" in arrays
    assert "tasks_lake" not in arrays


def test_fixed_tasks_of_a_larger_part_are_left_out():
    tasks = {"lake": FixedTasks("more", np.array([[190, 191, 180]]))}
    contents = Contents({"all": part(7, 10), "more": part(10, 20, "more")}, tasks)
    arrays, _ = arrays_of(contents, dataset())
    assert "tasks_lake" not in arrays


# Digests


def test_pixels_are_known_by_their_digest():
    images = part(7, 10)
    digest = archives.digest(images.images)
    prepare.check_pixels({"all": images, "other": part(1, 1)}, {"all": digest})
    turned = Part(np.asfortranarray(images.images), images.names)  # the same in C order
    prepare.check_pixels({"all": turned}, {"all": digest})


def test_other_pixels_and_missing_parts_are_refused():
    digest = archives.digest(part(7, 10).images)
    changed = part(7, 10)
    changed.images[6, 9] += 1
    with pytest.raises(UserError) as error:
        prepare.check_pixels({"all": changed}, {"all": digest})
    for each in ("'all'", "(7, 10, 1, 1, 1)", digest, archives.digest(changed.images)):
        assert each in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"no part 'train' was read; there are: all"):
        prepare.check_pixels({"all": changed}, {"train": digest})


# The stage


def contents_of(folder):
    return {
        path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_digits_are_those_of_scikit_learn():
    source = load_digits()
    found = digits.read(Path("unused")).parts["all"]
    assert found.images.shape == (10, 174, 8, 8, 1)
    assert found.names == [str(digit) for digit in range(10)]
    for digit in range(10):
        levels = source.images[source.target == digit][:174]
        assert np.abs(found.images[digit, ..., 0] - levels * 255 / 16).max() <= 0.5
        assert (found.images[digit].max(), found.images[digit].min()) == (255, 0)
    # The digest in the real params.yaml is of these pixels.
    real = params.load(archives.PARAMS).dataset("digits").pixels["all"]
    assert archives.digest(archives.digits()) == archives.digest(found.images) == real


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_stage_writes_the_splits_and_nothing_else(project, dataset, capsys):
    prepare.main(dataset)
    printed = capsys.readouterr().out
    chosen = params.load().dataset(dataset)
    found = files.read_splits(dataset)
    assert found.keys() == chosen.split.selections().keys()
    side, channels = chosen.image.size, chosen.image.channels
    for name, split in chosen.split.selections().items():
        classes, examples = split.count("classes"), split.count("examples")
        assert found[name].shape == (classes, examples, side, side, channels)
        assert f"{dataset}: {name} {classes} x {examples} x " in printed
    written = {path.name for path in Path("data/arrays", dataset).iterdir()}
    fixed = {"tasks_lake.npy"} if dataset == "omniglot" else set()
    assert written == {f"{name}.npy" for name in found} | {"classes.json"} | fixed
    assert [path.name for path in Path("data/arrays").iterdir()] == [dataset]


@pytest.mark.parametrize("dataset", DATASETS)
def test_mistakes_5_and_6_unseen_is_one_pool_that_shares_nothing_with_seen(project, dataset):
    prepare.main(dataset)
    classes = files.read_json(f"data/arrays/{dataset}/classes.json")
    splits = files.read_splits(dataset)
    assert not set(classes["seen"]) & set(classes["unseen"])
    assert len(classes["seen"]) == len(splits["seen_train"]) == len(splits["seen_test"])
    assert len(classes["unseen"]) == len(splits["unseen"])
    # One array of as many images for every class, from which all methods and tasks draw.
    assert [name for name in splits if "unseen" in name] == ["unseen"]
    images = {
        name: {image.tobytes() for image in array.reshape(-1, *array.shape[2:])}
        for name, array in splits.items()
    }
    for one, other in itertools.combinations(images, 2):
        assert not images[one] & images[other]


def test_the_small_cifar100_arrays_are_the_images_that_were_made(project):
    prepare.main("cifar100")
    parts, found = archives.cifar100_parts(), files.read_splits("cifar100")
    np.testing.assert_array_equal(found["seen_train"], parts["train"][:6])
    np.testing.assert_array_equal(found["seen_test"], parts["test"][:6])
    np.testing.assert_array_equal(found["unseen"], parts["train"][6:])
    names = [name.decode() for name in archives.cifar100_names(10)]
    assert files.read_json("data/arrays/cifar100/classes.json") == {
        "seen": names[:6],
        "unseen": names[6:],
    }


@pytest.mark.parametrize("dataset", DATASETS)
def test_the_same_bytes_come_out_of_an_archive_packed_in_another_order(project, dataset):
    prepare.main(dataset)
    first = contents_of(Path("data/arrays"))
    archives.write_cifar100(Path("data/raw/cifar100"), packing=7)
    archives.write_tinyimagenet(Path("data/raw/tinyimagenet"), packing=7)
    archives.write_omniglot(Path("data/raw/omniglot"), packing=7)
    prepare.main(dataset)
    assert contents_of(Path("data/arrays")) == first


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("before", [False, True], ids=["new", "there before"])
def test_a_wrong_digest_is_one_line_and_nothing_is_half_written(project, dataset, before):
    if before:
        prepare.main(dataset)
    there = contents_of(Path("data"))
    wrong = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    part = list(wrong["datasets"][dataset]["pixels"])[-1]
    wrong["datasets"][dataset]["pixels"][part] = "0" * 64
    archives.write_params(project, wrong)
    with pytest.raises(UserError, match=rf"pixels of part '{part}' .* expected 0000") as error:
        prepare.main(dataset)
    assert "\n" not in str(error.value)
    assert contents_of(Path("data")) == there
    assert Path("data/arrays").exists() == before


def test_a_full_disk_leaves_what_was_there(project, monkeypatch):
    prepare.main("digits")
    there = contents_of(Path("data"))

    def full(path, *_):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "writing_array", full)
    with pytest.raises(OSError, match="No space left"):
        prepare.main("digits")
    assert contents_of(Path("data")) == there
