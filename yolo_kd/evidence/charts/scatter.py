"""Accuracy against latency: a mark for each candidate, a whisker to its 95th percentile, a text that says which it is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from yolo_kd.evidence.charts.axes import Axis, decimals, padded
from yolo_kd.evidence.charts.labels import Anchor, Box, Label, place
from yolo_kd.evidence.page import Markup, coloured, element

RADIUS = 5.0
SPREAD = (
    5.0  # AP below the best, as a multiple of what may be lost: what is worse lies on the edge, lest it squash the rest
)
SLOWEST = 2.5  # the same to the right: milliseconds as a multiple of the slowest float's
LEAST = 0.01  # AP; a narrower range would make noise look like a difference
MARGINS = (52.0, 14.0, 16.0, 44.0)  # left, top, right, bottom


@dataclass(frozen=True)
class Mark:
    """A candidate.

    Args:
        number: Its row in the table.
        name: What it is called.
        ms: Median latency in milliseconds.
        late_ms: The 95th percentile; None if it was not measured.
        ap: Average precision in [0, 1].
        kind: "float", "passed", "rejected", "failed" or "not judged".
        chosen: Whether it is the one that was taken.
    """

    number: int
    name: str
    ms: float
    late_ms: float | None
    ap: float
    kind: str
    chosen: bool = False


@dataclass(frozen=True)
class Placed:
    """A mark in pixels.

    Args:
        mark: The candidate.
        x: Of its median latency.
        y: Of its AP.
        whisker: Pixel of its 95th percentile; None without one.
        beyond: What does not fit into the chart, in words; empty if all does.
    """

    mark: Mark
    x: float
    y: float
    whisker: float | None
    beyond: str


def scatter(marks: Sequence[Mark], width: float, height: float, unit: str, max_drop: float | None = None) -> Markup:
    """The chart.

    Args:
        marks: At least one candidate.
        width: Of the drawing in pixels; it is scaled to the page, so a phone gets a narrow one.
        height: Of the drawing.
        unit: What stands below the horizontal axis.
        max_drop: AP that may be lost against the float; drawn as a line below the best of them.
    """
    x_axis, y_axis, floor = axes(marks, width, height, max_drop)
    placed = [_placed(mark, x_axis, y_axis) for mark in marks]
    labels = _labels(placed, x_axis, y_axis)
    parts = [*_frame(x_axis, y_axis, width, height, floor, unit)]
    parts += [_line(*label.leader[0], *label.leader[1], "leader") for label in labels if label and label.leader]
    parts += [_drawn(p, y_axis.start) for p in placed]
    parts += [
        element(
            "text", label.text, x=label.box.left, y=label.box.bottom - 4.0,
            class_="label chosen" if p.mark.chosen else "label",
        )
        for p, label in zip(placed, labels, strict=True) if label
    ]  # fmt: skip
    said = f"Accuracy against latency of {len(marks)} candidates; the table below has the numbers"
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=said)


def axes(marks: Sequence[Mark], width: float, height: float, max_drop: float | None) -> tuple[Axis, Axis, float | None]:
    """The scales, and the AP below which a candidate loses too much."""
    floats = [m for m in marks if m.kind == "float"]
    top = max(m.ap for m in marks)
    floor = max(m.ap for m in floats) - max_drop if floats and max_drop is not None else None
    near = [m.ap for m in marks if m.ap >= top - SPREAD * max(max_drop or 0.0, LEAST)]
    y_low, y_high = padded(min([*near, *([floor] if floor is not None else [])]), top, LEAST)

    limit = SLOWEST * max((m.ms for m in floats), default=math.inf)
    shown = [m for m in marks if m.ms <= limit]
    fastest, slowest = min(m.ms for m in shown), max(m.ms for m in shown)
    late = min(max(m.late_ms or m.ms for m in shown), 1.25 * slowest)
    x_low, x_high = padded(fastest, max(slowest, late), 0.1 * slowest or 1.0)
    x_low = 0.0 if x_low < 0.2 * x_high else x_low
    left, upper, right, lower = MARGINS
    return Axis(x_low, x_high, left, width - right), Axis(max(y_low, 0.0), y_high, height - lower, upper), floor


def shape(kind: str, x: float, y: float, radius: float = RADIUS) -> Markup:
    """The shape of a verdict, so that colour is not all that tells them apart."""
    if kind == "passed":
        return element("circle", class_="mark", cx=x, cy=y, r=radius)
    if kind == "float":
        r = radius * 1.25
        return element("path", class_="mark", d=_path([(x, y - r), (x + r, y), (x, y + r), (x - r, y)]))
    r = radius * 0.9
    if kind == "rejected":
        corners = f"M{x - r:.2f} {y - r:.2f}L{x + r:.2f} {y + r:.2f}M{x - r:.2f} {y + r:.2f}L{x + r:.2f} {y - r:.2f}"
        return element("path", class_="mark", d=corners, stroke_width=2.5)
    if kind == "not judged":
        return element("rect", class_="mark", x=x - r, y=y - r, width=2 * r, height=2 * r)
    return element("path", class_="mark", d=_path([(x - r, y - r), (x + r, y - r), (x, y + r)]))


def _placed(mark: Mark, x_axis: Axis, y_axis: Axis) -> Placed:
    beyond = [f"AP {mark.ap:.3f}"] if mark.ap < y_axis.low else []
    beyond += [f"{mark.ms:.0f} ms"] if mark.ms > x_axis.high else []
    whisker = None if mark.late_ms is None else x_axis(mark.late_ms)
    return Placed(mark, x_axis(mark.ms), y_axis(mark.ap), whisker, ", ".join(beyond))


def _labels(placed: Sequence[Placed], x_axis: Axis, y_axis: Axis) -> list[Label | None]:
    """The chosen one and the floats have the first choice of places; the chosen one is named wherever there is room."""
    order = sorted(range(len(placed)), key=lambda i: (not placed[i].mark.chosen, placed[i].mark.kind != "float", i))
    area = Box(x_axis.start + 2, y_axis.end - 8, x_axis.end + 12, y_axis.start + 8)
    anchors = [Anchor(placed[i].x, placed[i].y, _extent(placed[i])) for i in order]
    wishes = []
    for i in order:
        mark, beyond = placed[i].mark, f" ({placed[i].beyond})" if placed[i].beyond else ""
        name = mark.name if len(mark.name) <= 30 else mark.name[:29].rstrip() + "…"
        wishes.append([f"{mark.number} {name}{beyond}", *([] if mark.chosen else [f"{mark.number}{beyond}"])])
    by_index = dict(zip(order, place(anchors, wishes, area), strict=True))
    return [by_index[i] for i in range(len(placed))]


def _extent(placed: Placed) -> Box:
    """All that is drawn of a mark."""
    r = RADIUS + (5 if placed.mark.chosen else 1.5)
    right = max(placed.x + r, (placed.whisker or 0.0) + 1)
    return Box(placed.x - r, placed.y - r, right, placed.y + r)


def _frame(x_axis: Axis, y_axis: Axis, width: float, height: float, floor: float | None, unit: str) -> list[Markup]:
    parts = []
    y_ticks, x_ticks = y_axis.ticks(5), x_axis.ticks(max(3, round(width / 110)))
    for value in y_ticks:
        y = y_axis(value)
        parts.append(_line(x_axis.start, y, x_axis.end, y, "grid"))
        text = f"{value:.{decimals(y_ticks)}f}"
        parts.append(element("text", text, class_="quiet", x=x_axis.start - 7, y=y + 4, text_anchor="end"))
    for value in x_ticks:
        x = x_axis(value)
        parts.append(_line(x, y_axis.start, x, y_axis.start + 4, "axis"))
        text = f"{value:.{decimals(x_ticks)}f}"
        parts.append(element("text", text, class_="quiet", x=x, y=y_axis.start + 18, text_anchor="middle"))
    parts.append(_line(x_axis.start, y_axis.start, x_axis.end, y_axis.start, "axis"))
    middle = (x_axis.start + x_axis.end) / 2
    parts.append(
        element(
            "text", "milliseconds per frame, median →", class_="quiet", x=middle, y=height - 6, text_anchor="middle"
        )
    )
    if floor is not None and y_axis.low < floor < y_axis.high:
        parts.append(_line(x_axis.start, y_axis(floor), x_axis.end, y_axis(floor), "limit"))
    return parts


def _drawn(placed: Placed, bottom: float) -> Markup:
    mark, x, y = placed.mark, placed.x, placed.y
    late = "" if mark.late_ms is None else f", p95 {mark.late_ms:.2f} ms"
    parts = [element("title", f"{mark.number} {mark.name}: AP {mark.ap:.4f}, p50 {mark.ms:.2f} ms{late}, {mark.kind}")]
    if placed.whisker is not None and placed.whisker > x:
        parts.append(_line(x, y, placed.whisker, y, "whisker"))
        parts.append(_line(placed.whisker, y - 3, placed.whisker, y + 3, "whisker"))
    parts.append(shape(mark.kind, x, y))
    if placed.beyond:
        down = y >= bottom - 1e-6
        tip = [(x - 4, y + 9), (x + 4, y + 9), (x, y + 14)] if down else [(x + 9, y - 4), (x + 9, y + 4), (x + 14, y)]
        parts.append(element("path", class_="mark", d=_path(tip)))
    if mark.chosen:
        parts.append(element("circle", class_="ring", cx=x, cy=y, r=RADIUS + 4))
    return element("g", *parts, class_=f"candidate {coloured(mark.kind)}")


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", class_=class_, x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2))


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + "Z"
