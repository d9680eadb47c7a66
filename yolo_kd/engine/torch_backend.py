"""A checkpoint behind the device's own detector: float evaluation runs the letterbox, decoding and suppression that ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.runtime import Detector
from yolo_kd.engine import ultra
from yolo_kd.errors import MisuseError

FORMAT = "torch"


class TorchBackend:
    """A detection model in float32 on one device, as a back end of `deploy`.

    Args:
        model: The model; it is fused in place.
        input_hw: Height and width of the net's input in pixels.
        device: Where to run.
    """

    def __init__(self, model: Any, input_hw: tuple[int, int], device: torch.device) -> None:
        self.model = model.to(device).float().fuse(verbose=False).eval()
        self.precision, self.device, self.batch, self.slots = "f32", str(device), 1, 1
        self.output_shape: tuple[int, ...] | None = None
        self._canvas = np.empty((1, *input_hw, 3), np.uint8)

    @torch.inference_mode()
    def run(self, canvas: np.ndarray) -> np.ndarray:
        """The raw output of one canvas (1, H, W, 3) uint8 BGR."""
        images = torch.from_numpy(np.ascontiguousarray(canvas.reshape(self._canvas.shape)[..., ::-1]))
        images = images.to(self.device).permute(0, 3, 1, 2).float() / 255
        found = self.model(images)
        return (found[0] if isinstance(found, tuple | list) else found).float().cpu().numpy()

    def infer(self, canvas: np.ndarray) -> np.ndarray:
        """The same; nothing is reused, so nothing is copied."""
        return self.run(canvas)

    def start(self, slot: int, canvas: np.ndarray) -> None:
        """Note a canvas; it runs when it is waited for."""
        self._canvas = canvas

    def wait(self, slot: int) -> np.ndarray:
        """Run what was started."""
        return self.run(self._canvas)

    def close(self) -> None:
        """Nothing to let go of."""


def open_checkpoint(
    source: str, imgsz: int | tuple[int, int] = 640, device: str = "cpu", trust: bool = False, **options: object
) -> Detector:
    """A .pt as a Detector.

    Args:
        source: Detection checkpoint.
        imgsz: Side, or height and width, of the net's input in pixels; multiples of the largest stride.
        device: "cpu", "cuda:0", ...
        trust: See `ultra.load_detector`.
        **options: `confidence`, `iou`, `max_detections`, `classes`, `multi_label` of `Detector`.

    Raises:
        MisuseError: No detection checkpoint, a size that the net cannot take, or a device that is not there.
    """
    where = _device(device)
    model = ultra.load_detector(source, "model", trust)
    spec = ultra.head_spec(model)
    size = (imgsz, imgsz) if isinstance(imgsz, int) else (int(imgsz[0]), int(imgsz[1]))
    step = max(spec.strides)
    if any(s < step or s % step for s in size):
        raise MisuseError(f"imgsz={imgsz}: expected multiples of {step}, e.g. imgsz=640 or imgsz=384,640")
    path = Path(getattr(model, "pt_path", source))
    names = ultra.class_names(model)
    artifact = Artifact(path.parent, path.name, FORMAT, "fp32", size, names, end2end=spec.dual)
    return Detector(artifact, TorchBackend(model, size, where), **options)  # type: ignore[arg-type]


def _device(name: str) -> torch.device:
    try:
        found = torch.device(name.lower())
    except RuntimeError:
        raise MisuseError(f"device={name}: torch has no such device; expected cpu or cuda:0") from None
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise MisuseError(f"device={name}: torch finds {torch.cuda.device_count()} CUDA devices here; use device=cpu")
    return found
