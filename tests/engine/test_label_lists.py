"""The pickles beside a data set: used where Ultralytics wrote them, not run where a stranger did."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ultralytics.data.utils import load_dataset_cache_file

from tests.bomb import Bomb
from yolo_kd.cli import main
from yolo_kd.engine import ultra
from yolo_kd.engine.label_lists import plain_label_lists, read_label_list

PARTS = ("train", "val")


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """A data set that came with a stranger's lists of labels."""
    root = Path(shutil.copytree(pictures.parent, tmp_path / "data", ignore=shutil.ignore_patterns("*.cache")))
    for part in PARTS:
        holder = np.empty((), object)
        holder[()] = {"version": Bomb(tmp_path / f"executed-{part}")}
        with (root / "labels" / f"{part}.cache").open("wb") as file:
            np.save(file, holder, allow_pickle=True)
    return root / pictures.name


def test_a_training_runs_no_code_of_a_list_and_reads_the_labels_anew(
    train: Callable[..., Any], data: Path, tmp_path: Path, caplog
) -> None:
    trainer = train(distill="none", data=str(data), check_data=False, val=True)
    assert not list(tmp_path.glob("executed-*"))
    assert [len(labels["cls"]) for labels in trainer.train_loader.dataset.labels] == [3] * 8
    for part in PARTS:
        assert set(read_label_list(data.parent / "labels" / f"{part}.cache")) >= {"labels", "hash"}, (
            "nothing new was kept"
        )


@pytest.mark.slow
def test_nor_does_a_validation(data: Path, tmp_path: Path, make_checkpoint) -> None:
    model = make_checkpoint(seed=1)
    words = [f"model={model}", f"data={data}", "imgsz=64", "plots=false", f"project={tmp_path}"]
    assert main(["val", *words]) == 0
    assert not list(tmp_path.glob("executed-*"))


def test_a_list_of_ultralytics_is_used_as_it_is(train: Callable[..., Any], pictures: Path, monkeypatch) -> None:
    train(distill="none", check_data=False)
    path = pictures.parent / "labels" / "train.cache"
    ours, theirs = read_label_list(path), load_dataset_cache_file(path)
    assert ours.keys() == theirs.keys() and ours["hash"] == theirs["hash"]
    for one, other in zip(ours["labels"], theirs["labels"], strict=True):
        assert one["im_file"] == other["im_file"] and np.array_equal(one["bboxes"], other["bboxes"])
    monkeypatch.setattr(ultra.YOLODataset, "cache_labels", lambda *_: pytest.fail("scanned anew"))
    train(distill="none", check_data=False)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"no list of labels"])
def test_what_is_no_list_is_an_error_that_ultralytics_takes_for_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "train.cache"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r".+"):
        read_label_list(path)
    with pytest.raises(FileNotFoundError):
        read_label_list(tmp_path / "gone.cache")


def test_afterwards_ultralytics_reads_as_it_did() -> None:
    with plain_label_lists():
        assert ultra.data_sets.load_dataset_cache_file is read_label_list
    assert ultra.data_sets.load_dataset_cache_file is load_dataset_cache_file
