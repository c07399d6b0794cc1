"""Stage `seeds`: an experiment from more seeds, to tell a better network from a luckier one.

metrics/<dataset>/<experiment>, made from the seed of params.yaml
->  metrics/seeds/<experiment>.json: of each figure the mean, the standard deviation and the values

With another seed differ initial weights, batches, dropout and augmentation; splits and tasks have
seeds of their own and stay. Each seed is run by the stages themselves, in a folder of its own under
.resume/ with a params.yaml in which only the seed differs; what is finished there is not run again.
Where more or fewer seeds are asked for than git's HEAD has, those that it has are not run again
either: with `count: 6` in place of 5 one more is run.
"""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import pydantic
import yaml

from stages import files, params
from stages.command import UserError, run

_STAGES = {  # and the metrics file that each writes when all is there that the next one reads
    "train": "run.json",
    "encode": "network.json",
    "oneshot": "oneshot.json",
    "retrieval": "retrieval.json",
}
_PARTS = ("network", "oneshot", "retrieval")
_MEASURES = ("accuracy", "pair_auc", "mean_average_precision")
# Not of codes alone.
_BESIDE = ("pixels", "untrained", "pca", "expanded", "search", "train", "validation")
_DIGITS = 6  # decimals of a fraction in a metrics file
# As `figures_of` names them: part, task set if it is one-shot, layer and distance, measure.
_PATH = "^(network|oneshot/[^/]+|retrieval)(/[^/]+){3}$"


class Figure(pydantic.BaseModel):
    """One figure from several seeds."""

    mean: pydantic.FiniteFloat
    sd: pydantic.FiniteFloat
    values: list[pydantic.FiniteFloat]


class Spread(pydantic.BaseModel):
    """What metrics/seeds/<experiment>.json holds."""

    seeds: Annotated[list[int], pydantic.Field(min_length=2)]
    figures: dict[Annotated[str, pydantic.Field(pattern=_PATH)], Figure]

    @pydantic.model_validator(mode="after")
    def _values_of_every_seed(self) -> Self:
        if any(len(each.values) != len(self.seeds) for each in self.figures.values()):
            raise ValueError("a figure has not a value of every seed")
        return self

    def runs(self) -> dict[int, dict[str, float]]:
        """Return by seed what it measured."""
        return {
            seed: {path: each.values[place] for path, each in self.figures.items()}
            for place, seed in enumerate(self.seeds)
        }


def figures_of(metrics: Path) -> dict[str, float]:
    """Return the figures of an experiment's trained codes, and of its seen test images.

    Args:
        metrics: the experiment's folder below metrics/.

    Returns:
        Each figure by its path, as in params.yaml's check:
        oneshot/20-way/neural_codes/l2/accuracy.

    Raises:
        UserError: for a file that is missing or no JSON.
    """
    found = {}
    for part in _PARTS:
        figures = {part: files.read_json(metrics / f"{part}.json")}
        for path, value in params.leaves(figures, "/").items():
            *place, measure = path.split("/")
            if measure in _MEASURES and not set(place) & set(_BESIDE):
                found[path] = value
    return found


def spread(runs: list[dict[str, float]]) -> dict[str, dict]:
    """Return of each figure its mean, standard deviation and values over runs from several seeds.

    Args:
        runs: two or more of the same figures; see `figures_of`.

    Raises:
        UserError: when the runs have not the same figures.
    """
    if any(each.keys() != runs[0].keys() for each in runs):
        raise UserError("metrics: seeds differ in what was measured; delete .resume, run dvc repro")
    found = {}
    for path in runs[0]:
        values = np.array([each[path] for each in runs], np.float64)
        found[path] = {
            "mean": round(float(values.mean()), _DIGITS),
            "sd": round(float(values.std(ddof=1)), _DIGITS),  # of a sample: n - 1
            "values": [round(float(value), _DIGITS) for value in values],
        }
    return found


def run_again(name: str, experiment: params.Experiment, seed: int, folder: Path) -> Path:
    """Run an experiment's stages from a seed in a folder, and return its metrics' folder.

    Raises:
        UserError: when a stage fails, which has said why.
    """
    metrics = folder / "metrics" / experiment.dataset / name
    for room in ("arrays", "tasks"):
        link = folder / "data" / room / experiment.dataset
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(Path("data", room, experiment.dataset).resolve())
    given = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    files.write_text(folder / "params.yaml", yaml.safe_dump(given | {"seed": seed}))
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]
    here = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    for stage, last in _STAGES.items():
        if (metrics / last).exists():
            continue
        print(f"seed {seed}: {stage}", flush=True)
        words = [sys.executable, "-m", f"stages.{stage}", name]
        if subprocess.run(words, cwd=folder, env=here, check=False).returncode:
            raise UserError(f"{stage} from seed {seed} failed, see the line before")
    return metrics


def committed(name: str, seeds: list[int], first: dict[str, float]) -> dict[int, dict[str, float]]:
    """Return by seed what is committed and need not be run again.

    That is nothing where the committed seeds are those asked for: then it is not their number for
    which the stage runs, and nothing that is committed may answer for it. It is nothing, too,
    where the first seed measured something else there, or no such file is committed.

    Args:
        name: of the experiment.
        seeds: that are asked for.
        first: what the first of them measured; see `figures_of`.
    """
    words = ["git", "show", f"HEAD:./metrics/seeds/{name}.json"]
    try:
        shown = subprocess.run(words, capture_output=True, check=True).stdout
        found = Spread.model_validate_json(shown)
    except (OSError, subprocess.CalledProcessError, pydantic.ValidationError):
        return {}
    runs = found.runs()
    rounded = {path: round(value, _DIGITS) for path, value in first.items()}
    return runs if found.seeds != seeds and runs.get(seeds[0]) == rounded else {}


def main(name: str) -> None:
    """Run one experiment from its other seeds, and write what all of them measured."""
    settings = params.load()
    if name not in settings.seeds:
        raise UserError(f"params.yaml: seeds: no entry {name!r}; there are: {list(settings.seeds)}")
    experiment = settings.experiment(name)
    metrics = Path("metrics", experiment.dataset, name)
    first = figures_of(metrics)
    # What the first seed measured stands for all that the others depend on: where it has changed,
    # they are run anew.
    digest = hashlib.sha256(repr((experiment, first)).encode()).hexdigest()[:16]
    seeds = [settings.seed + further for further in range(settings.seeds[name].count)]
    there = committed(name, seeds, first)
    runs = [first]
    for seed in seeds[1:]:
        if seed in there:
            print(f"seed {seed}: committed", flush=True)
            runs.append(there[seed])
            continue
        folder = files.state_folder("seeds", f"{name}-{seed}", digest)
        runs.append(figures_of(run_again(name, experiment, seed, folder)))
    files.write_json(
        Path("metrics/seeds", f"{name}.json"), {"seeds": seeds, "figures": spread(runs)}
    )


if __name__ == "__main__":
    run(main)
