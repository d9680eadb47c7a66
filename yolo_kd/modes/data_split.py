"""`yolo-kd data split`: new parts of a data set in which no scene is on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.data.description import PARTS, read_description
from yolo_kd.data.scene_split import STEP, SceneSplit, split_by_scene, write_split
from yolo_kd.deploy.machine import cores
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.errors import MisuseError, did_you_mean

DEFAULTS: dict[str, Any] = {
    "data": None,
    "out": None,
    "by": "scene",
    "val": 0.15,
    "test": None,
    "seed": 0,
    "near": STEP,
    "names": True,
    "groups": None,
    "jobs": cores(),
    "debug": False,
}


def main(keys: dict[str, Any]) -> int:
    """Look, deal out, write; returns the exit code."""
    if keys["by"] != "scene":
        raise MisuseError(f"by={keys['by']}: expected by=scene{did_you_mean(str(keys['by']), ['scene'])}")
    for key in ("data", "out"):
        if not keys[key]:
            raise MisuseError(f"{key}= is missing: yolo-kd data split data=<data.yaml> by=scene out=<new data.yaml>")
    out = Path(str(keys["out"]))
    if out.suffix not in {".yaml", ".yml"}:
        raise MisuseError(f"out={out}: expected a data set YAML to write, e.g. out=data_scene.yaml")
    data = read_description(str(keys["data"]))
    if out.exists() and out.resolve() == data.source.resolve():
        raise MisuseError(f"out={out}: is the data set itself, which stays as it is; choose another name")
    shares = _shares(keys["val"], keys["test"], "test" in data.parts)
    groups = Path(str(keys["groups"])) if keys["groups"] else None
    found = split_by_scene(data, shares, keys["seed"], keys["near"], keys["names"], groups, keys["jobs"], Line())
    scenes = int(found.scene.max()) + 1
    note = (
        f"{len(found.images)} images of {scenes} scenes, near={keys['near']} names={keys['names']} seed={keys['seed']}"
    )
    written = write_split(found, data, out, note)
    print("\n".join(_lines(found, shares, scenes)))
    print(f"wrote {', '.join(str(path) for path in written)}")
    return 0


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd data split data=<data.yaml> by=scene out=<new data.yaml> [key=value ...]

  data=         data set YAML; all its parts are dealt out anew, its files stay as they are
  out=          YAML to write, with a list of images per part and a table of scenes beside it
  by=scene      whole scenes: pictures that look alike, and recordings that file names tell
  val={DEFAULTS["val"]:g}      share of the images for validation
  test=         share for testing; as for validation if the data set has a test part, else none
  near={STEP}        of 64 bits: two pictures that differ in no more are of one scene
  names=true    false does not go by file names (what is equal before the last number, where that tells 10 recordings)
  groups=       CSV of columns image (name or folder/name) and group, where somebody knows more: in place of names
  seed=0        decides the order in which scenes are dealt out; the same seed gives the same parts
  jobs={cores()}        threads"""


def _shares(val: Any, test: Any, has_test: bool) -> dict[str, float]:
    test = (val if has_test else 0.0) if test is None else test
    for key, value in (("val", val), ("test", test)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise MisuseError(f"{key}={value}: expected a share of the images from 0 up to 1, e.g. {key}=.15")
    if not val or val + test >= 1:
        raise MisuseError(f"val={val} test={test}: expected some for val, and less than 1 together")
    return {"train": 1 - val - test, "val": float(val), "test": float(test)}


def _lines(found: SceneSplit, shares: dict[str, float], scenes: int) -> list[str]:
    by_name = f"; file names told {found.recordings} recordings" if found.recordings else ""
    lines = [f"{len(found.images)} images of {scenes} scenes{by_name}"]
    for i, name in enumerate(PARTS):
        mine = found.part == i
        if mine.any():
            share = mine.sum() / len(mine)
            off = f" (asked for {shares[name]:.1%})" if abs(share - shares[name]) > 0.1 * shares[name] else ""
            lines.append(f"  {name}: {mine.sum()} images, {share:.1%}{off}, {len(np.unique(found.scene[mine]))} scenes")
    return lines
