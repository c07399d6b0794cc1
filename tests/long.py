"""The long proofs: `python tests/long.py` runs them all, about an hour and a half on two cores.

`python tests/long.py fuzz kills` runs some of them. Each puts what it printed under its heading in
docs/long.md, with the commit that it ran on; exit code 1 when one of them fails.
"""

import datetime
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/long.md"
JSON = r"(?s)\{.*"


def measured(*experiments: str) -> list[str]:
    """Return the targets of experiments, to their figures."""
    return [f"{stage}@{name}" for name in experiments for stage in ("oneshot", "retrieval")]


PARTS = {  # heading: module, words, and what to keep of what it prints
    "archives": ("mutations", ["3000", "2"], JSON),
    "fuzz": ("fuzz", ["600"], r"(?m)^Done .*|^stat::.*|^ERROR.*|.*crash-.*"),
    "kills": ("interruptions", ["50", "1"], JSON),
    "digits": ("clones", ["2", "report@digits"], JSON),
    "cifar100": ("clones", ["1", *measured("cifar100-siamese", "cifar100-classifier")], JSON),
    "omniglot": ("clones", ["1", *measured("omniglot-siamese")], JSON),
}


def ran(part: str) -> tuple[bool, str]:
    """Run a part, and return whether it passed, and its section of the page."""
    module, words, kept = PARTS[part]
    command = [sys.executable, "-W", "ignore", HERE / f"{module}.py", *words]
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=HERE
    ).stdout.strip()
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    started = time.monotonic()
    ended = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    minutes = (time.monotonic() - started) / 60
    said = "\n".join(re.findall(kept, ended.stdout or ended.stderr)).strip()
    words = " ".join(["python", f"tests/{module}.py", *words])
    passed = "passed" if ended.returncode == 0 else f"failed with {ended.returncode}"
    return ended.returncode == 0, (
        f"## {part}\n\n`{words}`: {passed} in {minutes:.0f} minutes on {os.cpu_count()} cores, "
        f"{datetime.date.today()}, commit {commit}.\n\n```\n{said}\n```\n"
    )


def put(part: str, section: str) -> None:
    """Put a section in its place on the page."""
    head, *others = re.split(r"(?m)^(?=## )", PAGE.read_text(encoding="utf-8"))
    sections = {other.split()[1]: other for other in others} | {part: section}
    text = "\n".join(sections[each].strip() + "\n" for each in PARTS if each in sections)
    PAGE.write_text(f"{head}{text}", encoding="utf-8")


def main(parts: list[str]) -> bool:
    """Run parts, put what came of each on the page, and return whether all passed."""
    passed = []
    for part in parts:
        good, section = ran(part)
        passed.append(good)
        print(section, flush=True)
        put(part, section)
    return all(passed)


if __name__ == "__main__":
    raise SystemExit(not main(sys.argv[1:] or list(PARTS)))
