"""Measures an artifact beside its float parent on this device, and lets the gate decide."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from yolo_kd.data.split import Split
from yolo_kd.deploy.backends import Backend
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.quantize.agreement import agree
from yolo_kd.deploy.quantize.gate import Measured
from yolo_kd.deploy.runtime import Detector
from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.evidence.average_precision import RESAMPLES, Precision, drop_interval, require_pycocotools
from yolo_kd.evidence.evaluation import Seen, look, read_frame

FIELD_CONFIDENCE = 0.25  # where two detectors' boxes are compared: the default of the runtime
TIMED = 60  # pairs of runs
WARM_UP = 5


class _Watch:
    """A back end that notes what leaves the net."""

    def __init__(self, backend: Backend, first_score: int, last_score: int | None) -> None:
        self.backend, self.scores = backend, slice(first_score, last_score)
        self.low, self.high, self.finite = 1.0, 0.0, True

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def run(self, canvas: np.ndarray) -> np.ndarray:
        raw = self.backend.run(canvas)
        scores = raw[..., self.scores] if self.scores.stop else raw[:, self.scores]
        finite = np.isfinite(scores)
        self.finite &= bool(np.isfinite(raw).all())
        if finite.any():
            self.low, self.high = (
                min(self.low, float(scores[finite].min())),
                max(self.high, float(scores[finite].max())),
            )
        return raw


def measure(
    artifact: Detector, parent: Detector, split: Split, timed: int = TIMED, label: str = "", resamples: int = RESAMPLES
) -> Measured:
    """What the gate needs to know, from two detectors opened at a confidence of .001 with `multi_label`.

    Args:
        artifact: What is to be judged.
        parent: The float net that it was made from.
        split: Held-out images; without any label AP is not compared.
        timed: Pairs of timed runs, artifact and parent in turn; 0 to leave the time out.
        label: Shown with how far it is.
        resamples: Of the images, for the interval of the drop in AP; 0 to leave it out.

    Raises:
        MisuseError: There are labels, and pycocotools is missing; or what `look` raises.
    """
    if any(len(split.labels(image)[0]) for image in split.images):
        require_pycocotools()
    wanted = look(parent, split, f"{label} parent" if label else "")
    watch = _Watch(artifact.backend, *((4, 5) if artifact.artifact.end2end else (4, None)))
    artifact.backend = watch  # type: ignore[assignment]
    found, failure = None, ""
    try:
        found = look(artifact, split, label)
    except MisuseError:
        raise
    except YoloKDError as error:
        failure = str(error)
    finally:
        artifact.backend = watch.backend
    parent_boxes = sum(len(d) for d in _confident(wanted))
    if found is None:
        return broken(len(split.images), parent_boxes, failure, watch.finite)
    same = agree(_confident(wanted), _confident(found))
    seen = Measured(
        images=len(split.images),
        finite=watch.finite,
        score_range=(watch.low, watch.high),
        boxes=same.candidate,
        parent_boxes=same.parent,
        f1=same.f1,
        iou=same.iou,
        score_error=same.score_error,
    )
    if any(len(t.xyxy) for t in wanted.truths):
        seen = _with_precision(seen, found, wanted, resamples)
    if timed:
        own, theirs = time_in_turn((artifact, parent), [read_frame(p) for p in split.images[:8]], timed)
        slowest = (float(np.percentile(own, 95)), float(np.percentile(theirs, 95)))
        seen = replace(seen, ms=statistics.median(own), parent_ms=statistics.median(theirs), p95=slowest)
    return seen


def broken(images: int, parent_boxes: int, failure: str, finite: bool = True) -> Measured:
    """What was seen of an artifact that does not run."""
    return Measured(images, finite, (0.0, 0.0), 0, parent_boxes, 0.0, 0.0, 0.0, failure=failure)


def time_in_turn(detectors: Sequence[Detector], frames: Sequence[np.ndarray], count: int) -> list[list[float]]:
    """Milliseconds from frame to boxes, `count` of each of several detectors that take turns, so that all see one machine.

    They run at the runtime's defaults meanwhile: down to a confidence of .001, suppression alone takes milliseconds.
    """
    times: list[list[float]] = [[] for _ in detectors]
    before = [(d.confidence, d.multi_label) for d in detectors]
    for detector in detectors:
        detector.confidence, detector.multi_label = FIELD_CONFIDENCE, False
    for index in range(count + WARM_UP):
        frame = frames[index % len(frames)]
        for detector, kept in zip(detectors, times, strict=True):
            start = time.perf_counter()
            detector(frame)
            if index >= WARM_UP:
                kept.append(1000 * (time.perf_counter() - start))
    for detector, kept_as in zip(detectors, before, strict=True):
        detector.confidence, detector.multi_label = kept_as
    return times


def _with_precision(seen: Measured, found: Seen, wanted: Seen, resamples: int) -> Measured:
    own, parent = found.meter(), wanted.meter()
    after, before = own.precision(), parent.precision()
    by_part = {**_pairs(after, before, "by_class"), **_pairs(after, before, "by_size")}
    sizes = _sizes(wanted)
    return replace(
        seen,
        ap=(after.ap, before.ap),
        drop_interval=drop_interval(parent, own, resamples) if resamples else None,
        by_part=by_part,
        slices={name: (own.ap_of(images), parent.ap_of(images)) for name, images in wanted.slices().items()},
        labelled={**dict(before.boxes), **sizes},
    )


def _pairs(after: Precision, before: Precision, field: str) -> dict[str, tuple[float | None, float | None]]:
    own, parent = getattr(after, field), getattr(before, field)
    label = "{} boxes" if field == "by_size" else "{}"
    return {label.format(name): (own[name], parent[name]) for name in own}


def _sizes(seen: Seen) -> dict[str, int]:
    """Number of labelled boxes of each of COCO's sizes."""
    boxes = np.concatenate([t.xyxy for t in seen.truths])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    edges = {"small boxes": (0, 32**2), "medium boxes": (32**2, 96**2), "large boxes": (96**2, np.inf)}
    return {name: int(((areas >= low) & (areas < high)).sum()) for name, (low, high) in edges.items()}


def _confident(seen: Seen) -> list[Detections]:
    """The detections above the runtime's default confidence."""
    return [_above(d, FIELD_CONFIDENCE) for d in seen.found]


def _above(found: Detections, confidence: float) -> Detections:
    kept = found.confidence > confidence
    return Detections(found.xyxy[kept], found.confidence[kept], found.class_id[kept], found.names, found.size_hw)
