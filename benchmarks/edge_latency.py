"""From a camera's frame to final boxes on a CPU: Ultralytics' predict, ours, and the bare inference as the limit.

    python -m benchmarks.edge_latency weights=best.pt int8=best_int8_openvino_model data=hituav/data.yaml video=drone.mp4

`int8=` is the folder left by `yolo-kd quantize model=best.pt data=hituav/data.yaml backend=openvino`, `int8_camera=` the one
left by the same with `imgsz=384,640 calibration=best_calibration.json out=cam`. Float nets are exported here, square and at the camera's shape; Ultralytics' INT8 is its own export on the same data. All
arms live in one process and take turns frame by frame in random order, so that they share whatever the machine does
meanwhile and none finds its weights in the cache more often than another. `bare` is the inference alone of the same
compiled net: no runtime around it can be faster, so bare over Ultralytics is the floor of ours over Ultralytics. What
OpenVINO runs by default is bf16 where the CPU has it; the column `runs in` says what really ran.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from yolo_kd.deploy import Detector, open_detector
from yolo_kd.deploy.letterbox import Letterbox

from benchmarks.inputs import origin, private_copy
from benchmarks.machine import machine, quiet
from benchmarks.result import bar, command_line, write
from yolo_kd.cli import parse

DEFAULTS: dict[str, Any] = {
    "weights": None,
    "int8": None,
    "int8_camera": None,
    "data": None,
    "video": None,
    "frame": "1080,1920",
    "imgsz": 640,
    "camera": "384,640",
    "frames": 300,
    "threads": None,
}
WARM_UP = 20
ROUNDS = 3


def main() -> int:
    """Measure, print, write."""
    keys: dict[str, Any] = {**DEFAULTS, **parse(sys.argv[1:])}
    missing = [key for key in ("weights", "int8", "data", "video") if not keys[key]]
    if missing:
        print(f"edge_latency: {', '.join(missing)} missing; see the head of this file", file=sys.stderr)
        return 2
    notes = [*quiet(), *(origin(key, Path(str(keys[key]))) for key in ("weights", "int8", "int8_camera") if keys[key])]
    with tempfile.TemporaryDirectory() as temporary:
        frames = list(_frames(Path(str(keys["video"])), _pair(keys["frame"]), 32))
        arms = _arms(keys, Path(temporary))
        times: dict[str, list[float]] = {name: [] for name in arms}
        order = np.random.default_rng(0)  # an arm after another one of the same net would find its weights in the cache
        for index in range(int(keys["frames"]) + WARM_UP):
            frame = frames[index % len(frames)]
            for name in order.permutation(list(arms)):
                run, _ = arms[name]
                start = time.perf_counter()
                run(frame)
                if index >= WARM_UP:
                    times[name].append(1000 * (time.perf_counter() - start))
        rows = [_row(name, found, arms[name][1]) for name, found in times.items()]
        speeds = _throughput(keys, Path(temporary), frames * 4)
    by_name = {row["arm"]: row for row in rows}
    for name, rate in speeds.items():
        rows.append({"arm": f"{name}, list of frames", "frames/s": rate})
    write("edge_latency", command_line(), rows, _bars(by_name, speeds), notes=[*notes, *_floors(by_name)])
    return 0


def _arms(keys: dict[str, Any], folder: Path) -> dict[str, tuple[Callable[[np.ndarray], Any], str]]:
    """Every way from frame to boxes, with the precision that runs."""
    from ultralytics import YOLO

    size, camera = int(keys["imgsz"]), _pair(keys["camera"])
    square = _export(keys, folder / "square", size)
    wide = _export(keys, folder / "wide", list(camera))
    theirs8 = _export(
        keys, folder / "int8", size, int8=True, data=str(private_copy(Path(str(keys["data"])), folder / "data"))
    )
    arms: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {}
    for name, path in (("float", square), ("INT8", theirs8)):
        model = YOLO(path, task="detect")
        arms[f"Ultralytics {name} {size}x{size}"] = (_predict(model, size), "OpenVINO's default")
    opened = {
        f"ours float32 {size}x{size}": open_detector(square, precision="f32", threads=keys["threads"]),
        f"ours float {size}x{size}": open_detector(square, threads=keys["threads"]),
        f"ours INT8 {size}x{size}": open_detector(str(keys["int8"]), threads=keys["threads"]),
        f"ours float {camera[0]}x{camera[1]}": open_detector(wide, threads=keys["threads"]),
    }
    if keys["int8_camera"]:
        opened[f"ours INT8 {camera[0]}x{camera[1]}"] = open_detector(str(keys["int8_camera"]), threads=keys["threads"])
    for name, detector in opened.items():
        arms[name] = (detector, detector.backend.precision)
        arms[f"bare {name.removeprefix('ours ')}"] = (_bare(detector), detector.backend.precision)
        arms[f"letterbox alone {name.rpartition(' ')[2]}"] = (Letterbox(detector.artifact.input_hw), "")
    return arms


def _export(keys: dict[str, Any], folder: Path, imgsz: Any, **options: Any) -> Path:
    """Ultralytics' OpenVINO export of a copy of the weights: it writes beside them."""
    from ultralytics import YOLO

    folder.mkdir(parents=True)
    copied = shutil.copy(str(keys["weights"]), folder / "best.pt")
    return Path(YOLO(copied).export(format="openvino", imgsz=imgsz, verbose=False, **options))


def _predict(model: Any, size: int) -> Callable[[Any], Any]:
    return lambda frames: model.predict(frames, imgsz=size, verbose=False)


def _bare(detector: Detector) -> Callable[[np.ndarray], Any]:
    """The inference alone, on pixels that lie ready."""
    canvas = np.random.default_rng(0).integers(0, 256, (1, *detector.artifact.input_hw, 3), np.uint8)
    detector.backend.run(canvas)
    request = detector.backend._requests[0]  # type: ignore[attr-defined]
    return lambda frame: request.infer(share_inputs=True, share_outputs=True)


def _throughput(keys: dict[str, Any], folder: Path, frames: list[np.ndarray]) -> dict[str, float]:
    """Frames per second over a list, median of rounds in turn: Ultralytics' predict one call, ours in throughput mode."""
    from ultralytics import YOLO

    size, square = int(keys["imgsz"]), folder / "square" / "best_openvino_model"
    model = YOLO(square, task="detect")
    spent: dict[str, list[float]] = {"Ultralytics float": [], "ours float": [], "ours INT8": []}
    with (
        open_detector(square, mode="throughput", threads=keys["threads"]) as plain,
        open_detector(str(keys["int8"]), mode="throughput", threads=keys["threads"]) as int8,
    ):
        for taken in (frames[:8], *[frames] * ROUNDS):
            for name, run in zip(spent, (_predict(model, size), _all_of(plain), _all_of(int8)), strict=True):
                start = time.perf_counter()
                run(taken)
                spent[name].append((time.perf_counter() - start) / len(taken))
    return {name: 1 / statistics.median(times[1:]) for name, times in spent.items()}


def _all_of(detector: Detector) -> Callable[[Any], Any]:
    return lambda frames: list(detector.many(frames))


def _row(name: str, times: list[float], precision: str) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    return {"arm": name, "runs in": precision, "p50 ms": p50, "p95 ms": p95, "p99 ms": p99}


def _bars(rows: dict[str, dict[str, Any]], speeds: dict[str, float]) -> list[Any]:
    def p50(start: str) -> float:
        return next(row["p50 ms"] for name, row in rows.items() if name.startswith(start))

    ours = {name: row for name, row in rows.items() if name.startswith("ours")}
    square = next(name.rpartition(" ")[2] for name in ours)
    camera = [name.rpartition(" ")[2] for name in ours if not name.endswith(square)][-1]
    kinds = [kind for kind in ("float", "INT8") if f"ours {kind} {camera}" in ours]
    bare = max(row["p50 ms"] / rows[f"bare {name.removeprefix('ours ')}"]["p50 ms"] for name, row in ours.items())
    tail = max(row["p99 ms"] / row["p50 ms"] for row in ours.values())
    amx = "amx_bf16" in str(machine()["isa"])
    return [
        bar("frame to boxes over the bare inference, worst arm", bare, 1.10, "<="),
        bar(
            "ours over Ultralytics, float, same shape",
            p50(f"ours float {square}") / p50("Ultralytics float"),
            0.75,
            "<=",
        ),
        bar(
            "ours over Ultralytics, INT8, same shape", p50(f"ours INT8 {square}") / p50("Ultralytics INT8"), 0.75, "<="
        ),
        *(
            bar(
                f"ours at the camera's shape over Ultralytics, {kind}",
                p50(f"ours {kind} {camera}") / p50(f"Ultralytics {kind}"),
                0.5,
                "<=",
            )
            for kind in kinds
        ),
        bar("p99 over p50, worst of ours", tail, 1.5, "<="),
        bar(
            "INT8's speed over OpenVINO's default",
            p50(f"bare float {square}") / p50(f"bare INT8 {square}"),
            1.0 if amx else 1.4,
            ">=",
        ),
        bar("INT8's speed over float32", p50(f"bare float32 {square}") / p50(f"bare INT8 {square}"), 2.0, ">="),
        bar("frames/s over Ultralytics, float", speeds["ours float"] / speeds["Ultralytics float"], 1.5, ">="),
    ]


def _floors(rows: dict[str, dict[str, Any]]) -> list[str]:
    """What the ratios to Ultralytics would be if everything around the inference were free."""
    lines = []
    for kind in ("float", "INT8"):
        theirs = next((row["p50 ms"] for name, row in rows.items() if name.startswith(f"Ultralytics {kind}")), None)
        for name, row in rows.items():
            if theirs and name.startswith(f"bare {kind} "):
                shape = name.rpartition(" ")[2]
                lines.append(
                    f"floor of ours over Ultralytics, {kind}, {shape}: {row['p50 ms'] / theirs:.3f}; the bare inference alone "
                    "takes this share of Ultralytics' time, so no runtime around it can get below it"
                )
    tail = max(row["p99 ms"] / row["p50 ms"] for name, row in rows.items() if name.startswith("bare"))
    return [
        *lines,
        f"p99 over p50 of the bare inference, worst: {tail:.3f}; what is above 1 there is the machine's doing",
    ]


def _frames(video: Path, size_hw: tuple[int, int], count: int) -> Iterator[np.ndarray]:
    """The first frames of a video, resized to the camera that is stood for."""
    import cv2

    capture = cv2.VideoCapture(str(video))
    for _ in range(count):
        there, frame = capture.read()
        if not there:
            break
        yield cv2.resize(frame, size_hw[::-1])
    capture.release()


def _pair(value: Any) -> tuple[int, int]:
    height, width = (int(v) for v in (value.split(",") if isinstance(value, str) else value))
    return height, width


if __name__ == "__main__":
    sys.exit(main())
