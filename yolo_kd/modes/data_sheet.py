"""`yolo-kd data sheet`: what `augment=field` and the corruptions of `yolo-kd evaluate` do to a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import write_bytes
from yolo_kd.data import scenes
from yolo_kd.data.contact_sheet import contact_sheet
from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import read_picture

DEFAULTS: dict[str, Any] = {"source": None, "out": "field.jpg", "seed": 0, "debug": False}
SIZE = 640  # of the rendered scene
QUALITY = 75


def main(keys: dict[str, Any]) -> int:
    """Draw and write; returns the exit code."""
    import cv2

    out = Path(str(keys["out"]))
    if out.suffix.lower() not in {".jpg", ".jpeg", ".png"}:
        raise MisuseError(f"out={out}: expected a .jpg or .png to write")
    if out.exists():
        raise MisuseError(f"out={out}: is there already; choose another name")
    if keys["source"]:
        picture = read_picture(Path(str(keys["source"]))).pixels
    else:
        picture = scenes.render_scene(keys["seed"], "train", 0, SIZE).image
    _, packed = cv2.imencode(out.suffix, contact_sheet(picture, keys["seed"]), [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    write_bytes(out, packed.tobytes())
    print(f"wrote {out}")
    return 0


def help_text() -> str:
    """The keys."""
    return """usage: yolo-kd data sheet [source=<picture>] [out=field.jpg] [seed=0]

  source=       a picture of yours; a rendered scene if left out
  out=field.jpg the sheet: a row per corruption, at three strengths"""
