"""`yolo-kd calibrate`: choose the pictures that INT8 ranges are measured on, and write them down."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import refuse_unwritable
from yolo_kd.data.description import read_description
from yolo_kd.data.split import read_split
from yolo_kd.deploy.quantize.calibration import (
    CalibrationSet,
    Candidate,
    choose,
    read_calibration,
    write_calibration,
)
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.deploy.quantize.staging import check_target, staged
from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.modes.keys import settled
from yolo_kd.pictures.likeness import NEAR
from yolo_kd.pictures.reading import VIDEO_SUFFIXES, find_media, sample_frames

DEFAULTS: dict[str, Any] = {
    "source": None,
    "count": 300,
    "evaluation": None,
    "out": "calibration.json",
    "seed": 0,
    "near": NEAR,
    "overwrite": False,
    "debug": False,
}
FRAMES_PER_PICK = 2  # frames taken out of videos for each picture wanted; neighbours look the same
EVALUATION_PARTS = ("val", "test")
MARK = "frames.txt"  # in a folder of frames that we made
SHOWN = 20  # lines of one kind


def main(settings: dict[str, Any]) -> int:
    """Choose, write, say what was seen; returns the exit code."""
    keys = settled(settings, DEFAULTS, "calibrate", {"count": 1, "near": -1})
    if not keys["source"]:
        raise MisuseError(
            "source= is missing: yolo-kd calibrate source=<folder, video or data.yaml> out=calibration.json"
        )
    out = Path(str(keys["out"]))
    _check_out(out, keys["overwrite"])
    found = gather(
        str(keys["source"]), keys["count"], None if keys["evaluation"] is None else str(keys["evaluation"]), out,
        keys["seed"], keys["near"], keys["overwrite"],
    )  # fmt: skip
    tell(found, out)
    return 0


def gather(
    source: str,
    count: int,
    evaluation: str | None,
    out: Path,
    seed: int = 0,
    near: int = NEAR,
    overwrite: bool = False,
    chosen_by: str = "yolo-kd calibrate",
) -> CalibrationSet:
    """Choose from a folder, a video or a data set's train part, and write the list.

    Args:
        source: Folder of pictures and videos, a video, or a data.yaml.
        count: How many pictures are wanted.
        evaluation: Folder or data.yaml (its val and test parts) whose pictures are not taken; if None, the val and test
            parts of a source that is a data.yaml, and nothing of any other.
        out: The list to write; frames of videos go to `<out>_frames` beside it.
        seed: Decides which candidates are looked at where there are far more than needed.
        near: Of 64 bits, the distance up to which two pictures count as one.
        overwrite: Replace a folder of frames that we did not write.
        chosen_by: What the list says of who made it.

    Raises:
        MisuseError: Nothing to choose from, or evaluation pictures that are named and cannot be found.
    """
    held_out, absent = _held_out(source, evaluation)
    images, videos = _media(source)
    frames = out.with_name(f"{out.stem}_frames")
    if videos:
        check_target(frames, overwrite, MARK)
    with tempfile.TemporaryDirectory(prefix="yolo-kd-") as work:
        taken = _extract(videos, FRAMES_PER_PICK * count, Path(work))
        chosen = choose([*images, *(Candidate(p) for p in taken)], count, held_out, seed, near, Line())
        if videos:
            chosen = _keep(chosen, set(taken), frames, overwrite)
    report = {"chosen_by": chosen_by, **chosen.report, "warnings": [*absent, *chosen.report["warnings"]]}
    chosen = replace(chosen, report=report)
    write_calibration(chosen, out)
    return chosen


def require_own_list(path: Path, chosen_by: str, overwrite: bool) -> None:
    """Refuse to replace a list that was chosen by another command, or whatever else bears its name.

    Args:
        path: The list to be.
        chosen_by: Whose lists may be replaced.
        overwrite: Replace any file.

    Raises:
        MisuseError: Something else is there, or the place cannot be written.
    """
    refuse_unwritable(path)
    mark = f'"chosen_by": "{chosen_by}"'
    if path.exists() and not overwrite and mark not in path.read_text(encoding="utf-8", errors="replace"):
        raise MisuseError(
            f"{path}: exists and was not chosen by this command; calibrate on it with calibration={path}, or replace it with "
            "overwrite=true"
        )


def tell(found: CalibrationSet, out: Path) -> None:
    """Print what a person should know of a set: warnings first to stderr, then what it covers."""
    report = found.report
    warn(found)
    for kind in ("unreadable", "remarks"):
        for line in report[kind][:SHOWN]:
            print(f"  {line}", file=sys.stderr)
        if len(report[kind]) > SHOWN:
            print(f"  ... and {len(report[kind]) - SHOWN} more, all in {out}", file=sys.stderr)
    low, median, high = (report["brightness"][i] for i in (0, 2, 4))
    print(f"{out}: {len(found)} pictures, brightness {low:.2f} to {high:.2f} (median {median:.2f})")
    if report["classes"]:
        sizes = ", ".join(f"{share:.0%} {name}" for name, share in report["sizes"].items())
        print(f"  {len(report['classes'])} classes; objects: {sizes} (longest side scaled to 640)")
    print(
        f"  from {report['candidates']} candidates of {report['scenes']} scenes, {report['looked_at']} looked at: {report['near_duplicates_dropped']} "
        f"near-duplicates dropped, {report['overlap_removed']} taken out that are among the {report['held_out']} evaluation "
        f"pictures\n  hash {found.hash}"
    )


def warn(found: CalibrationSet) -> None:
    """Print to stderr what the makers of a set were warned of; nothing where its list does not say."""
    for line in found.report.get("warnings", ()):
        print(f"WARNING: {line}", file=sys.stderr)


def help_text() -> str:
    """The keys."""
    return f"""usage: yolo-kd calibrate source=<folder, video or data.yaml> [key=value ...]

  source=           pictures to choose from: a folder (with subfolders), a video, or the train part of a data set, whose
                    labels then count as well
  count=300         pictures wanted
  evaluation=       pictures that are never taken, by bytes and by pixels: a folder, or the val and test parts of a data.yaml.
                    Left out, it is the source if that is a data.yaml; of a folder or video nothing is held out, and the
                    report warns of it
  out=calibration.json  the list; frames of videos go to <name>_frames beside it
  seed=0            decides which candidates are looked at where there are far more than needed
  near={NEAR}            of 64 bits: pictures that differ in no more count as one; -1 keeps all
  overwrite=false   true replaces a file or a folder of frames that yolo-kd did not write"""


def _check_out(out: Path, overwrite: bool) -> None:
    if out.is_dir():
        raise MisuseError(f"out={out}: is a folder, expected a file, e.g. out={out / 'calibration.json'}")
    refuse_unwritable(out)
    if out.exists() and not overwrite:
        try:
            read_calibration(out)
        except MisuseError:
            raise MisuseError(f"out={out}: exists and is no calibration list; overwrite=true replaces it") from None


def _held_out(source: str, evaluation: str | None) -> tuple[list[Path], list[str]]:
    """Pictures that must not be taken: of all evaluation parts that a data.yaml names, or of a folder; what to warn of.

    A test part that is named and not there is common, because many data sets publish it apart or never; what is not on this
    disk cannot be taken, so that is worth a warning. A part that is there in half is an error.
    """
    given = Path(source if evaluation is None else evaluation)
    if given.suffix in {".yaml", ".yml"}:
        places = read_description(given).parts
        absent = [p for p in ("test",) if p in places and not any(place.exists() for place in places[p])]
        declared = [part for part in EVALUATION_PARTS if part in places and part not in absent]
        if not declared and evaluation is not None:
            raise MisuseError(f"evaluation={evaluation}: names neither val nor test, so there is nothing to hold out")
        warnings = [
            f"{given} names a {part} part that is not there ({places[part][0]}); none of its pictures is held out"
            for part in absent
        ]
        return [image for part in declared for image in _evaluation_part(given, part)], warnings
    if evaluation is None:
        return [], []
    images, videos = find_media(given)
    if not images:
        raise MisuseError(f"evaluation={evaluation}: holds {len(videos)} videos and no picture; name the pictures")
    return images, []


def _evaluation_part(source: Path, part: str) -> tuple[Path, ...]:
    try:
        return read_split(source, part).images
    except MisuseError as error:
        raise MisuseError(
            f"{error}; its pictures must not be calibrated on: mend it, take '{part}:' out of the YAML, or name the pictures "
            "to hold out with yolo-kd calibrate evaluation="
        ) from error


def _media(source: str) -> tuple[list[Candidate], list[Path]]:
    """Pictures with what is known of them, and videos."""
    path = Path(source)
    if path.suffix in {".yaml", ".yml"}:
        split = read_split(source, "train")
        return [Candidate(image, *split.labels(image)) for image in split.images if image.is_file()], []
    if path.is_file():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise MisuseError(f"source={source}: expected a folder, a video or a data.yaml, got a '{path.suffix}' file")
        return [], [path]
    if not path.is_dir():
        raise MisuseError(f"source={source}: no such folder, video or data set YAML")
    images, videos = find_media(path)
    return [Candidate(image) for image in images], videos


def _extract(videos: Sequence[Path], count: int, folder: Path) -> list[Path]:
    """Frames of the videos as PNG, an even share of each."""
    taken, line = [], Line()
    each = -(-count // len(videos)) if videos else 0
    for i, video in enumerate(videos):
        for number, frame in sample_frames(video, each):
            path = folder / f"{i:03}_{video.stem}_{number:06}.png"
            _write_png(path, frame)
            taken.append(path)
        line("frames out of videos", i + 1, len(videos))
    return taken


def _write_png(path: Path, frame: Any) -> None:
    import cv2

    ok, data = cv2.imencode(".png", frame)
    if not ok:
        raise YoloKDError(f"{path.name}: the frame could not be packed as PNG")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise YoloKDError(
            f"{path.parent}: cannot hold frames of the videos for a while ({error.strerror}); set TMPDIR to a folder with room"
        ) from error


def _keep(chosen: CalibrationSet, taken: set[Path], folder: Path, overwrite: bool) -> CalibrationSet:
    """The chosen frames moved to their place; other pictures stay where they are."""
    with staged(folder, overwrite, MARK) as part:
        moved = []
        for path in chosen.images:
            if path in taken:
                shutil.copyfile(path, part / path.name)
                moved.append(folder / path.name)
            else:
                moved.append(path)
        (part / MARK).write_text("frames for calibration, written by yolo-kd calibrate\n", encoding="utf-8")
    return replace(chosen, images=tuple(moved))
