"""A run folder as a training leaves it, written by hand, for the tests of its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import yaml

HEADS = (
    "epoch,time,train/box_loss,train/cls_loss,train/cs_loss,train/kdcls_loss,metrics/precision(B),metrics/recall(B),"
    "metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,val/cls_loss,gain/csgr.cs,share/csgr.cs,gain/pcd.cls,share/pcd.cls"
)
ROWS = (
    "1,60,4,3,0.8,2.0,0.1,0.1,0.10,0.05,4,3,0.1,0.25,0.4,0.5",
    "2,120,3,2,0.6,1.5,0.2,0.2,0.30,0.20,3,2,0.1,0.26,0.4,0.6",
    "3,180,2,1,0.5,1.0,0.2,0.2,0.25,0.15,3,2,0.1,0.24,0.4,0.4",
)
SETTINGS = {
    "recipe": {
        "name": "<script>", "schedule": "constant", "until": 1.0,
        "methods": {"csgr": {"cs": "auto:0.25"}, "pcd": {"cls": "auto:0.5"}},
    },
    "teacher": "somewhere/yolov8l.pt", "teacher_engine": "auto",
}  # fmt: skip
ARGS = {
    "model": "yolov8n.yaml", "data": "visdrone.yaml", "epochs": 3, "imgsz": 640, "close_mosaic": 1, "seed": 7,
    "a_rare_key": "its value",
}  # fmt: skip
PREFLIGHT = {
    "teacher": "somewhere/yolov8l.pt", "teacher_sha256": "c8f4" * 16, "maps": {"teacher": {"mAP50": 0.45, "mAP50-95": 0.25}},
    "engine": "openvino-bf16",
    "engines": [{"engine": "openvino-bf16", "agreement": {"features": [0.014, 0.017, 0.029], "score": 0.02}, "ms": 6.03,
                 "trouble": ""}],
}  # fmt: skip


def write_run(
    folder: Path, rows: Sequence[str] = ROWS, settings: dict | None = SETTINGS, args: dict | None = ARGS,
    preflight: dict | None = PREFLIGHT, maps: bool = True, heads: str = HEADS,
) -> Path:  # fmt: skip
    """The folder; None leaves a file out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.csv").write_text("\n".join([heads, *rows, ""]))
    for name, values in (("kd.yaml", settings), ("args.yaml", args)):
        if values is not None:
            (folder / name).write_text(yaml.safe_dump(values))
    if preflight is not None:
        (folder / "preflight.json").write_text(json.dumps(preflight))
    if maps:
        cv2.imwrite(str(folder / "distill_maps.jpg"), np.full((900, 1216, 3), 120, np.uint8))
    return folder


def write_artifact(folder: Path, passed: bool | None, reasons: Sequence[str] = ()) -> Path:
    """A folder with a manifest that can be read, and files that are no net."""
    from yolo_kd.deploy.artifact import Artifact, Verdict, write_manifest

    folder.mkdir(parents=True)
    for suffix in ("xml", "bin"):
        (folder / f"best.{suffix}").write_text("x")
    verdict = None if passed is None else Verdict(passed, tuple(reasons), ())
    write_manifest(Artifact(folder, "best.xml", "openvino", "int8", (64, 64), {0: "car"}, verdict=verdict))
    return folder
