"""OpenVINO: pixels go in as bytes and are scaled in the graph, shapes are static, precision and device are as asked.

Requests are started and waited for one by one, with a bound. OpenVINO's own `AsyncInferQueue` is not used: it has been
seen to hang for good on Intel and AMD CPUs (ultralytics/ultralytics issue 25923).
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends import Backend, Settings, input_shape, one_line
from yolo_kd.deploy.backends.compile_cache import compile_cache, driver_versions

from yolo_kd.errors import MisuseError, YoloKDError

if TYPE_CHECKING:
    import openvino as ov

LOG = logging.getLogger("yolo_kd.deploy")
PRECISIONS = {"f32": "f32", "bf16": "bf16", "f16": "f16", "fp32": "f32", "fp16": "f16"}
_KINDS = {"i8": "int8", "u8": "int8", "bf16": "bf16", "f16": "f16", "f32": "f32"}


def read_net(path: Path) -> ov.Model:
    """The net of an .xml file and the .bin beside it, as they are.

    Raises:
        MisuseError: OpenVINO is missing, or cannot read them.
    """
    core = _openvino().Core()
    with path.open("rb") as file:
        if b"<net" not in file.read(4096):  # else OpenVINO tries one front end after the other, and each complains
            raise MisuseError(f"{path}: is no OpenVINO net, or is damaged; export it again")
    try:
        return core.read_model(path)
    except Exception as error:  # its front ends raise RuntimeError and their own
        raise MisuseError(
            f"{path}: OpenVINO cannot read it ({one_line(error, 120)}); it is damaged, incomplete or no OpenVINO net"
        ) from None


class OpenVINOBackend(Backend):
    """An OpenVINO net on one device.

    Args:
        artifact: Of format "openvino".
        settings: How to run it.

    Raises:
        MisuseError: OpenVINO or the device is missing, or the files are no detector's.
        YoloKDError: The device cannot run it as asked.
    """

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        ov = _openvino()
        core = ov.Core()
        device = _find_device(core, settings.device)
        self.batch = settings.batch
        if self.batch > 1 and device.startswith("NPU"):
            raise MisuseError(f"batch={self.batch}: an NPU gives wrong results above 1; use batch=1")
        self._timeout_ms = max(1, round(settings.timeout_s * 1000))
        height, width = artifact.input_hw
        model = _with_preprocessing(_read(artifact, input_shape(artifact, settings)))
        cache: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if settings.cache:
            cache = compile_cache(artifact, settings.cache, driver_versions(core, device))
        self._compiled = _compile(core, model, device, _properties(settings, device), cache)
        self.output_shape: tuple[int, ...] | None = tuple(self._compiled.output(0).shape)
        self.device = ",".join(self._compiled.get_property("EXECUTION_DEVICES")).strip("()")
        self.precision = _running_precision(self._compiled)
        _check_precision(self.precision, settings.precision, artifact, self.device)
        # One request more than streams: it waits in line while we decode, so that no stream ever idles.
        busy = int(self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
        self.slots = busy + 1 if settings.mode == "throughput" else 1
        self._requests = [self._compiled.create_infer_request() for _ in range(self.slots)]
        self._inputs = [np.empty((self.batch * height, width, 3), np.uint8) for _ in range(self.slots)]
        for request, pixels in zip(self._requests, self._inputs):
            whole = pixels.reshape(self.batch, height, width, 3)
            request.set_input_tensor(ov.Tensor(whole, shared_memory=True))
        self._hung = self._closed = False

    def run(self, canvas: np.ndarray) -> np.ndarray:
        """Run in the calling thread: handing it to another one cost 5 % of a YOLOv8n on two busy cores."""
        request = self._ready(0, canvas)
        try:
            request.infer(share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise YoloKDError(f"OpenVINO failed on {self.device}: {one_line(error)}") from error
        return request.get_output_tensor(0).data

    def start(self, slot: int, canvas: np.ndarray) -> None:
        """Begin a canvas in the background."""
        try:
            self._ready(slot, canvas).start_async()
        except RuntimeError as error:
            raise YoloKDError(f"OpenVINO failed on {self.device}: {one_line(error)}") from error

    def wait(self, slot: int) -> np.ndarray:
        """Wait for a slot, at most `timeout_s`."""
        self._check_alive()
        request = self._requests[slot]
        try:
            ready = request.wait_for(self._timeout_ms)
        except RuntimeError as error:
            raise YoloKDError(f"OpenVINO failed on {self.device}: {one_line(error)}") from error
        if not ready:
            self._hung = True
            self._check_alive()
        return request.get_output_tensor(0).data

    def close(self) -> None:
        """Let go of the net; one that hangs is left behind instead, because taking it apart would hang as well."""
        if self._hung:
            _leak((self._requests, self._inputs, self._compiled))
        self._closed, self._requests, self._compiled = True, [], None

    def _ready(self, slot: int, canvas: np.ndarray) -> ov.InferRequest:
        """The slot's request with the canvas, in RGB, as its input."""
        import cv2

        self._check_alive()
        pixels = self._inputs[slot]
        cv2.cvtColor(canvas.reshape(pixels.shape), cv2.COLOR_BGR2RGB, dst=pixels)  # 24 us at 640 x 640
        return self._requests[slot]

    def _check_alive(self) -> None:
        if self._closed:
            raise MisuseError("the net is closed; open the detector again")
        if self._hung:
            raise YoloKDError(
                f"OpenVINO gave no answer on {self.device} within {self._timeout_ms / 1000:g} s and counts as hung; open the "
                "detector again, with mode=latency or a larger timeout_s"
            )


def _leak(hung: object) -> None:
    """Keep an object for ever: whoever takes a hanging request or its net apart hangs too, the interpreter's end included."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(hung))


def _openvino() -> Any:
    try:
        import openvino
    except ImportError:
        raise MisuseError('openvino is not installed; run: pip install "yolo-kd[openvino]"') from None
    return openvino


def _find_device(core: ov.Core, wanted: str) -> str:
    name = wanted.upper()
    there = list(core.available_devices)
    if name != "AUTO" and not any(d == name or d.startswith(f"{name}.") for d in there):
        raise MisuseError(f"device={wanted}: OpenVINO finds no such device here, only {', '.join(there)} (and AUTO)")
    return name


def _read(artifact: Artifact, shape: tuple[int, int, int, int]) -> ov.Model:
    """The net with this static input; static because INT8 with open shapes crashes on CPUs with AMX."""
    path = artifact.model_path
    model = read_net(path)
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        found = f"{len(model.inputs)} inputs and {len(model.outputs)} outputs"
        raise MisuseError(f"{path}: expected a detector with one input and one output, found {found}")
    found = model.inputs[0].partial_shape
    if len(found) != 4 or not all(d.is_dynamic or d.get_length() == s for d, s in zip(list(found)[1:], shape[1:])):
        raise MisuseError(f"{path}: takes {found}, but its metadata says {list(shape)}; export it again")
    if artifact.end2end and found[0].is_static and found[0].get_length() != shape[0]:
        # its selection has the batch written into it: reshaped, later pictures of a batch come out empty
        raise MisuseError(
            f"{path}: selects its boxes for a batch of {found[0]}, not {shape[0]}; open it with batch={found[0]}, and with "
            "mode=throughput where several frames are to be under way"
        )
    try:
        model.reshape(list(shape))
    except RuntimeError as error:
        raise MisuseError(
            f"{path}: cannot take {list(shape)} ({one_line(error, 120)}); open it with the batch it was exported with"
        ) from None
    return model


def _with_preprocessing(model: ov.Model) -> ov.Model:
    """The net fed with u8 NHWC in RGB: scale and layout become part of its graph, and its numbers stay those of float input.

    Two of the preprocessor's own steps would change them where the net runs in bf16 (2026.4, CPU): `scale(255)` multiplies
    by 1/255 rounded to bf16, .23 % too bright; colours swapped in the graph are folded into the first weights, which adds
    up in another order (scores off by .017). So the division is ours, and the swap is OpenCV's.
    """
    from openvino import Layout, Type, opset13
    from openvino.preprocess import PrePostProcessor

    steps = PrePostProcessor(model)
    steps.input().tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    steps.input().model().set_layout(Layout("NCHW"))
    full = opset13.constant(np.float32(255))
    scaled = steps.input().preprocess().convert_element_type(Type.f32)
    scaled.custom(lambda pixels: opset13.divide(pixels, full).output(0))
    steps.output().tensor().set_element_type(Type.f32)
    return steps.build()


def _properties(settings: Settings, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"PERFORMANCE_HINT": settings.mode.upper()}
    if settings.precision is not None:
        if settings.precision not in PRECISIONS:
            raise MisuseError(
                f"precision={settings.precision}: expected f32, bf16, f16 or none for the device's choice"
            )
        found["INFERENCE_PRECISION_HINT"] = PRECISIONS[settings.precision]
    # Pinned threads of two detectors on one machine would share a core while others idle.
    on_cpu: dict[str, Any] = {"ENABLE_CPU_PINNING": False}
    if settings.threads is not None:
        on_cpu["INFERENCE_NUM_THREADS"] = settings.threads
    if device == "CPU":
        found |= on_cpu
    elif device == "AUTO":
        found["DEVICE_PROPERTIES"] = {"CPU": on_cpu}
    elif settings.threads is not None:
        raise MisuseError(f"threads={settings.threads}: counts CPU threads, {device} has none; leave it out")
    return found


def _compile(
    core: ov.Core, model: ov.Model, device: str, properties: dict[str, Any], cache: contextlib.AbstractContextManager
) -> ov.CompiledModel:
    try:
        with cache as folder:
            return core.compile_model(model, device, properties | ({"CACHE_DIR": str(folder)} if folder else {}))
    except RuntimeError as error:
        raise YoloKDError(
            f"OpenVINO cannot compile the net for {device}: {one_line(error)}; try device=CPU, or yolo-kd doctor"
        ) from error


def _running_precision(compiled: ov.CompiledModel) -> str:
    """What the convolutions of the compiled net run in, e.g. "int8+bf16"; the device's word where it shows no graph."""
    seen: set[str] = set()
    try:
        for op in compiled.get_runtime_model().get_ops():
            info = op.get_rt_info()
            if "layerType" in info and info["layerType"].value == "Convolution":
                # the kernel's name ends in what it computes in; "runtimePrecision" is that of stored weights too
                kernel = info["primitiveType"].value.rpartition("_")[2].lower()
                kind = kernel if kernel in _KINDS else info["runtimePrecision"].value
                seen.add(_KINDS.get(kind, kind))
    except RuntimeError:
        LOG.info("%s shows no graph of what it runs", compiled.get_property("EXECUTION_DEVICES"))
    if not seen - {"int8"}:
        try:
            seen.add(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        except RuntimeError:
            seen = seen or {"unknown"}
    return "+".join(sorted(seen, key=lambda kind: (kind != "int8", kind)))


def _check_precision(running: str, wanted: str | None, artifact: Artifact, device: str) -> None:
    floats = [part for part in running.split("+") if part != "int8"]
    if wanted is not None and floats not in ([PRECISIONS[wanted]], ["unknown"]):
        raise YoloKDError(f"precision={wanted}: {device} runs {running} instead; leave it out or choose what it has")
    if artifact.precision == "int8" and not running.startswith("int8"):
        LOG.warning("%s is an INT8 net, but %s runs it in %s", artifact.folder.name, device, running)
