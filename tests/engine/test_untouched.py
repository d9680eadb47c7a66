"""Pictures that Ultralytics would save anew, and arrays beside them that it would read, mend and delete: no byte and no time
of them changes, and it is the pictures that are used."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ultralytics.data import utils as scan
from ultralytics.data.base import BaseDataset

from yolo_kd import DistillationTrainer
from yolo_kd.cli import main
from yolo_kd.engine.samples import sample_pictures
from yolo_kd.engine.untouched import untouched_pictures
from yolo_kd.errors import MisuseError

RANDOM = dict.fromkeys(("scale", "translate", "erasing", "hsv_h", "hsv_s", "hsv_v", "fliplr"), 0)
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


@pytest.fixture
def arrays(data: Path) -> Path:
    """The data set with the user's own arrays beside pictures of both parts, newer than these."""
    for part in ("train", "val"):
        folder = data.parent / "images" / part
        np.save(folder / "000.npy", np.full((64, 64), 301.5, np.float32))  # degrees, as a thermal camera has them
        np.save(folder / "002.npy", np.zeros((64, 64, 3), np.uint8))  # could be a cache by its shape
        (folder / "003.npy").write_bytes(b"no array")
    return data


def state(data: Path) -> dict[Path, tuple[bytes, int]]:
    """Everything but the list that Ultralytics keeps of its labels."""
    files = (path for path in data.parent.rglob("*") if path.is_file() and path.suffix != ".cache")
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_a_training_writes_no_picture(train: Callable[..., Any], data: Path, caplog) -> None:
    before = state(data)
    trainer = train(distill="none", data=str(data), check_data=False)
    assert state(data) == before
    used = {Path(file).name for file in trainer.train_loader.dataset.im_files}
    assert used == {f"{i:03}.jpg" for i in range(8)} - {"001.jpg"}
    said = "\n".join(record.getMessage() for record in caplog.records)
    assert "000.jpg: a JPEG that goes on behind its end" in said and "restored and saved" not in said


@pytest.mark.parametrize("cache", [False, "ram"])
def test_a_training_is_of_the_pictures_and_not_of_arrays_beside_them(train, arrays: Path, cache: bool | str) -> None:
    before = state(arrays)
    trainer = train(distill="none", data=str(arrays), check_data=False, cache=cache, val=True, **RANDOM)
    assert state(arrays) == before
    dataset = trainer.train_loader.dataset
    for index, file in enumerate(dataset.im_files):
        assert np.array_equal(dataset.load_image(index)[0], cv2.imread(file)), file
    assert state(arrays) == before, "also once the training is over"


def test_what_gains_and_fits_are_measured_on_are_the_pictures_too(train, arrays: Path) -> None:
    looked: list[bool] = []

    class Sampling(DistillationTrainer):
        def _setup_train(self) -> None:
            super()._setup_train()
            dataset = sample_pictures(self, labelled=True)
            looked.extend(
                np.array_equal(dataset.load_image(index)[0], cv2.imread(file))
                for index, file in enumerate(dataset.im_files)
            )

    before = state(arrays)
    train(Sampling, distill="none", data=str(arrays), check_data=False)
    assert looked == [True] * 7 and state(arrays) == before


def test_an_array_beside_a_picture_is_no_cache_of_it(train, arrays: Path) -> None:
    before = state(arrays)
    with pytest.raises(MisuseError, match=r"cache=disk: .*000\.npy.*\(64, 64\) float32.*cache=ram"):
        train(distill="none", data=str(arrays), check_data=False, cache="disk")
    assert state(arrays) == before
    for path in arrays.parent.rglob("000.npy"):
        path.unlink()
    with pytest.raises(MisuseError, match=r"cache=disk: .*003\.npy.*no array"):
        train(distill="none", data=str(arrays), check_data=False, cache="disk")


def test_a_cache_on_disk_is_written_once_and_read_again(train, data: Path, caplog) -> None:
    before = state(data)
    train(distill="none", data=str(data), check_data=False, cache="disk", val=True)
    cached = state(data)
    assert sum(path.suffix == ".npy" for path in cached) == 11 and before.items() <= cached.items()
    assert "from .npy files" not in caplog.text
    train(distill="none", data=str(data), check_data=False, cache="disk", val=True)
    assert state(data) == cached
    assert "cache=disk: 7 of 7 pictures are read from .npy files that lay beside them" in caplog.text


def test_a_validation_writes_nothing(arrays: Path, make_checkpoint, tmp_path: Path) -> None:
    before = state(arrays)
    words = [
        f"model={make_checkpoint('yolov8n.yaml')}",
        f"data={arrays}",
        "imgsz=64",
        f"project={tmp_path}",
        "plots=false",
    ]
    assert main(["val", *words]) == 0 and state(arrays) == before


def test_outside_ultralytics_is_its_own_again(data: Path) -> None:
    names = ("check_image", "_replace_image")
    own = [getattr(scan, name) for name in names]
    with pytest.raises(RuntimeError), untouched_pictures(), untouched_pictures():
        assert getattr(scan, names[0]) is not own[0] and "cache" in vars(BaseDataset)
        raise RuntimeError
    assert [getattr(scan, name) for name in names] == own and "cache" not in vars(BaseDataset)
