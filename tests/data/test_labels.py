"""Label lines: every kind of fault has its name and line, and what we call unusable is what Ultralytics leaves out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from yolo_kd.data.findings import KINDS
from yolo_kd.data.labels import parse_labels

NAMES = {0: "car", 1: "bus"}
GOOD = "0 .5 .5 .2 .4"
OUTLINE = "1 .1 .1 .9 .1 .9 .9"
CASES = {
    "": [],
    GOOD: [],
    f"{GOOD}\n\n1 .1 .1 .2 .2\n": [],
    OUTLINE: [],
    "0 1.005 .5 .01 .01": [],
    "1e0 .5 .5 .2 .2": [],
    "0 .5 .5 .2": [("label_malformed", 1)],
    f"{GOOD}\n0 .5 .5 x .4": [("label_malformed", 2)],
    "car .5 .5 .2 .4": [("label_malformed", 1)],
    "0 .5 .5 .2 .4 .9": [("label_malformed", 1)],
    "0 .1 .1 .9 .1 .9 .9 .3": [("label_malformed", 1)],
    "0,.5,.5,.2,.4": [("label_malformed", 1)],
    "0 nan .5 .2 .4": [("label_not_finite", 1)],
    "0 .5 .5 inf .4": [("label_not_finite", 1)],
    f"\n{GOOD}\n0 320 240 64 32": [("label_out_of_range", 3)],
    "0 .5 .5 .2 -.4": [("label_out_of_range", 1)],
    "0 .5 .5 -.005 .4": [("label_out_of_range", 1)],
    "0 -.2 .5 .2 .4": [("label_out_of_range", 1)],
    "2 .5 .5 .2 .4": [("label_class", 1)],
    "-1 .5 .5 .2 .4": [("label_class", 1)],
    "0.5 .5 .5 .2 .4": [("label_class", 1)],
    f"{GOOD}\n{OUTLINE}": [("label_mixed", 2)],
    "0 .5 .5 0 .4": [("box_without_area", 1)],
    f"{GOOD}\n1 .1 .1 .2 .2\n0 .50 .5 .2 .4": [("box_repeated", 3)],
    "0 .05 .5 .2 .4": [("box_over_edge", 1)],
}


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_each_fault_has_its_name_and_line(text: str, expected: list[tuple[str, int]]) -> None:
    boxes, faults = parse_labels(text, NAMES)
    assert [(fault.kind, fault.line) for fault in faults] == expected
    assert all(fault.kind in KINDS and fault.what for fault in faults)
    assert np.isfinite(boxes).all() and boxes.shape[1] == 5


@pytest.mark.parametrize(("text", "expected"), CASES.items())
def test_what_stops_a_training_is_what_ultralytics_leaves_out(tmp_path: Path, text: str, expected: list) -> None:
    import cv2
    from ultralytics.data.utils import verify_image_label

    image, label = tmp_path / "a.png", tmp_path / "a.txt"
    cv2.imwrite(str(image), np.zeros((32, 32, 3), np.uint8))
    label.write_text(text)
    left_out = verify_image_label((str(image), str(label), "", False, len(NAMES), 0, 0, False))[0] is None
    assert left_out == any(KINDS[kind].stops for kind, _ in expected)


def test_an_outline_counts_as_its_box() -> None:
    boxes, _ = parse_labels(f"{OUTLINE}\n", NAMES)
    assert boxes[0].tolist() == pytest.approx([1, 0.5, 0.5, 0.8, 0.8])


def test_any_class_goes_where_the_training_makes_one_of_all() -> None:
    assert parse_labels("7 .5 .5 .2 .4", None)[1] == []
    assert [fault.kind for fault in parse_labels("-7 .5 .5 .2 .4", None)[1]] == ["label_class"]
