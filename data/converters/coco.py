"""COCO's detection format, which SODA10M, MiniCOCO and many others use: one JSON per part.

`images` have id, file_name, width and height; `annotations` image_id, category_id, bbox (left, top, width, height in
pixels) and iscrowd; `categories` id and name. Category ids are any numbers (COCO's 80 go to 90); class ids are their
order. iscrowd marks a group as one region: dropped and counted, as everywhere. A picture without annotations has none.
Roboflow puts each part's file beside its pictures, and calls val valid.
https://cocodataset.org/#format-data
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from yolo_kd.data.converters.json_stream import entries
from yolo_kd.data.converters.record import Record, ids_of, not_used, numbers, shown, unnamed

from yolo_kd.errors import MisuseError

PARTS = ("train", "val", "test")
OF_ELSE = ("captions", "image_info", "panoptic", "person_keypoints", "stuff")  # what else COCO asks for
ROBOFLOW = "_annotations.coco.json"
FOLDERS = {"train": ("train",), "val": ("valid", "val"), "test": ("test",)}  # where Roboflow puts it
NO_BOX = "bbox is not 4 finite numbers"
UNKNOWN = "no train, val or test in its name"
NEEDED = {
    "images": ("id", "file_name"),
    "annotations": ("image_id", "category_id"),
    "categories": ("id", "name"),
}


class Coco:
    """`source` holds annotations/*train*.json and *val*.json (instances_ only, where there are several), and the pictures.

    Or train/_annotations.coco.json and valid/_annotations.coco.json, each among its pictures.
    """

    def __init__(self, source: Path, names: Sequence[str] | None = None) -> None:
        self._source = source
        self._files = _files(source)
        self._loaded: tuple[str, _Tables] | None = None
        self._named: dict[str, set[Path]] = {}
        if names is None:
            tables = self._tables(next(iter(self._files)))
            names = [name for _, name in sorted(tables.categories.items())]
        self.names = list(names)
        self._ids = ids_of(self.names)

    def parts(self) -> Mapping[str, str]:
        """See `Reader`."""
        return {part: _name(path) for part, path in self._files.items()}

    def count(self, part: str) -> int:
        """See `Reader`."""
        return len(self._tables(part).images)

    def records(self, part: str) -> Iterator[Record]:
        """See `Reader`."""
        tables, path = self._tables(part), self._files[part]
        folder = _folder(self._source, part, path, tables)
        owner = np.array(tables.owner, np.int64)
        order = np.argsort(owner, kind="stable")
        starts = np.searchsorted(owner[order], np.arange(len(tables.index) + 1))
        for (name, size_hw, line), own in zip(tables.images.values(), tables.images, strict=True):
            record = Record(folder / name, name, f"{path}:{line}", size_hw)
            for k in order[starts[own] : starts[own + 1]].tolist():
                where = f"{path}:{tables.lines[k]}, annotations[{k}]"
                left, top, width, height = tables.boxes[4 * k : 4 * k + 4]
                category = tables.category[k]
                if tables.crowd[k]:
                    record.dropped.append(("iscrowd: a group as one region", where))
                elif k in tables.boxless:
                    record.dropped.append((NO_BOX, f"{where}: {tables.boxless[k]}"))
                elif category not in tables.categories:
                    record.dropped.append((f"category {category} is not in the file's categories", where))
                else:
                    edges = (left, top, left + width, top + height)
                    record.add(self._ids, tables.categories[category], edges, where)
            yield record
        for k in np.flatnonzero(~np.isin(owner, list(tables.images))).tolist():
            lost = Record(path, "", f"{path}:{tables.lines[k]}, annotations[{k}]")
            lost.dropped.append(("annotation of a picture that is not in the file", lost.where))
            yield lost
        self._named[part] = {folder / name for name, _, _ in tables.images.values()}
        if self._named.keys() == self._files.keys():  # parts may share a folder
            named = set().union(*self._named.values())
            why = f"no entry in {' or '.join(self.parts().values())}"
            yield from unnamed({image.parent for image in named}, named, path.parent, why)

    def remarks(self) -> Sequence[str]:
        """See `Reader`."""
        folder, used = _annotations(self._source), set(self._files.values())
        files = [p for p in shown(folder, frozenset({".json"})) if p not in used and not p.name.startswith(OF_ELSE)]
        found = [
            (path, "another file of its part is used" if any(part in path.name for part in PARTS) else UNKNOWN)
            for path in files
        ]
        for part in PARTS:
            places = [self._source / sub / name for sub in ("", "images") for name in (part, f"{part}2017")]
            if part not in self._files:
                found += [(place, f"no file for {part} in {folder.name}/") for place in places if place.is_dir()]
        return [not_used(place, self._source, why) for place, why in found]

    def _tables(self, part: str) -> _Tables:
        if self._loaded is None or self._loaded[0] != part:
            self._loaded = None  # one part at a time in memory
            self._loaded = (part, _Tables(self._files[part]))
        return self._loaded[1]


class _Tables:
    """A file as numbers: COCO's train2017 takes some 60 MB like this."""

    def __init__(self, path: Path) -> None:
        self.index: dict[Any, int] = {}
        self.images: dict[int, tuple[str, tuple[int, int] | None, int]] = {}
        self.categories: dict[int, str] = {}
        self.owner, self.category, self.lines, self.crowd = array("q"), array("q"), array("q"), array("b")
        self.boxes = array("d")
        self.boxless: dict[int, str] = {}  # annotation to what it has for a box
        seen = set()
        for key, number, line, entry in entries(path):
            seen.add(key)
            if key not in NEEDED or number < 0:
                continue
            where = f"{path}:{line}, {key}[{number}]"
            if not isinstance(entry, dict) or any(need not in entry for need in NEEDED[key]):
                raise MisuseError(f"{where}: expected an object with {', '.join(NEEDED[key])}, found {str(entry)[:60]}")
            getattr(self, f"_{key}")(entry, where, line)
        if missing := NEEDED.keys() - seen:
            raise MisuseError(f"{path}:1: has no '{sorted(missing)[0]}', so it is no COCO file of boxes")

    def _images(self, entry: dict[str, Any], where: str, line: int) -> None:
        name = PurePosixPath(str(entry["file_name"]).replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            raise MisuseError(f"{where}: file_name '{name}' leads out of the folder of pictures")
        sides = [
            int(s) for s in (entry.get("height"), entry.get("width")) if isinstance(s, int | float) and 0 < s < 1e6
        ]
        size = (sides[0], sides[1]) if len(sides) == 2 else None
        own = self._index(entry["id"], where)
        if own in self.images:
            raise MisuseError(f"{where}: id {entry['id']} was the id of {self.images[own][0]} already")
        self.images[own] = (str(name), size, line)

    def _annotations(self, entry: dict[str, Any], where: str, line: int) -> None:
        box = entry.get("bbox")
        try:
            edges = numbers([str(value) for value in box], where) if isinstance(box, list) else []
        except MisuseError:
            edges = []
        if len(edges) != 4:
            self.boxless[len(self.owner)] = str(box)[:60]
            edges = [0.0] * 4
        self.boxes.extend(edges)
        self.owner.append(self._index(entry["image_id"], where))
        self.category.append(_whole(entry["category_id"], where))
        self.crowd.append(bool(entry.get("iscrowd")))
        self.lines.append(line)

    def _categories(self, entry: dict[str, Any], where: str, line: int) -> None:
        self.categories[_whole(entry["id"], where)] = str(entry["name"])

    def _index(self, image_id: Any, where: str) -> int:
        if not isinstance(image_id, int | str):
            raise MisuseError(f"{where}: expected a number or a name as image id, found {str(image_id)[:60]}")
        return self.index.setdefault(image_id, len(self.index))


def _whole(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 1 << 60:
        raise MisuseError(f"{where}: expected a whole number as category id, found {str(value)[:60]}")
    return value


def _files(source: Path) -> dict[str, Path]:
    """The JSON file of each part by the part's name in its own."""
    folder, found = _annotations(source), dict[str, Path]()
    for part in PARTS:
        files = sorted(p for p in folder.glob(f"*{part}*.json") if not p.name.startswith("image_info"))
        beside = [path for name in FOLDERS[part] if (path := source / name / ROBOFLOW).is_file()]
        boxes = [p for p in files if p.name.startswith("instance")] or files or beside
        if len(boxes) > 1:
            names = ", ".join(_name(p) for p in boxes[:4])
            raise MisuseError(f"source={source}: {part} could be {names}; leave one of them in {folder.name}/")
        if boxes:
            other = next((known for known, path in found.items() if path == boxes[0]), None)
            if other is not None:
                raise MisuseError(
                    f"source={source}: {boxes[0].name} could be {other} and {part}; give it a name with one of them only, and "
                    "part what comes out with yolo-kd data split"
                )
            found[part] = boxes[0]
    if not found:
        raise MisuseError(
            f"source={source}: expected annotations/*train*.json or *val*.json there, or train/{ROBOFLOW}"
        )
    return found


def _name(path: Path) -> str:
    """What a part's file is called, with its folder where that says which part it is."""
    return f"{path.parent.name}/{path.name}" if path.name == ROBOFLOW else path.name


def _annotations(source: Path) -> Path:
    return source / "annotations" if (source / "annotations").is_dir() else source


def _folder(source: Path, part: str, path: Path, tables: _Tables) -> Path:
    """Where the pictures of a part lie: the first usual place that has the first of them."""
    stem = path.stem.removeprefix("instances_").removeprefix("instance_")
    names = [name for name, _, _ in tables.images.values()]
    usual = [source / sub / name for sub in ("", "images") for name in (stem, part, f"{part}2017", "")]
    places = [path.parent] if path.name == ROBOFLOW else usual
    for place in places:
        if names and any((place / name).is_file() for name in names[:20]):
            return place
    raise MisuseError(f"source={source}: the pictures of {path.name} are in none of {', '.join(map(str, places[:6]))}")
