"""What a detector gives back."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from yolo_kd.deploy import Detections

from yolo_kd.errors import MisuseError

NAMES = {0: "car", 1: "bus"}
TWO = Detections(
    np.array([[0, 1, 2, 3], [4, 5, 6, 7]], np.float32),
    np.array([0.9, 0.5], np.float32),
    np.array([1, 0]),
    NAMES,
    (8, 9),
)


def test_it_is_counted_and_gone_through() -> None:
    assert len(TWO) == 2
    found = [(box.tolist(), round(confidence, 3), index, name) for box, confidence, index, name in TWO]
    assert found == [([0, 1, 2, 3], 0.9, 1, "bus"), ([4, 5, 6, 7], 0.5, 0, "car")]
    assert all(type(value) in (float, int, str) for row in TWO for value in row[1:])


def test_none_is_false_and_empty() -> None:
    none = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), NAMES, (8, 9))
    assert not none and list(none) == []


def test_supervision_gets_its_own_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in with the constructor of `supervision.Detections`, which is not installed with us."""
    stand_in = ModuleType("supervision")
    stand_in.Detections = lambda xyxy, confidence, class_id, data: SimpleNamespace(**locals())
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    found = TWO.to_supervision()
    assert found.xyxy is TWO.xyxy and found.confidence is TWO.confidence and found.class_id is TWO.class_id
    assert found.data["class_name"].tolist() == ["bus", "car"]


def test_without_supervision_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MisuseError, match="pip install supervision"):
        TWO.to_supervision()
