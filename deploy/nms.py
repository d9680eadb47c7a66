"""Greedy, class-aware suppression in numpy, equal to `torchvision.ops.nms` on boxes moved apart by class.

Every operation is the one of torchvision's CPU kernel in the same float32, classes are kept apart by the same offset as
in Ultralytics' `non_max_suppression`, so the same boxes survive, ties included. A box of no area overlaps nothing: its
quotient is 0 / 0, and NaN is not above a threshold.
"""

from __future__ import annotations

import numpy as np

MAX_CANDIDATES = 30000  # Ultralytics' max_nms
CLASS_OFFSET = 7680.0  # Ultralytics' max_wh, in pixels
BLOCK = 256  # candidates compared at once: 256 x 256 float32 stay in the second-level cache


def nms(
    boxes_xyxy: np.ndarray, scores: np.ndarray, class_id: np.ndarray, iou: float, max_detections: int
) -> np.ndarray:
    """Indices of the boxes that stay, highest score first, equal scores in the order they came in.

    A box goes if it overlaps a box of its class that stays and comes before it by more than `iou`.

    Args:
        boxes_xyxy: (N, 4) float32 corners in pixels of the net's input.
        scores: (N,) float32.
        class_id: (N,) integers.
        iou: Overlap (intersection over union) above which the lower box goes, in [0, 1].
        max_detections: At most so many stay.

    Returns:
        (K,) int64.

    >>> boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9]], np.float32)
    >>> nms(boxes, np.array([0.5, 0.9, 0.8], np.float32), np.array([0, 0, 1]), 0.7, 300).tolist()
    [1, 2]
    """
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    offset = class_id[order].astype(np.float32) * np.float32(CLASS_OFFSET)
    corners = np.ascontiguousarray((boxes_xyxy[order] + offset[:, None]).T)  # (4, N)
    threshold = _at_most(iou)
    kept = np.empty(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if len(kept):
            block = block[~(_iou(corners[:, kept], corners[:, block]) > threshold).any(axis=0)]
        kept = np.concatenate((kept, block[_greedy(_iou(corners[:, block], corners[:, block]) > threshold)]))
        if len(kept) >= max_detections:
            break
    return order[kept[:max_detections]]


def _greedy(over: np.ndarray) -> np.ndarray:
    """Which of N boxes in order of score stay, given an (N, N) table of who overlaps whom."""
    gone = np.zeros(len(over), bool)
    for i in range(len(over)):
        if not gone[i]:
            gone[i + 1 :] |= over[i, i + 1 :]
    return ~gone


def _iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(M, N) overlaps of (4, M) with (4, N) corners."""
    x1, y1, x2, y2 = (np.expand_dims(row, 1) for row in first)
    inter = np.maximum(np.minimum(x2, second[2]) - np.maximum(x1, second[0]), 0)
    inter *= np.maximum(np.minimum(y2, second[3]) - np.maximum(y1, second[1]), 0)
    union = (x2 - x1) * (y2 - y1) + (second[2] - second[0]) * (second[3] - second[1]) - inter
    with np.errstate(divide="ignore", invalid="ignore"):
        return inter / union


def _at_most(threshold: float) -> np.float32:
    """The largest float32 not above a number: `iou > it` in float32 is then `iou > number` in double, as torchvision has it."""
    near = np.float32(threshold)
    return np.nextafter(near, np.float32(-1)) if float(near) > threshold else near
