"""Training on the integer grid against rounding afterwards: one student, the same extra epochs, the same calibration.

    python -m benchmarks.qat data=hituav/data_scene_800.yaml student=best.pt teacher=teacher.pt out=runs/qat

Four checkpoints: the student as it is; fine-tuned in float under its teacher, the control, because more training alone makes
most students better; with qat=true alone; and with qat=true under the teacher. Each is quantized by `yolo-kd quantize` with
one calibration list, and measured in float and in INT8 on both back ends. Checkpoints are chosen on val, by what each arm
validates: float, or the integer grid. Intervals are 95 % bootstrap intervals over images, both nets on the same resamples;
they say nothing about another seed. Every step is a process of its own under `out`; finished ones are kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from yolo_kd.data.split import Split, read_split

from benchmarks.machine import quiet
from benchmarks.result import Bar, bar, command_line, write
from yolo_kd.cli import parse
from yolo_kd.evidence.average_precision import PrecisionMeter, drop_interval
from yolo_kd.evidence.evaluation import look
from yolo_kd.modes.evaluate import open_any

DEFAULTS: dict[str, Any] = {
    "data": None,
    "student": None,
    "teacher": None,
    "out": "runs/qat",
    "distill": "csgr_lqe",
    "epochs": 4,
    "imgsz": 320,
    "batch": 16,
    "lr0": 0.00005,
    "count": 150,
    "seed": 0,
    "splits": "val,test",
}
BASE, CONTROL, ALONE, TAUGHT = "post-training", "float under the teacher", "qat", "qat under the teacher"
NETS = {"float": "{}.pt", "openvino int8": "{}_int8_openvino_model", "onnx int8": "{}_int8_onnx_model"}


def main() -> int:
    """Train and quantize what is missing, then measure."""
    keys: dict[str, Any] = {**DEFAULTS, **parse(sys.argv[1:])}
    missing = [key for key in ("data", "student", "teacher") if not keys[key]]
    if missing:
        print(f"qat: {', '.join(missing)} missing; see the head of this file", file=sys.stderr)
        return 2
    notes = quiet()
    out = Path(str(keys["out"])).resolve()
    out.mkdir(parents=True, exist_ok=True)
    source = Path(str(keys["data"])).resolve()
    data = out / "data" / source.name
    if not data.exists():  # Ultralytics writes caches next to labels
        shutil.copytree(source.parent, data.parent, ignore=shutil.ignore_patterns("*.cache"))
    found = {
        name: _quantized(checkpoint, data, keys, out) for name, checkpoint in _checkpoints(keys, data, out).items()
    }
    splits = [read_split(str(data), name) for name in str(keys["splits"]).split(",")]
    seen = {
        (s.name, arm, net): _seen(path, s, keys)
        for s in splits
        for arm, nets in found.items()
        for net, path in nets.items()
    }
    rows = [_row(arm, net, [s.name for s in splits], seen) for arm in found for net in NETS]
    first = splits[0].name
    notes.append(f"{keys['epochs']} epochs from one student, one seed; {len(splits[0].images)} images of {first}")
    write("qat", command_line(), rows, _bars(first, seen), notes=notes)
    return 0


def _checkpoints(keys: dict[str, Any], data: Path, out: Path) -> dict[str, Path]:
    """The checkpoint of each arm."""
    base = out / "base" / "base.pt"
    if not base.exists():
        base.parent.mkdir(exist_ok=True)
        shutil.copy(str(keys["student"]), base)
    taught = [f"distill={keys['distill']}", f"teacher={Path(str(keys['teacher'])).resolve()}"]
    arms = {
        CONTROL: ["qat=false", *taught],
        ALONE: ["qat=true", "distill=none"],
        TAUGHT: ["qat=true", *taught],
    }
    found = {BASE: base}
    for name, words in arms.items():
        run = out / name.replace(" ", "_")
        common = [
            f"student={base}", f"data={data}", f"epochs={keys['epochs']}", f"imgsz={keys['imgsz']}", f"batch={keys['batch']}",
            f"nbs={keys['batch']}", "optimizer=AdamW", f"lr0={keys['lr0']}", "warmup_epochs=0.5", "warmup_bias_lr=0",
            "close_mosaic=0", f"seed={keys['seed']}", "cache=ram", "plots=False", f"project={out}", f"name={run.name}",
            "exist_ok=True",
        ]  # fmt: skip
        _once(run, ["train", *words, *common])
        found[name] = run / "weights" / "best.pt"
    return found


def _quantized(checkpoint: Path, data: Path, keys: dict[str, Any], out: Path) -> dict[str, Path]:
    """A checkpoint and its INT8 artifacts, by net."""
    calibration = out / "calibration.json"
    _once(calibration, ["calibrate", f"source={data}", f"count={keys['count']}", f"out={calibration}"])
    folder = checkpoint.parent
    words = [
        f"model={checkpoint}",
        f"calibration={calibration}",
        f"imgsz={keys['imgsz']}",
        "backend=all",
        "overwrite=true",
        "gate=false",  # which would put layers back into float in some arms and not in others
    ]
    _once(folder / f"{checkpoint.stem}_int8", ["quantize", *words])
    return {net: folder / name.format(checkpoint.stem) for net, name in NETS.items()}


def _once(target: Path, words: list[str]) -> None:
    """Run a command of yolo-kd unless it was finished before."""
    done = target.with_name(f"{target.name}.done")
    if done.exists():
        if done.read_text() != " ".join(words):
            raise SystemExit(f"{target} was made by another command; choose another out=, or delete it")
        return
    print(f"qat: {target.parent.name}/{target.name}", flush=True)
    log = target.with_name(f"{target.name}.log")
    environment = {**os.environ, "YOLO_KD_HOME": str(target.parent / "home")}
    with log.open("w") as file:
        ended = subprocess.run([sys.executable, "-m", "yolo_kd.cli", *words], stdout=file, stderr=file, env=environment)
    if ended.returncode:
        raise SystemExit(f"yolo-kd {words[0]} failed with exit code {ended.returncode}; see {log}")
    done.write_text(" ".join(words))


def _seen(path: Path, split: Split, keys: dict[str, Any]) -> PrecisionMeter:
    with open_any(str(path), {"imgsz": keys["imgsz"], "device": "cpu", "trust": False}) as detector:
        return look(detector, split, f"{path.parent.name}/{path.name}").meter()


def _row(arm: str, net: str, splits: list[str], seen: dict[tuple[str, str, str], PrecisionMeter]) -> dict[str, Any]:
    row: dict[str, Any] = {"arm": arm, "net": net}
    for split in splits:
        own = seen[split, arm, net]
        row[f"{split} AP"] = own.precision().ap
        if net != "float":
            row[f"{split} minus its float"] = _difference(own, seen[split, arm, "float"])
        if arm != CONTROL:
            row[f"{split} minus control"] = _difference(own, seen[split, CONTROL, net])
    return row


def _bars(split: str, seen: dict[tuple[str, str, str], PrecisionMeter]) -> list[Bar]:
    """INT8 of what was trained on the grid under the teacher, against that of the student and of the control."""
    found = []
    for net in list(NETS)[1:]:
        for other in (BASE, CONTROL):
            low, _ = drop_interval(seen[split, TAUGHT, net], seen[split, other, net])
            found.append(
                bar(f"{net}, {split}: AP of '{TAUGHT}' minus '{other}', lower end of the interval", low, 0.0, ">=")
            )
    return found


def _difference(one: PrecisionMeter, other: PrecisionMeter) -> str:
    """AP of one minus that of the other, with the interval."""
    low, high = drop_interval(one, other)
    return f"{one.precision().ap - other.precision().ap:+.4f} [{low:+.4f}, {high:+.4f}]"


if __name__ == "__main__":
    sys.exit(main())
