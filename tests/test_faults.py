"""What goes wrong around a pipeline: full disks, lost files, spoilt caches, no memory, bad servers.

A small project is run once; each test spoils a copy of it, and runs real processes there. A stage
that fails ends in one line and leaves what was there. What DVC is said to do was found by trial.
"""

import collections
import contextlib
import functools
import hashlib
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from interruptions import DATASET, EXPERIMENT, dvc, environment, outputs, write_pipeline
from test_download import (
    ARCHIVE,
    FOLDER,
    NAME,
    PAGE,
    Handler,
    fetch,
    fetched,
    keep_partial,
    partials,
    ranged,
    send,
    status,
    whole,
)

from stages import download
from stages.command import UserError

STAGES = ("download", "prepare", "tasks", "train", "encode", "oneshot", "retrieval", "report")
OF_AN_EXPERIMENT = ("train", "encode", "oneshot", "retrieval")
ENCODE, REPORT = f"encode@{EXPERIMENT}", f"report@{DATASET}"
TRAINED_ON = f"data/arrays/{DATASET}/seen_train.npy"
WEIGHTS = f"data/models/{DATASET}/{EXPERIMENT}.weights.h5"
CODES = f"data/codes/{DATASET}/{EXPERIMENT}"
TASKS = f"data/tasks/{DATASET}"
LONGEST = 300  # seconds until a process that hangs is given up


def awaiting(change: str) -> pytest.MarkDecorator:
    """Mark what fails until something under stages/ is changed."""
    return pytest.mark.xfail(strict=True, reason=f"awaits a change: {change}")


# The project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Return a project in which everything was run once."""
    folder = tmp_path_factory.mktemp("faults") / "project"
    folder.mkdir()
    write_pipeline(folder, epochs=3, steps=20)
    dvc(folder, "config", "cache.type", "reflink,hardlink,copy")  # as in .dvc/config
    done = repro(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def copied(project: Path, name: str) -> Path:
    """Return a copy of the project, to be spoilt."""
    folder = project.parent / "".join(each if each.isalnum() else "-" for each in name)
    return Path(shutil.copytree(project, folder, symlinks=True))


def around(folder: Path) -> dict[str, str]:
    """Return variables with which nothing outside a project plays a part."""
    return {
        "NEURAL_CODES_MIRROR": str(folder / "mirror"),
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
        "OMP_NUM_THREADS": "1",  # threads of the map of a page that wait for each other spin
    }


def repro(folder: Path, target: str = REPORT) -> subprocess.CompletedProcess:
    """Run `dvc repro`."""
    return dvc(folder, "repro", target, **around(folder))


def ran(folder: Path, *words: str) -> subprocess.CompletedProcess:
    """Run a command in a project to its end."""
    return subprocess.run(
        words, cwd=folder, env=environment(folder, **around(folder)),
        capture_output=True, text=True, timeout=LONGEST,
    )  # fmt: skip


def command(name: str) -> list[str]:
    """Return the words that run a stage."""
    what = EXPERIMENT if name in OF_AN_EXPERIMENT else DATASET
    return [sys.executable, "-m", f"stages.{name}", what]


def outs(folder: Path, name: str) -> list[Path]:
    """Return the files that a stage made, by dvc.lock."""
    locked = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    [found] = [locked[each]["outs"] for each in locked if each.startswith(f"{name}@")]
    tops = [folder / out["path"] for out in found]
    below = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top])]
    return [path for path in below if path.is_file()]


def make_other(path: Path) -> None:
    """Put other bytes into a file's place, by which it is seen whether they stay."""
    path.unlink()
    path.write_bytes(b"what was there before")


def made(folder: Path) -> dict[str, str]:
    """Return the digest of each file that any stage made; of a page, without the minute."""
    found = [path for top in ("data", "metrics", "reports") for path in (folder / top).rglob("*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            re.sub(rb"<dt>made</dt><dd>[^<]*", b"", path.read_bytes())
        ).hexdigest()
        for path in found
        if path.is_file()
    }


def differing(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Return the files that are not the same, but for those that tell of seconds."""
    return [
        name
        for name in sorted(found | expected)
        if found.get(name) != expected.get(name) and not name.endswith("run.json")
    ]


def half_written(folder: Path) -> list[Path]:
    return list(folder.rglob("*partial*"))


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    """Check that a stage ended as what a person can mend does."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 1), (done.returncode, done.stderr)
    assert lines[0].startswith("stages.")
    for word in words:
        assert word in lines[0]


@contextlib.contextmanager
def two_at_a_time(function, cases):
    """Yield by case what a function of it will have returned."""
    with ThreadPoolExecutor(2) as pool:
        yield {case: pool.submit(function, case) for case in cases}


# A full disk, and one that is read-only

LIMITED = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")  # no file has more than 512 bytes
UNSHARED = ("unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--mount")
FULL = """
mount -t tmpfs -o "size=$1" none data && cp -a kept/. data || exit 99
shift
"$@" 2>said; echo $? >code
cp -a data full
mount -o remount,size=64m data && "$@" && cp -a data roomy
"""
READ_ONLY = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"'

Full = collections.namedtuple("Full", ["before", "failed", "after", "left", "again", "end"])


@functools.cache
def may_mount() -> bool:
    """Return whether a mount is allowed, which ends with the process that makes it."""
    words = [*UNSHARED, "mount", "-t", "tmpfs", "none", "/tmp"]
    try:
        return subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def full(project):
    """Run each stage where no file can have more than 512 bytes, then without the limit."""

    def on_a_full_disk(name: str) -> Full:
        folder = copied(project, f"full-{name}")
        for path in outs(folder, name):
            make_other(path)
        before = made(folder)
        failed = ran(folder, *LIMITED, *command(name))
        after, left = made(folder), half_written(folder)
        again = ran(folder, *command(name))
        return Full(before, failed, after, left, again, made(folder))

    with two_at_a_time(on_a_full_disk, STAGES) as coming:
        yield coming


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[awaiting("HDF5 crashes")] if each == "train" else [])
        for each in STAGES
    ],
)
def test_a_full_disk_is_one_line(full, name):
    """By a limit of the size of a file, which ends a write as a full disk does.

    Training writes by HDF5, which tells of it in its own lines as well, and ends Python by SIGSEGV.
    """
    assert_one_line(full[name].result().failed, "File too large")


@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_changes_nothing_and_with_room_the_stage_works(project, full, name):
    found = full[name].result()
    assert found.failed.returncode != 0
    assert found.after == found.before
    assert found.left == []
    assert found.again.returncode == 0, found.again.stderr
    assert differing(found.end, made(project)) == []


@pytest.mark.parametrize("name", ["prepare", "encode"])
def test_a_full_file_system_is_one_line_and_changes_nothing(project, name):
    if not may_mount():
        pytest.skip("mounts are refused here")
    folder = copied(project, f"tmpfs-{name}")
    for path in outs(folder, name):
        if "data" in path.parts:
            make_other(path)
    shutil.copytree(folder / "data", folder / "kept")
    pages = sum(-(-path.stat().st_size // 4096) for path in (folder / "kept").rglob("*.*"))
    room = f"{4 * (pages + 20)}k"
    done = ran(folder, *UNSHARED, "sh", "-c", FULL, "sh", room, *command(name))
    assert done.returncode == 0, done.stderr
    said, code = ((folder / each).read_text(encoding="utf-8") for each in ("said", "code"))
    failed = subprocess.CompletedProcess(command(name), int(code), stderr=said)
    assert_one_line(failed, "No space left on device")

    def of(top):
        return {path.relative_to(top): path.read_bytes() for path in top.rglob("*.*")}

    assert of(folder / "full") == of(folder / "kept")
    assert of(folder / "roomy") == of(project / "data")
    assert not os.path.ismount(folder / "data")


@contextlib.contextmanager
def read_only(folder: Path):
    """Yield the words before a command for which a folder is read-only."""
    if may_mount():
        yield (*UNSHARED, "sh", "-c", READ_ONLY, "sh")
        return
    if os.geteuid() == 0:
        pytest.skip("mounts are refused here, and root may write everywhere else")
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    try:
        yield ()
    finally:
        for path in folders:
            path.chmod(0o755)


@pytest.mark.parametrize("name", ["download", "prepare", "tasks", "oneshot"])
def test_a_read_only_folder_is_one_line_and_changes_nothing(project, name):
    folder = copied(project, f"read-only-{name}")
    (folder / "metrics" / DATASET / EXPERIMENT / "oneshot.json").unlink()
    before = made(folder)
    with read_only(folder) as words:
        failed = ran(folder, *words, *command(name))
    assert_one_line(failed, *(["Read-only file system"] if words else ["Permission denied"]))
    assert made(folder) == before
    assert half_written(folder) == []


# What a stage reads is not there

MISSING = [
    ("prepare", "data/raw"),
    ("tasks", "data/arrays"),
    ("tasks", f"data/arrays/{DATASET}/classes.json"),
    ("tasks", f"data/arrays/{DATASET}/unseen.npy"),
    ("train", "data/arrays"),
    ("encode", "data/arrays"),
    ("encode", "data/models"),
    ("oneshot", "data/arrays"),
    ("oneshot", "data/tasks"),
    ("oneshot", "data/codes"),
    ("oneshot", f"{CODES}/trained/neural_codes.seen.npy"),
    ("oneshot", f"{CODES}/head.npy"),
    ("retrieval", "data/arrays"),
    ("retrieval", "data/codes"),
    ("report", "data/arrays"),
    ("report", "data/tasks"),
]


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


@pytest.fixture(scope="module")
def missing(project):
    """Run each stage without one of its inputs."""

    def without(case: tuple[str, str]):
        name, path = case
        folder = copied(project, f"missing-{name}-{path}")
        remove(folder / path)
        before = made(folder)
        return ran(folder, *command(name)), before, made(folder)

    with two_at_a_time(without, MISSING) as coming:
        yield coming


@pytest.mark.parametrize(
    ("name", "path"),
    [
        pytest.param(*case, marks=[awaiting("codes.py")] if "head" in case[1] else [])
        for case in MISSING
    ],
)
def test_a_missing_input_is_one_line_that_says_what_to_do(missing, name, path):
    """Without head.npy, `oneshot` takes the objective for one without a learned distance."""
    done, before, after = missing[name, path].result()
    assert_one_line(done, path, "dvc repro")
    assert after == before


def test_a_page_says_which_codes_are_missing(project):
    """A page is of what there is: it is written without codes, too."""
    folder = copied(project, "page")
    remove(folder / "data/codes")
    done = ran(folder, *command("report"))
    assert (done.returncode, done.stderr) == (0, "")
    page = (folder / f"reports/{DATASET}.html").read_text(encoding="utf-8")
    assert f"{CODES}/trained/neural_codes.npy: no such file" in page
    assert "dvc repro" in page


# What a stage reads changes meanwhile


def vanish(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    """Put a file with other content in its place, as an editor or `dvc checkout` does."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[:128] + bytes(path.stat().st_size - 128))
    os.replace(other, path)


def cut_short(path: Path) -> None:
    os.truncate(path, 200)


def wait_for(what, process: subprocess.Popen) -> None:
    """Wait until something holds, while a process runs."""
    until = time.monotonic() + LONGEST
    while not what():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < until, "it hangs"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def disturbed(project):
    """Train, and do something to the images after the first epoch."""

    def training(change):
        folder = copied(project, f"images-{change.__name__}")
        for path in outs(folder, "train"):
            make_other(path)
        before, log = made(folder), folder / "log"
        with (
            open(log, "w", encoding="utf-8") as out,
            subprocess.Popen(
                command("train"), cwd=folder, env=environment(folder, **around(folder)),
                stdout=out, stderr=subprocess.PIPE, text=True,
            ) as process,
        ):  # fmt: skip
            wait_for(lambda: "epoch 1/" in log.read_text(encoding="utf-8"), process)
            change(folder / TRAINED_ON)
            assert "epoch 3/" not in log.read_text(encoding="utf-8"), "it came too late"
            process.wait(LONGEST)
        return folder, process.returncode, before

    with two_at_a_time(training, [cut_short, vanish, replace]) as coming:
        yield coming


@pytest.mark.parametrize("change", [vanish, replace], ids=lambda change: change.__name__)
def test_images_that_go_away_in_training_are_still_trained_on(project, disturbed, change):
    """They are memory-mapped: a file without a name lives as long as it is open."""
    folder, code, _ = disturbed[change].result()
    assert code == 0
    assert made(folder)[WEIGHTS] == made(project)[WEIGHTS]


def test_images_that_are_cut_short_in_training_end_it_and_it_goes_on_later(project, disturbed):
    """By SIGBUS, for which Python has no exception: there is no line, but nothing is lost."""
    folder, code, before = disturbed[cut_short].result()
    assert code == -signal.SIGBUS
    assert differing(made(folder), before) == [TRAINED_ON]
    assert half_written(folder) == []
    shutil.copy(project / TRAINED_ON, folder / TRAINED_ON)
    done = ran(folder, *command("train"))
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    assert "epoch 1/" not in done.stdout
    assert differing(made(folder), made(project)) == []


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """Stand in an empty folder, with downloads that do not wait."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for pause in ("PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(download, pause, 0)
    return tmp_path


def change_when_copied(change, path: Path, monkeypatch) -> None:
    """Do something to a file when the first part of it was copied."""

    class Bar(download.tqdm):
        def update(self, count):
            if changes:
                changes.pop()(path)
            super().update(count)

    changes = [change]
    monkeypatch.setattr(download, "tqdm", Bar)


@pytest.mark.parametrize("change", [vanish, replace], ids=lambda change: change.__name__)
def test_an_archive_that_goes_away_while_it_is_copied_is_copied_whole(apart, monkeypatch, change):
    archive = apart / NAME
    archive.write_bytes(ARCHIVE)
    change_when_copied(change, archive, monkeypatch)
    fetch(mirror=str(apart))
    assert fetched() == {NAME: ARCHIVE}


@pytest.mark.parametrize("change", [cut_short, overwrite], ids=lambda change: change.__name__)
def test_an_archive_that_changes_while_it_is_copied_is_refused(apart, monkeypatch, change):
    archive = apart / NAME
    archive.write_bytes(ARCHIVE)
    change_when_copied(change, archive, monkeypatch)
    with pytest.raises(UserError, match="wrong content"):
        fetch(mirror=str(apart))
    assert partials() == []
    assert not FOLDER.exists()


# DVC, twice


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Start DVC."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder, env=environment(folder, **around(folder)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def alter(folder: Path) -> None:
    """Change a module, and nothing that comes of it."""
    with open(folder / "stages/encode.py", "a", encoding="utf-8") as file:
        file.write("# another line\n")


def test_two_runs_at_once(project):
    """DVC lets one work and ends the other, with exit code 255: something `is busy`."""
    folder = copied(project, "twice")
    alter(folder)
    both = [start(folder, "repro", REPORT) for _ in range(2)]
    said = [process.communicate(timeout=LONGEST)[0] for process in both]
    assert sorted(process.returncode for process in both) in ([0, 255], [0, 0]), said
    for process, words in zip(both, said, strict=True):
        assert process.returncode == 0 or "is busy" in words or "Unable to acquire lock" in words
    done = repro(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert outputs(folder) == outputs(project)
    assert half_written(folder) == []


WAIT = """    import time
    Path("waiting").touch()
    while Path("waiting").exists():
        time.sleep(0.01)
"""
OTHER = f"""    path = Path("{CODES}/head.npy")
    np.save(path, 2 * np.load(path))
"""


def wait_in_encode(folder: Path, *, before: str = "", after: str = "") -> subprocess.Popen:
    """Start `dvc repro` with a stage that waits, and return when it does."""
    module = folder / "stages/encode.py"
    text = module.read_text(encoding="utf-8")
    begin, run, end = text.rpartition("    run(main)\n")
    assert (run, end) == ("    run(main)\n", "")
    module.write_text(begin + before + run + after, encoding="utf-8")
    process = start(folder, "repro", ENCODE)
    wait_for((folder / "waiting").exists, process)
    return process


def go_on(folder: Path, process: subprocess.Popen) -> None:
    """Let the stage that waits go on, and DVC end."""
    (folder / "waiting").unlink()
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def checked_out(project):
    """Run `dvc checkout` while `encode` runs, before and after it wrote the codes."""

    def while_encode_runs(moment: str):
        folder = copied(project, f"checkout-{moment}")
        places = {"before": {"before": WAIT}, "after": {"after": OTHER + WAIT}}
        process = wait_in_encode(folder, **places[moment])
        found = [made(folder)]
        done = dvc(folder, "checkout", ENCODE, **around(folder))
        found.append(made(folder))
        go_on(folder, process)
        found.append(made(folder))
        shutil.copy(project / "stages/encode.py", folder / "stages")
        again = repro(folder)
        assert again.returncode == 0, again.stdout + again.stderr
        assert half_written(folder) == []
        return done, found, outputs(folder)

    with two_at_a_time(while_encode_runs, ["before", "after"]) as coming:
        yield coming


def test_a_checkout_before_a_stage_writes(project, checked_out):
    """It waits for nothing, and brings the old codes back; the stage replaces them."""
    done, (empty, old, new), end = checked_out["before"].result()
    assert done.returncode == 0, done.stderr
    figures = f"metrics/{DATASET}/{EXPERIMENT}/network.json"  # which DVC does not cache
    assert not [name for name in empty if name.startswith(CODES)]  # DVC removed them
    assert differing(old, made(project)) == [figures]
    assert differing(new, made(project)) == []
    assert end == outputs(project)


def test_a_checkout_after_a_stage_wrote(project, checked_out):
    """It refuses to remove what DVC has not saved: the new codes stay, and become DVC's."""
    done, (new, still, saved), end = checked_out["after"].result()
    assert done.returncode == 255
    assert "unsaved files" in done.stderr
    assert f"{CODES}/head.npy" in done.stderr
    assert differing(new, made(project)) == [f"{CODES}/head.npy"]
    assert new == still == saved
    assert end == outputs(project)


# DVC's cache


def cached(folder: Path, path: str) -> Path:
    """Return the object in the cache of an output."""
    locked = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    [md5] = [
        out["md5"] for each in locked.values() for out in each["outs"] if out["path"] == path
    ]  # fmt: skip
    return object_of(folder, md5)


def object_of(folder: Path, md5: str) -> Path:
    return folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def cached_file(folder: Path, path: str, name: str) -> Path:
    """Return the object in the cache of a file of an output that is a folder."""
    listed = json.loads(cached(folder, path).read_text(encoding="utf-8"))
    [md5] = [each["md5"] for each in listed if each["relpath"] == name]
    return object_of(folder, md5)


def damage(path: Path, *, mode: int) -> None:
    """Change bytes of a file in place."""
    path.chmod(0o644)
    with open(path, "r+b") as file:
        file.seek(200)
        found = file.read(8)
        file.seek(200)
        file.write(bytes(255 - byte for byte in found))
    path.chmod(mode)


def lose_the_list_of_a_folder(folder):
    cached(folder, CODES).unlink()
    remove(folder / CODES)
    return "Running stage 'encode@"


def lose_a_file_of_a_folder(folder):
    cached_file(folder, TASKS, "4-way.npy").unlink()
    remove(folder / TASKS)
    return "Running stage 'tasks@"


def lose_the_cache(folder):
    remove(folder / ".dvc/cache")
    remove(folder / CODES)
    return "Running stage 'train@"


def damage_an_object_that_can_be_written(folder):
    damage(cached_file(folder, TASKS, "4-way.npy"), mode=0o644)
    remove(folder / TASKS)
    return "Running stage 'tasks@"


def damage_the_workspace(folder):
    damage(folder / CODES / "trained/neural_codes.npy", mode=0o644)
    return f"Stage '{ENCODE}' is cached - skipping run, checking out outputs"


SPOILT = [
    lose_the_cache,
    lose_the_list_of_a_folder,
    lose_a_file_of_a_folder,
    damage_an_object_that_can_be_written,
    damage_the_workspace,
]


@pytest.fixture(scope="module")
def spoilt(project):
    """Spoil the cache or the workspace, and run again."""

    def again(spoil):
        folder = copied(project, spoil.__name__)
        expected = spoil(folder)
        target = ENCODE if spoil is lose_the_cache else REPORT
        return expected, repro(folder, target), outputs(folder)

    with two_at_a_time(again, SPOILT) as coming:
        yield coming


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_dvc_notices_it_makes_again(project, spoilt, spoil):
    """Lost objects; changed ones that can be written, which it digests again; a changed workspace.

    Without its cache DVC runs every stage again, also one whose outputs are in the workspace.
    """
    expected, done, found = spoilt[spoil].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout
    assert found == outputs(project)


def assert_restored_when_dvc_digests_again(project: Path, folder: Path) -> None:
    """Run what makes DVC look at its objects: `chmod -R u+w .dvc/cache`, then `dvc repro`."""
    subprocess.run(["chmod", "-R", "u+w", ".dvc/cache"], cwd=folder, check=True)
    done = repro(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Running stage 'tasks@" in done.stdout
    assert outputs(folder) == outputs(project)


def test_a_damaged_object_that_is_read_only_is_trusted_until_it_can_be_written(project):
    """DVC takes a read-only object for whole, and puts wrong bytes into the workspace.

    Neither `dvc repro` nor `dvc status` notices. Once all objects can be written it digests them
    again, drops the wrong one, and the stage runs.
    """
    folder = copied(project, "trusted")
    damage(cached_file(folder, TASKS, "4-way.npy"), mode=0o444)
    remove(folder / TASKS)
    for expected in ("is cached - skipping run, checking out outputs", "are up to date"):
        done = repro(folder)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
        assert differing(outputs(folder), outputs(project)) == [f"{TASKS}/4-way.npy"]
    assert_restored_when_dvc_digests_again(project, folder)


def test_a_checkout_hands_out_a_damaged_object_and_the_next_run_mends_it(project):
    """`dvc checkout` digests nothing, `dvc repro` digests what can be written."""
    folder = copied(project, "handed-out")
    damage(cached_file(folder, TASKS, "4-way.npy"), mode=0o644)
    remove(folder / TASKS)
    done = dvc(folder, "checkout", f"tasks@{DATASET}", **around(folder))
    assert done.returncode == 0, done.stderr
    assert differing(outputs(folder), outputs(project)) == [f"{TASKS}/4-way.npy"]
    assert_restored_when_dvc_digests_again(project, folder)


# No memory, and no number

FAULTY = """
import runpy
from stages.backend import keras

step, number = keras.Model.train_on_batch, 0

def faulty(model, *given, **named):
    global number
    number += 1
    if number == {number}:
        import tensorflow
        {fault}
    return step(model, *given, **named)

keras.Model.train_on_batch = faulty
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""
OUT_OF_MEMORY = "tensorflow.function(tensorflow.zeros)(tensorflow.constant([2**45]))"  # 128 TiB
NO_NUMBER = "model.set_weights([weights * float('nan') for weights in model.get_weights()])"


@pytest.fixture(scope="module")
def broken(project):
    """Train: memory is exhausted in epoch 2; then weights are no numbers in epoch 3; then well."""
    folder = copied(project, "broken")
    for path in outs(folder, "train"):
        make_other(path)
    before, ends = made(folder), []
    for fault in (OUT_OF_MEMORY, NO_NUMBER):  # in the 30th step of a run: epochs have 20
        (folder / "faulty.py").write_text(FAULTY.format(number=30, fault=fault), encoding="utf-8")
        ends.append(ran(folder, sys.executable, "faulty.py", EXPERIMENT))
        assert made(folder) == before
        assert half_written(folder) == []
    return folder, *ends, ran(folder, *command("train"))


@awaiting("command.py")
def test_exhausted_memory_in_training_is_one_line(broken):
    """TensorFlow's own exception, for a tensor that no machine holds: what is full comes last."""
    _, exhausted, _, _ = broken
    assert_one_line(exhausted, "out of memory", "OOM when allocating tensor with shape")


def test_a_loss_that_is_no_number_is_one_line(broken):
    _, _, no_number, _ = broken
    assert_one_line(no_number, "the loss is nan in epoch 3")


def test_a_training_that_failed_twice_goes_on_where_it_was(project, broken):
    folder, exhausted, no_number, well = broken
    assert exhausted.returncode == 1
    assert "epoch 1/" in exhausted.stdout
    assert "epoch 2/" not in exhausted.stdout
    assert no_number.stdout.startswith("going on after epoch 1\nepoch 2/")
    assert "epoch 3/" not in no_number.stdout
    assert well.stdout.startswith("going on after epoch 2\nepoch 3/")
    assert well.returncode == 0, well.stderr
    assert differing(made(folder), made(project)) == []


# Servers that stall

KEPT = 2 * download.CHUNK  # of what came: what is no whole chunk is lost


@pytest.fixture
def server(apart, monkeypatch):
    """A server on 127.0.0.1, as that of test_download, some of whose answers stop and stay open."""
    del apart
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.3))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.answers, server.asked, server.sent = {}, [], []
        server.url = f"http://127.0.0.1:{server.server_port}/{NAME}"
        server.enough = threading.Event()
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.enough.set()
        server.shutdown()
        thread.join()


def stalled(content: bytes, stop: int):
    """Answer with the first bytes, and then with nothing."""

    def answer(handler):
        send(handler, 200, content[:stop], length=len(content))
        handler.wfile.flush()
        handler.server.enough.wait(30)

    return answer


def silent(handler) -> None:
    """Accept, and say nothing."""
    handler.server.enough.wait(30)
    handler.close_connection = True


def test_a_server_that_stalls_is_asked_for_the_rest(server):
    server.answers[f"/{NAME}"] = [stalled(ARCHIVE, KEPT + 10_000), ranged(ARCHIVE)]
    fetch(server.url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == [(f"/{NAME}", None), (f"/{NAME}", f"bytes={KEPT}-")]


def test_a_server_that_stalls_again_and_again_is_given_up_and_what_came_is_kept(server):
    server.answers[f"/{NAME}"] = [stalled(ARCHIVE, KEPT + 10_000), silent]
    with pytest.raises(UserError, match="Read timed out"):
        fetch(server.url)
    assert [path.stat().st_size for path in partials()] == [KEPT]
    assert not FOLDER.exists()
    server.answers[f"/{NAME}"] = [ranged(ARCHIVE)]
    fetch(server.url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked[-1] == (f"/{NAME}", f"bytes={KEPT}-")


def test_a_server_that_says_nothing_is_passed_over(server):
    server.answers["/silent"] = [silent]
    server.answers[f"/{NAME}"] = [whole(ARCHIVE)]
    fetch(server.url.replace(NAME, "silent"), server.url)
    assert fetched() == {NAME: ARCHIVE}


def test_a_page_instead_of_the_rest_is_refused(server):
    """A login page comes with HTTP 200, whatever was asked for: what came before is given up."""
    keep_partial(server.url, ARCHIVE[:KEPT])
    server.answers[f"/{NAME}"] = [whole(PAGE, Content_Type="text/html")]
    with pytest.raises(UserError, match="wrong content: 26 bytes, text/html"):
        fetch(server.url)
    assert not FOLDER.exists()
    server.answers[f"/{NAME}"] = [status(503), ranged(ARCHIVE)]
    fetch(server.url)
    assert fetched() == {NAME: ARCHIVE}
