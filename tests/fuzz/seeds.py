"""The good files that inputs are made from: a small one of every kind that yolo-kd reads."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import yaml
from ultralytics.cfg import DEFAULT_CFG_DICT
from yolo_kd.cfg.settings import resolve
from yolo_kd.deploy import bundle
from yolo_kd.deploy.artifact import METADATA, Verdict, read_artifact, sha256, write_manifest
from yolo_kd.deploy.quantize.calibration import CalibrationSet, write_calibration
from yolo_kd.deploy.runtime import open_detector

from tests.conftest import write_pictures
from tests.data.converters.samples import SAMPLES
from tests.deploy.tiny_nets import NET_HW, openvino_net
from tests.evidence.sample_run import write_run
from tests.fuzz.models import saved, tiny_model
from tests.fuzz.resumed import write_records
from yolo_kd.engine.resume import save_sidecar

FORMATS = ("jpg", "png", "bmp", "tif", "webp")
RECIPE = """# two methods
methods:
  csgr:
    cs: auto:0.25
    tau: 0.1
  pcd:
    cls: 1.5
schedule: cosine
until: 0.8
"""
KEYS = """teacher: teacher.pt
student: yolov8n.yaml
data: data.yaml
epochs: 3
imgsz: 64
batch: 4
optimizer: AdamW
lr0: 1e-3
mosaic: 0.5
classes: [0, 1]
distill: csgr_lqe
csgr.tau: .2
until: 0.5
teacher_every: 2
force: true
"""
STUDENT = """nc: 3
depth_multiple: 0.33
width_multiple: 0.25
backbone:
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 3, C2f, [128, True]]
head:
  - [-1, 1, nn.Upsample, [None, 2, nearest]]
  - [[2], 1, Detect, [nc]]
"""


def make_seeds(folder: Path) -> Path:
    """Fill a new folder; everything in it is small and refers to the rest by relative paths."""
    folder.mkdir(parents=True)
    write_pictures(folder, train=4, val=2, size=48)
    _texts(folder)
    _pictures(folder / "pictures")
    for name, write in SAMPLES.items():
        write(folder / name)
    _checkpoints(folder)
    _artifacts(folder)
    images = tuple(sorted((folder / "images" / "train").glob("*.png")))
    write_calibration(
        CalibrationSet(images, tuple(map(sha256, images)), {"seed": 0, "warnings": []}), folder / "calibration.json"
    )
    return folder


def _texts(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "keys.yaml").write_text(KEYS)
    (folder / "student.yaml").write_text(STUDENT)
    names = yaml.safe_load((folder / "data.yaml").read_text())["names"]
    rest = {"train": "images/train", "val": "images/val", "names": names}
    for name, part in (("listed", {"train": "train.txt"}), ("pictures", {"train": "pictures"})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**rest, **part}))
    images = sorted((folder / "images" / "train").glob("*.png"))
    (folder / "train.txt").write_text("".join(f"./images/train/{p.name}\n" for p in images))
    rows = [
        f"{p.parent.name}/{p.name},{i // 2}"
        for i, p in enumerate([*images, *sorted((folder / "images" / "val").glob("*.png"))])
    ]
    (folder / "groups.csv").write_text("image,group\n" + "\n".join(rows) + "\n")


def _pictures(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i, suffix in enumerate(FORMATS):
        coarse = rng.integers(0, 256, (4, 5, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.{suffix}"), cv2.resize(coarse, (40, 30), interpolation=cv2.INTER_CUBIC))
        (folder / f"{i}.txt").write_text("0 0.5 0.5 0.25 0.25\n")  # a part without a box is a fault of its own
    cv2.imwrite(str(folder / "deep.png"), rng.integers(0, 1 << 16, (20, 30, 3), np.uint16))


def _checkpoints(folder: Path) -> None:
    content = saved({"model": tiny_model().half(), "train_args": {"task": "detect"}, "epoch": -1})
    (folder / "teacher.pt").write_bytes(content)
    weights = write_run(folder / "run") / "weights"
    weights.mkdir()
    args = {
        **DEFAULT_CFG_DICT,
        "task": "detect",
        "model": "yolov8n.yaml",
        "data": "data.yaml",
        "epochs": 3,
        "imgsz": 64,
    }
    model = tiny_model().half()
    state = {"epoch": 0, "best_fitness": 0.1, "model": None, "ema": model, "updates": 4, "optimizer": {}, "scaler": {}}
    (weights / "last.pt").write_bytes(saved({**state, "train_args": args, "train_metrics": {}, "version": "8.4.190"}))
    last = {
        "whole": sha256(weights / "last.pt"),
        "epoch": 0,
        "gains": {"csgr.cs": 1.0},
        "optimizer": {},
        "distillers": {},
    }
    save_sidecar(weights / "last.kd.pt", last)
    write_records(folder / "run", [f"images/train/{i:03}.png" for i in range(4)])
    kd = resolve({"teacher": "teacher.pt", "csgr.tau": 0.2}).to_dict()
    (folder / "run" / "kd.yaml").write_text(yaml.safe_dump(kd, sort_keys=False))


def _artifacts(folder: Path) -> None:
    """A float parent, an INT8 artifact that passed the gate, both as Ultralytics leaves them too, and a bundle of it."""
    made = openvino_net(folder / "exported_openvino_model")
    (made.folder / METADATA).write_text(
        yaml.safe_dump({"task": "detect", "imgsz": [*NET_HW], "names": {0: "car"}, "args": {}})
    )
    facts = {
        "parent": {"file": "last.pt", "sha256": sha256(folder / "run" / "weights" / "last.pt")},
        "versions": {"openvino": "2026.4"},
        "created": "2026-11-21",
    }
    shutil.copytree(made.folder, folder / "float_openvino_model")
    parent = write_manifest(replace(read_artifact(folder / "float_openvino_model"), facts=facts))
    shutil.copytree(made.folder, folder / "int8_openvino_model")
    judged = {
        **facts,
        "float_model": {"sha256": parent.files["best.xml"]},
        "calibration": {"hash": "cd" * 32, "images": 4, "pictures": ["0123456789abcdef"]},
        "recipe": {"preset": "mixed"},
        "runtime": {"threads": 1, "precision": "f32", "cpu": "some"},
        "metrics": {
            "ap": [0.4, 0.41],
            "f1": 0.98,
            "iou": 0.95,
            "ms": 3.0,
            "parent_ms": 6.0,
            "boxes": 12,
            "parent_boxes": 13,
            "p95": [4.0, 7.0],
            "by_part": {"small": [0.1, None]},
            "slices": {"darkest": [0.2, 0.3]},
        },
        "limits": {"max_drop": 0.01},
        "evaluation": {"split": "val", "images": 2, "hash": "ef" * 32},
        "device": {"name": "CPU", "cpu": "some", "isa": "avx2", "runs in": {"artifact": "int8+bf16", "parent": "bf16"}},
        "layers": {"int8_convolutions": 1, "float_convolutions": 0},
        "sensitivity": [{"layer": "conv", "error": 0.01}],
    }
    verdict = Verdict(True, (), ("few pictures",))
    artifact = write_manifest(
        replace(read_artifact(folder / "int8_openvino_model"), precision="int8", facts=judged, verdict=verdict)
    )
    shutil.copytree(artifact.folder, folder / "run" / "weights" / "best_int8_openvino_model")
    frames = [cv2.imread(str(path)) for path in sorted((folder / "images" / "val").glob("*.png"))]
    with open_detector(parent, cache=False) as detector:
        references = [(frame, detector(frame)) for frame in frames]
    bundle.create(artifact.folder, references, "# card\n", folder / "student.zip")
    assert json.loads((artifact.folder / "artifact.json").read_text())["verdict"]["passed"]
