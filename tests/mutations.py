"""Archives damaged, repacked wrongly or made by an enemy: each is refused, or read as it was.

`python tests/mutations.py 300 1` prepares 300 of them, drawn with seed 1, under watch, and prints
what became of them as JSON; exit code 1 when one of them did what it must not.

Each is judged by the stage `prepare`. It is to end within `SECONDS` and `MEBIBYTES`, as a success
with the very arrays of the whole archive or as one line, to run nothing that an archive holds,
and to write nowhere but under data/.
"""

import collections
import dataclasses
import io
import json
import os
import random
import resource
import signal
import stat
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import archives
import numpy as np

from stages import files, prepare
from stages.command import UserError

SECONDS = 10  # of one archive; a whole one takes a hundredth of it
MEBIBYTES = 1024  # that may come on top of what the process holds before
DATASETS = {
    "cifar100": (archives.TAR,),
    "tinyimagenet": (archives.TINY,),
    "omniglot": archives.ZIPS,
}
HOSTILE = (
    b"cos\nsystem\n(U\x09touch ranR.",
    b"cbuiltins\neval\n(U\x11open('ran','w+b')tR.",
    b"cnumpy\nload\n(U\x03rantR.",
    b"(U\x09touch ranios\nsystem\n.",
    b"}r\xff\xff\xff\x7f.",
    b"cnumpy\nndarray\n(I1000000000000\ntR.",
    b"](" + b"(" * 5000 + b"t" * 5000 + b"e.",
)

# Bytes as they lie on the disk


def truncated(rng: random.Random, content: bytes) -> bytes:
    """Cut the end off."""
    return content[: rng.randrange(len(content))]


def flipped(rng: random.Random, content: bytes) -> bytes:
    """Flip a few bits."""
    changed = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 16])):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwritten(rng: random.Random, content: bytes) -> bytes:
    """Lay noise, zeros or ones over a stretch."""
    start, length = rng.randrange(len(content)), rng.choice([4, 30, 500])
    fill = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    return content[:start] + fill + content[start + length :]


def moved(rng: random.Random, content: bytes) -> bytes:
    """Exchange two stretches."""
    a, b, c = sorted(rng.randrange(len(content)) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def inserted(rng: random.Random, content: bytes) -> bytes:
    """Put something else in between."""
    place = rng.randrange(len(content))
    return content[:place] + rng.choice([b"\0", b"<html>", rng.randbytes(100)]) + content[place:]


# Members of an archive that is whole by its own account


@dataclasses.dataclass
class Member:
    """A member: its name, its bytes, the size that its header states, and what kind it says."""

    name: str
    content: bytes
    stated: int | None = None
    kind: str = "file"


def swapped(rng: random.Random, members: list[Member]) -> None:
    """Exchange the contents of two members."""
    one, other = rng.sample(members, 2)
    one.content, other.content = other.content, one.content


def dropped(rng: random.Random, members: list[Member]) -> None:
    """Leave one out."""
    members.remove(rng.choice(members))


def doubled(rng: random.Random, members: list[Member]) -> None:
    """Name one twice, the second time with another content."""
    one, other = rng.sample(members, 2)
    members.append(Member(one.name, other.content))


def escaping(rng: random.Random, members: list[Member]) -> None:
    """Give a member a path that leaves the archive."""
    start = rng.choice(["../", "/tmp/", "..\\", "C:\\", "a/../../", "//host/share/"])
    one = rng.choice(members)
    members.insert(rng.randrange(len(members)), Member(start + one.name, one.content))


def linked(rng: random.Random, members: list[Member]) -> None:
    """Make a member a link or a device."""
    one = rng.choice(members)
    one.kind, one.content = rng.choice(["link", "hard link", "device", "folder"]), b"/etc/passwd"


def misstated(rng: random.Random, members: list[Member]) -> None:
    """State an absurd size."""
    rng.choice(members).stated = rng.choice([2**31 - 1, 2**32 - 2, 2**33, 7, 0])


def bomb(rng: random.Random, members: list[Member]) -> None:
    """Pack much into little."""
    rng.choice(members).content = bytes(rng.choice([3, 60]) * 2**20)


def hostile(rng: random.Random, members: list[Member]) -> None:
    """Put a pickle that is to run something, or to take all memory, in a member's place."""
    rng.choice(members).content = b"\x80\x02" + rng.choice(HOSTILE)


def damaged_within(rng: random.Random, members: list[Member]) -> None:
    """Damage a member whose checksum is right nevertheless."""
    one = rng.choice([member for member in members if member.content])
    one.content = rng.choice([truncated, flipped, flipped, overwritten, moved])(rng, one.content)


OF_BYTES = (truncated, flipped, overwritten, moved, inserted)
OF_MEMBERS = (
    swapped, dropped, doubled, escaping, linked, misstated, bomb, hostile, damaged_within,
)  # fmt: skip


def members_of(path: Path) -> list[Member]:
    """Return the members of a whole archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return [Member(name, archive.read(name)) for name in archive.namelist()]
    with tarfile.open(path) as archive:
        return [Member(each.name, archive.extractfile(each).read()) for each in archive]


def packed(members: list[Member], suffix: str) -> bytes:
    """Return an archive of the members, with what they state and not what is."""
    return packed_zip(members) if suffix == ".zip" else packed_tar(members)


def packed_zip(members: list[Member]) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for member in members:
            info = zipfile.ZipInfo(member.name)
            info.compress_type = zipfile.ZIP_DEFLATED
            if member.kind == "link":
                info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, member.content)
            if member.stated is not None:
                info.file_size = min(member.stated, 2**32 - 2)
    return file.getvalue()


def packed_tar(members: list[Member]) -> bytes:
    """Return a compressed tar archive."""
    kinds = {
        "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE, "folder": tarfile.DIRTYPE,
    }  # fmt: skip
    made = {}
    for place, member in enumerate(members):
        info = tarfile.TarInfo(member.name)
        info.type = kinds[member.kind]
        if member.kind != "file":
            info.linkname = member.content.decode()
        info.size = len(member.content) if member.stated is None else member.stated
        made[place] = info.tobuf(tarfile.GNU_FORMAT) + member.content
        made[place] += bytes(-len(member.content) % 512)
    return archives.gzipped(b"".join(made.values()) + bytes(1024))


def mutated(rng: random.Random, path: Path) -> tuple[str, bytes]:
    """Return what was done to an archive, and the archive that came of it."""
    change: Callable = rng.choice(OF_BYTES + OF_MEMBERS)
    if change in OF_BYTES:
        return change.__name__, change(rng, path.read_bytes())
    members = members_of(path)
    change(rng, members)
    return change.__name__, packed(members, path.suffix)


# Under watch


def forbidden(event: str, arguments: tuple) -> bool:
    """Return whether an event of Python's audit is none that reading an archive may cause."""
    if event == "open":
        path, mode, flags = arguments
        writes = (mode and set(mode) & set("wax+")) or flags & (os.O_WRONLY | os.O_RDWR)
        inside = isinstance(path, str | bytes) and os.path.realpath(os.fsdecode(path)).startswith(
            os.path.realpath("data")
        )
        return bool(writes) and not (isinstance(path, int) or inside)
    return event.startswith(("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess",
                             "socket", "ctypes", "os.link", "os.symlink"))  # fmt: skip


def watch() -> list[str]:
    """Return a list to which every forbidden event is added from now on."""
    seen: list[str] = []

    def hook(event: str, arguments: tuple) -> None:
        if forbidden(event, arguments):
            seen.append(f"{event} {arguments!r}"[:200])

    sys.addaudithook(hook)
    return seen


def tree(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every file below a folder with its bytes."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


def too_long(*_: object) -> None:
    """End what takes too long."""
    raise AssertionError(f"longer than {SECONDS} seconds")


def judge(dataset: str, arrays: dict[str, np.ndarray]) -> str:
    """Prepare a dataset and return "refused" or "as it was".

    Raises:
        AssertionError: for any other end.
    """
    before = dict(tree(Path("data/arrays")))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        prepare.main(dataset)
    except (UserError, OSError, MemoryError) as error:  # what ends a stage in one line
        assert len(str(error)) < 1000, f"a line of {len(str(error))} characters"
        assert dict(tree(Path("data/arrays"))) == before, "refused, but written"
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    found = files.read_splits(dataset)
    assert found.keys() == arrays.keys()
    for name in arrays:
        assert np.array_equal(found[name], arrays[name]), f"{name}: read as other images"
    return "as it was"


def main(count: int, seed: int) -> dict:
    """Try `count` archives in the current folder, an empty one, and return what became of them."""
    archives.write_project(Path())
    for dataset, names in DATASETS.items():
        for name in names:
            source, target = Path("mirror", name), Path("data/raw", dataset, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        prepare.main(dataset)
    arrays = {
        dataset: {name: each.copy() for name, each in files.read_splits(dataset).items()}
        for dataset in DATASETS
    }
    signal.signal(signal.SIGALRM, too_long)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = held + MEBIBYTES * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    rng, ends, wrong, slowest = random.Random(seed), collections.Counter(), [], 0.0
    seen = watch()
    for number in range(count):
        dataset = rng.choice(list(DATASETS))
        name = rng.choice(DATASETS[dataset])
        change, content = mutated(rng, Path("mirror", name))
        target = Path("data/raw", dataset, name)
        target.write_bytes(content)
        started = time.perf_counter()
        try:
            ends[f"{change}: {judge(dataset, arrays[dataset])}"] += 1
        except BaseException as error:
            wrong.append(f"{number}: {name} {change}: {type(error).__name__}: {error}"[:300])
        slowest = max(slowest, time.perf_counter() - started)
        target.write_bytes(Path("mirror", name).read_bytes())
    return {
        "tried": count,
        "ends": dict(sorted(ends.items())),
        "slowest, seconds": round(slowest, 2),
        "wrong": wrong,
        "done that is forbidden": seen,
    }


if __name__ == "__main__":
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with open(os.devnull, "w") as silent:
            out, sys.stdout = sys.stdout, silent
            found = main(int(sys.argv[1]), int(sys.argv[2]))
            sys.stdout = out
        assert not Path("ran").exists(), "an archive's code was run"
        os.chdir(here)
    print(json.dumps(found, indent=2))
    raise SystemExit(bool(found["wrong"] or found["done that is forbidden"]))
