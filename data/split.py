"""A part of a data set in YOLO format, read without torch: images in order, and their labels.

The layout is Ultralytics': the labels of `.../images/x.jpg` are in `.../labels/x.txt`. Nothing is written, cached or
repaired.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from yolo_kd.data.description import read_description
from yolo_kd.data.labels import UNUSABLE, parse_labels

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES, files_below


@dataclass(frozen=True)
class Split:
    """One part of a data set.

    Args:
        name: "train", "val" or "test".
        images: Paths, sorted within each folder, in the order of the lists otherwise.
        names: Class id to name.
        keypoints: Numbers that may stand behind each box, see `Description`.
    """

    name: str
    images: tuple[Path, ...]
    names: Mapping[int, str]
    keypoints: int = 0

    def labels(self, image: Path) -> tuple[np.ndarray, np.ndarray]:
        """Classes (N,) and boxes (N, 4) as cx, cy, w, h in shares of the image; no label file means no box.

        Raises:
            MisuseError: A line that is no box, a box that is not in the image, or a class that `names` does not have.
        """
        path = label_path(image)
        if not path.is_file():
            return np.zeros(0, np.int64), np.zeros((0, 4))
        table, faults = parse_labels(read_text(path), self.names, self.keypoints)
        worst = next((fault for fault in faults if fault.kind in UNUSABLE), None)
        if worst is not None:
            raise MisuseError(f"{path}, line {worst.line}: {worst.what}")
        return table[:, 0].astype(np.int64), table[:, 1:]


def read_split(source: str | Path, part: str = "val") -> Split:
    """The images and names of one part of a data set.

    Args:
        source: A data.yaml.
        part: "train", "val" or "test".

    Raises:
        MisuseError: No such file or part, no image in it, or no names.
    """
    found = read_description(source)
    if part not in found.parts:
        raise MisuseError(f"data={source}: has no '{part}' part; it has {', '.join(found.parts) or 'none'}")
    images = [image for entry in found.parts[part] for image in _images(entry, f"data={source}: {part}")]
    if not images:
        raise MisuseError(f"data={source}: '{part}' holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return Split(part, tuple(images), found.names, found.keypoints)


def read_text(path: Path) -> str:
    """The text of a list or label file, with or without a byte-order mark.

    Raises:
        MisuseError: It cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise MisuseError(f"{path}: cannot be read ({what})") from None


def listed(path: Path) -> list[Path]:
    """The paths in a .txt list; those that begin with ./ are relative to its folder, as in Ultralytics.

    Raises:
        MisuseError: It cannot be read.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    return [path.parent / line if line.startswith("./") else Path(line) for line in lines]


def normalise(name: str) -> str:
    """The form in which names are compared: case, spaces, hyphens and underscores do not matter.

    >>> normalise("Traffic-Light"), normalise("traffic light")
    ('traffic light', 'traffic light')
    """
    return " ".join(str(name).lower().replace("-", " ").replace("_", " ").split())


def label_path(image: Path) -> Path:
    """Where the labels of an image lie: the last folder `images` of its path becomes `labels`, but for a path's first word."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, 0, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _images(entry: Path, where: str) -> list[Path]:
    if entry.is_dir():
        return [p for p in files_below(entry) if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()]
    if entry.suffix == ".txt" and entry.is_file():
        found = listed(entry)
        missing = [p for p in found if not p.is_file()]
        if missing:
            raise MisuseError(
                f"{where}: {len(missing)} of {len(found)} images of {entry.name} are missing, first {missing[0]}"
            )
        return found
    raise MisuseError(f"{where}: {entry} is neither a folder nor a .txt list of images")
