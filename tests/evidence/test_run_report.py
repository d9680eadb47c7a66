"""The page of a training: every part that the folder has, none that it has not, and in a browser without network."""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import pytest

from tests.browser import Browser
from tests.evidence.sample_run import write_artifact, write_run
from tests.evidence.test_report_in_browser import BOXES, rendered
from yolo_kd.evidence.run import read_run
from yolo_kd.evidence.run_report import html, write_run_report


def headings(text: str) -> list[str]:
    return re.findall(r"<h2>([^<]*)</h2>", text)


def test_a_distilled_run_has_every_part(tmp_path):
    text = html(read_run(write_run(tmp_path)))
    assert headings(text) == [
        "mAP50-95 0.2000, at epoch 2 of 3", "Precision on the val split", "Detection losses", "Distillation terms",
        "Gradient shares", "Metrics", "Teacher", "What teacher and student see", "Settings",
    ]  # fmt: skip
    for words in (
        "c8f4c8f4",
        "openvino-bf16",
        "0.014, 0.017, 0.029",
        "a_rare_key",
        "its value",
        "auto:0.25",
        "mosaic closes",
    ):
        assert words in text, words
    assert "<script" not in text and "&lt;script&gt;" in text


def test_a_plain_run_has_no_empty_parts(tmp_path):
    bare = read_run(write_run(tmp_path, settings=None, args=None, preflight=None, maps=False))
    assert "Dashed: the teacher" not in html(bare) and "Dashed: the teacher" in html(
        read_run(write_run(tmp_path / "a"))
    )
    assert headings(html(bare))[1:5] == [
        "Precision on the val split",
        "Detection losses",
        "Distillation terms",
        "Gradient shares",
    ]
    rows = ["1,60,4,0.1,4", "2,120,3,0.2,3"]
    heads = "epoch,time,train/box_loss,metrics/mAP50-95(B),val/box_loss"
    plain = html(read_run(write_run(tmp_path / "b", rows, None, None, None, False, heads)))
    assert headings(plain) == [
        "mAP50-95 0.2000, at epoch 2 of 2",
        "Precision on the val split",
        "Detection losses",
        "Metrics",
    ]
    assert "teacher's" not in plain


@pytest.mark.parametrize("rows", [[], ["1,60,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan,nan"]])
def test_a_run_without_numbers_still_has_a_page(tmp_path, rows):
    text = html(read_run(write_run(tmp_path, rows)))
    assert "No epoch was validated" in text and ">nan" not in text and "Settings" in text


def test_dashes_are_shares_asked_for_and_the_colour_is_the_terms(tmp_path):
    text = html(read_run(write_run(tmp_path)))
    chart = text[text.index("Gradient shares") :]
    chart = chart[: chart.index("Metrics")]
    assert chart.count('class="curve c0 dashed"') == 2 == chart.count('class="curve c1 dashed"'), "wide and narrow"


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (400, True)])
def test_the_page_in_a_browser(browser: Browser, tmp_path: Path, width: int, dark: bool):
    folder = write_run(tmp_path / "a rather long name of a run " / ("x" * 60))
    write_artifact(folder / "weights" / "best_int8_openvino_model", False, ["detects nothing on 128 images"])
    write_run_report(folder / "report.html", read_run(folder))
    page = browser.open(folder / "report.html", width=width, dark=dark)
    text = page.run("document.body.innerText")
    for words in ("mAP50-95 0.2000, at epoch 2 of 3", "the student reaches 80 % of it", "detects nothing on 128 images",
                  "What teacher and student see", "visdrone.yaml", "auto:0.25"):  # fmt: skip
        assert words in text, words
    assert "its value" not in text, "the other keys are folded away"
    assert page.run("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])") == [[1216, 900]]
    assert rendered(page, "figure svg") == 4 and rendered(page, "path.curve") == 2 + 4 + 2 + 2
    assert page.messages == [] and page.requests == []
    assert page.run("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    for index in range(4):
        names = BOXES.format(f"figure:nth-of-type({index + 1}) .{'wide' if width > 640 else 'narrow'} .name")
        for a, b in combinations(page.run(names), 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (index, a, b)
    page.run("document.querySelector('summary').click()")
    assert "its value" in page.run("document.body.innerText")
