"""ONNX Runtime: float input made from the canvas in one pass, one session, threads of our own where several run at once."""

from __future__ import annotations

import ast
import queue
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends import Backend, Settings, input_shape, one_line

from yolo_kd.errors import MisuseError, YoloKDError

if TYPE_CHECKING:
    import onnxruntime

FLOATS = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
SUFFIX = "ExecutionProvider"
CPU = f"CPU{SUFFIX}"
ALIASES = {"GPU": "CUDA"}
QUIET = 3  # errors only; ONNX Runtime prints warnings of its own to stderr


def metadata(model: Path) -> dict[str, Any]:
    """What Ultralytics wrote into an ONNX file, with numbers, lists and dicts as such; empty if it wrote nothing.

    Raises:
        MisuseError: ONNX Runtime is missing, or cannot read the file.
    """
    raw = _glance(model).get_modelmeta().custom_metadata_map
    return {key: _value(text) for key, text in raw.items()}


def input_sides(model: Path) -> list[int | None]:
    """Batch, channels, height and width of an ONNX file's first input; None where the file leaves one open.

    Raises:
        MisuseError: ONNX Runtime is missing, or cannot read the file.
    """
    return [side if isinstance(side, int) else None for side in _glance(model).get_inputs()[0].shape]


class ONNXBackend(Backend):
    """An ONNX net in ONNX Runtime.

    Args:
        artifact: Of format "onnx".
        settings: How to run it.

    Raises:
        MisuseError: ONNX Runtime or the provider is missing, or the file is no detector's.
        YoloKDError: The provider cannot run it.
    """

    def __init__(self, artifact: Artifact, settings: Settings) -> None:
        ort = _onnxruntime()
        if settings.precision not in (None, "f32", "fp32"):
            raise MisuseError(
                f"precision={settings.precision}: ONNX Runtime has none to choose; export the net with it"
            )
        provider = _find_provider(ort, settings.device)
        together = settings.mode == "throughput"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = 1 if together else settings.threads or 0  # 0: all cores
        if provider != CPU:  # else single nodes would move to the CPU without a word
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        self._session = _session(ort, artifact.model_path, options, provider)
        self.device = provider.removesuffix(SUFFIX)
        self.precision = "int8+f32" if artifact.precision == "int8" else "f32"
        shape = input_shape(artifact, settings)
        self._input, kind, self.output_shape = _ports(self._session, artifact.model_path, shape)
        self.batch, self._timeout_s = settings.batch, settings.timeout_s
        # Several runs of one thread each are faster than one of several; one more than cores, because we decode meanwhile.
        self.slots = (settings.threads or machine.cores()) + 1 if together else 1
        self._blobs = [np.empty(shape, kind) for _ in range(self.slots)]
        self._options = [ort.RunOptions() for _ in range(self.slots)]
        self._workers: list[_Worker] = []
        self._hung = self._closed = False

    def run(self, canvas: np.ndarray) -> np.ndarray:
        """Run in the calling thread."""
        self._check_alive()
        return self._run(0, canvas)

    def start(self, slot: int, canvas: np.ndarray) -> None:
        """Begin a canvas in the slot's own thread."""
        self._check_alive()
        if not self._workers:
            self._workers = [_Worker(partial(self._run, i)) for i in range(self.slots)]
        self._workers[slot].give(canvas)

    def wait(self, slot: int) -> np.ndarray:
        """Wait for a slot, at most `timeout_s`."""
        self._check_alive()
        try:
            found = self._workers[slot].take(self._timeout_s)
        except queue.Empty:
            self._hung = True
            for options in self._options:  # runs that can still hear it end
                options.terminate = True
            self._check_alive()
        if isinstance(found, BaseException):
            raise found
        return found

    def close(self) -> None:
        """Let go of the net and end the threads; one that hangs ends with the process."""
        for worker in self._workers:
            worker.stop()
        self._closed, self._workers, self._session = True, [], None

    def _run(self, slot: int, canvas: np.ndarray) -> np.ndarray:
        blob = self._blobs[slot]
        pixels = canvas[None] if canvas.ndim == 3 else canvas
        for plane, channel in enumerate((2, 1, 0)):  # BGR to RGB; divided, not multiplied by 1/255: torch's bits
            np.divide(pixels[..., channel], np.float32(255), out=blob[:, plane], dtype=np.float32, casting="unsafe")
        try:
            found = self._session.run(None, {self._input: blob}, self._options[slot])[0]
        except Exception as error:  # a class of its own for each of its status codes
            raise YoloKDError(f"ONNX Runtime failed on {self.device}: {one_line(error)}") from error
        return found.astype(np.float32, copy=False)

    def _check_alive(self) -> None:
        if self._closed:
            raise MisuseError("the net is closed; open the detector again")
        if self._hung:
            raise YoloKDError(
                f"ONNX Runtime gave no answer on {self.device} within {self._timeout_s:g} s and counts as hung; open the "
                "detector again, with mode=latency or a larger timeout_s"
            )


class _Worker:
    """A thread that answers one call after the other; a daemon, so that a call that hangs does not hold the process."""

    def __init__(self, call: Callable[[np.ndarray], np.ndarray]) -> None:
        self._call = call
        self._given: queue.SimpleQueue[np.ndarray | None] = queue.SimpleQueue()
        self._made: queue.SimpleQueue[np.ndarray | BaseException] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True, name="yolo-kd-onnx").start()

    def give(self, argument: np.ndarray) -> None:
        self._given.put(argument)

    def take(self, timeout_s: float) -> np.ndarray | BaseException:
        return self._made.get(timeout=timeout_s)

    def stop(self) -> None:
        self._given.put(None)

    def _work(self) -> None:
        while (argument := self._given.get()) is not None:
            try:
                self._made.put(self._call(argument))
            except BaseException as error:  # reaches the caller through `take`
                self._made.put(error)


def _glance(model: Path) -> onnxruntime.InferenceSession:
    """A session to ask, not to run."""
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return _session(ort, model, options, CPU)


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise MisuseError('onnxruntime is not installed; run: pip install "yolo-kd[onnx]"') from None
    return onnxruntime


def _find_provider(ort: Any, wanted: str) -> str:
    there = ort.get_available_providers()
    name = ALIASES.get(wanted.upper(), wanted.upper()) + SUFFIX.upper()
    for provider in there:
        if provider.upper() == name:
            return provider
    names = ", ".join(p.removesuffix(SUFFIX) for p in there)
    raise MisuseError(f"device={wanted}: ONNX Runtime has no such provider here, only {names}")


def _session(ort: Any, model: Path, options: onnxruntime.SessionOptions, provider: str) -> onnxruntime.InferenceSession:
    options.log_severity_level = QUIET
    try:
        session = ort.InferenceSession(model, options, providers=[provider], enable_fallback=0)
    except Exception as error:  # a class of its own for each of its status codes
        if provider != CPU:
            raise YoloKDError(f"{provider} cannot run {model}: {one_line(error)}; try device=CPU") from error
        raise MisuseError(
            f"{model}: ONNX Runtime cannot read it ({one_line(error, 120)}); it is damaged, incomplete or no ONNX net"
        ) from None
    if session.get_providers()[0] != provider:
        raise YoloKDError(f"{model}: ONNX Runtime could not start {provider}; try device=CPU")
    return session


def _ports(
    session: onnxruntime.InferenceSession, model: Path, shape: tuple[int, int, int, int]
) -> tuple[str, Any, tuple[int, ...] | None]:
    """Name and type of the input, and the output's shape where the file says it."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        found = f"{len(inputs)} inputs and {len(outputs)} outputs"
        raise MisuseError(f"{model}: expected a detector with one input and one output, found {found}")
    found, kind = inputs[0].shape, FLOATS.get(inputs[0].type)
    if len(found) == 4 and isinstance(found[0], int) and found[0] != shape[0]:
        raise MisuseError(
            f"{model}: takes a batch of {found[0]}, not {shape[0]}; open it with batch={found[0]}, and with "
            "mode=throughput where several frames are to be under way"
        )
    fits = len(found) == 4 and all(isinstance(n, str | None) or n == s for n, s in zip(found, shape))
    if kind is None or not fits:
        raise MisuseError(
            f"{model}: takes {inputs[0].type} {found}, expected float {list(shape)}; export it with that shape"
        )
    out = outputs[0].shape
    return inputs[0].name, kind, tuple(out) if all(isinstance(n, int) for n in out) else None


def _value(text: str) -> Any:
    """The literal that a text spells, or the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
