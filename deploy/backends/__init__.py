"""What runs the net: one file per runtime, all behind the same few methods.

A back end has `slots` requests that can be under way at once. A slot takes a canvas, works, and is waited for; nothing is
started in a slot that was not waited for. A fake one ships with the others: tests and the field code run on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import Artifact

from yolo_kd.errors import MisuseError, did_you_mean

BACKENDS = {
    "openvino": "yolo_kd.deploy.backends.ov:OpenVINOBackend",
    "onnx": "yolo_kd.deploy.backends.ort:ONNXBackend",
    "fake": "yolo_kd.deploy.backends.fake:FakeBackend",
}
MODES = ("latency", "throughput")
LONGEST_S = (
    86400  # a day; OpenVINO counts milliseconds in 32 bits, and a wait without a bound is what this is to prevent
)


@dataclass(frozen=True)
class Settings:
    """How to run a net.

    Args:
        device: "CPU", "GPU", "GPU.1", "NPU" or "AUTO" with OpenVINO; with ONNX Runtime "CPU" or another provider's name.
        mode: "latency" (one request as fast as can be) or "throughput" (several at once).
        threads: Of the whole detector, at most one a core; None lets the runtime choose.
        precision: "f32", "bf16" or "f16" for what is not INT8; None lets the device choose.
        batch: Pictures per request.
        cache: Folder for compiled nets; None keeps none.
        timeout_s: How long a request may take before it counts as hung; a day at most.
    """

    device: str = "CPU"
    mode: str = "latency"
    threads: int | None = None
    precision: str | None = None
    batch: int = 1
    cache: Path | None = None
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MisuseError(f"mode={self.mode}: expected {' or '.join(MODES)}{did_you_mean(self.mode, MODES)}")
        for key in ("threads", "batch"):
            count = getattr(self, key)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
                raise MisuseError(f"{key}={count}: expected a whole number of at least 1")
        if self.threads is not None and self.threads > machine.cores():  # 5000 kept ONNX Runtime busy for minutes
            raise MisuseError(f"threads={self.threads}: this process has {machine.cores()} cores; expected no more")
        seconds = self.timeout_s
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_S:
            raise MisuseError(f"timeout_s={seconds}: expected seconds above 0, {LONGEST_S} at most")
        if self.precision is not None and not isinstance(self.precision, str):
            raise MisuseError(f"precision={self.precision}: expected a word such as f32, or none")
        if not isinstance(self.device, str) or not self.device:
            raise MisuseError(f"device={self.device}: expected a name such as CPU, GPU, NPU or AUTO")


class Backend(Protocol):
    """A loaded net, built as `Class(artifact, settings)`; one thread uses it at a time.

    A canvas is (B, H, W, 3) uint8 in BGR, contiguous, or (H, W, 3) for a batch of one. What comes back is the net's raw
    output in float32: (B, 4 + classes, cells), or (B, N, 6) from an end-to-end net.
    """

    precision: str  # what really runs, e.g. "f32", "bf16", "int8+bf16"
    device: str  # what it really runs on
    batch: int
    slots: int
    output_shape: tuple[int, ...] | None  # None where the file does not say

    def infer(self, canvas: np.ndarray) -> np.ndarray:
        """Run one canvas now; the array is the caller's to keep."""
        return self.run(canvas).copy()

    def run(self, canvas: np.ndarray) -> np.ndarray:
        """The same without the copy: what comes back is valid until slot 0 is used again."""

    def start(self, slot: int, canvas: np.ndarray) -> None:
        """Begin a canvas, which must stay as it is until `wait` returned."""

    def wait(self, slot: int) -> np.ndarray:
        """The output of what was started in a slot, valid until the slot is started again.

        Raises:
            YoloKDError: The run failed, or took longer than `timeout_s`; after that the back end is of no more use.
        """

    def close(self) -> None:
        """Let go of the net."""


def load_backend(artifact: Artifact, settings: Settings) -> Backend:
    """The artifact's net in the runtime of its format."""
    from importlib import import_module

    module, name = BACKENDS[artifact.format].split(":")
    kind: Any = getattr(import_module(module), name)
    return kind(artifact, settings)


def input_shape(artifact: Artifact, settings: Settings) -> tuple[int, int, int, int]:
    """(B, 3, H, W) of the net's input."""
    return (settings.batch, 3, *artifact.input_hw)


def one_line(error: BaseException, longest: int = 200) -> str:
    """The first sentences of a runtime's error, without its line breaks."""
    return " ".join(str(error).split())[:longest] or type(error).__name__
