"""Pictures that Ultralytics would save anew: no byte and no time of them changes, and those that are cut off are left out."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from ultralytics.data import utils as scan

from yolo_kd.cli import main
from yolo_kd.engine.untouched import untouched_pictures

STRANGE = {"000": lambda data: data + bytes(8), "001": lambda data: data[: len(data) // 2]}


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """A data set of JPEGs; in each part one goes on behind its end, one of train is cut off."""
    root = Path(shutil.copytree(pictures.parent, tmp_path / "data", ignore=shutil.ignore_patterns("*.cache")))
    for png in sorted(root.rglob("*.png")):
        packed = cv2.imencode(".jpg", cv2.imread(str(png)))[1].tobytes()
        change = STRANGE.get(png.stem) if png.parent.name == "train" or png.stem == "000" else None
        png.with_suffix(".jpg").write_bytes(change(packed) if change else packed)
        png.unlink()
    return root / pictures.name


def state(data: Path) -> dict[Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in data.parent.rglob("*.jpg")}


def test_a_training_writes_no_picture(train: Callable[..., Any], data: Path, caplog) -> None:
    before = state(data)
    trainer = train(distill="none", data=str(data), check_data=False)
    assert state(data) == before and len(before) == 12
    used = {Path(file).name for file in trainer.train_loader.dataset.im_files}
    assert used == {f"{i:03}.jpg" for i in range(8)} - {"001.jpg"}
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "000.jpg: a JPEG that goes on behind its end" in said and "restored and saved" not in said


def test_a_validation_writes_no_picture(data: Path, make_checkpoint, tmp_path: Path) -> None:
    before = state(data)
    words = [
        f"model={make_checkpoint('yolov8n.yaml')}",
        f"data={data}",
        "imgsz=64",
        f"project={tmp_path}",
        "plots=false",
    ]
    assert main(["val", *words]) == 0 and state(data) == before


def test_outside_ultralytics_is_its_own_again(data: Path) -> None:
    names = ("check_image", "_replace_image")
    own = [getattr(scan, name) for name in names]
    with pytest.raises(RuntimeError), untouched_pictures():
        assert getattr(scan, names[0]) is not own[0]
        raise RuntimeError
    assert [getattr(scan, name) for name in names] == own
