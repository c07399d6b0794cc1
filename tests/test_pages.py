"""The page in a browser: whole from a file, on a phone, in the dark, and for a screen reader."""

import json
import shutil
import urllib.request
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright
from test_report import make_toy, pca, write

from stages import index, params, report

NAMED = ("toy-classifier", "toy-siamese")
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((path for name in NAMES if (path := shutil.which(name))), None)
BUILT = sorted((Path(__file__).parents[1] / "reports").glob("*.html"))  # by `dvc repro`, if at all
QUIET = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no Chromium: install Debian's chromium or Google Chrome"
)


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Return the folder of small pages that have every section."""
    with pytest.MonkeyPatch.context() as patch:
        make_toy(tmp_path_factory.mktemp("small"), patch)
        settings = params.load()
        experiment = settings.experiments["digits-siamese"].model_copy(update={"dataset": "toy"})
        named = dict.fromkeys(NAMED, experiment)
        changed = settings.model_copy(update={"experiments": named})
        patch.setattr(params, "load", lambda: changed)
        for name in NAMED:
            metrics = Path("metrics/toy", name)
            ranked = json.loads((metrics / "retrieval.json").read_text())
            cut = {
                str(each): {"l2_normalised": pca(0.3), "whitened": pca(0.4)} for each in (16, 32)
            }
            write(metrics / "retrieval.json", ranked | {"pca": {"neural_codes": cut}})
            for file, y, x in (("ways", "accuracy", "2"), ("recall", "precision", "0.5")):
                rows = f"neural_codes/l2,{x},0.9\npixels/l2,3,.4\n"
                write(metrics / f"{file}.csv", f"series,{file},{y}\n{rows}")
        report.main("toy")
        index.main()
        return Path("reports").absolute()


@pytest.fixture(params=["toy.html", "index.html", *BUILT], ids=lambda page: Path(page).name)
def address(request, small):
    """Return where a page is: a small one, or one that was built here."""
    return (small / request.param).as_uri()


@pytest.fixture(params=["light", "dark"])
def page(request, browser, address):
    """Open the page 360 pixels wide, and note what it asks for and complains of."""
    opened = browser.new_page(
        color_scheme=request.param, viewport={"width": 360, "height": 740}, reduced_motion="reduce"
    )
    opened.asked, opened.said = [], []
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.on("console", lambda message: opened.said.append(message.text))
    opened.on("pageerror", lambda error: opened.said.append(str(error)))
    opened.goto(address)
    yield opened
    opened.close()


def test_it_asks_for_nothing_and_complains_of_nothing(page, address):
    page.wait_for_load_state("networkidle")
    assert {asked for asked in page.asked if not asked.startswith("data:")} == {address}
    assert page.said == []


def test_every_image_is_one(page):
    widths = page.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    )
    assert all(width > 0 for width in widths)
    assert widths or "index" in page.url


def test_a_phone_does_not_scroll_sideways(page):
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 360


def test_no_rule_of_accessibility_is_broken(page):
    found = Axe().run(page)
    assert not found.response["violations"], found.generate_report()


def test_a_page_is_light(address):
    assert len(urllib.request.urlopen(address).read()) < 3_000_000


def test_what_is_folded_opens_by_the_keyboard(page):
    for summary in page.locator("summary").all():
        before = summary.evaluate("each => each.parentElement.open")
        summary.press("Enter")
        assert summary.evaluate("each => each.parentElement.open") != before


def test_every_table_has_a_caption_and_headers(page):
    tables = page.evaluate(
        "[...document.querySelectorAll('table')].map(t => [!!t.caption, "
        "t.querySelectorAll('th[scope=col]').length, t.querySelectorAll('th[scope=row]').length])"
    )
    assert tables
    for caption, columns, rows in tables:
        assert caption
        assert columns
        assert rows


def test_all_that_is_linked_is_there(page):
    missing = page.evaluate(
        "[...document.querySelectorAll('a[href^=\"#\"]')].map(a => a.getAttribute('href'))"
        ".filter(href => !document.querySelector(href))"
    )
    assert missing == []
