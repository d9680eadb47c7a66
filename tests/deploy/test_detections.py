"""What a detector gives back."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

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


@dataclass
class DocumentedDetections:
    """The fields of `supervision.Detections` in their order and what its constructor refuses, as 0.31.2 documents them.

    The package itself, with PyAV and Matplotlib, is 100 MB that nothing else of ours needs; where it is installed, the test
    below runs on it instead. It passed on 0.31.2.
    """

    xyxy: Any
    mask: Any = None
    confidence: Any = None
    class_id: Any = None
    tracker_id: Any = None
    data: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.xyxy, np.ndarray) and self.xyxy.ndim == 2 and self.xyxy.shape[1] == 4):
            raise ValueError("xyxy must be a 2D np.ndarray with shape (_, 4)")
        count = len(self.xyxy)
        for name in ("confidence", "class_id", "tracker_id"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, np.ndarray) and value.shape == (count,)):
                raise ValueError(f"{name} must be a 1D np.ndarray with shape ({count},)")
        if self.mask is not None or not all(
            isinstance(value, list | np.ndarray) and len(value) == count for value in self.data.values()
        ):
            raise ValueError(f"mask is None for boxes, and data holds lists or arrays of {count}")

    def __len__(self) -> int:
        return len(self.xyxy)


@pytest.fixture
def supervision(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The real package, or a module with the class above."""
    if find_spec("supervision") is not None:
        return import_module("supervision")
    stand_in = ModuleType("supervision")
    vars(stand_in)["Detections"] = DocumentedDetections
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    return stand_in


def test_supervision_gets_its_own_class(supervision: Any) -> None:
    found = TWO.to_supervision()
    assert type(found) is supervision.Detections and len(found) == 2
    assert found.xyxy.tolist() == TWO.xyxy.tolist() and found.confidence.tolist() == TWO.confidence.tolist()
    assert found.class_id.tolist() == [1, 0] and found.mask is None and found.tracker_id is None
    assert list(found.data["class_name"]) == ["bus", "car"]


def test_no_box_is_no_box_to_supervision(supervision: Any) -> None:
    none = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), NAMES, (8, 9))
    assert len(none.to_supervision()) == 0


def test_without_supervision_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(MisuseError, match="pip install supervision"):
        TWO.to_supervision()
