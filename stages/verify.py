"""Compare the figures of a run made here with those that were committed.

`python -m stages.verify HEAD` compares metrics/ with those of a git revision; exit code 1, and a
line for each figure that disagrees. Not a stage of dvc.yaml, since it makes nothing.

On the processor that made the committed figures they come out the same to the last digit. On
another one the last bits of a training differ, and from them its figures, as with another seed.
Shares then agree within `SHARE`, losses within `LOSS`; counts must be equal.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages import files
from stages.command import UserError, run

SHARE = 0.03  # of a share: accuracy, precision, area under a curve
LOSS = 0.1  # relative, of a cross-entropy


def disagreements(here: dict, there: dict, place: str) -> Iterator[tuple[str, bool]]:
    """Yield each figure by its place, with what is wrong; an empty text for one that agrees.

    Args:
        here: the content of a metrics file, or a part of it.
        there: the same of the other run.
        place: what to call it.

    Yields:
        What is wrong, or nothing, and whether both are the same to the last digit.
    """
    for key in here.keys() | there.keys():
        name = f"{place}/{key}"
        if key not in here or key not in there:
            yield f"{name}: {'not here' if key in there else 'only here'}", False
        elif isinstance(here[key], dict) and isinstance(there[key], dict):
            yield from disagreements(here[key], there[key], name)
        elif isinstance(here[key], list) and isinstance(there[key], list):  # a figure for each seed
            yield from disagreements(*(dict(enumerate(run[key])) for run in (here, there)), name)
        elif here[key] == there[key]:
            yield "", True
        elif _agree(key, here[key], there[key]):
            yield "", False
        else:
            yield f"{name}: {here[key]} here, {there[key]} there", False


def _agree(key: str, here: Any, there: Any) -> bool:
    if not (isinstance(here, float) and isinstance(there, float)):
        return False
    return abs(here - there) <= (LOSS * there if key == "cross_entropy" else SHARE)


def committed(revision: str) -> dict[Path, dict]:
    """Return the metrics of a git revision by their paths.

    Raises:
        UserError: when there is no such revision, or no git checkout.
    """
    try:
        paths = _git("ls-tree", "-r", "--name-only", revision, "--", "metrics").splitlines()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise UserError(f"{revision}: no revision of this checkout: {reason}") from None
    found = {}
    for path in map(Path, paths):
        if path.suffix != ".json" or path.name == "run.json":
            continue
        try:
            content = json.loads(_git("show", f"{revision}:./{path.as_posix()}"))
        except ValueError as error:
            raise UserError(f"{revision}:{path}: no JSON: {error}") from None
        found[path] = _an_object(content, f"{revision}:{path}")
    return found


def _an_object(found: Any, source: str | Path) -> dict:
    if not isinstance(found, dict):
        raise UserError(f"{source}: expected a JSON object of figures")
    return found


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def main(revision: str) -> None:
    """Compare every metrics file of a revision with the one that is here."""
    found = [
        each
        for path, there in committed(revision).items()
        for each in disagreements(
            _an_object(files.read_json(path), path), there, str(path.with_suffix(""))
        )
    ]
    if not found:
        raise UserError(f"{revision}: no metrics in it")
    wrong = sorted(line for line, _ in found if line)
    same = sum(each for _, each in found)
    print(
        f"{len(found)} figures: {same} the same to the last digit, "
        f"{len(found) - same - len(wrong)} within tolerance, {len(wrong)} not"
    )
    for line in wrong:
        print(line, file=sys.stderr)
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    run(main)
