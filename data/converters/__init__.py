"""Readers of other people's labels, one file a format. No torch, no Ultralytics.

A reader streams `Record`s; what is done with them is `yolo_kd.data.convert`'s matter.
"""

from __future__ import annotations

from importlib import import_module

from yolo_kd.data.converters.record import Reader

from yolo_kd.errors import MisuseError, did_you_mean

CONVERTERS = {
    "visdrone": "yolo_kd.data.converters.visdrone:VisDrone",
    "coco": "yolo_kd.data.converters.coco:Coco",
    "voc": "yolo_kd.data.converters.voc:Voc",
    "kitti": "yolo_kd.data.converters.kitti:Kitti",
    "bdd": "yolo_kd.data.converters.bdd:Bdd",
}


def load(name: str) -> type[Reader]:
    """The reader of a format.

    Raises:
        MisuseError: No such format.
    """
    if name not in CONVERTERS:
        raise MisuseError(f"from={name}: no such format{did_you_mean(name, CONVERTERS)}; use {', '.join(CONVERTERS)}")
    module, _, kind = CONVERTERS[name].partition(":")
    return getattr(import_module(module), kind)
