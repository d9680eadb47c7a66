"""Bars side by side: a group for each size of object, a bar for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from yolo_kd.evidence.charts.axes import Axis, decimals
from yolo_kd.evidence.page import Markup, coloured, element

MARGINS = (44.0, 18.0, 6.0, 28.0)  # left, top, right, bottom
GAP = 0.3  # of a group's width, between two groups


@dataclass(frozen=True)
class Series:
    """The bars of one model.

    Args:
        kind: "float", "passed", "rejected", "failed" or "not judged": its colour.
        values: AP by group; None where there is nothing to find.
    """

    kind: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Bar:
    """A rectangle in pixels; `value` is None where there is nothing to draw."""

    group: str
    kind: str
    value: float | None
    left: float
    width: float
    top: float
    height: float


def bars(groups: Sequence[str], series: Sequence[Series], width: float, height: float) -> Markup:
    """The chart: values above the bars, a dash where there is none."""
    axis, found = layout(groups, series, width, height)
    ticks = axis.ticks(4)
    parts = []
    for value in ticks:
        y = axis(value)
        parts.append(element("line", class_="grid", x1=MARGINS[0], y1=y, x2=width - MARGINS[2], y2=y))
        text = f"{value:.{decimals(ticks)}f}"
        parts.append(element("text", text, class_="quiet", x=MARGINS[0] - 7, y=y + 4, text_anchor="end"))
    for bar in found:
        centre = bar.left + bar.width / 2
        if bar.value is not None:
            parts.append(
                element(
                    "rect", element("title", f"{bar.group}: {bar.value:.4f}"), class_=f"mark {coloured(bar.kind)}", x=bar.left,
                    y=bar.top, width=bar.width, height=bar.height,
                )
            )  # fmt: skip
        text = "–" if bar.value is None else f"{bar.value:.3f}".replace("0.", ".", 1)
        parts.append(element("text", text, x=centre, y=bar.top - 4, text_anchor="middle", class_="value"))
    share = (width - MARGINS[0] - MARGINS[2]) / max(len(groups), 1)
    for index, group in enumerate(groups):
        x = MARGINS[0] + (index + 0.5) * share
        parts.append(element("text", group, x=x, y=height - 8, text_anchor="middle", class_="quiet"))
    parts.append(element("line", class_="axis", x1=MARGINS[0], y1=axis.start, x2=width - MARGINS[2], y2=axis.start))
    said = "; ".join(f"{bar.group} {bar.kind} {'none' if bar.value is None else f'{bar.value:.3f}'}" for bar in found)
    return element("svg", *parts, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=said)


def layout(groups: Sequence[str], series: Sequence[Series], width: float, height: float) -> tuple[Axis, list[Bar]]:
    """The scale, which starts at 0, and the bars group by group."""
    known = [v for s in series for v in s.values.values() if v is not None]
    left, upper, right, lower = MARGINS
    axis = Axis(0.0, max([*known, 0.0]) * 1.05 or 1.0, height - lower, upper)
    share = (width - left - right) / max(len(groups), 1)
    thick = share * (1 - GAP) / max(len(series), 1)
    found = []
    for g, group in enumerate(groups):
        for s, one in enumerate(series):
            value = one.values.get(group)
            top = axis.start if value is None else axis(value)
            x = left + g * share + share * GAP / 2 + s * thick
            found.append(Bar(group, one.kind, value, x, thick, top, axis.start - top))
    return axis, found
