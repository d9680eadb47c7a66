"""BDD100K: one JSON per part, a list of frames with `name` and `labels`, each with `category` and, for objects, `box2d`.

box2d is x1, y1, x2, y2 in pixels, the last pixel included (Scalabel), so the right edge is x2 + 1. Lanes and drivable areas
have none. What the detection of 2020 does not evaluate (other vehicle, other person, trailer; crowd or ignored regions) is
dropped and counted. The labels of 2018 say person, motor and bike for pedestrian, motorcycle and bicycle.
https://doc.bdd100k.com/format.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from yolo_kd.data.converters.json_stream import entries
from yolo_kd.data.converters.record import Record, ids_of, not_used, numbers, pictures, unnamed

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

NAMES = (
    "pedestrian", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle", "traffic light", "traffic sign",
)  # fmt: skip
OF_2018 = {"person": "pedestrian", "motor": "motorcycle", "bike": "bicycle"}
FILES = (
    "labels/det_20/det_{}.json",
    "labels/bdd100k_labels_images_{}.json",
    "det_{}.json",
    "bdd100k_labels_images_{}.json",
)
PICTURES = ("images/100k", "images", "100k", "")
PARTS = ("train", "val", "test")
CORNERS = ("x1", "y1", "x2", "y2")


class Bdd:
    """`source` holds labels/det_20/det_train.json etc. (or the files of 2018) and images/100k/train etc."""

    def __init__(self, source: Path, names: Sequence[str] | None = None) -> None:
        self.names = list(names or NAMES)
        self._ids, self._source = ids_of(self.names), source
        self._files: dict[str, Path] = {}
        for part in PARTS:
            found = [source / name.format(part) for name in FILES if (source / name.format(part)).is_file()]
            self._files |= {part: found[0]} if found else {}
        if not self._files:
            raise MisuseError(
                f"source={source}: expected {FILES[0].format('train')} or {FILES[1].format('train')} there"
            )

    def parts(self) -> Mapping[str, str]:
        """See `Reader`."""
        return {part: path.name for part, path in self._files.items()}

    def count(self, part: str) -> int:
        """See `Reader`."""
        return len(pictures(self._folder(part), IMAGE_SUFFIXES))

    def records(self, part: str) -> Iterator[Record]:
        """See `Reader`."""
        folder, seen = self._folder(part), set()
        for where, frame in self._frames(part):
            name = PurePosixPath(str(frame.get("name", "")))
            if not name.name or name.is_absolute() or ".." in name.parts:
                raise MisuseError(f"{where}: expected the file name of a picture, found '{str(name)[:60]}'")
            record = Record(folder / name, str(name), where)
            seen.add(record.image)
            labels = frame.get("labels") or []
            if not isinstance(labels, list):
                raise MisuseError(f"{where}: expected labels as a list, found {str(labels)[:60]}")
            for number, label in enumerate(labels):
                self._add(record, f"{where}, labels[{number}]", label)
            yield record
        path = self._files[part]
        yield from unnamed([folder, *(image.parent for image in seen)], seen, path, f"no entry in {path.name}")

    def remarks(self) -> Sequence[str]:
        """See `Reader`."""
        found = []
        for part in PARTS:
            used = self._files.get(part)
            if used is None:
                folders = [self._source / top / part for top in PICTURES]
                found += [(folder, f"no file of labels for {part}") for folder in folders if folder.is_dir()]
                continue
            others = (self._source / name.format(part) for name in FILES)
            said = f"{used.relative_to(self._source).as_posix()} is used"
            found += [(path, said) for path in others if path.is_file() and path != used]
        return [not_used(place, self._source, why) for place, why in found]

    def _frames(self, part: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Place and content of each frame, from a file that is a list or has one under `frames`."""
        path = self._files[part]
        for key, number, line, entry in entries(path):
            if key in ("", "frames") and number >= 0:
                where = f"{path}:{line}, frames[{number}]"
                if not isinstance(entry, dict):
                    raise MisuseError(f"{where}: expected an object with name and labels, found {str(entry)[:60]}")
                yield where, entry

    def _folder(self, part: str) -> Path:
        places = [self._source / top / part for top in PICTURES]
        found = next((place for place in places if place.is_dir()), None)
        if found is None:
            raise MisuseError(
                f"source={self._source}: the pictures of {part} are in none of {', '.join(map(str, places))}"
            )
        return found

    def _add(self, record: Record, where: str, label: Any) -> None:
        if not isinstance(label, dict) or "category" not in label:
            raise MisuseError(f"{where}: expected an object with category, found {str(label)[:60]}")
        category, box, attributes = str(label["category"]), label.get("box2d"), label.get("attributes")
        if not box:
            record.dropped.append((f"no box2d: {category}", where))
            return
        if not isinstance(box, dict) or any(corner not in box for corner in CORNERS):
            raise MisuseError(f"{where}: expected box2d with x1, y1, x2, y2, found {str(box)[:60]}")
        left, top, right, bottom = numbers([str(box[corner]) for corner in CORNERS], where)
        marks = attributes if isinstance(attributes, dict) else {}
        if marks.get("crowd") or marks.get("ignored") or label.get("ignored"):
            record.dropped.append(("crowd or ignored: not counted in the evaluation", where))
        else:
            record.add(self._ids, OF_2018.get(category, category), (left, top, right + 1, bottom + 1), where)
