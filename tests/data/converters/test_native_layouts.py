"""COCO's format under file and folder names of their own: MiniCOCO and SODA10M as they are unpacked, Roboflow's exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from yolo_kd.data.convert import REPORT, convert
from yolo_kd.data.description import read_description

from tests.data.converters.samples import coco, picture
from yolo_kd.cli import main
from yolo_kd.errors import MisuseError

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


def roboflow(root: Path) -> None:
    """The sample as Roboflow exports it: each part's file beside its pictures, val as valid."""
    coco(root)
    for part, folder in (("train", "train"), ("val", "valid")):
        (root / f"{part}2017").rename(root / folder)
        (root / f"annotations/instances_{part}2017.json").rename(root / folder / "_annotations.coco.json")
    (root / "annotations/captions_train2017.json").unlink()
    (root / "annotations").rmdir()


def test_roboflow_puts_the_labels_beside_the_pictures(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    roboflow(source)
    picture(source / "valid/new.jpg")
    assert main(["data", "convert", "from=coco", f"source={source}", f"out={out}"]) == 0
    report = json.loads((out / REPORT).read_text())
    origins = {part: (row["images"], row["from"]) for part, row in report["parts"].items()}
    assert origins == {"train": (2, "train/_annotations.coco.json"), "val": (2, "valid/_annotations.coco.json")}
    boxes = "2 0.150000 0.500000 0.200000 0.600000\n0 0.975000 0.950000 0.050000 0.100000\n"
    assert all((out / f"labels/{part}/{part}0.txt").read_text() == boxes for part in ("train", "val"))
    why = "no entry in train/_annotations.coco.json or valid/_annotations.coco.json"
    assert {reason: row["count"] for reason, row in report["refused"].items()} == {why: 1} and not report["remarks"]


def test_without_any_file_both_layouts_are_named(tmp_path: Path) -> None:
    roboflow(tmp_path / "in")
    for path in (tmp_path / "in").glob("*/_annotations.coco.json"):
        path.unlink()
    expected = r"expected annotations/\*train\*\.json or \*val\*\.json there, or train/_annotations\.coco\.json"
    with pytest.raises(MisuseError, match=expected):
        convert("coco", tmp_path / "in", tmp_path / "out")
