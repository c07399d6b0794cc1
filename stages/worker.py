"""One stage on another machine: `python -m stages.worker train@cifar100-resnet`.

In a clone of its own, which shares nothing but git and DVC's remote with those who wait for the
result: takes what is newest, runs the stage, after those before it that have changed, and gives
back what came of it: weights, codes and pages to the remote; dvc.lock, metrics and predictions to
git. Several workers may do so at one time, a stage each.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from stages.command import UserError, run

_TRIES = 10  # at pushing to git, while others do
_MERGE = f"merge.dvc-lock.driver={shlex.quote(sys.executable)} -m stages.merge %O %A %B"
_GIT = ("git", "-c", _MERGE)
_DVC = (sys.executable, "-m", "dvc")


def ran(*words: str) -> bool:
    """Run a command, which shows what it has to say, and return whether it ended well."""
    print("+", shlex.join(words), flush=True)
    return not subprocess.run(words, check=False).returncode


def must(*words: str) -> None:
    """Run a command that must end well.

    Raises:
        UserError: when it does not; it has said why.
    """
    if not ran(*words):
        raise UserError(f"{shlex.join(words[-3:])} failed, see the lines before")


def pull() -> None:
    """Lay this clone's commits upon those of the remote; where they conflict, leave them.

    Raises:
        UserError: when they conflict, or the remote is out of reach.
    """
    try:
        must(*_GIT, "pull", "--quiet", "--rebase")
    except UserError:
        ran(*_GIT, "rebase", "--abort")  # a clone in the middle of it would refuse every later run
        raise


def main(stage: str) -> None:
    """Run one stage of dvc.yaml, by the name that `dvc stage list` shows."""
    pull()
    must(*_DVC, "repro", "--quiet", "--pull", "--allow-missing", stage)
    must(*_DVC, "push", "--quiet", "--with-deps", stage)
    kept = [top for top in ("metrics", "predictions") if Path(top).exists()]
    must(*_GIT, "add", "dvc.lock", *kept)
    if ran(*_GIT, "diff", "--quiet", "--staged"):
        print(f"{stage}: nothing to do")
        return
    must(*_GIT, "commit", "--quiet", f"--message=Run {stage}")
    for _ in range(_TRIES):
        if ran(*_GIT, "push", "--quiet"):
            return
        pull()
    raise UserError(f"git push was refused {_TRIES} times; the commit is kept: push it by hand")


if __name__ == "__main__":
    run(main)
