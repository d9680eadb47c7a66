"""Everything that is measured of one detector, as plain rows: precision, slices, and precision on spoilt pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from yolo_kd.data.corruptions import STRENGTHS, corrupt
from yolo_kd.data.split import Split
from yolo_kd.evidence.average_precision import Precision
from yolo_kd.evidence.evaluation import Detect, Seen, look


def summary(precision: Precision) -> dict[str, float | None]:
    """The row of a table: AP, AP50, AP75 and AP by size."""
    return {"AP": precision.ap, "AP50": precision.ap50, "AP75": precision.ap75} | {
        f"AP {size}": value for size, value in precision.by_size.items()
    }


def sliced(seen: Seen) -> dict[str, float | None]:
    """AP on the darkest, brightest, most blurred, ... third of the images."""
    meter = seen.meter()
    return {name: meter.ap_of(images) for name, images in seen.slices().items()}


def spoilt(detect: Detect, split: Split, names: Sequence[str], label: str = "") -> dict[str, list[float]]:
    """AP under each corruption at the strengths 1, 2 and 3; each picture is spoilt with a seed of its own.

    Args:
        detect: BGR frame to detections.
        split: The images.
        names: Corruptions, see `data.corruptions`.
        label: Shown with how far it is.
    """
    found: dict[str, list[float]] = {}
    for name in names:
        found[name] = []
        for strength in STRENGTHS:

            def change(frame: np.ndarray, index: int, name: str = name, strength: int = strength) -> np.ndarray:
                return corrupt(frame, name, strength, seed=index)

            seen = look(detect, split, f"{label} {name} {strength}" if label else "", change)
            found[name].append(seen.meter().precision().ap)
    return found


def report(detect: Detect, split: Split, corruptions: Sequence[str] = (), label: str = "") -> dict[str, Any]:
    """What `yolo-kd evaluate` prints and writes of one detector.

    Args:
        detect: BGR frame to detections at a confidence of .001.
        split: The images.
        corruptions: Names of the corruptions to try; none by default, because each costs three passes.
        label: Shown with how far it is.
    """
    seen = look(detect, split, label)
    precision = seen.meter().precision()
    return {
        "images": len(split.images),
        "precision": summary(precision),
        "classes": {name: {"AP": precision.by_class[name], "boxes": count} for name, count in precision.boxes.items()},
        "slices": sliced(seen),
        "corruptions": spoilt(detect, split, corruptions, label),
    }
