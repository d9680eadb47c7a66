"""Pictures as they lie on disk: found, read, and what is wrong with one that cannot be used.

They are read as training reads them (three channels, 8 bits, turned as EXIF says), because a net has to be calibrated on
what it will see.
"""

from __future__ import annotations

import glob
import hashlib
import io
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.headers import PNG, orientation, size_in_header
from yolo_kd.pictures.wholeness import is_whole

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
LARGEST = 100_000_000  # pixels; 300 MB once decoded, more than any sensor of a drone or car gives in one frame
OPENED = 178_956_970  # pixels; PIL, with which training looks at every picture, opens none that has more
LONGEST = 1 << 14  # pixels a side; the letterbox takes no more


class PictureError(MisuseError):
    """A file that is no usable picture.

    Args:
        kind: "missing", "unreadable", "empty", "damaged", "giant", "oversized" or "black".
        message: One line that names the file.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Picture:
    """A picture that was read.

    Args:
        pixels: (H, W, 3) uint8 BGR.
        sha256: Of the file's bytes, in hexadecimal.
        remark: What a reader of the report should know about it, or an empty text.
    """

    pixels: np.ndarray
    sha256: str
    remark: str = ""


def files_below(folder: Path) -> list[Path]:
    """What lies in a folder and its subfolders, sorted, as Ultralytics lists it: links are followed, hidden files left out.

    A link to nothing is among them.
    """
    names = glob.iglob("**/*", root_dir=folder, recursive=True)  # noqa: PTH207  # pathlib enters no link
    return sorted(path for path in (folder / name for name in names) if not path.is_dir())


def find_media(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and videos in a folder and its subfolders, each sorted.

    Raises:
        MisuseError: No such folder, or nothing of the kind in it.
    """
    if not folder.is_dir():
        raise MisuseError(f"{folder}: no such folder")
    files = [p for p in files_below(folder) if p.is_file()]
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    videos = [p for p in files if p.suffix.lower() in VIDEO_SUFFIXES]
    if not images and not videos:
        counts = Counter(p.suffix.lower() or "files without suffix" for p in files)
        found = ", ".join(f"{n} {kind}" for kind, n in counts.most_common(4)) or "nothing"
        raise MisuseError(f"{folder}: holds no image and no video, only {found}; expected e.g. .jpg, .png or .mp4")
    return images, videos


def read_picture(path: Path) -> Picture:
    """Read one picture.

    Raises:
        PictureError: It is missing, empty, cut off, too large or no picture; the message is one line and names the file.
    """
    with _opened(path) as file:
        data = file.read()
    size = _checked_size(path, io.BytesIO(data))
    # OpenCV decodes GIF and PPM too, which a scan of Ultralytics leaves out whatever they are called
    pixels = _decode(data) if size and is_whole(io.BytesIO(data)) else None
    if pixels is None:
        raise _damaged(path, size)
    remark = ""
    if (data[:8] == PNG and data[24] == 16) or (path.suffix.lower() in {".tif", ".tiff"} and _is_16_bit(data)):
        remark = "has 16 bits a channel, read as its upper 8 as training does"
        if not pixels.any():
            raise PictureError(
                "black", f"{path}: has 16 bits a channel and is black in its upper 8; scale it to 8 bits first"
            )
    return Picture(np.asarray(pixels), hashlib.sha256(data).hexdigest(), remark)


def glance(path: Path) -> tuple[int, int]:
    """Height and width of a picture by its header; it is not decoded, so that pixels may be damaged nevertheless.

    Raises:
        PictureError: It is missing, empty, too large or no picture; a JPEG without its end, a WebP shorter than it says, or a
            PNG with a wrong checksum.
    """
    with _opened(path) as file:
        size = _checked_size(path, file)
        if size is None or not is_whole(file):
            raise _damaged(path, size)
    return size


def turn_of(path: Path) -> int:
    """How a picture is turned or mirrored when it is read, as in EXIF: 1 is not at all, from 5 on its sides are swapped.

    Raises:
        PictureError: It is missing or empty.
    """
    with _opened(path) as file:
        return orientation(file)


def sample_frames(video: Path, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """At most `count` frames of a video, evenly spread: (frame number, BGR pixels).

    Raises:
        MisuseError: It cannot be opened, or has no frame.
    """
    import cv2

    if not video.is_file():
        raise MisuseError(f"{video}: no such file")
    total = _frames_of(video)
    wanted = {round((i + 0.5) * total / min(count, total) - 0.5) for i in range(min(count, total))}
    reader = cv2.VideoCapture(str(video))
    try:
        for number in range(total):
            if not reader.grab():
                return
            if number in wanted:
                ok, frame = reader.retrieve()
                if ok:
                    yield number, frame
    finally:
        reader.release()


def _frames_of(video: Path) -> int:
    """Number of frames, counted, because containers lie."""
    import cv2

    reader = cv2.VideoCapture(str(video))
    total = 0
    while reader.grab():
        total += 1
    reader.release()
    if not total:
        raise MisuseError(f"{video}: no frame can be read; it is damaged, empty or no video")
    return total


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read, at its begin.

    Raises:
        PictureError: It cannot be read, or is empty.
    """
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise PictureError("empty", f"{path}: is empty (0 bytes); copy it again")
            file.seek(0)
            yield file
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have, with a zero byte in it
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise PictureError(kind, f"{path}: cannot be read ({what or type(error).__name__})") from None


def _checked_size(path: Path, file: BinaryIO) -> tuple[int, int] | None:
    """Height and width as the header has them, None where it does not say."""
    size = size_in_header(file)
    if size:
        _refuse_giant(path, size)
    return size


def _refuse_giant(path: Path, size_hw: tuple[int, int]) -> None:
    limit, kind = "", "giant"
    if size_hw[0] * size_hw[1] > OPENED:
        limit, kind = f"more than the {OPENED} that PIL opens", "oversized"
    elif size_hw[0] * size_hw[1] > LARGEST:
        limit = f"more than {LARGEST // 10**6} million"
    elif max(size_hw) > LONGEST:
        limit = f"more than {LONGEST} on a side"
    if limit:
        raise PictureError(kind, f"{path}: has {size_hw[1]}x{size_hw[0]} pixels, {limit}; cut it up")


def _damaged(path: Path, size: tuple[int, int] | None) -> PictureError:
    what = (
        "is damaged or cut off"
        if size
        else "is damaged, cut off or no JPEG, PNG, BMP, WebP or TIFF, whatever its name says"
    )
    return PictureError("damaged", f"{path}: {what}; copy it again or remove it")


def _decode(data: bytes, unchanged: bool = False) -> np.ndarray | None:
    import cv2

    with _SILENCE():
        try:
            return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR)
        except cv2.error:  # for a size beyond its own limit it raises, for anything else it returns None
            return None


class _Silence:
    """OpenCV's log off while any thread decodes: what it has to say we say in one line, with the file's name."""

    def __init__(self) -> None:
        self._lock, self._inside, self._level = threading.Lock(), 0, 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        import cv2

        log = cv2.utils.logging
        with self._lock:
            if not self._inside:
                self._level = log.setLogLevel(log.LOG_LEVEL_SILENT)
            self._inside += 1
        try:
            yield
        finally:
            with self._lock:
                self._inside -= 1
                if not self._inside:
                    log.setLogLevel(self._level)


_SILENCE = _Silence()


def _is_16_bit(data: bytes) -> bool:
    raw = _decode(data, unchanged=True)
    return raw is not None and raw.dtype == np.uint16
