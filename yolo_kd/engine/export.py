"""From a checkpoint to a float artifact, through Ultralytics' exporter.

It writes beside the .pt and takes its names from it, so it works on a copy in a temporary folder, and the result is moved.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from yolo_kd.deploy.artifact import Artifact, read_artifact, sha256, write_manifest
from yolo_kd.deploy.quantize.origin import now, versions
from yolo_kd.deploy.quantize.staging import check_target, require_room, staged
from yolo_kd.engine import ultra
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.errors import MisuseError, YoloKDError

NEEDS = {"openvino": ("openvino",), "onnx": ("onnx", "onnxruntime")}
PRECISIONS = {"fp32": 32, "fp16": 16}
LARGEST_SIDE = 4096


def export(
    source: str,
    format: str,
    size_hw: tuple[int, int] = (640, 640),
    precision: str = "fp32",
    end2end: bool = False,
    out: Path | None = None,
    overwrite: bool = False,
    trust: bool = False,
) -> Artifact:
    """Write `<stem>_openvino_model/` or `<stem>_onnx_model/` with a manifest; batch 1, static shape.

    Args:
        source: Detection checkpoint (.pt).
        format: "openvino" or "onnx".
        size_hw: Height and width of the net's input in pixels, multiples of the largest stride.
        precision: "fp32", or "fp16" for half-precision weights.
        end2end: Take the one-to-one head of v10 and 26, whose output (1, N, 6) needs no suppression.
        out: Where the folder goes; beside the checkpoint if None.
        overwrite: Replace a folder of that name that we did not write.
        trust: Let the checkpoint run its own code while it is loaded.

    Raises:
        MisuseError: A file, value, package or place that cannot work.
        YoloKDError: The exporter failed.
    """
    if format not in NEEDS:
        raise MisuseError(f"format={format}: expected one of {', '.join(NEEDS)}")
    if precision not in PRECISIONS:
        raise MisuseError(f"precision={precision}: expected fp32 or fp16; yolo-kd quantize makes int8")
    missing = [name for name in NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        raise MisuseError(
            f'format={format}: {" and ".join(missing)} not installed; run: pip install "yolo-kd[{format}]"'
        )
    model = ultra.load_detector(source, "model", trust)
    spec = ultra.head_spec(model)
    stride = max(spec.strides)
    if any(side % stride or not stride <= side <= LARGEST_SIDE for side in size_hw):
        raise MisuseError(
            f"imgsz={size_hw[0]},{size_hw[1]}: expected multiples of {stride} up to {LARGEST_SIDE}, e.g. imgsz=384,640"
        )
    if end2end and not spec.dual:
        raise MisuseError("end2end=true: the model has no one-to-one head (v10 and 26 have one); leave end2end= out")
    if ultra.image_channels(model) != 3:
        raise MisuseError(f"model={source}: takes {ultra.image_channels(model)} channels, expected 3")
    checkpoint = Path(source)
    args = getattr(model, "args", None)  # of the training; Ultralytics' defaults where the checkpoint does not say
    trained_at = args.get("imgsz") if isinstance(args, dict) else None
    if isinstance(trained_at, int) and trained_at != max(size_hw):
        ultra.LOGGER.info(
            f"{checkpoint.name}: its training says imgsz={trained_at}, which Ultralytics would export it at; this is for "
            f"{size_hw[0]}x{size_hw[1]}"
        )
    target = (out or checkpoint.parent) / f"{checkpoint.stem}_{format}_model"
    check_target(target, overwrite)
    facts = {
        "parent": {"file": checkpoint.name, "sha256": sha256(checkpoint)},
        "versions": versions("ultralytics-opencv-headless", "ultralytics", "torch", *NEEDS[format]),
        "created": now(),
    }
    with staged(target, overwrite) as folder:
        with tempfile.TemporaryDirectory(dir=folder) as work:  # on the disk that a full one is told of
            copy = Path(work) / f"{checkpoint.stem}.pt"
            shutil.copyfile(checkpoint, copy)
            made = _run(copy, format, size_hw, PRECISIONS[precision], end2end, trust)
            for path in made.iterdir() if made.is_dir() else [made]:
                path.rename(folder / path.name)
        found = read_artifact(folder)
        write_manifest(
            Artifact(folder, found.model, format, precision, size_hw, found.names, found.end2end, facts=facts)
        )
    return read_artifact(target)


def _run(copy: Path, format: str, size_hw: tuple[int, int], bits: int, end2end: bool, trust: bool) -> Path:
    """Ultralytics' export; where it put its result."""
    keys: dict[str, Any] = {"format": format, "imgsz": list(size_hw), "quantize": bits, "device": "cpu", "batch": 1}
    keys["nms"] = False if end2end else None
    if format == "onnx":
        keys["simplify"] = False  # it would install a package, for what ONNX Runtime does itself when it loads
    level = ultra.LOGGER.level
    ultra.LOGGER.setLevel("WARNING")  # it would name the temporary folder as the result
    ultra.LOGGER.addFilter(_not_raised_as_well)
    with ultra.restricted_loading(trust), preserved_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit.trace is deprecated; the exporter has nothing better yet
        try:
            made = ultra.YOLO(copy, task="detect").export(**keys)
        except Exception as error:  # the exporter raises whatever the libraries below it raise
            require_room(copy.parent)
            reason = " ".join(str(error).split())[:200]
            raise YoloKDError(f"Ultralytics could not export to {format}: {type(error).__name__}: {reason}") from error
        finally:
            ultra.LOGGER.setLevel(level)
            ultra.LOGGER.removeFilter(_not_raised_as_well)
    path = Path(str(made))
    if not path.exists():
        raise YoloKDError(f"Ultralytics said that it exported to {path.name}, but nothing is there")
    return path


def _not_raised_as_well(record: logging.LogRecord) -> bool:
    """Whether a record of the exporter tells more than the error that comes with it."""
    return "export failure" not in record.getMessage()
