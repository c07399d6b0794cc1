"""Where the parts of a stage's work are done: in this process, or by Dask's workers.

A stage cuts its work into jobs, calls of a function of a module. Whoever does them, results come
in the order of the jobs, and each is what the function returns here: nothing that a stage writes
depends on the engine. Workers need no folder of ours: what a job reads travels with it.
"""

import collections
import concurrent.futures
import contextlib
import importlib
import itertools
import logging
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from stages.command import UserError

_SECONDS = 10  # until a scheduler has answered
_SECONDS_OF_QUEUE = 60  # until a first worker is there
_AHEAD = 2  # jobs for each thread of the workers: one that it does and one that waits for it

_ALIGNED = 16  # bytes of which an array's address is a multiple, as NumPy's own are

# Workers that may be lost in the middle of one job before it is taken for the cause. Dask gives up
# after three, which machines that are taken back reach within a long job.
_LOSSES = 20


class Here:
    """The process itself does the work, a job at a time, when its result is asked for."""

    def share(self, value: Any) -> Any:
        """Return what stands for a value in jobs: the value."""
        return value

    def map(self, function: Callable, jobs: Iterable[tuple]) -> Iterator[Any]:
        """Yield `function(*job)` for each job, in their order."""
        return itertools.starmap(function, jobs)


HERE = Here()


class OnDask:
    """Dask's workers do the work, several jobs at a time; a worker that is lost costs its jobs."""

    def __init__(self, client: Any):
        self._client = client

    def share(self, value: Any) -> Any:
        """Return what stands for a value in jobs, so that a worker gets it once.

        The value is the result of a task and not scattered: a worker that is lost takes scattered
        data with it, but the result of a task is made again.
        """
        return self._submitted(_itself, _Carried(value))

    def map(self, function: Callable, jobs: Iterable[tuple]) -> Iterator[Any]:
        """Yield `function(*job)` for each job, in their order.

        Jobs are taken as workers get free, so that neither they nor their results pile up.

        Args:
            function: of a module, or a builtin.
            jobs: the arguments of each call; what `share` returned may be one of them.

        Raises:
            UserError: when the scheduler is lost, or workers that do one job.
            Exception: what a job raises, as it is.
        """
        from distributed import Future

        under_way: collections.deque = collections.deque()
        for job in jobs:
            given = (each if isinstance(each, Future) else _Carried(each) for each in job)
            under_way.append(self._submitted(_result_of, _Carried(function), *given))
            while len(under_way) >= self._capacity():
                yield self._result(under_way.popleft())
        while under_way:
            yield self._result(under_way.popleft())

    def _capacity(self) -> int:
        """Return how many jobs the workers that are there now are given at a time."""
        with self._reached():
            return max(_AHEAD, _AHEAD * sum(self._client.nthreads().values()))

    def _submitted(self, function: Callable, *arguments: Any) -> Any:
        with self._reached():
            return self._client.submit(function, *arguments, pure=False)

    def _result(self, future: Any) -> Any:
        from distributed import KilledWorker
        from distributed.comm import CommClosedError

        try:
            return future.result()
        except KilledWorker as error:
            raise UserError(
                f"params.yaml: cluster.scheduler: {error.allowed_failures + 1} workers ended while "
                "they did the same job, most likely for lack of memory; smaller codes.batch or "
                "retrieval.memory, or more cluster.shards, need less"
            ) from None
        except (concurrent.futures.CancelledError, CommClosedError):
            raise self._lost() from None

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # a connection that is closed is one, too
            raise self._lost() from None
        except Exception:
            if self._client.status == "running":
                raise
            raise self._lost() from None

    def _lost(self) -> UserError:
        return UserError(
            "params.yaml: cluster.scheduler: the connection to Dask's scheduler was lost in the "
            "middle of the work; see that it runs, and run dvc repro again"
        )


class _Carried:
    """A value on its way to workers.

    Dask hands arrays over as they lie in a message, at any address. NumPy multiplies those that
    do not lie at a multiple of their items' size without BLAS: slowly, and rounded in another way.
    So whatever lies badly is copied, once, when it arrives.
    """

    def __init__(self, value: Any):
        self.value = value

    def __reduce__(self) -> tuple:
        return _arrived, _packed(self.value)

    def __sizeof__(self) -> int:
        """Return the bytes, by which Dask decides where to do what reads them."""
        head, *buffers = _packed(self.value)
        return len(head) + sum(buffer.raw().nbytes for buffer in buffers)


def _packed(value: Any) -> tuple:
    """Return a value as bytes, and the memory of its arrays."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return head, *buffers


def _arrived(head: bytes, *buffers: Any) -> _Carried:
    arrays = [np.frombuffer(buffer, np.uint8) for buffer in buffers]
    aligned = [each.copy() if each.ctypes.data % _ALIGNED else each for each in arrays]
    return _Carried(pickle.loads(head, buffers=aligned))


def _itself(value: Any) -> Any:
    return value


def _result_of(function: _Carried, *arguments: _Carried) -> Any:
    return function.value(*(each.value for each in arguments))


@contextlib.contextmanager
def engine(scheduler: int | str | None) -> Iterator[Here | OnDask]:
    """Yield who does the work.

    Args:
        scheduler: `cluster.scheduler` of params.yaml: None for this process, a number of workers
            that are started on this machine and ended with the block, or the address of a
            scheduler.

    Raises:
        UserError: when Dask is not installed, the scheduler cannot be reached or no worker is
            there.
    """
    if scheduler is None:
        yield HERE
        return
    try:
        import dask
        import distributed
    except ImportError:
        raise UserError(
            "params.yaml: cluster.scheduler: Dask is not installed: pip install -e '.[cluster]'"
        ) from None
    # What it logs of lost workers and connections, this module says in one line where it matters.
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == "distributed":
            logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {
        "distributed.admin.large-graph-warning-threshold": "1TB",  # jobs carry their images
        "distributed.scheduler.allowed-failures": _LOSSES,
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        if isinstance(scheduler, int):
            cluster = distributed.LocalCluster(
                n_workers=scheduler,
                threads_per_worker=1,
                dashboard_address=None,
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},  # two runs, two free ports
                memory_limit=0,  # they share this machine's
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
            client = distributed.Client(cluster)
        else:
            try:
                client = distributed.Client(scheduler, timeout=_SECONDS)
            except (OSError, TypeError, ValueError) as error:  # the others: of what is no address
                raise UserError(
                    f"params.yaml: cluster.scheduler: no Dask scheduler answers at {scheduler} "
                    f"({error}); start one with `dask scheduler`, or set it to null"
                ) from None
        stack.enter_context(client)
        until = time.monotonic() + _SECONDS_OF_QUEUE
        while not client.nthreads():
            if time.monotonic() > until:
                raise UserError(
                    f"params.yaml: cluster.scheduler: no worker came to {scheduler} within "
                    f"{_SECONDS_OF_QUEUE} seconds; start some with `dask worker {scheduler}`"
                )
            time.sleep(0.1)
        try:  # a worker that does not know a job's function does not say so: it ends
            client.run_on_scheduler(importlib.import_module, __name__)
            client.run(importlib.import_module, __name__)
        except ImportError as error:
            raise UserError(
                f"params.yaml: cluster.scheduler: {error} at {scheduler}; its scheduler and "
                "workers need this project, too: pip install -e '.[cluster]'"
            ) from None
        yield OnDask(client)
