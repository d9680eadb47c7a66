"""Boxes on a picture: where they are, how loud they are, and in which colour."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.drawing import class_colour, draw, fitted

GREY = 90


def boxes(*rows: tuple[float, float, float, float, float, int], size_hw: tuple[int, int] = (100, 160)) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int), {0: "car", 1: "行人"}, size_hw)


def frame() -> np.ndarray:
    return np.full((100, 160, 3), GREY, np.uint8)


def test_a_box_is_drawn_on_its_edges_in_its_classes_colour_and_the_frame_stays():
    picture = frame()
    out = draw(picture, boxes((40, 50, 120, 90, 0.9, 0)), np.array([False]))
    for x, y in ((40, 70), (120, 70), (80, 50), (80, 90)):
        assert tuple(out[y, x]) == class_colour(0)
    assert (out[70, 80] == GREY).all() and (out[20, 20] == GREY).all() and (picture == GREY).all()


def test_loud_boxes_are_thicker_and_carry_a_text():
    box = boxes((40, 50, 120, 90, 0.9, 0))
    loud, quiet = draw(frame(), box), draw(frame(), box, np.array([False]))

    def painted(out: np.ndarray) -> tuple[int, int]:
        """Columns changed across the left edge, and pixels changed above the box."""
        return int((out[70, 30:60] != GREY).any(1).sum()), int((out[:44] != GREY).any(2).sum())

    assert painted(quiet) == (2, 0) or painted(quiet) == (3, 0)
    assert painted(loud)[0] >= painted(quiet)[0] + 3 and painted(loud)[1] > 200


def test_a_text_stays_inside_the_frame():
    """At the upper right corner there is no room above or to the right: the tag is inside the box, moved left."""
    out = draw(frame(), boxes((150, 0, 159, 99, 0.5, 0)))
    changed = np.argwhere((out[:, :140] != GREY).any(2))
    assert len(changed) and changed[:, 0].max() < 30 and changed[:, 1].min() > 60


@pytest.mark.parametrize("rows", [[], [(-50, -50, 500, 500, 0.5, 0)], [(10, 10, 10, 10, 0.5, 1)]])
def test_no_box_boxes_beyond_the_frame_and_without_area_do_not_stop_it(rows):
    assert draw(frame(), boxes(*rows)).shape == (100, 160, 3)


def test_a_name_that_opencv_cannot_write_is_its_class_id():
    one = draw(frame(), boxes((40, 50, 120, 90, 0.9, 1)))
    other = boxes((40, 50, 120, 90, 0.9, 1))
    named = draw(frame(), Detections(other.xyxy, other.confidence, other.class_id, {1: "class 1"}, (100, 160)))
    assert (one == named).all()


def test_neighbouring_classes_differ_clearly():
    colours = np.array([class_colour(i) for i in range(80)], int)
    assert colours.min() >= 0 and colours.max() <= 255
    assert min(np.abs(a - b).sum() for a, b in pairwise(colours)) > 150
    assert len({tuple(c) for c in colours.tolist()}) == 80


def test_fitted_scales_frame_and_boxes_together():
    smaller, found = fitted(frame(), boxes((40, 50, 120, 90, 0.9, 0)), 80)
    assert smaller.shape == (50, 80, 3) and found.size_hw == (50, 80)
    assert found.xyxy.tolist() == [[20, 25, 60, 45]]
    same, kept = fitted(frame(), boxes((40, 50, 120, 90, 0.9, 0)), 640)
    assert same.shape == (100, 160, 3) and kept.xyxy.tolist() == [[40, 50, 120, 90]]
    assert fitted(np.zeros((1, 4000, 3), np.uint8), boxes(size_hw=(1, 4000)), 640)[0].shape == (1, 640, 3)
