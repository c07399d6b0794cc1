"""The page: whole, closed in itself, escaped, the same again, and honest about what is missing."""

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import choices, drawings, pages, params, predictions, report, thumbnails
from stages.command import UserError, run
from stages.measures.episodes import hits_of, support_distances
from stages.results import read_results

ROOT = Path(__file__).parent.parent
PARAMS = params.load(ROOT / "params.yaml")
NAMES = ["<i>zero</i>", 'one"&', "two_2", "three"]
CLASSES, EXAMPLES = 4, 3
# Four classes on a line, and a last image of class 3 that looks like class 0.
CODES = np.float32([[0], [1], [2], [10], [11], [12], [20], [21], [22], [30], [31], [0.4]])
LABELS = np.repeat(np.arange(CLASSES), EXAMPLES)
TASKS = np.int32(
    [
        [0, 1, 3, 6],  # class 0, chosen right, first
        [3, 1, 4, 6],  # class 1, chosen right, second
        [11, 9, 3, 0],  # class 3, taken for class 0
        [4, 0, 7, 3],  # class 1, chosen right, third
    ]
)


def scores(measure, others=(), **counts):
    def each(value):
        figures = {measure: value, "ci95_low": value - 0.01, "ci95_high": value + 0.01}
        return figures | dict.fromkeys(others, 0.5)

    return counts | {
        "chance": 0.3333,
        "neural_codes": {"l2": each(0.7512), "l2_normalised": each(0.7)},
        "pixels": {"l2": each(0.6)},
        "untrained": {"neural_codes": {"l2": each(0.4)}},
    }


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, np.ndarray):
        np.save(path, content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def add_experiment(name, seen):
    metrics = Path("metrics/toy", name)
    figures = {"train": seen, "test": seen}
    write(metrics / "network.json", {"parameters": 1234567, "seen": figures})
    took = {"epochs": 2, "seconds": 3.5, "images_per_second": 4321, "device": "cpu:0", "cores": 2}
    versions = {"python": "3.11.7", "keras": "3.15.1"}
    write(metrics / "run.json", took | {"backend": "tensorflow", "versions": versions})
    write(metrics / "history.csv", "epoch,accuracy,loss,val_loss\n1,.5,1.5,\n2,.75,1,1.25\n")
    write(metrics / "oneshot.json", {"3-way": scores("accuracy", tasks=4)})
    further = ("precision_at_1", "precision_at_5", "r_precision", "mean_average_precision_at_r")
    ranked = scores("mean_average_precision", further, queries=12)
    write(metrics / "retrieval.json", ranked)
    for state in ("trained", "untrained"):
        write(Path("data/codes/toy", name, state, "neural_codes.npy"), CODES)
        write(
            Path("data/codes/toy", name, state, "neural_codes.seen.npy"), np.float32([[10], [20]])
        )


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    make_toy(tmp_path, monkeypatch)


def make_toy(folder, monkeypatch):
    """Go to a folder, and make what the pages of a dataset of two experiments show."""
    monkeypatch.chdir(folder)
    published = [
        {
            "system": "people & co",
            "network": None,
            "layer": None,
            "distance": None,
            "measure": "3-way one-shot",
            "figure": 0.955,
            "protocol": "tasks",
        },
        {
            "system": "other",
            "network": "conv_blocks",
            "layer": None,
            "distance": None,
            "measure": "accuracy on the seen classes",
            "figure": 0.5,
            "protocol": "",
        },
        {
            "system": "third",
            "network": "alexnet",
            "layer": "L6",
            "distance": None,
            "measure": "something else",
            "figure": 0.25,
            "protocol": "none",
        },
    ]
    dataset = PARAMS.datasets["digits"].model_copy(
        update={"published": [params.Published(**each) for each in published]}
    )
    experiment = PARAMS.experiments["digits-classifier"].model_copy(update={"dataset": "toy"})
    toys = dict.fromkeys(["toy-classifier", "toy-siamese"], experiment)
    settings = PARAMS.model_copy(
        update={"datasets": {"toy": dataset}, "experiments": PARAMS.experiments | toys}
    )
    monkeypatch.setattr(params, "load", lambda: settings)
    write(Path("params.yaml"), "seed: 1")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (CLASSES, EXAMPLES, 6, 6, 1), np.uint8)
    for split in ("seen_train", "seen_test", "unseen"):
        write(Path("data/arrays/toy", f"{split}.npy"), images)
    write(Path("data/arrays/toy/classes.json"), {"seen": list("abcd"), "unseen": NAMES})
    write(Path("data/tasks/toy/3-way.npy"), TASKS)
    add_experiment("toy-classifier", {"accuracy": 0.9876, "cross_entropy": 0.12345})
    add_experiment("toy-siamese", {"pair_accuracy": 0.8, "pair_auc": 0.9})
    for name in toys:
        predictions.main(name)


class Page(HTMLParser):
    """The elements of the page, in order, and whether each that is opened is closed."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self):
        super().__init__()
        report.main("toy")
        self.html = Path("reports/toy.html").read_text(encoding="utf-8")
        self.elements, self.open, self.words = [], [], []
        self.feed(self.html)
        assert not self.open
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Return the toy's page as it is before a test changes anything, made once."""
    with pytest.MonkeyPatch.context() as patch:
        make_toy(tmp_path_factory.mktemp("page"), patch)
        return Page()


def test_what_was_measured_stands_on_the_page(page):
    text = page.text
    assert (
        "Networks are trained on 4 seen classes (images a class: 3 for training, 3 for test)"
        in text
    )
    assert "toy-classifier 1,234,567 2 3.5 4,321 cpu:0, 2 cores" in text
    assert (
        "toy-classifier, images of the seen classes accuracy cross-entropy train 98.8 % 0.123"
        in text
    )
    assert "train 80.0 % 0.900" in text
    assert "3-way: accuracy in percent over 4 tasks" in text
    assert "neural codes 75.1 74.1–76.1 70.0 69.0–71.0" in text
    assert "neural codes, untrained 40.0 39.0–41.0 –" in text
    assert "Mean average precision in percent over 12 queries" in text
    assert "python 3.11.7, keras 3.15.1" in text
    assert "yet" not in text


def test_the_page_begins_with_the_experiment_that_leads_in_each_measure(page):
    head = page.text.split("Seen classes, training images")[0]
    equal = "toy-classifier neural codes, L2 75.1 74.1–76.1 60.0 33.3"  # of equal ones the first
    assert f"3-way one-shot {equal} mean average precision {equal}" in head
    path = Path("metrics/toy/toy-siamese/retrieval.json")
    content = json.loads(path.read_text())
    content["neural_codes"]["l2_normalised"]["mean_average_precision"] = 0.9
    write(path, json.dumps(content))
    head = Page().text.split("Seen classes, training images")[0]
    assert f"3-way one-shot {equal}" in head
    better = "toy-siamese neural codes, L2-normalised 90.0"
    assert f"mean average precision {better}" in head


def test_pixels_stand_once_a_table_and_the_best_distance_of_each_experiment_is_marked(page):
    assert len(re.findall(r'<th scope="row">pixels', page.html)) == 2  # one-shot and retrieval
    best = re.findall(r"<b title=[^>]*>([\d.]+)</b>", page.html)
    assert best == ["75.1"] * 4


def test_the_distances_of_the_tables_are_explained_and_no_others(page):
    head = re.search(r"<caption>3-way: accuracy.*?</thead>", page.html, re.DOTALL)[0]
    explained = re.findall("<dt>(.*?)</dt>", page.html.split('id="compared"')[0])
    assert explained == re.findall('<th scope="col">(.*?)</th>', head) == ["L2", "L2-normalised"]


def test_published_figures_stand_beside_ours_of_the_same_measure(page):
    text = page.text
    ours = "75.1 74.1–76.1 here: unseen classes, 4 tasks; neural codes, L2"
    assert f"people & co 95.5 tasks toy-classifier {ours} toy-siamese {ours}" in text
    ours = "98.8 here: test images of the classes that it was trained on"
    assert f"other 50.0 toy-classifier {ours} something else" in text


def test_a_network_that_pixels_beat_is_named(page):
    assert "does no better than raw pixels" not in page.text
    for name in ("toy-classifier", "toy-siamese"):
        path = Path("metrics/toy", name, "oneshot.json")
        content = json.loads(path.read_text())
        for distance in content["3-way"]["pixels"].values():
            distance["accuracy"] = 0.9
        write(path, json.dumps(content))
    text = Page().text
    for name in ("toy-classifier", "toy-siamese"):
        assert f"{name} does no better than raw pixels here: 75.1 %, where they get 90.0 %" in text


def test_nothing_is_asked_of_a_network(page):
    assert not {"script", "link", "iframe", "base"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert attributes.get(name, "#").startswith(
                ("#", "data:image/png;base64,", "data:image/webp;base64,")
            )
    assert not re.search(r"@import|url\((?!#)", page.html)


def test_names_are_escaped(page):
    assert "<i>" not in page.html
    assert "<i>zero</i>" in page.text
    assert 'one"&' in page.text
    assert "two 2" in page.text


def test_every_picture_has_words_and_every_table_says_what_its_headings_head(page):
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("th")
    assert all(head["scope"] in ("col", "row", "rowgroup") for head in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))
    drawn = [each for each in page.all("div") if each.get("role") == "img"]
    assert len(page.all("svg")) == len(drawn) == sum("aria-label" in each for each in drawn)
    identities = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identities) == len(set(identities))
    assert {link["href"][1:] for link in page.all("a")} <= set(identities)


def test_drawings_leave_their_colours_to_the_page(page):
    html = page.html
    svg = "".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert not re.search(r"#[0-9a-f]{6}", svg)
    for name in set(re.findall(r"var\((--paint-\d\d)\)", svg)):
        assert f"{name}:" in html


def chosen(codes, tasks, labels):
    tasks = np.asarray(tasks)
    distances = support_distances(codes, tasks)
    nearest = distances == distances.min(axis=1, keepdims=True)
    return choices.Choices(nearest, hits_of(distances, labels[tasks]))


def test_pictured_are_the_first_right_and_the_first_wrong_ones_without_ties():
    tie = np.int32([[4, 3, 5, 9]])
    tasks = np.concatenate([tie, TASKS])
    found = choices.decided(chosen(CODES, tasks, LABELS), 2)
    assert found.tolist() == [[1, 0], [2, 1], [3, 2]]
    assert choices.decided(chosen(CODES, tie, LABELS), 2).tolist() == []


def test_two_experiments_are_compared_on_the_same_tasks():
    found = {
        "worse": chosen(np.zeros_like(CODES), TASKS, LABELS),  # a tie of three
        "better": chosen(CODES, TASKS, LABELS),
    }
    (pair,) = choices.compared(found)
    assert (pair["first"], pair["second"]) == ("better", "worse")
    assert pair["difference"] == pytest.approx(3 / 4 - 1 / 3)
    assert (pair["first_only"], pair["second_only"]) == (3, 1)
    assert pair["p"] == pytest.approx(2 * (1 + 4) / 16)


def test_pairs_begin_with_the_best_experiment():
    hits = {"middle": [1, 1, 0, 0], "worst": [1, 0, 0, 0], "best": [1, 1, 1, 0]}
    nearest = np.ones((4, 3), bool)
    found = {name: choices.Choices(nearest, np.float64(each)) for name, each in hits.items()}
    pairs = [(pair["first"], pair["second"]) for pair in choices.compared(found)]
    assert pairs == [("best", "middle"), ("best", "worst"), ("middle", "worst")]


def test_many_classes_are_shown_by_their_groups(monkeypatch):
    found = {"toy": chosen(CODES, TASKS, LABELS)}
    names = ["a/1", "a/2", "b/1", "b/2"]
    whole = choices.by_class(found, TASKS, LABELS, names)
    assert (whole["kind"], sorted(whole["names"])) == ("class", names)
    assert whole["exchanged"] == [(*sorted_pair(whole["names"], "a/1", "b/2"), 0.5)]
    monkeypatch.setattr(choices, "_MOST_CLASSES", 3)
    groups = choices.by_class(found, TASKS, LABELS, names)
    assert (groups["kind"], groups["names"]) == ("group", ["a", "b"])
    assert groups["right"]["toy"].tolist() == [1, 0]
    assert choices.by_class(found, TASKS, LABELS, list("abcd")) is None  # of a single group


def sorted_pair(names, *pair):
    return sorted(pair, key=names.index)


def test_every_pair_stands_on_the_page_and_every_class_in_the_table(page):
    text = page.text
    assert "toy-classifier toy-siamese 0.0 0.0 to 0.0 0 0 1.0000" in text
    for name in ("<i>zero</i>", 'one"&', "two 2", "three"):
        assert f"{name} " in text.split("In percent of the queries")[1]
    assert "Most often taken for each other: " in text


def test_a_matrix_says_how_far_every_experiment_is_ahead_of_those_below_it(page):
    heading = "in italics where the interval holds 0 1 1 toy-classifier 2 toy-siamese"
    assert f"{heading} 0.0 ± 0.0 Pair by pair" in page.text
    assert '<td class="alike">0.0 ' in page.html


def test_a_difference_that_its_interval_tells_from_0_is_painted(page):
    right = LABELS[TASKS[:, 1:]] == LABELS[TASKS[:, :1]]
    wrong = np.packbits(np.roll(right, 1, axis=1), axis=1)
    write(Path("predictions/toy/toy-siamese/choices.npy"), wrong)
    worse = Page()
    # The other is right three times in four. Mean and deviation of 1, 1, 1 and 0 are 0.75 and 0.5,
    # half the interval is 1.96 x 0.5 / 2.
    assert "1 toy-classifier 2 toy-siamese +75.0 ± 49.0 Pair by pair" in worse.text
    assert '<td style="--share: 100%">+75.0 ' in worse.html


def test_statistics_stand_beside_their_layer(page):
    text = page.text
    # Mean and deviation of 0, 1, 2, 10, …, 31, 0.4; one of the twelve is 0.
    assert "toy-classifier neural codes 1 8.3 13.4 ± 11 1.0" in text
    assert "neural codes, untrained 1 8.3 13.4 ± 11 1.0" in text


def test_predictions_that_are_not_there_are_said_to_be():
    shutil.rmtree("predictions/toy/toy-siamese")
    assert Page().text.count("dvc repro predictions@toy-siamese") >= 3


def test_no_codes_are_read(page):
    shutil.rmtree("data/codes")
    made = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
    assert made.sub("", Page().html) == made.sub("", page.html)


def test_pictured_choices_are_marked(page):
    figures = re.findall(r'<figure class="task">.*?</figure>', page.html, re.DOTALL)
    assert len(figures) == 2 * 4  # of each experiment three right and one wrong
    right, wrong = figures[0], figures[3]
    assert re.findall(r'<li class="(\w+)"', right) == ["right"]
    assert re.search(
        r'<li class="right"><img [^>]*alt="&lt;i&gt;zero&lt;/i&gt;, chosen, right">', right
    )
    assert "✓ right" in right
    assert re.findall(r'<li class="(\w+)"', wrong) == ["true", "wrong"]
    assert re.search(r'<li class="true"><img [^>]*alt="three, of the query’s class">', wrong)  # noqa: RUF001
    assert re.search(r'<li class="wrong"><img [^>]*alt="[^"]*zero[^"]*, chosen, wrong">', wrong)
    assert "✗ taken for" in wrong


def test_a_picture_is_the_image():
    for channels in (1, 3):
        # smooth, as what WebP is made for, and of another colour at every place
        across, down = np.meshgrid(np.linspace(20, 235, 12), np.linspace(10, 250, 9))
        image = np.stack([across, down, 255 - across][:channels], axis=-1).astype(np.uint8)
        kind, content = thumbnails.picture(image).split(",")
        assert kind == f"data:image/{'png' if channels == 1 else 'webp'};base64"
        again = np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))).reshape(image.shape)
        assert abs(again.astype(int) - image).max() <= (0 if channels == 1 else 24)


def test_what_was_found_is_pictured_and_marked(page):
    figures = re.findall(r'<figure class="task found">.*?</figure>', page.html, re.DOTALL)
    assert len(figures) == 2 * 10  # of each experiment: of each class the first, the second, …
    # To [0] nearest are [0.4], [1], [2], [10], [11]; by length one all codes are alike, and the
    # first others come first.
    assert re.findall(r'<li class="([^"]*)"', figures[0]) == ["right"] * 2 + ["wrong"] * 3
    assert "2 of 5 right" in figures[0]
    assert 'alt="&lt;i&gt;zero&lt;/i&gt;, right"' in figures[0]
    assert re.search(r'alt="one&#34;&amp;, wrong">', figures[0])


def pca(value):
    return {"mean_average_precision": value, "ci95_low": value - 0.01, "ci95_high": value + 0.01}


def test_compressed_codes_are_tabled_and_drawn_beside_published_ones(monkeypatch):
    path = Path("metrics/toy/toy-siamese/retrieval.json")
    ranked = json.loads(path.read_text())
    cut = {"16": {"l2_normalised": pca(0.31), "whitened": pca(0.32)}, "32": {"whitened": pca(0.33)}}
    write(path, ranked | {"pca": {"neural_codes": cut}})
    settings = params.load()
    other = params.Published(
        system="B 2014",
        network=None,
        layer="L6",
        distance=None,
        measure="PCA to 32",
        figure=0.683,
        protocol="mAP of X",
    )
    toy = settings.datasets["toy"]
    toy = toy.model_copy(update={"published": [*toy.published, other]})
    changed = settings.model_copy(update={"datasets": {"toy": toy}})
    monkeypatch.setattr(params, "load", lambda: changed)
    text = Page().text
    assert "16 32 toy-siamese: neural codes 31.0 30.0–32.0 – " in text
    assert "toy-siamese: neural codes, whitened 32.0 31.0–33.0 33.0 32.0–34.0" in text
    assert "B 2014, mAP of X – 68.3" in text
    assert "PCA to 32" not in text


def test_courses_of_the_best_distance_and_of_pixels_are_drawn():
    for name in ("toy-classifier", "toy-siamese"):
        rows = "neural_codes/l2,2,0.9\nneural_codes/l2,3,0.8\nneural_codes/learned,2,0.5\n"
        rows += "pixels/l2,2,0.6\npixels/l2,3,0.4\nuntrained/neural_codes/l2,2,0.99\n"
        write(Path("metrics/toy", name, "ways.csv"), f"series,ways,accuracy\n{rows}")
    page = Page()
    assert "By the number of ways" in page.text
    assert "Precision by recall" not in page.text
    drawing = page.html.split("By the number of ways")[1].split("</svg>")[0]
    legend = re.findall(r">([^<>]*(?:neural codes|pixels)[^<>]*)</text>", drawing)
    assert legend == ["toy-classifier: neural codes, L2", "pixels", "toy-siamese: neural codes, L2"]


def test_pixels_are_drawn_by_the_best_distance_of_any_experiment():
    """The last one by name may have been measured by fewer distances."""
    for name, pixels in (("toy-classifier", 0.7), ("toy-siamese", 0.6)):
        rows = f"neural_codes/l2,2,0.9\npixels/l2,2,{pixels}\n"
        write(Path("metrics/toy", name, "ways.csv"), f"series,ways,accuracy\n{rows}")
    drawn = report.courses(read_results("toy"), "ways", x="ways", y="accuracy")
    less = Path("metrics/toy/toy-siamese/ways.csv")
    write(less, less.read_text().replace("0.6", "0.1"))
    again = report.courses(read_results("toy"), "ways", x="ways", y="accuracy")
    assert drawn == again


@pytest.mark.parametrize("name", ["price, US$5 to $9", r"a $\foo$ b", "x" * 40])
def test_any_name_of_a_class_stands_beside_its_square(name):
    html = drawings.heat("x", np.eye(2), [name, "other"])
    assert f">{name[:23]}" in html


def test_an_interval_that_leaves_the_figure_out_is_drawn():
    figures = {"accuracy": 0.5, "ci95_low": 0.6, "ci95_high": 0.7}  # of very few resamples
    assert "<svg" in drawings.ranges("x", [("a", figures, 0.1)], "accuracy")


@pytest.mark.parametrize(
    ("part", "key"), [("run", "cores"), ("run", "backend"), ("network", "seen/train")]
)
def test_a_metrics_file_without_what_the_page_shows_is_one_line(part, key):
    path = Path(f"metrics/toy/toy-classifier/{part}.json")
    content = json.loads(path.read_text())
    *sections, last = key.split("/")
    section = content
    for each in sections:
        section = section[each]
    del section[last]
    write(path, json.dumps(content))
    with pytest.raises(UserError, match=rf"{part}\.json: {key}: Field required"):
        report.main("toy")


def test_a_course_with_a_figure_missing_is_refused():
    path = Path("metrics/toy/toy-siamese/ways.csv")
    write(path, "series,ways,accuracy\nneural_codes/l2,2,0.9\nneural_codes/l2,3,\n")
    with pytest.raises(UserError, match=r"ways\.csv: damaged CSV file \('' is no figure of accura"):
        report.main("toy")


@pytest.mark.parametrize(
    ("part", "content"),
    [
        ("choices", np.zeros((3, 1), np.uint8)),  # of four tasks
        ("choices", np.zeros((4, 2), np.uint8)),  # of three ways
        ("nearest-neural_codes", np.zeros((10, 5), np.int32)),
        ("nearest-neural_codes", np.full((10, 6), 12, np.int32)),  # of twelve images
        ("nearest-neural_codes", np.full((10, 6), -1, np.int32)),
    ],
)
def test_predictions_of_other_images_are_told_in_place_of_what_they_would_say(part, content):
    write(Path(f"predictions/toy/toy-siamese/{part}.npy"), content)
    assert f"predictions/toy/toy-siamese/{part}.npy: expected shape" in Page().text


@pytest.mark.parametrize("place", [np.nan, -0.1, 1.1])
def test_places_off_the_map_are_refused(place):
    for name in ("toy-classifier", "toy-siamese"):
        write(Path(f"predictions/toy/{name}/map.npy"), np.full((4, 3, 2), place, np.float32))
    with pytest.raises(UserError, match=r"map\.npy: expected shape \(4, 3, 2\) and values from 0"):
        report.main("toy")


def test_expanded_queries_are_drawn_in_the_best_space():
    assert "Query expansion" not in Page().text
    rows = "neural_codes/l2,0,0.3\nneural_codes/l2,5,0.4\n"
    rows += "neural_codes/l2_normalised,0,0.31\nneural_codes/l2_normalised,5,0.42\n"
    path = Path("metrics/toy/toy-siamese/expansion.csv")
    write(path, f"series,nearest,mean_average_precision\n{rows}")
    drawing = Page().html.split("Query expansion")[1].split("</svg>")[0]
    legend = re.findall(r">([^<>]*neural codes[^<>]*)</text>", drawing)
    assert legend == ["toy-siamese: neural codes, L2-normalised"]


def test_accuracy_with_unlabelled_images_is_drawn_in_the_best_space():
    assert "unlabelled" not in Page().text
    path = Path("metrics/toy/toy-siamese/oneshot.json")
    found = json.loads(path.read_text())
    own = found["3-way"]["neural_codes"]
    assert set(own) >= {"l2", "l2_normalised"}
    found["3-way"]["expanded"] = {
        "neural_codes": {
            distance: {"5": own[distance] | {"accuracy": figure}}
            for distance, figure in (("l2", 0.1), ("l2_normalised", 0.97))
        }
    }
    write(path, found)
    drawing = Page().html.split("With unlabelled images at hand")[1].split("</svg>")[0]
    legend = re.findall(r">([^<>]*neural codes[^<>]*)</text>", drawing)
    assert legend == ["toy-siamese: neural codes, L2-normalised"]


@pytest.mark.parametrize("part", ["oneshot", "retrieval"])
@pytest.mark.parametrize("place", ["neural_codes/nowhere", "nowhere/l2"])
def test_figures_of_expanded_codes_need_those_of_the_same_codes_as_they_are(part, place):
    path = Path(f"metrics/toy/toy-siamese/{part}.json")
    found = json.loads(path.read_text())
    scored = found.get("3-way", found)
    layer, distance = place.split("/")
    scored["expanded"] = {layer: {distance: {"5": scored["neural_codes"]["l2"]}}}
    write(path, found)
    with pytest.raises(
        UserError, match=rf"{part}\.json: .*expanded/{place}, but no {place}; delete"
    ):
        report.main("toy")


def test_without_compressed_codes_there_is_no_section_of_them(page):
    assert "In fewer dimensions" not in page.text


def test_indexes_are_tabled_and_drawn_in_the_best_space():
    columns = "recall_at_1,recall_at_10,mean_average_precision,build_seconds,query_milliseconds"
    rows = "neural_codes/l2,exact,1.0,1.0,0.7,0.0,0.25,8.0\n"
    rows += "neural_codes/l2_normalised,exact,1.0,1.0,0.75,0.0,0.25,8.0\n"
    rows += 'neural_codes/l2_normalised,"IVF4,Flat,<b>",0.9,0.8,0.7,1.5,0.0123,9.25\n'
    text = f"series,index,{columns},bytes_per_code\n{rows}"
    write(Path("metrics/toy/toy-siamese/search.csv"), text)
    page = Page()
    assert (
        "toy-siamese: neural codes, L2-normalised exact 100.0 100.0 75.0 0.00 0.25 8 "
        "IVF4,Flat,<b> 90.0 80.0 70.0 1.50 0.0123 9 toy-siamese" in page.text
    )
    drawing = page.html.split("recall at 10 by the time of a query")[1].split("</svg>")[0]
    assert ">exact</text>" in drawing
    assert ">IVF4,Flat,&lt;b&gt;</text>" in drawing


def test_without_indexes_there_is_no_section_of_them():
    write(Path("metrics/toy/toy-siamese/search.csv"), "series,index,recall_at_1\n")
    with pytest.raises(UserError, match=r"search\.csv: damaged CSV file"):
        report.main("toy")
    Path("metrics/toy/toy-siamese/search.csv").unlink()
    assert "By an index" not in Page().text


def test_many_experiments_picture_fewer_tasks(monkeypatch):
    monkeypatch.setattr(report, "_PICTURE_BYTES", 1)
    assert Page().html.count('<figure class="task">') == 2 * 2  # one right, one wrong


def test_the_same_bytes_again_but_for_when_it_was_made():
    again = [re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC", "", Page().html) for _ in range(2)]
    assert again[0] == again[1]


def test_a_page_says_what_it_was_made_from(page):
    text = page.text
    assert "git revision none: not in a git checkout" in text
    assert f"sha256 of params.yaml {hashlib.sha256(b'seed: 1').hexdigest()} seed 1" in text
    assert (
        f"pixels of toy, all {params.load().datasets['toy'].pixels['all']} packages Python 3"
        in text
    )
    assert re.search(r"machine \w+, \w+, \d+ cores made 20", text)


def test_the_revision_says_when_something_was_changed(monkeypatch):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=b", *words], check=True)

    git("init", "-q")
    git("add", "params.yaml")
    git("commit", "-qm", "x")
    assert re.fullmatch(r"[0-9a-f]{40}", pages.revision())
    write(Path("notes"), "of nothing that is tracked")
    assert re.fullmatch(r"[0-9a-f]{40}", pages.revision())
    write(Path("params.yaml"), "seed: 2")
    assert pages.revision().endswith(", with changes")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("network.json", "toy-siamese, images of the seen classes: not measured yet."),
        ("run.json", "toy-siamese 1,234,567 not measured yet"),
        ("history.csv", "toy-siamese Not measured yet. Pictured tasks"),
        ("oneshot.json", "toy-siamese codes not measured yet"),
        ("retrieval.json", "toy-siamese codes not measured yet"),
    ],
)
def test_what_an_experiment_lacks_is_said(part, said):
    Path("metrics/toy/toy-siamese", part).unlink()
    assert said in Page().text


def test_a_task_set_of_one_experiment_only():
    both = {"2-way": scores("accuracy", tasks=4), "3-way": scores("accuracy", tasks=4)}
    write(Path("metrics/toy/toy-siamese/oneshot.json"), both)
    assert "toy-classifier codes not measured yet toy-siamese neural codes" in Page().text


def test_figures_without_a_layer_and_history_without_an_epoch():
    write(Path("metrics/toy/toy-siamese/oneshot.json"), {"3-way": {"chance": 0.3, "tasks": 4}})
    write(Path("metrics/toy/toy-siamese/history.csv"), "epoch,loss\n")
    assert "toy-siamese codes not measured yet" in Page().text


def test_predictions_that_are_gone_are_said():
    shutil.rmtree("predictions/toy/toy-siamese")
    page = Page()
    assert "choices.npy: no such file" in page.text
    assert page.html.count('<figure class="task">') == 4


@pytest.mark.parametrize("keep_folder", [True, False])
def test_nothing_measured_at_all(keep_folder):
    shutil.rmtree("metrics")
    if keep_folder:
        Path("metrics/toy/toy-siamese").mkdir(parents=True)
    page = Page()
    assert page.text.lower().count("measured yet") >= 6
    assert all(image["alt"].startswith("Examples of ") for image in page.all("img"))


def test_an_unknown_dataset_is_one_line(monkeypatch, capsys):
    with pytest.raises(UserError, match="no entry 'other'"):
        report.main("other")
    monkeypatch.setattr(sys, "argv", ["report", "other"])
    with pytest.raises(SystemExit) as end:
        run(report.main)
    assert end.value.code == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_framework_is_loaded():
    loaded = (
        "import sys, stages.report; print({'keras', 'tensorflow', 'jax', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", loaded], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
