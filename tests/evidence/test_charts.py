"""Charts: where a value lies, worked by hand, and texts that never lie on each other."""

from __future__ import annotations

import re

import numpy as np
import pytest

from yolo_kd.evidence.charts.axes import Axis, decimals, round_ticks, text_width
from yolo_kd.evidence.charts.bars import Series, bars, layout
from yolo_kd.evidence.charts.labels import Anchor, Box, place
from yolo_kd.evidence.charts.scatter import Mark, axes, scatter


def mark(
    number: int, ms: float, ap: float, kind: str = "passed", late: float | None = None, chosen: bool = False
) -> Mark:
    return Mark(number, f"candidate {number}", ms, late, ap, kind, chosen)


FLOAT, INT8 = mark(1, 40.0, 0.40, "float"), mark(2, 20.0, 0.39, "passed", late=25.0, chosen=True)


def test_the_scales_of_two_candidates_by_hand():
    """Width 468, height 258: 52 + 400 + 16 and 14 + 200 + 44.

    Latency 20 to 40 with 8 % air on each side is 18.4 to 41.6. AP reaches down to what may be lost, .40 - .02, and .38 to
    .40 with 8 % air is .3784 to .4016. So 20 ms is 1.6 / 23.2 of the way, and AP .39 half of it.
    """
    x, y, floor = axes([FLOAT, INT8], 468.0, 258.0, max_drop=0.02)
    assert (x.low, x.high) == pytest.approx((18.4, 41.6)) and (y.low, y.high) == pytest.approx((0.3784, 0.4016))
    assert x(20.0) == pytest.approx(52 + 400 * 1.6 / 23.2) and x(40.0) == pytest.approx(452 - 400 * 1.6 / 23.2)
    assert y(0.39) == pytest.approx(114.0) and floor == pytest.approx(0.38)


def test_a_mark_its_whisker_and_its_ring_are_drawn_there():
    text = scatter([FLOAT, INT8], 468.0, 258.0, "ms", max_drop=0.02)
    assert re.findall(r'<g class="candidate k-(\w+)">', text) == ["float", "passed"]
    assert '<circle class="mark" cx="79.59" cy="114" r="5">' in text
    assert '<circle class="ring" cx="79.59" cy="114" r="9">' in text
    assert '<line class="whisker" x1="79.59" y1="114" x2="165.79" y2="114">' in text  # 52 + 400 * 6.6 / 23.2
    assert text.count("whisker") == 2, "one line and its end; the float has no 95th percentile"
    assert '<line class="limit" x1="52" y1="200.21" x2="452" y2="200.21">' in text  # 214 - 200 * .0016 / .0232
    assert ">2 candidate 2</text>" in text and ">1 candidate 1</text>" in text


def test_an_outlier_lies_on_the_edge_and_says_so_instead_of_squashing_the_rest():
    ruined, slow = mark(3, 21.0, 0.003, "rejected"), mark(4, 900.0, 0.40, "rejected")
    x, y, _ = axes([FLOAT, INT8, ruined, slow], 680.0, 420.0, max_drop=0.01)
    assert y.low > 0.38 and x.high < 50
    assert y(ruined.ap) == y.start and x(slow.ms) == x.end
    text = scatter([FLOAT, INT8, ruined, slow], 680.0, 420.0, "ms", 0.01)
    assert "3 candidate 3 (AP 0.003)" in text and "(900 ms)" in text


@pytest.mark.parametrize("marks", [[INT8], [FLOAT], [mark(1, 0.0, 0.0)], [mark(1, 5, 0.5), mark(2, 5, 0.5)]])
def test_one_candidate_or_equal_ones_have_a_chart(marks):
    x, y, _ = axes(marks, 360.0, 380.0, None)
    assert x.low < x.high and y.low < y.high
    assert all(x.end > x(m.ms) >= x.start and y.end < y(m.ap) <= y.start for m in marks)
    assert scatter(marks, 360.0, 380.0, "ms").count("candidate k-") == len(marks)


def test_float_only_has_no_limit_without_a_drop():
    assert "limit" not in scatter([FLOAT, INT8], 468.0, 258.0, "ms")


@pytest.mark.parametrize("seed", range(5))
def test_texts_never_overlap_each_other_or_a_mark(seed):
    rng = np.random.default_rng(seed)
    spots = [(float(x), float(y)) for x, y in rng.normal((200, 150), (60, 12), (25, 2))]
    anchors = [Anchor(x, y, Box(x - 6, y - 6, x + 6 + 30 * (i % 3), y + 6)) for i, (x, y) in enumerate(spots)]
    texts = [(f"{i} a rather long name", f"{i}") for i in range(25)]
    area = Box(50, 10, 660, 380)
    found = place(anchors, texts, area)
    assert all(label is not None for label in found)
    boxes = [label.box for label in found if label]
    for i, box in enumerate(boxes):
        assert box.inside(area)
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert not any(box.overlaps(anchor.extent) for anchor in anchors)


def test_a_line_goes_round_a_text_where_it_can():
    """Walls on three sides and a text above: straight over the text there is room, but the line would run through it."""
    wide, mark = Anchor(140, 70, Box(136, 66, 146, 74)), Anchor(200, 100, Box(194, 94, 206, 106))
    walls = [Box(100, 84, 194, 140), Box(206, 84, 300, 140), Box(194, 106, 206, 140)]
    anchors = [wide, mark, *(Anchor(0, 0, box) for box in walls)]
    above = place(anchors, [("t" * 14,), ("2",), *([("x" * 99,)] * 3)], Box(100, 0, 300, 140))
    assert above[0] is not None and above[1] is not None and above[1].leader is not None
    assert above[0].box.left < 194 and above[0].box.right > 206
    (x, y), (x_end, y_end) = above[1].leader
    for share in np.linspace(0, 1, 200):
        at = x + share * (x_end - x), y + share * (y_end - y)
        assert not (above[0].box.left < at[0] < above[0].box.right and above[0].box.top < at[1] < above[0].box.bottom)


def test_in_a_crowd_the_chosen_one_still_has_its_name():
    crowd = [mark(i, 20 + 0.3 * (i % 5), 0.39 + 0.0006 * (i // 5), late=24.0) for i in range(2, 27)]
    text = scatter([mark(1, 20.6, 0.3912, chosen=True), FLOAT, *crowd], 680.0, 420.0, "ms", 0.01)
    assert 'class="label chosen">1 candidate 1</text>' in text
    assert len(re.findall(r">\d+ candidate \d+</text>", text)) < 20, "not every name fits"


def test_a_lone_text_is_right_of_its_mark_without_a_line():
    anchor = Anchor(100, 100, Box(95, 95, 105, 105))
    (label,) = place([anchor], [("name",)], Box(0, 0, 400, 200))
    assert label is not None and label.leader is None
    assert label.box.left == pytest.approx(108) and (label.box.top + label.box.bottom) / 2 == pytest.approx(100)


def test_a_text_is_nearest_to_its_own_mark():
    """Right of the left mark there is room of 16 pixels, but the text would be as near to the right one."""
    left, right = Anchor(100, 100, Box(95, 95, 105, 105)), Anchor(125, 100, Box(120, 95, 130, 105))
    one, other = place([left, right], [("1",), ("2",)], Box(0, 0, 400, 200))
    assert one is not None and one.box.right < 95 and other is not None and other.box.left > 130


def test_no_room_means_no_text():
    anchor = Anchor(5, 5, Box(0, 0, 10, 10))
    assert place([anchor], [("name",)], Box(0, 0, 12, 12)) == [None]


def test_bars_by_hand():
    """Width 250, height 146: 44 + 200 + 6 and 18 + 100 + 28; two groups of 100, 30 % of each a gap, two bars of 35."""
    series = [Series("float", {"all": 0.4, "small": 0.2}), Series("passed", {"all": 0.3, "small": None})]
    axis, found = layout(["all", "small"], series, 250.0, 146.0)
    assert axis.high == pytest.approx(0.42)
    assert [(b.left, b.width) for b in found] == [(59, 35), (94, 35), (159, 35), (194, 35)]
    assert [b.height for b in found] == pytest.approx([100 * 0.4 / 0.42, 100 * 0.3 / 0.42, 100 * 0.2 / 0.42, 0.0])
    assert all(b.top + b.height == pytest.approx(118) for b in found)
    text = bars(["all", "small"], series, 250.0, 146.0)
    assert text.count("<rect") == 3 and ">.400<" in text and ">–<" in text


def test_bars_of_nothing_but_zeros_and_none_have_a_scale():
    axis, found = layout(["all"], [Series("float", {"all": 0.0}), Series("passed", {})], 250.0, 146.0)
    assert axis.high == 1.0 and [b.height for b in found] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [(0, 1, 5, [0, 0.2, 0.4, 0.6, 0.8, 1]), (18.4, 41.6, 5, [20, 25, 30, 35, 40]), (0.3784, 0.4016, 5, [0.38, 0.385, 0.39, 0.395, 0.4])],
)  # fmt: skip
def test_ticks_are_round(low, high, count, expected):
    assert round_ticks(low, high, count) == pytest.approx(expected)


def test_an_axis_and_its_decimals():
    assert Axis(0, 10, 0, 100)(-5) == 0 and Axis(0, 10, 0, 100)(50) == 100
    assert decimals([0.38, 0.385]) == 3 and decimals([0, 0.2]) == 1 and decimals([]) == 0
    assert text_width("行") > text_width("a") > 0
