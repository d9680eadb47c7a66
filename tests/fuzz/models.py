"""Checkpoints that are whole and hold nonsense: no model, a model without a head, names that are none, weights of NaN."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from ultralytics.nn.tasks import DetectionModel, yaml_model_load

NAMES = {0: "car", 1: "truck", 2: "person"}
Change = Callable[[dict[str, Any], random.Random], None]
ODD: tuple[Any, ...] = (
    None,
    0,
    -1,
    7,
    "x",
    "",
    [],
    {},
    {"a": 1},
    {0: None},
    [1, 2],
    float("nan"),
    torch.zeros(0),
    torch.zeros(3),
    {5: "car"},
)


def tiny_model() -> DetectionModel:
    """A YOLOv8 of 8 channels: what a checkpoint holds, in half a megabyte."""
    layout = {**yaml_model_load("yolov8n.yaml"), "nc": len(NAMES), "scales": {"n": [0.33, 0.01, 64]}, "scale": "n"}
    model = DetectionModel(layout, verbose=False)
    model.names = dict(NAMES)
    return model


def saved(content: Any) -> bytes:
    """What torch.save writes."""
    packed = io.BytesIO()
    torch.save(content, packed)
    return packed.getvalue()


def nonsense(rng: random.Random) -> bytes:
    """A checkpoint with one or two things in it that make no sense."""
    with torch.random.fork_rng():
        torch.manual_seed(rng.getrandbits(31))
        model = tiny_model().half()
    content: dict[str, Any] = {"model": model, "train_args": {"task": "detect"}, "epoch": -1}
    for _ in range(rng.choice((1, 1, 2))):
        rng.choice(CHANGES)(content, rng)
    return saved(content if rng.random() < 0.95 else rng.choice((content.get("model"), [content], 7, "x", {})))


def _set(content: dict[str, Any], rng: random.Random) -> None:
    content[rng.choice(("model", "ema", "train_args", "epoch", "optimizer", "modelopt", "x"))] = rng.choice(ODD)


def _drop(content: dict[str, Any], rng: random.Random) -> None:
    content.pop(rng.choice(list(content)), None)


def _other(content: dict[str, Any], rng: random.Random) -> None:
    content[rng.choice(("model", "ema"))] = rng.choice(
        (nn.Linear(2, 2), nn.Sequential(), nn.Conv2d(3, 8, 3), nn.Identity())
    )


def _attribute(content: dict[str, Any], rng: random.Random) -> None:
    model = content.get("model")
    if isinstance(model, nn.Module):
        name = rng.choice(
            ("names", "stride", "yaml", "task", "args", "nc", "save", "inplace", "end2end", "pt_path", "criterion")
        )
        if rng.random() < 0.3:
            model.__dict__.pop(name, None)
        else:
            model.__dict__[name] = rng.choice(ODD)


def _head(content: dict[str, Any], rng: random.Random) -> None:
    model = content.get("model")
    if isinstance(model, DetectionModel) and isinstance(model.model, nn.Sequential) and len(model.model):
        head, kind = model.model[-1], rng.randrange(4)
        if kind == 0:
            head.__dict__[rng.choice(("nc", "reg_max", "no", "nl", "stride", "f", "i", "end2end"))] = rng.choice(ODD)
        elif kind == 1:
            head._modules[rng.choice(("cv2", "cv3", "dfl"))] = rng.choice((nn.ModuleList(), nn.Identity()))
        elif kind == 2:
            head._modules.pop(rng.choice(("cv2", "cv3", "dfl")), None)
        else:
            model.model = rng.choice((model.model[:-1], model.model[:3], nn.Sequential()))


def _weights(content: dict[str, Any], rng: random.Random) -> None:
    model = content.get("model")
    if isinstance(model, nn.Module):
        for parameter in model.parameters():
            if rng.random() < 0.2:
                parameter.data = rng.choice(
                    (parameter.data * float("nan"), parameter.data * 1e4, parameter.data[:0], parameter.data[..., None])
                )


CHANGES: tuple[Change, ...] = (_set, _drop, _other, _attribute, _attribute, _attribute, _head, _head, _weights)
