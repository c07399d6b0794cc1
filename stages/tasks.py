"""Stage `tasks`: the one-shot tasks of a dataset, drawn once and frozen.

data/arrays/<dataset>  ->  data/tasks/<dataset>/<set>.npy, int32 (tasks, 1 + ways): the query and
its support set as indices into the unseen images. Every method is scored on the same tasks, so
that differences between methods are paired.
"""

from pathlib import Path

import numpy as np

from stages import files, params
from stages.command import UserError, run
from stages.measures.episodes import draw_tasks


def groups_of(names: list[str]) -> np.ndarray:
    """Return int (classes,): the group of each class, the same for names alike before the '/'."""
    groups = [name.rpartition("/")[0] for name in names]
    return np.unique(groups, return_inverse=True)[1]


def main(dataset: str) -> None:
    """Draw and write every task set of one dataset."""
    settings = params.load().dataset(dataset).tasks
    arrays = Path("data/arrays", dataset)
    images = files.read_splits(dataset)["unseen"]
    groups = groups_of(files.read_classes(dataset)["unseen"])
    with files.replacing(Path("data/tasks", dataset)) as folder:
        for name, chosen in settings.sets.items():
            if chosen.draw == "fixed":
                if not (arrays / f"tasks_{name}.npy").exists():
                    raise UserError(
                        f"params.yaml: datasets.{dataset}.tasks.sets.{name}: this dataset comes "
                        "with no tasks of that name whose images are all in split.unseen; take it "
                        "out, or draw all_classes or one_group"
                    )
                tasks = files.read_array(arrays / f"tasks_{name}.npy", dtype="int32", dimensions=2)
            else:
                try:
                    tasks = draw_tasks(
                        # A stream of its own for each set: adding one leaves the others alone.
                        np.random.default_rng([settings.seed, *name.encode()]),
                        classes=images.shape[0],
                        examples=images.shape[1],
                        ways=chosen.ways,
                        count=chosen.count,
                        groups=groups if chosen.draw == "one_group" else None,
                    )
                except ValueError as error:
                    raise UserError(
                        f"params.yaml: datasets.{dataset}.tasks.sets.{name}: {error}"
                    ) from None
            if tasks.shape != (chosen.count, 1 + chosen.ways):
                raise UserError(
                    f"params.yaml: datasets.{dataset}.tasks.sets.{name}: expected {chosen.count} "
                    f"tasks of {chosen.ways} ways, found {len(tasks)} of {tasks.shape[1] - 1}"
                )
            files.write_array(folder / f"{name}.npy", tasks)
            print(f"{dataset}: {name}: {chosen.count} tasks of {chosen.ways} ways")


if __name__ == "__main__":
    run(main)
