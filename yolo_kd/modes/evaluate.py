"""`yolo-kd evaluate`: COCO's average precision of a checkpoint or an artifact, and where in the field it fails."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import refuse_taken, write_text
from yolo_kd.cfg.values import read_size
from yolo_kd.data.corruptions import corruptions
from yolo_kd.data.split import read_split
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.deploy.runtime import Detector, open_detector
from yolo_kd.errors import MisuseError, did_you_mean
from yolo_kd.evidence.average_precision import require_pycocotools
from yolo_kd.evidence.evaluate import report
from yolo_kd.evidence.evaluation import LOW_CONFIDENCE, unmatched
from yolo_kd.evidence.reference_map import explained, reference_map
from yolo_kd.evidence.table import aligned
from yolo_kd.modes.keys import settled

IMGSZ = 640
DEFAULTS: dict[str, Any] = {
    "model": None,
    "data": None,
    "split": "val",
    "beside": None,
    "imgsz": None,  # of a checkpoint that stands alone IMGSZ; beside an artifact, the artifact's
    "corruptions": False,
    "ultralytics": True,
    "device": "cpu",
    "out": None,
    "trust": False,
    "debug": False,
}


def main(settings: dict[str, Any]) -> int:
    """Measure, print, and with `out=` write; returns the exit code."""
    keys = settled(settings, DEFAULTS, "evaluate", free=("imgsz", "corruptions"))
    for key in ("model", "data"):
        if not keys[key]:
            raise MisuseError(f"{key}= is missing: yolo-kd evaluate model=<.pt, .onnx or folder> data=<data.yaml>")
    if keys["out"]:
        refuse_taken(Path(str(keys["out"])), '"precision_run"')  # before minutes of measuring
    asked = None if keys["imgsz"] is None else read_size("imgsz", keys["imgsz"])
    split, spoil = read_split(str(keys["data"]), str(keys["split"])), _corruptions(keys["corruptions"])
    sources = [str(keys["model"]), *([str(keys["beside"])] if keys["beside"] else [])]
    for source in sources:
        _check_device(source, str(keys["device"]))
    keys["imgsz"] = size = _shape(sources, asked)
    beside_theirs = _check_packages(sources, spoil, keys["ultralytics"])
    found: dict[str, Any] = {}
    lines: list[str] = []
    with ExitStack() as opened:  # all of them, before minutes of measuring
        detectors = {source: opened.enter_context(open_any(source, keys)) for source in sources}
        for source, detector in detectors.items():
            name = Path(source).name if len({Path(s).name for s in sources}) == len(sources) else source
            seen = report(detector, split, spoil, Path(source).name)
            seen["precision_run"] = detector.backend.precision
            seen["unmatched"] = unmatched(detector.artifact.names, split)
            shape = "x".join(map(str, detector.artifact.input_hw))
            if seen["unmatched"]:
                lines.append(f"{name}: {seen['unmatched']}; classes are matched by name")
            if beside_theirs:
                ours = seen["precision"]["AP"]
                seen["ultralytics"] = reference_map(
                    source, split, ours, size, str(keys["device"]).lower(), bool(keys["trust"])
                )
                lines += explained(seen["ultralytics"], ours, name, shape)
            found[source] = {"name": name, **seen}
    print("\n\n".join([_text(list(found.values()), str(keys["split"])), *lines]))
    if keys["out"]:
        plain = {"data": str(keys["data"]), "split": keys["split"], "models": found}
        write_text(Path(str(keys["out"])), json.dumps(plain, indent=2) + "\n")
    return 0


def open_any(source: str, keys: dict[str, Any]) -> Detector:
    """A checkpoint or an artifact as a Detector that reports every class of a cell down to a confidence of .001."""
    options: dict[str, Any] = {"confidence": LOW_CONFIDENCE, "multi_label": True}
    if source.endswith(".pt"):
        from yolo_kd.engine.torch_backend import open_checkpoint

        return open_checkpoint(source, keys["imgsz"], str(keys["device"]).lower(), bool(keys["trust"]), **options)
    return open_detector(source, device=str(keys["device"]).upper(), allow_rejected=True, **options)


def _shape(sources: list[str], asked: tuple[int, int] | None) -> int | tuple[int, int]:
    """The input size of checkpoints: what was asked for, else that of the artifact beside them, else IMGSZ."""
    own = {source: read_artifact(source).input_hw for source in sources if not source.endswith(".pt")}
    for source, size in own.items():
        if asked not in (None, size):
            raise MisuseError(
                f"imgsz={','.join(map(str, dict.fromkeys(asked or ())))}: {Path(source).name} takes {size[0]}x{size[1]}; leave "
                "imgsz= out, or export its checkpoint anew"
            )
    height, width = asked or next(iter(own.values()), (IMGSZ, IMGSZ))
    return height if height == width else (height, width)


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd evaluate model=<.pt, .onnx or folder> data=<data.yaml> [key=value ...]

  model=        checkpoint, artifact folder, or .onnx file
  data=         data set YAML; labels are read, nothing is written
  split=val     part of the data set
  beside=       a second model, shown next to the first (the float parent of an artifact)
  imgsz={IMGSZ}     input size of a checkpoint: a side, or height,width; that of the artifact beside it, which has its own
  corruptions=  true, or some of {", ".join(corruptions())}: AP under each at three strengths
  ultralytics=  false leaves Ultralytics' own mAP out; it is measured on links to the pictures
  device=cpu    cpu, cuda:0 for a checkpoint; CPU, GPU, NPU for an artifact; of two models, one that both can run on
  out=          JSON file to write"""


def _corruptions(value: Any) -> list[str]:
    if value in (None, False):
        return []
    if value is True:
        return list(corruptions())
    names = [str(v) for v in value] if isinstance(value, list | tuple) else str(value).split(",")
    for name in names:
        if name not in corruptions():
            known = ", ".join(corruptions())
            raise MisuseError(
                f"corruptions={name}: no such corruption{did_you_mean(name, corruptions())}; use true or {known}"
            )
    return names


def _check_device(source: str, device: str) -> None:
    """Refuse a device of the other kind of model before anything is measured: one device= is meant for all models."""
    of_torch = re.fullmatch(r"cuda(:\d+)?|mps|xpu(:\d+)?", device, re.IGNORECASE) is not None
    checkpoint = source.endswith(".pt")
    if device.lower() == "cpu" or of_torch is checkpoint:
        return
    if not checkpoint and device.lower() == "cuda" and read_artifact(source).format == "onnx":
        return  # ONNX Runtime's name of its provider, too
    own = "a checkpoint, which runs on cpu or cuda:0" if checkpoint else "an artifact, which runs on CPU, GPU or NPU"
    raise MisuseError(
        f"device={device}: {Path(source).name} is {own}; choose cpu, or evaluate models of two kinds one at a time"
    )


def _check_packages(sources: list[str], spoil: list[str], wanted: bool) -> bool:
    """Refuse what would fail after minutes of measuring; whether Ultralytics' own mAP can be measured too."""
    require_pycocotools()
    if spoil and find_spec("albumentations") is None:
        raise MisuseError("corruptions=: needs albumentations, which is not installed; run: pip install albumentations")
    missing = [name for name in ("torch", "ultralytics") if find_spec(name) is None]
    said = f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed"
    if missing and any(source.endswith(".pt") for source in sources):
        raise MisuseError(
            f'{said}, which a checkpoint needs; run: pip install "yolo-kd[train]", or evaluate an artifact made from it'
        )
    if missing and wanted:
        print(f"Ultralytics' own mAP is left out: {said}")
    return wanted and not missing


def _text(found: list[dict[str, Any]], split: str) -> str:
    rows: list[dict[str, Any]] = []
    classes: dict[str, dict[str, Any]] = {}
    slices: dict[str, dict[str, Any]] = {}
    spoilt: dict[str, dict[str, Any]] = {}
    for seen in found:
        name = seen["name"]
        rows.append({"model": name, "runs in": seen["precision_run"], **seen["precision"]})
        if "ultralytics" in seen:
            rows[-1]["Ultralytics' mAP50-95"] = seen["ultralytics"]["mAP50-95"]
        for kind, value in seen["classes"].items():
            classes.setdefault(kind, {"class": kind, "boxes": value["boxes"]})[f"AP {name}"] = value["AP"]
        for part, value in seen["slices"].items():
            slices.setdefault(part, {"third of the images": part})[f"AP {name}"] = value
        for kind, values in seen["corruptions"].items():
            row = spoilt.setdefault(kind, {"corruption": kind})
            row |= {f"{strength} {name}": v for strength, v in zip(("slight", "clear", "severe"), values, strict=True)}
    tables = [aligned(list(t)) for t in (rows, classes.values(), slices.values(), spoilt.values()) if t]
    return "\n\n".join([f"{found[0]['images']} images of {split}", *tables])
