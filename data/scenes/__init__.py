"""The embedded default data set: rendered drone views of traffic with YOLO labels, any number, from a seed.

Needs numpy, OpenCV and PyYAML; no download, no torch.
"""

from __future__ import annotations

from yolo_kd.data.scenes.dataset import default_root, write_dataset
from yolo_kd.data.scenes.scene import SPLITS, VERSION, Scene, render_scene
from yolo_kd.data.scenes.traffic import CLASSES
from yolo_kd.data.scenes.video import fly, render_video

__all__ = [
    "CLASSES",
    "SPLITS",
    "VERSION",
    "Scene",
    "default_root",
    "fly",
    "render_scene",
    "render_video",
    "write_dataset",
]
