"""git's merge of dvc.lock, stage by stage: `python -m stages.merge %O %A %B`, as git calls it.

Two machines that ran two stages have both changed dvc.lock, and git, which merges lines, sees a
conflict. By stage there is none. Once in each clone:

    git config merge.dvc-lock.driver "python -m stages.merge %O %A %B"
"""

from pathlib import Path
from typing import Any

import ruamel.yaml

from stages import files
from stages.command import UserError, run


def merged(base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    """Return the stages of two versions of dvc.lock that come from a common one.

    Args:
        base: what was recorded of each stage in the common version.
        ours: the same in one version.
        theirs: the same in the other.

    Raises:
        UserError: for a stage that both have changed, each in another way.
    """
    found = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        before, a, b = (version.get(name) for version in (base, ours, theirs))
        if a != b and before not in (a, b):
            raise UserError(f"dvc.lock: {name} was run on both sides; run it again: dvc repro")
        chosen = b if a == before else a
        if chosen is not None:  # removed on one side
            found[name] = chosen
    return found


def read(path: str) -> dict[str, Any]:
    """Return what a version of dvc.lock holds.

    Raises:
        UserError: when it is none: both versions of a conflict in one file, for example.
    """
    try:
        content = ruamel.yaml.YAML().load(Path(path).read_text(encoding="utf-8")) or {}
        return {**content, "stages": dict(content.get("stages", {}))}
    except (ruamel.yaml.error.YAMLError, ValueError, TypeError, AttributeError):
        raise UserError(
            f"{path}: no dvc.lock: take one side whole (git checkout --ours dvc.lock), dvc repro"
        ) from None


def main(base: str, ours: str, theirs: str) -> None:
    """Merge three files into the second, as git asks of a driver."""
    yaml = ruamel.yaml.YAML()
    yaml.default_flow_style = False
    versions = [read(path) for path in (base, ours, theirs)]
    stages = merged(*(version["stages"] for version in versions))
    with files.replacing(ours) as partial:
        yaml.dump({**versions[1], "stages": stages}, partial)


if __name__ == "__main__":
    run(main)
