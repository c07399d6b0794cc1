"""Files between stages: read with checks, written whole or not at all.

Nothing here changes a value: what is written is what is read back, bit for bit.
"""

import contextlib
import csv
import io
import json
import math
import os
import shutil
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stages.command import UserError

_STAGES = {  # that make what stands below data/, metrics/ and predictions/
    **{"raw": "download", "arrays": "prepare", "tasks": "tasks", "seeds": "seeds"},
    "predictions": "predictions",
    **dict.fromkeys(["models", "run.json", "history.csv"], "train"),
    **dict.fromkeys(["codes", "network.json"], "encode"),
    **dict.fromkeys(["oneshot.json", "ways.csv"], "oneshot"),
    **dict.fromkeys(["pictures", "retrieval.json", "recall.csv", "search.csv"], "retrieval"),
    **dict.fromkeys(["compression.csv", "expansion.csv"], "retrieval"),
}


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block succeeds.

    The block makes a file or a folder there. When it raises, what it made is removed and `path`
    is left as it was; what a killed process left is removed by the next one.
    """
    path = Path(path)
    partial = path.with_name(f".partial-{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(partial)
    try:
        yield partial
        if partial.is_dir():
            _remove(path)
        os.replace(partial, path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write to a full disk names no file
        raise
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def state_folder(stage: str, name: str, digest: str) -> Path:
    """Return where a stage keeps unfinished work, outside the outs that DVC removes before it.

    It stays until the next stage has read what came of it: DVC then has it, too. A stage that is
    killed, or whose DVC is, loses nothing whenever that happens.

    Args:
        stage: that works.
        name: at what.
        digest: 16 hexadecimal digits, of all that the work depends on: what changes has another
            place.
    """
    return Path(".resume", f"{stage}-{name}-{digest}")


def forget_states(stage: str, name: str) -> None:
    """Remove what a stage kept of its work at `name`, finished or not."""
    for state in Path(".resume").glob(state_folder(stage, name, "[0-9a-f]" * 16).name):
        shutil.rmtree(state)


def maker_of(path: str | Path) -> str:
    """Return the command that makes a file or a folder: `dvc repro encode@digits-siamese`.

    It names no stage for what none makes by itself.
    """
    match Path(path).parts:
        case (
            ("data", ("raw" | "arrays" | "tasks") as made, key, *_)
            | ("data", made, _, key, *_)
            | ("predictions" as made, _, key, *_)
            | ("metrics", _, key, made)
            | ("metrics", "seeds" as made, key)
        ) if made in _STAGES:
            return f"dvc repro {_STAGES[made]}@{key.partition('.')[0]}"
    return "dvc repro"


def missing(path: str | Path) -> UserError:
    """Return what is to be said of a file that is not there."""
    return UserError(f"{path}: no such file; run the stage that makes it: {maker_of(path)}")


def read_array(path: str | Path, *, dtype: str, dimensions: int) -> np.ndarray:
    """Return the array of a .npy file, memory-mapped read-only.

    Args:
        path: the file.
        dtype: the dtype that it must have.
        dimensions: the number of axes that it must have.

    Raises:
        UserError: when the file is missing, damaged, or holds another kind of array.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise missing(path) from None
    except (
        ValueError, EOFError, SyntaxError, tokenize.TokenError, OverflowError, TypeError
    ) as error:  # fmt: skip
        raise UserError(
            f"{path}: damaged .npy file ({error}); delete it and run {maker_of(path)}"
        ) from None
    if (array.dtype, array.ndim) != (dtype, dimensions):
        raise UserError(
            f"{path}: expected {dtype} with {dimensions} axes, found {array.dtype} with "
            f"{array.ndim}; delete it and run {maker_of(path)}"
        )
    return array


def read_splits(dataset: str) -> dict[str, np.ndarray]:
    """Return the class-sorted images of a dataset's splits, memory-mapped read-only.

    Returns:
        uint8 (classes, examples, height, width, channels) by name: `seen_train`, `seen_test`,
        `unseen`, and `seen_validation` where params.yaml has one.
    """
    there = {path.stem for path in folder("data/arrays", dataset)}
    names = {"seen_train", "seen_test", "unseen"} | (there & {"seen_validation"})
    return {
        name: read_array(Path("data/arrays", dataset, f"{name}.npy"), dtype="uint8", dimensions=5)
        for name in sorted(names)
    }


def labels_of(images: np.ndarray) -> np.ndarray:
    """Return int (classes * examples,): the class of each of class-sorted images."""
    return np.repeat(np.arange(images.shape[0]), images.shape[1])


def read_tasks(dataset: str) -> dict[str, np.ndarray]:
    """Return the frozen tasks of a dataset: int32 (tasks, 1 + ways) by the name of their set."""
    return {
        path.stem: read_array(path, dtype="int32", dimensions=2)
        for path in folder("data/tasks", dataset)
    }


def folder(*parts: str) -> list[Path]:
    """Return the .npy files of a folder, sorted by name.

    Raises:
        UserError: when there are none.
    """
    path = Path(*parts)
    found = sorted(path.glob("*.npy"))
    if not found:
        raise UserError(f"{path}: no arrays in it; run the stage that makes it: {maker_of(path)}")
    return found


@contextlib.contextmanager
def writing_array(
    path: str | Path, shape: tuple[int, ...], dtype: str
) -> Iterator[Callable[[np.ndarray], None]]:
    """Yield a function that appends blocks of rows to a new .npy file of the given shape.

    Blocks are written to the file as they come, so an array larger than memory can be written,
    and a full disk is an error (where a memory-mapped file would end the process by a signal).

    Raises:
        ValueError: when the blocks do not add up to `shape`.
    """
    written = 0
    with replacing(path) as partial, open(partial, "wb") as file:
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)

        def append(block: np.ndarray) -> None:
            nonlocal written
            written += block.size
            file.write(np.ascontiguousarray(block, dtype).data)

        yield append
        if written != math.prod(shape):
            raise ValueError(f"{path}: {written} values written. Received: shape={shape}")
        file.flush()


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write `array` as a .npy file, whole or not at all."""
    with writing_array(path, array.shape, array.dtype.str) as append:
        append(array)


def read_json(path: str | Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: when the file is missing or is no JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path) from None
    except ValueError as error:
        raise UserError(
            f"{path}: damaged JSON file ({error}); delete it and run {maker_of(path)}"
        ) from None


def read_classes(dataset: str) -> dict[str, list[str]]:
    """Return the names of the classes of a dataset: `seen` and `unseen` ones, in order.

    Raises:
        UserError: when the file is missing or holds something else.
    """
    path = Path("data/arrays", dataset, "classes.json")
    match read_json(path):
        case {"seen": list(seen), "unseen": list(unseen)} as names if all(
            isinstance(name, str) for name in seen + unseen
        ):
            return names
    raise UserError(
        f"{path}: expected names of seen and unseen classes; delete it and run {maker_of(path)}"
    )


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: Any) -> None:
    """Write `content` as indented JSON, keys in the order given, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, columns: Iterable[str], rows: Iterable[Iterable]) -> None:
    """Write rows below the names of their columns as CSV, whole or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())
