"""Time training beside its bare step: `python -m benchmarks.throughput cifar100-resnet`.

Images a second of an experiment's own network, objective, batch and precision, on random images, in
turn: the pipeline's loop, which draws and augments each batch; the compiled step alone on one batch
that never changes, the most that any input could reach; for a classifier by `resnet9` the same in
plain PyTorch and, on TensorFlow, with Keras' batch normalisation in place of the fused one or the
other way round. Also the share of what this machine's matrix product reaches. Five minutes of two
cores; with KERAS_BACKEND=jax and a GPU, where PyTorch has it as well, two.
"""

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch._dynamo  # torch.optim needs it; imported after TensorFlow, its triton crashes Python
from torch import nn

from stages import augmentation, backend, params, train
from stages.assembly import assemble
from stages.backend import keras
from stages.command import run
from stages.objectives import Objective

GPU = not backend.device_names()[0].startswith("cpu")
STEPS, ROUNDS = (100, 3) if GPU else (12, 5)


class Same:
    """One batch again and again, for as many steps."""

    def __init__(self, batch: tuple[np.ndarray, np.ndarray]):
        self.batch = batch

    def __len__(self) -> int:
        return STEPS

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield it."""
        return itertools.repeat(self.batch, STEPS)


class Block(nn.Sequential):
    """A convolution as in stages/networks/resnet9.py."""

    def __init__(self, before: int, after: int, momentum: float, *, stride: int = 1, pool: int = 1):
        convolution = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        normalised = nn.BatchNorm2d(after, eps=1e-3, momentum=1 - momentum)
        halved = [nn.MaxPool2d(pool)] if pool > 1 else []
        super().__init__(convolution, *halved, normalised, nn.ReLU())


class Residual(nn.Module):
    """A stage as in stages/networks/resnet9.py."""

    def __init__(self, before: int, after: int, momentum: float):
        super().__init__()
        self.first = Block(before, after, momentum, pool=2)
        self.rest = nn.Sequential(Block(after, after, momentum), Block(after, after, momentum))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Add to the first convolution what two more make of it."""
        first = self.first(images)
        return first + self.rest(first)


def in_pytorch(
    experiment: params.Experiment, classes: int, images: np.ndarray, labels: np.ndarray
) -> Callable:
    """Return so many bare steps of the same networks, losses and optimizer in plain PyTorch."""
    given = experiment.network.settings
    widths = [given["stem"], *given["filters"]]
    momentum, code = given["momentum"], given["dense"] or widths[-1]
    temperature = experiment.objective.settings["temperature"]
    device = "cuda" if GPU else "cpu"
    torch.backends.cudnn.benchmark = True

    def member() -> nn.Module:
        dense = (
            nn.Linear(widths[-1], code, bias=False),
            nn.BatchNorm1d(code, eps=1e-3, momentum=1 - momentum),
            nn.ReLU(),
        )
        return nn.Sequential(
            Block(images.shape[-1], widths[0], momentum, stride=given["stride"]),
            *(Residual(a, b, momentum) for a, b in itertools.pairwise(widths)),
            nn.AdaptiveMaxPool2d(1),
            nn.Flatten(),
            *(dense if given["dense"] else ()),
            nn.Linear(code, classes),
        )

    networks = nn.ModuleList(member() for _ in range(given["members"]))
    networks.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        networks.parameters(),
        lr=0.01,
        momentum=0.9,
        nesterov=True,
        weight_decay=experiment.training.optimizer.settings.get("weight_decay", 0),
    )
    targets = torch.from_numpy(labels.reshape(len(labels), -1)).to(device)  # a column a member
    inputs = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
    half = keras.config.dtype_policy().name == "mixed_bfloat16"

    def step() -> torch.Tensor:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=half):
            pixels = inputs.float().mul(given["scale"]).add(given["offset"])
            pixels = pixels.contiguous(memory_format=torch.channels_last)
            outputs = [network(pixels) for network in networks]
        logits = torch.stack(outputs, dim=-1).float() / temperature
        loss = len(networks) * nn.functional.cross_entropy(logits, targets)  # a sum over members
        loss.backward()
        optimizer.step()
        return loss.detach()

    return lambda: [step() for _ in range(STEPS)][-1].item()


def operations(model: keras.Model) -> int:
    """Return the floating-point operations of training on one image: thrice the forward pass."""
    total = 0
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Conv2D):
            total += 2 * math.prod(layer.kernel.shape) * math.prod(layer.output.shape[1:3])
        elif isinstance(layer, keras.layers.Dense):
            total += 2 * math.prod(layer.kernel.shape)
    return 3 * total


def matrix_rate() -> float:
    """Return floating-point operations a second of large matrix products, the best of five."""
    side, products = (8192, 20) if GPU else (4096, 1)
    drawn = np.random.default_rng(0).normal(0, side**-0.5, (side, side))
    a = keras.ops.convert_to_tensor(drawn, keras.config.dtype_policy().compute_dtype)
    best = np.inf
    for _ in range(6):
        begin, b = time.perf_counter(), a
        for _ in range(products):
            b = keras.ops.matmul(a, b)
        float(b[0, 0])
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 * products / best


def ready(experiment: params.Experiment, images: np.ndarray) -> Objective:
    """Return the experiment's objective for such images, its model compiled."""
    _, objective = assemble(experiment, images.shape[2:], len(images))
    train.make_ready(objective, experiment.training, steps=1000)
    return objective


def main(name: str) -> None:
    """Print images a second of each way: the median of the rounds, and ratios round by round."""
    experiment = params.load().experiment(name)
    training, given = experiment.training, experiment.images
    rng = np.random.default_rng(0)
    examples = -(-training.batch * (STEPS + 1) // given.classes)
    shape = (given.size, given.size, given.channels)
    images = rng.integers(0, 256, (given.classes, examples, *shape), dtype=np.uint8)
    if training.augmentation.rotated_classes:
        images = augmentation.with_rotated_classes(images)
    backend.set_up(1, precision=training.precision, jit_compile=training.jit_compile)
    objective = ready(experiment, images)
    model = objective.model
    fixed = training.model_copy(update={"steps": STEPS, "progressive_resizing": []})
    batches = train.Batches(images, objective, fixed, 1, augment=True)
    one, targets = batches.batch(0)
    ways: dict[str, Callable] = {
        "pipeline": lambda: train.one_pass(model, batches, "", learn=True),
        "bare step": lambda: train.one_pass(model, Same((one, targets)), "", learn=True),
    }
    settings = experiment.network.settings
    if (experiment.network.name, experiment.objective.name) == ("resnet9", "classifier"):
        ways["PyTorch, bare step"] = in_pytorch(experiment, len(images), one, targets)
        if keras.backend.backend() == "tensorflow":
            fused = not settings["fused"]
            network = experiment.network.model_copy(update={"fused": fused})
            other = ready(experiment.model_copy(update={"network": network}), images).model
            ways["bare step, fused" if fused else "bare step, not fused"] = lambda: train.one_pass(
                other, Same((one, targets)), "", learn=True
            )
    for way in ways.values():
        way()  # compiled, and warm
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, steps in ways.items():
            begin = time.perf_counter()
            steps()
            rates[way].append(STEPS * len(one) / (time.perf_counter() - begin))
    print(f"{name}: {keras.config.dtype_policy().name}, batches of {len(one)}")
    for way, found in rates.items():
        ratios = [ours / theirs for ours, theirs in zip(rates["pipeline"], found, strict=True)]
        print(
            f"{way:20} {statistics.median(found):7.0f} images/s; the pipeline's in a round: "
            f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    reached = statistics.median(rates["pipeline"]) * operations(model)
    most = matrix_rate()
    print(
        f"{reached / 1e9:.0f} of {most / 1e9:.0f} GFLOP/s of a matrix product: {reached / most:.0%}"
    )


if __name__ == "__main__":
    run(main)
