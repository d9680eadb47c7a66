"""`yolo-kd export`: a checkpoint as a float OpenVINO or ONNX artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.cfg.values import read_size
from yolo_kd.errors import MisuseError
from yolo_kd.modes.keys import settled

DEFAULTS: dict[str, Any] = {
    "model": None,
    "format": "openvino",
    "imgsz": 640,
    "precision": "fp32",
    "end2end": False,
    "out": None,
    "overwrite": False,
    "trust": False,
    "debug": False,
}
# Keys of Ultralytics' own export, and what they come to here.
THEIRS = {
    "half": "precision=fp16 for weights in half precision",
    "int8": "yolo-kd quantize",
    "quantize": "precision=fp16, or yolo-kd quantize",
    "dynamic": "shapes are static, one export for each imgsz=",
    "batch": "a batch of 1, which OpenVINO's runtime raises itself: open_detector(..., batch=4)",
    "nms": "boxes are suppressed by the runtime, or by the head of v10 and 26 with end2end=true",
    "device": "the export runs on the CPU, and its result where open_detector(..., device=) says",
}


def main(settings: dict[str, Any]) -> int:
    """Export; returns the exit code."""
    for key in (k for k in settings if k in THEIRS):
        raise MisuseError(f"{key}={settings[key]}: is a key of Ultralytics' own export; here: {THEIRS[key]}")
    keys = settled(settings, DEFAULTS, "export", free=("imgsz",))
    if not keys["model"]:
        raise MisuseError("model= is missing: yolo-kd export model=best.pt format=openvino")
    from yolo_kd.engine.export import export

    artifact = export(
        str(keys["model"]),
        str(keys["format"]),
        read_size("imgsz", keys["imgsz"]),
        str(keys["precision"]),
        keys["end2end"],
        Path(str(keys["out"])) if keys["out"] is not None else None,
        keys["overwrite"],
        keys["trust"],
    )
    print(f"{artifact.folder}: {artifact.format} {artifact.precision}, input {'x'.join(map(str, artifact.input_hw))}")
    return 0


def help_text() -> str:
    """The keys."""
    return """usage: yolo-kd export model=<.pt> [key=value ...]

  model=           detection checkpoint of Ultralytics; its pickle is not executed
  format=openvino  openvino or onnx
  imgsz=640        input size, a side or height,width: 384,640 fits 16:9 cameras and costs 0.6 x the time
  precision=fp32   fp32 or fp16 (weights); yolo-kd quantize makes int8
  end2end=false    true takes the one-to-one head of v10 and 26, which needs no suppression
  out=             where the folder <name>_<format>_model goes; beside the checkpoint if left out
  overwrite=false  true replaces a folder of that name that yolo-kd did not write
  trust=false      true lets the checkpoint run code of its own while it is loaded"""
