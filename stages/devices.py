"""Several devices, of this machine or of many: each computes its part of every batch.

The batch stays one: its loss, its batch normalisation and the pairs of its images are those of the
whole batch, wherever its parts are computed, for XLA gathers what a part needs from the others.
So the figures do not depend on the number of devices, but for the order of float32 sums.

Keras has this on the jax backend alone (`keras.distribution`); on others, one device computes.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from stages.backend import keras
from stages.command import UserError


class _Parts(keras.distribution.DataParallel):
    """Weights on every device; of a batch each has a part, or all of it where it has no parts."""

    divided = True

    def get_data_layout(self, data_shape: tuple) -> keras.distribution.TensorLayout:
        if self.divided:
            return super().get_data_layout(data_shape)
        return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)


def use_all() -> None:
    """Have models that are built from now on computed by every device there is."""
    several = keras.backend.backend() == "jax" and len(keras.distribution.list_devices()) > 1
    keras.distribution.set_distribution(_Parts(auto_shard_dataset=False) if several else None)


def part(*batch: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return what this process gives of a batch to the model.

    Every process makes the whole batch, so that draws are the same with any number of them, and
    gives the part of its own devices. A batch that the devices cannot share equally is computed by
    each of them.

    Args:
        batch: images and targets of the whole batch; see `use_all`.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return batch
    import jax

    devices = jax.device_count()
    distribution.divided = len(batch[0]) % devices == 0
    if not distribution.divided:
        return batch
    each = len(batch[0]) // devices
    first = jax.process_index() * jax.local_device_count()
    return tuple(array[first * each : (first + jax.local_device_count()) * each] for array in batch)


def runs_ahead() -> bool:
    """Tell whether a step is computed while the next one is prepared: by one device, with jax.

    Waiting for the figures of every step would leave a GPU idle for some milliseconds each time.
    """
    return keras.backend.backend() == "jax" and keras.distribution.distribution() is None


def is_first() -> bool:
    """Return whether this process is the one that writes and tells: the first, or the only one."""
    if keras.backend.backend() != "jax":
        return True
    import jax

    return jax.process_index() == 0


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Do what only one of several processes does: variables made here are not compared with theirs.

    Keras makes some when it saves weights, and would wait for the others to make them, too.
    """
    distribution = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(distribution)


def agreed(what: str, value: Any) -> None:
    """Make sure that all processes have the same, where they could only wait for each other.

    Raises:
        UserError: when they have not.
    """
    if keras.distribution.distribution() is None:
        return
    from jax.experimental import multihost_utils

    values = multihost_utils.process_allgather(np.asarray(value))
    if (values != value).any():
        raise UserError(
            f"the processes of this training differ in {what}: {np.unique(values)}; they must all "
            "run in one folder that they share, with the same files"
        )
