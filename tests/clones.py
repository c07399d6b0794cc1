"""Make the same twice: two clean clones, other folders, other times, and other numbers of cores.

`python tests/clones.py report@digits` clones this checkout's HEAD twice, runs `dvc repro` of the
targets in both, the second time on one core alone, and compares what dvc.lock says of every stage
that ran: with each other, and with what is committed. It prints the counts as JSON; exit code 1
when an output differs. Aside are run.json, which tells of seconds, and the pages, which show it.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
TIMED = ("reports/", "/run.json")


def outputs(lock: Path) -> dict[str, str]:
    """Return the digest of every output in dvc.lock, by stage and path, but of those that tell of
    seconds.
    """
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        f"{name}: {out['path']}": out["md5"]
        for name, stage in stages.items()
        for out in stage.get("outs", [])
        if not out["path"].startswith(TIMED[0]) and not out["path"].endswith(TIMED[1])
    }


def made(clone: Path, targets: list[str], cores: set[int]) -> dict[str, str]:
    """Clone HEAD, run the targets on some cores, and return the outputs of what ran."""
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / "dvc.lock").unlink()  # nothing is taken for granted
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *targets],
        cwd=clone,
        env=os.environ | {"PATH": path, "PYTHONPATH": str(clone)},
        stdout=sys.stderr,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return outputs(clone / "dvc.lock")


def main(targets: list[str]) -> dict:
    """Make the targets twice, and return what came of it."""
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        first = made(Path(one, "first"), targets, cores)
        second = made(Path(other, "a/second"), targets, {min(cores)})
    committed = outputs(ROOT / "dvc.lock")
    return {
        "outputs": len(first),
        "cores": [len(cores), 1],
        "other in the second clone": [name for name in first if second.get(name) != first[name]],
        "other than committed": [name for name in first if committed.get(name) != first[name]],
    }


if __name__ == "__main__":
    found = main(sys.argv[1:])
    print(json.dumps(found, indent=2))
    raise SystemExit(bool(found["other in the second clone"]))
