"""data.yaml: where the parts of a data set lie and what its classes are called, found where Ultralytics finds them.

`path` is its own folder if left out; a relative one is looked for where the command runs, then in Ultralytics' folder of
data sets, and never beside the YAML. `train`, `val` and `test` are folders, .txt lists, or lists of these. `nc` alone gives
classes without names. A name without a file, such as data=soda10m.yaml, is one of the descriptors that come with yolo-kd, or
else one of Ultralytics' (coco8.yaml, or coco8), where that is installed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yolo_kd.cfg.documents import LARGEST, read_mapping

from yolo_kd.errors import MisuseError, did_you_mean

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Description:
    """What a data.yaml says.

    Args:
        source: The file.
        names: Class id to name.
        parts: Folders and lists of each part that it names.
        raw: Everything as it stands there.
    """

    source: Path
    names: Mapping[int, str]
    parts: Mapping[str, tuple[Path, ...]]
    raw: Mapping[str, Any]

    @property
    def keypoints(self) -> int:
        """Numbers behind each box where the labels are of poses; the training of a detector leaves them out."""
        shape = self.raw.get("kpt_shape")
        counts = shape if isinstance(shape, list | tuple) and len(shape) == 2 else [0, 0]
        return counts[0] * counts[1] if all(type(count) is int and count > 0 for count in counts) else 0


def read_description(source: str | Path) -> Description:
    """Read a data.yaml.

    Raises:
        MisuseError: No such file, no YAML, neither names nor nc, or a `path` that is nowhere but beside it.
    """
    path = find_description(source)
    if path is None and not Path(source).exists():
        path = _of_ultralytics().get(_yaml_name(source))
    if path is None:
        folder, name = Path(source).parent, Path(source).name
        here = [p.name for p in folder.glob("*.y*ml")]
        near = did_you_mean(name, [*here, *(f"{n}.yaml" for n in descriptors()), *_of_ultralytics()])
        raise MisuseError(f"data={source}: no such data set YAML{near}")
    raw = read_mapping("data", path)
    root = _root(path, raw.get("path"))
    parts: dict[str, tuple[Path, ...]] = {}
    for part in PARTS:
        entries = raw.get(part) or (raw.get("validation") if part == "val" else None) or []
        if isinstance(entries, list):
            parts |= {part: tuple(_real(root / str(entry)) for entry in entries)} if entries else {}
        else:
            parts[part] = (_real(_place(root, str(entries))),)
    return Description(path, _names(raw, source), parts, raw)


def miscount(raw: Mapping[str, Any]) -> str:
    """What is wrong with `nc` beside `names`, for which Ultralytics refuses a data.yaml; empty if nothing is.

    >>> miscount({"nc": 2, "names": ["car"]}), miscount({"nc": "1", "names": ["car"]})
    ('2, expected the number of names, which is 1', '')
    """
    names = raw.get("names")
    if names is None or "nc" not in raw or _whole(raw["nc"]) == len(names):
        return ""
    return f"{raw['nc']}, expected the number of names, which is {len(names)}"


def find_description(source: str | Path) -> Path | None:
    """The file that `data=` names: a YAML here, or a descriptor of that name that comes with yolo-kd."""
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"}:
        return None
    if path.is_file():
        return path
    shipped = descriptors()
    return shipped.get(path.stem) if str(path) == path.name else None


def descriptors() -> dict[str, Path]:
    """The data set descriptors that come with yolo-kd, by name."""
    folder = Path(str(files("yolo_kd.data")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _of_ultralytics() -> dict[str, Path]:
    """The descriptors that come with Ultralytics, by file name; it is not imported, as that takes seconds and torch."""
    spec = find_spec("ultralytics")
    folders = [Path(place) / "cfg" / "datasets" for place in (spec and spec.submodule_search_locations) or ()]
    return {path.name: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def _yaml_name(source: str | Path) -> str:
    """The name with the suffix that Ultralytics adds to a bare one."""
    return str(source) if Path(source).suffix in {".yaml", ".yml"} else f"{source}.yaml"


def _root(source: Path, given: Any) -> Path:
    """The folder that the parts are relative to; where it does not exist, the first place that was looked at."""
    if not given:
        return source.parent
    path = Path(str(given))
    places = [path] if path.is_absolute() else [path.absolute(), *_datasets_dir(path)]
    found = next((place for place in places if place.exists()), None)
    beside = source.parent / path
    if found is None and beside.exists():
        raise MisuseError(
            f"data={source}: path: {path} is looked for as training does, at {' and '.join(map(str, places))}, not beside it; "
            f"write path: {beside.resolve()}"
        )
    return found or places[0]


def _place(root: Path, entry: str) -> Path:
    """A folder or list; one '../' too many, as some tools write it, is forgiven as Ultralytics forgives it."""
    path = root / entry
    return root / entry[3:] if entry.startswith("../") and not path.exists() else path


def _real(path: Path) -> Path:
    """Where a link leads to, as Ultralytics follows it: labels are looked for beside what it leads to."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself, or a name that no file can have
        return path.absolute()


def _datasets_dir(path: Path) -> list[Path]:
    """The place of a data set in Ultralytics' own folder of data sets, as its settings name that."""
    home = os.environ.get("YOLO_CONFIG_DIR") or os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    settings = Path(home) / "Ultralytics" / "settings.json"
    try:
        return [Path(str(json.loads(settings.read_text(encoding="utf-8"))["datasets_dir"])) / path]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # Ultralytics has never run here


def _names(raw: Mapping[str, Any], source: str | Path) -> dict[int, str]:
    given = raw.get("names")
    if given is None and "nc" in raw:
        count = _whole(raw["nc"])
        if count is None or not 0 < count <= LARGEST:
            raise MisuseError(f"data={source}: expected names: or nc: the number of classes, got nc: {raw['nc']!r:.60}")
        return {i: f"class_{i}" for i in range(count)}  # what Ultralytics calls them
    pairs = enumerate(given) if isinstance(given, list) else given.items() if isinstance(given, dict) else ()
    try:
        names = {int(k): str(v) for k, v in pairs}
    except (TypeError, ValueError):
        names = {}
    if not names:
        raise MisuseError(f"data={source}: expected names: a list of class names, or id: name; got {given!r}")
    return names


def _whole(value: Any) -> int | None:
    """A number of classes as Ultralytics takes it, as text or with .0 too; None if it is none."""
    if isinstance(value, int):
        return value
    try:
        return int(float(value)) if isinstance(value, float | str) and float(value).is_integer() else None
    except ValueError:
        return None
