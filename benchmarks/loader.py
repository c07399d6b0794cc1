"""Time the reader of Tiny ImageNet beside the assignment's loader: python -m benchmarks.loader.

The assignment's way opens one file at a time and joins each class to all those before it. Both
read the same archive, made here of random pictures in the official layout (unpacked for the
assignment's way, outside the clock), and must come to the same array. In turn, each with the
other's array given back before it: memory that a virtual machine is given for the first time costs
whoever asks for it a second or two. Medians of the rounds. The reader's peak of memory is that of a
process of its own. Three to ten minutes.
"""

import hashlib
import io
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

from stages.readers import tinyimagenet

CLASSES, EXAMPLES, SIDE = 200, 500, 64
ROUNDS = 5
QUALITY = 75  # the official files' quantisation tables; their 1,945 bytes on average are 1,908 here


def write(folder: Path) -> None:
    """Write the archive: a thousand pictures, each under many names."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(1000):
        coarse = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        file = io.BytesIO()
        PIL.Image.fromarray(coarse).resize((SIDE, SIDE)).save(file, "JPEG", quality=QUALITY)
        pictures.append(file.getvalue())
    with zipfile.ZipFile(folder / "tiny-imagenet-200.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        top = "tiny-imagenet-200"
        archive.writestr(f"{top}/words.txt", "")
        for label in range(CLASSES):
            for example in range(EXAMPLES):
                name = f"n{label:08}_{example}.JPEG"
                content = pictures[(label * EXAMPLES + example) * 7 % len(pictures)]
                archive.writestr(f"{top}/train/n{label:08}/images/{name}", content)


def one_file_at_a_time(folder: Path) -> np.ndarray:
    """Return uint8 arrays joined class by class, as the assignment's notebook does."""
    images = np.zeros((0, EXAMPLES, SIDE, SIDE, 3), np.uint8)
    classes = (folder / "tiny-imagenet-200/train").iterdir()
    for of_class in sorted(path for path in classes if path.is_dir()):
        loaded = []
        for path in sorted((of_class / "images").iterdir()):
            with PIL.Image.open(path) as image:
                loaded.append(np.array(image.convert("RGB")))
        images = np.concatenate([images, np.array(loaded)[None]])
    return images


def from_the_zip(folder: Path) -> np.ndarray:
    """Return the same array, as the pipeline reads it."""
    return tinyimagenet.read(folder).parts["train"].images


def memory(folder: Path) -> float:
    """Return the reader's peak of memory in GiB, of a process that this one is still small for."""
    program = (
        "import pathlib, sys; from stages.readers import tinyimagenet; "
        "tinyimagenet.read(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, folder], check=True)
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20


def timed(load: Callable[[Path], np.ndarray], folder: Path) -> tuple[float, str]:
    """Return the seconds that `load` takes, and its array's digest: the array is given back."""
    begin = time.perf_counter()
    images = load(folder)
    return time.perf_counter() - begin, hashlib.sha256(images).hexdigest()


def main() -> None:
    ways = {
        "one file at a time, joined class by class": one_file_at_a_time,
        "stages.readers.tinyimagenet, from the zip": from_the_zip,
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder)
        peak = memory(folder)
        with zipfile.ZipFile(folder / "tiny-imagenet-200.zip") as archive:
            archive.extractall(folder)
        print(f"{CLASSES * EXAMPLES:,} JPEG files, seconds in {ROUNDS} rounds, and their median")
        digests = set()
        for _ in range(ROUNDS):
            for way, load in ways.items():
                taken, digest = timed(load, folder)
                seconds[way].append(taken)
                digests.add(digest)
    if len(digests) != 1:
        raise RuntimeError("the images differ")
    for way, taken in seconds.items():
        rounds = "".join(f"{each:7.1f}" for each in taken)
        print(f"{way}{rounds}{statistics.median(taken):8.1f}")
    ratios = [theirs / reader for theirs, reader in zip(*seconds.values(), strict=True)]
    print(
        f"ratio, median of the rounds                {statistics.median(ratios):.1f}"
        f" ({min(ratios):.1f} to {max(ratios):.1f})"
    )
    print(f"the reader's memory at most, GiB           {peak:.2f}")


if __name__ == "__main__":
    main()
