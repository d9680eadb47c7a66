"""A part of a data set in YOLO format, read without torch: images in order, and their labels.

The layout is Ultralytics': data.yaml names `path` (its own folder if left out), `train`, `val` and `test` as folders, .txt
lists or lists of these, and `names`; the labels of `.../images/x.jpg` are in `.../labels/x.txt`, one `class cx cy w h` per
box, as shares of width and height, or `class x y x y ...` for an outline, whose box is taken. Nothing is written, cached or
repaired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from yolo_kd.errors import MisuseError, did_you_mean
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

TOLERANCE = 0.01  # Ultralytics takes shares up to 1.01, and so a box that rounding pushed over the edge


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Args:
        name: "train", "val" or "test".
        images: Paths, sorted within each folder, in the order of the lists otherwise.
        names: Class id to name.
    """

    name: str
    images: tuple[Path, ...]
    names: Mapping[int, str]

    def labels(self, image: Path) -> tuple[np.ndarray, np.ndarray]:
        """Classes (N,) and boxes (N, 4) as cx, cy, w, h in shares of the image; no label file means no box.

        Raises:
            MisuseError: A line that is no box, a box that is not in the image, or a class that `names` does not have.
        """
        path = label_path(image)
        if not path.is_file():
            return np.zeros(0, np.int64), np.zeros((0, 4))
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        try:
            table = np.array([_box(row) for row in rows], float).reshape(-1, 5)
        except ValueError:
            raise MisuseError(
                f"{path}: expected lines of 'class cx cy w h' or 'class x y x y ...', found another"
            ) from None
        if not np.isfinite(table).all():
            raise MisuseError(f"{path}: expected finite numbers, found nan or inf")
        if (table[:, 1:] < -TOLERANCE).any() or (table[:, 1:] > 1 + TOLERANCE).any():
            raise MisuseError(f"{path}: expected shares of width and height from 0 to 1, found {table[:, 1:].max():g}")
        kinds = table[:, 0].astype(np.int64)
        unknown = [k for k in table[:, 0].tolist() if k not in self.names]
        if unknown:
            raise MisuseError(f"{path}: class {unknown[0]:g} is not among the {len(self.names)} names of the data set")
        return kinds, table[:, 1:]


def read_split(source: str | Path, part: str = "val") -> Split:
    """The images and names of one part of a data set.

    Args:
        source: A data.yaml.
        part: "train", "val" or "test".

    Raises:
        MisuseError: No such file or part, no image in it, or no names.
    """
    path = Path(source)
    if path.suffix not in {".yaml", ".yml"} or not path.is_file():
        near = did_you_mean(path.name, [p.name for p in path.parent.glob("*.y*ml")]) if path.parent.is_dir() else ""
        raise MisuseError(f"data={source}: no such data set YAML{near}")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise MisuseError(f"data={source}: not readable as YAML ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(raw, dict) or not raw.get(part):
        parts = ", ".join(p for p in ("train", "val", "test") if isinstance(raw, dict) and raw.get(p))
        raise MisuseError(f"data={source}: has no '{part}' part; it has {parts or 'none'}")
    root = path.parent / str(raw.get("path") or "")
    entries = raw[part] if isinstance(raw[part], list) else [raw[part]]
    images = [image for entry in entries for image in _images(root / str(entry), f"data={source}: {part}")]
    if not images:
        raise MisuseError(f"data={source}: '{part}' holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return Split(part, tuple(images), _names(raw.get("names"), source))


def _box(row: list[str]) -> list[float]:
    """class, cx, cy, w, h of a line: of a box, or of the outline of an object.

    Raises:
        ValueError: Neither.
    """
    values = [float(v) for v in row]
    if len(values) == 5:
        return values
    if len(values) < 7 or len(values) % 2 == 0:
        raise ValueError(len(values))
    xs, ys = values[1::2], values[2::2]
    low, high = (min(xs), min(ys)), (max(xs), max(ys))
    return [values[0], (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, high[0] - low[0], high[1] - low[1]]


def normalise(name: str) -> str:
    """The form in which names are compared: case, spaces, hyphens and underscores do not matter.

    >>> normalise("Traffic-Light"), normalise("traffic light")
    ('traffic light', 'traffic light')
    """
    return " ".join(str(name).lower().replace("-", " ").replace("_", " ").split())


def label_path(image: Path) -> Path:
    """Where the labels of an image lie: the last folder `images` of its path becomes `labels`."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _images(entry: Path, where: str) -> list[Path]:
    if entry.is_dir():
        return sorted(p for p in entry.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if entry.suffix == ".txt" and entry.is_file():
        lines = [line.strip() for line in entry.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = [entry.parent / line if line.startswith("./") else Path(line) for line in lines]
        missing = [p for p in found if not p.is_file()]
        if missing:
            raise MisuseError(
                f"{where}: {len(missing)} of {len(found)} images of {entry.name} are missing, first {missing[0]}"
            )
        return found
    raise MisuseError(f"{where}: {entry} is neither a folder nor a .txt list of images")


def _names(raw: Any, source: str | Path) -> dict[int, str]:
    pairs = enumerate(raw) if isinstance(raw, list) else raw.items() if isinstance(raw, dict) else ()
    try:
        names = {int(k): str(v) for k, v in pairs}
    except (TypeError, ValueError):
        names = {}
    if not names:
        raise MisuseError(f"data={source}: expected names: a list of class names, or id: name; got {raw!r}")
    return names
