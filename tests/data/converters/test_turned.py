"""Pictures that are read turned or mirrored, as their EXIF says: the labels that are taken are those of what is seen then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from yolo_kd.data.convert import convert

from tests.data.converters.samples import coco, kitti, picture


def turn(path: Path, how: int) -> None:
    """Note in a picture that it is to be turned, as a camera that was held upright does."""
    from PIL import Image

    image, note = Image.open(path), Image.Exif()
    note[274] = how
    image.save(path, exif=note)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp", ".tif"])
def test_labels_are_of_the_picture_as_its_exif_turns_it(tmp_path: Path, ending: str) -> None:
    """Training reads it turned, so labels of the picture as it is stored would lie in the wrong place."""
    coco(tmp_path / "in")
    path = tmp_path / "in/annotations/instances_val2017.json"
    content = json.loads(path.read_text())
    for i, image in enumerate(content["images"]):
        picture(tmp_path / f"in/val2017/val{i}{ending}")
        turn(tmp_path / f"in/val2017/val{i}{ending}", 6)
        image["file_name"] = f"val{i}{ending}"
    content["images"][0] |= {"width": 100, "height": 200}
    path.write_text(json.dumps(content))
    found = convert("coco", tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out/labels/val/val0.txt").read_text().startswith("2 0.300000 0.250000 0.400000 0.300000\n")
    assert not (tmp_path / "out/labels/val/val1.txt").exists() and found.parts["val"]["images"] == found.turned == 1
    row = found.refused["the labels are for the picture as it is stored, which its EXIF turns"]
    assert row["count"] == 1 and row["examples"][0].endswith(f"says 200x100, val1{ending} is read as 100x200")


def test_pictures_that_are_turned_over_or_mirrored_are_said(tmp_path: Path) -> None:
    """Their size does not tell of which picture the labels are."""
    kitti(tmp_path / "in")
    turn(tmp_path / "in/training/image_2/000000.png", 3)
    found = convert("kitti", tmp_path / "in", tmp_path / "out")
    assert found.turned == 1 and found.parts["train"]["images"] == 2
    assert (
        "1 pictures are turned or mirrored by their EXIF; their labels are taken to be of what is seen then"
        in found.lines()
    )
