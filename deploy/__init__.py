"""The device side: numpy, OpenCV and one runtime; never torch or Ultralytics.

from yolo_kd.deploy import open_detector

with open_detector("best_int8_openvino_model") as detector:
    for xyxy, confidence, class_id, name in detector(frame_bgr):
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["Detections", "Detector", "open_detector"]

if TYPE_CHECKING:
    from yolo_kd.deploy.detections import Detections
    from yolo_kd.deploy.runtime import Detector, open_detector

_LAZY = {
    "Detections": "yolo_kd.deploy.detections",
    "Detector": "yolo_kd.deploy.runtime",
    "open_detector": "yolo_kd.deploy.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'yolo_kd.deploy' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
