"""The assignments' questions, each answered by figures that the pipeline measured.

Here the figures are found in what was read from metrics/; pages/questions.html puts them into
words. No experiment is named: those that a question is about are found by what params.yaml says
of them, so that another experiment joins the answer by itself.
"""

from typing import Any

from stages import params
from stages.results import best_of, most_ways, rows_of

_MAP = "mean_average_precision"


def answers(settings: params.Params, results: dict[str, dict[str, dict]]) -> dict[str, Any]:
    """Return the figures of every question.

    Args:
        settings: the params.
        results: what was read, by dataset and experiment.
    """
    found = {
        name: results[each.dataset][name]
        for name, each in settings.experiments.items()
        if name in results.get(each.dataset, {})
    }
    return {
        "floors": floors(results),
        "objectives": objectives(settings, found),
        "costs": costs(settings, found),
        "datasets": datasets(settings),
        "likeness": likeness(settings, found),
        "recognised": recognised(settings, found),
        "layers": layers(settings, found),
    }


def measured(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the best figures of an experiment by what they are of.

    Returns:
        `one-shot`: of the tasks with the most ways, with their name as `set`; `retrieval`. Each
        has `value`, the interval, `layer`, `distance` and `chance`. What is not there is left out.
    """
    best = {}
    sets = found["oneshot"] or {}
    widest = most_ways(sets)
    if widest and (scores := best_of(sets[widest], "accuracy")):
        best["one-shot"] = scores | {
            "value": scores["accuracy"],
            "set": widest,
            "chance": sets[widest]["chance"],
        }
    if found["retrieval"] and (scores := best_of(found["retrieval"], _MAP)):
        best["retrieval"] = scores | {"value": scores[_MAP], "chance": found["retrieval"]["chance"]}
    return best


def floors(results: dict[str, dict[str, dict]]) -> list[dict[str, Any]]:
    """Return chance, raw pixels and the best experiment of every task set and of retrieval.

    `pixels` is None where none were measured; without an experiment there is no row.
    """
    rows = []
    for dataset, experiments in results.items():
        scores: dict[str, dict[str, dict]] = {}
        for name, found in experiments.items():
            for tasks, figures in (found["oneshot"] or {}).items():
                scores.setdefault(tasks, {})[name] = figures
            if found["retrieval"]:
                scores.setdefault("retrieval", {})[name] = found["retrieval"]
        for title, figures in scores.items():
            measure = _MAP if title == "retrieval" else "accuracy"
            best = {name: best_of(each, measure) for name, each in figures.items()}
            best = {name: each for name, each in best.items() if each}
            if not best:
                continue
            name = max(best, key=lambda name: best[name][measure])
            pixels = [
                each[measure]
                for row in rows_of(figures)
                if not row.experiment
                for each in row.figures.values()
            ]
            rows.append(
                {
                    "dataset": dataset,
                    "measure": title,
                    "chance": figures[name]["chance"],
                    "pixels": max(pixels, default=None),
                    "experiment": name,
                    "best": best[name][measure],
                }
            )
    return rows


def objectives(settings: params.Params, found: dict[str, dict]) -> list[dict[str, Any]]:
    """Return of each dataset the first experiment of each of two objectives, and its figures.

    Returns:
        A dict for each dataset with both: `dataset`, and by objective `name`, `best` (see
        `measured`) and `distances`, the accuracy of each distance in the tasks with most ways.
    """
    rows: dict[str, dict[str, Any]] = {}
    for name, each in found.items():
        experiment, best = settings.experiments[name], measured(each)
        row = rows.setdefault(experiment.dataset, {"dataset": experiment.dataset})
        if "one-shot" in best:
            scores = each["oneshot"][best["one-shot"]["set"]][best["one-shot"]["layer"]]
            row.setdefault(
                experiment.objective.name,
                {
                    "name": name,
                    "best": best,
                    "distances": {key: figures["accuracy"] for key, figures in scores.items()},
                },
            )
    return [row for row in rows.values() if {"siamese", "classifier"} <= row.keys()]


def costs(settings: params.Params, found: dict[str, dict]) -> list[dict[str, Any]]:
    """Return what each setting is worth in which alone two experiments differ.

    Returns:
        A dict for each two: `difference` (see `params.Difference`), `dataset`, and by name of
        what is measured in both `seen`, `one-shot`, `retrieval`, `learned` a pair of figures.
    """
    rows = []
    for difference in settings.differences():
        pair = [found.get(name) for name in (difference.first, difference.second)]
        if None in pair:
            continue
        figures = [measured(each) for each in pair]
        row = {
            "difference": difference,
            "dataset": settings.experiments[difference.first].dataset,
        }
        for key in ("one-shot", "retrieval"):
            if all(key in each for each in figures):
                row[key] = [each[key] for each in figures]
        tests = [(each["network"] or {"seen": {"test": {}}})["seen"]["test"] for each in pair]
        if all("accuracy" in each for each in tests):
            row["seen"] = [each["accuracy"] for each in tests]
        learned = [
            each["oneshot"][best["one-shot"]["set"]].get(best["one-shot"]["layer"], {})
            for each, best in zip(pair, figures, strict=True)
            if "one-shot" in best
        ]
        if len(learned) == 2 and all("learned" in each for each in learned):
            row["learned"] = [each["learned"]["accuracy"] for each in learned]
        rows.append(row)
    return rows


def datasets(settings: params.Params) -> dict[str, dict[str, Any]]:
    """Return by dataset in what it differs from others: pixels, colour, classes, images a class."""
    return {
        name: {
            "size": each.image.size,
            "channels": each.image.channels,
            "seen": each.split.seen_train.count("classes"),
            "unseen": each.split.unseen.count("classes"),
            "images": each.split.seen_train.count("examples"),
        }
        for name, each in settings.datasets.items()
    }


def likeness(settings: params.Params, found: dict[str, dict]) -> list[dict[str, Any]]:
    """Return the accuracy among classes of all groups and among those of one, by experiment.

    Returns:
        A dict for each experiment whose dataset has tasks of both kinds with as many ways:
        `name`, `ways`, `apart` and `alike`, the best accuracy in each.
    """
    rows = []
    for name, each in found.items():
        sets = settings.datasets[settings.experiments[name].dataset].tasks.sets
        best = {}
        for tasks, chosen in sets.items():
            figures = best_of((each["oneshot"] or {}).get(tasks, {}), "accuracy")
            if figures:
                best.setdefault((chosen.draw, chosen.ways), figures["accuracy"])
        for (draw, ways), alike in best.items():
            if draw == "one_group" and ("all_classes", ways) in best:
                apart = best["all_classes", ways]
                rows.append({"name": name, "ways": ways, "apart": apart, "alike": alike})
    return rows


def recognised(settings: params.Params, found: dict[str, dict]) -> list[dict[str, Any]]:
    """Return how well each classifier knows the seen classes, in training images and in others."""
    return [
        {
            "name": name,
            "dataset": settings.experiments[name].dataset,
            "parameters": each["network"]["parameters"],
            "classes": settings.experiments[name].images.classes,
            "seen": each["network"]["seen"],
        }
        for name, each in found.items()
        if each["network"] and "accuracy" in each["network"]["seen"]["test"]
    ]


def layers(settings: params.Params, found: dict[str, dict]) -> list[dict[str, Any]]:
    """Return what each layer is good for, of each experiment with codes of several.

    Layers side by side are left out: they are no layer, and say nothing of where one stands.

    Returns:
        A dict for each: `name`, `dataset`, `rows` (by layer the figures of its best distance in
        retrieval), their `chance`, `best`, the layer with the highest, and `last`: is that the
        network's last one, on either side of its relu?
    """
    rows = []
    for name, each in found.items():
        experiment = settings.experiments[name]
        measured = each["retrieval"] or {}
        ranked = {
            layer: best_of({layer: measured[layer]}, _MAP)
            for layer in experiment.codes.layers
            if "+" not in layer and measured.get(layer)
        }
        if len(ranked) > 1:
            best = max(ranked, key=lambda layer: ranked[layer][_MAP])
            sides = [layer.removesuffix("_before_relu") for layer in (best, list(ranked)[-1])]
            rows.append(
                {
                    "name": name,
                    "dataset": experiment.dataset,
                    "rows": ranked,
                    "chance": each["retrieval"]["chance"],
                    "best": best,
                    "last": sides[0] == sides[1],
                }
            )
    return rows
