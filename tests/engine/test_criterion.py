"""Terms that are not finite or say nothing: refused on the first batch, and given up where no gain can be found."""

from __future__ import annotations

import math

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from yolo_kd.engine.criterion import DistillationCriterion
from yolo_kd.engine.terms import Term
from yolo_kd.errors import GateError, YoloKDError


@pytest.fixture(scope="module")
def student() -> DetectionModel:
    return DetectionModel("yolov8n.yaml", verbose=False)


def criterion_of(student, *terms: Term, **keys) -> DistillationCriterion:
    criterion = DistillationCriterion(None, student, **keys)
    criterion.terms = list(terms)
    return criterion


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_on_the_first_batch_is_refused(student, value):
    term = Term("pcd", "loc", "kdloc_loss", "boxes", gain=1.0)
    values = {"kdloc_loss": torch.tensor(value)}
    with pytest.raises(GateError, match=rf"pcd\.loc={value:g} on the first batch.* with pcd\.loc=none, or use force"):
        criterion_of(student, term)._usable(values)
    lines: list[str] = []
    assert not criterion_of(student, term, force=True, log=lines.append)._usable(values)
    assert len(lines) == 2 and lines[0].startswith(f"WARNING forced: rank 0: pcd.loc={value:g} on the first batch")
    assert lines[1] == f"WARNING distillation left out of step 0: pcd.loc={value:g}"


def test_a_gain_is_given_up_where_batches_hold_hardly_a_gradient(student):
    """The detection loss moves nothing in 400 batches of 4 that were asked for, so no ratio says what the gain may be."""
    criterion = criterion_of(
        student, Term("pkd", "pkd", "pkd_loss", "neck", share=0.5, fixed=False), calibrate_batches=4
    )
    criterion.step, criterion.warm = 1, True
    neck = torch.ones(1, 1, 2, 2, requires_grad=True)
    args = ({"pkd_loss": neck.square().sum()}, lambda: (neck * 0).sum(), {"neck": (neck,)}, 1)
    for _ in range(399):
        criterion._measure(*args)
    assert not criterion.terms[0].fixed
    with pytest.raises(YoloKDError, match=r"pkd\.pkd=auto:0\.5: hardly a gradient in 400 batches.* e\.g\. pkd\.pkd=1"):
        criterion._measure(*args)


def test_a_gain_is_fixed_once_half_of_the_batches_said_something(student):
    lines: list[str] = []
    term = Term("pkd", "pkd", "pkd_loss", "neck", share=0.5, fixed=False)
    criterion = criterion_of(student, term, calibrate_batches=4, log=lines.append)
    criterion.step, criterion.warm = 1, True
    neck = torch.ones(1, 1, 2, 2, requires_grad=True)
    for factor in (0, 0, 0, 3, 3):
        assert not term.fixed
        criterion._measure({"pkd_loss": neck.sum()}, lambda: factor * neck.sum(), {"neck": (neck,)}, 1)  # noqa: B023
    assert term.fixed and term.gain == pytest.approx(1.5)
    assert lines == ["gains: pkd.pkd=1.5 (calibrated, now fixed)"]
