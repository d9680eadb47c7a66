"""The teacher: loaded safely, fused, frozen, and run by one of several engines.

An engine is anything that is called with images (B, C, H, W) in [0, 1] and returns the flat list of raw outputs of
`TeacherNet`. The teacher owns it, and hands out a HeadOutput cut to the levels that it shares with the student.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor

from yolo_kd.deploy.artifact import sha256
from yolo_kd.deploy.machine import has_bf16
from yolo_kd.distillers.base import HeadOutput, HeadSpec
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import TeacherNet, cut_output, cut_spec

Engine = Callable[[Tensor], Sequence[Tensor]]


class Teacher:
    """A frozen detector and the engine that runs it.

    Args:
        source: Checkpoint path or official name.
        device: Where the student trains.
        towers: Whether a distiller needs the classification tower maps.
        trust: See `ultra.load_detector`.
    """

    def __init__(self, source: str, device: torch.device, towers: bool = False, trust: bool = False) -> None:
        model = ultra.load_detector(source, "teacher", trust)
        self.path = Path(getattr(model, "pt_path", source)).resolve()
        self.sha256 = sha256(self.path)
        self.names = ultra.class_names(model)
        self.channels = ultra.image_channels(model)
        self.parameters = sum(p.numel() for p in model.parameters())
        self.device = device
        self.net = TeacherNet(model, towers).to(device)
        self.full_spec = self.net.spec
        self.strides: tuple[int, ...] = self.full_spec.strides
        self.engine_name = "torch-fp32"
        self.engine: Engine = self.net

    @property
    def spec(self) -> HeadSpec:
        """The head spec, cut to the shared levels."""
        return cut_spec(self.full_spec, self.strides)

    def use(self, name: str, engine: Engine) -> None:
        """Run on this engine from now on."""
        self.engine_name, self.engine = name, engine

    @torch.no_grad()
    def __call__(self, img: Tensor) -> HeadOutput:
        """Raw outputs in float32 for images (B, C, H, W) in [0, 1], without gradient."""
        with torch.autocast(self.device.type, enabled=False):
            flat = [t.float() for t in self.engine(img)]
        return cut_output(self.net.unflatten(flat), self.full_spec, self.strides)


class TorchEngine:
    """The teacher in torch: fused, channels_last, and half precision where the device computes in it.

    Args:
        net: The teacher's net; a copy in `dtype` is made, the original stays float32.
        device: Where to run.
        dtype: Precision of weights and activations.
        compiled: Use torch.compile.
    """

    def __init__(self, net: TeacherNet, device: torch.device, dtype: torch.dtype, compiled: bool = False) -> None:
        self.dtype = dtype
        self.net = deepcopy(net).to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
        self.run = torch.compile(self.net) if compiled else self.net

    def __call__(self, img: Tensor) -> Sequence[Tensor]:
        """The flat list of raw outputs in this engine's precision."""
        return self.run(img.to(dtype=self.dtype, memory_format=torch.channels_last))


def half_precision(device: torch.device) -> torch.dtype:
    """The 16-bit type that this device computes in, or float32 if it has none."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and has_bf16() else torch.float32
