"""Make the same again in clean clones: other folders, other numbers of cores.

`python tests/clones.py 2 report@digits` clones this checkout's HEAD twice, runs `dvc repro` of the
targets in both side by side, in the second on one core alone, and compares what dvc.lock says of
every stage that ran: with each other, and with what is committed. It prints the counts as JSON;
exit code 1 when the clones differ, or a single one from what is committed (as it does on another
processor). Aside are run.json, which tells of seconds, and the pages, which show it.

TensorFlow splits its sums by its threads, of which it has as many as there are cores. So their
number is set here, to the two with which the committed figures were made. OpenBLAS does so where
it has no kernel with AVX-512 for the processor, as for one that has it but is newer than OpenBLAS,
and takes no more threads than there are cores: one, there.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np  # noqa: F401  (with it OpenBLAS is loaded, which is asked for its kernels)
import yaml
from threadpoolctl import threadpool_info

ROOT = Path(__file__).parent.parent
WITH_AVX512 = {"SkylakeX", "Cooperlake", "SapphireRapids"}  # kernels, as OpenBLAS calls them
THREADS = {"TF_NUM_INTRAOP_THREADS": "2"}
if not {library.get("architecture") for library in threadpool_info()} <= WITH_AVX512:
    THREADS["OPENBLAS_NUM_THREADS"] = "1"


def outputs(lock: Path) -> dict[str, str]:
    """Return the digest of every output in dvc.lock, by stage and path, but of those that tell of
    seconds.
    """
    stages = yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"]
    return {
        f"{name}: {out['path']}": out["md5"]
        for name, stage in stages.items()
        for out in stage.get("outs", [])
        if not out["path"].startswith("reports/") and not out["path"].endswith("/run.json")
    }


def made(clone: Path, targets: list[str], cores: set[int]) -> dict[str, str]:
    """Clone HEAD, run the targets on some cores, and return the outputs of what ran.

    The thread that calls it keeps to these cores from then on.
    """
    os.sched_setaffinity(0, cores)  # of this thread, and of what it starts
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    (clone / "dvc.lock").unlink()  # nothing is taken for granted
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(
        [sys.executable, "-m", "dvc", "repro", *targets],
        cwd=clone,
        env=os.environ | THREADS | {"PATH": path, "PYTHONPATH": str(clone)},
        stdout=sys.stderr,
        check=True,
    )
    return outputs(clone / "dvc.lock")


def main(clones: int, targets: list[str]) -> dict:
    """Make the targets in so many clones, and return what came of it."""
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(clones) as pool:
        first, *others = pool.map(
            lambda number: made(
                Path(folder, "clone" * (number + 1)), targets, {min(cores)} if number else cores
            ),
            range(clones),
        )
    committed = outputs(ROOT / "dvc.lock")
    return {
        "outputs": len(first),
        "clones": clones,
        "other than in the first clone": [
            name for found in others for name in first if found.get(name) != first[name]
        ],
        "other than committed": [name for name in first if committed.get(name) != first[name]],
    }


if __name__ == "__main__":
    counts = main(int(sys.argv[1]), sys.argv[2:])
    print(json.dumps(counts, indent=2))
    compared = "other than in the first clone" if counts["clones"] > 1 else "other than committed"
    raise SystemExit(bool(counts[compared]))
