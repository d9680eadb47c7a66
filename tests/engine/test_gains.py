"""Auto gains make the gradient that arrives in the student the share of the detection loss's that was asked for."""

from __future__ import annotations

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from yolo_kd.cfg.settings import Recipe

from yolo_kd import DistillationTrainer
from yolo_kd.engine import ultra
from yolo_kd.engine.classes import match
from yolo_kd.engine.criterion import MEASURED_BATCHES, DistillationCriterion
from yolo_kd.engine.heads import common_levels, cut_spec
from yolo_kd.engine.schedule import Schedule
from yolo_kd.engine.teacher import Teacher
from yolo_kd.engine.terms import build_methods

WANTED = {"csgr": {"cs": "auto:0.25"}, "pcd": {"cls": "auto:0.5", "loc": "auto:0.5"}, "pkd": {"pkd": "auto:0.3"}}
IMAGES = 3  # a factor of the batch size that is left out shows


@pytest.fixture
def criterion(make_checkpoint, request) -> DistillationCriterion:
    torch.manual_seed(0)
    student = DetectionModel(getattr(request, "param", "yolov8n.yaml"), nc=3, verbose=False)
    student.args = get_cfg()
    teacher = Teacher(make_checkpoint(seed=1), torch.device("cpu"))
    student.names = teacher.names
    shared = match(student.names, teacher.names)
    own = ultra.head_spec(student)
    teacher.strides = common_levels(own, teacher.full_spec)
    methods = build_methods(Recipe("test", WANTED), cut_spec(own, teacher.strides), teacher.spec, shared, print)
    student.train()
    student.criterion = DistillationCriterion(student.init_criterion(), student, teacher, methods, calibrate_batches=2)
    student.criterion.student = student
    return student.criterion


def batch_of_three(side: int = 64) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([[0.5, 0.5, 0.8, 0.8], [0.4, 0.5, 0.6, 0.7], [0.5, 0.6, 0.7, 0.6]])
    image = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(2))
    kinds, index = torch.tensor([[0.0], [1.0], [2.0]]), torch.arange(IMAGES).float()
    return {"img": image, "cls": kinds, "bboxes": boxes, "batch_idx": index}


def norm(loss: torch.Tensor, at: tuple[torch.Tensor, ...], cells: slice) -> float:
    """Of the gradient, in the heads' tensors (B, C, A) over these cells alone."""
    grads = torch.autograd.grad(loss, at, retain_graph=True, allow_unused=True)
    parts = [g[..., cells] if g.dim() == 3 else g for g in grads if g is not None]
    return float(torch.cat([g.flatten() for g in parts]).norm())


@pytest.mark.parametrize(
    ("criterion", "extra"),
    [("yolov8n.yaml", 0), ("yolov8n-p2.yaml", 1)],
    indirect=["criterion"],
    ids=["P3", "P2 alone"],
)
def test_the_gradient_that_arrives_is_the_wanted_share(criterion, extra):
    """On the levels that both have: on P2, which this teacher lacks, there is a detection loss alone."""
    batch = batch_of_three(160)  # a fresh net's boxes on P3 are as large as the objects then
    criterion.start_epoch(0.0, False, warm=True)
    with torch.no_grad():  # BN statistics of a fresh student would move between the batches
        criterion.student(batch["img"])
    for _ in range(2):
        criterion(criterion.student(batch["img"]), batch)
    assert all(term.fixed for term in criterion.terms)
    preds = criterion.student(batch["img"])
    raw = ultra.read_outputs(preds)
    at = {
        "neck": raw.feats[extra:],
        "scores": tuple(b.scores for b in raw.branches.values()),
        "boxes": tuple(b.boxes for b in raw.branches.values()),
    }
    detection = criterion.base(preds, batch)[0].sum()
    cells = slice(sum(height * width for height, width in raw.sizes_hw[:extra]), None)
    gains = {term.key: term.gain for term in criterion.terms}
    for term in criterion.terms:
        for other in criterion.terms:
            other.gain = gains[other.key] if other is term else 0.0
        vector, _ = criterion(preds, batch)
        found = norm(vector[-1], at[term.acts_on], cells) / norm(detection, at[term.acts_on], cells)
        assert found == pytest.approx(term.share, rel=0.05), term.key


@pytest.mark.parametrize("criterion", ["yolo26n.yaml"], indirect=True)
def test_in_a_dual_heads_neck_the_share_stays_as_weight_shifts_to_the_branch_that_ends_before_it(criterion):
    """The one-to-one branch takes its features detached, so what the neck learns from labels shrinks with the other's weight."""
    batch = batch_of_three(160)
    criterion.start_epoch(0.0, False, warm=True)
    with torch.no_grad():
        criterion.student(batch["img"])
    for _ in range(2):
        criterion(criterion.student(batch["img"]), batch)
    in_neck = [term for term in criterion.terms if term.acts_on == "neck"]
    assert len(in_neck) == 2 and all(term.fixed for term in in_neck)
    gains = {term.key: term.gain for term in in_neck}
    preds = criterion.student(batch["img"])
    for many in (criterion.base.o2m, 0.1):
        criterion.base.o2m, criterion.base.o2o = many, 1.0 - many
        detection = criterion.base(preds, batch)[0].sum()
        for term in in_neck:
            for other in criterion.terms:
                other.gain = gains[other.key] if other is term else 0.0
            criterion.to_measure = 1
            vector, _ = criterion(preds, batch)
            at = ultra.read_outputs(preds).feats
            found = norm(vector[-1], at, slice(None)) / norm(detection, at, slice(None))
            assert found == pytest.approx(term.share, rel=0.05), (term.key, many)


def test_a_teacher_that_is_asked_less_often_teaches_as_much(criterion):
    """teacher_every=3 saves its time; over three steps the terms weigh what they would weigh if it were asked on each."""
    batch = batch_of_three()
    for term in criterion.terms:
        term.gain, term.fixed = 1.0, True
    preds = criterion.student(batch["img"])
    sums = []
    for every in (1, 3):
        criterion.every, criterion.step = every, 0
        sums.append(sum(float(criterion(preds, batch)[0][-1].detach()) for _ in range(3)))
    assert sums[0] > 0 and sums[1] == pytest.approx(sums[0])


def test_pictures_without_objects_at_the_start_leave_no_gain_at_zero(criterion):
    """A batch in which no label gives the boxes a gradient says nothing about their terms, so it is not counted as looked at."""
    full = batch_of_three(160)
    empty = {**full, "cls": full["cls"][:0], "bboxes": full["bboxes"][:0], "batch_idx": full["batch_idx"][:0]}
    criterion.start_epoch(0.0, False, warm=False)
    (loc,) = (term for term in criterion.terms if term.key == "pcd.loc")
    for _ in range(2 * MEASURED_BATCHES):
        criterion(criterion.student(empty["img"]), empty)
    assert loc.gain == 0.0
    criterion(criterion.student(full["img"]), full)
    assert all(term.gain > 0.0 for term in criterion.terms)


def test_the_trainer_calibrates_once_warm_up_is_over(train, make_checkpoint):
    """Warm-up is the first of three epochs; one batch after it is enough here."""
    fixed: list[list[bool]] = []

    class Spy(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            self.add_callback("on_train_epoch_end", lambda t: fixed.append([x.fixed for x in t.criterion.terms]))

    keys = {"distill": "pcd", "force": True, "teacher_engine": "torch", "calibrate_batches": 1}
    train(Spy, teacher=str(make_checkpoint(seed=1)), epochs=3, warmup_epochs=1, **keys)
    assert fixed == [[False, False], [True, True], [True, True]]


def test_the_schedule_reaches_the_loss(criterion):
    batch = batch_of_three()
    criterion.schedule = Schedule("linear")
    for term in criterion.terms:
        term.gain, term.fixed = 1.0, True
    preds = criterion.student(batch["img"])
    detection, distilled = [], []
    for progress in (0.0, 0.5):
        criterion.start_epoch(progress, False, warm=True)
        vector, _ = criterion(preds, batch)
        detection.append(vector[:-1].tolist())
        distilled.append(float(vector[-1]))
    assert distilled[0] > 0 and distilled[1] == pytest.approx(distilled[0] / 2)
    assert detection[0] == detection[1], "the schedule is of the terms alone"


def test_a_run_that_ends_before_calibration_says_so(criterion):
    lines: list[str] = []
    criterion.log = lines.append
    criterion.start_epoch(0.0, False, warm=False)
    criterion(criterion.student(batch_of_three()["img"]), batch_of_three())
    criterion.end()
    assert len(lines) == 1 and lines[0].startswith(
        "WARNING the run ended before its gains were calibrated (0 of 2 batches"
    )
    assert all(f"{term.key}={term.gain:.4g}" in lines[0] and term.gain > 0 for term in criterion.terms)
    for term in criterion.terms:
        term.fixed = True
    criterion.end()
    assert len(lines) == 1
