"""Which pictures the report shows, and what is drawn on them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from yolo_kd.data.split import Split
from yolo_kd.deploy.detections import Detections

from yolo_kd.errors import YoloKDError
from yolo_kd.evidence.strip import DISAGREE, TYPICAL, disagreement, pairs, select

NAMES = {0: "car", 1: "<script>"}


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int), NAMES, (100, 100))


CAR = (10, 10, 50, 50, 0.8, 0)


def test_disagreement_by_hand():
    assert disagreement(boxes(CAR), boxes(CAR)) == pytest.approx(0.0)
    assert disagreement(boxes(), boxes()) == 0.0
    assert disagreement(boxes(CAR), boxes()) == pytest.approx(0.8)
    # moved by a quarter of its width: IoU 30 / 50, so .8 + .6 - 2 * .6 * .6
    assert disagreement(boxes(CAR), boxes((20, 10, 60, 50, 0.6, 0))) == pytest.approx(1.4 - 0.72)
    # of another class: no pair
    assert disagreement(boxes(CAR), boxes((10, 10, 50, 50, 0.8, 1))) == pytest.approx(1.6)


def test_a_box_that_hovers_about_the_threshold_counts_less_than_a_sure_one_that_is_lost():
    hovering = disagreement(boxes((60, 60, 90, 90, 0.26, 0), CAR), boxes(CAR))
    assert 0 < hovering < disagreement(boxes((60, 60, 90, 90, 0.95, 0), CAR), boxes(CAR))


def test_half_disagree_most_in_order_and_the_rest_are_nearest_to_the_median():
    """Pictures 0 to 6; picture 5 has no box at all; the median of the others is (.2 + .3) / 2."""
    apart, count = [0.1, 3.0, 0.2, 0.3, 2.0, 0.0, 0.05], [2, 2, 2, 2, 2, 0, 2]
    assert select(apart, count, 4) == [(1, DISAGREE), (4, DISAGREE), (2, TYPICAL), (3, TYPICAL)]


def test_where_nothing_disagrees_all_are_typical_and_a_picture_is_shown_once():
    assert select([0.0, 0.0, 0.0], [1, 2, 0], 8) == [(0, TYPICAL), (1, TYPICAL)]
    found = select([0.5, 0.4], [1, 1], 8)
    assert sorted(i for i, _ in found) == [0, 1]
    assert select([], [], 8) == [] and select([0.0], [0], 8) == []


def split_of(folder: Path, count: int, size_hw: tuple[int, int] = (100, 100)) -> Split:
    paths = []
    for i in range(count):
        paths.append(folder / f"{i}.png")
        cv2.imwrite(str(paths[-1]), np.full((*size_hw, 3), 90, np.uint8))
    return Split("val", tuple(paths), NAMES)


def test_boxes_of_one_side_only_are_loud_on_that_side_and_matched_ones_quiet_on_both(tmp_path):
    lone = (60, 60, 90, 90, 0.9, 1)
    (pair,) = pairs(split_of(tmp_path, 1, (200, 200)), [boxes(CAR, lone)], [boxes(CAR)])
    assert (pair.title, pair.kind) == ("0.png", DISAGREE)
    assert pair.caption == "1 box by both; only float: 1 × <script>"
    left, right = (
        cv2.imdecode(np.frombuffer(d, np.uint8), 1).astype(int) for d in (pair.parent_jpeg, pair.candidate_jpeg)
    )
    assert left.shape == right.shape == (200, 200, 3)
    assert np.abs(left[:55, :55] - right[:55, :55]).max() < 30, "the matched box is drawn alike"
    assert np.abs(left[75, 60] - 90).max() > 60 and np.abs(right[75, 60] - 90).max() < 10
    across = [np.abs(left[row, start : start + 14] - 90).max(1) > 40 for row, start in ((30, 4), (80, 53))]
    assert across[1].sum() >= across[0].sum() + 2, "thick against thin"


def test_pictures_are_made_smaller(tmp_path):
    split = split_of(tmp_path, 1, (300, 1280))
    (pair,) = pairs(split, [boxes(CAR)], [boxes()])
    assert cv2.imdecode(np.frombuffer(pair.candidate_jpeg, np.uint8), 1).shape == (150, 640, 3)


def test_eight_of_many_and_both_kinds(tmp_path):
    split = split_of(tmp_path, 12)
    candidate = [boxes((10 + i, 10, 50 + i, 50, 0.8, 0)) for i in range(12)]
    found = pairs(split, [boxes(CAR)] * 12, candidate)
    assert [p.title for p in found[:4]] == ["11.png", "10.png", "9.png", "8.png"]
    assert [p.kind for p in found] == [DISAGREE] * 4 + [TYPICAL] * 4
    assert len({p.title for p in found}) == 8


def test_detections_of_other_pictures_are_refused(tmp_path):
    with pytest.raises(YoloKDError, match="expected detections of 2 images, got 1 and 2"):
        pairs(split_of(tmp_path, 2), [boxes()], [boxes(), boxes()])
