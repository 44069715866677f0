"""The report in a browser: as wide as its window, complete without scripts, and silent on the network."""

import shutil
from pathlib import Path

import pytest

from attent_kit.cli import run
from support.comparison_folder import write_comparison

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright to test the page")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PUBLISHED = Path(__file__).parent.parent / "benchmarks" / "published.toml"
LONG = "A row whose label has no blank: " + "x" * 90


@pytest.fixture(scope="module")
def page_file(prepared, tmp_path_factory):
    """A report with published numbers, a very long label and everything that makes a page wide."""
    out = tmp_path_factory.mktemp("browsed")
    rows = {"W/o adaptation": "source_only", LONG: "attent", "Supervised": "supervised"}
    rows |= {f"Row {n}": "ada_output" for n in range(4)}
    write_comparison(out, prepared, rows)
    shutil.copy(PUBLISHED, out / "published.toml")
    assert run(["report", str(out)]) == 0
    return out / "report.html"


@pytest.fixture(scope="module")
def browser():
    """A Chromium of the machine, or that of playwright; skipped where there is neither."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as started:
        try:
            opened = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no browser can be started here: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture(params=[(1280, "light"), (375, "light"), (375, "dark")], ids=["desktop", "phone", "phone-dark"])
def opened(request, browser, page_file):
    """The page in a window of that width, with what it said and asked for."""
    width, scheme = request.param
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, java_script_enabled=True
    )
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda asking: asked.append(asking.url))
    page.goto(page_file.as_uri(), wait_until="load")
    yield page, width, said, asked
    context.close()


WIDER = """() => [...document.body.querySelectorAll('*')].filter(element => {
  if (element.closest('.scroll, pre, .skip')?.contains(element) && !element.matches('.scroll, pre')) return false;
  const box = element.getBoundingClientRect();
  return box.width > 0 && (box.right > window.innerWidth + 1 || (box.left < -1 && !element.matches('.skip')));
}).map(element => element.outerHTML.slice(0, 120))"""


def test_the_page_is_never_wider_than_its_window(opened):
    page, width, _, _ = opened
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(WIDER) == []


def test_the_page_says_nothing_to_the_console_and_asks_for_nothing(opened, page_file):
    page, _, said, asked = opened
    page.wait_for_timeout(100)
    assert said == []
    assert [url for url in asked if not url.startswith("data:")] == [page_file.as_uri()]


def test_every_section_and_every_picture_is_to_be_seen(opened):
    page, _, _, _ = opened
    for section in page.locator("main > section").all():
        assert section.is_visible() and section.locator("h2").first.is_visible()
    pictures = "() => [...document.images].map(image => [image.naturalWidth > 0, image.clientWidth >= 90, image.alt])"
    found = page.evaluate(pictures)
    assert len(found) > 20 and [alt for loaded, large, alt in found if not (loaded and large)] == []


def test_on_a_phone_a_wide_table_scrolls_in_its_own_box_and_keeps_the_labels(browser, page_file):
    context = browser.new_context(viewport={"width": 375, "height": 800})
    page = context.new_page()
    page.goto(page_file.as_uri())
    box = page.locator(".scroll", has=page.locator("caption", has_text="row minus column")).first
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.evaluate("box => box.scrollLeft = 300")
    left = box.locator("tbody th").first.bounding_box()["x"]
    assert left == pytest.approx(box.bounding_box()["x"], abs=1)
    context.close()


def test_the_page_is_complete_without_scripts_and_prints_on_paper(browser, page_file, tmp_path):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator("table").first.is_visible() and page.locator("nav a").count() >= 8
    page.emulate_media(media="print")
    assert not page.locator("nav").first.is_visible() and page.locator("table").first.is_visible()
    page.pdf(path=tmp_path / "page.pdf", format="A4")
    assert (tmp_path / "page.pdf").read_bytes()[:5] == b"%PDF-"
    context.close()
