import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import stages
from stages import command
from stages.command import UserError


def failing(error):
    """Return a stage of one word that fails."""

    def stage(dataset):
        raise error

    return stage


def ended(stage, words, monkeypatch, capsys):
    """Run a stage and return its exit code and its lines on standard error."""
    monkeypatch.setattr(sys, "argv", ["-m", *words])
    with pytest.raises(SystemExit) as end:
        command.run(stage)
    written = capsys.readouterr()
    assert written.out == ""
    return end.value.code, written.err.splitlines()


def full_disk(*filename):
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *filename)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("params.yaml: seed: got -1"), 1, "digits: params.yaml: seed: got -1"),
        (UserError("two\n  lines\t of text\n"), 1, "digits: two lines of text"),
        (full_disk("data/a.npy"), 1, "digits: data/a.npy: No space left on device"),
        (full_disk(), 1, "digits: input or output: No space left on device"),
        (OSError("stale handle"), 1, "digits: input or output: stale handle"),
        (PermissionError(errno.EACCES, "Permission denied", "data"), 1, "data: Permission denied"),
        (UserError(f"a.zip: {'x' * 9999}; do it again"), 1, "xxx; do it again"),
        (MemoryError("Unable to allocate 1 TiB"), 1, "out of memory: Unable to allocate 1 TiB"),
        (RuntimeError("OOM when allocating tensor\nmore"), 1, "that were finished are kept"),
        (RuntimeError("RESOURCE_EXHAUSTED: 2 GiB"), 1, "that were finished are kept"),
        (RuntimeError("CUDA out of memory."), 1, "that were finished are kept"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_what_a_person_can_mend_is_one_line(error, code, line, monkeypatch, capsys):
    found, lines = ended(failing(error), ["digits"], monkeypatch, capsys)
    assert found == code
    assert len(lines) == 1
    assert lines[0].startswith(f"{__name__}")
    assert lines[0].endswith(line)


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_is_what_the_module_says_of_itself_and_nothing_runs(tmp_path, word):
    with python(tmp_path, "-m", "stages.tasks", word) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    usage, _, words = out.partition("\n\n")
    assert usage == "usage: python -m stages.tasks <dataset>"
    assert words.startswith("Stage `tasks`")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["digits", "cifar100"], ["digits", "--help", "-v"]], ids=str)
def test_a_wrong_number_of_words_is_the_usage_and_nothing_runs(words, monkeypatch, capsys):
    stage = failing(AssertionError("it ran"))
    code, lines = ended(stage, words, monkeypatch, capsys)
    assert code == 2
    assert lines == [f"usage: python -m {__name__} <dataset>"]


def test_a_stage_gets_the_words_and_returns(monkeypatch, capsys):
    given = []

    def stage(dataset, other):
        local = (dataset, other)  # a local variable is no word of the command line
        given.append(local)

    monkeypatch.setattr(sys, "argv", ["-m", "digits", "more"])
    command.run(stage)
    assert given == [("digits", "more")]
    assert capsys.readouterr() == ("", "")


def test_what_only_a_programmer_can_mend_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["-m", "digits"])
    with pytest.raises(ZeroDivisionError):
        command.run(failing(ZeroDivisionError()))


def python(folder, *words, **options):
    """Start `python words...` in a folder, with the stages of this checkout."""
    path = {"PYTHONPATH": str(Path(stages.__file__).parents[1])}
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        env=os.environ | path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("words", [[], ["digits", "more"]], ids=str)
def test_usage_of_a_real_stage(tmp_path, words):
    with python(tmp_path, "-m", "stages.tasks", *words) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert err.splitlines() == ["usage: python -m stages.tasks <dataset>"]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_from_the_keyboard_is_one_line_and_130(tmp_path):
    waiting = "import signal, time\nfrom stages.command import run\n"
    # A process started in the background inherits that it ignores the keyboard.
    waiting += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    waiting += "def main(dataset):\n    print('started', flush=True)\n    time.sleep(60)\n"
    (tmp_path / "waiting.py").write_text(waiting + "run(main)\n")
    with python(tmp_path, "-m", "waiting", "digits") as process:
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == ["waiting: interrupted"]


def test_a_message_that_quotes_too_much_is_cut_in_its_middle():
    assert str(UserError("x" * 800)) == "x" * 800
    message = str(UserError(f"a.zip: no {'x' * 60_000}; download it again"))
    assert len(message) < 900
    assert message.startswith("a.zip: no xx") and message.endswith("xx; download it again")
