"""Whether an artifact has earned its place on the device: arithmetic on numbers that others measured.

The commonest complaint about quantized detectors is silence: they detect nothing, or are slower than float, and nobody
said so. Every limit is a setting; no model runs here, so every case can be tried by hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from yolo_kd.deploy.artifact import Verdict

MIN_BOXES = 20  # labelled boxes below which the AP of a class or size is luck, and only remarked upon


@dataclass(frozen=True)
class Limits:
    """What the gate tolerates.

    Args:
        max_drop: Loss of AP against the float parent, absolute.
        max_class_drop: The same for any class, and for any of small, medium and large boxes.
        min_f1: Matched F1 of the boxes with the parent's at IoU .5.
        max_score_error: Mean absolute difference of matched confidences.
        min_iou: Mean IoU of matched boxes.
        max_slowdown: Time per image as a multiple of the float parent's on this device.
    """

    max_drop: float = 0.01
    max_class_drop: float = 0.05
    min_f1: float = 0.9
    max_score_error: float = 0.05
    min_iou: float = 0.85
    max_slowdown: float = 1.0


@dataclass(frozen=True)
class Measured:
    """What was seen of an artifact and of its float parent, on the same held-out images and the same device.

    Args:
        images: Number of held-out images.
        finite: Whether every raw output was finite.
        score_range: Lowest and highest raw class score.
        boxes: Boxes found by the artifact.
        parent_boxes: Boxes found by the parent.
        f1: Matched F1 at IoU .5.
        iou: Mean IoU of matched boxes.
        score_error: Mean absolute difference of matched confidences.
        ms: Milliseconds per image, median; None if it was not timed.
        parent_ms: The parent's, in what this device runs it in by default.
        p95: Milliseconds of the slowest image of twenty, of artifact and parent.
        ap: AP of artifact and parent; None without labels.
        drop_interval: Bootstrap interval of the drop in AP.
        by_part: AP of artifact and parent for each class and size by name; None where there was no box.
        slices: The same for thirds of the images by brightness and sharpness; reported, not judged.
        labelled: Number of labelled boxes of each of these.
        overlap: Number of these images that the artifact was calibrated on.
        failure: Why the artifact could not be run on all images; empty if it could.
    """

    images: int
    finite: bool
    score_range: tuple[float, float]
    boxes: int
    parent_boxes: int
    f1: float
    iou: float
    score_error: float
    ms: float | None = None
    parent_ms: float | None = None
    p95: tuple[float, float] | None = None
    ap: tuple[float, float] | None = None
    drop_interval: tuple[float, float] | None = None
    by_part: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    slices: Mapping[str, tuple[float | None, float | None]] = field(default_factory=dict)
    labelled: Mapping[str, int] = field(default_factory=dict)
    overlap: int = 0
    failure: str = ""


def decide(seen: Measured, limits: Limits = Limits()) -> Verdict:
    """Passed or rejected, with a line for each reason, and remarks for what is odd but tolerated."""
    reasons = [*_output_faults(seen), *_disagreements(seen, limits), *_losses(seen, limits)]
    # Each comparison asks for what is good, so that a number that is NaN is bad.
    if seen.ms is not None and seen.parent_ms is not None and not seen.ms <= limits.max_slowdown * seen.parent_ms:
        reasons.append(
            f"slower than float on this device: {seen.ms:.2f} ms per image against {seen.parent_ms:.2f} ms "
            f"({seen.ms / seen.parent_ms:.2f} x, allowed {limits.max_slowdown:g} x)"
        )
    return Verdict(not reasons, tuple(reasons), tuple(_remarks(seen, limits)))


def strain(seen: Measured, limits: Limits = Limits()) -> float:
    """How much of what may be lost is lost: the largest share of any limit on boxes, confidences and AP.

    Formula: max over the limits of loss / limit, where F1 and IoU lose 1 - value and may lose 1 - limit. Above 1 the gate
    rejects; 0 is as good as the parent. Time has no part in it. Infinite for what detects nothing or does not run.
    """
    if seen.failure or not seen.finite or not seen.boxes:
        return math.inf
    lost = [
        (1 - seen.f1, 1 - limits.min_f1),
        (1 - seen.iou, 1 - limits.min_iou),
        (seen.score_error, limits.max_score_error),
    ]
    if seen.ap is not None:
        lost.append((seen.ap[1] - seen.ap[0], limits.max_drop))
        parts = [(part, pair) for part, pair in seen.by_part.items() if seen.labelled.get(part, 0) >= MIN_BOXES]
        lost += [(b - a, limits.max_class_drop) for _, (a, b) in parts if a is not None and b is not None]
    return max(0.0, *(_share(loss, allowed) for loss, allowed in lost))


def _share(loss: float, allowed: float) -> float:
    """Loss as a share of what is allowed; infinite for NaN, and for any loss where none is allowed."""
    if allowed > 0:
        return loss / allowed if math.isfinite(loss) else math.inf
    return 0.0 if loss <= 0 else math.inf


def _output_faults(seen: Measured) -> list[str]:
    faults = []
    if not seen.finite:
        faults.append("outputs that are not finite")
    elif seen.failure:
        faults.append(f"does not run on every image: {seen.failure}")
    low, high = seen.score_range
    if seen.finite and not (low >= -1e-3 and high <= 1 + 1e-3):
        faults.append(f"class scores from {low:.3g} to {high:.3g}, expected 0 to 1")
    if seen.boxes == 0 and not faults:
        faults.append(f"detects nothing on {seen.images} images, the float parent {seen.parent_boxes} boxes")
    return faults


def _disagreements(seen: Measured, limits: Limits) -> list[str]:
    if seen.boxes == 0:
        return []
    faults = []
    if not seen.f1 >= limits.min_f1:
        faults.append(
            f"boxes disagree with the float parent: matched F1 {seen.f1:.3f}, expected {limits.min_f1:g} or more"
        )
    if not seen.iou >= limits.min_iou:
        faults.append(f"boxes are off: mean IoU {seen.iou:.3f} of matched ones, expected {limits.min_iou:g} or more")
    if not seen.score_error <= limits.max_score_error:
        faults.append(f"confidences are off by {seen.score_error:.3f} on average, allowed {limits.max_score_error:g}")
    return faults


def _losses(seen: Measured, limits: Limits) -> list[str]:
    if seen.ap is None:
        return []
    faults = []
    own, parent = seen.ap
    if not parent - own <= limits.max_drop:
        faults.append(f"AP drops by {parent - own:.4f} ({parent:.4f} to {own:.4f}), allowed {limits.max_drop:g}")
    for part, lost in _drops(seen, limits):
        if seen.labelled.get(part, 0) >= MIN_BOXES:
            faults.append(f"AP of {part} drops by {lost:.4f}, allowed {limits.max_class_drop:g}")
    return faults


def _remarks(seen: Measured, limits: Limits) -> list[str]:
    remarks = []
    if seen.overlap:
        remarks.append(
            f"{seen.overlap} of the {seen.images} images were calibrated on as well: the numbers flatter, judge on others"
        )
    if seen.ap is None:
        remarks.append("no labels: AP was not compared")
    elif seen.drop_interval is not None and seen.drop_interval[1] < 0:
        remarks.append(
            f"AP rose beyond noise ({seen.ap[1]:.4f} to {seen.ap[0]:.4f}, drop within {seen.drop_interval[0]:.4f} to "
            f"{seen.drop_interval[1]:.4f}): are the evaluation images among the calibration images?"
        )
    for part, lost in _drops(seen, limits):
        count = seen.labelled.get(part, 0)
        if count < MIN_BOXES:
            remarks.append(f"AP of {part} drops by {lost:.4f}, on {count} labelled boxes only")
    if seen.ms is None or seen.parent_ms is None:
        remarks.append("not timed on this device")
    return remarks


def _drops(seen: Measured, limits: Limits) -> list[tuple[str, float]]:
    """Classes and sizes that lose more than is allowed, the worst first."""
    known = [
        (part, parent - own) for part, (own, parent) in seen.by_part.items() if own is not None and parent is not None
    ]
    return sorted(((p, lost) for p, lost in known if not lost <= limits.max_class_drop), key=lambda found: -found[1])
