"""The gate: each way in which an artifact can be bad is one number moved, and each is a reason of its own."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from yolo_kd.deploy.quantize.gate import Limits, Measured, decide, strain

GOOD = Measured(
    images=64, finite=True, score_range=(0.0, 0.98), boxes=300, parent_boxes=305, f1=0.97, iou=0.96, score_error=0.01,
    ms=10.0, parent_ms=15.0, ap=(0.425, 0.430), drop_interval=(-0.002, 0.011),
    by_part={"car": (0.60, 0.61), "small": (0.20, 0.21), "person": (None, None)},
    labelled={"car": 150, "small": 80, "person": 0},
)  # fmt: skip


def test_a_good_artifact_passes_without_a_remark():
    verdict = decide(GOOD)
    assert verdict.passed and verdict.reasons == () and verdict.remarks == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"finite": False}, "not finite"),
        ({"failure": "class 9 does not exist"}, "does not run on every image: class 9 does not exist"),
        ({"f1": float("nan")}, "matched F1 nan"),
        ({"iou": float("nan")}, "mean IoU nan"),
        ({"score_error": float("nan")}, "off by nan"),
        ({"ms": float("nan")}, "slower than float"),
        ({"ap": (float("nan"), 0.4)}, "AP drops by nan"),
        ({"score_range": (0.0, 1.3)}, "from 0 to 1.3, expected 0 to 1"),
        ({"score_range": (-0.2, 0.9)}, "from -0.2 to 0.9"),
        ({"boxes": 0, "f1": 0.0, "iou": 0.0}, "detects nothing on 64 images, the float parent 305 boxes"),
        ({"f1": 0.89}, "matched F1 0.890, expected 0.9 or more"),
        ({"iou": 0.8}, "mean IoU 0.800"),
        ({"score_error": 0.06}, "off by 0.060 on average, allowed 0.05"),
        ({"ap": (0.4195, 0.430)}, r"AP drops by 0.0105 \(0.4300 to 0.4195\), allowed 0.01"),
        ({"by_part": {"car": (0.55, 0.61)}}, "AP of car drops by 0.0600, allowed 0.05"),
        ({"by_part": {"small": (0.10, 0.21)}}, "AP of small drops by 0.1100"),
        (
            {"ms": 15.1},
            r"slower than float on this device: 15.10 ms per image against 15.00 ms \(1.01 x, allowed 1 x\)",
        ),
    ],
)
def test_each_fault_is_its_own_single_reason(change, reason):
    verdict = decide(replace(GOOD, **change))
    assert not verdict.passed and len(verdict.reasons) == 1
    assert re.search(reason, verdict.reasons[0]), verdict.reasons


def test_limits_are_the_edge():
    edge = replace(GOOD, f1=0.9, iou=0.85, score_error=0.05, ap=(0.5, 0.51), ms=15.0, score_range=(0.0, 1.0))
    assert decide(edge, Limits(max_drop=0.0100001)).passed
    assert not decide(edge, Limits(max_drop=0.009)).passed
    assert decide(replace(GOOD, ms=20.0), Limits(max_slowdown=1.5)).passed


def test_a_rare_class_is_remarked_upon_not_judged():
    verdict = decide(replace(GOOD, by_part={"bus": (0.1, 0.9)}, labelled={"bus": 3}))
    assert verdict.passed and verdict.remarks == ("AP of bus drops by 0.8000, on 3 labelled boxes only",)


def test_better_than_float_beyond_noise_is_suspicious():
    verdict = decide(replace(GOOD, ap=(0.47, 0.43), drop_interval=(-0.06, -0.02)))
    assert verdict.passed and "AP rose beyond noise" in verdict.remarks[0]


def test_what_was_not_measured_is_said():
    verdict = decide(replace(GOOD, ap=None, by_part={}, ms=None))
    assert verdict.passed and verdict.remarks == ("no labels: AP was not compared", "not timed on this device")


def test_several_faults_are_all_listed():
    verdict = decide(replace(GOOD, f1=0.5, ap=(0.1, 0.43), ms=99.0))
    assert len(verdict.reasons) == 3


def test_the_strain_by_hand():
    """Half of the AP that may go, 3 of 10 points of F1, 4 of 15 of IoU, a fifth of the error, .01 of .05 of each part."""
    assert strain(GOOD) == pytest.approx(0.5)
    assert strain(replace(GOOD, ap=(0.43, 0.43), by_part={})) == pytest.approx(0.3)
    assert strain(replace(GOOD, ap=None, f1=1.0)) == pytest.approx(0.04 / 0.15)
    assert strain(replace(GOOD, by_part={"car": (0.50, 0.60)})) == pytest.approx(2)
    assert strain(replace(GOOD, f1=1.0, iou=1.0, score_error=0.0, ap=(0.5, 0.4), by_part={})) == 0


@pytest.mark.parametrize(
    "change", [{"finite": False}, {"failure": "x"}, {"boxes": 0}, {"f1": math.nan}, {"iou": math.nan}]
)
def test_the_strain_of_what_does_not_work_is_infinite(change):
    assert strain(replace(GOOD, **change)) == math.inf


def test_where_nothing_may_be_lost():
    exact = replace(GOOD, f1=1.0, iou=1.0, score_error=0.0, ap=(0.4, 0.4), by_part={})
    assert strain(exact, Limits(0, 0, 1, 0, 1)) == 0 and strain(GOOD, Limits(max_drop=0)) == math.inf


@pytest.mark.parametrize("key", ["f1", "iou", "score_error", "ap", "class", "rare class", "ms"])
@pytest.mark.parametrize("loss", [0.0, 0.004, 0.02, 0.08, 0.3])
def test_above_one_is_rejected_and_time_has_no_part_in_it(key, loss):
    change = {
        "f1": {"f1": 1 - loss}, "iou": {"iou": 1 - loss}, "score_error": {"score_error": loss},
        "ap": {"ap": (0.43 - loss, 0.43)}, "class": {"by_part": {"car": (0.5 - loss, 0.5)}},
        "rare class": {"by_part": {"bus": (0.5 - loss, 0.5)}, "labelled": {"bus": 19}}, "ms": {"ms": 15 + loss},
    }[key]  # fmt: skip
    seen = replace(GOOD, **change)
    assert (strain(seen) > 1) == any("slower" not in reason for reason in decide(seen).reasons)
