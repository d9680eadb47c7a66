"""What this machine can run, and how an artifact fares on each of its devices; nothing falls back silently.

Devices without a driver do not show up at all, so an NPU that was asked for and is not there is explained: what the
operating system shows of it, and what to try.
"""

from __future__ import annotations

import platform
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends.ort import ALIASES
from yolo_kd.deploy.letterbox import Letterbox
from yolo_kd.deploy.quantize.agreement import Agreement, agree, raw_errors
from yolo_kd.deploy.runtime import Detector, open_detector

from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean

PACKAGES = ("openvino", "onnxruntime", "numpy", "opencv-python-headless")
PROPERTIES = ("FULL_DEVICE_NAME", "OPTIMIZATION_CAPABILITIES", "NPU_DRIVER_VERSION", "NPU_COMPILER_VERSION")
ACCELERATORS = Path("/sys/class/accel")  # where Linux lists NPUs whose kernel driver is loaded
DRIVEN = frozenset({"GPU", "CUDA", "TENSORRT", "ROCM", "MIGRAPHX"})  # devices that come with a driver
RUNS = 30
# Two runs of one net that differ in rounding alone: the raw boxes of seven YOLOv8n in bf16 and INT8 were at most .017 off
# float32, the scores .074 on pictures and .18 on noise. A device that gives zeros is 1 off, one that gives anything 1.4.
MAX_BOX_ERROR = 0.05
MAX_SCORE_ERROR = 0.5
MIN_F1 = 0.5
FEW_BOXES = 10  # below which F1 hangs on whether a box or two are just above the threshold
WARM_UP = 5
NO_WORK = frozenset({"Parameter", "Constant", "Result"})
CHOOSING = frozenset({"NonMaxSuppression", "MulticlassNms", "MatrixNms", "NonZero"})  # outputs of open length


@dataclass(frozen=True)
class Examined:
    """An artifact on one device.

    Args:
        device: As OpenVINO or ONNX Runtime calls it.
        runs: Whether it compiled and ran.
        reason: Why not.
        precision: What really runs.
        falls_off: Operations that the device does not take, with how often they occur; None if that was not checked.
        ms: Median milliseconds from frame to boxes.
        f1: Matched F1 of its boxes with the CPU's in float32 on the same noise and pictures; None without any box.
        iou: Mean IoU of the matched boxes.
        box_error: Relative error of the raw boxes against the CPU in float32; None for an end-to-end net.
        score_error: Likewise of the raw scores.
        disagrees: In what it says something else than the CPU; empty if in nothing.
    """

    device: str
    runs: bool
    reason: str = ""
    precision: str = ""
    falls_off: dict[str, int] | None = None
    ms: float | None = None
    f1: float | None = None
    iou: float | None = None
    box_error: float | None = None
    score_error: float | None = None
    disagrees: str = ""


def inventory() -> dict[str, Any]:
    """Processor, packages, OpenVINO's devices with their properties, ONNX Runtime's providers."""
    return {
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "processor": {
            "name": machine.model_name(),
            "cores": machine.cores(),
            "isa": sorted(machine.cpu_flags() & {*machine.BF16_FLAGS, *machine.INT8_FLAGS}),
        },
        "packages": {name: _version(name) for name in PACKAGES},
        "openvino": _openvino_devices(),
        "onnxruntime": _providers(),
        "accelerators": sorted(p.name for p in ACCELERATORS.iterdir()) if ACCELERATORS.is_dir() else [],
    }


def devices(found: dict[str, Any], form: str | None, wanted: str | None) -> list[str]:
    """The devices to examine an artifact of a format on.

    Args:
        found: From `inventory`.
        form: "openvino" or "onnx"; None for either.
        wanted: One device; all that are there if None.

    Raises:
        YoloKDError: The device is not there; the message says what was seen of it and what to try.
    """
    of_form = {"openvino": list(found["openvino"]), "onnx": _onnx_devices(found["onnxruntime"])}
    there = of_form[form] if form else list(dict.fromkeys(of_form["openvino"] + of_form["onnx"]))
    if wanted is None:
        return there
    name = wanted.upper()
    known = {name} if form == "openvino" else {name, ALIASES.get(name, name)}
    if any(d.upper() in known or d.startswith(f"{name}.") for d in there):
        return [name]
    who = {"openvino": "OpenVINO finds", "onnx": "ONNX Runtime finds", None: "OpenVINO and ONNX Runtime find"}[form]
    hint = _what_to_try(name, there, found["accelerators"])
    raise YoloKDError(f"device={wanted}: {who} {', '.join(there) or 'no device'} here; {hint}")


def _what_to_try(name: str, there: list[str], accelerators: list[str]) -> str:
    """What to do about a device that is not there."""
    family = name.partition(".")[0]
    if family == "NPU":
        return (
            f"the kernel shows {', '.join(accelerators) or 'no accelerator'} in {ACCELERATORS}; install Intel's "
            "linux-npu-driver and add yourself to the group render, or prepare the artifact here (yolo-kd quantize "
            "model=best.pt data=data.yaml target=npu) and run it where the NPU is"
        )
    if name == "AUTO":
        return "AUTO is no device, it takes one of these; leave device= out to examine each"
    if family in DRIVEN:
        return "install its driver and compute runtime, then run yolo-kd doctor again"
    return f"name one of these, or leave device= out to examine each{did_you_mean(name, there)}"


def examine(artifact: Artifact, device: str, frames: list[np.ndarray]) -> Examined:
    """Compile, run, time and compare an artifact on one device.

    Args:
        artifact: What is to run; a rejected one is examined too.
        device: A device that is there.
        frames: BGR pictures.
    """
    falls_off = unsupported(artifact, device) if artifact.format == "openvino" else None
    try:
        detector = open_detector(artifact, device=device, confidence=0.05, allow_rejected=True)
    except YoloKDError as error:
        return Examined(device, False, str(error), falls_off=falls_off)
    if artifact.format == "onnx":
        falls_off = {}  # its sessions have one provider, and refuse a net of which anything would go to another
    with detector, open_detector(artifact, precision="f32", confidence=0.05, allow_rejected=True) as exact:
        try:
            same = agree([exact(f) for f in frames], [detector(f) for f in frames])
            errors = raw_errors(_raw(exact, frames), _raw(detector, frames), artifact.end2end)
            times = []
            for index in range(RUNS + WARM_UP):
                start = time.perf_counter()
                detector(frames[index % len(frames)])
                times.append(1000 * (time.perf_counter() - start))
        except YoloKDError as error:
            return Examined(device, False, str(error), detector.backend.precision, falls_off)
        found = same.f1 if same.parent + same.candidate else None
        ms = float(np.median(times[WARM_UP:]))
        return Examined(
            device, True, "", detector.backend.precision, falls_off, ms, found, same.iou if same.matched else None,
            *errors, disagreement(same, *errors),
        )  # fmt: skip


def disagreement(same: Agreement, box_error: float | None, score_error: float) -> str:
    """In what a device says something else than the CPU in float32, beyond rounding; empty if in nothing.

    Args:
        same: Of the boxes.
        box_error: Relative error of the raw boxes; None if they cannot be compared.
        score_error: Relative error of the raw scores.
    """
    found = []
    # Each comparison asks for what is good, so that a number that is NaN is bad.
    for what, error, limit in (("boxes", box_error, MAX_BOX_ERROR), ("scores", score_error, MAX_SCORE_ERROR)):
        if error is not None and not error <= limit:
            found.append(f"raw {what} are {error:.3f} off, allowed {limit:g}")
    if same.parent + same.candidate >= FEW_BOXES and not same.f1 >= MIN_F1:
        found.append(f"F1 of the boxes is {same.f1:.3f}, expected {MIN_F1:g} or more")
    return "; ".join(found)


def unsupported(artifact: Artifact, device: str) -> dict[str, int]:
    """Types of the operations that an OpenVINO device does not take, with their number."""
    import openvino as ov
    from yolo_kd.deploy.backends.ov import read_net

    model = read_net(artifact.model_path)
    try:
        taken = ov.Core().query_model(model, device)
    except RuntimeError as error:
        return {f"query failed: {' '.join(str(error).split())[:80]}": 1}
    left = [op.get_type_name() for op in model.get_ops() if op.get_friendly_name() not in taken]
    return dict(Counter(kind for kind in left if kind not in NO_WORK))


def npu_faults(artifact: Artifact) -> list[str]:
    """What an NPU would stumble over, found in the graph: it can be checked where no NPU is.

    Raises:
        MisuseError: Not an OpenVINO artifact, or OpenVINO cannot read it.
    """
    if artifact.format != "openvino":
        raise MisuseError(f"{artifact.folder.name}: is an {artifact.format} artifact; an NPU takes OpenVINO ones")
    from yolo_kd.deploy.backends.ov import read_net

    model = read_net(artifact.model_path)
    weights = (artifact.facts.get("parent") or {}).get("file") or "best.pt"
    export = f"yolo-kd export model={weights} imgsz={','.join(map(str, artifact.input_hw))}"
    faults = []
    ports = [p.partial_shape for p in (*model.inputs, *model.outputs)]
    if any(shape.is_dynamic for shape in ports):
        faults.append(f"open shapes ({', '.join(str(s) for s in ports if s.is_dynamic)}); run {export}")
    elif model.inputs[0].shape[0] != 1:
        faults.append(f"batch {model.inputs[0].shape[0]}, an NPU is wrong above 1; run {export}")
    kinds = Counter(op.get_type_name() for op in model.get_ops())
    for kind in sorted(CHOOSING & set(kinds)):
        faults.append(f"{kind} in the graph gives outputs of open length; run {export}, whose nets have none")
    if not kinds["FakeQuantize"]:
        faults.append(
            "no quantized layer: an NPU earns its power in INT8; run "
            f"yolo-kd quantize model={weights} data=data.yaml target=npu"
        )
    return faults


def shapes(artifact: Artifact) -> str:
    """Whether the input of the net is static, e.g. "static 640x640, batch 1"; an open side is a `?`.

    Raises:
        MisuseError: The runtime is missing, or cannot read the net.
    """
    if artifact.format == "openvino":
        from yolo_kd.deploy.backends.ov import read_net

        found = read_net(artifact.model_path).inputs[0].partial_shape
        sides = [None if d.is_dynamic else d.get_length() for d in found]
    else:
        from yolo_kd.deploy.backends.ort import input_sides

        sides = input_sides(artifact.model_path)
    batch, height, width = ("?" if sides[i] is None else str(sides[i]) for i in (0, 2, 3))
    return f"{'open' if None in sides else 'static'} {height}x{width}, batch {batch}"


def _raw(detector: Detector, frames: list[np.ndarray]) -> np.ndarray:
    """Raw outputs of the frames, one after the other."""
    box = Letterbox(detector.artifact.input_hw)
    return np.concatenate([detector.backend.infer(box(frame)[0][None]) for frame in frames])


def plain(examined: Examined) -> dict[str, Any]:
    """As a JSON object."""
    return asdict(examined)


def _openvino_devices() -> dict[str, dict[str, Any]]:
    try:
        import openvino as ov
    except ImportError:
        return {}
    core = ov.Core()
    found: dict[str, dict[str, Any]] = {}
    for device in core.available_devices:
        supported = core.get_property(device, "SUPPORTED_PROPERTIES")
        found[device] = {}
        for name in PROPERTIES:
            if name in supported:
                value = core.get_property(device, name)
                found[device][name] = list(value) if isinstance(value, list | tuple) else str(value)
    return found


def _providers() -> list[str]:
    try:
        import onnxruntime
    except ImportError:
        return []
    return list(onnxruntime.get_available_providers())


def _onnx_devices(providers: list[str]) -> list[str]:
    """The CPU and what else ONNX Runtime was built for here; Azure's provider asks a server and runs nothing."""
    names = [p.removesuffix("ExecutionProvider") for p in providers]
    return ["CPU", *(n for n in names if n not in {"CPU", "Azure"})]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
