"""Pictures without labels: found in folders, lists and videos, and held against the pictures of a data set.

Nothing is written beside them. Frames of videos become files in a folder that the caller names.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import refusal
from yolo_kd.data.check import OTHER_SUFFIXES
from yolo_kd.data.split import listed

from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.pictures.reading import IMAGE_SUFFIXES, VIDEO_SUFFIXES, files_below, find_media, sample_frames

KEY = "unlabeled"
CHUNK = 1 << 20  # bytes that are hashed at once; a video may be larger than the memory
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Sources:
    """What `unlabeled=` names.

    Args:
        images: Pictures, each once.
        videos: Videos, each once.
        others: Pictures of the folders in formats that are not read here.
    """

    images: tuple[Path, ...]
    videos: tuple[Path, ...]
    others: tuple[Path, ...] = ()


def find_unlabeled(sources: Sequence[str]) -> Sources:
    """Pictures and videos of folders (with subfolders), .txt lists and single files, in the order in which they are named.

    Raises:
        MisuseError: A source that does not exist, or holds neither.
    """
    found: dict[Path, None] = {}
    others: list[Path] = []
    for source in sources:
        path = Path(source)
        if path.is_dir():
            try:
                images, videos = find_media(path)
            except MisuseError as error:
                raise MisuseError(f"{KEY}={error}") from None
            found |= dict.fromkeys(p.absolute() for p in [*images, *videos])
            others += [p for p in files_below(path) if p.suffix.lower() in OTHER_SUFFIXES and p.is_file()]
        elif path.suffix.lower() == ".txt" and path.is_file():
            found |= dict.fromkeys(_of_list(path))
        elif path.suffix.lower() in IMAGE_SUFFIXES | VIDEO_SUFFIXES and path.is_file():
            found[path.absolute()] = None
        else:
            kind = f"is a '{path.suffix}' file" if path.is_file() else "does not exist"
            raise MisuseError(f"{KEY}={source}: {kind}; expected a folder, a video, or a .txt list of pictures")
    return Sources(
        tuple(path for path in found if path.suffix.lower() in IMAGE_SUFFIXES),
        tuple(path for path in found if path.suffix.lower() in VIDEO_SUFFIXES),
        tuple(others),
    )


def frames_of(video: Path, count: int, folder: Path) -> list[Path]:
    """At most `count` frames of a video as PNG files, evenly spread and in order; made once.

    Args:
        video: It is read twice: containers lie about how many frames they have.
        count: How many.
        folder: Where each video gets a folder of its own, named after its content.

    Raises:
        MisuseError: It has no frame that can be read.
        YoloKDError: The disk is full.
    """
    target = folder / f"{_digest(video)[:16]}-{count}"
    if not target.is_dir():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=folder))
            try:
                for number, frame in sample_frames(video, count):
                    (part / f"{number:07}.png").write_bytes(_png(frame, video))
                if not any(part.iterdir()):
                    raise MisuseError(
                        f"{KEY}={video}: none of its frames can be read; expected a video that OpenCV plays"
                    )
                if not target.is_dir():  # another training may have made it meanwhile
                    part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            raise refusal(error, target, KEY) from error
    return sorted(target.glob("*.png"))


def images_of(entries: Iterable[Path]) -> list[Path]:
    """The images that folders and .txt lists name; what is missing is left to the check of the data."""
    found: list[Path] = []
    for entry in entries:
        files = files_below(entry) if entry.is_dir() else listed(entry) if entry.is_file() else ()
        found += sorted(p for p in files if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    return found


def same_files(images: Iterable[Path], others: Iterable[Path]) -> dict[Path, Path]:
    """Which images are byte for byte one of the others: image to that one. Files of equal size are hashed, no others."""
    by_size: dict[int, list[Path]] = {}
    for other in others:
        by_size.setdefault(other.stat().st_size, []).append(other)
    hashes: dict[int, dict[str, Path]] = {}
    found = {}
    for image in images:
        size = image.stat().st_size
        if size not in by_size:
            continue
        known = hashes.setdefault(size, {})
        if not known:
            known.update({_digest(other): other for other in by_size[size]})
        twin = known.get(_digest(image))
        if twin is not None:
            found[image] = twin
    return found


def digest_of(images: Iterable[Path]) -> str:
    """SHA-256 over the bytes of all files, in order."""
    total = hashlib.sha256()
    for image in images:
        total.update(bytes.fromhex(_digest(image)))
    return total.hexdigest()


def _of_list(path: Path) -> list[Path]:
    found = listed(path)
    missing = [p for p in found if not p.is_file()]
    if missing:
        raise MisuseError(f"{KEY}={path}: {len(missing)} of {len(found)} files are missing, first {missing[0]}")
    strange = [p for p in found if p.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES]
    if strange or not found:
        what = f"names {strange[0]}, which is neither a picture nor a video" if strange else "is empty"
        raise MisuseError(f"{KEY}={path}: {what}; expected a path of a picture or video a line")
    return [p.absolute() for p in found]


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(CHUNK):
                found.update(data)
    except OSError as error:
        raise MisuseError(f"{KEY}={path}: cannot be read ({error.strerror})") from None
    return found.hexdigest()


def _png(frame: Any, video: Path) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", frame)
    if not done:
        raise YoloKDError(f"{KEY}={video}: a frame could not be packed as PNG")
    return data.tobytes()
