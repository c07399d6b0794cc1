"""The licence of everything that the pipeline needs: `python tests/licences.py` writes the table.

docs/licences.md holds what was found on the machines where this was run: rows of another platform
stay. Licences are those that a distribution names itself; where it is silent or vague, `READ` says
what its files say.
"""

import re
from importlib.metadata import Distribution
from pathlib import Path

import pins
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs/licences.md"
EXTRAS = ("cluster", "s3", "search")  # parts of the pipeline; the others are tools beside it

# Licences that ask to be named, or that bind changes of their own files and no more.
FREE = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0", "EPL-1.0",
    "EPL-2.0", "HPND", "ISC", "LGPL-2.1-or-later", "LGPL-3.0-or-later", "LLVM-exception", "MIT",
    "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "Python-2.0", "Unlicense", "ZPL-2.1", "Zlib",
}  # fmt: skip
# Licences that would bind this project, were it not for what `NOTES` says, and the exceptions.
NOTED = {"GPL-2.0-only", "GPL-2.0-or-later", "GCC-exception-2.0"}

# What was read in the files of a distribution that does not name its licence, or not exactly.
READ = {
    "antlr4-python3-runtime": "BSD-3-Clause",  # the head of its modules
    "astunparse": "BSD-3-Clause AND PSF-2.0",  # LICENSE
    "grandalf": "EPL-1.0 OR GPL-2.0-only",  # LICENSE: either one
    "libclang": "Apache-2.0 WITH LLVM-exception",  # LICENSE.TXT
    "namex": "Apache-2.0",  # LICENSE
    "pygit2": "GPL-2.0-only WITH GCC-exception-2.0",  # COPYING: linking exception
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",  # LICENSE: the second for all of it
    "pywin32": "PSF-2.0 AND LGPL-2.1-or-later",  # the second for adodbapi
}

# Why a distribution that names one of `NOTED` does not bind this project.
NOTES = {
    "asyncssh": "the EPL may be chosen, which binds changes of its own files alone; scmrepo, a "
    "part of DVC, uses it for git over SSH.",
    "dulwich": "the Apache licence may be chosen.",
    "grandalf": "the EPL may be chosen, which binds changes of its own files alone; DVC draws "
    "`dvc dag` with it.",
    "pygit2": "its authors permit to link it into any program and to pass that on without any "
    "restriction; scmrepo, a part of DVC, reads git with it.",
}

_SPELLED = {  # how the metadata say it: a pattern, and the licence
    r"apache": "Apache-2.0",
    r"\bmit\b": "MIT",
    r"mozilla|\bmpl\b": "MPL-2.0",
    r"python software foundation|\bpsf\b": "PSF-2.0",
    r"zope": "ZPL-2.1",
}
_TEXT = """# Licences

What the pipeline needs, directly or not, with the extras `cluster`, `s3` and `search`. This project
itself is under the MIT licence, and holds none of these: pip fetches each from where it is
published. The table is written by `python tests/licences.py`; tests/test_committed.py compares it
with what is installed.

| distribution | licence |
|---|---|
{rows}

Those that name the GPL, and why it does not bind this project:

{notes}

The wheels of numpy, scipy and scikit-learn carry runtime libraries of GCC, whose GPL makes an
exception for programs that use them.

Extras that are tools beside the pipeline: `benchmarks` (pytorch-metric-learning under MIT,
torchmetrics under Apache-2.0, torch under BSD-3-Clause and others as free) brings, on Linux, as
jax for GPUs does, libraries of NVIDIA under its own licence, which is not a free one. `test` is
for tests.
"""


def names(licence: str) -> set[str]:
    """Return the licences and exceptions that an SPDX expression consists of."""
    return set(re.findall(r"[\w.+-]+", licence)) - {"AND", "OR", "WITH"}


def licence_of(found: Distribution) -> str | None:
    """Return the licence of a distribution as an SPDX expression, or None where it names none."""
    if expression := found.metadata.get("License-Expression"):
        return expression
    if licence := READ.get(canonicalize_name(found.metadata["Name"])):
        return licence
    line = (found.metadata.get("License") or "").strip().partition("\n")[0]
    if names(line) and names(line) <= FREE | NOTED:
        return line
    classifiers = found.metadata.get_all("Classifier") or []
    for claim in (line, *(each for each in classifiers if each.startswith("License"))):
        for pattern, licence in _SPELLED.items():
            if re.search(pattern, claim, re.IGNORECASE):
                return licence
        if re.search(r"\bBSD\b", claim):
            return _clauses(found)
    return None


def _clauses(found: Distribution) -> str | None:
    """Return which BSD licence it is, by the text of the distribution's licence files."""
    files = [each for each in found.files or [] if re.match(r"(?i)licen[sc]e|copying", each.name)]
    text = " ".join(" ".join(each.read_text(encoding="utf-8") for each in files).split())
    if "Redistribution and use in source and binary forms" not in text:
        return None
    return "BSD-3-Clause" if "endorse or promote" in text else "BSD-2-Clause"


def read() -> dict[str, str]:
    """Return the rows of the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines() if TABLE.exists() else []
    rows = [re.fullmatch(r"\| ([a-z0-9-]+) \| (.+) \|", line) for line in lines]
    return {row[1]: row[2] for row in rows if row and row[1] != "distribution"}


def render(rows: dict[str, str]) -> str:
    """Return the page with these rows."""
    return _TEXT.format(
        rows="\n".join(f"| {name} | {licence} |" for name, licence in sorted(rows.items())),
        notes="\n".join(f"- {name}: {note}" for name, note in sorted(NOTES.items())),
    )


def main() -> None:
    """Write the table, with the rows that it had."""
    here = {name: licence_of(found) or "not known" for name, found in pins.needed(EXTRAS).items()}
    elsewhere = {"pywin32": READ["pywin32"], "tzdata": "Apache-2.0"}  # on Windows
    TABLE.write_text(render(elsewhere | read() | here), encoding="utf-8")


if __name__ == "__main__":
    main()
