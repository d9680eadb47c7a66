"""COCO's average precision: hand-worked cases, resamples, and agreement with pycocotools' own summary."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from yolo_kd.deploy.detections import Detections

from yolo_kd.errors import MisuseError
from yolo_kd.evidence.average_precision import PrecisionMeter, Truth, drop_interval

NAMES = {0: "car", 1: "person"}
SIZE = (400, 400)


def truth(*boxes: tuple[float, float, float, float, int]) -> Truth:
    table = np.array(boxes, float).reshape(-1, 5)
    return Truth("picture", table[:, :4], table[:, 4].astype(int), SIZE)


def found(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    order = np.argsort(-table[:, 4], kind="stable")
    return Detections(table[order, :4], table[order, 4], table[order, 5].astype(int), NAMES, SIZE)


def test_perfect_detections_score_one_and_sizes_are_cocos():
    boxes = [(0, 0, 20, 20, 0), (50, 50, 110, 110, 0), (150, 150, 350, 350, 1)]
    meter = PrecisionMeter([truth(*boxes)], [found(*((*b[:4], 0.9, b[4]) for b in boxes))], NAMES)
    result = meter.precision()
    assert (result.ap, result.ap50, result.ap75) == pytest.approx((1.0, 1.0, 1.0))
    assert result.by_size == pytest.approx({"small": 1.0, "medium": 1.0, "large": 1.0})
    assert result.by_class == pytest.approx({"car": 1.0, "person": 1.0}) and result.boxes == {"car": 2, "person": 1}


def test_hand_worked_precision():
    """Two cars, the better detection is right, the other is a false one: recall .5 at precision 1.

    COCO reads precision at 101 recalls 0, .01, ...: 51 of them are reached, so AP is 51 / 101 at each IoU.
    """
    meter = PrecisionMeter(
        [truth((0, 0, 100, 100, 0), (200, 200, 300, 300, 0))],
        [found((0, 0, 100, 100, 0.9, 0), (300, 0, 380, 80, 0.5, 0))],
        NAMES,
    )
    result = meter.precision()
    assert result.ap == pytest.approx(51 / 101) and result.ap50 == pytest.approx(51 / 101)
    assert result.by_class["person"] is None and result.by_size["small"] is None


def test_loose_box_counts_below_its_overlap_only():
    """IoU 80 x 100 / 10000 = .8 : found at the seven thresholds from .5 to .8."""
    meter = PrecisionMeter([truth((0, 0, 100, 100, 0))], [found((0, 0, 80, 100, 0.9, 0))], NAMES)
    result = meter.precision()
    assert result.ap == pytest.approx(0.7) and result.ap75 == pytest.approx(1.0)


def test_nothing_found_is_zero_and_nothing_labelled_is_an_error():
    meter = PrecisionMeter([truth((0, 0, 100, 100, 0))], [found()], NAMES)
    assert meter.precision().ap == 0.0
    with pytest.raises(MisuseError, match="none of the 1 images has a labelled box"):
        PrecisionMeter([truth()], [found()], NAMES)


def scattered(seed: int, images: int = 12) -> tuple[list[Truth], list[Detections]]:
    random = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        corners = random.uniform(0, 250, (6, 2))
        boxes = np.concatenate((corners, corners + random.uniform(10, 140, (6, 2))), 1)
        kinds = random.integers(2, size=6)
        truths.append(truth(*((*b, k) for b, k in zip(boxes, kinds, strict=True))))
        moved = boxes + random.normal(0, 6, boxes.shape)
        detections.append(found(*((*b, s, k) for b, s, k in zip(moved, random.uniform(0, 1, 6), kinds, strict=True))))
    return truths, detections


def test_agrees_with_the_summary_of_pycocotools():
    """Below 100 boxes per image our limit of 300 changes nothing."""
    meter = PrecisionMeter(*scattered(0), NAMES)
    ours = meter.precision()
    theirs = meter._coco
    theirs.params.maxDets = [1, 10, 100]
    with contextlib.redirect_stdout(io.StringIO()):
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    assert 0.1 < ours.ap < 0.9
    sizes = [ours.by_size[k] for k in ("small", "medium", "large")]
    wanted = [None if v == -1 else pytest.approx(v) for v in theirs.stats[:6]]
    assert [ours.ap, ours.ap50, ours.ap75, *sizes] == wanted


def test_a_resample_is_the_measurement_on_those_images():
    truths, detections = scattered(1)
    drawn = np.array([3, 3, 0, 7, 11, 3])
    meter = PrecisionMeter(truths, detections, NAMES)
    alone = PrecisionMeter([truths[i] for i in drawn], [detections[i] for i in drawn], NAMES)
    assert meter.ap_of(drawn) == pytest.approx(alone.precision().ap)
    whole = meter.precision()
    assert meter.ap_of(np.arange(12)) == pytest.approx(whole.ap)
    assert meter.precision() == whole and whole.by_size["small"] != whole.ap  # a resample leaves sizes out


def test_two_meters_are_resampled_alike_and_each_once(monkeypatch):
    """The draws, not only their number: the difference of two nets is taken on the same images."""
    truths, detections = scattered(2)
    meters = [PrecisionMeter(truths, detections, NAMES) for _ in range(3)]
    drawn: dict[int, list[list[int]]] = {id(m): [] for m in meters}

    def seen(self, images):
        drawn[id(self)].append(images.tolist())
        return float(images.mean())

    monkeypatch.setattr(PrecisionMeter, "ap_of", seen)
    for other in meters[1:]:
        assert drop_interval(meters[0], other, resamples=5) == (0.0, 0.0)
    first, *others = drawn.values()
    assert len(first) == 5 and others == [first, first] and first[0] != first[1]
    drop_interval(meters[0], meters[1], resamples=5, seed=1)
    assert len(first) == 10 and first[5:] != first[:5]


def test_interval_of_a_drop_holds_it_and_is_nothing_for_equal_detections():
    truths, detections = scattered(2)
    worse = [found(*((*b, c, k) for b, c, k, _ in list(d)[:4])) for d in detections]
    before, after = PrecisionMeter(truths, detections, NAMES), PrecisionMeter(truths, worse, NAMES)
    low, high = drop_interval(before, after, resamples=60)
    drop = before.precision().ap - after.precision().ap
    assert 0 < low < drop < high
    assert drop_interval(before, before, resamples=5) == (0.0, 0.0)
