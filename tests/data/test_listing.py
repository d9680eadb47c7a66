"""Which pictures a folder has: for the check, for splits, beside unlabeled ones and for calibration those that Ultralytics
trains on, which follows links and leaves hidden files out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import yaml
from yolo_kd.data.check import check
from yolo_kd.data.description import read_description
from yolo_kd.data.split import read_split
from yolo_kd.data.unlabeled import find_unlabeled, images_of

from yolo_kd.pictures.reading import find_media


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pictures, a link to a folder with a third, and what macOS and others leave beside pictures."""
    noise = np.random.default_rng(0)
    for name in ("images/train/1.jpg", "images/train/day/2.jpg", "disk/flight/3.jpg"):
        path = tmp_path / "set [1]" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), noise.integers(0, 256, (48, 64, 3), np.uint8))
    root = tmp_path / "set [1]"
    (root / "images/train/flight").symlink_to(root / "disk/flight")
    for name in ("1.txt", "day/2.txt", "flight/3.txt", "._1.txt", ".old/4.txt"):
        (root / "labels/train" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "labels/train" / name).write_text("0 .5 .5 .2 .4\n")
    for name in ("._1.jpg", ".trash/1.jpg", "day/._2.jpg"):
        (root / "images/train" / name).parent.mkdir(exist_ok=True)
        (root / "images/train" / name).write_bytes(b"\0\5\x16\7")
    (root / "disk/flight/._later.DNG").write_bytes(b"\0\5\x16\7")
    path = root / "data.yaml"
    path.write_text(
        yaml.safe_dump({"path": str(root), "train": "images/train", "val": "images/train", "names": ["car"]})
    )
    return path


def theirs(data: Path) -> list[str]:
    from ultralytics.data.base import BaseDataset

    return BaseDataset.get_img_files(SimpleNamespace(fraction=1.0, prefix=""), str(data.parent / "images/train"))


@pytest.mark.parametrize(
    "listed",
    [
        lambda data: read_split(data, "train").images,
        lambda data: images_of([data.parent / "images/train"]),
        lambda data: find_unlabeled([str(data.parent / "images/train")]).images,
        lambda data: find_media(data.parent / "images/train")[0],
    ],
    ids=["split", "beside unlabeled", "unlabeled", "media"],
)
def test_pictures_are_those_that_ultralytics_lists(data: Path, listed: Callable[[Path], list[Path]]) -> None:
    assert [path.name for path in listed(data)] == ["1.jpg", "2.jpg", "3.jpg"]
    assert list(map(str, listed(data))) == theirs(data)


def test_the_check_looks_at_what_is_trained_on(data: Path) -> None:
    report = check(read_description(data))
    assert report.parts["train"].images == len(theirs(data)) == 3 and report.parts["train"].boxes == 3
    assert report.counts().keys() == {"image_shared", "part_leaks"}, "train is val here"


def test_a_link_to_nothing_is_a_missing_picture(data: Path) -> None:
    """Ultralytics lists it, too, and leaves it out with a line in its log."""
    (data.parent / "images/train/4.jpg").symlink_to(data.parent / "gone.jpg")
    assert len(theirs(data)) == 4
    found = [finding for finding in check(read_description(data)).findings if finding.kind == "image_missing"]
    assert [(finding.path, finding.part) for finding in found] == [
        (str(data.parent / "images/train/4.jpg"), part) for part in ("train", "val")
    ]
