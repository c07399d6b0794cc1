"""A run that agrees with the committed figures, and runs that do not."""

import json
import subprocess
from pathlib import Path

import pytest

from stages import verify
from stages.command import UserError

FIGURES = {
    "chance": 0.05,
    "tasks": 10000,
    "codes": {"l2": {"accuracy": 0.25, "ci95_low": 0.242, "ci95_high": 0.258}},
    "seen": {"test": {"accuracy": 0.45, "cross_entropy": 2.0}},
    "seeds": [0.25, 0.26],
}


def changed(**by_path):
    figures = json.loads(json.dumps(FIGURES))
    for path, value in by_path.items():
        *keys, last = path.split("__")
        place = figures
        for key in keys:
            place = place[key]
        place[last] = value
    return figures


def wrong(here):
    return [line for line, _ in verify.disagreements(here, FIGURES, "m") if line]


def test_the_same_figures_agree_to_the_last_digit():
    assert all(same for _, same in verify.disagreements(FIGURES, FIGURES, "m"))


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        ({"codes__l2__accuracy": 0.275, "codes__l2__ci95_low": 0.265}, True),
        ({"codes__l2__accuracy": 0.285}, False),
        ({"codes__l2__accuracy": 0.225}, True),
        ({"codes__l2__accuracy": 0.215}, False),
        ({"codes__l2__accuracy": 0.05}, False),
        ({"seen__test__accuracy": 0.475}, True),
        ({"seen__test__accuracy": 0.485}, False),
        ({"seen__test__cross_entropy": 2.15}, True),
        ({"seen__test__cross_entropy": 2.25}, False),
        ({"seen__test__cross_entropy": 1.75}, False),
        ({"seeds": [0.275, 0.235]}, True),
        ({"seeds": [0.285, 0.26]}, False),
        ({"seeds": [0.25]}, False),
        ({"seeds": [0.25, 0.26, 0.27]}, False),
        ({"seeds": 0.25}, False),
        ({"tasks": 9999}, False),
        ({"codes": 0.3}, False),
        ({"more": 1.0}, False),
    ],
)
def test_what_is_within_and_what_is_outside(change, agrees):
    assert (wrong(changed(**change)) == []) is agrees


def test_against_a_revision(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = Path("metrics/toy/x/oneshot.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(FIGURES))
    path.with_name("run.json").write_text('{"seconds": 1}')
    with pytest.raises(UserError, match="HEAD: no revision of this checkout"):
        verify.main("HEAD")
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], check=True)
    path.with_name("run.json").write_text('{"seconds": 2}')
    verify.main("HEAD")
    assert "9 figures: 9 the same to the last digit, 0 within tolerance, 0 not" in (
        capsys.readouterr().out
    )
    path.write_text(json.dumps(changed(tasks=3)))
    with pytest.raises(SystemExit):
        verify.main("HEAD")
    assert capsys.readouterr().err == "metrics/toy/x/oneshot/tasks: 3 here, 10000 there\n"
    path.unlink()
    with pytest.raises(UserError, match="no such file"):
        verify.main("HEAD")


@pytest.fixture
def below(tmp_path, monkeypatch):
    """Return a function that commits files of a project below the top folder of its checkout."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / "project/metrics/seeds").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")

    def commit(**texts):
        for name, text in texts.items():
            Path("metrics/seeds", f"{name}.json").write_text(text)
        for words in (["add", "."], ["commit", "-qm", "x"]):
            subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], check=True)

    return commit


def test_a_project_below_the_top_of_its_checkout_is_compared(below, capsys):
    """And a file whose name ends in that of one that is left out."""
    below(**{"dry-run": '{"accuracy": 0.5}'})
    verify.main("HEAD")
    assert "1 figures: 1 the same" in capsys.readouterr().out
    Path("metrics/seeds/dry-run.json").write_text('{"accuracy": 0.9}')
    with pytest.raises(SystemExit):
        verify.main("HEAD")


@pytest.mark.parametrize(
    ("there", "here", "line"),
    [
        ("{", "{}", r"HEAD:metrics.seeds.x\.json: no JSON"),
        ("[]", "{}", r"HEAD:metrics.seeds.x\.json: expected a JSON object"),
        ('{"a": 1}', "[1]", r"metrics.seeds.x\.json: expected a JSON object"),
    ],
)
def test_metrics_that_are_no_object_are_one_line(below, there, here, line):
    below(x=there)
    Path("metrics/seeds/x.json").write_text(here)
    with pytest.raises(UserError, match=line):
        verify.main("HEAD")
