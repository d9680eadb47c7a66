"""The report in a real browser without network: what is rendered, not what was written."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest

from tests.browser import Browser, Page
from tests.evidence.sample_report import sample
from yolo_kd.evidence.report import write_report

pytestmark = pytest.mark.slow

VISIBLE = "[...document.querySelectorAll('{}')].filter(e => e.getBoundingClientRect().width > 0)"
BOXES = "[...document.querySelectorAll('{}')].map(e => e.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, sample())
    return path


def rendered(page: Page, selector: str) -> int:
    return page.run(VISIBLE.format(selector) + ".length")


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (800, False), (400, False), (400, True)])
def test_the_page_is_all_there_and_asks_for_nothing(browser: Browser, report: Path, width: int, dark: bool):
    page = browser.open(report, width=width, dark=dark)
    assert page.run("document.title") == "yolov8n to INT8"
    text = page.run("document.body.innerText")
    for words in ("mixed passed and was chosen", "1.55 × the speed of the fastest float", "out of memory after 24 GiB",
                  "times were taken under load", "avx512_vnni", "000139.jpg", "model.0.conv"):  # fmt: skip
        assert words in text, words
    assert rendered(page, "g.candidate") == 4, "one drawing of the four that have AP and time"
    assert rendered(page, "figure.small > svg rect.mark") == 8
    assert page.run("[...document.images].map(i => i.naturalWidth)") == [320] * 4
    assert page.messages == [] and page.requests == []
    assert page.run("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    inside = "[...document.querySelectorAll('main *')].filter(e => !e.closest('.table')).map(e => e.getBoundingClientRect().right)"
    assert max(page.run(inside)) <= width


@pytest.mark.parametrize("width", [1200, 400])
def test_no_text_of_the_chart_lies_on_another_or_outside(browser: Browser, report: Path, width: int):
    page = browser.open(report, width=width)
    chart = "wide" if width > 640 else "narrow"
    labels = page.run(BOXES.format(f".{chart} svg .label"))
    assert len(labels) == 4
    frame = page.run(BOXES.format(f".{chart} svg"))[0]
    for a, b in combinations(labels, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)
    assert all(x >= frame[0] and y >= frame[1] and right <= width and low <= frame[3] for x, y, right, low in labels)
    size = page.run(f"parseFloat(getComputedStyle(document.querySelector('.{chart} svg .label')).fontSize)")
    shown = (frame[2] - frame[0]) / (680 if chart == "wide" else 360)
    assert size * shown >= 10, "too small to read"


def test_dark_and_light_differ_and_both_can_be_read(browser: Browser, report: Path):
    found = {}
    for dark in (False, True):
        page = browser.open(report, dark=dark)
        style = "getComputedStyle(document.querySelector('{}')).{}"
        found[dark] = [
            page.run(style.format(*pair)) for pair in (("body", "backgroundColor"), ("p", "color"), ("td", "color"))
        ]
        paper, *inks = found[dark]
        assert all(contrast(ink, paper) >= 7 for ink in inks), found[dark]
        verdict = page.run(style.format(".verdict h2", "color"))
        assert contrast(verdict, page.run(style.format(".verdict", "backgroundColor"))) >= 4.5
    assert found[False][0] != found[True][0]


def test_paper_is_white_even_in_the_dark(browser: Browser, report: Path):
    page = browser.open(report, width=718, dark=True, media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("document.documentElement.scrollWidth") <= 718


def test_the_browser_sees_what_is_wrong_with_a_page(browser: Browser, tmp_path: Path):
    """Otherwise the tests above would prove nothing."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><img src='http://example.com/a.png'><script>console.error('x'); nothing()</script><p style='width:2000px'>broad"
    )
    page = browser.open(bad, width=400)
    assert page.requests == ["http://example.com/a.png"]
    assert any("ERR_" in line for line in page.messages), page.messages
    assert any("exception" in line for line in page.messages) and "error: ['x']" in page.messages
    assert page.run("document.documentElement.scrollWidth") > 400
    assert page.run("document.images[0].naturalWidth") == 0


def test_what_the_page_forbids_is_not_even_asked_for(browser: Browser, report: Path, tmp_path: Path):
    poisoned = tmp_path / "poisoned.html"
    poisoned.write_text(
        report.read_text().replace(
            "</main>", "<!doctype html><img src='http://example.com/a.png'><script>document.title='x'</script></main>"
        )
    )
    page = browser.open(poisoned)
    assert page.run("document.title") == "yolov8n to INT8"
    assert sum("Content Security Policy" in line for line in page.messages) == 2, page.messages


def contrast(one: str, other: str) -> float:
    """Contrast of two colours as of WCAG 2: 1 to 21."""

    def light(colour: str) -> float:
        parts = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((light(one), light(other)))
    return (high + 0.05) / (low + 0.05)
