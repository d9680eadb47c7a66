"""Matching a candidate's boxes with its parent's."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.quantize.agreement import agree, iou_matrix


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int), {0: "car", 1: "bus"}, (100, 100))


BOTH = boxes((0, 0, 10, 10, 0.9, 0), (50, 50, 90, 90, 0.8, 1))


def test_the_same_agrees_wholly():
    same = agree([BOTH, boxes()], [BOTH, boxes()])
    assert (same.matched, same.f1, same.iou, same.score_error) == (2, 1.0, pytest.approx(1.0), 0.0)


def test_hand_worked_pairs():
    """The first box moved by a tenth: IoU 90 / 110; the second lost; one more in an empty place."""
    found = boxes((1, 0, 11, 10, 0.7, 0), (20, 20, 30, 30, 0.5, 1))
    seen = agree([BOTH], [found])
    assert (seen.parent, seen.candidate, seen.matched) == (2, 2, 1)
    assert (
        seen.f1 == pytest.approx(0.5) and seen.iou == pytest.approx(90 / 110) and seen.score_error == pytest.approx(0.2)
    )


def test_a_swapped_class_is_no_match():
    swapped = boxes((0, 0, 10, 10, 0.9, 1), (50, 50, 90, 90, 0.8, 0))
    assert agree([BOTH], [swapped]).f1 == 0.0


def test_a_box_serves_one_pair_and_the_more_confident_takes_it():
    twice = boxes((0, 0, 10, 9, 0.6, 0), (0, 0, 10, 10, 0.9, 0))
    seen = agree([boxes((0, 0, 10, 10, 0.9, 0))], [twice])
    assert seen.matched == 1 and seen.iou == pytest.approx(1.0) and seen.f1 == pytest.approx(2 / 3)


def test_nothing_on_either_side_agrees_and_on_one_side_does_not():
    assert agree([boxes()], [boxes()]).f1 == 1.0
    assert agree([BOTH], [boxes()]).f1 == 0.0


def test_overlap_of_boxes_without_area_is_zero():
    line = np.array([[0, 0, 10, 0.0]])
    assert iou_matrix(line, line)[0, 0] == 0.0
