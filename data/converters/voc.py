"""PASCAL VOC: an XML per picture, `object` with `name`, `difficult` and `bndbox` in pixels counted from 1, ends included.

So xmin=1, xmax=w is the whole width: left edge xmin - 1, right edge xmax. (Ultralytics takes one off either centre and none
off the width, half a pixel to the left of this.) Files of others in this format often have the edges themselves, so that
xmin=0, xmax=w is the whole width: `first=0`. Difficult objects do not count in the official evaluation; they are
dropped and counted unless `difficult` is set. Of VOCdevkit the usual 07+12 is made: train and val lists train, the test
list validates; any other folder keeps its lists as they are.
http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.parsers import expat

from yolo_kd.data.converters.record import Record, ids_of, lines_of, not_used, numbers, unnamed

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
    "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")
PARTS = ("train", "val", "test")
OF_A_CLASS = tuple(f"_{part}" for part in (*PARTS, "trainval"))


class Voc:
    """`source` is VOCdevkit (VOC2007, VOC2012), or a folder with Annotations/, JPEGImages/ and ImageSets/Main/*.txt."""

    def __init__(
        self, source: Path, names: Sequence[str] | None = None, difficult: bool = False, first: int = 1
    ) -> None:
        self.names = list(names or NAMES)
        self._ids, self._difficult, self._first = ids_of(self.names), difficult, first
        places = [source] if (source / "Annotations").is_dir() else sorted(source.glob("VOC20[0-9][0-9]"))
        lists = [p for place in places for p in sorted((place / "ImageSets" / "Main").glob("*.txt"))]
        if not lists:
            raise MisuseError(
                f"source={source}: expected VOC2007 etc., or Annotations/, JPEGImages/ and ImageSets/Main/"
            )
        official = places != [source] or source.match("VOC20[0-9][0-9]")
        given = {name: [p for p in lists if p.stem == name] for name in PARTS}
        given["train"] += [p for p in lists if p.stem == "trainval" and not _halves(p)]
        if official and given["test"]:
            given = {"train": given["train"] + given["val"], "val": given["test"]}
        self._lists = {part: found for part, found in given.items() if found}
        if not self._lists:
            raise MisuseError(f"source={source}: ImageSets/Main has no train.txt, val.txt or test.txt")
        self._source, self._unused = source, set(lists).difference(*self._lists.values())
        self._named: set[Path] = set()
        self._before = 0  # boxes that begin where there is no pixel

    def parts(self) -> Mapping[str, str]:
        """See `Reader`."""
        return {part: ", ".join(f"{p.parents[2].name}/{p.name}" for p in lists) for part, lists in self._lists.items()}

    def count(self, part: str) -> int:
        """See `Reader`."""
        return sum(len(lines_of(path)) for path in self._lists[part])

    def records(self, part: str) -> Iterator[Record]:
        """See `Reader`."""
        for path in self._lists[part]:
            place = path.parents[2]
            for _, line in lines_of(path):
                whole = (place / "Annotations" / f"{line}.xml").is_file()  # a name may have blanks
                stem = line if whole else line.split()[0]  # and some lists have a second column
                label, image = place / "Annotations" / f"{stem}.xml", _picture(place / "JPEGImages" / stem)
                record = Record(image, image.name, str(label))
                if label.is_file():
                    self._fill(record, label)
                else:
                    record.refused = "no annotation file"
                self._named.add(image)
                yield record
        if part == list(self._lists)[-1]:
            folders = {path.parents[2] / "JPEGImages" for lists in self._lists.values() for path in lists}
            yield from unnamed(folders, self._named, path.parent, "in no list of ImageSets/Main that was used")

    def remarks(self) -> Sequence[str]:
        """See `Reader`."""
        others = [p for p in sorted(self._unused) if not p.stem.endswith(OF_A_CLASS)]
        others = [p for p in others if p.stem != "trainval" or _halves(p) != 2]
        found = [not_used(path, self._source, "only train.txt, val.txt and test.txt are parts") for path in others]
        if self._before:
            found.append(
                f"{self._before} boxes begin before pixel 1, where this format counts from 1; first=0 is for files that do not"
            )
        return found

    def _fill(self, record: Record, label: Path) -> None:
        root = parse(label)
        size = root.child("size")
        if size is not None:
            height, width = (int(_number(size, name, label)) for name in ("height", "width"))
            record.size_hw = (height, width) if height > 0 and width > 0 else None
        for thing in root.children:
            if thing.tag != "object":
                continue
            where = f"{label}:{thing.line}"
            name, box = thing.child("name"), thing.child("bndbox")
            if name is None or box is None:
                raise MisuseError(f"{where}: expected an object with name and bndbox")
            left, top, right, bottom = (_number(box, corner, label) for corner in CORNERS)
            self._before += min(left, top) < self._first
            difficult = thing.child("difficult")
            if difficult is not None and difficult.text.strip() == "1" and not self._difficult:
                record.dropped.append(("difficult: not counted in the evaluation", where))
            else:
                record.add(self._ids, name.text.strip(), (left - self._first, top - self._first, right, bottom), where)


@dataclass
class Element:
    """A part of an XML file.

    Args:
        tag: Its name.
        line: Where it begins.
        text: What stands in it.
        children: Those below it.
    """

    tag: str
    line: int
    text: str = ""
    children: list[Element] = field(default_factory=list)

    def child(self, tag: str) -> Element | None:
        """The first one below of that name."""
        return next((child for child in self.children if child.tag == tag), None)


def parse(path: Path) -> Element:
    """An XML file as elements that know their lines.

    Raises:
        MisuseError: It cannot be read, is no XML, or declares entities.
    """
    parser, top = expat.ParserCreate(), Element("", 0)
    open_ = [top]

    def start(tag: str, _: Any) -> None:
        open_.append(Element(tag, parser.CurrentLineNumber))
        open_[-2].children.append(open_[-1])

    def text(data: str) -> None:
        open_[-1].text += data

    def doctype(*_: Any) -> None:
        raise MisuseError(f"{path}:{parser.CurrentLineNumber}: has a DOCTYPE, which no annotation needs; not read")

    parser.StartElementHandler, parser.EndElementHandler = start, lambda _: open_.pop()
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = text, doctype
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise MisuseError(f"{path}:{error.lineno}: no XML ({expat.ErrorString(error.code)})") from None
    except (OSError, ValueError) as error:
        raise MisuseError(f"{path}:1: cannot be read ({error})") from None
    return top.children[0]


def _halves(trainval: Path) -> int:
    """How many of the two lists that it is the sum of are there."""
    return sum(trainval.with_name(f"{part}.txt").is_file() for part in ("train", "val"))


def _number(element: Element, tag: str, path: Path) -> float:
    child = element.child(tag)
    if child is None:
        raise MisuseError(f"{path}:{element.line}: {element.tag} has no {tag}")
    return numbers([child.text.strip()], f"{path}:{child.line}")[0]


def _picture(stem: Path) -> Path:
    """The picture of that name, .jpg if there is none."""
    usual = stem.with_name(stem.name + ".jpg")
    if usual.is_file():
        return usual
    others = (stem.with_name(stem.name + suffix) for suffix in sorted(IMAGE_SUFFIXES))
    return next((path for path in others if path.is_file()), usual)
