"""Kill `dvc repro` at random moments, go on, and compare what comes out with a run left alone.

`python tests/interruptions.py 50 1` kills 50 times, at moments drawn with seed 1, and prints the
counts as JSON; exit code 1 when something was lost or came out otherwise.

The project is small, but real in kind: an archive from a slow server on this machine, prepared,
trained on, encoded and measured. A whole process group gets SIGKILL, DVC and the stage in it. A
run that reaches its end is compared, and the next one starts from nothing.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import archives

ROOT = Path(__file__).parent.parent
DATASET, EXPERIMENT = "cifar100", "cifar100-siamese"
LONGEST = (5.0, 20.0)  # seconds until a kill, for the short stages and for the long ones
SERVED = 400_000  # bytes a second


class SlowServer(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder slowly, from where it is asked to."""

    def do_GET(self):
        """Send a file, or what is left of it after the start of a Range."""
        content = Path(self.translate_path(self.path)).read_bytes()
        start = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(start[1]) if start else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if start:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            for place in range(first, len(content), SERVED // 20):
                self.wfile.write(content[place : place + SERVED // 20])
                time.sleep(1 / 20)

    def log_message(self, *_):
        """Say nothing."""


def write_pipeline(folder: Path, *, epochs: int = 30, steps: int = 6) -> None:
    """Write a checkout of this pipeline with one small dataset and one experiment of it."""
    shutil.copytree(ROOT / "stages", folder / "stages")
    shutil.copy(ROOT / "dvc.yaml", folder)
    params = archives.write_project(folder)
    chosen = params["experiments"][EXPERIMENT]
    chosen["training"] |= {"epochs": epochs, "steps": steps}
    params |= {
        "datasets": {DATASET: params["datasets"][DATASET]},
        "experiments": {EXPERIMENT: chosen},
        "seeds": {},
        "check": {EXPERIMENT: params["check"][EXPERIMENT]},
    }
    archives.write_params(folder, params)
    dvc(folder, "init", "--no-scm", "--quiet")
    dvc(folder, "config", "core.analytics", "false")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the variables that a run in a folder is given."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1"} | more


def dvc(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    """Run DVC in a folder to its end."""
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder, env=environment(folder, **more), capture_output=True, text=True,
    )  # fmt: skip


def outputs(folder: Path) -> dict[str, str]:
    """Return the digest of everything that a run makes, but of what tells of seconds."""
    tops = ("data", "metrics", "predictions")
    made = [path for top in tops for path in (folder / top).rglob("*")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in made
        if path.is_file() and path.name != "run.json"
    }


def reset(folder: Path) -> None:
    """Bring a project back to where nothing has run."""
    for name in ("data", "metrics", "predictions", "reports", ".resume", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "dvc.lock").unlink(missing_ok=True)


class Run:
    """A `dvc repro` in a process group of its own, with its words in a file."""

    def __init__(self, folder: Path, mirror: str):
        self.log = folder / "log"
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "repro", f"report@{DATASET}"],
                cwd=folder, env=environment(folder, NEURAL_CODES_MIRROR=mirror),
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """Kill DVC and the stage that it runs."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def words(self) -> str:
        """Return what was printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stage(self) -> str:
        """Return the stage that was running last, or `dvc` before the first one."""
        started = re.findall(r"Running stage '(\w+)@", self.words())
        return started[-1] if started else "dvc"

    def unreadable(self) -> Path | None:
        """Return the file of DVC's own that it says it cannot read."""
        if "Unable to read RWLock-file" in self.words():
            return self.log.parent / ".dvc/tmp/rwlock"
        if "'./dvc.lock' validation failed" in self.words():
            return self.log.parent / "dvc.lock"
        return None

    def epochs(self) -> list[int]:
        """Return the numbers of the epochs that it finished."""
        return [int(each) for each in re.findall(r"^epoch (\d+)/", self.words(), re.MULTILINE)]


@dataclasses.dataclass
class Tally:
    """What was done, and what came of it.

    Attributes:
        kills: by the stage that was running.
        files: of DVC's own, that it had left unreadable, and that were removed.
        compared: runs that were compared with one left alone.
        wrong: what must not be.
    """

    kills: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    files: int = 0
    compared: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


def run_to_the_end(folder: Path, mirror: str, rng: random.Random, tally: Tally, *, most: int):
    """Run to the end, killed at random moments until there were `most` kills in all."""
    finished = 0
    while True:
        run = Run(folder, mirror)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.process.wait(
                rng.uniform(0.5, rng.choice(LONGEST)) if tally.kills.total() < most else None
            )
        ended = run.process.poll()
        if ended is None:
            run.kill()
            tally.kills[run.stage()] += 1
        epochs = run.epochs()
        if epochs and epochs[0] <= finished:
            tally.wrong.append(f"epoch {epochs[0]} was done again, {finished} were finished")
        finished = max([finished, *epochs])
        if ended and (damaged := run.unreadable()):
            damaged.unlink()
            tally.files += 1
        elif ended:
            tally.wrong.append(run.words()[-500:])
        if ended == 0 or tally.wrong:
            return


def left_behind(folder: Path) -> list[str]:
    """Return what is there at the end and should not be."""
    resume = [path for path in (folder / ".resume").rglob("*") if path.is_file()]
    return [str(path) for path in [*folder.rglob("*partial*"), *resume]]


def main(kills: int, seed: int, folder: Path) -> dict:
    """Kill `kills` times in a project in `folder`, and return the counts."""
    write_pipeline(folder)
    handler = functools.partial(SlowServer, directory=folder / "mirror")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mirror = f"http://127.0.0.1:{server.server_port}"
    rng, tally = random.Random(seed), Tally()

    run_to_the_end(folder, mirror, rng, tally, most=0)
    expected = outputs(folder)
    while tally.kills.total() < kills and not tally.wrong:
        reset(folder)
        run_to_the_end(folder, mirror, rng, tally, most=kills)
        found = outputs(folder)
        other = [name for name in found | expected if found.get(name) != expected.get(name)]
        tally.wrong += [f"other bytes: {name}" for name in other]
        tally.wrong += [f"left behind: {name}" for name in left_behind(folder)]
        tally.compared += 1
    server.shutdown()
    return {
        "kills": tally.kills.total(),
        "in": dict(sorted(tally.kills.items())),
        "unreadable files of DVC removed": tally.files,
        "runs compared byte for byte": tally.compared,
        "files of each": len(expected),
        "wrong": tally.wrong,
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        counts = main(int(sys.argv[1]), int(sys.argv[2]), Path(place))
    print(json.dumps(counts, indent=2))
    raise SystemExit(bool(counts["wrong"]))
