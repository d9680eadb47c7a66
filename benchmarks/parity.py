"""The same boxes as Ultralytics' predict from the same artifact, on every picture of a part of a data set.

    python -m benchmarks.parity weights=yolov8n.pt data=coco128/data.yaml

Artifacts: OpenVINO and ONNX Runtime in float, both in INT8, and OpenVINO in float at the camera's shape; all are made here
from a copy of the weights, by `yolo-kd export` and `yolo-kd quantize` (calibrated on the train part). Both sides read each
picture with OpenCV, keep boxes above a confidence of .25, suppress at an IoU of .7, and run at the runtime's default
precision. A box is missed if the other side has none of its class, not yet taken, with IoU above .99 and a score within .01;
pairs are taken by their IoU. No picture is left out.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from yolo_kd.cfg.values import read_size
from yolo_kd.data.split import read_split
from yolo_kd.deploy import Detections, open_detector
from yolo_kd.deploy.quantize.agreement import iou_matrix

from benchmarks.inputs import origin
from benchmarks.result import Bar, bar, command_line, write
from yolo_kd.cli import main as cli
from yolo_kd.cli import parse

DEFAULTS: dict[str, Any] = {
    "weights": None,
    "data": None,
    "split": "val",
    "imgsz": 640,
    "camera": (384, 640),
    "count": 300,
}
CONFIDENCE, IOU = 0.25, 0.7
LEAST_IOU, SCORE_ERROR = 0.99, 0.01
Look = Callable[[np.ndarray], Detections]


@dataclass(frozen=True)
class Compared:
    """Two sets of boxes on one picture.

    Args:
        boxes: Ultralytics'.
        ours: Ours.
        missed: Boxes of either side without a partner.
        iou: Of the pairs, the smallest; 1 without any.
        score_error: Of the pairs, the largest difference of scores.
    """

    boxes: int
    ours: int
    missed: int
    iou: float
    score_error: float


def main() -> int:
    """Make the artifacts, compare, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    missing = [key for key in ("weights", "data") if not keys[key]]
    if missing:
        print(f"parity: {', '.join(missing)} missing; see the head of this file", file=sys.stderr)
        return 2
    images = read_split(str(keys["data"]), str(keys["split"])).images
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    with tempfile.TemporaryDirectory(prefix="yolo-kd-") as work:
        for name, model in _artifacts(keys, Path(work)).items():
            row = {"artifact": name, **_measure(model, images)}
            rows.append(row)
            bars.append(bar(f"{name}: boxes without a partner", row["missed"], 0, "<="))
    write("parity", command_line(), rows, bars, notes=[origin("weights", Path(str(keys["weights"])))])
    return 0


def compare(found: Detections, wanted: Detections) -> Compared:
    """Pair the boxes of one picture, those with the largest IoU first."""
    overlap = iou_matrix(found.xyxy.astype(np.float64), wanted.xyxy.astype(np.float64))
    apart = np.abs(found.confidence[:, None].astype(np.float64) - wanted.confidence[None])
    fits = (overlap > LEAST_IOU) & (apart < SCORE_ERROR) & (found.class_id[:, None] == wanted.class_id[None])
    overlap = np.where(fits, overlap, 0.0)
    pairs, worst, error = 0, 1.0, 0.0
    while overlap.size and overlap.max() > 0:
        i, j = np.unravel_index(int(overlap.argmax()), overlap.shape)
        pairs, worst, error = pairs + 1, min(worst, float(overlap[i, j])), max(error, float(apart[i, j]))
        overlap[i], overlap[:, j] = 0.0, 0.0
    return Compared(len(wanted), len(found), len(wanted) + len(found) - 2 * pairs, worst, error)


def _measure(model: Path, images: tuple[Path, ...]) -> dict[str, Any]:
    import cv2

    theirs = _ultralytics(model)
    with open_detector(model, confidence=CONFIDENCE, iou=IOU, allow_rejected=True, cache=False) as ours:
        seen = []
        for image in images:
            frame = cv2.imread(str(image))
            assert frame is not None, f"{image} cannot be read"
            seen.append(compare(ours(frame), theirs(frame)))
        runs_in = ours.backend.precision
    return {
        "runs in": runs_in,
        "pictures": len(seen),
        "boxes": sum(one.boxes for one in seen),
        "ours": sum(one.ours for one in seen),
        "missed": sum(one.missed for one in seen),
        "pictures with a miss": sum(one.missed > 0 for one in seen),
        "smallest IoU": min(one.iou for one in seen),
        "largest score error": max(one.score_error for one in seen),
    }


def _artifacts(keys: dict[str, Any], work: Path) -> dict[str, Path]:
    """Name to what both sides open."""
    checkpoint = shutil.copy(str(keys["weights"]), work / "best.pt")
    words = [f"model={checkpoint}", f"data={keys['data']}", f"count={keys['count']}", f"imgsz={keys['imgsz']}"]
    height, width = read_size("camera", keys["camera"])
    _run("quantize", *words, "backend=all", "gate=false", "sensitivity=false")
    _run("export", f"model={checkpoint}", "format=openvino", f"imgsz={height},{width}", f"out={work / 'camera'}")
    size, camera = f"{keys['imgsz']}x{keys['imgsz']}", f"{height}x{width}"
    return {
        f"OpenVINO float {size}": work / "best_openvino_model",
        f"OpenVINO INT8 {size}": work / "best_int8_openvino_model",
        f"OpenVINO float {camera}": work / "camera" / "best_openvino_model",
        f"ONNX Runtime float {size}": work / "best_onnx_model" / "best.onnx",
        f"ONNX Runtime INT8 {size}": work / "best_int8_onnx_model" / "best.onnx",
    }


def _run(*words: str) -> None:
    code = cli(list(words))
    if code:
        raise SystemExit(f"yolo-kd {' '.join(words)} ended with {code}")


def _ultralytics(model: Path) -> Look:
    from ultralytics import YOLO

    net = YOLO(model, task="detect")

    def look(frame: np.ndarray) -> Detections:
        boxes = net.predict(frame, conf=CONFIDENCE, iou=IOU, device="cpu", verbose=False)[0].boxes
        kinds = boxes.cls.numpy().astype(np.int64)
        return Detections(boxes.xyxy.numpy(), boxes.conf.numpy(), kinds, net.names, (frame.shape[0], frame.shape[1]))

    return look


if __name__ == "__main__":
    raise SystemExit(main())
