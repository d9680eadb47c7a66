"""Label files in YOLO format: a box or an outline per line, and what is wrong with a line.

`class cx cy w h` is a box, `class x y x y ...` an outline whose box is taken, both as shares of width and height. Where the
data set is of poses (`kpt_shape`), keypoints may stand behind a box. What counts as wrong is what Ultralytics (8.4.190)
refuses: it then leaves the whole picture out and goes on.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.01  # Ultralytics takes shares up to 1.01, and so a box that rounding pushed over the edge

MALFORMED, NOT_FINITE, OUT_OF_RANGE = "label_malformed", "label_not_finite", "label_out_of_range"
UNKNOWN_CLASS, MIXED = "label_class", "label_mixed"
NO_AREA, REPEATED, OVER_EDGE = "box_without_area", "box_repeated", "box_over_edge"
Box = tuple[float, float, float, float, float]
UNUSABLE = frozenset({MALFORMED, NOT_FINITE, OUT_OF_RANGE, UNKNOWN_CLASS})


@dataclass(frozen=True)
class Fault:
    """What is wrong with a line.

    Args:
        kind: One of the names above.
        line: Its number, from 1.
        what: The finding in words.
    """

    kind: str
    line: int
    what: str


def parse_labels(text: str, names: Collection[int] | None, keypoints: int = 0) -> tuple[np.ndarray, list[Fault]]:
    """Boxes of a label file.

    Args:
        text: Its content.
        names: The class ids that there are; None takes any whole number from 0.
        keypoints: Numbers that may stand behind a box and are left out.

    Returns:
        (N, 5) class, cx, cy, w, h of the lines that can be used, and the faults in order of their lines.
    """
    lines = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if keypoints:
        lines = [(number, words[:5] if len(words) == 5 + keypoints else words) for number, words in lines]
    table = np.zeros((len(lines), 5))
    faults: list[Fault] = []
    usable = np.ones(len(lines), bool)
    seen: dict[tuple[float, ...], int] = {}
    for row, (number, words) in enumerate(lines):
        try:
            values = tuple(float(word) for word in words)
            table[row] = box = _box(values)
        except ValueError:
            shown = " ".join(words)[:60]
            what = f"expected 'class cx cy w h' or 'class x y x y ...' in numbers, found '{shown}'"
            faults.append(Fault(MALFORMED, number, what))
            usable[row] = False
            continue
        found = _fault(box, names)
        if found:
            faults.append(Fault(found[0], number, found[1]))
            usable[row] = found[0] not in UNUSABLE
        if values in seen:
            faults.append(Fault(REPEATED, number, f"the same as line {seen[values]}"))
        seen.setdefault(values, number)
    lengths = {len(words) == 5 for _, words in lines}
    if len(lengths) == 2 and usable.all():
        number = next(number for number, words in lines if len(words) != 5)
        faults.append(Fault(MIXED, number, "an outline among boxes; Ultralytics takes one or the other in a file"))
    return table[usable], faults


def label_text(boxes_xywhn: np.ndarray, classes: np.ndarray) -> str:
    """YOLO lines `class cx cy w h` with 6 decimals.

    >>> label_text(np.array([[0.5, 0.5, 0.25, 0.125]]), np.array([2]))
    '2 0.500000 0.500000 0.250000 0.125000\\n'
    """
    lines = [f"{c} " + " ".join(f"{v:.6f}" for v in box) + "\n" for c, box in zip(classes, boxes_xywhn)]
    return "".join(lines)


def _fault(box: Box, names: Collection[int] | None) -> tuple[str, str] | None:
    kind, cx, cy, w, h = box
    if not all(map(math.isfinite, box)):
        return NOT_FINITE, "expected finite numbers, found nan or inf"
    low, high = min(cx, cy), max(cx, cy, w, h)
    if low < -TOLERANCE or min(w, h) < 0 or high > 1 + TOLERANCE:
        worst = high if high > 1 + TOLERANCE else min(low, w, h)
        return OUT_OF_RANGE, f"expected shares of width and height from 0 to 1, found {worst:g}"
    if kind < 0 or kind != int(kind) or (names is not None and kind not in names):
        known = "whole numbers from 0" if names is None else f"the {len(names)} names of the data set"
        return UNKNOWN_CLASS, f"class {kind:g} is not among {known}"
    if not w or not h:
        return NO_AREA, f"a box of {w:g} x {h:g} has no area"
    if min(cx - w / 2, cy - h / 2) < -TOLERANCE or max(cx + w / 2, cy + h / 2) > 1 + TOLERANCE:
        return OVER_EDGE, "a box that reaches out of the picture; what is outside is cut off in training"
    return None


def _box(values: tuple[float, ...]) -> Box:
    """class, cx, cy, w, h of a line: of a box, or of the outline of an object.

    Raises:
        ValueError: Neither.
    """
    if len(values) == 5:
        return values[0], values[1], values[2], values[3], values[4]
    if len(values) < 7 or len(values) % 2 == 0:
        raise ValueError(len(values))
    xs, ys = values[1::2], values[2::2]
    low, high = (min(xs), min(ys)), (max(xs), max(ys))
    return values[0], (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[0] - low[0], high[1] - low[1]
