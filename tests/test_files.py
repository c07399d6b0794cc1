import io
import json

import numpy as np
import pytest

from stages import files
from stages.command import UserError


def read(path):
    return files.read_array(path, dtype="float32", dimensions=2)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


ROWS = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.mark.parametrize(
    "array",
    [
        ROWS,
        np.asfortranarray(ROWS),
        ROWS[::2, ::-1],
        ROWS[:0],
        ROWS[:, :0],
        np.arange(5, dtype=np.int32),
        np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 1), dtype=np.uint8),
        np.array([np.nan, -np.inf, -0.0], np.float32),
    ],
    ids=["rows", "fortran", "strided", "no rows", "no columns", "int32", "images", "not finite"],
)
def test_an_array_comes_back_bit_for_bit_and_is_plain_npy(tmp_path, array):
    path = tmp_path / "new" / "array.npy"
    files.write_array(path, array)
    found = files.read_array(path, dtype=array.dtype.name, dimensions=array.ndim)
    assert found.shape == array.shape
    assert found.tobytes() == array.tobytes()
    np.save(tmp_path / "numpy.npy", np.ascontiguousarray(array))
    assert path.read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    assert names(path.parent) == ["array.npy"]


def test_a_read_array_is_mapped_and_cannot_be_written_to(tmp_path):
    files.write_array(tmp_path / "array.npy", ROWS)
    found = read(tmp_path / "array.npy")
    assert isinstance(found, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


@pytest.mark.parametrize("sizes", [[4], [1, 1, 2], [0, 3, 1]], ids=str)
def test_blocks_make_one_array(tmp_path, sizes):
    with files.writing_array(tmp_path / "array.npy", ROWS.shape, "<f4") as append:
        for block in np.split(ROWS.astype(np.float64), np.cumsum(sizes)[:-1]):
            append(block)
    np.testing.assert_array_equal(read(tmp_path / "array.npy"), ROWS)


@pytest.mark.parametrize("rows", [0, 3, 5])
def test_a_wrong_number_of_values_leaves_the_old_file(tmp_path, rows):
    path = tmp_path / "array.npy"
    files.write_array(path, ROWS)
    with (
        pytest.raises(ValueError, match=rf"{rows * 6} values written. Received: shape=\(4, 6\)"),
        files.writing_array(path, ROWS.shape, "<f4") as append,
    ):
        append(np.ones((rows, 6), np.float32))
    np.testing.assert_array_equal(read(path), ROWS)
    assert names(tmp_path) == ["array.npy"]


class Killed(BaseException):
    """As `KeyboardInterrupt` is: not an `Exception`."""


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), Killed()], ids=str)
@pytest.mark.parametrize("old", ["nothing", "file", "folder"])
@pytest.mark.parametrize("new", ["nothing", "file", "folder"])
def test_a_failure_leaves_the_old_and_no_partial(tmp_path, old, new, failure):
    path = tmp_path / "made"
    if old == "file":
        path.write_text("old")
    elif old == "folder":
        path.mkdir()
        (path / "old.txt").write_text("old")
    before = names(tmp_path)
    with pytest.raises(type(failure)), files.replacing(path) as partial:
        if new == "file":
            partial.write_text("half")
        elif new == "folder":
            (partial / "deeper").mkdir(parents=True)
            (partial / "deeper" / "new.txt").write_text("half")
        raise failure
    assert names(tmp_path) == before
    if old == "file":
        assert path.read_text() == "old"
    elif old == "folder":
        assert (path / "old.txt").read_text() == "old"


def test_a_folder_takes_the_place_of_a_folder_whole(tmp_path):
    for name in ("first.txt", "second.txt"):
        with files.replacing(tmp_path / "made") as partial:
            partial.mkdir()
            (partial / name).write_text(name)
    assert names(tmp_path / "made") == ["second.txt"]
    assert names(tmp_path) == ["made"]


@pytest.mark.parametrize("left", ["file", "folder"])
def test_what_a_killed_process_left_is_removed(tmp_path, left):
    with files.replacing(tmp_path / "made") as partial:
        left_over = partial
        partial.write_text("first")
    if left == "file":
        left_over.write_text("half")
    else:
        left_over.mkdir()
        (left_over / "half.txt").write_text("half")
    with files.replacing(tmp_path / "made") as partial:
        assert not partial.exists()
        partial.write_text("second")
    assert (tmp_path / "made").read_text() == "second"
    assert names(tmp_path) == ["made"]


def npy(array, **options):
    """Return the bytes of a .npy file."""
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(array):
    file = io.BytesIO()
    np.savez(file, array)
    return file.getvalue()


GOOD = npy(ROWS)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        GOOD[:5],
        GOOD[:9],
        GOOD[:50],
        GOOD[:128],
        GOOD[:-1],
        GOOD.replace(b"}", b" "),
        GOOD.replace(b"'<f4'", b"',f4'"),
        GOOD.replace(b"(4, 6)", b"(4, -6)"),
        GOOD.replace(b"(4, 6)", b"(4, 7)"),
        GOOD.replace(b"(4, 6), }" + b" " * 17, b"(10000000000000000000,), }"),
        GOOD.replace(b"(4, 6), }" + b" " * 2, b"(True,), }" + b" "),
        GOOD.replace(b"'shape'", b"'shap_'"),
        b"hello",
        b"PK\x03\x04" + bytes(50),
        npz(ROWS),
        npy(np.array([{}]), allow_pickle=True),
        npy(ROWS.astype(np.float64)),
        npy(ROWS.astype(">f4")),
        npy(ROWS.ravel()),
        npy(ROWS[None]),
    ],
    ids=[
        "empty",
        "truncated magic",
        "truncated length of the header",
        "truncated header",
        "no data",
        "truncated data",
        "header without an end",
        "unknown dtype",
        "negative shape",
        "shape beyond the data",
        "shape beyond all memory",
        "shape of a truth value",
        "unknown key",
        "text",
        "damaged zip",
        "npz",
        "pickled objects",
        "float64",
        "big-endian",
        "one axis",
        "three axes",
    ],
)
def test_a_damaged_or_other_array_is_one_line(tmp_path, content):
    path = tmp_path / "array.npy"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value)
    assert "delete it and run dvc repro" in str(error.value)
    assert "\n" not in str(error.value)


def test_pickled_objects_are_not_unpickled(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (path.write_text, ("ran",))

    path = tmp_path / "ran.txt"
    (tmp_path / "array.npy").write_bytes(npy(np.array([[Hostile()]]), allow_pickle=True))
    with pytest.raises(UserError):
        read(tmp_path / "array.npy")
    assert not path.exists()


def test_any_flipped_bit_of_a_header_is_an_array_or_one_line(tmp_path):
    path = tmp_path / "array.npy"
    for place in range(80):  # after it, spaces
        for bit in range(8):
            content = bytearray(GOOD)
            content[place] ^= 1 << bit
            path.write_bytes(content)
            try:
                read(path)
            except UserError as error:
                assert str(path) in str(error)


@pytest.mark.parametrize("read", [read, files.read_json], ids=["array", "json"])
def test_a_missing_file_says_what_makes_it(tmp_path, read):
    with pytest.raises(UserError, match=r"missing: no such file; .*dvc repro"):
        read(tmp_path / "missing")


def test_a_folder_without_arrays_says_what_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for read, stage in ((files.read_splits, "prepare"), (files.read_tasks, "tasks")):
        with pytest.raises(UserError, match=f"/digits: no arrays in it; .*repro {stage}@digits"):
            read("digits")


def test_splits_and_tasks_are_read_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, tasks = np.zeros((2, 3, 4, 4, 1), np.uint8), np.zeros((5, 3), np.int32)
    for name in ("unseen", "seen_train", "seen_test"):
        files.write_array(f"data/arrays/digits/{name}.npy", images)
    for path in ("arrays/digits/tasks_lake.npy", "tasks/digits/lake.npy"):
        files.write_array(f"data/{path}", tasks)
    assert list(files.read_splits("digits")) == ["seen_test", "seen_train", "unseen"]
    assert {name: each.shape for name, each in files.read_tasks("digits").items()} == {
        "lake": (5, 3)
    }


def test_json_comes_back_in_order_and_can_be_read(tmp_path):
    content = {"z": [1, 0.1, None, True], "a": {"Ōjibwe": "ñ"}}
    files.write_json(tmp_path / "new" / "some.json", content)
    found = files.read_json(tmp_path / "new" / "some.json")
    assert found == content
    assert list(found) == ["z", "a"]
    written = (tmp_path / "new" / "some.json").read_bytes().decode("utf-8")
    assert written == json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    assert "\r" not in written


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), {1, 2}], ids=str)
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path, bad):
    files.write_json(tmp_path / "some.json", {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        files.write_json(tmp_path / "some.json", {"new": bad})
    assert files.read_json(tmp_path / "some.json") == {"old": 1}
    assert names(tmp_path) == ["some.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": 1', b"{'a': 1}", b"\xff\xfe", b"{}{}"])
def test_damaged_json_is_one_line(tmp_path, content):
    (tmp_path / "some.json").write_bytes(content)
    with pytest.raises(UserError) as error:
        files.read_json(tmp_path / "some.json")
    assert f"{tmp_path / 'some.json'}: damaged JSON file" in str(error.value)
    assert "\n" not in str(error.value)


def test_states_of_a_longer_name_are_not_forgotten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    states = [files.state_folder("train", name, f"{7:016x}") for name in ("x", "x-grey")]
    for state in states:
        state.mkdir(parents=True)
    files.forget_states("train", "x")
    assert [state.exists() for state in states] == [False, True]
