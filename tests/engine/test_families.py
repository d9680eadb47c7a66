"""Every family as student and as teacher, one real training step at 64 px."""

from __future__ import annotations

import pytest
import torch

from yolo_kd.engine import ultra
from yolo_kd.engine.heads import common_levels, cut_output, cut_spec
from yolo_kd.engine.teacher import Teacher
from yolo_kd.errors import MisuseError

FAMILIES = ["yolov8n.yaml", "yolov9t.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolo26n.yaml"]
TERMS = ("cs_loss", "gr_loss", "kdcls_loss", "kdloc_loss", "lqe_loss")
DUAL = {"yolov10n.yaml", "yolo26n.yaml"}
ONE_STEP = {"csgr.gr": "auto:0.5", "force": True, "teacher_engine": "torch", "fraction": 4, "calibrate_batches": 1}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_as_student(train, make_checkpoint, family):
    trainer = train(model=family, teacher=str(make_checkpoint(seed=1)), **ONE_STEP)
    items = {k: float(v) for k, v in trainer.loss_items.items()}
    spec = ultra.head_spec(trainer.model)
    assert spec.dual == (family in DUAL)
    assert all(items[k] > 0 for k in TERMS), items
    assert all(term.gain > 0 for term in trainer.criterion.terms), "a gradient did not arrive"


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_as_teacher(train, make_checkpoint, family):
    trainer = train(teacher=str(make_checkpoint(family, seed=1)), **ONE_STEP)
    items = {k: float(v) for k, v in trainer.loss_items.items()}
    assert all(items[k] > 0 for k in TERMS), items
    assert all(term.gain > 0 for term in trainer.criterion.terms), "a gradient did not arrive"


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_teacher_equals_the_model(make_checkpoint, family):
    path = str(make_checkpoint(family, seed=1))
    model = ultra.load_detector(path, "teacher").eval()
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = ultra.read_outputs(model(image))
    teacher = Teacher(path, torch.device("cpu"), towers=True)
    found = teacher(image)
    assert found.branches.keys() == wanted.branches.keys()
    for a, b in zip(found.feats, wanted.feats):
        assert torch.allclose(a, b, atol=1e-3 * float(b.abs().max()))
    for name in wanted.branches:
        assert torch.allclose(found.branches[name].scores, wanted.branches[name].scores, atol=2e-2)
    assert [t.shape[1] for t in found.towers] == list(teacher.spec.towers)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in teacher.net.modules())


def test_levels_are_matched_by_stride(make_checkpoint):
    p2 = Teacher(str(make_checkpoint("yolov8n-p2.yaml", seed=1)), torch.device("cpu"))
    student = Teacher(str(make_checkpoint("yolov8n.yaml", seed=1)), torch.device("cpu"))
    assert p2.full_spec.strides == (4, 8, 16, 32)
    shared = common_levels(student.full_spec, p2.full_spec)
    assert shared == (8, 16, 32)
    output = p2(torch.rand(1, 3, 64, 64))
    cut = cut_output(output, p2.full_spec, shared)
    assert [tuple(f.shape[2:]) for f in cut.feats] == [(8, 8), (4, 4), (2, 2)]
    assert torch.equal(cut.branches["one2many"].scores, output.branches["one2many"].scores[..., 256:])
    assert cut_spec(p2.full_spec, shared).channels == p2.full_spec.channels[1:]


@pytest.mark.slow
@pytest.mark.parametrize("models", [("yolov8n-p2.yaml", "yolov8n.yaml"), ("yolov8n.yaml", "yolov8n-p2.yaml")], ids=str)
def test_a_level_of_one_side_only_takes_no_part(train, make_checkpoint, models):
    """Every method sees the same levels of both, whichever has one more."""
    methods = {
        "csgr": {"cs": 1, "gr": 1},
        "pcd": {"cls": 1, "loc": 1},
        "lqe": {"lqe": 1},
        "mar": {"mask": 1, "relation": 1},
    }
    student, teacher = models
    trainer = train(
        model=student,
        teacher=str(make_checkpoint(teacher, seed=1)),
        **{**ONE_STEP, "csgr.gr": 1},
        distill={"methods": methods},
    )
    assert trainer.distillation.teacher.strides == (8, 16, 32)
    items = {k: float(v) for k, v in trainer.loss_items.items()}
    assert all(items[k] > 0 for k in (*TERMS, "mask_loss", "rel_loss")), items


def test_no_common_level_is_refused(make_checkpoint):
    spec = Teacher(str(make_checkpoint("yolov8n.yaml", seed=1)), torch.device("cpu")).full_spec
    with pytest.raises(MisuseError, match="no level in common"):
        common_levels(spec, cut_spec(spec, ()))
