"""yolo-kd: knowledge distillation for Ultralytics YOLO, and what comes after it on the device.

Importing this loads neither torch nor Ultralytics, because importing `yolo_kd.deploy` passes through here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DistillationTrainer", "__version__", "distill"]

if TYPE_CHECKING:
    from yolo_kd.api import distill
    from yolo_kd.engine.trainer import DistillationTrainer

_LAZY = {"distill": "yolo_kd.api", "DistillationTrainer": "yolo_kd.engine.trainer"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'yolo_kd' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
