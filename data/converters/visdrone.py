"""VisDrone-DET: a .txt per picture, `left,top,width,height,score,category,truncation,occlusion` per object, in pixels.

Score 0 marks what the evaluation does not count: ignored regions (category 0, mostly crowds) and single objects. Category
11 is "others". None of these is a background, but a label file can only name what is there, so they are dropped and
counted, as in every published conversion.
https://github.com/VisDrone/VisDrone2018-DET-toolkit
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from yolo_kd.data.converters.record import Record, fill, ids_of, not_used, numbers, pictures

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

CATEGORIES = (
    "pedestrian", "people", "bicycle", "car", "van", "truck", "tricycle", "awning-tricycle", "bus", "motor",
)  # fmt: skip
FOLDERS = {"train": "*-train", "val": "*-val", "test": "*-test-dev"}
COLUMNS = 8


class VisDrone:
    """`source` holds VisDrone2019-DET-train, -val and -test-dev, or is one of them (or any images/ + annotations/)."""

    def __init__(self, source: Path, names: Sequence[str] | None = None) -> None:
        self.names = list(names or CATEGORIES)
        self._ids = ids_of(self.names)
        self._source, self._folders = source, dict[str, Path]()
        for part, pattern in FOLDERS.items():
            places = [source] if source.match(pattern) else sorted(source.glob(pattern))
            labelled = [place for place in places if (place / "annotations").is_dir()]
            if labelled:
                self._folders[part] = labelled[0]
        if not self._folders and (source / "annotations").is_dir():
            self._folders = {"train": source}
        if not self._folders:
            raise MisuseError(f"source={source}: expected VisDrone2019-DET-train etc., or images/ and annotations/")

    def parts(self) -> Mapping[str, str]:
        """See `Reader`."""
        return {part: folder.name for part, folder in self._folders.items()}

    def count(self, part: str) -> int:
        """See `Reader`."""
        return len(self._images(part))

    def records(self, part: str) -> Iterator[Record]:
        """See `Reader`."""
        for image in self._images(part):
            label = self._folders[part] / "annotations" / f"{image.stem}.txt"
            record = Record(image, image.name, str(label))
            fill(record, label, self._add)
            yield record

    def remarks(self) -> Sequence[str]:
        """See `Reader`."""
        part_of = {folder: part for part, folder in self._folders.items()}
        found = []
        for place in sorted(self._source.glob("*/images")) if self._source not in part_of else ():
            folder = place.parent
            taken = [part for part, pattern in FOLDERS.items() if folder.match(pattern) and part in self._folders]
            why = f"{taken[0]} is {self._folders[taken[0]].name} already" if taken else "its name is of no part"
            why = why if (folder / "annotations").is_dir() else "no annotations/ there"
            found += [not_used(folder, self._source, why)] if folder not in part_of else []
        return found

    def _images(self, part: str) -> list[Path]:
        return pictures(self._folders[part] / "images", IMAGE_SUFFIXES)

    def _add(self, record: Record, where: str, line: str) -> None:
        words = line.removesuffix(",").split(",")
        if len(words) != COLUMNS:
            raise MisuseError(f"{where}: expected {COLUMNS} numbers with commas between, found '{line[:60]}'")
        left, top, width, height, score, category, _, _ = numbers(words, where)
        if category not in range(len(CATEGORIES) + 2):
            raise MisuseError(f"{where}: expected a category from 0 to 11, found {category:g}")
        if category == 0:
            record.dropped.append(("category 0: ignored region", where))
        elif category == len(CATEGORIES) + 1:
            record.dropped.append(("category 11: others", where))
        elif score == 0:
            record.dropped.append(("score 0: not counted in the evaluation", where))
        else:
            edges = (left, top, left + width, top + height)
            record.add(self._ids, CATEGORIES[int(category) - 1], edges, where)
