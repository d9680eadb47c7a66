"""Pictures with the boxes of a float net and of a candidate side by side: where they disagree most, and typical ones.

Disagreement of two sets of boxes on one picture: the confidence of all boxes on both sides, less what they share, which
is 2 * IoU * the lower confidence of each matched pair. A box without a partner counts its confidence, so one that
hovers about the threshold counts little; equal boxes count nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from yolo_kd.data.split import Split
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.drawing import draw, fitted
from yolo_kd.deploy.quantize.agreement import matches
from yolo_kd.errors import YoloKDError
from yolo_kd.evidence.candidates import Pair
from yolo_kd.evidence.evaluation import read_frame

LONGEST = 640  # pixels of a picture's longer side in the report
QUALITY = 85  # of its JPEG
DISAGREE, TYPICAL = "disagree most", "typical"


def pairs(split: Split, parent: Sequence[Detections], candidate: Sequence[Detections], count: int = 8) -> list[Pair]:
    """Pictures to look at: half of them where both disagree most, half typical ones.

    Args:
        split: The pictures.
        parent: Boxes of the float net on each picture, above the confidence that is shown.
        candidate: The same of what was made from it.
        count: How many pictures, where there are so many.

    Raises:
        MisuseError: A picture cannot be read any more.
        YoloKDError: Detections of another number of pictures.
    """
    if not len(split.images) == len(parent) == len(candidate):
        raise YoloKDError(f"expected detections of {len(split.images)} images, got {len(parent)} and {len(candidate)}")
    apart = [disagreement(a, b) for a, b in zip(parent, candidate, strict=True)]
    boxes = [len(a) + len(b) for a, b in zip(parent, candidate, strict=True)]
    found = []
    for index, kind in select(apart, boxes, count):
        frame, one, other = read_frame(split.images[index]), parent[index], candidate[index]
        matched = matches(one, other)
        alone = [_alone(len(one), [i for i, _, _ in matched]), _alone(len(other), [j for _, j, _ in matched])]
        pictures = [_jpeg(frame, boxes, loud) for boxes, loud in zip((one, other), alone, strict=True)]
        caption = _caption(len(matched), one, other, *alone)
        found.append(Pair(split.images[index].name, pictures[0], pictures[1], kind, caption))
    return found


def disagreement(parent: Detections, candidate: Detections) -> float:
    """How far two sets of boxes on one picture are apart; 0 if they are equal."""
    total = float(parent.confidence.sum()) + float(candidate.confidence.sum())
    shared = sum(
        2 * iou * min(float(parent.confidence[i]), float(candidate.confidence[j]))
        for i, j, iou in matches(parent, candidate)
    )
    return max(total - shared, 0.0)


def select(apart: Sequence[float], boxes: Sequence[int], count: int) -> list[tuple[int, str]]:
    """Which pictures to show: index and kind, the largest disagreement first.

    Args:
        apart: Disagreement of each picture.
        boxes: Number of boxes on each, both sides together; pictures without any are typical of nothing.
        count: How many; half of them disagree most, the rest are the nearest to the median of those with boxes.
    """
    worst = sorted((i for i, value in enumerate(apart) if value > 0), key=lambda i: -apart[i])[: (count + 1) // 2]
    rest = [i for i in range(len(apart)) if boxes[i] and i not in worst]
    middle = float(np.median([apart[i] for i in range(len(apart)) if boxes[i]])) if rest else 0.0
    usual = sorted(rest, key=lambda i: abs(apart[i] - middle))[: count - len(worst)]
    return [*((i, DISAGREE) for i in worst), *((i, TYPICAL) for i in sorted(usual))]


def _alone(count: int, matched: Sequence[int]) -> np.ndarray:
    alone = np.ones(count, bool)
    alone[list(matched)] = False
    return alone


def _jpeg(frame: np.ndarray, found: Detections, loud: np.ndarray) -> bytes:
    import cv2

    smaller, boxes = fitted(frame, found, LONGEST)
    done, data = cv2.imencode(".jpg", draw(smaller, boxes, loud), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if not done:
        raise YoloKDError(f"a picture of {smaller.shape} cannot be written as JPEG")
    return data.tobytes()


def _caption(both: int, one: Detections, other: Detections, alone: np.ndarray, other_alone: np.ndarray) -> str:
    parts = [f"{both} {'box' if both == 1 else 'boxes'} by both"]
    for who, found, lone in (("float", one, alone), ("INT8", other, other_alone)):
        kinds = Counter(found.names[int(k)] for k in found.class_id[lone])
        if kinds:
            parts.append(f"only {who}: {', '.join(f'{n} × {name}' for name, n in kinds.most_common())}")
    return "; ".join(parts)
