"""How much of a device an artifact takes: files, start, memory, in a process without torch.

    python -m benchmarks.footprint artifacts=best_int8_openvino_model,best_int8_onnx_model video=drone.mp4

The artifacts are the folders left by `yolo-kd quantize model=best.pt data=coco128/data.yaml`. Every start is a fresh Python process that opens the artifact, looks at one frame, then at `frames` more. The first start
compiles the net, the others find it in the cache; `warm start` is their median, from the call of `open_detector` to the first
boxes, and `with imports` counts from the start of the process. Memory is the largest resident size of the process.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.inputs import origin
from benchmarks.machine import quiet
from benchmarks.result import Bar, bar, command_line, write
from yolo_kd.cli import parse

DEFAULTS: dict[str, Any] = {"artifacts": None, "video": None, "starts": 7, "frames": 100}
MAX_MB, MAX_START_S = 250.0, 1.0

PROBE = """
import json, resource, sys, time
begin = time.perf_counter()
import cv2
from yolo_kd.deploy import open_detector
reader = cv2.VideoCapture(sys.argv[2])
frame = reader.read()[1]
start = time.perf_counter()
detector = open_detector(sys.argv[1])
detector(frame)
ready = time.perf_counter()
for _ in range(int(sys.argv[3])):
    ok, frame = reader.read()
    if not ok:
        reader.set(cv2.CAP_PROP_POS_FRAMES, 0)
        ok, frame = reader.read()
    detector(frame)
heavy = [name for name in ("torch", "ultralytics", "nncf") if name in sys.modules]
print(json.dumps({"start": ready - start, "whole": ready - begin, "heavy": heavy, "runs in": detector.backend.precision,
                  "MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def main() -> int:
    """Measure every artifact, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    if not keys["artifacts"] or not keys["video"]:
        print("footprint: expected artifacts=<folder>,<folder> and video=<file>", file=sys.stderr)
        return 2
    paths = [Path(text.strip()) for text in str(keys["artifacts"]).split(",")]
    notes = [*quiet(), *(origin("artifacts", path) for path in paths)]
    rows: list[dict[str, Any]] = []
    bars: list[Bar] = []
    for path in paths:
        row = _measure(path, keys)
        rows.append(row)
        bars += _bars(row)
    write("footprint", command_line(), rows, bars, notes=notes)
    return 0


def _measure(path: Path, keys: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="yolo-kd-") as home:
        found = [_start(path, keys, home) for _ in range(int(keys["starts"]) + 1)]
    cold, warm = found[0], found[1:]
    if cold["heavy"]:
        raise SystemExit(f"the runtime loaded {', '.join(cold['heavy'])}")
    return {
        "artifact": path.name,
        "runs in": cold["runs in"],
        "files MB": sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) / 1e6,
        "first start s": cold["start"],
        "warm start s": statistics.median(f["start"] for f in warm),
        "with imports s": statistics.median(f["whole"] for f in warm),
        "memory MB": max(f["MB"] for f in found),
    }


def _start(path: Path, keys: dict[str, Any], home: str) -> dict[str, Any]:
    command = [sys.executable, "-c", PROBE, str(path), str(keys["video"]), str(keys["frames"])]
    ran = subprocess.run(command, env={**os.environ, "YOLO_KD_HOME": home}, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{path}: {ran.stderr.strip()[-500:]}")
    return json.loads(ran.stdout.strip().rpartition("\n")[2])


def _bars(row: dict[str, Any]) -> list[Bar]:
    return [
        bar(f"{row['artifact']}: largest resident memory, MB", row["memory MB"], MAX_MB, "<="),
        bar(f"{row['artifact']}: warm start, s", row["warm start s"], MAX_START_S, "<="),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
