"""The calibration set: an ordered, hashed list of pictures that both back ends see through the device's own letterbox.

It is a JSON file of paths beside it and the SHA-256 of each picture. Its own hash is over these hashes in order, so it stays
the same when the folder moves and changes when any picture does.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from yolo_kd.cfg.atomic import write_text
from yolo_kd.cfg.documents import parse_json
from yolo_kd.deploy.letterbox import Letterbox
from yolo_kd.deploy.quantize.coverage import SIZES, Look, look_at, near_duplicates, scenes, spread

from yolo_kd.errors import MisuseError
from yolo_kd.pictures.likeness import NEAR
from yolo_kd.pictures.reading import read_picture

VERSION = 1
FEW = 32  # below, one picture more or less moves ranges visibly
CANDIDATES = 20  # looked at per picture wanted; more cost minutes and hardly widen the cover
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Candidate:
    """A picture that may be taken.

    Args:
        path: Where it lies.
        kinds: (N,) class ids of its objects, if there are labels.
        boxes_xywhn: (N, 4) their boxes as shares of the picture.
    """

    path: Path
    kinds: np.ndarray | None = None
    boxes_xywhn: np.ndarray | None = None


@dataclass(frozen=True)
class CalibrationSet:
    """Pictures in a fixed order; any beginning of it is a cover as well.

    Args:
        images: Paths.
        hashes: SHA-256 of each file.
        report: What was seen when it was chosen: counts, brightness, scenes, warnings.
    """

    images: tuple[Path, ...]
    hashes: tuple[str, ...]
    report: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def hash(self) -> str:
        """SHA-256 over the hashes of all pictures, in order."""
        return hashlib.sha256("\n".join(self.hashes).encode()).hexdigest()

    def first(self, count: int) -> CalibrationSet:
        """The first `count` pictures."""
        return CalibrationSet(self.images[:count], self.hashes[:count], self.report)


@dataclass(frozen=True)
class NetImages:
    """The net's inputs for a calibration set, read anew each time one goes through them.

    Args:
        source: The pictures.
        net_hw: Height and width of the net's input.
        progress: Called with ("calibration", done, total).
    """

    source: CalibrationSet
    net_hw: tuple[int, int]
    progress: Progress | None = None

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[np.ndarray]:
        """Each picture as (1, 3, H, W) float32 RGB in [0, 1].

        Raises:
            MisuseError: A picture is gone or has changed.
        """
        letterbox = Letterbox(self.net_hw)
        for i, (path, wanted) in enumerate(zip(self.source.images, self.source.hashes, strict=True)):
            picture = read_picture(path)
            if picture.sha256 != wanted:
                raise MisuseError(f"{path}: has changed since it was chosen; run yolo-kd calibrate again")
            canvas, _ = letterbox(picture.pixels)
            yield np.divide(canvas[..., ::-1].transpose(2, 0, 1)[None], 255, dtype=np.float32)
            if self.progress is not None:
                self.progress("calibration", i + 1, len(self))


def images(source: CalibrationSet, net_hw: tuple[int, int], progress: Progress | None = None) -> NetImages:
    """The net's inputs (1, 3, H, W), float32 RGB in [0, 1], through the letterbox that the device uses."""
    return NetImages(source, net_hw, progress)


def check_size(found: tuple[int, int], wanted: tuple[int, int], path: Path) -> None:
    """Refuse a net whose input has another height and width than the images made for it."""
    if found != wanted:
        raise MisuseError(
            f"{path}: takes {found[0]}x{found[1]} pixels, the images are {wanted[0]}x{wanted[1]}; export it again"
        )


def choose(
    candidates: Sequence[Candidate],
    count: int,
    evaluation: Iterable[Path] = (),
    seed: int = 0,
    near: int = NEAR,
    progress: Progress | None = None,
) -> CalibrationSet:
    """Choose pictures that cover the variety of the candidates and none of which is used for evaluation.

    Args:
        candidates: What there is.
        count: How many are wanted.
        evaluation: Pictures that must not be taken, by the bytes of the file or by its pixels.
        seed: Decides which candidates are looked at where there are far more than needed, and nothing else.
        near: Pictures that differ in at most so many of 64 bits count as one; -1 keeps them all.
        progress: Called with (step, done, total).

    Returns:
        The set; its report has "warnings", the lines a person has to see, and "unreadable", one line per such file.

    Raises:
        MisuseError: Nothing is left to choose from.
    """
    if count < 1:
        raise MisuseError(f"count={count}: expected at least 1 picture, e.g. count=300")
    looked_at = _sample(candidates, CANDIDATES * count, seed)
    unreadable: list[str] = []
    remarks: list[str] = []
    held_out = list(evaluation)
    files, pixels = _known(held_out, unreadable, progress)
    looks: list[Look] = []
    paths: list[Path] = []
    overlap = 0
    for i, candidate in enumerate(looked_at):
        try:
            picture = read_picture(candidate.path)
        except MisuseError as error:
            unreadable.append(str(error))
            continue
        finally:
            if progress is not None:
                progress("looking at pictures", i + 1, len(looked_at))
        look = look_at(picture.pixels, picture.sha256, candidate.kinds, candidate.boxes_xywhn)
        if look.sha256 in files or look.pixel_sha256 in pixels:
            overlap += 1
            continue
        if picture.remark:
            remarks.append(f"{candidate.path}: {picture.remark}")
        looks.append(look)
        paths.append(candidate.path)
    twins = set(near_duplicates(looks, near)) if near >= 0 else set()
    kept = [i for i in range(len(looks)) if i not in twins]
    if not kept:
        raise MisuseError(
            f"no picture is left to calibrate on: of {len(looked_at)} looked at, {overlap} are evaluation pictures and "
            f"{len(unreadable)} cannot be read{': ' + unreadable[0] if unreadable else ''}"
        )
    order = spread([looks[i] for i in kept], count)
    taken = [kept[i] for i in order]
    chosen = [looks[i] for i in taken]
    report = {
        "seed": seed,
        "asked": count,
        "candidates": len(candidates),
        "looked_at": len(looked_at),
        "held_out": len(held_out),
        "overlap_removed": overlap,
        "near_duplicates_dropped": len(twins),
        "unreadable": unreadable,
        "remarks": remarks,
        "scenes": scenes(looks),  # of all, because a thin choice loses the steps that join the frames of a flight
        **_describe(chosen),
    }
    report["warnings"] = _warnings(report, len(taken))
    return CalibrationSet(tuple(paths[i] for i in taken), tuple(looks[i].sha256 for i in taken), report)


def write_calibration(source: CalibrationSet, path: Path) -> None:
    """Write the list as JSON, in one move; paths are relative to its folder."""
    here = path.resolve().parent
    rows = [
        {"path": Path(os.path.relpath(image.resolve(), here)).as_posix(), "sha256": digest}
        for image, digest in zip(source.images, source.hashes, strict=True)
    ]
    content = {"version": VERSION, "hash": source.hash, "report": dict(source.report), "images": rows}
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_calibration(path: str | Path) -> CalibrationSet:
    """Read such a list.

    Raises:
        MisuseError: Missing, not readable, not one of ours, or its pictures are not where it says.
    """
    path = Path(path)
    if not path.is_file():
        raise MisuseError(f"calibration={path}: no such file; make one with yolo-kd calibrate source=<data> out={path}")
    try:
        raw = parse_json(path.read_text(encoding="utf-8"))
        rows = [(str(row["path"]), str(row["sha256"])) for row in raw["images"]]
        version, digest, report = raw["version"], raw["hash"], dict(raw["report"])
    except (OSError, ValueError, KeyError, TypeError):
        raise MisuseError(f"calibration={path}: is no calibration list; make one with yolo-kd calibrate") from None
    found = CalibrationSet(tuple(path.parent / name for name, _ in rows), tuple(h for _, h in rows), report)
    told = report.get("warnings", [])
    readable = isinstance(told, list) and all(isinstance(line, str) for line in told)
    if version != VERSION or not rows or found.hash != digest or not readable:
        raise MisuseError(
            f"calibration={path}: was changed by hand or is of another version; run yolo-kd calibrate again"
        )
    missing = [p for p in found.images if not os.path.isfile(p)]  # noqa: PTH113  # Path raises for a name that is too long
    if missing:
        raise MisuseError(
            f"calibration={path}: {len(missing)} of {len(rows)} pictures are missing, first {missing[0]}; the list is "
            "relative to its own folder, move both together"
        )
    return found


def _sample(candidates: Sequence[Candidate], limit: int, seed: int) -> list[Candidate]:
    """At most `limit` of them, in their order."""
    if len(candidates) <= limit:
        return list(candidates)
    drawn = np.random.default_rng(seed).choice(len(candidates), limit, replace=False)
    return [candidates[i] for i in sorted(drawn.tolist())]


def _known(paths: Sequence[Path], unreadable: list[str], progress: Progress | None) -> tuple[set[str], set[str]]:
    """Hashes of the evaluation pictures: of their files, and of their pixels."""
    files, pixels = set(), set()
    for i, path in enumerate(paths):
        try:
            picture = read_picture(path)
            files.add(picture.sha256)
            pixels.add(look_at(picture.pixels, picture.sha256).pixel_sha256)
        except MisuseError as error:
            unreadable.append(f"{error} (evaluation)")
        if progress is not None:
            progress("hashing evaluation pictures", i + 1, len(paths))
    return files, pixels


def _describe(looks: Sequence[Look]) -> dict[str, Any]:
    """What the chosen ones cover, in numbers."""
    light = np.array([look.tone[0] for look in looks])
    classes: dict[str, int] = {}
    for look in looks:
        for kind in look.classes:
            classes[str(kind)] = classes.get(str(kind), 0) + 1
    labelled = [look.sizes for look in looks if look.classes]
    names = ("small", f"{SIZES[0]:g} to {SIZES[1]:g} px", "large")
    return {
        "brightness": [round(float(v), 3) for v in np.percentile(light, [0, 25, 50, 75, 100])],
        "classes": dict(sorted(classes.items(), key=lambda item: int(item[0]))),
        "sizes": {n: round(float(np.mean([s[i] for s in labelled])), 3) for i, n in enumerate(names)}
        if labelled
        else {},
    }


def _warnings(report: Mapping[str, Any], taken: int) -> list[str]:
    lines = []
    if not report["held_out"]:
        lines.append(
            "no evaluation picture was held out: a precision measured on any of these flatters; name those that you judge on "
            "with evaluation=<folder or data.yaml>"
        )
    if report["overlap_removed"]:
        lines.append(
            f"{report['overlap_removed']} pictures are in the evaluation set too (same bytes or same pixels) and were taken "
            "out: check how the parts were made"
        )
    if report["unreadable"]:
        lines.append(f"{len(report['unreadable'])} files cannot be used, first: {report['unreadable'][0]}")
    if taken < report["asked"]:
        lines.append(
            f"only {taken} pictures instead of {report['asked']}: {report['near_duplicates_dropped']} near-duplicates were "
            "dropped; add pictures of other places and times, or keep them with near=-1"
        )
    if taken < FEW:
        lines.append(f"{taken} pictures are too few: with less than {FEW} the ranges hang on single pictures")
    if report["scenes"] == 1 and taken > 1:
        lines.append(
            "all candidates show one scene: INT8 will be good there and nobody knows elsewhere; add other places"
        )
    if report["brightness"][-1] - report["brightness"][0] < 0.1 and taken > 1:
        lines.append(
            f"all pictures are about as bright ({report['brightness'][2]:.2f} of 1): add dusk, night or shadow"
        )
    return lines
