"""The page in a browser of the system: sorting, the slider, phone and desktop widths.

Needs playwright and a Chromium: ``SEG_PLUGINS_BROWSER`` names it, or one of the usual names is on
the PATH. With ``SEG_PLUGINS_SCREENSHOTS`` set to a folder, pictures of the pages are left there.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from seg_plugins.visualization.report import build_page, read_run

import pytest
from run_folders import HOSTILE, write_run

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    wanted = os.environ.get("SEG_PLUGINS_BROWSER")
    program = wanted or next((p for p in map(shutil.which, NAMES) if p), None)
    if program is None:
        pytest.skip("needs a Chromium: set SEG_PLUGINS_BROWSER, or put one on the PATH")
    with playwright.sync_playwright() as driver:
        # Pages are the test's own; containers often forbid the sandbox.
        chromium = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser, tmp_path):
    """Opens the report of runs at a width; complaints of the page fail the test."""
    complaints, pages = [], []

    def open_page(width: int = 1280, *, runs: int = 1, scheme: str = "light", **options):
        path = tmp_path / f"report_{len(pages)}.html"
        folders = [tmp_path / f"run_{len(pages)}_{i}" for i in range(runs)]
        content = [read_run(write_run(f, seed=i, **options)) for i, f in enumerate(folders)]
        path.write_bytes(build_page(content))
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda r: r.url.startswith("http") and complaints.append(r.url))
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not complaints


def column(table, number: int) -> list[str]:
    return table.locator(f"tbody tr > :nth-child({number})").all_inner_texts()


def test_a_click_sorts_by_number_and_by_name(opened):
    table = opened().locator("table.sortable", has_text="sem_seg by class")
    score, name = table.locator("thead button").nth(1), table.locator("thead button").nth(0)
    score.click()
    assert column(table, 2) == ["40.00", "30.00", "20.00", "–"]
    score.click()
    assert column(table, 2) == ["20.00", "30.00", "40.00", "–"], "no value belongs to the end"
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "ascending"
    name.click()
    assert column(table, 1) == ["car", "road", "sky", "tree"]
    assert table.locator("th").nth(1).get_attribute("aria-sort") == "none"


def test_the_slider_uncovers_the_other_picture(opened):
    page = opened()
    box = page.locator(".compare").first
    above = box.locator(".above")
    range_input = box.locator("input[type=range]")
    range_input.fill("25")
    inset = above.evaluate("e => getComputedStyle(e).clipPath")
    assert "75%" in inset.replace("calc(100% - 25%)", "75%")
    truth, prediction = (
        page.locator(f"img[data-kind={kind}]").first.get_attribute("src")
        for kind in ("truth", "prediction")
    )
    assert above.get_attribute("src") == truth
    assert box.locator(".below").get_attribute("src") == prediction
    box.locator("select.right").select_option(label="image")
    assert box.locator(".below").get_attribute("src") not in (truth, prediction)


LAYOUT = Path(__file__).with_name("layout.js").read_text()


def asked(page, what: str) -> list:
    """What layout.js answers."""
    return page.evaluate(f"(() => {{ {LAYOUT}; return {what}(); }})()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overlaps_and_text_has_contrast(width, scheme, opened):
    page = opened(width, runs=3, scheme=scheme, classes=["a long name of a class " * 3, "b", "c"])
    assert asked(page, "collisions") == []
    contrasts = asked(page, "contrasts")
    assert len(contrasts) > 100
    assert [found for found in contrasts if found[0] < 4.5] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_layout_checks_find_faults(opened):
    page = opened(runs=2)
    page.evaluate("document.querySelector('.tile').style.marginRight = '-60px'")
    page.evaluate("document.querySelector('.note').style.color = 'rgb(200 200 200)'")
    assert any(found[0] == "overlap" for found in asked(page, "collisions"))
    assert min(asked(page, "contrasts"))[1] == "P"


@pytest.mark.parametrize("width", [1280, 390])
def test_it_is_readable_at(width, opened):
    page = opened(width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for picture in page.locator("img:visible").all():
        assert picture.evaluate("e => e.complete && e.naturalWidth > 0")
    sizes = page.evaluate(
        "[...document.querySelectorAll('p, td, th, h1, h2, h3, code')]"
        ".map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 12
    if folder := os.environ.get("SEG_PLUGINS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"report_{width}.png", full_page=True)


def test_hostile_names_run_nothing(opened):
    page = opened(classes=HOSTILE)
    assert page.evaluate("window.hacked === undefined")
    assert page.locator("td, th").filter(has_text="<script>").count()
