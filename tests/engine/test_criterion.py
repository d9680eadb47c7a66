"""Terms that are not finite or say nothing are refused or given up; two branches teach by their shares of the loss."""

from __future__ import annotations

import math

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from yolo_kd.cfg.settings import Recipe

from yolo_kd.engine import ultra
from yolo_kd.engine.classes import match
from yolo_kd.engine.criterion import DistillationCriterion
from yolo_kd.engine.heads import Acting
from yolo_kd.engine.teacher import Teacher
from yolo_kd.engine.terms import Term, build_methods
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
    args = ({"pkd_loss": neck.square().sum()}, lambda: (neck * 0).sum(), {"neck": Acting((neck,))}, 1)
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
        criterion._measure({"pkd_loss": neck.sum()}, lambda: factor * neck.sum(), {"neck": Acting((neck,))}, 1)  # noqa: B023
    assert term.fixed and term.gain == pytest.approx(1.5)
    assert lines == ["gains: pkd.pkd=1.5 (calibrated, now fixed)"]


def test_two_branches_teach_by_the_shares_that_they_have_in_the_detection_loss_now(make_checkpoint):
    """One-to-many falls from .8 to .1 over the epochs, of which there are three: .8, .45, .1."""
    net = DetectionModel("yolov10n.yaml", nc=3, verbose=False)
    net.args = get_cfg(overrides={"epochs": 3})
    teacher = Teacher(str(make_checkpoint(seed=1)), torch.device("cpu"))
    shared = match(teacher.names, teacher.names)
    methods = build_methods(Recipe("test", {"pcd": {"cls": 1.0}}), ultra.head_spec(net), teacher.spec, shared, print)
    criterion = DistillationCriterion(net.init_criterion(), net, teacher, methods)
    seen: list[dict[str, float]] = []
    forward = methods[0].distiller.forward
    methods[0].distiller.forward = lambda s, t, y: (seen.append(s.branch_weights), forward(s, t, y))[1]
    boxes = {"cls": torch.zeros(1, 1), "bboxes": torch.tensor([[0.5, 0.5, 0.8, 0.8]]), "batch_idx": torch.zeros(1)}
    batch = {"img": torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)), **boxes}
    preds = net.train()(batch["img"])
    for _ in range(3):
        criterion(preds, batch)
        criterion.update()
    assert [found["one2many"] for found in seen] == pytest.approx([0.8, 0.45, 0.1])
    assert [found["one2one"] for found in seen] == pytest.approx([0.2, 0.55, 0.9])
