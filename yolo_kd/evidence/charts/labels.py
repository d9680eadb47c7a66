"""Texts beside marks that overlap neither each other nor the marks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yolo_kd.evidence.charts.axes import FONT, text_width

GAP = 3.0  # pixels from a mark's edge to its text
STEP = 13.0  # from one ring of places to the next
RINGS = 40  # across the whole chart
Line = tuple[tuple[float, float], tuple[float, float]]
CLEAR = 2.0  # by so much another mark has to be farther from a text than its own
LEADER = 8.0  # a text farther away than this is joined to its mark by a line


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y down."""

    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Box) -> bool:
        """Whether they share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def inside(self, other: Box) -> bool:
        """Whether it lies within the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


@dataclass(frozen=True)
class Label:
    """A text with its place.

    Args:
        text: What is written.
        box: Where; the text starts at its left edge.
        leader: From (x, y) at the text to (x, y) at the mark; None where the text is right beside it.
    """

    text: str
    box: Box
    leader: Line | None


@dataclass(frozen=True)
class Anchor:
    """What a text belongs to.

    Args:
        x: Centre of the mark.
        y: Centre of the mark.
        extent: All that is drawn of it, its whisker included; no text lies there.
    """

    x: float
    y: float
    extent: Box


def place(anchors: Sequence[Anchor], texts: Sequence[Sequence[str]], area: Box) -> list[Label | None]:
    """A text for each mark, in the order in which they may choose.

    Args:
        anchors: The marks.
        texts: For each mark what could be written, best first: all but the last only right beside it.
        area: Texts stay inside.

    Returns:
        One entry a mark; None where no place was left.
    """
    found: list[Label | None] = []
    for anchor, wishes in zip(anchors, texts, strict=True):
        found.append(_first(anchor, wishes, area, [a.extent for a in anchors], [label for label in found if label]))
    return found


def _first(
    anchor: Anchor, wishes: Sequence[str], area: Box, extents: Sequence[Box], labels: Sequence[Label]
) -> Label | None:
    spare = None
    for index, text in enumerate(wishes):
        rings = RINGS if index == len(wishes) - 1 else 1
        for box in _places(anchor, text_width(text), rings):
            if not box.inside(area) or any(box.overlaps(other) for other in [*extents, *(o.box for o in labels)]):
                continue
            label = Label(text, box, _leader(anchor, box))
            crossed = any(_crosses(label.leader, other.box) or _crosses(other.leader, box) for other in labels)
            if not crossed and (label.leader or _closest(box, anchor.extent, extents)):
                return label
            spare = spare or label  # in a crowd: better a line through a text, or a text between two marks, than none
    return spare


def _closest(box: Box, own: Box, extents: Sequence[Box]) -> bool:
    """Whether a text without a line is clearly nearer to its own mark than to any other."""
    return all(other is own or _gap(box, own) + CLEAR <= _gap(box, other) for other in extents)


def _gap(one: Box, other: Box) -> float:
    """Pixels between two rectangles; 0 where they touch."""
    across = max(one.left - other.right, other.left - one.right, 0.0)
    return math.hypot(across, max(one.top - other.bottom, other.top - one.bottom, 0.0))


def _crosses(line: Line | None, box: Box) -> bool:
    """Whether a line enters a rectangle: it is clipped side by side, after Liang and Barsky."""
    if line is None:
        return False
    (x, y), (x_end, y_end) = line
    first, last = 0.0, 1.0
    for way, room in (
        (x - x_end, x - box.left), (x_end - x, box.right - x), (y - y_end, y - box.top), (y_end - y, box.bottom - y)
    ):  # fmt: skip
        if way == 0.0 and room <= 0.0:
            return False
        if way < 0.0:
            first = max(first, room / way)
        elif way > 0.0:
            last = min(last, room / way)
    return first < last


def _places(anchor: Anchor, width: float, rings: int) -> Iterator[Box]:
    """Places around a mark, nearest first; in a ring to the right first, then left, above, below and between."""
    extent, height = anchor.extent, FONT * 1.2
    for ring in range(rings):
        reach = GAP + ring * STEP
        count = 8 if ring == 0 else 16
        straight = [0, count // 2, count // 4, 3 * count // 4]
        for turn in [*straight, *(t for t in range(count) if t not in straight)]:
            dx, dy = (round(f(2 * math.pi * turn / count), 6) for f in (math.cos, lambda angle: -math.sin(angle)))
            edge_x = extent.right if dx > 0 else extent.left if dx < 0 else anchor.x
            edge_y = extent.bottom if dy > 0 else extent.top if dy < 0 else anchor.y
            x, y = edge_x + dx * (reach + width / 2), edge_y + dy * (reach + height / 2)
            yield Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _leader(anchor: Anchor, box: Box) -> Line | None:
    start = _nearest(box, anchor.x, anchor.y)
    far = math.dist(_nearest(anchor.extent, *start), start) > LEADER
    return (start, (anchor.x, anchor.y)) if far else None


def _nearest(box: Box, x: float, y: float) -> tuple[float, float]:
    """The point of a rectangle that is nearest to (x, y)."""
    return min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
