"""Keras on whichever backend runs it: imported here, quietly, and made deterministic.

TensorFlow is the default; `KERAS_BACKEND=jax` or `torch` runs the same code on another one.
"""

import contextlib
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import IO

from stages import files
from stages.command import UserError


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Hold back what is written to standard error, and show it only when the block fails.

    TensorFlow greets on every start, below the level at which its own setting takes hold.
    """
    shown = os.dup(2)
    with _place_to_hold() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _place_to_hold() -> IO[bytes]:
    try:
        return tempfile.TemporaryFile()
    except OSError:  # a full disk
        return open(os.devnull, "r+b")


@contextlib.contextmanager
def _without(names: set[str]) -> Iterator[None]:
    """Let packages that nothing has imported yet seem not to be installed in the block."""
    hidden = {name: None for name in names if name not in sys.modules}
    sys.modules.update(hidden)
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


os.environ.setdefault("KERAS_BACKEND", "tensorflow")  # whatever ~/.keras/keras.json says
# What Keras and TensorFlow import where it happens to be installed, for functions that no stage
# calls. It takes as long as all that is needed: 4 of 8 seconds at the start of a stage.
_UNUSED = {"matplotlib", "sklearn"}
_UNUSED |= {"jax", "scipy"} if os.environ["KERAS_BACKEND"] == "tensorflow" else {"tensorflow"}
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # errors that matter come as exceptions
# Where TensorFlow runs operations side by side, the gradient of a convolution's kernel is summed in
# an order that changes, although determinism is asked for (found with 512 images of 28 x 28).
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
# TensorFlow by itself leaves oneDNN's convolutions to processors with AVX-512. On one with AVX2
# alone, too, they train the networks here 1.4 to 2.5 times as fast.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
try:
    with _quietly(), _without(_UNUSED):
        import keras

        keras.utils.set_random_seed(0)  # which looks for TensorFlow, here and never again
except (ImportError, ValueError) as error:
    raise SystemExit(
        f"KERAS_BACKEND={os.environ['KERAS_BACKEND']}: {error}; expected tensorflow, jax or torch, "
        "installed"
    ) from None

_FLAGS = Path("/proc/cpuinfo")
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # of x86, of x86's matrix units, of Arm


def device_names() -> list[str]:
    """Return the names of the devices; with torch, which Keras cannot ask, of the one it uses."""
    if keras.backend.backend() != "torch":
        return keras.distribution.list_devices()
    import torch

    return ["cuda:0" if torch.cuda.is_available() else "cpu:0"]


def computes_bfloat16() -> bool:
    """Tell whether the device that trains multiplies in bfloat16 by itself.

    A processor that does not still can, some fifteen times slower than in float32.
    """
    if not all(device.startswith("cpu") for device in device_names()):
        return True
    return _FLAGS.is_file() and not _BFLOAT16.isdisjoint(_FLAGS.read_text().split())


def set_up(seed: int, *, precision: str = "float32", jit_compile: bool | str = "auto") -> None:
    """Seed Python, NumPy and the backend, and ask the backend for the same bytes every time.

    Args:
        seed: of all three.
        precision: in which layers compute, a Keras dtype policy; weights are float32. Mixed
            bfloat16 is float32 where the device cannot compute it.
        jit_compile: as in Keras' `Model.compile`. True leaves TensorFlow free to take other bytes:
            Keras compiles nothing by XLA where it must take the same.
    """
    keras.utils.set_random_seed(seed)
    if precision == "mixed_bfloat16" and not computes_bfloat16():
        precision = "float32"
    keras.config.set_dtype_policy(precision)
    if keras.backend.backend() == "tensorflow" and jit_compile is not True:
        import tensorflow

        tensorflow.config.experimental.enable_op_determinism()


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Batch normalisation of (batch, height, width, channels) as one operation of TensorFlow.

    Keras composes it of some ten, each of which reads and writes all values, and its gradient of
    more; under mixed bfloat16 all of them in float32 (Ioffe and Szegedy 2015, section 3.1, is the
    formula of both). Weights and moving statistics are those of Keras' layer up to rounding. Other
    backends take Keras' own, which JAX's compiler joins by itself.
    """

    def call(self, inputs, training=None, mask=None):
        """Normalise by the batch's own statistics, or by the moving ones outside training."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow

        # As Keras' layer does it: scales and statistics in float32 whatever the images are.
        gamma, beta = (tensorflow.cast(each, "float32") for each in (self.gamma, self.beta))
        by_batch = bool(training and self.trainable)
        outputs, mean, variance = tensorflow.compat.v1.nn.fused_batch_norm(
            inputs,
            gamma,
            beta,
            mean=None if by_batch else self.moving_mean,
            variance=None if by_batch else self.moving_variance,
            epsilon=self.epsilon,
            is_training=by_batch,
        )
        if by_batch:
            # TensorFlow's variance is that of the population that the batch is drawn from, which
            # divides by one value less; Keras' moving variance is of the batch itself.
            values = tensorflow.cast(
                tensorflow.reduce_prod(tensorflow.shape(inputs)[:-1]), "float32"
            )
            variance *= (values - 1) / values
            for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return outputs


def versions() -> dict[str, str]:
    """Return the installed versions of all that the bytes of a training may depend on."""
    found = {}
    for package in ("keras", "numpy", "tensorflow", "jax", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def description() -> dict[str, object]:
    """Return what a run's speed and last bits depend on: device, precision, cores, versions."""
    backend = keras.backend.backend()
    return {
        "device": ", ".join(device_names()),
        "precision": keras.config.dtype_policy().name,
        "cores": os.cpu_count(),
        "backend": backend,
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("keras", backend, "numpy")},
        },
    }


def load_weights(model: keras.Model, path: Path) -> None:
    """Load weights into a model.

    Raises:
        UserError: when the file is missing, damaged or of another network.
    """
    try:
        model.load_weights(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:  # RuntimeError: HDF5's
        raise UserError(
            f"{path}: no weights of this network in it ({str(error)[:200]}); "
            f"delete it and run {files.maker_of(path)}"
        ) from None
