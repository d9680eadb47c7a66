"""`yolo-kd data convert`: other people's labels to a data set that Ultralytics trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolo_kd.data.convert import HOW, REPORT, convert
from yolo_kd.data.converters import CONVERTERS
from yolo_kd.data.description import read_description
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.errors import MisuseError

DEFAULTS: dict[str, Any] = {
    "from": None,
    "source": None,
    "out": None,
    "names": None,
    "images": "copy",
    "difficult": None,
    "first": None,
    "debug": False,
}


def main(keys: dict[str, Any]) -> int:
    """Convert, say what was dropped; returns the exit code."""
    for key in ("from", "source", "out"):
        if not keys[key]:
            raise MisuseError(f"{key}= is missing: yolo-kd data convert from=kitti source=<folder> out=<new folder>")
    options = {}
    if keys["difficult"] is not None:
        if keys["from"] != "voc" or not isinstance(keys["difficult"], bool):
            raise MisuseError(f"difficult={keys['difficult']}: expected true or false, with from=voc only")
        options["difficult"] = keys["difficult"]
    if keys["first"] is not None:
        if keys["from"] != "voc" or isinstance(keys["first"], bool) or keys["first"] not in (0, 1):
            raise MisuseError(f"first={keys['first']}: expected 0 or 1, with from=voc only")
        options["first"] = keys["first"]
    out = Path(str(keys["out"]))
    found = convert(
        str(keys["from"]), Path(str(keys["source"])), out, _names(keys["names"]), str(keys["images"]), Line(), **options
    )
    print("\n".join(found.lines()))
    print(f"wrote {out / 'data.yaml'}; every reason with its first places is in {out / REPORT}")
    if not found.parts.get("val", {}).get("images"):
        print(
            f"there is no validation part yet: yolo-kd data split data={out / 'data.yaml'} by=scene out={out / 'scene.yaml'}"
        )
    return 0


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd data convert from=<{"|".join(CONVERTERS)}> source=<folder> out=<new folder> [key=value ...]

  from=         format of the labels
  source=       the data set as it was unpacked; stays as it is
  out=          folder to fill: images/, labels/, data.yaml, and {REPORT} with what was left out and why; the same command
                goes on where it was stopped
  names=        classes in the order of their ids, as a list or a data.yaml that has them; others are left out
  images=copy   {" | ".join(HOW)}
  difficult=    from=voc: true keeps objects that the evaluation does not count
  first=1       from=voc: number of the first pixel; 0 where the boxes have the edges themselves"""


def _names(given: Any) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str) and given.endswith((".yaml", ".yml")):
        names = read_description(given).names
        return [names[kind] for kind in sorted(names)]
    found = [str(name).strip() for name in (given if isinstance(given, list | tuple) else str(given).split(","))]
    if not all(found):
        raise MisuseError(f"names={given}: expected class names with commas between, or a data.yaml")
    return found
