"""What INT8 costs in precision and gains in speed: ours, Ultralytics' own exports, and the float nets, by one evaluation.

    python -m benchmarks.int8_accuracy "cases=coco128:yolov8n.pt:coco128/data.yaml:640:val,hituav:best.pt:hituav/data_scene.yaml:320:test"

A case is name:weights:data:imgsz:split. The hituav case takes the student `csgr_lqe` of benchmarks.real_run on hituav, seed 0;
all other nets are made here. Ours is `yolo-kd quantize` at its defaults, calibrated on the train part and gated on
val; Ultralytics' is its `export(quantize=8)`, once as it ships, which calibrates on val, and once calibrated on the train part
as ours is: the bars are against the first, the second tells how much of it came from seeing val. Every net is measured by the same code on
the split named, and its drop against the float net of the same runtime has a bootstrap interval over images. Times are from
frame to boxes, all nets of a case and runtime in turns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split, read_split
from yolo_kd.deploy import Detector, open_detector

from benchmarks.inputs import origin
from benchmarks.machine import quiet
from benchmarks.result import Bar, bar, command_line, write
from yolo_kd.cli import main as cli
from yolo_kd.cli import parse
from yolo_kd.evidence.average_precision import PrecisionMeter, drop_interval
from yolo_kd.evidence.evaluation import LOW_CONFIDENCE, look, read_frame
from yolo_kd.evidence.judge import time_in_turn

DEFAULTS: dict[str, Any] = {"cases": None, "count": 300, "timed": 100, "recipe": "default"}
MAX_DROP = {"openvino": 0.005, "onnx": 0.010}
MIN_SPEED = {"onnx": 1.25}
FRAMES = 8
ON_TRAIN = "Ultralytics INT8 calibrated on train"


@dataclass(frozen=True)
class Case:
    """A model and the pictures it is measured on."""

    name: str
    weights: Path
    data: Path
    imgsz: int
    split: str


def main() -> int:
    """Export, quantize, measure, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    if not keys["cases"]:
        print("int8_accuracy: expected cases=name:weights:data:imgsz:split,...", file=sys.stderr)
        return 2
    cases = [_case(text) for text in str(keys["cases"]).split(",")]
    notes = [*quiet(), *(origin(f"case {case.name}", case.weights) for case in cases)]
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="yolo-kd-") as work:
            for backend in ("openvino", "onnx"):
                found = _measure(case, backend, keys, Path(work) / backend)
                rows += found
                bars += _bars(case, backend, {row["model"]: row for row in found})
    write("int8_accuracy", command_line(), rows, bars, notes=notes)
    return 0


def _case(text: str) -> Case:
    name, weights, data, imgsz, split = text.strip().split(":")
    return Case(name, Path(weights).resolve(), Path(data).resolve(), int(imgsz), split)


def _measure(case: Case, backend: str, keys: dict[str, Any], work: Path) -> list[dict[str, Any]]:
    """Rows of the float net, ours and Ultralytics' in one runtime."""
    work.mkdir(parents=True)
    data = (
        Path(shutil.copytree(case.data.parent, work / "data")) / case.data.name
    )  # Ultralytics writes caches beside labels
    nets = {"float": work / f"best_{backend}_model", "ours INT8": work / f"best_int8_{backend}_model"}
    checkpoint = shutil.copy(case.weights, work / "best.pt")
    words = [
        f"model={checkpoint}",
        f"data={data}",
        f"backend={backend}",
        f"imgsz={case.imgsz}",
        f"count={keys['count']}",
    ]
    judged = cli(["quantize", *words, f"recipe={keys['recipe']}"])
    if judged not in (0, 3):
        raise SystemExit(f"quantize ended with {judged}")
    for name, part in (("Ultralytics INT8", "val"), (ON_TRAIN, "train")):
        theirs = _theirs(case, backend, data, part, work / f"ultralytics-{part}")
        if theirs is not None:
            nets[name] = theirs
    split = read_split(data, case.split)
    rows, meters = [], {}
    for name, path in nets.items():
        with _open(path, confidence=LOW_CONFIDENCE, multi_label=True) as detector:
            meters[name] = look(detector, split, f"{case.name} {backend} {name}").meter()
            rows.append(_row(case, backend, name, detector, meters[name], meters["float"]))
    for row, ms in zip(rows, _times(list(nets.values()), split, int(keys["timed"])), strict=True):
        row["p50 ms"] = ms
        row["speed"] = rows[0].get("p50 ms", ms) / ms
    rows[1]["verdict"] = "passed" if judged == 0 else "rejected"
    return rows


def _row(
    case: Case, backend: str, name: str, detector: Detector, meter: PrecisionMeter, parent: PrecisionMeter
) -> dict[str, Any]:
    found, before = meter.precision(), parent.precision()
    row: dict[str, Any] = {
        "case": case.name, "runtime": backend, "model": name, "runs in": detector.backend.precision,
        "images": meter.images, "AP": found.ap, "AP50": found.ap50,
    }  # fmt: skip
    if name != "float":
        low, high = drop_interval(parent, meter)
        row |= {"drop": before.ap - found.ap, "95 % from": low, "to": high}
    return row


def _times(nets: list[Path], split: Split, count: int) -> list[float]:
    """Median milliseconds of each, in turns."""
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(_open(path)) for path in nets]
        return [
            statistics.median(t) for t in time_in_turn(opened, [read_frame(p) for p in split.images[:FRAMES]], count)
        ]


def _open(path: Path, **options: Any) -> Detector:
    return open_detector(path, allow_rejected=True, cache=False, **options)


def _theirs(case: Case, backend: str, data: Path, part: str, folder: Path) -> Path | None:
    """Ultralytics' own INT8 export, calibrated on a part of the data, in a process of its own; None if it fails."""
    folder.mkdir()
    checkpoint = shutil.copy(case.weights, folder / "best.pt")
    options = {"format": backend, "quantize": 8, "data": str(data), "split": part, "imgsz": case.imgsz}
    if backend == "onnx":
        options["simplify"] = False  # it would install a package
    code = f"from ultralytics import YOLO; print(YOLO({str(checkpoint)!r}).export(**{options!r}))"
    environment = {**os.environ, "YOLO_AUTOINSTALL": "false"}
    made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    path = Path(made.stdout.strip().rpartition("\n")[2]) if made.returncode == 0 else folder
    if made.returncode or not path.exists() or path == folder:
        print(f"{case.name} {backend}: Ultralytics' INT8 export failed: {made.stderr.strip()[-300:]}", file=sys.stderr)
        return None
    return path


def _bars(case: Case, backend: str, rows: dict[str, dict[str, Any]]) -> list[Bar]:
    ours, theirs = rows["ours INT8"], rows.get("Ultralytics INT8")
    label = f"{case.name}, {backend}"
    found = [bar(f"{label}: AP lost by INT8", ours["drop"], MAX_DROP[backend], "<=")]
    if backend in MIN_SPEED:
        found.append(bar(f"{label}: speed against float", ours["speed"], MIN_SPEED[backend], ">="))
    if theirs is not None:
        found.append(bar(f"{label}: AP above Ultralytics' INT8", ours["AP"] - theirs["AP"], 0.0, ">="))
    return found


if __name__ == "__main__":
    raise SystemExit(main())
