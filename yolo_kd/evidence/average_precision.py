"""COCO's average precision by pycocotools, the same for every back end.

Up to 300 boxes per image count, as in Ultralytics' validation; COCO's own limit is 100. Sizes are COCO's: a box is small
below 32^2 pixels of the original image, large from 96^2. Lin et al., "Microsoft COCO", ECCV 2014,
https://arxiv.org/abs/1405.0312.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from yolo_kd.deploy.detections import Detections
from yolo_kd.errors import MisuseError, YoloKDError

MAX_DETECTIONS = 300
SIZES = ("all", "small", "medium", "large")
RESAMPLES = 200


@dataclass(frozen=True)
class Truth:
    """The labels of one image.

    Args:
        name: What the image is called in messages.
        xyxy: (N, 4) corners in pixels of the image.
        class_id: (N,) class of each box.
        size_hw: Height and width of the image in pixels.
    """

    name: str
    xyxy: np.ndarray
    class_id: np.ndarray
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class Precision:
    """Average precision in [0, 1]; None where there is no box to find.

    Args:
        ap: Mean over IoU .5 to .95 and classes.
        ap50: At IoU .5.
        ap75: At IoU .75.
        by_size: AP of "small", "medium" and "large" boxes.
        by_class: AP of each class by name.
        boxes: Number of labelled boxes of each class by name.
    """

    ap: float
    ap50: float
    ap75: float
    by_size: Mapping[str, float | None]
    by_class: Mapping[str, float | None]
    boxes: Mapping[str, int]


class PrecisionMeter:
    """Matches detections with labels once; averages over all images, or over a resample of them.

    Args:
        truths: Labels of each image.
        found: Detections of each image, in the same order, down to a low confidence (.001).
        names: Class id to name.

    Raises:
        MisuseError: pycocotools is missing, or there is no label at all.
    """

    def __init__(self, truths: Sequence[Truth], found: Sequence[Detections], names: Mapping[int, str]) -> None:
        if len(truths) != len(found):
            raise YoloKDError(f"expected detections of {len(truths)} images, got those of {len(found)}")
        boxes = sum(len(t.xyxy) for t in truths)
        if boxes == 0:
            raise MisuseError(f"none of the {len(truths)} images has a labelled box: there is no precision to measure")
        self.names = dict(names)
        self.boxes = {name: sum(int((t.class_id == k).sum()) for t in truths) for k, name in self.names.items()}
        self.images = len(truths)
        self._coco = _evaluated(truths, found, sorted(self.names))
        shape = (len(self._coco.params.catIds), len(SIZES), self.images)
        self._matches = np.empty(shape, dtype=object)
        self._matches.reshape(-1)[:] = self._coco.evalImgs
        self._areas = self._coco.params.areaRng
        self._resampled: dict[tuple[int, int], list[float | None]] = {}

    def precision(self) -> Precision:
        """Over all images."""
        table = self._accumulate(np.arange(self.images))
        by_class = {self.names[k]: _mean(table[:, :, i, 0]) for i, k in enumerate(sorted(self.names))}
        return Precision(
            ap=_mean(table[:, :, :, 0]) or 0.0,
            ap50=_mean(table[0, :, :, 0]) or 0.0,
            ap75=_mean(table[5, :, :, 0]) or 0.0,
            by_size={size: _mean(table[:, :, :, i]) for i, size in enumerate(SIZES) if i},
            by_class=by_class,
            boxes=self.boxes,
        )

    def ap_of(self, images: np.ndarray) -> float | None:
        """AP over the images with these indices, repeats counted as often as they occur; None without a label."""
        return _mean(self._accumulate(images, sizes=1)[:, :, :, 0])

    def resampled(self, resamples: int, seed: int) -> list[float | None]:
        """AP of bootstrap samples of the images; of two meters over the same images, those of the same samples.

        Args:
            resamples: Number of bootstrap samples.
            seed: Of the draws.
        """
        if (resamples, seed) not in self._resampled:  # one parent is compared with many candidates
            random = np.random.default_rng(seed)
            drawn = (random.integers(self.images, size=self.images) for _ in range(resamples))
            self._resampled[resamples, seed] = [self.ap_of(images) for images in drawn]
        return self._resampled[resamples, seed]

    def _accumulate(self, images: np.ndarray, sizes: int = len(SIZES)) -> np.ndarray:
        """Precision (10 IoUs, 101 recalls, classes, the first so many sizes); -1 where there is nothing to find."""
        coco = self._coco
        coco.evalImgs = self._matches[:, :sizes, images].reshape(-1).tolist()
        for params in (coco.params, coco._paramsEval):
            params.imgIds = list(range(1, len(images) + 1))
            params.areaRng = self._areas[:sizes]
        with contextlib.redirect_stdout(io.StringIO()):
            coco.accumulate()
        return coco.eval["precision"][..., -1]


def require_pycocotools() -> None:
    """Say that it is missing before anything was measured, not after.

    Raises:
        MisuseError: It is missing.
    """
    if find_spec("pycocotools") is None:
        raise MisuseError("average precision needs pycocotools, which is not installed; run: pip install pycocotools")


def drop_interval(
    before: PrecisionMeter, after: PrecisionMeter, resamples: int = RESAMPLES, seed: int = 0, level: float = 0.95
) -> tuple[float, float]:
    """Bootstrap interval of the drop in AP from `before` to `after`, over images; both see the same resamples.

    Args:
        before: Of the float parent.
        after: Of what was made from it, on the same images.
        resamples: Number of bootstrap samples.
        seed: Of the draws.
        level: Share of the samples inside the interval.
    """
    if before.images != after.images:
        raise YoloKDError(f"expected the same images, got {before.images} and {after.images}")
    pairs = zip(before.resampled(resamples, seed), after.resampled(resamples, seed), strict=True)
    drops = [was - now for was, now in pairs if was is not None and now is not None]
    if not drops:
        raise YoloKDError("none of the resamples holds a labelled box; expected more labelled images")
    low, high = np.quantile(drops, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _evaluated(truths: Sequence[Truth], found: Sequence[Detections], classes: Sequence[int]) -> Any:
    require_pycocotools()
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    labels: list[dict[str, Any]] = []
    for i, truth in enumerate(truths, 1):
        for box, kind in zip(truth.xyxy.tolist(), truth.class_id.tolist(), strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            labels.append(
                {"id": len(labels) + 1, "image_id": i, "category_id": int(kind), "iscrowd": 0, "area": width * height}
                | {"bbox": [box[0], box[1], width, height]}
            )
    rows = [_rows(i, d) for i, d in enumerate(found, 1)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth_set = COCO()
        truth_set.dataset = {
            "info": {},
            "images": [{"id": i, "height": t.size_hw[0], "width": t.size_hw[1]} for i, t in enumerate(truths, 1)],
            "categories": [{"id": k} for k in classes],
            "annotations": labels,
        }
        truth_set.createIndex()
        every = np.concatenate(rows) if rows else np.zeros((0, 7))
        if len(every):
            detected = truth_set.loadRes(every)
        else:  # loadRes takes no empty list
            detected = COCO()
            detected.dataset = {**truth_set.dataset, "annotations": []}
            detected.createIndex()
        evaluator = COCOeval(truth_set, detected, "bbox")
        evaluator.params.maxDets = [MAX_DETECTIONS]
        evaluator.params.catIds = list(classes)
        evaluator.evaluate()
    return evaluator


def _rows(image: int, found: Detections) -> np.ndarray:
    """(N, 7): image, x, y, width, height, confidence, class."""
    out = np.empty((len(found), 7))
    out[:, 0], out[:, 5], out[:, 6] = image, found.confidence, found.class_id
    out[:, 1:3], out[:, 3:5] = found.xyxy[:, :2], found.xyxy[:, 2:] - found.xyxy[:, :2]
    return out


def _mean(values: np.ndarray) -> float | None:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else None
