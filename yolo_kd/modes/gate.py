"""`yolo-kd gate`: whether an artifact has earned its place on this device; the verdict goes into its artifact.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from yolo_kd.data.split import read_split
from yolo_kd.deploy.artifact import MANIFEST, read_artifact
from yolo_kd.deploy.quantize.gate import Limits
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.verdict import find_parent, judge, text
from yolo_kd.modes.keys import settled

REJECTED = 3
LIMITS = {f.name: f.default for f in fields(Limits)}
MEANING = {
    "max_drop": "AP that may be lost against the parent, absolute",
    "max_class_drop": "the same for any class, and for small, medium and large boxes, with 20 labelled boxes or more",
    "min_f1": "of the boxes matched with the parent's at IoU .5",
    "max_score_error": "mean difference of the confidences of matched boxes",
    "min_iou": "mean IoU of matched boxes",
    "max_slowdown": "time per image, as a multiple of the parent's on this device",
}
DEFAULTS: dict[str, Any] = {
    "artifact": None,
    "parent": None,
    "data": None,
    "split": "val",
    "device": "CPU",
    "threads": None,
    "debug": False,
    **LIMITS,
}


def main(settings: dict[str, Any]) -> int:
    """Measure, decide, write the verdict; 0 if it passed, 3 if it was rejected."""
    keys = settled(settings, DEFAULTS, "gate")
    for key in ("artifact", "data"):
        if not keys[key]:
            raise MisuseError(f"{key}= is missing: yolo-kd gate artifact=<folder> data=<data.yaml>")
    limits = read_limits(keys)
    artifact = read_artifact(str(keys["artifact"]))
    if not (artifact.folder / MANIFEST).is_file():
        raise MisuseError(
            f"artifact={keys['artifact']}: no {MANIFEST} beside it to write a verdict into; make the artifact with "
            "yolo-kd export or yolo-kd quantize"
        )
    split = read_split(str(keys["data"]), str(keys["split"]))
    parent = read_artifact(str(keys["parent"])) if keys["parent"] else find_parent(artifact)
    verdict = judge(artifact, parent, split, limits, str(keys["device"]), keys["threads"])
    print(text(verdict))
    return 0 if verdict.passed else REJECTED


def help_text() -> str:
    """The keys."""
    limits = "\n".join(f"  {f'{key}={value}':<22}{MEANING[key]}" for key, value in LIMITS.items())
    return f"""usage: yolo-kd gate artifact=<folder> data=<data.yaml> [key=value ...]

Measures the artifact beside its float parent on this device, writes the verdict into artifact.json, exits 3 if rejected.
Layers with the largest error are named if the artifact's manifest has them, see yolo-kd quantize sensitivity=.

  artifact=   folder with the model that is to be judged, and its artifact.json
  parent=     the float model that it was made from: a folder or an .onnx file, no checkpoint, so that no torch is needed; if
              left out, looked for beside the artifact, by the hashes of all files of its net
  data=       data set YAML with held-out images; without labels AP is not compared
  split=val   part of it
  device=CPU  CPU, GPU, NPU, AUTO
  threads=    of the CPU; the runtime chooses unless given

limits:
{limits}"""


def read_limits(keys: Mapping[str, Any]) -> Limits:
    """The gate's limits among a mode's settled keys."""
    return Limits(**{key: float(keys[key]) for key in LIMITS})
