"""The benchmark of the loader: its shares come from real trainings, and it writes to nobody's pictures."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import cv2
import pytest
import yaml

from benchmarks import loader
from benchmarks.result import write
from yolo_kd.errors import MisuseError, YoloKDError


@pytest.mark.slow
def test_each_place_that_pictures_come_from_has_a_row_and_a_bar(
    pictures: Path, tiny: Path, tmp_path: Path, monkeypatch
) -> None:
    words = ["imgsz=64", "arms=plain", "batch=3", "steps=3", "warmup=1", "cpu_threads=1", "longer=128"]
    monkeypatch.setattr(sys, "argv", ["loader", f"data={pictures}", f"student={tiny}", *words])
    monkeypatch.setattr(loader, "write", partial(write, folder=tmp_path))
    assert loader.main() == 0
    found = json.loads((tmp_path / "loader.json").read_text())
    assert [(row["from"], row["pictures"], row["arm"]) for row in found["rows"]] == [
        ("files", "128x128", "plain"), ("memory", "128x128", "plain"), ("stock", "128x128", "plain")
    ]  # fmt: skip
    assert len(found["bars"]) == 2, "what Ultralytics does is no bar of ours"
    for row, bar in zip(found["rows"][:2], found["bars"], strict=True):
        assert 0 < row["s waiting"] < row["s/step"] and 0 < row["CPU s waiting"] < row["CPU s/step"]
        assert bar["value"] == row["share"] == pytest.approx(row["s waiting"] / row["s/step"])
        assert (bar["limit"], bar["sense"]) == (0.1, "<=") and row["teacher on"] is None


def test_shares_are_of_the_sums() -> None:
    found = loader.summary([loader.Step(1, 2, 1, 4), loader.Step(0, 6, 0, 4)])
    assert (found["share"], found["CPU share"], found["s/step"], found["s waiting"]) == (0.125, 0.125, 4, 0.5)


@pytest.mark.slow
def test_a_training_that_fails_is_said_in_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(YoloKDError, match=r"the training ended by itself: .*nothing.yaml"):
        keys = {"model": "yolov8n.yaml", "distill": "none", "project": str(tmp_path)}
        loader.Case({"data": str(tmp_path / "nothing.yaml"), **keys}, tmp_path / "log")


def test_pictures_are_enlarged_in_a_copy_only(pictures: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in pictures.parent.rglob("*.png")}
    copied = loader.enlarged(pictures, tmp_path / "copy", 96)
    sides = {path.parent.name: cv2.imread(str(path)).shape[0] for path in copied.parent.rglob("*.png")}
    assert sides == {"train": 96, "val": 64}
    assert before == {path: path.read_bytes() for path in pictures.parent.rglob("*.png")}


def test_pictures_that_lie_elsewhere_are_refused_and_stay(pictures: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(pictures.parent, tmp_path / "own"))
    elsewhere = tmp_path / "yaml" / "data.yaml"
    elsewhere.parent.mkdir()
    elsewhere.write_text(yaml.safe_dump({**yaml.safe_load((own / "data.yaml").read_text()), "path": str(own)}))
    before = {path: path.read_bytes() for path in own.rglob("*.png")}
    with pytest.raises(MisuseError, match=r"is not in its folder; expected a data set in one folder"):
        loader.enlarged(elsewhere, tmp_path / "copy", 96)
    assert before == {path: path.read_bytes() for path in own.rglob("*.png")}


def test_misuse_is_one_line(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["loader"])
    assert loader.main() == 2 and "data= is missing" in capsys.readouterr().err
    with pytest.raises(MisuseError, match=r"arms=fast: expected plain, default, openvino-int8"):
        loader.chosen("arms", "plain,fast", list(loader.ARMS))
