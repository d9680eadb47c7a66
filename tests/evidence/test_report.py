"""The report's page as text: every case has its verdict, its rows, and nothing that came from outside as markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.evidence.sample_report import BROKEN, FLOAT, FLOAT32, INT8, REJECTED, WAITED, sample
from yolo_kd.evidence.charts.scatter import shape
from yolo_kd.evidence.report import KINDS, Report, html, write_report


def heading(text: str) -> tuple[str, str]:
    """Colour and words of the verdict."""
    found = re.search(r'<section class="verdict (\w+)"><h2>(.*?)</h2>', text)
    assert found is not None
    return found[1], found[2]


def test_the_rows_are_numbered_by_speed_in_chart_and_table_alike():
    text = html(sample())
    names = re.findall(r"<b>(\d+) ([^<]*)</b>", text)
    assert names == [("1", "too coarse"), ("2", "mixed"), ("3", "float"), ("4", "float32"), ("5", "entropy")]
    assert ">2 mixed</text>" in text and ">3 float</text>" in text
    assert text.count("candidate k-") == 2 * 4, "four that have AP and time, once for a page and once for a phone"
    assert "Not shown, for want of AP or time: 5 entropy." in text


def test_the_verdict_reasons_layers_notes_and_facts_are_there():
    text = html(sample())
    assert heading(text) == ("passed", "mixed passed and was chosen")
    for words in ("1.55\u00a0×", "AP drops by 0.0252", "out of memory after 24 GiB", "model.0.conv", "0.1212",
                  "times were taken under load", "avx512_vnni", "disagree most: ", "2 boxes by both"):  # fmt: skip
        assert words in text, words
    assert text.count("<img") == 4 and text.count('class="share"') == 2 and 'style="width:33.0%"' in text


def test_one_that_the_gate_never_saw_has_a_look_of_its_own():
    """A colour that the style knows, a mark in chart and legend that no other kind has, and its reason."""
    text = html(replace(sample(), rows=[FLOAT, INT8, REJECTED, WAITED]))
    assert '<tr class="k-not-judged">' in text and text.count('<g class="candidate k-not-judged">') == 2
    assert ".k-not-judged{--k:var(" in text and "k-not judged" not in text
    assert '<span class="tag">not judged</span><ul class="reasons"><li>mixed passed the gate first</li></ul>' in text
    assert len({shape(kind, 0.0, 0.0) for kind in KINDS}) == len(KINDS)
    assert re.search(r'<li class="k-not-judged"><svg[^>]*><rect class="mark"[^>]*></rect></svg>not judged</li>', text)


def test_a_class_named_script_is_text():
    evil = "<script>alert(1)</script>"
    row = replace(INT8, name=evil, backend=evil, precision=evil, settings=evil, reasons=(evil,), by_size={evil: 0.1})
    found = sample()
    pair = replace(found.pairs[0], title=evil, caption=evil, kind=evil)
    text = html(Report(evil, {evil: evil}, [FLOAT, row], [(evil, 0.1)], [pair], [evil]))
    assert "<script" not in text and text.count("&lt;script&gt;") > 15


@pytest.mark.parametrize(
    ("rows", "colour", "words", "candidates"),
    [
        ([], "rejected", "No INT8 candidate was tried", 0),
        ([FLOAT], "rejected", "No INT8 candidate was tried", 1),
        ([INT8], "passed", "mixed passed and was chosen", 1),
        ([FLOAT, replace(INT8, ap=None, by_size={})], "passed", "mixed passed and was chosen", 1),
        ([FLOAT, REJECTED], "rejected", "The one candidate did not pass: keep the float model", 2),
        ([FLOAT, REJECTED, BROKEN], "rejected", "None of the 2 candidates passed: keep the float model", 2),
        ([BROKEN], "rejected", "The one candidate did not pass: keep the float model", 0),
    ],
)
def test_few_candidates_and_missing_numbers(rows, colour, words, candidates):
    text = html(Report("t", {}, rows))
    assert heading(text) == (colour, words)
    assert text.count("candidate k-") == 2 * candidates
    assert ">nan" not in text and "None</" not in text


def test_nan_is_absent_everywhere():
    bad = replace(INT8, ap=float("nan"), p95_ms=float("nan"), size_mb=float("nan"), by_size={"small": float("nan")})
    text = html(Report("t", {}, [FLOAT, bad], [("layer", float("nan"))]))
    assert not re.search(r"(?i)\bnan\b", text)


def test_a_loss_of_nothing_has_no_sign():
    text = html(Report("t", {}, [FLOAT, replace(INT8, ap=0.37521)]))
    assert "−0.0000" not in text and ">0.0000<" in text


def test_ap_by_size_shows_the_chosen_or_the_nearest_one_beside_its_float():
    def bars(text: str) -> list[str]:
        return re.findall(r"<title>(\w+: [\d.]+)</title>", text)

    assert bars(html(sample()))[:4] == ["all: 0.3752", "all: 0.3731", "small: 0.1810", "small: 0.1780"]
    better = replace(REJECTED, ap=0.3740)
    assert bars(html(Report("t", {}, [FLOAT, INT8, better])))[1] == "all: 0.3731", "the chosen one, not the best"
    assert bars(html(Report("t", {}, [FLOAT32, REJECTED])))[:2] == ["all: 0.3760", "all: 0.3500"]


def test_it_is_written(tmp_path):
    write_report(tmp_path / "a" / "report.html", sample())
    assert (tmp_path / "a" / "report.html").read_text().startswith("<!doctype html>")
