"""MiniCOCO and SODA10M as they are unpacked: COCO's format under file and folder names of their own (data/minicoco.yaml, data/soda10m.yaml)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from yolo_kd.data.convert import REPORT
from yolo_kd.data.description import read_description

from tests.data.converters.samples import coco
from yolo_kd.cli import main

TRAIN, VAL = "instances_train2017.json", "instances_val2017.json"
LAYOUTS = {
    "minicoco": {f"annotations/{TRAIN}": "annotations/instances_minitrain2017.json"},
    "soda10m": {
        f"annotations/{TRAIN}": "annotations/instance_train.json",
        f"annotations/{VAL}": "annotations/instance_val.json",
        "train2017": "train",
        "val2017": "val",
    },
}


@pytest.mark.parametrize(("name", "renamed"), LAYOUTS.items(), ids=LAYOUTS)
def test_a_native_layout_becomes_what_coco_itself_does(tmp_path: Path, name: str, renamed: dict[str, str]) -> None:
    source, out = tmp_path / "in", tmp_path / name
    coco(source)
    if name == "minicoco":  # its pictures lie among those of all of train2017, which are left out
        (source / "train2017/other.jpg").write_bytes((source / "train2017/train0.jpg").read_bytes())
    for old, new in renamed.items():
        (source / old).rename(source / new)
    assert main(["data", "convert", "from=coco", f"source={source}", f"out={out}", "images=hardlink"]) == 0
    report = json.loads((out / REPORT).read_text())
    parts = report["parts"]
    train = renamed[f"annotations/{TRAIN}"].partition("/")[2]
    assert parts["train"]["from"] == train and {part: row["images"] for part, row in parts.items()} == {
        "train": 2,
        "val": 2,
    }
    boxes = "2 0.150000 0.500000 0.200000 0.600000\n0 0.975000 0.950000 0.050000 0.100000\n"
    for part in ("train", "val"):
        assert (out / "labels" / part / f"{part}0.txt").read_text() == boxes
        assert sorted(p.name for p in (out / "images" / part).iterdir()) == [f"{part}0.jpg", f"{part}1.jpg"]
    others = [row["examples"][0] for row in report["refused"].values()]
    assert (
        len(others) == (name == "minicoco") and all("other.jpg" in place for place in others) and not report["remarks"]
    )
    ours, descriptor = read_description(out / "data.yaml"), read_description(f"{name}.yaml")
    assert ours.names == {0: "person", 1: "car", 2: "toothbrush"}
    assert all(ours.raw[part] == descriptor.raw[part] for part in parts), "where the descriptor looks for them"
