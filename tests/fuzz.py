"""Fuzz the readers of archives: `python tests/fuzz.py 600` for ten minutes, with atheris.

The corpus is generated: the members of small archives in the official layouts. What the fuzzer
makes of one is packed again with right checksums, so that it reaches what is behind them, or is
given as an archive of its own. An end that is neither success nor one line is a find: atheris
stops, and leaves the input as crash-*.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports():
    import gzip
    import zipfile

    import archives

    from stages.command import UserError
    from stages.readers import cifar100, omniglot, tinyimagenet

TRAIN = "cifar-100-python/train"
CIFAR = {"classes": 3, "train": 2, "test": 1}
OMNIGLOT = {"alphabets": 1, "characters": 2, "drawings": 2, "runs": 1, "ways": 2}


def members_of(path: Path) -> dict[str, bytes]:
    """Return the files of a zip archive by path."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def targets(folder: Path) -> list[tuple]:
    """Return functions that read some bytes as one thing, each with bytes that are it."""
    pickles = archives.cifar100_members(
        archives.cifar100_contents(archives.cifar100_parts(**CIFAR))
    )
    _, photographs = archives.tinyimagenet_members(classes=2, examples=2)
    photograph = next(name for name in photographs if name.endswith("_1.JPEG"))
    archives.write_omniglot(folder, **OMNIGLOT)
    archives.write_cifar100(folder, **CIFAR)
    archives.write_tinyimagenet(folder, classes=2, examples=2)
    tar, tiny = folder / archives.TAR, folder / archives.TINY
    drawings, runs = (folder / name for name in archives.ZIPS[1:])
    evaluation, trials = members_of(drawings), members_of(runs)
    drawing, labels = next(iter(evaluation)), "run01/class_labels.txt"

    def of_pickle(data):
        archives.write_tar(tar, pickles | {TRAIN: data})
        cifar100.read(folder)

    def of_tar(data):
        tar.write_bytes(archives.gzipped(data))
        cifar100.read(folder)

    def of_jpeg(data):
        archives.write_zip(tiny, photographs | {photograph: data})
        tinyimagenet.read(folder)

    def of_zip(data):
        tiny.write_bytes(data)
        tinyimagenet.read(folder)

    def of_png(data):
        archives.write_zip(runs, trials)
        archives.write_zip(drawings, evaluation | {drawing: data})
        omniglot.read(folder)

    def of_labels(data):
        archives.write_zip(drawings, evaluation)
        archives.write_zip(runs, trials | {labels: data})
        omniglot.read(folder)

    return [
        (of_pickle, pickles[TRAIN]),
        (of_tar, gzip.decompress(tar.read_bytes())),
        (of_jpeg, photographs[photograph]),
        (of_zip, tiny.read_bytes()),
        (of_png, evaluation[drawing]),
        (of_labels, trials[labels]),
    ]


def main(seconds: int) -> None:
    """Fuzz for so many seconds; atheris ends the process, and leaves what it found beside it."""
    folder = Path(tempfile.mkdtemp())
    raw, corpus = folder / "raw", folder / "corpus"
    corpus.mkdir()
    made = targets(raw)
    for number, (_, whole) in enumerate(made):
        (corpus / str(number)).write_bytes(bytes([number]) + whole)

    def one(data: bytes) -> None:
        read, _ = made[data[0] % len(made)] if data else made[0]
        with contextlib.suppress(UserError, OSError, MemoryError):  # which end a stage in one line
            read(data[1:])

    # The fuzzer itself grows by 7 KB a run, whatever it reads: so many stay below the limit.
    options = [
        f"-max_total_time={seconds}", "-runs=200000", "-timeout=10", "-rss_limit_mb=2048",
        "-max_len=60000", "-print_final_stats=1", f"-artifact_prefix={folder}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], str(corpus), *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]))
