"""Ultralytics' mAP beside ours: each cause of a difference is told from the others, and nothing of the user's is written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yolo_kd.data.split import Split, read_split

from yolo_kd.cli import main
from yolo_kd.evidence.reference_map import explained, reference_map


def apart(padding: float = 0.0, averaging: float = 0.0, boxes: float = 0.0) -> dict[str, Any]:
    """Ultralytics' .5, and ours by these shares from it."""
    return {"mAP50-95": 0.5, "mAP50": 0.7, "apart": {"padding": padding, "averaging": averaging, "boxes": boxes}}


@pytest.mark.parametrize(
    ("found", "ours", "said", "warned"),
    [
        (apart(0.0201, -0.002), 0.5181, "AP 0.5181 here, 0.5000 in Ultralytics; of +0.0181, +0.0201 because it pads pictures "
         "to rectangles, the device to 64x96; -0.0020 because it averages precision over recall in its own way", False),
        (apart(0, -0.012, 0.0004), 0.4884, "of -0.0116, -0.0120 because it averages precision over recall in its own way, "
         "not in COCO's", False),
        (apart(0.0004, 0.001, -0.05), 0.4514, "of -0.0486, -0.0500 because its boxes are others; +0.0010 because it averages",
         True),
        (apart(boxes=-0.05) | {"input": "96x96"}, 0.45, "of -0.0500, -0.0500 because its input is 96x96", False),
    ],
)  # fmt: skip
def test_the_line_names_the_causes_the_largest_first(found, ours, said, warned):
    lines = explained(found, ours, "best.pt", "64x96")
    assert (
        lines[0].startswith("best.pt: AP ") and said in lines[0] and "because" not in lines[0].rpartition(said)[2][9:]
    )
    assert len(lines) == 1 + warned and all("WARNING best.pt: one net" in line for line in lines[1:])


def test_nothing_is_said_where_both_agree_and_only_that_where_ids_differ():
    assert explained({"mAP50-95": 0.5, "mAP50": 0.7}, 0.504, "best.pt") == []
    lines = explained(apart(0.2) | {"ids": "car is 0 in the model and 1 in the data set"}, 0.7, "best.pt")
    assert len(lines) == 1 and "says nothing here" in lines[0] and "car is 0 in the model" in lines[0]


@pytest.fixture(scope="module")
def split(pictures: Path) -> Split:
    return read_split(pictures, "train")


def test_shares_add_up_and_are_those_of_their_causes(learnt: Path, split: Split):
    """By default Ultralytics pads pictures of 64 px to 96 px, which costs this net .07; its averaging costs next to nothing."""
    theirs = reference_map(str(learnt), split, 0.0, 64)
    squares = theirs["mAP50-95"] + theirs["apart"]["padding"]
    assert theirs["apart"]["padding"] > 0.01 and abs(theirs["apart"]["averaging"]) < 0.03
    same = squares + theirs["apart"]["averaging"]
    assert theirs["apart"]["boxes"] == pytest.approx(-same)  # ours was said to be 0
    assert explained(theirs, 0.0, "best.pt")[1].startswith("WARNING")
    again = reference_map(str(learnt), split, same, 64)
    assert again["apart"]["boxes"] == pytest.approx(0, abs=1e-6) and len(explained(again, same, "best.pt")) == 1
    assert "apart" not in reference_map(str(learnt), split, theirs["mAP50-95"] + 0.004, 64)


def test_an_artifact_has_one_shape_and_is_validated_once(float_export: Path, split: Split):
    theirs = reference_map(str(float_export), split, 0.0)
    assert theirs["mAP50-95"] > 0.5 and theirs["apart"]["padding"] == 0.0
    assert "input" not in theirs and "ids" not in theirs


def test_an_artifact_is_found_by_any_name_that_ours_is(learnt: Path, float_export: Path, split: Split, tmp_path: Path):
    """Ultralytics takes a .onnx for the file alone, and an OpenVINO folder for one by the end of its name."""
    checkpoint = shutil.copy(learnt, tmp_path / "best.pt")
    assert main(["export", f"model={checkpoint}", "format=onnx", "imgsz=64"]) == 0
    shutil.copytree(float_export, tmp_path / "student" / "artifact")
    wanted = reference_map(str(float_export), split, 0.0)["mAP50-95"]
    for source in ("best_onnx_model", "student/artifact", "student/artifact/best.xml"):
        assert reference_map(str(tmp_path / source), split, 0.0)["mAP50-95"] == pytest.approx(wanted, abs=0.05), source


def test_another_input_is_said(learnt: Path, split: Split):
    assert reference_map(str(learnt), split, 0.0, (32, 64))["input"] == "64x64"
    assert "input" not in reference_map(str(learnt), split, 0.0, (64, 64))


def test_classes_of_another_order_are_found(learnt: Path, split: Split):
    names = {0: "truck", 1: "car", 2: "person"}
    theirs = reference_map(str(learnt), replace(split, names=names), 0.0, 64)
    assert theirs["ids"] == "truck is 1 in the model and 0 in the data set"
    more = {**split.names, 3: "boat"}  # a class that the model does not have is no reason
    assert "ids" not in reference_map(str(learnt), replace(split, names=more), 0.0, 64)
