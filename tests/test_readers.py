import gzip
import io
import random
import struct
import tarfile
import zipfile
import zlib

import archives
import numpy as np
import PIL.Image
import pytest

from stages import readers
from stages.command import UserError
from stages.readers import cifar100, omniglot, tinyimagenet

TINY = {"classes": 3, "examples": 11}
CIFAR = {"classes": 4, "train": 3, "test": 2}
OMNIGLOT = {"alphabets": 2, "characters": 3, "drawings": 3, "runs": 2, "ways": 2}


def refusal(reader, folder, archive):
    """Return the one line with which a reader refuses an archive."""
    with pytest.raises(UserError) as error:
        reader.read(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / archive}: ")
    assert "\n" not in message
    return message


def same(found, parts):
    assert found.parts.keys() == parts.keys()
    for name, images in parts.items():
        assert found.parts[name].images.dtype == np.uint8
        np.testing.assert_array_equal(found.parts[name].images, images)


# CIFAR-100


@pytest.mark.parametrize("packing", [0, 1, 2])
def test_cifar100_is_sorted_whatever_the_order_in_the_archive(tmp_path, packing):
    parts = archives.write_cifar100(tmp_path, packing=packing)
    found = cifar100.read(tmp_path)
    same(found, parts)
    assert found.parts["train"].images.shape == (10, 12, 32, 32, 3)
    assert found.parts["test"].images.shape == (10, 6, 32, 32, 3)
    for part in found.parts.values():
        assert part.names == [f"class_{label:02}" for label in range(10)]
    assert found.tasks == {}


def test_cifar100_archives_differ_where_the_images_are_the_same(tmp_path):
    for packing in (0, 1):
        archives.write_cifar100(tmp_path / str(packing), packing=packing, **CIFAR)
    one, other = (tmp_path / each / archives.TAR for each in "01")
    assert one.read_bytes() != other.read_bytes()


def test_cifar100_colours_and_axes_are_the_official_ones(tmp_path):
    # The official row: 1,024 red values, then green, then blue, each row after row.
    row = np.zeros((3, 32, 32), np.uint8)
    row[0, 5, 7], row[1, 6, 8], row[2, 31, 0] = 10, 20, 30
    contents = archives.cifar100_contents(archives.cifar100_parts(classes=1, train=1, test=1))
    contents["train"][b"data"] = row.reshape(1, -1)
    archives.write_tar(tmp_path / archives.TAR, archives.cifar100_members(contents))
    image = cifar100.read(tmp_path).parts["train"].images[0, 0]
    np.testing.assert_array_equal(image[5, 7], [10, 0, 0])
    np.testing.assert_array_equal(image[6, 8], [0, 20, 0])
    np.testing.assert_array_equal(image[31, 0], [0, 0, 30])
    assert image.sum() == 60


def test_cifar100_folders_and_other_files_are_passed_over(tmp_path):
    parts = archives.cifar100_parts(**CIFAR)
    folder = tarfile.TarInfo("cifar-100-python")
    folder.type = tarfile.DIRTYPE
    members = {"": folder, "cifar-100-python/file.txt~": b"not a pickle"}
    members |= archives.cifar100_members(archives.cifar100_contents(parts))
    archives.write_tar(tmp_path / archives.TAR, members)
    same(cifar100.read(tmp_path), parts)


def test_cifar100_pickled_by_numpy_2_is_read_too(tmp_path):
    parts = archives.cifar100_parts(**CIFAR)
    members = archives.cifar100_members(archives.cifar100_contents(parts))
    for name, content in members.items():
        members[name] = content.replace(b"numpy.core.multiarray", b"numpy._core.multiarray")
    archives.write_tar(tmp_path / archives.TAR, members)
    same(cifar100.read(tmp_path), parts)


def header(name, *, size=0, kind=tarfile.REGTYPE, link=""):
    made = tarfile.TarInfo(name)
    made.size, made.type, made.linkname = size, kind, link
    return made


TRAIN = "cifar-100-python/train"
# Where a member is to be left out.
NONE = object()

# One row a mistake: members of the archive that are others, and what the message says.
CIFAR_MEMBERS = {
    "path above": ({"../evil": b""}, "'../evil' leaves the archive"),
    "path above, later": ({"cifar-100-python/../../evil": b""}, "leaves the archive"),
    "absolute path": ({"/tmp/evil": b""}, "'/tmp/evil' leaves the archive"),
    "path above, of Windows": ({"..\\evil": b""}, "leaves the archive"),
    "drive": ({"C:/evil": b""}, "leaves the archive"),
    "link": (
        {TRAIN: header(TRAIN, kind=tarfile.SYMTYPE, link="/etc/passwd")},
        f"{TRAIN}: expected a file",
    ),
    "hard link": (
        {TRAIN: header(TRAIN, kind=tarfile.LNKTYPE, link="cifar-100-python/test")},
        f"{TRAIN}: expected a file",
    ),
    "device": ({TRAIN: header(TRAIN, kind=tarfile.CHRTYPE)}, f"{TRAIN}: expected a file"),
    "folder": ({TRAIN: header(TRAIN, kind=tarfile.DIRTYPE)}, f"{TRAIN}: expected a file"),
    "huge": ({TRAIN: header(TRAIN, size=2**40)}, "expected a file of at most"),
    "huge, of another": (
        {"other": header("other", size=2**40)},
        "other: expected a file of at most",
    ),
    "train missing": ({TRAIN: NONE}, f"no {TRAIN} in it"),
    "meta missing": ({"cifar-100-python/meta": NONE}, "no cifar-100-python/meta in it"),
    "empty": ({TRAIN: b""}, "refused as a pickle"),
    "no pickle": ({TRAIN: b"<html>Please log in</html>"}, "refused as a pickle"),
    "truncated pickle": ({TRAIN: archives.pickled([b"x" * 300])[:-20]}, "refused as a pickle"),
    "pickled list": ({TRAIN: archives.pickled([1])}, "expected a pickled dictionary, got list"),
    "pickled number": ({TRAIN: archives.pickled(7)}, "expected a pickled dictionary, got int"),
    "array of a petabyte": (
        {TRAIN: archives.pickled(np.zeros(0, np.uint8)).replace(b"(I0\nt", b"(I%d\nt" % 2**50, 1)},
        TRAIN,
    ),
}


@pytest.mark.parametrize(("others", "says"), CIFAR_MEMBERS.values(), ids=CIFAR_MEMBERS)
def test_cifar100_archive_that_is_refused(tmp_path, others, says):
    members = archives.cifar100_members(
        archives.cifar100_contents(archives.cifar100_parts(**CIFAR))
    )
    members = {name: made for name, made in (members | others).items() if made is not NONE}
    # A header that tells of content without having any comes last.
    members = dict(sorted(members.items(), key=lambda item: not isinstance(item[1], bytes)))
    archives.write_tar(tmp_path / archives.TAR, members)
    assert says in refusal(cifar100, tmp_path, archives.TAR)
    assert [path.name for path in tmp_path.iterdir()] == [archives.TAR]


def of_train(key, change):
    def changed(contents):
        contents["train"][key] = change(contents["train"][key])

    return changed


def without(key):
    return lambda contents: contents["train"].pop(key)


def one_fewer(contents):
    for key in (b"data", b"fine_labels", b"filenames"):
        contents["train"][key] = contents["train"][key][1:]


def named(names):
    return lambda contents: contents["meta"].update({b"fine_label_names": names})


# One row a mistake: what is done to the dictionaries, and what the message says.
CIFAR_CONTENTS = {
    "no pixels": (without(b"data"), "expected data as array, got nonetype"),
    "no labels": (without(b"fine_labels"), "expected fine_labels as list, got nonetype"),
    "no file names": (without(b"filenames"), "expected filenames as list, got nonetype"),
    "pixels as a list": (of_train(b"data", np.ndarray.tolist), "expected data as array, got list"),
    "labels as an array": (of_train(b"fine_labels", np.array), "expected arrays of uint8"),
    "pixels as int32": (of_train(b"data", np.int32), "expected arrays of uint8"),
    "pixels as int8": (of_train(b"data", lambda a: a.astype("i1")), "expected arrays of uint8"),
    "pixels as yes and no": (of_train(b"data", lambda a: a > 0), "expected arrays of uint8"),
    "flat pixels": (of_train(b"data", np.ravel), "got uint8 (36864,)"),
    "narrow pixels": (of_train(b"data", lambda a: a[:, 1:]), "got uint8 (12, 3071)"),
    "an image too many": (of_train(b"data", lambda a: a[[0, *range(12)]]), "got uint8 (13, 3072)"),
    "a label too few": (of_train(b"fine_labels", lambda a: a[1:]), "expected pixels as uint8 (11"),
    "a file name too few": (of_train(b"filenames", lambda a: a[1:]), "file names"),
    "label above": (of_train(b"fine_labels", lambda a: [4, *a[1:]]), "labels from 0 to 3"),
    "label below": (of_train(b"fine_labels", lambda a: [-1, *a[1:]]), "labels from 0 to 3"),
    "endless label": (of_train(b"fine_labels", lambda a: [10**30, *a[1:]]), "labels from 0 to 3"),
    "label as text": (of_train(b"fine_labels", lambda a: [b"1", *a[1:]]), "whole numbers as lab"),
    "label as yes": (of_train(b"fine_labels", lambda a: [True, *a[1:]]), "whole numbers as labels"),
    "file name as number": (of_train(b"filenames", lambda a: [1, *a[1:]]), "bytes as file names"),
    "class with too few images": (one_fewer, "has 2 images, expected 3"),
    "class without images": (named(archives.cifar100_names(5)), "'class_04' has 0 images"),
    "names as text": (named(b"class_00"), "expected fine_label_names as list, got bytes"),
    "name as number": (named([*archives.cifar100_names(3), 3]), "fine_label_names"),
    "name in another coding": (named([*archives.cifar100_names(3), b"\xe9"]), "fine_label_names"),
    "no images at all": (
        lambda contents: contents["train"].update(
            {b"data": np.zeros((0, 3072), np.uint8), b"fine_labels": [], b"filenames": []}
        ),
        "expected labels from 0 to 3",
    ),
}


@pytest.mark.parametrize(("change", "says"), CIFAR_CONTENTS.values(), ids=CIFAR_CONTENTS)
def test_cifar100_content_that_is_refused(tmp_path, change, says):
    contents = archives.cifar100_contents(archives.cifar100_parts(**CIFAR))
    change(contents)
    archives.write_tar(tmp_path / archives.TAR, archives.cifar100_members(contents))
    assert says in refusal(cifar100, tmp_path, archives.TAR)


def short(text):
    return b"U" + bytes([len(text)]) + text


# Each way in which a pickle can ask for a function; `%s` is where it leaves a trace.
HOSTILE = {
    "system": b"cos\nsystem\n(%ttR",
    "posix": b"cposix\nsystem\n(%ttR",
    "popen": b"csubprocess\ngetoutput\n(%ttR",
    "inst": b"(%tios\nsystem\n",
    "obj": b"(cos\nsystem\n%to",
    "stack global": b"\x8c\x02os\x8c\x06system\x93(%ttR",
    "eval": b"cbuiltins\neval\n(%etR",
    "eval of Python 2": b"c__builtin__\neval\n(%etR",
    "function of NumPy": b"cnumpy.testing._private.utils\nrunstring\n(%e}tR",
    "attribute of NumPy": b"cnumpy\nndarray.tofile\n(cnumpy\nndarray\nK\x01\x85R%ptR",
}


# Pickles that ask for more than their length warrants, and what is said of them.
WASTEFUL = {
    "table of 4 billion values": (b"\x80\x02}r\xff\xff\xff\xff.", "value number 4294967295 at"),
    "table of 10^30 values": (b"\x80\x02}p1" + b"0" * 30 + b"\n.", "out of order"),
    "tuples of one tuple": (  # 2^60 steps to hash
        b"\x80\x02}I1\nI1\n\x86q\0%bI1\ns."
        % b"".join(b"h%ch%c\x86q%c" % (level, level, level + 1) for level in range(60)),
        "a tuple repeated at",
    ),
    "values doubled": (b"\x80\x02]" + b"2\x86" * 60 + b".", "DUP at"),
    "a newer protocol": (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f}.", "at 2, which no offi"),
    "array of 10^15": (
        b"\x80\x02cnumpy\nndarray\n(I1000000000000000\nU\x02u1tR.",
        "refused as a pickle",
    ),
    "module of a long name": (b"\x80\x02c" + b"x" * 10**6 + b"\ny\n.", "refused as a pickle"),
}


@pytest.mark.parametrize(("hostile", "says"), WASTEFUL.values(), ids=WASTEFUL)
def test_cifar100_wasteful_pickle_is_refused_at_once(tmp_path, hostile, says):
    members = archives.cifar100_members(
        archives.cifar100_contents(archives.cifar100_parts(**CIFAR))
    )
    archives.write_tar(tmp_path / archives.TAR, members | {"cifar-100-python/train": hostile})
    message = refusal(cifar100, tmp_path, archives.TAR)
    assert says in message
    assert len(message) < 600


def long_name(size):
    """Return the header of a member whose name is given by so many bytes after it."""
    return header("././@LongLink", size=size, kind=tarfile.GNUTYPE_LONGNAME)


# Archives that unpack to more than their length warrants: what stands before the real members.
BOMBS = {
    "name of a terabyte": ({"name": long_name(2**40)}, "a piece of 10995"),
    "name of 100 MB": ({"name": long_name(10**8)}, "damaged archive"),
    "names of names": ({str(n): long_name(512) for n in range(3000)}, "damaged archive"),
    "5,000 members": ({str(n): b"" for n in range(5000)}, "more than 100 members in it"),
    "a member of 3 MB": ({"zeros": bytes(3 * 2**20)}, "larger than 2097152 bytes, unpacked"),
}


@pytest.mark.parametrize(("bomb", "says"), BOMBS.values(), ids=BOMBS)
def test_cifar100_bomb_is_refused(tmp_path, monkeypatch, bomb, says):
    monkeypatch.setattr(cifar100, "_LARGEST_ARCHIVE", 2**21)
    archives.write_tar(tmp_path / archives.TAR, bomb)
    assert says in refusal(cifar100, tmp_path, archives.TAR)


def test_cifar100_zeros_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar100, "_LARGEST_ARCHIVE", 2**21)
    archives.write_cifar100(tmp_path, **CIFAR)
    path = tmp_path / archives.TAR
    path.write_bytes(path.read_bytes() + gzip.compress(bytes(2**23)))
    assert "larger than 2097152 bytes" in refusal(cifar100, tmp_path, archives.TAR)


@pytest.mark.parametrize(
    ("reader", "write", "name"),
    [
        (omniglot, archives.write_omniglot, archives.ZIPS[0]),
        (tinyimagenet, archives.write_tinyimagenet, archives.TINY),
    ],
)
def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, reader, write, name):
    monkeypatch.setattr(readers, "_LARGEST_ARCHIVE", 2**21)
    write(tmp_path)
    members = members_of(tmp_path / name) | {f"zeros{n}": bytes(2**20) for n in range(3)}
    archives.write_zip(tmp_path / name, members)
    assert "bytes unpacked, expected at most 2097152" in refusal(reader, tmp_path, name)


@pytest.mark.parametrize("member", ["meta", "train"])
@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_cifar100_hostile_pickle_does_not_run(tmp_path, hostile, member):
    trace = tmp_path / "ran"
    path = bytes(trace)
    hostile = hostile.replace(b"%t", short(b"touch " + path)).replace(b"%p", short(path))
    hostile = hostile.replace(b"%e", short(b"open('" + path + b"','w')"))
    members = archives.cifar100_members(
        archives.cifar100_contents(archives.cifar100_parts(**CIFAR))
    )
    members[f"cifar-100-python/{member}"] = b"\x80\x02" + hostile + b"."
    folder = tmp_path / "raw"
    archives.write_tar(folder / archives.TAR, members)
    message = refusal(cifar100, folder, archives.TAR)
    assert f"cifar-100-python/{member}: refused as a pickle" in message
    assert not trace.exists()


# Omniglot


@pytest.mark.parametrize("packing", [0, 1, 2])
def test_omniglot_is_sorted_whatever_the_order_in_the_archives(tmp_path, packing):
    parts, trials = archives.write_omniglot(tmp_path, packing=packing)
    found = omniglot.read(tmp_path)
    same(found, parts)
    assert found.parts["background"].images.shape == (10, 6, 105, 105, 1)
    assert found.parts["background"].names[4:6] == [
        "Background_1/character05",
        "Background_2/character01",
    ]
    assert found.parts["evaluation"].names == sorted(found.parts["evaluation"].names)
    assert len(set(found.parts["evaluation"].names)) == 10
    assert found.tasks.keys() == {"lake"}
    assert found.tasks["lake"].part == "evaluation"
    np.testing.assert_array_equal(found.tasks["lake"].indices, trials)


def test_omniglot_all_counts_the_background_first(tmp_path):
    archives.write_omniglot(tmp_path)
    parts = omniglot.read(tmp_path).parts
    background, evaluation = parts["background"], parts["evaluation"]
    assert parts["all"].names == background.names + evaluation.names
    np.testing.assert_array_equal(
        parts["all"].images[9:11, 0], [background.images[9, 0], evaluation.images[0, 0]]
    )


def test_omniglot_ink_is_high_on_low_paper(tmp_path):
    archives.write_omniglot(tmp_path, **OMNIGLOT)
    image = np.zeros((105, 105, 1), np.uint8)
    image[3, 4] = 255
    with PIL.Image.open(
        io.BytesIO(archives.png(image))
    ) as drawn:  # as people see it: black on white
        assert (drawn.mode, drawn.getpixel((4, 3)), drawn.getpixel((3, 4))) == ("1", 0, 255)
    members = members_of(tmp_path / "images_background.zip")
    members["images_background/Background_1/character01/0001_01.png"] = archives.png(image)
    archives.write_zip(tmp_path / "images_background.zip", members)
    found = omniglot.read(tmp_path).parts["background"].images
    np.testing.assert_array_equal(found[0, 0], image)
    assert np.unique(found).tolist() == [0, 255]


def test_omniglot_runs_are_within_an_alphabet_and_hold_the_query_once(tmp_path):
    parts, _ = archives.write_omniglot(tmp_path)
    found = omniglot.read(tmp_path)
    tasks = found.tasks["lake"].indices
    classes = tasks // parts["evaluation"].shape[1]
    alphabets = np.array([name.split("/")[0] for name in found.parts["evaluation"].names])
    assert (alphabets[classes] == alphabets[classes[:, :1]]).all()
    assert ((classes[:, 1:] == classes[:, :1]).sum(axis=1) == 1).all()
    assert (tasks[:, 1:] != tasks[:, :1]).all()


def test_omniglot_other_files_are_passed_over(tmp_path):
    parts, _ = archives.write_omniglot(tmp_path, **OMNIGLOT)
    for name in archives.ZIPS:
        others = {"README.txt": b"text", "__MACOSX/._a.png": b"x", "empty/": b""}
        archives.write_zip(tmp_path / name, members_of(tmp_path / name) | others)
    same(omniglot.read(tmp_path), parts)


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def chunk(kind, content):
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def png_of(width, height, depth=1, colour=0):
    """Return a PNG file that claims a size, whose pixels are missing."""
    shape = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0"))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape) + pixels + chunk(b"IEND", b"")


GOOD = archives.png(np.zeros((105, 105, 1), np.uint8))
SMALL = archives.png(np.zeros((104, 105, 1), np.uint8))
DRAWING = "images_evaluation/Evaluation_1/character01/0965_01.png"
RUN = "run01/class_labels.txt"
CLASS, ITEM = "run01/training/class01.png", "run01/test/item01.png"
SPECK = np.zeros((105, 105, 1), np.uint8)
SPECK[52, 52] = 255

# One row a mistake: the archive, members that are others (text: the same as that one), and what
# the message says.
OMNIGLOT_MEMBERS = {
    "path above": (1, {"../evil.png": GOOD}, "'../evil.png' leaves the archive"),
    "absolute path": (1, {"/tmp/evil.png": GOOD}, "leaves the archive"),
    "path above, of Windows": (2, {"run01\\..\\..\\evil": b""}, "leaves the archive"),
    "drive": (0, {"C:evil.png": GOOD}, "leaves the archive"),
    "large member": (0, {"other": bytes(2**20 + 1)}, "other: larger than 1048576 bytes"),
    "drawing of a wrong size": (1, {DRAWING: SMALL}, f"{DRAWING}: expected 105x105 pixels"),
    "empty drawing": (1, {DRAWING: b""}, f"{DRAWING}: damaged PNG file"),
    "drawing of text": (1, {DRAWING: b"<html></html>"}, f"{DRAWING}: damaged PNG file"),
    "truncated drawing": (1, {DRAWING: GOOD[:-30]}, f"{DRAWING}: damaged PNG file"),
    "drawing without pixels": (1, {DRAWING: png_of(105, 105)}, f"{DRAWING}: damaged PNG file"),
    "drawing of 2.5 gigapixels": (1, {DRAWING: png_of(50_000, 50_000)}, DRAWING),
    "drawing in another format": (1, {DRAWING: b"GIF89a" + bytes(50)}, f"{DRAWING}: damaged PNG"),
    "drawing missing": (1, {DRAWING: NONE}, "'Evaluation_1/character01' has 2 images, expected 3"),
    "drawing too many": (
        0,
        {"images_background/Background_1/character01/0001_99.png": GOOD},
        "has 3 images, expected 4",
    ),
    "run's drawing missing": (2, {CLASS: NONE}, f"{CLASS}: named in class_labels.txt but not in"),
    "test drawing missing": (2, {ITEM: NONE}, f"{ITEM}: named in class_labels.txt but not in"),
    "drawing not of the evaluation": (
        2,
        {ITEM: archives.png(SPECK)},
        f"{ITEM}: no such drawing in images_evaluation.zip",
    ),
    "run's drawing of a wrong size": (2, {ITEM: SMALL}, f"{ITEM}: expected 105x105 pixels"),
    "run's drawing damaged": (2, {CLASS: b"x"}, f"{CLASS}: damaged PNG file"),
    "labels of a missing file": (
        2,
        {RUN: f"run01/test/item99.png {CLASS}\n".encode()},
        "run01/test/item99.png: named in class_labels.txt but not in the archive",
    ),
    "labels of a test drawing": (
        2,
        {RUN: f"{CLASS} {ITEM}\n".encode()},
        "not among the run's training drawings",
    ),
    "labels of one word": (2, {RUN: f"{ITEM}\n".encode()}, RUN),
    "labels of three words": (2, {RUN: f"{ITEM} {CLASS} {CLASS}\n".encode()}, RUN),
    "labels with an empty line": (2, {RUN: f"{ITEM} {CLASS}\n\n{ITEM} {CLASS}\n".encode()}, RUN),
    "labels in another coding": (2, {RUN: b"\xff\xfe\x00"}, RUN),
    "no labels": (2, {f"run{run:02}/class_labels.txt": NONE for run in (1, 2)}, "expected runs"),
    "run of another size": (2, {"run01/training/class03.png": CLASS}, "expected runs of one size"),
}


@pytest.mark.parametrize(
    ("index", "others", "says"), OMNIGLOT_MEMBERS.values(), ids=OMNIGLOT_MEMBERS
)
def test_omniglot_archive_that_is_refused(tmp_path, index, others, says):
    name = archives.ZIPS[index]
    archives.write_omniglot(tmp_path, **OMNIGLOT)
    members = members_of(tmp_path / name)
    for path, content in others.items():
        members[path] = members[content] if isinstance(content, str) else content
    members = {path: content for path, content in members.items() if content is not NONE}
    archives.write_zip(tmp_path / name, members)
    assert says in refusal(omniglot, tmp_path, name)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(archives.ZIPS)


@pytest.mark.parametrize("name", archives.ZIPS)
def test_omniglot_archive_of_another_layout_is_refused(tmp_path, name):
    archives.write_omniglot(tmp_path, **OMNIGLOT)
    archives.write_zip(tmp_path / name, {"other/a/b/c.png": GOOD})
    refusal(omniglot, tmp_path, name)


# Tiny ImageNet


def write_tiny(folder, members):
    archives.write_zip(folder / archives.TINY, members)


@pytest.mark.parametrize("packing", [0, 1, 2])
def test_tinyimagenet_is_sorted_and_decoded_as_pillow_does(tmp_path, packing):
    parts = archives.write_tinyimagenet(tmp_path, packing=packing, **TINY)
    found = tinyimagenet.read(tmp_path)
    same(found, parts)
    assert found.parts["train"].names == [f"thing {label:02}, matter" for label in range(3)]


def test_tinyimagenet_grey_files_are_read_as_rgb(tmp_path):
    archives.write_tinyimagenet(tmp_path, **TINY)
    grey = tinyimagenet.read(tmp_path).parts["train"].images[:, 0]
    np.testing.assert_array_equal(grey, np.repeat(grey[..., :1], 3, axis=-1))


def test_tinyimagenet_other_files_are_passed_over(tmp_path):
    images, members = archives.tinyimagenet_members(**TINY)
    folder = f"tiny-imagenet-200/train/{archives.tinyimagenet_ids(1)[0]}"
    others = {
        "tiny-imagenet-200/": b"",
        f"{folder}/images/": b"",
        f"{folder}/images/notes.txt": b"x",
        f"{folder}/images/deep/n00000001_0.JPEG": b"x",
        "__MACOSX/tiny-imagenet-200/train/._x": b"x",
    }
    write_tiny(tmp_path, members | others)
    same(tinyimagenet.read(tmp_path), {"train": images})


def test_tinyimagenet_class_without_words_is_called_by_its_id(tmp_path):
    _, members = archives.tinyimagenet_members(**TINY)
    members["tiny-imagenet-200/words.txt"] = b"n01000007\tone\nn02000014\n\xff\n"
    write_tiny(tmp_path, members)
    names = tinyimagenet.read(tmp_path).parts["train"].names
    assert names == ["one", "n02000014", "n03000021"]


PHOTOGRAPH = "tiny-imagenet-200/train/n02000014/images/n02000014_3.JPEG"
COLOURS = archives.jpeg(np.zeros((64, 64, 3), np.uint8))


def jpeg_of(height, width):
    """Return a JPEG file that says it has another size than its content."""
    place = COLOURS.index(b"\xff\xc0") + 5
    return COLOURS[:place] + struct.pack(">HH", height, width) + COLOURS[place + 4 :]


TINY_MEMBERS = {
    "path above": ({"../evil.JPEG": COLOURS}, "'../evil.JPEG' leaves the archive"),
    "absolute path": ({"/tmp/evil.JPEG": COLOURS}, "leaves the archive"),
    "large photograph": ({PHOTOGRAPH: bytes(2**20 + 1)}, f"{PHOTOGRAPH}: larger than 1048576"),
    "large words": (
        {"tiny-imagenet-200/words.txt": bytes(2**24 + 1)},
        "words.txt: larger than 16777216 bytes",
    ),
    "photograph of a wrong size": (
        {PHOTOGRAPH: archives.jpeg(np.zeros((32, 64, 3), np.uint8))},
        f"{PHOTOGRAPH}: expected 64x64 pixels, got 64x32",
    ),
    "photograph of 4 gigapixels": ({PHOTOGRAPH: jpeg_of(65_500, 65_500)}, "got 65500x65500"),
    "empty photograph": ({PHOTOGRAPH: b""}, f"{PHOTOGRAPH}: damaged JPEG file"),
    "photograph of text": ({PHOTOGRAPH: b"<html></html>"}, f"{PHOTOGRAPH}: damaged JPEG file"),
    "truncated photograph": ({PHOTOGRAPH: COLOURS[:-200]}, f"{PHOTOGRAPH}: damaged JPEG file"),
    "photograph in another format": (
        {PHOTOGRAPH: b"\x89PNG\r\n\x1a\n" + bytes(50)},
        f"{PHOTOGRAPH}: damaged JPEG file",
    ),
    "photograph missing": ({PHOTOGRAPH: NONE}, "'n02000014' has 10 images, expected 11"),
    "photograph too many": (
        {PHOTOGRAPH.replace("_3", "_99"): COLOURS},
        "'n01000007' has 11 images, expected 12",
    ),
    "no words": ({"tiny-imagenet-200/words.txt": NONE}, "no tiny-imagenet-200/words.txt in it"),
}


@pytest.mark.parametrize(("others", "says"), TINY_MEMBERS.values(), ids=TINY_MEMBERS)
def test_tinyimagenet_archive_that_is_refused(tmp_path, others, says):
    _, members = archives.tinyimagenet_members(**TINY)
    members |= others
    write_tiny(tmp_path, {path: each for path, each in members.items() if each is not NONE})
    assert says in refusal(tinyimagenet, tmp_path, archives.TINY)
    assert [path.name for path in tmp_path.iterdir()] == [archives.TINY]


def test_tinyimagenet_archive_of_another_layout_is_refused(tmp_path):
    write_tiny(tmp_path, {"other/train/n02000014/images/n02000014_3.JPEG": COLOURS})
    assert "no tiny-imagenet-200/train" in refusal(tinyimagenet, tmp_path, archives.TINY)


def central(content, offset, value):
    """Return a zip whose first entry of the directory has another value of two or four bytes."""
    place = content.index(b"PK\x01\x02") + offset
    return content[:place] + value + content[place + len(value) :]


def end(content, offset, value):
    """Return a zip whose end of the directory has another value."""
    place = content.rindex(b"PK\x05\x06") + offset
    return content[:place] + value + content[place + len(value) :]


# One row a mistake: what is done to the bytes of an archive.
DAMAGE = {
    "empty": lambda content: b"",
    "web page": lambda content: b"<html>Please log in</html>",
    "half": lambda content: content[: len(content) // 2],
    "begin missing": lambda content: content[100:],
    "end missing": lambda content: content[:-100],
    "zeros within": lambda content: content[:300] + bytes(50) + content[350:],
}
ZIP_DAMAGE = DAMAGE | {
    "huge declared size": lambda content: central(content, 24, struct.pack("<I", 2**32 - 2)),
    "other size": lambda content: central(content, 24, struct.pack("<I", 7)),
    "other checksum": lambda content: central(content, 16, b"abcd"),
    "encrypted": lambda content: central(content, 8, b"\x01\x00"),
    "stored": lambda content: central(content, 10, b"\x00\x00"),
    "bzip2": lambda content: central(content, 10, b"\x0c\x00"),
    "lzma": lambda content: central(content, 10, b"\x0e\x00"),
    "unknown compression": lambda content: central(content, 10, b"\x63\x00"),
    "member elsewhere": lambda content: central(content, 42, struct.pack("<I", 2**31)),
    "other name": lambda content: central(content, 46, b"j"),
    "directory elsewhere": lambda content: end(content, 16, struct.pack("<I", 2**31)),
    "directory of a wrong size": lambda content: end(content, 12, struct.pack("<I", 2**31)),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_cifar100_damaged_archive_is_refused(tmp_path, damage):
    archives.write_cifar100(tmp_path, **CIFAR)
    path = tmp_path / archives.TAR
    path.write_bytes(damage(path.read_bytes()))
    refusal(cifar100, tmp_path, archives.TAR)


@pytest.mark.parametrize("name", archives.ZIPS)
@pytest.mark.parametrize("damage", ZIP_DAMAGE.values(), ids=ZIP_DAMAGE)
def test_omniglot_damaged_archive_is_refused(tmp_path, name, damage):
    archives.write_omniglot(tmp_path, **OMNIGLOT)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    refusal(omniglot, tmp_path, name)


@pytest.mark.parametrize("damage", ZIP_DAMAGE.values(), ids=ZIP_DAMAGE)
def test_tinyimagenet_damaged_archive_is_refused(tmp_path, damage):
    _, members = archives.tinyimagenet_members(**TINY)
    # the first entry of the directory, which some of the damages change, is a photograph
    write_tiny(tmp_path, {PHOTOGRAPH: members.pop(PHOTOGRAPH)} | members)
    path = tmp_path / archives.TINY
    path.write_bytes(damage(path.read_bytes()))
    refusal(tinyimagenet, tmp_path, archives.TINY)


@pytest.mark.parametrize(
    ("reader", "name"),
    [
        (tinyimagenet, archives.TINY),
        (cifar100, archives.TAR),
        *((omniglot, name) for name in archives.ZIPS),
    ],
)
def test_missing_archive_is_refused(tmp_path, reader, name):
    archives.write_cifar100(tmp_path, **CIFAR)
    archives.write_omniglot(tmp_path, **OMNIGLOT)
    archives.write_tinyimagenet(tmp_path, **TINY)
    (tmp_path / name).unlink()
    refusal(reader, tmp_path, name)


def damaged(content, rng):
    """Return a random truncation or an archive with one bit flipped."""
    place = rng.randrange(len(content))
    if rng.random() < 0.3:
        return content[:place]
    changed = bytearray(content)
    changed[place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_cifar100_damaged_at_random_is_refused_or_read_as_it_was(tmp_path):
    parts = archives.write_cifar100(tmp_path, **CIFAR)
    path = tmp_path / archives.TAR
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(60):
        path.write_bytes(damaged(content, rng))
        try:
            found = cifar100.read(tmp_path)
        except UserError as error:
            assert str(path) in str(error)
        else:
            same(found, parts)
            assert [name.encode() for name in found.parts["train"].names] == (
                archives.cifar100_names(CIFAR["classes"])
            )


@pytest.mark.parametrize("name", archives.ZIPS)
def test_omniglot_damaged_at_random_is_refused_or_read_as_it_was(tmp_path, name):
    parts, trials = archives.write_omniglot(tmp_path, **OMNIGLOT)
    names = {part: each.names for part, each in omniglot.read(tmp_path).parts.items()}
    path = tmp_path / name
    content, rng = path.read_bytes(), random.Random(name)
    for _ in range(60):
        path.write_bytes(damaged(content, rng))
        try:
            found = omniglot.read(tmp_path)
        except UserError as error:
            assert str(path) in str(error)
        else:
            same(found, parts)
            np.testing.assert_array_equal(found.tasks["lake"].indices, trials)
            assert names == {part: each.names for part, each in found.parts.items()}


def test_tinyimagenet_damaged_at_random_is_refused_or_read_as_it_was(tmp_path):
    parts = archives.write_tinyimagenet(tmp_path, **TINY)
    names = tinyimagenet.read(tmp_path).parts["train"].names
    path = tmp_path / archives.TINY
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(60):
        path.write_bytes(damaged(content, rng))
        try:
            found = tinyimagenet.read(tmp_path)
        except UserError as error:
            assert str(path) in str(error)
        else:
            same(found, parts)
            assert found.parts["train"].names == names
