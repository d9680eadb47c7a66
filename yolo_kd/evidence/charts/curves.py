"""Lines over the epochs of a run, each with its name at its end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yolo_kd.evidence.charts.axes import FONT, Axis, decimals, padded, round_ticks, text_width
from yolo_kd.evidence.charts.labels import Anchor, Box, Label, place
from yolo_kd.evidence.page import Markup, element

MARGINS = (48.0, 16.0, 10.0, 40.0)  # left, top, right without the names, bottom
COLOURS = 8  # classes c0 to c7 in page_style.py
NAMES_AT_MOST = 0.34  # of the width
DECADES = 3.0  # of a logarithmic axis with ticks at 1, 2 and 5; with more of them, at 1 only


@dataclass(frozen=True)
class Curve:
    """A line.

    Args:
        name: Written at its end.
        values: One an epoch; what is not finite is a gap.
        colour: Number of its colour.
        dashed: How it is drawn.
    """

    name: str
    values: Sequence[float]
    colour: int
    dashed: bool = False


def curves(
    epochs: Sequence[float], lines: Sequence[Curve], width: float, height: float, log: bool = False,
    levels: Sequence[tuple[float, int, str]] = (), marks: Mapping[str, float] | None = None,
) -> Markup:  # fmt: skip
    """The chart.

    Args:
        epochs: Numbers of the epochs.
        lines: What is drawn; values at or below 0 are gaps if `log`.
        width: Of the drawing in pixels.
        height: Of the drawing.
        log: Whether the vertical axis is logarithmic.
        levels: (value, colour, name) of dashed lines across the chart; the name may be empty.
        marks: Words to the epoch before which something changes.
    """
    names = [line.name for line in lines] + [name for _, _, name in levels]
    right = min(max(map(text_width, names), default=0.0) + 12, NAMES_AT_MOST * width) + MARGINS[2]
    seen = [v for line in lines for v in line.values if _drawn(v, log)] + [v for v, _, _ in levels if _drawn(v, log)]
    y_axis, ticks = _vertical(seen, height, log)
    x_axis = _horizontal(epochs, width - right)

    def at(epoch: float, value: float) -> tuple[float, float]:
        return x_axis(epoch), y_axis(math.log10(value) if log else value)

    parts = _frame(x_axis, y_axis, ticks, height, log)
    for words, epoch in (marks or {}).items():
        x = x_axis(epoch - 0.5)
        parts.append(element("line", class_="mark-line", x1=x, y1=y_axis.end, x2=x, y2=y_axis.start))
        left = x + text_width(words) + 6 > width  # no room on the right of the line
        side = "end" if left else "start"
        parts.append(
            element("text", words, class_="quiet", x=x + (-4 if left else 4), y=y_axis.end - 4, text_anchor=side)
        )
    ends: list[tuple[float, float, str, int]] = []
    for value, colour, name in levels:
        if _drawn(value, log):
            _, y = at(epochs[-1] if epochs else 1.0, value)
            parts.append(
                element("line", class_=f"curve c{colour % COLOURS} dashed", x1=x_axis.start, y1=y, x2=x_axis.end, y2=y)
            )
            ends.append((x_axis.end, y, name, colour))
    for line in lines:
        points = [at(e, v) if _drawn(v, log) else None for e, v in zip(epochs, line.values, strict=True)]
        parts += _line(points, line)
        last = next((p for p in reversed(points) if p is not None), None)
        if last is not None:
            ends.append((*last, line.name, line.colour))
    parts += _names(ends, Box(x_axis.start, y_axis.end - FONT, width, y_axis.start + FONT))
    said = f"{', '.join(n for n in names if n)} over {len(epochs)} epochs"
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=said)


def log_ticks(low: float, high: float) -> list[float]:
    """Multiples of 1, 2 and 5 between two powers of ten given as logarithms; over many decades, powers only.

    >>> log_ticks(-1.0, 0.5), log_ticks(-2, 2)
    ([0.1, 0.2, 0.5, 1.0, 2.0], [0.01, 0.1, 1.0, 10.0, 100.0])
    """
    factors = (1, 2, 5) if high - low <= DECADES else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    found = [round(factor * 10.0**power, 12) for power in powers for factor in factors]
    return [v for v in found if low - 1e-9 <= math.log10(v) <= high + 1e-9]


def _drawn(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _vertical(seen: Sequence[float], height: float, log: bool) -> tuple[Axis, list[float]]:
    """The scale, and the values at its ticks."""
    if log:
        low, high = padded(*_ends([math.log10(v) for v in seen]), 0.5, 0.05)
        return Axis(low, high, height - MARGINS[3], MARGINS[1]), log_ticks(low, high)
    low, high = _ends(seen)
    low, high = padded(low if low > 0.35 * high else 0.0, high, 1e-3, 0.05)
    low = max(low, 0.0) if not seen or min(seen) >= 0 else low
    return Axis(low, high, height - MARGINS[3], MARGINS[1]), round_ticks(low, high, 5)


def _horizontal(epochs: Sequence[float], end: float) -> Axis:
    low, high = _ends(epochs)
    return Axis(low, max(high, low + 1), MARGINS[0], end)


def _ends(values: Sequence[float]) -> tuple[float, float]:
    return (min(values), max(values)) if values else (0.0, 1.0)


def _frame(x_axis: Axis, y_axis: Axis, ticks: Sequence[float], height: float, log: bool) -> list[Markup]:
    parts = []
    for value in ticks:
        y = y_axis(math.log10(value) if log else value)
        text = f"{value:g}" if log else f"{value:.{decimals(list(ticks))}f}"
        parts.append(element("line", class_="grid", x1=x_axis.start, y1=y, x2=x_axis.end, y2=y))
        parts.append(element("text", text, class_="quiet", x=x_axis.start - 6, y=y + 4, text_anchor="end"))
    for value in x_axis.ticks(max(3, round((x_axis.end - x_axis.start) / 80))):
        if value == round(value):
            x = x_axis(value)
            parts.append(
                element("text", f"{value:.0f}", class_="quiet", x=x, y=y_axis.start + 16, text_anchor="middle")
            )
    parts.append(element("line", class_="axis", x1=x_axis.start, y1=y_axis.start, x2=x_axis.end, y2=y_axis.start))
    middle = (x_axis.start + x_axis.end) / 2
    parts.append(element("text", "epoch", class_="quiet", x=middle, y=height - 6, text_anchor="middle"))
    return parts


def _line(points: Sequence[tuple[float, float] | None], line: Curve) -> list[Markup]:
    """A path of as many pieces as there are gaps; a point between two gaps is a dot."""
    parts, piece, dots = [], [], []
    for point in [*points, None]:
        if point is not None:
            piece.append(point)
        elif piece:
            if len(piece) == 1:
                dots.append(piece[0])
            else:
                parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in piece))
            piece = []
    kind = f"c{line.colour % COLOURS}"
    drawn = [element("circle", class_=f"mark {kind}", cx=x, cy=y, r=2.5) for x, y in dots]
    if parts:
        drawn.append(element("path", class_=f"curve {kind}{' dashed' if line.dashed else ''}", d="".join(parts)))
    return drawn


def _names(ends: Sequence[tuple[float, float, str, int]], area: Box) -> list[Markup]:
    named = [end for end in ends if end[2]]
    anchors = [Anchor(x, y, Box(x - 3, y - 1, x + 3, y + 1)) for x, y, _, _ in named]
    found: list[Label | None] = place(anchors, [[name] for _, _, name, _ in named], area)
    drawn = []
    for label, (_, _, _, colour) in zip(found, named, strict=True):
        if label is None:
            continue
        kind = f"c{colour % COLOURS}"
        if label.leader:
            (x1, y1), (x2, y2) = label.leader
            drawn.append(element("line", class_="leader", x1=x1, y1=y1, x2=x2, y2=y2))
        drawn.append(
            element("text", label.text, class_=f"label name {kind}", x=label.box.left, y=label.box.bottom - 4.0)
        )
    return drawn
