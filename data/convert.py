"""Other people's labels to a data set that Ultralytics trains on, one picture at a time, with a report of what was dropped.

The folder is filled file by file, each under its name only when it is whole, so that a run that was stopped goes on where
it was: pictures that are there in full length are not copied again, labels are written anew. data.yaml comes last.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from yolo_kd.cfg.atomic import refusal, write_text
from yolo_kd.cfg.documents import parse_json
from yolo_kd.data.converters import load
from yolo_kd.data.converters.record import Reader, Record
from yolo_kd.data.labels import label_text
from yolo_kd.data.split import label_path

from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.pictures.reading import PictureError, glance, read_picture, turn_of

REPORT = "convert.json"
HOW = ("copy", "hardlink", "symlink")
EXAMPLES = 20  # places kept of each reason
EVERY = 50  # pictures between two lines of progress
SWAPPED = 5  # EXIF's orientations from here on swap the sides of a picture
THIN = 0.5  # pixels; a box that is thinner once it is cut at the picture's edge has no area to learn
Progress = Callable[[str, int, int], None]


@dataclass
class Conversion:
    """What was converted and what was not.

    Args:
        names: Class names in the order of their ids.
        parts: Part to where it came from, its numbers of images, of images without objects, and of boxes by class.
        dropped: Objects left out: reason to number and places.
        refused: Pictures left out: reason to number and places.
        cut: Boxes that reached out of their picture by more than a pixel and were cut at its edge.
        turned: Pictures that are read turned or mirrored, as their EXIF says.
        remarks: What lies in the source and is of no part, and what looks wrong.
    """

    names: Sequence[str] = ()
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: dict[str, dict[str, Any]] = field(default_factory=dict)
    cut: int = 0
    turned: int = 0
    remarks: list[str] = field(default_factory=list)

    def note(self, table: dict[str, dict[str, Any]], reason: str, where: str) -> None:
        """Count a reason and keep its first places."""
        row = table.setdefault(reason, {"count": 0, "examples": []})
        row["count"] += 1
        if len(row["examples"]) < EXAMPLES:
            row["examples"].append(where)

    def lines(self) -> list[str]:
        """A summary for a terminal."""
        found = []
        for part, row in self.parts.items():
            bare = f" ({row['without_objects']} without objects)" if row["without_objects"] else ""
            boxes = sum(row["boxes"].values())
            found.append(f"{part}: {row['images']} images{bare}, {boxes} boxes, from {row['from']}")
        for what, table in (("pictures left out", self.refused), ("objects left out", self.dropped)):
            for reason, row in sorted(table.items(), key=lambda item: -item[1]["count"]):
                found.append(f"{what}: {row['count']}, {reason}; e.g. {row['examples'][0]}")
        if self.cut:
            found.append(f"{self.cut} boxes reached out of their picture and were cut at its edge")
        if self.turned:
            found.append(
                f"{self.turned} pictures are turned or mirrored by their EXIF; their labels are taken to be of what is seen then"
            )
        found += self.remarks
        return found


def convert(
    kind: str,
    source: Path,
    out: Path,
    names: Sequence[str] | None = None,
    images: str = "copy",
    progress: Progress | None = None,
    **options: Any,
) -> Conversion:
    """Convert a data set; run it again after an interruption and it goes on.

    Args:
        kind: A key of `CONVERTERS`.
        source: Folder of the data set as it was unpacked; stays as it is.
        out: Folder to fill.
        names: Classes in the order of their ids; objects of others are left out. The format's own if None.
        images: "copy", "hardlink" or "symlink".
        progress: Called with (step, done, total).
        **options: The format's own, such as difficult=True or first=0 for VOC.

    Raises:
        MisuseError: No such format or folder, a file that is not of the format, or `out` holds something else.
        YoloKDError: No picture can be used. Or the disk is full; there is nothing half-written, and another run goes on.
    """
    if images not in HOW:
        raise MisuseError(f"images={images}: expected one of {', '.join(HOW)}")
    if not source.is_dir():
        raise MisuseError(f"source={source}: no such folder; expected the data set as it was unpacked")
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise MisuseError(f"out={out}: lies in the source, which stays as it is; choose another folder")
    reader = load(kind)(source, names, **options)
    asked = {"from": kind, "source": str(source.resolve()), "names": list(names or []), "images": images, **options}
    _claim(out, asked)
    found = Conversion(reader.names)
    for part, origin in reader.parts().items():
        found.parts[part] = _convert_part(reader, part, origin, out, images, found, progress)
    found.remarks += reader.remarks()
    empty = [part for part, row in found.parts.items() if not row["images"]]
    found.remarks += [f"{part}: none of its pictures can be used, so data.yaml does not name it" for part in empty]
    if len(empty) == len(found.parts):
        write_text(out / REPORT, _report(asked, False, found))
        count = sum(row["count"] for row in found.refused.values())
        reasons = ", ".join(list(found.refused)[:3]) or "there is none"
        raise YoloKDError(
            f"source={source}: none of {count} pictures can be used ({reasons}); {out / REPORT} lists them"
        )
    header = f"# {kind} data, converted by yolo-kd data convert; what was left out is in {REPORT}\n"
    content: dict[str, Any] = {part: f"images/{part}" for part in found.parts if part not in empty}
    content["names"] = dict(enumerate(found.names))
    write_text(out / "data.yaml", header + yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    write_text(out / REPORT, _report(asked, True, found))
    return found


def _claim(out: Path, asked: dict[str, Any]) -> None:
    """Take an empty folder, or one in which the same conversion was begun."""
    if out.exists() and not out.is_dir():
        raise MisuseError(f"out={out}: is a file, expected a place for a folder")
    if out.is_dir() and any(out.iterdir()):
        try:
            before = parse_json((out / REPORT).read_text(encoding="utf-8"))["asked"]
        except (OSError, ValueError, KeyError, TypeError):
            raise MisuseError(
                f"out={out}: is not empty and holds no {REPORT}, so it is not ours; choose another"
            ) from None
        for key in asked.keys() | before.keys():
            if asked.get(key) != before.get(key):
                raise MisuseError(
                    f"out={out}: was begun with {key}={before.get(key)}, asked for is {key}={asked.get(key)}; ask for the "
                    "same, or choose another folder"
                )
    write_text(out / REPORT, _report(asked, False, Conversion()))


def _report(asked: dict[str, Any], done: bool, found: Conversion) -> str:
    content = {"asked": asked, "done": done, **vars(found), "names": list(found.names)}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _convert_part(
    reader: Reader, part: str, origin: str, out: Path, how: str, found: Conversion, progress: Progress | None
) -> dict[str, Any]:
    boxes: Counter[str] = Counter()
    images = bare = 0
    taken: set[str] = set()
    total = reader.count(part)
    for number, record in enumerate(reader.records(part), 1):
        if progress is not None and (number % EVERY == 0 or number == total):
            progress(f"converting {part}", min(number, total), total)
        for reason, where in record.dropped:
            found.note(found.dropped, reason, where)
        if not record.name:
            continue
        stem = record.name.rpartition(".")[0]
        reason = record.refused or ("a second picture of that name" if stem in taken else "")
        size = None if reason else _size(record, found)
        if reason:
            found.note(found.refused, reason, f"{record.where} ({record.image.name})")
        if size is None:
            continue
        taken.add(stem)
        kinds, rows = _rows(record, size, found)
        _write(record, out, part, how, label_text(rows, kinds))
        images += 1
        bare += not len(rows)
        boxes.update(found.names[kind] for kind in kinds.tolist())
    ordered = {name: boxes[name] for name in found.names}
    return {"from": origin, "images": images, "without_objects": bare, "boxes": ordered}


def _size(record: Record, found: Conversion) -> tuple[int, int] | None:
    """Height and width of the picture as training reads it; None, noted, if it cannot be used or its labels are of another size."""
    try:
        turn, size = turn_of(record.image), glance(record.image)
        if turn >= SWAPPED:
            size = read_picture(record.image).pixels.shape[:2]
    except PictureError as error:
        found.note(found.refused, f"the picture is {error.kind}", str(error))
        return None
    height, width = size
    if record.size_hw not in (None, (height, width)):
        said = "x".join(map(str, record.size_hw[::-1])) if record.size_hw else ""
        if turn >= SWAPPED and record.size_hw == (width, height):
            where = f"{record.where} says {said}, {record.image.name} is read as {width}x{height}"
            found.note(found.refused, "the labels are for the picture as it is stored, which its EXIF turns", where)
            return None
        where = f"{record.where} says {said}, {record.image.name} has {width}x{height}"
        found.note(found.refused, "the labels are for another size of picture", where)
        return None
    found.turned += turn > 1
    return height, width


def _rows(record: Record, size_hw: tuple[int, int], found: Conversion) -> tuple[np.ndarray, np.ndarray]:
    """Class ids (N,) and boxes (N, 4) as cx, cy, w, h in shares, cut at the picture's edge; each box once."""
    height, width = size_hw
    limit = np.array([width, height, width, height], float)
    rows: dict[tuple[int, tuple[float, ...]], None] = {}
    for kind, edges in record.boxes:
        given = np.array(edges, float)
        kept = np.clip(given, 0, limit)
        w, h = kept[2] - kept[0], kept[3] - kept[1]
        shown = f"{record.where}: box {', '.join(f'{edge:g}' for edge in edges)}"
        if given[2] <= given[0] or given[3] <= given[1]:
            found.note(found.dropped, "a box without area", shown)
        elif min(w, h) < THIN:
            found.note(found.dropped, "a box outside of the picture, or less than half a pixel thin", shown)
        else:
            found.cut += bool(np.abs(given - kept).max() > 1)
            row = (kind, ((kept[0] + kept[2]) / 2 / width, (kept[1] + kept[3]) / 2 / height, w / width, h / height))
            if row in rows:
                found.note(found.dropped, "the same box again", shown)
            rows[row] = None
    return np.array([kind for kind, _ in rows], np.int64), np.array([box for _, box in rows], float).reshape(-1, 4)


def _write(record: Record, out: Path, part: str, how: str, text: str) -> None:
    """The picture if it is not there yet, then its labels."""
    image = out / "images" / part / record.name
    label = label_path(image.absolute())  # where training looks; a name may have a folder `images` of its own
    try:
        if not (image.exists() and image.stat().st_size == record.image.stat().st_size):
            image.parent.mkdir(parents=True, exist_ok=True)
            part_file = image.with_name(f".{image.name}.part")
            part_file.unlink(missing_ok=True)
            if how == "symlink":
                part_file.symlink_to(record.image.resolve())
            elif how == "hardlink":
                os.link(record.image.resolve(), part_file)
            else:
                shutil.copy2(record.image, part_file)
                with part_file.open("rb") as file:
                    os.fsync(file.fileno())  # else a crash of the machine may leave the new name with nothing in it
            part_file.replace(image)
    except OSError as error:
        if how != "copy":
            raise MisuseError(f"images={how}: {image} cannot be linked ({error.strerror}); use images=copy") from error
        raise refusal(error, image) from error
    write_text(label, text)
