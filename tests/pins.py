"""The versions that made the committed figures: `python tests/pins.py` writes constraints.txt.

It holds every distribution that pyproject.toml asks for, directly or not, in the version that is
installed where this is run: the environment in which `dvc repro` made what is committed.
"""

import tomllib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
FILE = ROOT / "constraints.txt"
GPU = ROOT / "constraints-gpu.txt"  # written by hand, from the run.json of what a GPU trained
EXTRAS = ("s3", "test")
_HEAD = """# The versions that made the committed figures: pip install -e . -c constraints.txt
# Written by python tests/pins.py; pyproject.toml says which others may do.
"""


def needed(extras: tuple[str, ...]) -> dict[str, Distribution]:
    """Return by name the installed distributions that pyproject.toml asks for, directly or not.

    Args:
        extras: which of its extras are asked for, too.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    more = project["optional-dependencies"]
    asked = project["dependencies"] + [each for extra in extras for each in more[extra]]
    found, known, new = {}, set(), [Requirement(each) for each in asked]
    while new:
        requirement = new.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in known:
            continue
        known.add(key)
        try:
            found[name] = distribution(requirement.name)
        except PackageNotFoundError:  # of an extra that was not asked for
            continue
        for line in found[name].requires or []:
            inner = Requirement(line)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras)
            ):
                new.append(inner)
    return found


def read(file: Path = FILE) -> dict[str, str]:
    """Return the versions by name that a file pins."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def main() -> None:
    """Write the file, with the pins that it had of what only other platforms need."""
    here = {name: found.version for name, found in needed(EXTRAS).items()}
    pins = (read() if FILE.exists() else {}) | here
    lines = [f"{name}=={version}\n" for name, version in sorted(pins.items())]
    FILE.write_text(_HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
