"""Distillation methods: one file each, listed here by name as "module:Class" so that importing this loads none."""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from yolo_kd.errors import MisuseError, did_you_mean

if TYPE_CHECKING:
    from yolo_kd.distillers.base import Distiller

DISTILLERS: dict[str, str] = {
    "csgr": "yolo_kd.distillers.csgr:CSGR",
    "pcd": "yolo_kd.distillers.pcd:PCD",
    "lqe": "yolo_kd.distillers.lqe:LQE",
    "mar": "yolo_kd.distillers.mar:MAR",
    "pkd": "yolo_kd.distillers.pkd:PKD",
    "native": "yolo_kd.distillers.native:Native",
}


def load(name: str) -> type[Distiller]:
    """The class of a method by its name.

    >>> load("pkd").terms
    ('pkd',)
    """
    if name not in DISTILLERS:
        raise MisuseError(
            f"no distiller {name!r}{did_you_mean(name, DISTILLERS)}; there are {', '.join(sorted(DISTILLERS))}"
        )
    module, _, cls = DISTILLERS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def arguments(name: str) -> dict[str, Any]:
    """The keyword arguments of a method with their defaults, as its recipe or the command line may set them.

    >>> arguments("pkd")["reduce"]
    'mean'
    """
    parameters = inspect.signature(load(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("student", "teacher", "classes")}
