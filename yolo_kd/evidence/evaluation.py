"""A detector over a part of a data set: detections, labels, and what kind of picture each one was.

Any callable that takes a BGR frame and returns Detections will do, so that every back end is measured by the same code,
with the letterbox, decoding and suppression that ship.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from yolo_kd.data.split import Split, normalise
from yolo_kd.deploy.detections import Detections
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.average_precision import PrecisionMeter, Truth
from yolo_kd.pictures.reading import read_picture

LOW_CONFIDENCE = 0.001  # Ultralytics' own for validation: precision needs the whole curve
Detect = Callable[[np.ndarray], Detections]
Change = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True)
class Seen:
    """What a detector said about a part of a data set.

    Args:
        truths: Labels of each image.
        found: Detections of each image, in the same order.
        names: Class id to name of the data set.
        brightness: (N,) mean grey value of each image, 0 to 255.
        sharpness: (N,) variance of the Laplacian of each image; low means blurred.
    """

    truths: tuple[Truth, ...]
    found: tuple[Detections, ...]
    names: Mapping[int, str]
    brightness: np.ndarray
    sharpness: np.ndarray

    def meter(self) -> PrecisionMeter:
        """Precision over these images."""
        return PrecisionMeter(self.truths, self.found, self.names)

    def slices(self) -> dict[str, np.ndarray]:
        """Thirds of the images by brightness and by sharpness: name to indices."""
        found = {}
        for values, labels in ((self.brightness, ("dark", "medium light", "bright")),
                               (self.sharpness, ("blurred", "medium sharp", "sharp"))):  # fmt: skip
            parts = np.array_split(np.argsort(values, kind="stable"), len(labels))
            found.update({label: part for label, part in zip(labels, parts, strict=True) if len(part)})
        return found


def look(detect: Detect, split: Split, label: str = "", change: Change | None = None) -> Seen:
    """Run a detector over every image of a split.

    Args:
        detect: BGR frame to detections, at `LOW_CONFIDENCE` for a precision.
        split: The images.
        label: Shown with how far it is; no progress without it.
        change: Frame and its index to the frame that is looked at instead, such as a corruption.

    Raises:
        MisuseError: An image that cannot be read, or detections of other classes than the data set's.
    """
    truths, found, brightness, sharpness = [], [], [], []
    for index, path in enumerate(_counted(split.images, label)):
        frame = read_frame(path)
        truths.append(truth_of(split, path, (frame.shape[0], frame.shape[1])))
        if change is not None:
            frame = change(frame, index)
        light, edges = _statistics(frame)
        brightness.append(light)
        sharpness.append(edges)
        found.append(by_name(detect(frame), split))
    return Seen(tuple(truths), tuple(found), split.names, np.array(brightness), np.array(sharpness))


def unmatched(model: Mapping[int, str], split: Split) -> str:
    """What only the model or only the data set knows, as a line; empty if both know the same."""
    theirs, ours = ({normalise(n): n for n in names.values()} for names in (model, split.names))
    lone = [[n for key, n in one.items() if key not in other] for one, other in ((theirs, ours), (ours, theirs))]
    parts = [f"only {who} knows {', '.join(names)}" for who, names in zip(("the model", "the data set"), lone) if names]
    return "; ".join(parts)


def read_frame(path: Path) -> np.ndarray:
    """An image file as (H, W, 3) uint8 in BGR, turned as its EXIF data say.

    Raises:
        MisuseError: It cannot be read.
    """
    return read_picture(path).pixels


def truth_of(split: Split, path: Path, size_hw: tuple[int, int]) -> Truth:
    """The labels of an image in pixels."""
    kinds, shares = split.labels(path)
    height, width = size_hw
    centre, half = shares[:, :2], shares[:, 2:] / 2
    corners = np.concatenate((centre - half, centre + half), 1) * np.array([width, height, width, height])
    return Truth(path.name, corners, kinds, size_hw)


def by_name(found: Detections, split: Split) -> Detections:
    """Detections with the data set's class ids, by normalised name; classes that it does not have are left out.

    Raises:
        MisuseError: No class of the model is in the data set.
    """
    if dict(found.names) == dict(split.names):
        return found
    ids = {normalise(name): k for k, name in split.names.items()}
    table = {k: ids[normalise(name)] for k, name in found.names.items() if normalise(name) in ids}
    if not table:
        theirs, ours = list(found.names.values())[:5], list(split.names.values())[:5]
        raise MisuseError(
            f"the model knows {', '.join(theirs)}; the data set {', '.join(ours)}: no class in common, so there is nothing "
            "to evaluate"
        )
    kept = np.array([int(k) in table for k in found.class_id], bool)
    kinds = np.array([table[int(k)] for k in found.class_id[kept]], np.int64)
    return Detections(found.xyxy[kept], found.confidence[kept], kinds, split.names, found.size_hw)


def _statistics(frame: np.ndarray) -> tuple[float, float]:
    import cv2

    grey = cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)
    return float(grey.mean()), float(cv2.Laplacian(grey, cv2.CV_64F).var())


def _counted(paths: Sequence[Path], label: str) -> Iterator[Path]:
    """The paths, with a line on stderr that says how many are done and how long the rest takes."""
    start, total, live = time.monotonic(), len(paths), sys.stderr.isatty()
    for done, path in enumerate(paths, 1):
        yield path
        if label and (live or done % 50 == 0 or done == total):
            left = (time.monotonic() - start) / done * (total - done)
            end = "\r" if live and done < total else "\n"
            print(f"{label}: {done}/{total} images, {left:.0f} s left  ", end=end, file=sys.stderr, flush=True)
