"""`yolo-kd doctor`: what this machine can run, and how an artifact fares on each of its devices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.cfg.atomic import refuse_taken, write_text
from yolo_kd.data.split import read_split
from yolo_kd.deploy import doctor
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.evidence.evaluation import read_frame
from yolo_kd.evidence.table import aligned
from yolo_kd.modes.keys import settled

DEFAULTS: dict[str, Any] = {"model": None, "device": None, "data": None, "split": "val", "out": None, "debug": False}
PICTURES = 8


def main(settings: dict[str, Any]) -> int:
    """List, examine; 1 if the device that was asked for is not there, or one does not run the model or disagrees."""
    keys = settled(settings, DEFAULTS, "doctor")
    if keys["out"]:
        refuse_taken(Path(str(keys["out"])), '"accelerators"')
    found = doctor.inventory()
    print(_inventory_text(found))
    wanted = str(keys["device"]) if keys["device"] else None
    failed, examined, shapes = False, [], None
    if keys["model"]:
        artifact = read_artifact(str(keys["model"]))
        artifact.check_files()  # before any parser sees them
        shapes = doctor.shapes(artifact)  # what cannot be read, or not here, is no device's fault
        frames = _frames(keys, artifact.input_hw)
        examined = [doctor.examine(artifact, d, frames) for d in doctor.devices(found, artifact.format, wanted)]
        print(f"\n{aligned([_row(e) for e in examined])}\n\nshapes: {shapes}")
        for one in examined:
            if not one.runs:
                failed = True
                print(f"{one.device} does not run it: {one.reason}")
            elif one.disagrees:
                failed = True
                print(f"{one.device} disagrees with the CPU in float32: {one.disagrees}")
        if artifact.format == "openvino":
            faults = doctor.npu_faults(artifact)
            print(
                "\n".join(
                    [f"for an NPU: {'in the way:' if faults else 'nothing in the way'}", *(f"  {f}" for f in faults)]
                )
            )
    elif wanted:
        doctor.devices(found, None, wanted)
    if keys["out"]:
        plain = {**found, "examined": [doctor.plain(e) for e in examined], "shapes": shapes}
        write_text(Path(str(keys["out"])), json.dumps(plain, indent=2) + "\n")
    return 1 if failed else 0


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd doctor [key=value ...]

  model=     artifact folder or .onnx file: compiled, run, timed and compared with the CPU in float32 on every device; exits 1 if one
             does not run it, its raw boxes are more than {doctor.MAX_BOX_ERROR:g} or its raw scores {doctor.MAX_SCORE_ERROR:g} off (a norm,
             relative to the CPU's), or F1 of {doctor.FEW_BOXES} boxes or more is below {doctor.MIN_F1:g}
  device=    CPU, GPU, NPU: only this one; exits 1 if it is not there
  data=      data set YAML whose pictures are used; noise without it, on which few nets see anything, so that only the raw
             output is compared
  split=val  part of it
  out=       JSON file"""


def _frames(keys: dict[str, Any], net_hw: tuple[int, int]) -> list[np.ndarray]:
    if keys["data"]:
        return [read_frame(p) for p in read_split(str(keys["data"]), str(keys["split"])).images[:PICTURES]]
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (*net_hw, 3), np.uint8) for _ in range(2)]


def _inventory_text(found: dict[str, Any]) -> str:
    processor = found["processor"]
    lines = [
        found["system"],
        f"{processor['name']}, {processor['cores']} cores, {' '.join(processor['isa']) or 'no bf16 or INT8 instructions'}",
        ", ".join(f"{name} {version or 'not installed'}" for name, version in found["packages"].items()),
    ]
    for device, facts in found["openvino"].items():
        told = ", ".join(f"{k.lower()} {' '.join(v) if isinstance(v, list) else v}" for k, v in facts.items())
        lines.append(f"OpenVINO {device}: {told}")
    lines.append(f"ONNX Runtime: {', '.join(found['onnxruntime']) or 'not installed'}")
    if not any(d.startswith("NPU") for d in found["openvino"]):
        lines.append(
            "no NPU that OpenVINO can use"
            + (f", though the kernel shows {', '.join(found['accelerators'])}" if found["accelerators"] else "")
        )
    return "\n".join(lines)


def _row(one: doctor.Examined) -> dict[str, Any]:
    falls_off = one.falls_off
    left = None if falls_off is None else ", ".join(f"{n} {kind}" for kind, n in falls_off.items()) or "nothing"
    return {
        "device": one.device,
        "runs": one.runs,
        "in": one.precision or None,
        "falls off": left or "not checked",
        "ms": one.ms,
        "F1 with float32": one.f1,
        "IoU": one.iou,
        "raw boxes off": one.box_error,
        "raw scores off": one.score_error,
    }
