"""KITTI object detection: a .txt per picture, 15 columns per object: type, truncated, occluded, alpha, then the box.

`bbox` is left, top, right, bottom in pixels counted from 0. DontCare marks regions with objects that nobody labelled; it
is dropped and counted. There is no official validation part: the lists that papers share (ImageSets/train.txt, val.txt)
are used where they lie beside the folders; otherwise everything is train, and `yolo-kd data split` parts it by scene,
because pictures of one drive follow each other.
https://www.cvlibs.net/datasets/kitti/eval_object.php
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from yolo_kd.data.converters.record import Record, fill, ids_of, lines_of, not_used, numbers, pictures, unnamed

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

TYPES = ("car", "van", "truck", "pedestrian", "person_sitting", "cyclist", "tram", "misc")
PARTS = ("train", "val")
COLUMNS = (15, 16)  # the last one is a score, in results only


class Kitti:
    """`source` holds training/image_2 and training/label_2, or image_2 and label_2."""

    def __init__(self, source: Path, names: Sequence[str] | None = None) -> None:
        self.names = list(names or TYPES)
        self._ids = ids_of(self.names)
        places = [place for place in (source / "training", source) if (place / "label_2").is_dir()]
        if not places:
            raise MisuseError(f"source={source}: expected training/image_2 and training/label_2 there")
        self._source, self._folder, self._sets = source, places[0], source / "ImageSets"
        lists = {part: self._sets / f"{part}.txt" for part in PARTS}
        self._lists = lists if all(path.is_file() for path in lists.values()) else {}

    def parts(self) -> Mapping[str, str]:
        """See `Reader`."""
        if self._lists:
            return {part: f"ImageSets/{path.name}" for part, path in self._lists.items()}
        return {"train": f"all of {self._folder.name}/image_2, because there is no list for val"}

    def count(self, part: str) -> int:
        """See `Reader`."""
        return len(self._images(part))

    def records(self, part: str) -> Iterator[Record]:
        """See `Reader`."""
        for image in self._images(part):
            label = self._folder / "label_2" / f"{image.stem}.txt"
            record = Record(image, image.name, str(label))
            fill(record, label, self._add)
            yield record
        if self._lists and part == list(self._lists)[-1]:
            named = {image for every in self._lists for image in self._images(every)}
            yield from unnamed([self._folder / "image_2"], named, self._sets, "in no list of ImageSets")

    def remarks(self) -> Sequence[str]:
        """See `Reader`."""
        alone = [] if self._lists else [self._sets / f"{part}.txt" for part in PARTS]
        found = [(path, "train.txt and val.txt are used together only") for path in alone if path.is_file()]
        testing = self._source / "testing" / "image_2"
        found += [(testing, "no labels for it")] if testing.is_dir() else []
        return [not_used(place, self._source, why) for place, why in found]

    def _images(self, part: str) -> list[Path]:
        folder = self._folder / "image_2"
        if not self._lists:
            return pictures(folder, IMAGE_SUFFIXES)
        return [folder / f"{stem}.png" for _, stem in lines_of(self._lists[part])]

    def _add(self, record: Record, where: str, line: str) -> None:
        words = line.split()
        if len(words) not in COLUMNS:
            raise MisuseError(f"{where}: expected {COLUMNS[0]} columns, type first, found '{line[:60]}'")
        left, top, right, bottom = numbers(words[1:], where)[3:7]
        if words[0] == "DontCare":
            record.dropped.append(("DontCare", where))
        else:
            record.add(self._ids, words[0], (left, top, right, bottom), where)
