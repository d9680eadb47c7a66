"""Pictures as they lie on disk: found, read, and what is wrong with one that cannot be used.

They are read as training reads them (three channels, 8 bits, turned as EXIF says), because a net has to be calibrated on
what it will see.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolo_kd.errors import MisuseError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm"})
LARGEST = 100_000_000  # pixels; 300 MB once decoded, more than any sensor of a drone or car gives in one frame


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


def find_media(folder: Path) -> tuple[list[Path], list[Path]]:
    """Images and videos in a folder and its subfolders, each sorted.

    Raises:
        MisuseError: No such folder, or nothing of the kind in it.
    """
    if not folder.is_dir():
        raise MisuseError(f"{folder}: no such folder")
    files = sorted(p for p in folder.rglob("*") if p.is_file())
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
        MisuseError: It is missing, empty, cut off, too large or no picture; the message is one line and names the file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise MisuseError(f"{path}: cannot be read ({error.strerror or type(error).__name__})") from None
    if not data:
        raise MisuseError(f"{path}: is empty (0 bytes); copy it again")
    size = _size_from_header(data)
    if size and size[0] * size[1] > LARGEST:
        raise MisuseError(f"{path}: has {size[1]}x{size[0]} pixels, more than {LARGEST // 10**6} million; cut it up")
    pixels = None if _is_cut_off(data) else _decode(data)
    if pixels is None:
        what = "is damaged or cut off" if size else "is damaged, cut off or no picture, whatever its name says"
        raise MisuseError(f"{path}: {what}; copy it again or remove it")
    remark = ""
    if (data[:8] == _PNG and data[24] == 16) or (path.suffix.lower() in {".tif", ".tiff"} and _is_16_bit(data)):
        remark = "has 16 bits a channel, read as its upper 8 as training does"
        if not pixels.any():
            raise MisuseError(f"{path}: has 16 bits a channel and is black in its upper 8; scale it to 8 bits first")
    return Picture(np.asarray(pixels), hashlib.sha256(data).hexdigest(), remark)


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


_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"


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


def _decode(data: bytes, unchanged: bool = False) -> np.ndarray | None:
    import cv2

    log = cv2.utils.logging
    level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # what it has to say we say in one line, with the file's name
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED if unchanged else cv2.IMREAD_COLOR)
    except cv2.error:  # for a size beyond its own limit it raises, for anything else it returns None
        return None
    finally:
        log.setLogLevel(level)


def _is_cut_off(data: bytes) -> bool:
    """Whether a JPEG lacks its end mark: OpenCV 4 fills the rest with grey and says nothing."""
    return data[:3] == _JPEG and b"\xff\xd9" not in data[-(1 << 16) :]


def _is_16_bit(data: bytes) -> bool:
    raw = _decode(data, unchanged=True)
    return raw is not None and raw.dtype == np.uint16


def _size_from_header(data: bytes) -> tuple[int, int] | None:
    """Height and width of a PNG or JPEG without decoding it; None where the header does not say."""
    if data[:8] == _PNG and len(data) > 24:
        return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")
    at = 2
    while data[:3] == _JPEG and at + 9 < len(data) and data[at] == 0xFF:
        mark = data[at + 1]
        if mark in range(0xC0, 0xD0) and mark not in (0xC4, 0xC8, 0xCC):  # start of frame, of any coding
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 if mark == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
