"""How far two detectors say the same about the same images: one against its float parent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from yolo_kd.deploy.detections import Detections

MATCH_IOU = 0.5


@dataclass(frozen=True)
class Agreement:
    """Detections of a candidate matched with those of its parent, image by image, class by class.

    Args:
        parent: Boxes of the parent on all images.
        candidate: Boxes of the candidate.
        matched: Pairs of one class with an IoU of .5 or more.
        iou: Mean IoU of the pairs; 0 without any.
        score_error: Mean absolute difference of the pairs' confidences; 0 without any.
    """

    parent: int
    candidate: int
    matched: int
    iou: float
    score_error: float

    @property
    def f1(self) -> float:
        """2 matched / (parent + candidate); 1 where neither found anything."""
        total = self.parent + self.candidate
        return 2 * self.matched / total if total else 1.0


def agree(parent: Sequence[Detections], candidate: Sequence[Detections]) -> Agreement:
    """Match two detectors' boxes on the same images, the candidate's most confident first.

    Args:
        parent: Of the float parent, one entry per image.
        candidate: Of what was made from it, in the same order.
    """
    overlaps: list[float] = []
    errors: list[float] = []
    for wanted, found in zip(parent, candidate, strict=True):
        for i, j, overlap in matches(wanted, found):
            overlaps.append(overlap)
            errors.append(abs(float(wanted.confidence[i]) - float(found.confidence[j])))
    return Agreement(
        parent=sum(len(d) for d in parent),
        candidate=sum(len(d) for d in candidate),
        matched=len(overlaps),
        iou=float(np.mean(overlaps)) if overlaps else 0.0,
        score_error=float(np.mean(errors)) if errors else 0.0,
    )


def raw_errors(exact: np.ndarray, found: np.ndarray, end2end: bool) -> tuple[float | None, float]:
    """How far a net's raw output is from the exact one, whether it sees anything or not.

    Args:
        exact: (B, 4 + classes, cells), or (B, N, 6) of an end-to-end net, from the same canvases.
        found: The same of the other.
        end2end: Whose rows stand in the order of their scores: near equals change places, so boxes are not compared.

    Returns:
        ||found - exact|| / ||exact|| of all box rows (None for end-to-end) and of all scores; NaN where a number is.
    """
    if end2end:
        return None, _relative(exact[..., 4], found[..., 4])
    return _relative(exact[:, :4], found[:, :4]), _relative(exact[:, 4:], found[:, 4:])


def _relative(exact: np.ndarray, found: np.ndarray) -> float:
    difference = float(np.linalg.norm(found.astype(np.float64) - exact))
    size = float(np.linalg.norm(exact.astype(np.float64)))
    return difference / size if size else float("inf") if difference else 0.0


def matches(wanted: Detections, found: Detections) -> list[tuple[int, int, float]]:
    """Boxes of one image that are the same: (index in wanted, index in found, IoU).

    Of one class, with an IoU of .5 or more, each box in one pair at most; the most confident of `found` choose first.
    """
    if not len(wanted) or not len(found):
        return []
    overlap = iou_matrix(wanted.xyxy.astype(np.float64), found.xyxy.astype(np.float64))
    overlap[wanted.class_id[:, None] != found.class_id[None]] = 0.0
    pairs = []
    for j in np.argsort(-found.confidence, kind="stable"):
        i = int(overlap[:, j].argmax())
        if overlap[i, j] >= MATCH_IOU:
            pairs.append((i, int(j), float(overlap[i, j])))
            overlap[i] = 0.0
    return pairs


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) IoU of boxes (N, 4) and (M, 4) in xyxy; 0 for boxes without area."""
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clip(0).prod(2)
    areas = [(x[:, 2:] - x[:, :2]).clip(0).prod(1) for x in (a, b)]
    return common / np.maximum(areas[0][:, None] + areas[1][None] - common, 1e-9)
