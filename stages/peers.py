"""The processes of one training, on this machine or on many, each with devices of its own.

Stage `train` starts them, `python -m stages.peers <experiment>` each, where params.yaml says
`cluster.launcher`: a number of processes on this machine, or a command that starts them on others
(srun, mpirun), where jax finds by itself who the others are. They share the project's folder,
compute with jax whatever the other stages compute with, and leave the state of every epoch where
`train` goes on from it.
"""

import importlib.util
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time

from stages.command import UserError, run

# What jax says when it waits for a process in vain: its collectives, or its coordination service.
_LOST = re.compile("Gloo|NCCL|coordination service|UNAVAILABLE|DEADLINE_EXCEEDED")

_SECONDS = 10  # that a process is given to end by itself when another one was lost


def train_together(launcher: int | str, name: str) -> None:
    """Have an experiment trained to its end by several processes; its state is kept.

    Args:
        launcher: how many processes on this machine, or the command that starts them.
        name: the experiment's name.

    Raises:
        UserError: when jax is missing, or one of the processes fails: the others are ended, and
            what was finished is kept.
    """
    if importlib.util.find_spec("jax") is None:
        raise UserError(
            "params.yaml: cluster.launcher: several processes train with jax, which is not "
            "installed: pip install -e '.[cluster]'"
        )
    command = [sys.executable, "-m", "stages.peers", name]
    count, others = 1, {}
    if isinstance(launcher, str):
        try:
            command = [*shlex.split(launcher), *command]
        except ValueError as error:
            raise UserError(
                f"params.yaml: cluster.launcher: no command: {error}. Received: {launcher!r}"
            ) from None
    else:
        count = launcher
        others = {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{_free_port()}",
            "KERAS_DISTRIBUTION_NUM_PROCESSES": str(count),
        }
    started: list[subprocess.Popen] = []
    lost: list[str] = []
    try:
        for rank in range(count):
            own = others and {"KERAS_DISTRIBUTION_PROCESS_ID": str(rank)}
            started.append(subprocess.Popen(command, env=os.environ | others | own))
        running = True
        while running and not lost:
            time.sleep(0.1)
            ended = [each.poll() for each in started]
            running = None in ended
            lost = [
                f"process {rank} of {count} {_how(code)}"
                for rank, code in enumerate(ended, 1)
                if code
            ]
    finally:
        _end(started)
    if lost:
        raise UserError(
            f"training by several processes: {', '.join(lost)}; the epochs that were finished are "
            "kept: dvc repro goes on from there"
        )


def _how(code: int) -> str:
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"failed with {code}"


def _end(started: list[subprocess.Popen]) -> None:
    """End those that still run."""
    for each in started:
        each.terminate()
    until = time.monotonic() + _SECONDS
    for each in started:
        try:
            each.wait(max(0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            each.kill()
            each.wait()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _end_with(parent: int) -> None:
    """End this process when the one that started it has: nobody would wait for the result."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main(name: str) -> None:
    """Train one experiment with the others, and keep its state."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    # A process whose others are lost ends at once, by the signal that it is sent.
    os.environ |= {"KERAS_BACKEND": "jax", "JAX_ENABLE_PREEMPTION_SERVICE": "0"}
    from stages import params, train
    from stages.backend import keras

    try:
        keras.distribution.initialize()
        train.fit(**train.inputs(params.load(), name))
    except (RuntimeError, ValueError) as error:
        if not _LOST.search(str(error)):
            raise
        raise UserError(f"lost the other processes ({str(error).splitlines()[0]})") from None


if __name__ == "__main__":
    run(main)
