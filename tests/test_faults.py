"""What goes wrong around a pipeline: full disks, lost files, spoilt caches, no memory, bad servers.

A small project is run once; what is tried spoils a copy of it, and runs real processes there. A
stage that fails ends in one line and leaves what was there. What DVC is said to do was found by
trial.
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
from collections.abc import Callable
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

OF_AN_EXPERIMENT = ("train", "encode", "oneshot", "retrieval", "predictions")
ENCODE, REPORT = f"encode@{EXPERIMENT}", f"report@{DATASET}"
IMAGES = f"data/arrays/{DATASET}/seen_train.npy"
TASKS = f"data/tasks/{DATASET}"
CODES = f"data/codes/{DATASET}/{EXPERIMENT}"
LONGEST = 300  # seconds until a process that hangs is given up


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


TRIED: dict[Callable, list] = {}


def tried(*cases):
    """Have a function of the project and of each case called, beside the tests."""

    def note(function):
        TRIED[function] = list(cases)
        return function

    return note


@pytest.fixture(scope="module")
def ended(project):
    """Start everything that is tried, two at a time, and return how to get what came of it."""
    pool = ThreadPoolExecutor(2)
    coming = {
        (function, case): pool.submit(function, project, case)
        for function, cases in TRIED.items()
        for case in cases
    }
    yield lambda function, case: coming[function, case].result()
    pool.shutdown(cancel_futures=True)


def copied(project: Path, name: str) -> Path:
    """Return a copy of the project, to be spoilt."""
    return Path(shutil.copytree(project, project.parent / name.replace("/", "-"), symlinks=True))


def around(folder: Path) -> dict[str, str]:
    """Return variables with which nothing outside a project plays a part."""
    return {
        "NEURAL_CODES_MIRROR": str(folder / "mirror"),
        "DVC_SITE_CACHE_DIR": str(folder / "site"),
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


def locked(folder: Path) -> dict[str, list[dict]]:
    """Return the outputs of each stage, as dvc.lock has them."""
    content = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))
    return {name: stage["outs"] for name, stage in content["stages"].items()}


def make_others(folder: Path, name: str) -> None:
    """Put other bytes into the files that a stage made, by which it is seen whether they stay."""
    [outs] = [outs for stage, outs in locked(folder).items() if stage.startswith(f"{name}@")]
    for top in (folder / out["path"] for out in outs):
        for path in files_below(top) if top.is_dir() else [top]:
            path.unlink()
            path.write_bytes(b"what was there before")


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def made(folder: Path) -> dict[str, str]:
    """Return the digest of each file that any stage made; of a page, without its minute."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(
            re.sub(rb"<dt>made</dt><dd>[^<]*", b"", path.read_bytes())
        ).hexdigest()
        for top in ("data", "metrics", "predictions", "reports")
        for path in files_below(folder / top)
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


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def assert_one_line(done: subprocess.CompletedProcess, *words: str) -> None:
    """Check that a stage ended as what a person can mend does."""
    lines = done.stderr.splitlines()
    assert (done.returncode, len(lines)) == (1, 1), (done.returncode, done.stderr)
    assert lines[0].startswith("stages.")
    for word in words:
        assert word in lines[0]


def assert_done(done: subprocess.CompletedProcess, expected: str = "") -> None:
    """Check that a command ended well, and that it printed something."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert expected in done.stdout


# A full disk, and one that is read-only

LIMITED = ("sh", "-c", 'ulimit -f 1; exec "$@"', "sh")  # no file has more than 512 bytes
UNSHARED = ("unshare", *(() if os.geteuid() == 0 else ("--user", "--map-root-user")), "--mount")
FULL = """
mount -t tmpfs -o "size=$1" none data && cp -a kept/. data || exit 99
shift
"$@"
code=$?
cp -a data full
exit $code
"""
READ_ONLY = 'mount --bind . . && mount -o remount,bind,ro . && cd "$PWD" && exec "$@"'
STAGES = ("download", "prepare", "tasks", "encode", "oneshot", "retrieval", "report")  # and train

Full = collections.namedtuple("Full", ["failed", "before", "after", "left", "again", "end"])


@tried(*STAGES)
def on_a_full_disk(project, name):
    """Run a stage where no file can have more than 512 bytes, then without the limit."""
    folder = copied(project, f"full-{name}")
    make_others(folder, name)
    before = made(folder)
    failed = ran(folder, *LIMITED, *command(name))
    after, left = made(folder), half_written(folder)
    again = ran(folder, *command(name))
    return Full(failed, before, after, left, again, made(folder))


@pytest.mark.parametrize("name", STAGES)
def test_a_full_disk_is_one_line_and_changes_nothing(ended, name):
    """By a limit of the size of a file, which fails a write as a full disk does."""
    found = ended(on_a_full_disk, name)
    assert_one_line(found.failed, "File too large")
    assert found.after == found.before
    assert found.left == []


@pytest.mark.parametrize("name", STAGES)
def test_when_there_is_room_again_the_stage_makes_the_same(project, ended, name):
    found = ended(on_a_full_disk, name)
    assert_done(found.again)
    assert differing(found.end, made(project)) == []


@functools.cache
def may_mount() -> bool:
    """Return whether a process may mount what is seen by it alone, and is gone with it."""
    try:
        words = [*UNSHARED, "mount", "-t", "tmpfs", "none", "/tmp"]
        return subprocess.run(words, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@tried("prepare", "encode")
def on_a_full_file_system(project, name):
    """Run a stage where data/ is a file system that has 80 KiB left."""
    if not may_mount():
        pytest.skip("mounts are refused here")
    folder = copied(project, f"tmpfs-{name}")
    make_others(folder, name)
    kept = shutil.copytree(folder / "data", folder / "kept")
    pages = sum(-(-path.stat().st_size // 4096) for path in files_below(kept))
    room = f"{4 * pages + 80}k"
    failed = ran(folder, *UNSHARED, "sh", "-c", FULL, "sh", room, *command(name))
    assert not os.path.ismount(folder / "data")
    return failed, *(
        {path.relative_to(top): path.read_bytes() for path in files_below(top)}
        for top in (kept, folder / "full")
    )


@pytest.mark.parametrize("name", ["prepare", "encode"])
def test_a_full_file_system_is_one_line_and_changes_nothing(ended, name):
    failed, before, after = ended(on_a_full_file_system, name)
    assert_one_line(failed, "No space left on device")
    assert after == before


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


@tried("download", "prepare", "tasks", "oneshot", "predictions")
def where_nothing_may_be_written(project, name):
    folder = copied(project, f"read-only-{name}")
    make_others(folder, name)
    before = made(folder)
    with read_only(folder) as words:
        failed = ran(folder, *words, *command(name))
    assert half_written(folder) == []
    return failed, before, made(folder)


@pytest.mark.parametrize("name", TRIED[where_nothing_may_be_written])
def test_a_read_only_folder_is_one_line_and_changes_nothing(ended, name):
    failed, before, after = ended(where_nothing_may_be_written, name)
    assert_one_line(failed, "Read-only file system" if may_mount() else "Permission denied")
    assert after == before


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
    ("predictions", "data/codes"),
    ("predictions", "data/tasks"),
    ("report", "data/arrays"),
    ("report", "data/tasks"),
]


@tried(*MISSING)
def without(project, case):
    """Run a stage without one of its inputs."""
    name, path = case
    folder = copied(project, f"without-{name}-{path}")
    remove(folder / path)
    before = made(folder)
    return ran(folder, *command(name)), before, made(folder)


@pytest.mark.parametrize(("name", "path"), MISSING)
def test_a_missing_input_is_one_line_that_says_what_to_do(ended, name, path):
    done, before, after = ended(without, (name, path))
    assert_one_line(done, path, "dvc repro")
    assert re.search("dvc repro (download|prepare|tasks|train|encode)@", done.stderr)
    assert after == before


@tried("data/codes", "predictions")
def page_without(project, path):
    folder = copied(project, f"page-{path}")
    remove(folder / path)
    done = ran(folder, *command("report"))
    return done, (folder / f"reports/{DATASET}.html").read_text(encoding="utf-8")


def test_a_page_says_which_predictions_are_missing(ended):
    """A page is of what there is: it is written without predictions, too."""
    done, page = ended(page_without, "predictions")
    assert_done(done)
    assert f"predictions/{DATASET}/{EXPERIMENT}/choices.npy: no such file" in page
    assert f"dvc repro predictions@{EXPERIMENT}" in page


def test_a_page_asks_for_no_codes(project, ended):
    """Where a clone has them not, it is the same page."""
    done, page = ended(page_without, "data/codes")
    assert_done(done)
    whole = (project / f"reports/{DATASET}.html").read_text(encoding="utf-8")
    made = r"made</dt><dd>[^<]*"
    assert re.sub(made, "", page) == re.sub(made, "", whole)


# A training whose images change, whose disk and memory are full, whose weights are no numbers

FAULTY = """
import os
import runpy
from stages.backend import keras

step, number, images = keras.Model.train_on_batch, 0, "{images}"

def faulty(model, *given, **named):
    global number
    number += 1  # of 20 in an epoch
    {fault}
    return step(model, *given, **named)

keras.Model.train_on_batch = faulty
runpy.run_module("stages.train", run_name="__main__", alter_sys=True)
"""
CUT_SHORT = "number == 25 and os.truncate(images, 200)"
OUT_OF_MEMORY = """
    if number == 30:
        import tensorflow
        tensorflow.function(tensorflow.zeros)(tensorflow.constant([2**45]))  # 128 TiB
"""
NO_NUMBER = """
    if number == 2:
        model.set_weights([float("nan") * each for each in model.get_weights()])
"""
REPLACED = """
    if number == 25:
        with open("other", "wb") as file:
            file.write(open(images, "rb").read(128) + bytes(os.path.getsize(images) - 128))
        os.replace("other", images)
    if number == 45:
        os.unlink(images)
"""

Failed = collections.namedtuple("Failed", ["full", "cut", "exhausted", "no_number"])


def trained(folder: Path, fault: str) -> subprocess.CompletedProcess:
    """Run the stage `train` with something that happens in a certain step."""
    text = FAULTY.format(images=IMAGES, fault=fault)
    (folder / "faulty.py").write_text(text, encoding="utf-8")
    return ran(folder, sys.executable, "faulty.py", EXPERIMENT)


@tried("in turn")
def failing_trainings(project, _):
    """Train until something goes wrong, again and again, and at last to the end."""
    folder = copied(project, "failing")
    make_others(folder, "train")
    before, ends = made(folder), [ran(folder, *LIMITED, *command("train"))]
    for fault in (CUT_SHORT, OUT_OF_MEMORY, NO_NUMBER):
        ends.append(trained(folder, fault))
        shutil.copy(project / IMAGES, folder / IMAGES)
        assert made(folder) == before
        assert half_written(folder) == []
    return Failed(*ends), ran(folder, *command("train")), made(folder)


def test_a_full_disk_in_training_is_one_line(ended):
    """HDF5, which writes the weights, would end Python by SIGSEGV: room is asked for before."""
    failed, _, _ = ended(failing_trainings, "in turn")
    assert_one_line(failed.full, "File too large")


def test_images_that_are_cut_short_end_a_training_by_a_signal(ended):
    """They are memory-mapped, and Python has no exception for SIGBUS: there is no line."""
    failed, _, _ = ended(failing_trainings, "in turn")
    assert failed.cut.returncode == -signal.SIGBUS


def test_exhausted_memory_is_one_line(ended):
    """TensorFlow's own exception, which says what is full after the lines of its own traceback."""
    failed, _, _ = ended(failing_trainings, "in turn")
    assert_one_line(failed.exhausted, "out of memory", "OOM when allocating tensor with shape")


def test_a_loss_that_is_no_number_is_one_line(ended):
    failed, _, _ = ended(failing_trainings, "in turn")
    assert_one_line(failed.no_number, "the loss is nan in epoch 3")


def test_a_training_that_failed_four_times_goes_on_and_ends_with_the_same_bytes(project, ended):
    failed, done, end = ended(failing_trainings, "in turn")
    assert all(each.returncode for each in failed)
    words = [re.findall(r"going on after epoch \d|epoch \d/", each.stdout) for each in failed]
    assert words == [
        [],
        ["epoch 1/"],
        ["going on after epoch 1", "epoch 2/"],
        ["going on after epoch 2"],
    ]
    assert_done(done)
    assert done.stdout.startswith("going on after epoch 2\nepoch 3/")
    assert differing(end, made(project)) == []


@tried(REPLACED)
def training(project, fault):
    folder = copied(project, "training")
    make_others(folder, "train")
    return trained(folder, fault), made(folder)


def test_images_that_are_replaced_and_vanish_in_a_training_are_still_trained_on(project, ended):
    """They are memory-mapped: a file that has lost its name lives as long as it is open."""
    done, end = ended(training, REPLACED)
    assert_done(done)
    assert differing(end, made(project)) == [IMAGES]


# DVC, twice


def start(folder: Path, *words: str) -> subprocess.Popen:
    """Start DVC."""
    return subprocess.Popen(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder, env=environment(folder, **around(folder)),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@tried("repro")
def twice(project, word):
    """Start a command twice at once, where a stage has to run."""
    folder = copied(project, "twice")
    with open(folder / "stages/encode.py", "a", encoding="utf-8") as file:
        file.write("# another line, and nothing else comes of it\n")
    both = [start(folder, word, REPORT) for _ in range(2)]
    said = [process.communicate(timeout=LONGEST)[0] for process in both]
    ends = {process.returncode: words for process, words in zip(both, said, strict=True)}
    return ends, repro(folder), outputs(folder), half_written(folder)


def test_two_runs_at_once(project, ended):
    """DVC lets one work and ends the other: something `is busy`. Neither waits."""
    ends, again, end, left = ended(twice, "repro")
    assert 0 in ends
    assert set(ends) <= {0, 255}
    assert "is busy, it is being blocked by" in ends.get(255, "is busy, it is being blocked by")
    assert_done(again, "Data and pipelines are up to date.")
    assert end == outputs(project)
    assert left == []


WAIT = """
    import time
    Path("waiting").touch()
    while Path("waiting").exists():
        time.sleep(0.01)
"""
OTHER = f"""
    path = Path("{CODES}/head.npy")
    np.save(path, 2 * np.load(path))
"""


def wait_for(path: Path, process: subprocess.Popen) -> None:
    """Wait until there is a file, while a process runs."""
    until = time.monotonic() + LONGEST
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < until, "it hangs"
        time.sleep(0.01)


@tried("checkout")
def while_a_stage_runs(project, word):
    """Run a command before and after `encode` wrote its codes, others than those DVC has."""
    folder = copied(project, word)
    module, waiting = folder / "stages/encode.py", folder / "waiting"
    text = module.read_text(encoding="utf-8")
    assert text.endswith("    run(main)\n")
    begin = text.removesuffix("    run(main)\n")
    module.write_text(f"{begin}{WAIT}    run(main)\n{OTHER}{WAIT}", encoding="utf-8")
    process, found = start(folder, "repro", ENCODE), []
    for _ in range(2):
        wait_for(waiting, process)
        found += [made(folder), dvc(folder, word, ENCODE, **around(folder)), made(folder)]
        waiting.unlink()
    said, _ = process.communicate(timeout=LONGEST)
    assert process.returncode == 0, said
    found.append(made(folder))
    module.write_text(text, encoding="utf-8")
    return found, repro(folder), outputs(folder), half_written(folder)


def test_a_checkout_while_a_stage_runs(project, ended):
    """It waits for nothing; it brings old codes back, and does not remove new ones.

    Before the stage writes, old codes are there again, which the stage replaces. After it wrote,
    DVC refuses to remove what it has not saved: the new codes stay, and become DVC's.
    """
    (empty, first, old, new, second, still, saved), again, end, left = ended(
        while_a_stage_runs, "checkout"
    )
    assert not [name for name in empty if name.startswith(CODES)]  # DVC removed them
    assert first.returncode == 0, first.stderr
    assert not [name for name in differing(old, made(project)) if name.startswith(CODES)]
    assert second.returncode == 255
    assert "Can't remove the following unsaved files without confirmation" in second.stderr
    assert f"{CODES}/head.npy" in second.stderr
    assert differing(new, made(project)) == [f"{CODES}/head.npy"]
    assert new == still == saved
    assert_done(again, f"Stage '{ENCODE}' is cached - skipping run, checking out outputs")
    assert end == outputs(project)
    assert left == []


# DVC's cache


def cached(folder: Path, path: str, *name: str) -> Path:
    """Return the object in the cache of an output, or of a file of one that is a folder."""
    [md5] = [out["md5"] for outs in locked(folder).values() for out in outs if out["path"] == path]
    found = folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    if not name:
        return found
    listed = json.loads(found.read_text(encoding="utf-8"))
    [md5] = [each["md5"] for each in listed if each["relpath"] == name[0]]
    return folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def damage(path: Path, *, mode: int) -> None:
    """Change bytes of a file in place."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)
    path.chmod(mode)


def lose_the_list_of_a_folder(folder):
    cached(folder, CODES).unlink()
    remove(folder / CODES)
    return "Running stage 'encode@"


def lose_a_file_of_a_folder(folder):
    cached(folder, TASKS, "4-way.npy").unlink()
    remove(folder / TASKS)
    return "Running stage 'tasks@"


def lose_the_cache(folder):
    remove(folder / ".dvc/cache")
    remove(folder / TASKS)
    return "Running stage 'prepare@"


def damage_what_can_be_written(folder):
    damage(cached(folder, TASKS, "4-way.npy"), mode=0o644)
    remove(folder / TASKS)
    return "Running stage 'tasks@"


def damage_the_workspace(folder):
    damage(folder / CODES / "trained/neural_codes.npy", mode=0o644)
    return f"Stage '{ENCODE}' is cached - skipping run, checking out outputs"


SPOILT = (
    lose_the_list_of_a_folder,
    lose_a_file_of_a_folder,
    lose_the_cache,
    damage_what_can_be_written,
    damage_the_workspace,
)


@tried(*SPOILT)
def spoilt(project, spoil):
    """Spoil the cache or the workspace, and run again."""
    folder = copied(project, spoil.__name__)
    expected = spoil(folder)
    # Without its cache DVC runs all stages, an experiment's too: those of the dataset are enough.
    done = repro(folder, f"tasks@{DATASET}" if spoil is lose_the_cache else REPORT)
    return done, expected, outputs(folder)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_what_dvc_notices_it_makes_again(project, ended, spoil):
    """Lost objects; damaged ones that can be written, for it digests those; a changed workspace.

    Where the object of an output is lost its stage runs, even if the output is in the workspace.
    """
    done, expected, found = ended(spoilt, spoil)
    assert_done(done, expected)
    assert found == outputs(project)


@tried("repro", "checkout")
def damaged(project, word):
    """Let DVC take a damaged object that is read-only, as all of its objects are."""
    folder = copied(project, f"damaged-{word}")
    damage(cached(folder, TASKS, "4-way.npy"), mode=0o444)
    remove(folder / TASKS)
    taken = dvc(folder, word, f"tasks@{DATASET}", **around(folder))
    next_run = repro(folder)
    status, found = dvc(folder, "status", REPORT, **around(folder)), outputs(folder)
    ran(folder, "chmod", "-R", "u+w", ".dvc/cache")
    return taken, next_run, status, found, repro(folder), outputs(folder)


@pytest.mark.parametrize("word", ["repro", "checkout"])
def test_a_damaged_object_is_trusted_until_it_can_be_written(project, ended, word):
    """DVC takes a read-only object for whole: wrong bytes come out of it, and nothing is said.

    `chmod -R u+w .dvc/cache` before `dvc repro` makes it digest every object that it uses, drop
    those that are wrong, and run their stages again.
    """
    taken, next_run, status, found, mended, end = ended(damaged, word)
    for each in (taken, next_run, status):
        assert_done(each)
    for each in (next_run, status):
        assert "Data and pipelines are up to date." in each.stdout
    assert differing(found, outputs(project)) == [f"{TASKS}/4-way.npy"]
    assert_done(mended, "Running stage 'tasks@")
    assert end == outputs(project)


# Archives that change, servers that stall

KEPT = 2 * download.CHUNK  # bytes; what is no whole chunk is lost


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """Stand in an empty folder, with downloads that do not wait long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.3))
    for pause in ("PAUSE", "LONGEST_PAUSE"):
        monkeypatch.setattr(download, pause, 0)
    return tmp_path


def vanish(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    path.with_name("other").write_bytes(PAGE)
    os.replace(path.with_name("other"), path)


def cut_short(path: Path) -> None:
    os.truncate(path, 200)


def overwrite(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))


def copy_while(change: Callable, folder: Path, monkeypatch) -> None:
    """Fetch an archive from a folder, and do something to it when its first part was copied."""
    archive = folder / NAME
    archive.write_bytes(ARCHIVE)
    changes = [change]

    class Bar(download.tqdm):
        def update(self, count):
            if changes:
                changes.pop()(archive)
            super().update(count)

    monkeypatch.setattr(download, "tqdm", Bar)
    fetch(mirror=str(folder))


@pytest.mark.parametrize("change", [vanish, replace], ids=lambda change: change.__name__)
def test_an_archive_that_goes_away_while_it_is_copied_is_copied_whole(apart, monkeypatch, change):
    copy_while(change, apart, monkeypatch)
    assert fetched() == {NAME: ARCHIVE}


@pytest.mark.parametrize("change", [cut_short, overwrite], ids=lambda change: change.__name__)
def test_an_archive_that_changes_while_it_is_copied_is_refused(apart, monkeypatch, change):
    with pytest.raises(UserError, match="wrong content"):
        copy_while(change, apart, monkeypatch)
    assert partials() == []
    assert not FOLDER.exists()


@pytest.fixture
def server(apart):
    """A server on 127.0.0.1 as that of test_download, some of whose answers stop and stay open."""
    del apart
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
        handler.server.enough.wait(LONGEST)

    return answer


def silent(handler) -> None:
    """Say nothing at all."""
    handler.server.enough.wait(LONGEST)


def test_a_server_that_stalls_is_asked_for_the_rest(server):
    server.answers[f"/{NAME}"] = [stalled(ARCHIVE, KEPT + 10_000), ranged(ARCHIVE)]
    fetch(server.url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked == [(f"/{NAME}", None), (f"/{NAME}", f"bytes={KEPT}-")]


def test_a_server_that_stalls_for_ever_is_given_up_and_what_came_is_kept(server):
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
    """A login page comes with HTTP 200, whatever was asked for; what came before it is kept."""
    keep_partial(server.url, ARCHIVE[:KEPT])
    server.answers[f"/{NAME}"] = [whole(PAGE, Content_Type="text/html")]
    with pytest.raises(UserError, match="a page of 26 bytes instead of the rest"):
        fetch(server.url)
    assert [path.stat().st_size for path in partials()] == [KEPT]
    assert not FOLDER.exists()
    server.answers[f"/{NAME}"] = [status(503), ranged(ARCHIVE)]
    fetch(server.url)
    assert fetched() == {NAME: ARCHIVE}
    assert server.asked[-1] == (f"/{NAME}", f"bytes={KEPT}-")
