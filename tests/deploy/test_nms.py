"""Suppression: cases by hand, and the same survivors as torchvision over a grid of crowds, ties and empty boxes."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy import nms as ours
from yolo_kd.deploy.nms import nms


def theirs(boxes: np.ndarray, scores: np.ndarray, class_id: np.ndarray, iou: float, most: int) -> list[int]:
    """As Ultralytics calls torchvision."""
    import torch
    from torchvision.ops import nms as reference

    apart = torch.from_numpy(boxes) + torch.from_numpy(class_id).float()[:, None] * 7680
    return reference(apart, torch.from_numpy(scores), iou)[:most].tolist()


def crowd(count: int, classes: int, spread: float, levels: int, whole: bool, seed: int) -> tuple[np.ndarray, ...]:
    """Boxes around `spread` pixels, with `levels` different scores; whole pixels make equal boxes and exact overlaps."""
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, spread, (count, 2))
    side = rng.uniform(0, 40, (count, 2)) * (rng.uniform(size=(count, 2)) > 0.05)  # some without area
    boxes = np.concatenate((corner, corner + side), 1)
    boxes = (np.round(boxes / 4) * 4 if whole else boxes).astype(np.float32)
    scores = (rng.integers(1, levels + 1, count) / levels).astype(np.float32)
    return boxes, scores, rng.integers(0, classes, count)


@pytest.mark.parametrize("iou", [0.0, 0.1, 0.45, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("spread", [5.0, 60.0, 600.0])
@pytest.mark.parametrize(("count", "classes"), [(0, 1), (1, 1), (2, 1), (37, 1), (300, 80), (700, 3)])
def test_the_survivors_are_those_of_torchvision(
    count: int, classes: int, spread: float, whole: bool, iou: float
) -> None:
    for levels in (3, 10_000):
        case = crowd(count, classes, spread, levels, whole, seed=count + int(spread))
        for most in (5, 300):
            assert nms(*case, iou, most).tolist() == theirs(*case, iou, most)


@pytest.mark.parametrize("iou", [0.1, 0.2, 0.3, 0.45, 0.6, 0.7, 0.9])
def test_an_overlap_that_is_the_threshold_is_decided_as_by_torchvision(iou: float) -> None:
    """Boxes that overlap by k / n exactly: the threshold's own rounding to float32 decides."""
    top = np.float32(10)
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, top * np.float32(iou)]], np.float32)
    scores = np.array([0.9, 0.8], np.float32)
    for cut in (iou, float(np.float32(iou)), np.nextafter(iou, 0), np.nextafter(iou, 1)):
        assert nms(boxes, scores, np.zeros(2, int), cut, 9).tolist() == theirs(boxes, scores, np.zeros(2, int), cut, 9)


def test_by_hand() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 10]], np.float32)
    scores = np.array([0.6, 0.9, 0.7, 0.8], np.float32)
    # the second has 9/11 in common with the first, which is of its class; the fourth is of another
    assert nms(boxes, scores, np.array([0, 0, 0, 1]), 0.7, 300).tolist() == [1, 3, 2]
    assert nms(boxes, scores, np.array([0, 0, 0, 1]), 0.9, 300).tolist() == [1, 3, 2, 0]


def test_a_suppressed_box_suppresses_nothing() -> None:
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, int), 0.4, 300).tolist() == [0, 2]


def test_equal_scores_keep_their_order() -> None:
    boxes = np.array([[20, 0, 30, 10], [0, 0, 10, 10], [40, 0, 50, 10]], np.float32)
    assert nms(boxes, np.full(3, 0.5, np.float32), np.zeros(3, int), 0.7, 300).tolist() == [0, 1, 2]


def test_a_box_without_area_stays_and_takes_none_along() -> None:
    boxes = np.array([[5, 5, 5, 5], [0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    assert nms(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, int), 0.0, 300).tolist() == [0, 1, 2]


def test_more_candidates_than_the_limit_lose_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "MAX_CANDIDATES", 2)
    boxes = np.array([[0, 0, 1, 1], [5, 0, 6, 1], [9, 0, 10, 1]], np.float32)
    assert nms(boxes, np.array([0.1, 0.3, 0.2], np.float32), np.zeros(3, int), 0.7, 300).tolist() == [1, 2]


@pytest.mark.parametrize("block", [1, 7, 10_000])
def test_the_size_of_a_block_changes_nothing(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    case = crowd(500, 4, 60.0, 50, whole=False, seed=1)
    wanted = nms(*case, 0.5, 300).tolist()
    monkeypatch.setattr(ours, "BLOCK", block)
    assert nms(*case, 0.5, 300).tolist() == wanted


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("confidence", [0.25, 0.6])
def test_decode_and_suppression_together_are_those_of_ultralytics(multi_label: bool, confidence: float) -> None:
    import torch
    from ultralytics.utils.nms import non_max_suppression
    from yolo_kd.deploy.decode import decode

    rng = np.random.default_rng(4)
    raw = np.concatenate((rng.uniform(0, 200, (4, 600)), rng.beta(0.5, 2, (5, 600)))).astype(np.float32)[None]
    (wanted,) = non_max_suppression(torch.from_numpy(raw), confidence, 0.5, multi_label=multi_label)
    boxes, scores, class_id = decode(raw, 5, confidence, end2end=False, multi_label=multi_label)
    kept = nms(boxes, scores, class_id, 0.5, 300)
    found = np.concatenate((boxes[kept], scores[kept, None], class_id[kept, None]), axis=1)
    assert len(found) > 20 and np.array_equal(found, wanted.numpy())
