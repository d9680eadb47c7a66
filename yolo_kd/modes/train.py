"""`yolo-kd train`: every Ultralytics train key, plus ours."""

from __future__ import annotations

from importlib.resources import files
from textwrap import fill
from typing import Any

from yolo_kd.api import DEFAULT_STUDENT, SCENES_SIZE, distill, known_keys
from yolo_kd.cfg.settings import recipe_names
from yolo_kd.data import scenes
from yolo_kd.distillers import DISTILLERS, arguments


def main(settings: dict[str, Any]) -> int:
    """Train; returns the exit code."""
    keys = dict(settings)
    distill(keys.pop("teacher", None), keys.pop("student", None), keys.pop("data", None), **keys)
    return 0


def defaults() -> dict[str, Any]:
    """Every key with its default."""
    return known_keys("train")


def help_text() -> str:
    """Our keys with their meaning, and where the others are."""
    ours = files("yolo_kd.cfg").joinpath("default.yaml").read_text().split("\n\n", 1)[1]
    lines = []
    for line in ours.strip().splitlines():
        head, _, meaning = line.partition(" # ")
        key, _, default = head.partition(":")
        lines.append(f"  {key + '=' + default.strip():<28} {meaning}")
    return "\n".join(
        [
            "usage: yolo-kd train teacher=<.pt> student=<.yaml or .pt> data=<.yaml> [key=value ...]",
            "",
            f"  {'student=' + DEFAULT_STUDENT:<28} (str) model that learns: .yaml from scratch, .pt pretrained; same as model=",
            f"  {'data=':<28} (str, optional) data set YAML; without it, rendered traffic scenes at imgsz={SCENES_SIZE}, for "
            f"distill=none or a teacher of their classes: {', '.join(scenes.CLASSES)}",
            *lines,
            "",
            f"recipes (distill=): {', '.join(recipe_names())}, none, or the path of a YAML of that form",
            "any gain: method.term=1.5 or auto:0.5, e.g. csgr.gr=auto:0.5; none leaves the term out",
            "",
            "arguments of the methods with their defaults, e.g. csgr.gr=auto:0.5 csgr.tau=.2; csgr.form=paper takes the formulas of",
            "a public file that seems to be the authors', form=paper of the others the closest reading of an abstract:",
            *map(_arguments, DISTILLERS),
            "",
            "and every Ultralytics train key (epochs, imgsz, batch, device, ...): yolo cfg lists them with their defaults",
        ]
    )


def _arguments(method: str) -> str:
    words = " ".join(f"{name}={value}" for name, value in arguments(method).items())
    return fill(words, 120, initial_indent=f"  {method:<7} ", subsequent_indent=" " * 10)
