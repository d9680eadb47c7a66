"""A back end without a net: gives back what it was given. For tests, and for a field rehearsal without a model."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends import Backend, Settings
from yolo_kd.deploy.decode import ROW

Answer = Callable[[np.ndarray], np.ndarray]


class FakeBackend(Backend):
    """Answers every canvas with the same raw output, or with what a function makes of the canvas.

    Args:
        artifact: Shapes and names; its files need not exist.
        settings: `batch` and `mode` count: two slots in throughput mode, else one.
        raw: The raw output of one canvas (B, H, W, 3), or a function of it; none: a net that sees nothing.
    """

    precision = "fake"
    device = "fake"

    def __init__(self, artifact: Artifact, settings: Settings, raw: np.ndarray | Answer | None = None) -> None:
        self.batch = settings.batch
        self.slots = 2 if settings.mode == "throughput" else 1
        if raw is None:
            raw = np.zeros((self.batch, *((1, ROW) if artifact.end2end else (4 + len(artifact.names), 1))), np.float32)
        self.output_shape = raw.shape if isinstance(raw, np.ndarray) else None
        self._raw = raw
        self._canvases: dict[int, np.ndarray] = {}

    def run(self, canvas: np.ndarray) -> np.ndarray:
        """The answer to a canvas."""
        canvas = canvas.reshape(self.batch, *canvas.shape[-3:])
        return self._raw if isinstance(self._raw, np.ndarray) else self._raw(canvas)

    def start(self, slot: int, canvas: np.ndarray) -> None:
        """Keep the canvas; the answer is made in `wait`, so that a canvas overwritten too early shows."""
        self._canvases[slot] = canvas

    def wait(self, slot: int) -> np.ndarray:
        """The answer to what was started in the slot."""
        return self.run(self._canvases.pop(slot))

    def close(self) -> None:
        """Nothing to let go of."""
