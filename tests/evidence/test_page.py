"""What every page is put together from: nothing from outside becomes markup, nothing is fetched, nothing is half written."""

from __future__ import annotations

import re

import pytest

from yolo_kd.evidence import page
from yolo_kd.evidence.page import Markup, element

EVIL = '<script>alert("1")</script>&\'\x00'
TAMED = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#x27;\ufffd"


def test_text_is_escaped_in_contents_and_attributes_alike():
    assert element("p", EVIL) == f"<p>{TAMED}</p>"
    assert element("p", title=EVIL) == f'<p title="{TAMED}"></p>'
    assert page.join([EVIL, element("b", "x"), None]) == f"{TAMED}<b>x</b>"


def test_every_builder_escapes():
    built = [
        page.section(EVIL, EVIL, note=EVIL),
        page.definitions({EVIL: EVIL}),
        page.bullets([EVIL]),
        page.table([EVIL], [[EVIL]]),
        page.picture(b"", EVIL),
        page.document(EVIL, EVIL),
    ]
    for markup in built:
        assert isinstance(markup, Markup)
        assert "<script" not in markup and "\x00" not in markup and TAMED in markup


def test_the_page_forbids_the_network_and_asks_for_nothing():
    text = page.document("t", page.picture(b"abc", "x"))
    assert text.startswith("<!doctype html>\n<html")
    assert "default-src &#x27;none&#x27;; img-src data:;" in text and "script-src" not in text
    assert not re.search(r"https?:|//[a-z]|url\(|@import|<script|<link", text), "an address or a script"
    assert 'src="data:image/jpeg;base64,YWJj"' in text


def test_numbers_in_attributes_are_rounded_and_underscores_become_hyphens():
    assert element("line", x1=1.0, x2=2.346, stroke_width=3, class_="a") == (
        '<line x1="1" x2="2.35" stroke-width="3" class="a"></line>'
    )


def test_a_row_needs_a_cell_for_every_column():
    with pytest.raises(ValueError):
        page.table(["a", "b"], [["only one"]])


def test_a_file_name_that_is_no_utf8_does_not_stop_the_report(tmp_path):
    page.write(tmp_path / "r.html", element("p", "a\udcffb"))
    assert (tmp_path / "r.html").read_text() == "<p>a?b</p>"
