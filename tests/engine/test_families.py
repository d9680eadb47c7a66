"""Every family as student and as teacher, one real training step at 64 px."""

from __future__ import annotations

import shutil
from functools import partial

import pytest
import torch
import yaml
from PIL import Image

from tests.conftest import TINY
from yolo_kd import DistillationTrainer, distill
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import common_levels, cut_output, cut_spec
from yolo_kd.engine.teacher import Teacher
from yolo_kd.errors import MisuseError

FAMILIES = ["yolov8n.yaml", "yolov9t.yaml", "yolov10n.yaml", "yolo11n.yaml", "yolo12n.yaml", "yolo26n.yaml"]
TERMS = ("cs_loss", "gr_loss", "kdcls_loss", "kdloc_loss", "lqe_loss")
DUAL = {"yolov10n.yaml", "yolo26n.yaml"}
FORCED = {"force": True, "teacher_engine": "torch", "fraction": 4, "calibrate_batches": 1}
ONE_STEP = {"csgr.gr": "auto:0.5", **FORCED}


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


@pytest.mark.slow
@pytest.mark.parametrize("student", sorted(DUAL))
def test_two_heads_learn_from_two(train, make_checkpoint, student):
    """Each from the teacher's same one: v10 from 26, whose boxes are no distributions, and 26 from its like."""
    seen: list[tuple[list[str], list[str]]] = []

    class Spy(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            for method in self.distillation.methods:
                method.distiller.forward = partial(self._noted, method.distiller.forward)

        def _noted(self, forward, student, teacher, targets):
            seen.append((sorted(student.branches), sorted(teacher.branches)))
            return forward(student, teacher, targets)

    trainer = train(Spy, model=student, teacher=str(make_checkpoint("yolo26n.yaml", seed=1)), **FORCED)
    assert ultra.head_spec(trainer.model).dual
    assert seen and all(found == (["one2many", "one2one"],) * 2 for found in seen)
    items = {k: float(v) for k, v in trainer.loss_items.items()}
    assert all(items[k] > 0 for k in TERMS if k != "gr_loss"), items
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


class TestP6:
    """A level of stride 64 wants sides that are multiples of it; Ultralytics pads pictures to what the student wants."""

    SAID = r"teacher=.*p6-\d+\.pt: has a level of stride 64, .* the student's are padded to multiples of 32; choose"

    @pytest.fixture
    def p6(self, tmp_path) -> str:
        path = tmp_path / "tiny-p6.yaml"
        head = [[[3, 4, 5, 6], 1, "Detect", ["nc"]]]
        backbone = [*TINY["backbone"], [-1, 1, "Conv", [64, 3, 2]]]
        path.write_text(yaml.safe_dump({"nc": 3, **TINY, "backbone": backbone, "head": head}))
        return str(path)

    def test_teacher_alone_is_refused(self, train, make_checkpoint, p6, tiny, pictures, tmp_path):
        teacher = str(make_checkpoint(p6, seed=1))
        with pytest.raises(MisuseError, match=self.SAID):
            train(teacher=teacher, **FORCED)
        project = tmp_path / "asked"
        with pytest.raises(MisuseError, match=self.SAID):
            distill(student=tiny, teacher=teacher, data=pictures, project=project, imgsz=64)
        assert not project.exists()

    def test_nor_does_it_make_pseudo_labels(self, train, make_checkpoint, p6, pictures, tmp_path):
        picture = shutil.copy(pictures.parent / "images/train/000.png", tmp_path / "other.png")
        Image.open(picture).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(picture)
        keys = {"distill": "none", "unlabeled": picture, "pseudo_labels": 0.1, "force": True}
        with pytest.raises(MisuseError, match=self.SAID):
            train(teacher=str(make_checkpoint(p6, seed=1)), **keys)

    def test_student_has_it_too(self, train, make_checkpoint, p6):
        trainer = train(model=p6, teacher=str(make_checkpoint(p6, seed=1)), distill="pkd", val=True, **FORCED)
        assert trainer.distillation.teacher.strides == (8, 16, 32, 64) and float(trainer.loss_items["pkd_loss"]) > 0

    def test_student_alone_has_it(self, train, make_checkpoint, p6):
        trainer = train(model=p6, teacher=str(make_checkpoint(seed=1)), distill="pkd", val=True, **FORCED)
        assert trainer.distillation.teacher.strides == (8, 16, 32) and float(trainer.loss_items["pkd_loss"]) > 0


def test_a_coarser_level_wants_no_more_padding_than_ultralytics_gives(make_checkpoint):
    spec = Teacher(str(make_checkpoint("yolov8n.yaml", seed=1)), torch.device("cpu")).full_spec
    assert common_levels(cut_spec(spec, (8, 16)), spec) == (8, 16), "never to less than 32"


def test_no_common_level_is_refused(make_checkpoint):
    spec = Teacher(str(make_checkpoint("yolov8n.yaml", seed=1)), torch.device("cpu")).full_spec
    with pytest.raises(MisuseError, match="no level in common"):
        common_levels(spec, cut_spec(spec, ()))
