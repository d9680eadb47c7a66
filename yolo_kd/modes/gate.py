"""`yolo-kd gate`: whether an artifact has earned its place on this device; the verdict goes into its artifact.json."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from typing import Any

from yolo_kd.data.split import read_split
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import MANIFEST, Artifact, read_artifact, write_manifest
from yolo_kd.deploy.quantize.gate import Limits, Measured, decide
from yolo_kd.deploy.runtime import Detector, open_detector
from yolo_kd.errors import GateError, MisuseError, YoloKDError, did_you_mean
from yolo_kd.evidence.evaluation import LOW_CONFIDENCE
from yolo_kd.evidence.judge import broken, measure
from yolo_kd.evidence.table import number

REJECTED = 3
LIMITS = {f.name: f.default for f in fields(Limits)}
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
    for key, value in settings.items():
        if key not in DEFAULTS:
            raise MisuseError(f"{key}={value}: unknown key{did_you_mean(key, DEFAULTS)}; see yolo-kd gate --help")
    keys = {**DEFAULTS, **settings}
    for key in ("artifact", "parent", "data"):
        if not keys[key]:
            raise MisuseError(
                f"{key}= is missing: yolo-kd gate artifact=<folder> parent=<float folder> data=<data.yaml>"
            )
    limits = Limits(**{key: _number(key, keys[key]) for key in LIMITS})
    artifact = read_artifact(str(keys["artifact"]))
    if not (artifact.folder / MANIFEST).is_file():
        raise MisuseError(
            f"artifact={keys['artifact']}: no {MANIFEST} beside it to write a verdict into; make the artifact with "
            "yolo-kd export or yolo-kd quantize"
        )
    split = read_split(str(keys["data"]), str(keys["split"]))
    float_parent = read_artifact(str(keys["parent"]))
    _require_parent(artifact, float_parent)
    with _open(float_parent, keys) as parent:
        ran = {"parent": parent.backend.precision}
        try:
            with _open(artifact, keys) as candidate:
                ran["artifact"] = candidate.backend.precision
                seen = measure(candidate, parent, split, label=artifact.folder.name)
        except (MisuseError, GateError):
            raise
        except YoloKDError as error:  # it does not even open: that is a verdict, not an accident
            seen = broken(len(split.images), 0, str(error))
    judged = record(artifact, seen, limits, str(keys["device"]), ran)
    print(text(judged, seen, ran))
    assert judged.verdict is not None
    return 0 if judged.verdict.passed else REJECTED


def record(artifact: Artifact, seen: Measured, limits: Limits, device: str, ran: dict[str, str]) -> Artifact:
    """The artifact with the gate's verdict, written into its manifest beside the numbers it rests on."""
    metrics = {k: v for k, v in asdict(seen).items() if k not in {"by_part", "labelled"}}
    metrics["by_part"] = {k: list(v) for k, v in seen.by_part.items()}
    artifact.check_files()  # what is written below speaks of the files that were measured
    facts = {
        **artifact.facts,
        "metrics": metrics,
        "limits": asdict(limits),
        "device": {"name": device, "cpu": machine.model_name(), "isa": machine.describe(), "runs in": ran},
    }
    return write_manifest(replace(artifact, verdict=decide(seen, limits), facts=facts))


def text(artifact: Artifact, seen: Measured, ran: dict[str, str]) -> str:
    """The verdict and the numbers behind it, for a terminal."""
    verdict = artifact.verdict
    assert verdict is not None
    lines = [f"{artifact.folder.name}: {'PASSED' if verdict.passed else 'REJECTED'}"]
    lines += [f"  because {reason}" for reason in verdict.reasons]
    lines += [f"  note: {remark}" for remark in verdict.remarks]
    lines.append(
        f"  {seen.images} images; {seen.boxes} boxes, the float parent {seen.parent_boxes}; F1 {seen.f1:.3f}, IoU {seen.iou:.3f}"
    )
    if seen.ap is not None:
        low, high = seen.drop_interval or (0.0, 0.0)
        drop = seen.ap[1] - seen.ap[0]
        lines.append(
            f"  AP {seen.ap[0]:.4f}, parent {seen.ap[1]:.4f}: drop {drop:.4f} (95 % of resamples {low:.4f} to {high:.4f})"
        )
    if seen.ms and seen.parent_ms:
        lines.append(
            f"  {number(seen.ms)} ms per image in {ran.get('artifact')}, parent {number(seen.parent_ms)} ms in {ran['parent']} "
            f"on {machine.model_name()} ({machine.describe()}): {seen.parent_ms / seen.ms:.2f} x the speed"
        )
    return "\n".join(lines)


def help_text() -> str:
    """The keys."""
    limits = "\n".join(f"  {key}={value}" for key, value in LIMITS.items())
    return f"""usage: yolo-kd gate artifact=<folder> parent=<float folder> data=<data.yaml> [key=value ...]

Measures the artifact beside its float parent on this device, writes the verdict into artifact.json, exits 3 if rejected.

  artifact=   folder with the model that is to be judged
  parent=     the float model that it was made from: a folder or an .onnx file, no checkpoint, so that no torch is needed
  data=       data set YAML with held-out images
  split=val   part of it
  device=CPU  CPU, GPU, NPU, AUTO
  threads=    of the CPU; the runtime chooses unless given

limits (AP absolute, max_slowdown as a multiple of the parent's time):
{limits}"""


def _require_parent(artifact: Artifact, parent: Artifact) -> None:
    """Refuse what cannot be the float net that the artifact was made from.

    Raises:
        MisuseError: It is INT8, of another runtime, size or classes, or made from other weights.
    """
    where = f"parent={parent.folder.name}"
    if parent.precision == "int8":
        raise MisuseError(f"{where}: is INT8 itself; expected the float model that the artifact was made from")
    for what, own, other in (
        ("format", artifact.format, parent.format),
        ("input size", artifact.input_hw, parent.input_hw),
        ("class names", dict(artifact.names), dict(parent.names)),
        ("weights", *((a.facts.get("parent") or {}).get("sha256") for a in (artifact, parent))),
    ):
        if own != other and own is not None and other is not None:
            raise MisuseError(f"{where}: {what} {_short(other)}, the artifact's {_short(own)}; it is not its parent")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _open(artifact: Artifact, keys: dict[str, Any]) -> Detector:
    return open_detector(
        artifact,
        device=str(keys["device"]),
        threads=keys["threads"],
        confidence=LOW_CONFIDENCE,
        multi_label=True,
        allow_rejected=True,  # to be judged again
    )


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise MisuseError(f"{key}={value}: expected a number of 0 or more, e.g. {key}={LIMITS[key]}")
    return float(value)
