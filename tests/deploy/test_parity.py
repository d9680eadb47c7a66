"""The same boxes as Ultralytics' `predict` on the same artifact; every picture counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy import Detections, open_detector

CASES = {
    "v8, OpenVINO": ("yolov8n.yaml", "openvino", {}),
    "v8, ONNX": ("yolov8n.yaml", "onnx", {}),
    "26 end to end, OpenVINO": ("yolo26n.yaml", "openvino", {"nms": False}),
    "26 end to end, ONNX": ("yolo26n.yaml", "onnx", {"nms": False}),
    "v8 with suppression inside, OpenVINO": ("yolov8n.yaml", "openvino", {"nms": True}),
}
SLOW = {"26 end to end, OpenVINO", "v8 with suppression inside, OpenVINO"}  # to export


@pytest.fixture
def float32_everywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Ultralytics leaves OpenVINO's precision to the CPU, which may take bf16."""
    import openvino as ov

    compile_model = ov.Core.compile_model

    def in_float32(core: Any, model: Any, device_name: str, config: dict[str, Any]) -> Any:
        return compile_model(core, model, device_name, config | {"INFERENCE_PRECISION_HINT": "f32"})

    monkeypatch.setattr(ov.Core, "compile_model", in_float32)
    yield


def predict(model: Any, frame: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    boxes = model.predict(frame, conf=confidence, iou=0.7, verbose=False)[0].boxes
    return boxes.xyxy.numpy(), boxes.conf.numpy(), boxes.cls.numpy().astype(int)


def assert_same(found: Detections, boxes: np.ndarray, scores: np.ndarray, class_id: np.ndarray) -> None:
    """As many boxes; one to one, of one class, IoU above .99, scores within .01.

    Random nets also give boxes without area, most of them turned inside out (their distances to a cell's sides are as often
    negative as not). An IoU says nothing there; every side has to lie within a twentieth of a pixel instead.
    """
    assert len(found) == len(boxes)
    left = np.maximum(found.xyxy[:, None, :2], boxes[None, :, :2])
    right = np.minimum(found.xyxy[:, None, 2:], boxes[None, :, 2:])
    inter = np.prod(np.clip(right - left, 0, None), axis=2)
    areas = [np.prod(b[:, 2:] - b[:, :2], axis=1) for b in (found.xyxy, boxes)]
    union = areas[0][:, None] + areas[1][None] - inter
    without_area = (found.xyxy[:, 2:] - found.xyxy[:, :2]).min(axis=1, initial=np.inf) <= 0
    near = without_area[:, None] & (np.abs(found.xyxy[:, None] - boxes[None]).max(axis=2) < 0.05)
    same = ((inter > 0.99 * union) & (union > 0)) | near
    same &= (found.class_id[:, None] == class_id[None]) & (np.abs(found.confidence[:, None] - scores[None]) < 0.01)
    free = set(range(len(boxes)))
    for row in same:
        match = next((j for j in np.flatnonzero(row) if j in free), None)
        assert match is not None
        free.remove(match)


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in CASES])
@pytest.mark.parametrize("precision", ["f32", None])
def test_the_boxes_are_those_of_ultralytics(
    exported: Callable[..., Path], frames: list[np.ndarray], case: str, precision: str | None, request: Any
) -> None:
    from ultralytics import YOLO

    if precision:
        request.getfixturevalue("float32_everywhere")
    model, form, keys = CASES[case]
    source = exported(model, form, **keys)
    theirs = YOLO(source, task="detect")
    confidence = 0.7
    counts = []
    with open_detector(source, confidence=confidence, precision=precision, cache=False) as ours:
        for frame in frames:
            found, wanted = ours(frame), predict(theirs, frame, confidence)
            assert_same(found, *wanted)
            counts.append(len(found))
    assert sum(counts) > 3 * len(frames), "too few boxes to say anything"
    assert max(counts) < 300, "at the limit of boxes, equal scores decide which are shown"


def test_boxes_without_area_are_compared_side_by_side() -> None:
    turned, one = np.array([[20, 10, 10, 50]], np.float32), (np.array([0.9], np.float32), np.array([0]))
    assert_same(Detections(turned, *one, {0: "a"}, (99, 99)), turned, *one)
    for found in (turned + np.float32(0.06), turned[:, [2, 1, 0, 3]], np.array([[20, 10, 20.5, 50]], np.float32)):
        with pytest.raises(AssertionError):
            assert_same(Detections(found, *one, {0: "a"}, (99, 99)), turned, *one)


def test_the_comparison_sees_a_difference(frames: list[np.ndarray]) -> None:
    boxes = np.array([[10, 10, 50, 50], [20, 20, 90, 60]], np.float32)
    scores, class_id = np.array([0.9, 0.6], np.float32), np.array([0, 1])
    names = {0: "a", 1: "b"}
    assert_same(Detections(boxes[::-1], scores[::-1], class_id[::-1], names, (99, 99)), boxes, scores, class_id)
    for found in (
        Detections(boxes[:1], scores[:1], class_id[:1], names, (99, 99)),
        Detections(boxes + np.float32(0.15), scores, class_id, names, (99, 99)),  # IoU .985 of the first
        Detections(boxes, scores + np.float32(0.02), class_id, names, (99, 99)),
        Detections(boxes, scores, class_id[::-1], names, (99, 99)),
        Detections(boxes[[0, 0]], scores[[0, 0]], class_id[[0, 0]], names, (99, 99)),
    ):
        with pytest.raises(AssertionError):
            assert_same(found, boxes, scores, class_id)
