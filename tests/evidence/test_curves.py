"""Lines over the epochs: where they run, where they have gaps, and what stands at their ends."""

from __future__ import annotations

import math
import re
from itertools import combinations

import pytest

from yolo_kd.evidence.charts.curves import Curve, curves, log_ticks


def test_a_line_by_hand():
    """Names are 1 letter, 7.44 + 12 wide; so the right margin is 29.44 and 400 pixels are left of 477.44; height 200 + 56.

    Values 0 to 2 with 5 % air above: 2.1 at y 16, 0 at y 216. Epochs 1 to 5.
    """
    text = curves([1, 3, 5], [Curve("a", [0.0, 1.0, 2.0], 0)], 477.44, 256.0)
    points = re.search(r'<path class="curve c0" d="(M[^"]*)"', text)
    assert points is not None
    numbers = [[float(n) for n in point.split()] for point in points[1][1:].split("L")]
    scale = 200 / 2.1
    assert numbers == [pytest.approx(p, abs=0.06) for p in ([48, 216], [248, 216 - scale], [448, 216 - 2 * scale])]
    assert re.search(r'class="label name c0" x="454" y="[\d.]+">a</text>', text), "right of the last point"


def test_gaps_split_a_line_and_lone_points_are_dots():
    text = curves([1, 2, 3, 4, 5, 6], [Curve("a", [1, 2, math.nan, 3, math.inf, 4], 1)], 400.0, 200.0)
    path = re.search(r'<path class="curve c1" d="([^"]*)"', text)
    assert path is not None and path[1].count("M") == 1 and path[1].count("L") == 1
    assert text.count('<circle class="mark c1"') == 2


def test_a_logarithmic_axis_leaves_out_what_is_not_above_zero():
    text = curves(
        [1, 2, 3], [Curve("a", [0.1, 0.0, 10.0], 0), Curve("b", [-1.0, 0.0, math.nan], 1)], 400.0, 256.0, log=True
    )
    assert "c1" not in text, "nothing of it can be drawn"
    circles = re.findall(r'<circle class="mark c0" cx="([\d.]+)" cy="([\d.]+)"', text)
    ys = sorted(float(y) for _, y in circles)
    assert len(circles) == 2 and ys[0] - 16 == pytest.approx(216 - ys[1], abs=0.1), (
        "both ends equally far from the edge"
    )
    assert all(f">{tick}</text>" in text for tick in ("0.1", "1", "10"))


def test_levels_and_marks():
    text = curves([1, 2, 3], [Curve("a", [1, 2, 3], 0)], 400.0, 256.0, levels=[(2.5, 3, "teacher"), (math.nan, 4, "no")],
                  marks={"mosaic closes": 3})  # fmt: skip
    assert text.count('class="curve c3 dashed"') == 1 and ">teacher</text>" in text and "c4" not in text
    line = re.search(r'class="mark-line" x1="([\d.]+)"', text)
    xs = re.findall(r">(\d)</text>", text)
    assert line is not None and ">mosaic closes</text>" in text and {"1", "2", "3"} <= set(xs)
    left, right = 48.0, 400 - (7 * 12 * 0.62 + 12 + 10)
    assert float(line[1]) == pytest.approx(left + (right - left) * 0.75, abs=0.02), "between epochs 2 and 3"


@pytest.mark.parametrize(
    ("epochs", "values"),
    [([], []), ([1], [0.5]), ([1, 2], [0.0, 0.0]), ([1, 2], [math.nan, math.nan]), ([7, 8], [5, 5])],
)
@pytest.mark.parametrize("log", [True, False])
def test_odd_runs_have_a_chart(epochs, values, log):
    text = curves(epochs, [Curve("<a>", values, 11)], 400.0, 256.0, log=log)
    assert text.startswith("<svg") and "nan" not in text and "<a>" not in text
    assert all(math.isfinite(float(n)) for n in re.findall(r' [xy][12]?="([^"]+)"', text))


def test_names_of_lines_that_end_together_are_written_apart():
    text = curves([1, 2], [Curve(f"line {i}", [1.0, 2.0 + i / 1000], i) for i in range(6)], 500.0, 256.0)
    spots = [(float(x), float(y)) for x, y in re.findall(r'class="label name c\d" x="([\d.]+)" y="([\d.]+)"', text)]
    assert len(spots) == 6
    assert all(abs(x - a) > 6 * 6 or abs(y - b) > 11 for (x, y), (a, b) in combinations(spots, 2))


def test_ticks_of_a_logarithmic_axis():
    assert log_ticks(-1.2, 0.4) == [0.1, 0.2, 0.5, 1, 2] and log_ticks(0, 4) == [1, 10, 100, 1000, 10000]
