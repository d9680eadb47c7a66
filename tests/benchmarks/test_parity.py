"""The benchmark of parity: its matching by hand, and the whole on a net that has learnt something."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy import Detections

from benchmarks import parity
from benchmarks.result import write

BOXES = np.array([[0, 0, 100, 100], [50, 50, 150, 150], [51, 50, 151, 150]], np.float32)
SCORES, KINDS = np.array([0.9, 0.8, 0.5], np.float32), np.array([0, 1, 1])


def seen(boxes: np.ndarray = BOXES, scores: np.ndarray = SCORES, kinds: np.ndarray = KINDS) -> Detections:
    return Detections(
        np.asarray(boxes, np.float32), np.asarray(scores, np.float32), kinds, {0: "a", 1: "b"}, (200, 200)
    )


def shifted(pixels: float) -> np.ndarray:
    return BOXES + np.array([[pixels, 0, pixels, 0]] + [[0, 0, 0, 0]] * 2, np.float32)


@pytest.mark.parametrize(
    ("ours", "missed"),
    [
        (seen(), 0),
        (seen(BOXES[::-1], SCORES[::-1], KINDS[::-1]), 0),
        (seen(shifted(0.4)), 0),  # IoU 99.6 / 100.4
        (seen(shifted(0.6)), 2),  # IoU 99.4 / 100.6 = .988: a box of each side
        (seen(scores=SCORES + np.float32(0.009)), 0),
        (seen(scores=SCORES + np.array([0.011, 0, 0], np.float32)), 2),
        (seen(kinds=np.array([1, 1, 1])), 2),
        (seen(BOXES[:2], SCORES[:2], KINDS[:2]), 1),
        (seen(BOXES[[0, 0, 1]], SCORES[[0, 0, 1]], KINDS[[0, 0, 1]]), 2),  # one box cannot serve twice
        (seen(BOXES[:0], SCORES[:0], KINDS[:0]), 3),
    ],
)
def test_misses_by_hand(ours: Detections, missed: int) -> None:
    assert parity.compare(ours, seen()).missed == missed == parity.compare(seen(), ours).missed


def test_the_worst_pair_is_told() -> None:
    found = parity.compare(seen(shifted(0.4), SCORES - np.float32(0.005)), seen())
    assert found.iou == pytest.approx(99.6 / 100.4, abs=1e-4) and found.score_error == pytest.approx(0.005, abs=1e-4)
    assert parity.compare(seen(BOXES[:0], SCORES[:0], KINDS[:0]), seen(BOXES[:0], SCORES[:0], KINDS[:0])).missed == 0


def test_every_artifact_has_its_row_and_bar(learnt: Path, pictures: Path, tmp_path: Path, monkeypatch) -> None:
    before = sorted(p for p in learnt.parent.rglob("*"))
    keys = [f"weights={learnt}", f"data={pictures}", "split=train", "imgsz=64", "camera=32,64", "count=5"]
    monkeypatch.setattr(sys, "argv", ["parity", *keys])
    monkeypatch.setattr(parity, "write", partial(write, folder=tmp_path))
    assert parity.main() == 0
    found = json.loads((tmp_path / "parity.json").read_text())
    assert [row["artifact"] for row in found["rows"]] == [
        "OpenVINO float 64x64", "OpenVINO INT8 64x64", "OpenVINO float 32x64", "ONNX Runtime float 64x64",
        "ONNX Runtime INT8 64x64",
    ]  # fmt: skip
    assert all(row["pictures"] == 8 and row["boxes"] > 5 and row["missed"] == 0 for row in found["rows"])
    assert {row["runs in"].split("+")[0] for row in found["rows"] if "INT8" in row["artifact"]} == {"int8"}
    assert [each["limit"] for each in found["bars"]] == [0] * 5 and all(each["holds"] for each in found["bars"])
    assert sorted(p for p in learnt.parent.rglob("*")) == before


def test_without_data_it_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["parity", "weights=x.pt"])
    assert parity.main() == 2 and "data missing" in capsys.readouterr().err
