"""The README's table says what metrics/ says."""

import subprocess
from pathlib import Path

import pytest

from stages import params, readme
from stages.command import UserError

ROOT = Path(__file__).parents[1]


def test_the_table_is_that_of_the_committed_metrics(tmp_path, monkeypatch):
    """As git has them, added or committed: `dvc repro` on another processor rounds otherwise."""
    command = ["git", "checkout-index", "--all", f"--prefix={tmp_path}/"]
    subprocess.run(command, cwd=ROOT, check=True)
    monkeypatch.chdir(tmp_path)
    text = Path("README.md").read_text(encoding="utf-8")
    assert readme.filled(text, readme.results(params.load())) == text, "run python -m stages.readme"


def test_a_readme_without_markers_is_refused():
    with pytest.raises(UserError, match=r"README\.md: expected the lines"):
        readme.filled("no markers", "table")
