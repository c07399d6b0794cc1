"""The page of every experiment: each with its figures, each published figure with a verdict."""

import json
import re
import shutil
from pathlib import Path

import pytest
from test_report import toy  # noqa: F401

from stages import files, index, params, published, seeds


@pytest.fixture
def text(monkeypatch):
    """Return a function that writes the page and returns its words."""
    settings = params.load()
    experiment = settings.experiments["digits-siamese"].model_copy(update={"dataset": "toy"})
    named = dict.fromkeys(("toy-classifier", "toy-siamese"), experiment)
    seeds = dict.fromkeys(named, params.Seeds(dataset="toy", count=3))
    changed = settings.model_copy(update={"experiments": named, "seeds": seeds})
    monkeypatch.setattr(params, "load", lambda: changed)

    def written() -> str:
        index.main()
        html = Path("reports/index.html").read_text(encoding="utf-8")
        body = re.sub(r"<svg.*?</svg>", "", html.split("<body>")[1], flags=re.DOTALL)
        return " ".join(re.sub(r"<[^>]+>", " ", body).replace("&nbsp;", " ").split())

    return written


def test_a_row_holds_what_an_experiment_is_and_got(text):
    words = text()
    row = words.split("toy-classifier")[1].split("toy-siamese")[0]
    assert "toy conv_blocks 1,234,567 0.1 min cpu:0, 2 cores 98.8 accuracy published 50.0" in row
    assert "75.1 74.1–76.1 3-way, L2 33.3" in row
    assert row.count("75.1") == 2  # one-shot, and mean average precision
    assert "90.0 pair AUC" in words.split("toy-siamese")[1]


def test_the_page_forgets_what_seeds_kept_that_have_ended(text):
    states = [
        Path(".resume", f"seeds-toy-{name}-2-{'0' * 16}") for name in ("classifier", "siamese")
    ]
    for state in states:
        state.mkdir(parents=True)
    runs = [{"oneshot/3-way/codes/l2/accuracy": value} for value in (0.5, 0.6, 0.7)]
    found = {"seeds": [1, 2, 3], "figures": seeds.spread(runs)}
    files.write_json(Path("metrics/seeds/toy-classifier.json"), found)
    text()
    assert [state.exists() for state in states] == [False, True]


def test_each_published_figure_has_its_verdict(text):
    words = text().split("What reproduces, and what does not")[1]
    below = "✗ 20.4 points below by the best here 75.1 toy-classifier"
    assert f"people &amp; co: 3-way one-shot 95.5 – {below}" in words
    reached = "98.8 toy-classifier ✓ reached 98.8 toy-classifier"
    assert f"other: accuracy on the seen classes 50.0 {reached}" in words
    assert "third: something else 25.0 – this network is not run here –" in words


@pytest.mark.parametrize(
    ("figure", "verdict"),
    [
        (0.762, "✗ 1.1 points below by"),
        (0.755, "≈ 0.4 points below (within the interval) by"),
        (0.745, "✓ reached (within the interval) by"),
        (0.74, "✓ reached by"),
    ],
)
def test_a_figure_within_the_interval_is_neither_above_nor_below(text, figure, verdict):
    """Of the best here, 75.1 from 74.1 to 76.1."""
    settings = params.load()
    of_toys = settings.datasets["toy"]
    each = of_toys.published[0].model_copy(update={"figure": figure, "measure": "3-way one-shot"})
    settings.datasets["toy"] = of_toys.model_copy(update={"published": [each]})
    words = text().split("What reproduces, and what does not")[1]
    assert f"{verdict} the best here 75.1 toy-classifier" in words


def test_a_layer_is_compared_with_the_same_layer():
    each = params.Published(
        system="x",
        network="alexnet",
        layer="L6",
        distance=None,
        measure="retrieval",
        figure=0.3,
        protocol="",
    )
    layers = {
        layer: {
            "l2": {"mean_average_precision": value},
            "l2_normalised": {"mean_average_precision": value - 0.2},
        }
        for layer, value in {"L6": 0.31, "L7": 0.35}.items()
    }
    found = {"network": None, "oneshot": None, "retrieval": layers}
    assert published.measured(each, "x", found).figure == 0.31
    assert published.measured(each.model_copy(update={"layer": None}), "x", found).figure == 0.35
    assert published.measured(each.model_copy(update={"layer": "L5"}), "x", found) is None
    by_another = each.model_copy(update={"distance": "l2_normalised"})
    assert published.measured(by_another, "x", found).figure == pytest.approx(0.11)
    assert published.measured(each.model_copy(update={"distance": "learned"}), "x", found) is None
    layers["pixels"] = {"l2": {"mean_average_precision": 0.1}}
    assert published.measured(each.model_copy(update={"layer": "pixels"}), "x", found).figure == 0.1
    assert published.measured(each.model_copy(update={"layer": None}), "x", found).figure == 0.35


@pytest.mark.parametrize("split", ["test", "validation"])
def test_accuracy_is_compared_on_the_same_images(split):
    each = params.Published(
        system="x",
        network="alexnet",
        layer=None,
        distance=None,
        measure=next(measure for measure, of in published.SEEN.items() if of == split),
        figure=0.3,
        protocol="",
    )
    seen = {"test": {"accuracy": 0.4}, "validation": {"accuracy": 0.5}}
    found = {"network": {"seen": seen}, "oneshot": None, "retrieval": None}
    assert published.measured(each, "x", found).figure == seen[split]["accuracy"]
    assert published.measured(each, "x", found | {"network": None}) is None


@pytest.mark.parametrize(
    ("part", "empty"),
    [
        ("network", {"parameters", "seen classes"}),
        ("run", {"training"}),
        ("oneshot", {"one-shot", "chance of one-shot"}),
        ("retrieval", {"mAP", "chance of mAP"}),
        (None, set()),
    ],
)
def test_what_is_missing_is_a_dash(text, part, empty):
    if part:
        Path(f"metrics/toy/toy-siamese/{part}.json").unlink()
    text()
    html = Path("reports/index.html").read_text(encoding="utf-8")
    row = html.split('<th scope="row">toy-siamese</th>')[1].split("</tr>")[0]
    cells = [re.sub(r"<[^>]+>", "", cell).strip() for cell in re.findall(r"<td.*?</td>", row, re.S)]
    names = ("dataset", "network", "parameters", "training", "seen classes", "one-shot")
    names = (*names, "chance of one-shot", "mAP", "chance of mAP")
    found = dict(zip(names, cells, strict=True))
    assert {name for name, cell in found.items() if cell == "–"} == empty


def test_an_experiment_that_was_not_run_is_named(text):
    shutil.rmtree("metrics/toy/toy-siamese")
    assert "Not run yet: toy-siamese." in text()


@pytest.mark.parametrize("lacks", ["neural_codes", "pixels"])
def test_figures_of_which_a_part_is_missing(text, lacks):
    for path in Path("metrics/toy").glob("*/*.json"):
        if path.stem in ("oneshot", "retrieval"):
            figures = json.loads(path.read_text())
            for part in (figures, *(each for each in figures.values() if isinstance(each, dict))):
                part.pop(lacks, None)
            path.write_text(json.dumps(figures))
    words = text().split("What does guessing get?")[1]
    if lacks == "pixels":
        assert "3-way 33.3 – 75.1 toy-classifier" in words
    else:
        assert words.split("(b)")[0].strip().startswith("Not measured yet.")


def test_without_any_experiment_it_says_so(text):
    shutil.rmtree("metrics")
    assert "Nothing is measured yet." in text()


def test_several_seeds_have_a_row_each_beside_the_first_experiment(text):
    assert "Several seeds" not in text()
    for name, values in (("toy-classifier", [0.5, 0.6, 0.7]), ("toy-siamese", [0.4, 0.4, 0.4])):
        runs = [{"oneshot/3-way/codes/l2/accuracy": value} for value in values]
        found = {"seeds": [1, 2, 3], "figures": seeds.spread(runs)}
        files.write_json(Path("metrics/seeds", f"{name}.json"), found)
    words = text().split("Mean and standard deviation over the seeds")[1]
    assert "toy-classifier 3-way one-shot codes, L2 3 60.0 10.0 –" in words
    minus = "\N{MINUS SIGN}"
    above = f"{minus}20.0 {minus}44.8 to +4.8"
    row = f"toy-siamese 3-way one-shot codes, L2 3 40.0 0.0 toy-classifier: {above}"
    assert row in words
