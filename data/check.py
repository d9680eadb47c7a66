"""Is a data set what it says? Images, labels, parts, and what train shares with the others. Reads, never writes.

The deep check decodes every image once and compares looks. It decodes them whole: JPEG's reduced decoding moves the hash by
up to 4 of 64 bits (256 COCO pictures), and a cut file would pass. The quick check, before a training, reads headers, ends,
checksums of PNGs and labels, and hashes only files whose size occurs in two parts. Ultralytics' own loader is not used: it
re-saves damaged JPEGs in place, writes caches beside labels, and leaves out what it cannot read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from yolo_kd.data.description import PARTS, Description, miscount
from yolo_kd.data.findings import Count, Report
from yolo_kd.data.labels import parse_labels
from yolo_kd.data.split import label_path, listed, read_text

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.likeness import NEAR, fingerprint, nearest
from yolo_kd.pictures.reading import IMAGE_SUFFIXES, PictureError, files_below, glance, read_picture

LEAK = 0.05  # share of a part that may look like training pictures; 1.1 % in a set of single photographs (bccd)
SMALLEST = 10  # pixels; Ultralytics leaves smaller images out
OTHER_SUFFIXES = frozenset({".avif", ".dng", ".heic", ".heif", ".jp2", ".mpo"})  # read by Ultralytics, not by us
QUICK = "pixels (nothing was decoded) and near-duplicates; yolo-kd data check looks at them"
BATCH = 256  # images between two lines of progress
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Look:
    """What is known of an image file.

    Args:
        bytes: Its size, where it was not hashed.
        sha256: Of its bytes, where it was read.
        print: Its fingerprint, None if it was not decoded.
        fault: Kind of finding and words, or None if it can be used.
        remark: What else there is to say.
    """

    bytes: int = 0
    sha256: str = ""
    print: int | None = None
    fault: tuple[str, str] | None = None
    remark: str = ""


def check(
    data: Description,
    deep: bool = True,
    near: int = NEAR,
    leak: float = LEAK,
    jobs: int = 1,
    progress: Progress | None = None,
    any_class: bool = False,
    needed: Collection[str] = PARTS[:2],
) -> Report:
    """Look at everything that a data.yaml names.

    Args:
        data: What to look at.
        deep: Decode the images and compare looks.
        near: Of 64 bits, the distance up to which two pictures look the same.
        leak: Share of val or test that may look like training pictures.
        jobs: Threads.
        progress: Called with (step, done, total).
        any_class: Do not hold class ids against the names, because the training will not.
        needed: Parts without which there is nothing to do.
    """
    report = Report(str(data.source), data.names, deep, "" if deep else QUICK)
    if sorted(data.names) != list(range(len(data.names))):
        report.add("names_gap", "names", what=f"the ids are {', '.join(map(str, list(data.names)[:10]))}")
    if what := miscount(data.raw):
        report.add("names_count", "nc", what=what)
    parts = {part: _listed(data.parts.get(part, ()), part, report) for part in PARTS if part in data.parts}
    for part in needed:
        if not parts.get(part):
            but = "; only a training with unlabeled= needs none" if part == "train" else ""
            report.add(
                "part_empty", part, part, "has no image" if part in data.parts else f"is not in the data.yaml{but}"
            )
    looks = look_at_images((path for images in parts.values() for path in images), deep, jobs, progress)
    names = None if any_class else data.names
    used: set[int] = set()
    for part, images in parts.items():
        count = _check_part(part, images, looks, names, data.keypoints, report, used if part == "train" else set())
        report.parts[part] = count
        if part in needed and count.images and not count.boxes:
            places = " or ".join(sorted({f"{label_path(image).parent}" for image in images})[:2])
            report.add("part_unlabelled", part, part, f"{count.images} images, and no box in {places}")
    for kind in sorted(set(data.names) - used if not any_class and parts.get("train") else ()):
        report.add("class_unused", data.names[kind])
    _lone_labels(data, parts, report)
    usable = {part: [p for p in images if not looks[p].fault] for part, images in parts.items()}
    _same_content(usable, looks, report)
    if deep:
        _near_duplicates(usable, looks, near, leak, report)
    return report


def _listed(entries: Iterable[Path], part: str, report: Report) -> list[Path]:
    """The images of a part as its folders and lists name them, each once; they need not exist."""
    found: dict[Path, None] = {}
    for entry in entries:
        if entry.is_dir():
            files = files_below(entry)
        elif entry.suffix == ".txt" and entry.is_file():
            try:
                files = listed(entry)
            except MisuseError as error:
                report.add("part_missing", entry, part, str(error))
                continue
        else:
            report.add("part_missing", entry, part, "is neither a folder nor a .txt list of images")
            continue
        for path in files:
            suffix = path.suffix.lower()
            if suffix in OTHER_SUFFIXES:
                report.add("image_other_format", path, part)
            elif suffix in IMAGE_SUFFIXES and path in found:
                report.add("image_twice", path, part, f"named again by {entry.name}")
            elif suffix in IMAGE_SUFFIXES:
                found[path] = None
            elif entry.suffix == ".txt":
                report.add("image_other_format", path, part, "is no image that Ultralytics would read")
    return list(found)


def look_at_images(
    paths: Iterable[Path], deep: bool = True, jobs: int = 1, progress: Progress | None = None
) -> dict[Path, Look]:
    """Each image once, in threads: reading, decoding and hashing leave Python's lock.

    Args:
        paths: Files; none needs to exist.
        deep: Decode them; headers and ends only if not.
        jobs: Threads.
        progress: Called with (step, done, total).
    """
    looks: dict[Path, Look] = {}
    wanted = sorted(set(paths))
    waiting = iter(wanted)
    with ThreadPoolExecutor(max(jobs, 1)) as pool:
        while batch := list(islice(waiting, BATCH)):
            looks.update(zip(batch, pool.map(_decoded if deep else _glanced, batch), strict=True))
            if progress is not None:
                progress("looking at images", len(looks), len(wanted))
    return looks


def _decoded(path: Path) -> Look:
    try:
        picture = read_picture(path)
    except PictureError as error:
        return Look(fault=(f"image_{error.kind}", str(error)))
    height, width = picture.pixels.shape[:2]
    return Look(0, picture.sha256, fingerprint(picture.pixels), _tiny((height, width)), picture.remark)


def _glanced(path: Path) -> Look:
    try:
        return Look(fault=_tiny(glance(path)), bytes=path.stat().st_size)
    except PictureError as error:
        return Look(fault=(f"image_{error.kind}", str(error)))


def _tiny(size_hw: tuple[int, int]) -> tuple[str, str] | None:
    if min(size_hw) >= SMALLEST:
        return None
    return "image_tiny", f"has {size_hw[1]}x{size_hw[0]} pixels, expected at least {SMALLEST} on each side"


def _check_part(
    part: str,
    images: list[Path],
    looks: Mapping[Path, Look],
    names: Mapping[int, str] | None,
    keypoints: int,
    report: Report,
    used: set[int],
) -> Count:
    count = Count()
    for path in images:
        look = looks[path]
        if look.fault:
            report.add(look.fault[0], path, part, look.fault[1])
        else:
            count.images += 1
        if look.remark:
            report.add("image_remark", path, part, look.remark)
        label = label_path(path)
        if not label.is_file():
            count.unlabelled += not look.fault
            continue
        try:
            text = read_text(label)
        except MisuseError as error:
            report.add("label_unreadable", label, part, str(error))
            continue
        boxes, faults = parse_labels(text, names, keypoints)
        count.boxes += len(boxes)
        count.empty_labels += not text.strip()
        used.update(int(kind) for kind in np.unique(boxes[:, 0]))
        for fault in faults:
            report.add(fault.kind, f"{label}:{fault.line}", part, fault.what)
    return count


def _lone_labels(data: Description, parts: Mapping[str, list[Path]], report: Report) -> None:
    """Label files beside the images' label files to which no image belongs, in any part or outside of them."""
    entries = {entry for found in data.parts.values() for entry in found}
    wanted = {label_path(path) for images in parts.values() for path in images}
    there = {label for folder in {label.parent for label in wanted} for label in folder.glob("[!.]*.txt")}
    folders = [label_path(entry / "x").parent for entry in entries if entry.is_dir()]
    there |= {label for folder in folders for label in files_below(folder) if label.suffix == ".txt"}
    for label in sorted(there - wanted - entries):
        if not _has_image(label):
            report.add("label_without_image", label)


def _has_image(label: Path) -> bool:
    """Whether an image of that name lies where the images of these labels lie, though no part names it."""
    parts = list(label.parent.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "labels":
            parts[i] = "images"
            break
    place = Path(*parts) / label.stem
    return any(place.with_name(place.name + suffix).is_file() for suffix in IMAGE_SUFFIXES | OTHER_SUFFIXES)


def _same_content(parts: Mapping[str, list[Path]], looks: Mapping[Path, Look], report: Report) -> None:
    """Files that are equal byte by byte: in two parts an error, in one part a remark.

    A quick check has sizes only, and hashes those that occur in two parts.
    """
    alike: dict[str | int, list[tuple[str, Path]]] = {}
    for part, images in parts.items():
        for path in images:
            alike.setdefault(looks[path].sha256 or looks[path].bytes, []).append((part, path))
    first: dict[str, dict[str, Path]] = {}
    for members in alike.values():
        if len(members) < 2 or not (report.deep or len({part for part, _ in members}) > 1):
            continue
        for part, path in members:
            known = first.setdefault(looks[path].sha256 or hashlib.sha256(path.read_bytes()).hexdigest(), {})
            for other, twin in known.items():
                if other == part:
                    report.add("image_twice", path, part, f"the same file as {twin}")
                else:
                    report.add("image_shared", path, part, f"the same file as {twin} in {other}")
            known.setdefault(part, path)


def _near_duplicates(
    parts: Mapping[str, list[Path]], looks: Mapping[Path, Look], near: int, leak: float, report: Report
) -> None:
    train = _prints(parts.get("train", ()), looks)
    for part in PARTS[1:]:
        images = parts.get(part, [])
        if not images or not len(train):
            continue
        index, bits = nearest(_prints(images, looks), train)
        hits = np.flatnonzero(bits <= near)
        for hit in hits:
            twin = parts["train"][index[hit]]
            if looks[twin].sha256 != looks[images[hit]].sha256:  # the same file is listed as that
                report.add("near_duplicate", images[hit], part, f"{bits[hit]} of 64 bits from {twin}")
        report.near[part] = share = len(hits) / len(images)
        if share > leak:
            what = (
                f"{len(hits)} of {len(images)} images ({share:.1%}) look like a training picture, more than {leak:.1%}"
            )
            report.add("part_leaks", part, part, f"{what}; yolo-kd data split data=... by=scene parts it anew")


def _prints(paths: Iterable[Path], looks: Mapping[Path, Look]) -> np.ndarray:
    return np.array([looks[path].print for path in paths], np.uint64)
