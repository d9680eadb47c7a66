"""What a reader of labels hands over for each picture, and what it may refuse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from yolo_kd.data.split import normalise

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES

Edges = tuple[float, float, float, float]


@dataclass
class Record:
    """One picture and its objects.

    Args:
        image: Where it lies.
        name: What it is called below images/<part>/; may have folders.
        where: The file that says so, and the line if it is one of many.
        size_hw: Height and width as that file gives them, None if it does not.
        boxes: Class id and left, top, right, bottom edge in pixels, 0 being the left edge of the first.
        dropped: Objects that are left out: why, and where they stand.
        refused: Why the picture itself is left out, or an empty text.
    """

    image: Path
    name: str
    where: str
    size_hw: tuple[int, int] | None = None
    boxes: list[tuple[int, Edges]] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    refused: str = ""

    def add(self, ids: Mapping[str, int], name: str, edges: Edges, where: str) -> None:
        """An object, or the note that no class of that name is wanted."""
        kind = ids.get(normalise(name))
        if kind is None:
            self.dropped.append((f"class '{name}' is not among the names", where))
        else:
            self.boxes.append((kind, edges))


class Reader(Protocol):
    """A format.

    Args:
        source: Folder of the data set as it was unpacked.
        names: Classes in the order of their ids; what has another name is left out. The format's own if None.
    """

    names: Sequence[str]

    def __init__(self, source: Path, names: Sequence[str] | None = None) -> None: ...

    def parts(self) -> Mapping[str, str]:
        """The parts that are there (train, val, test) and in words where each comes from."""

    def count(self, part: str) -> int:
        """Number of pictures of a part."""

    def records(self, part: str) -> Iterator[Record]:
        """The pictures of a part, one at a time; those that no part names come as refused ones with the last part.

        Raises:
            MisuseError: A file that is not of the format; the message is one line and names file and line.
        """

    def remarks(self) -> Sequence[str]:
        """Once every part was read, what lies there and is of no part, and what looks wrong."""


def ids_of(names: Sequence[str]) -> dict[str, int]:
    """Class id of each normalised name.

    Raises:
        MisuseError: Two names are the same but for case, spaces, hyphens or underscores.
    """
    ids = {normalise(name): i for i, name in enumerate(names)}
    if len(ids) < len(names):
        raise MisuseError(f"names={', '.join(names)}: two of them are the same but for case, spaces or hyphens")
    return ids


def numbers(words: Sequence[str], where: str) -> list[float]:
    """Words as finite numbers.

    Raises:
        MisuseError: One is none.
    """
    try:
        found = [float(word) for word in words]
    except ValueError:
        raise MisuseError(f"{where}: expected numbers, found '{' '.join(words)[:60]}'") from None
    if any(value != value or abs(value) == float("inf") for value in found):
        raise MisuseError(f"{where}: expected finite numbers, found '{' '.join(words)[:60]}'")
    return found


def pictures(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The pictures of a folder without its subfolders, sorted.

    Raises:
        MisuseError: There is none.
    """
    found = shown(folder, suffixes)
    if not found:
        raise MisuseError(
            f"{folder}: expected a folder of pictures, found {'none' if folder.is_dir() else 'no folder'}"
        )
    return found


def shown(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """The files of a folder with one of these suffixes, sorted, but for hidden ones; none if there is no such folder."""
    there = folder.iterdir() if folder.is_dir() else ()
    return sorted(p for p in there if p.suffix.lower() in suffixes and not p.name.startswith("."))


def unnamed(folders: Iterable[Path], named: Collection[Path], where: Path, why: str) -> Iterator[Record]:
    """The pictures of folders that are not among those that the labels name, as refused ones."""
    for image in (image for folder in sorted(set(folders)) for image in shown(folder, IMAGE_SUFFIXES)):
        if image not in named:
            yield Record(image, image.name, str(where), refused=why)


def not_used(place: Path, source: Path, why: str) -> str:
    """A remark about a file or folder that is of no part."""
    return f"not used: {place.relative_to(source).as_posix()}: {why}"


def lines_of(path: Path) -> list[tuple[str, str]]:
    """`file:line` and text of each line that is not blank.

    Raises:
        MisuseError: It cannot be read, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise MisuseError(f"{path}:1: cannot be read ({what})") from None
    return [(f"{path}:{number}", line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def fill(record: Record, label: Path, add: Callable[[Record, str, str], None]) -> None:
    """Every line of a picture's own label file, by `add(record, "file:line", line)`; without the file no picture."""
    if not label.is_file():
        record.refused = "no annotation file"
        return
    for where, line in lines_of(label):
        add(record, where, line)
