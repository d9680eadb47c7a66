"""Batches with unlabeled pictures: the detection loss is that of the labelled ones alone, distillation is of all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from yolo_kd.cfg.settings import Recipe

from yolo_kd.distillers.base import ONE2MANY, Branch, HeadOutput, HeadSpec, Targets
from yolo_kd.engine import ultra
from yolo_kd.engine.classes import match
from yolo_kd.engine.criterion import DistillationCriterion
from yolo_kd.engine.labelled import detection_loss, joined, labelled_count, teacher_targets
from yolo_kd.engine.teacher import Teacher
from yolo_kd.engine.terms import build_methods

NAMES = {0: "car", 1: "truck", 2: "person"}
LABELLED, ALL = 2, 5


def model(yaml: str = "yolov8n.yaml") -> DetectionModel:
    """A student in training mode whose pictures do not touch each other: BN uses its running statistics."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DetectionModel(yaml, nc=3, verbose=False)
    net.args, net.names = get_cfg(), NAMES
    net.train()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    return net


def batch(images: int = ALL, labelled: int = LABELLED) -> dict[str, Any]:
    boxes = torch.tensor([[0.5, 0.5, 0.6, 0.5], [0.3, 0.4, 0.4, 0.6], [0.6, 0.6, 0.7, 0.7]])
    found = {
        "img": torch.rand(ALL, 3, 64, 64, generator=torch.Generator().manual_seed(1))[:images],
        "cls": torch.tensor([[0.0], [1.0], [2.0]]),
        "bboxes": boxes,
        "batch_idx": torch.tensor([0.0, 0.0, 1.0]),
    }
    return found if labelled == images else {**found, "labelled": tuple(i < labelled for i in range(images))}


def leaves(preds: Any) -> list[torch.Tensor]:
    """Boxes and scores of every branch."""
    return [t for b in ultra.read_outputs(preds).branches.values() for t in (b.boxes, b.scores)]


def loss_and_gradient(net: DetectionModel, preds: Any, given: dict[str, Any], count: int) -> tuple:
    preds = ultra.replace_outputs(preds, lambda t: t.detach().clone().requires_grad_(True))
    loss, items = detection_loss(net.init_criterion(), preds, given, count)
    return loss, items, torch.autograd.grad(loss.sum(), leaves(preds))


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov10n.yaml", "yolo26n.yaml"])
class TestDetectionLoss:
    def test_is_exactly_that_of_the_labelled_pictures_alone(self, yaml):
        net = model(yaml)
        preds = net(batch()["img"])
        loss, items, gradient = loss_and_gradient(net, preds, batch(), LABELLED)
        part = ultra.replace_outputs(preds, lambda t: t[:LABELLED])
        alone = batch(LABELLED)
        wanted, wanted_items = net.init_criterion()(part, alone)
        assert torch.equal(loss, wanted) and items.keys() == wanted_items.keys()
        assert all(torch.equal(items[k], v) for k, v in wanted_items.items())
        _, _, wanted_gradient = loss_and_gradient(net, part, alone, LABELLED)
        for found, want in zip(gradient, wanted_gradient, strict=True):
            assert torch.equal(found[:LABELLED], want) and want.any() and not found[LABELLED:].any()

    def test_which_is_not_the_loss_of_pictures_without_objects(self, yaml):
        net = model(yaml)
        preds = net(batch()["img"])
        loss, _, _ = loss_and_gradient(net, preds, batch(), LABELLED)
        blind, _ = net.init_criterion()(preds, batch())
        assert (blind.sum() - loss.sum()).abs() > 0.1 * loss.sum()

    def test_of_no_labelled_picture_is_a_zero_that_can_be_differentiated(self, yaml):
        net = model(yaml)
        given = {
            **batch(labelled=0),
            "cls": torch.zeros(0, 1),
            "bboxes": torch.zeros(0, 4),
            "batch_idx": torch.zeros(0),
        }
        loss, items, gradient = loss_and_gradient(net, net(given["img"]), given, labelled_count(given))
        wanted, names = net.init_criterion()(net(batch(LABELLED)["img"]), batch(LABELLED))
        assert loss.shape == wanted.shape and not loss.any()
        assert items.keys() == names.keys() and not any(items.values())
        assert not any(g.any() for g in gradient)


def distilled(teacher: Any, recipe: dict[str, Any], **keys: Any) -> tuple[DetectionModel, DistillationCriterion]:
    net, taught = model(), Teacher(str(teacher), torch.device("cpu"))
    methods = build_methods(
        Recipe("test", recipe), ultra.head_spec(net), taught.spec, match(NAMES, taught.names), print
    )
    criterion = DistillationCriterion(
        net.init_criterion(), net, taught, methods, force=True, log=lambda _: None, **keys
    )
    criterion.start_epoch(0.0, False, warm=True)
    return net, criterion


def through(net: DetectionModel, criterion: DistillationCriterion, given: dict[str, Any]) -> tuple:
    criterion.arm()
    preds = net(given["img"])
    loss, items = criterion(preds, given)
    return loss, items, preds


class TestDistillation:
    @pytest.mark.parametrize(
        "recipe", [{"pcd": {"cls": 1.0, "loc": 1.0}}, {"csgr": {"cs": 1.0}}, {"pkd": {"pkd": 1.0}}]
    )
    def test_reaches_every_picture_and_detection_the_labelled_ones(self, make_checkpoint, recipe):
        net, criterion = distilled(make_checkpoint(seed=1), recipe)
        given = batch()
        img = given["img"].requires_grad_(True)
        loss, items, _ = through(net, criterion, given)
        detected, taught = loss[:3].sum(), loss[3]
        by_picture = torch.autograd.grad(detected, img, retain_graph=True)[0].abs().flatten(1).sum(1)
        assert by_picture[:LABELLED].all() and not by_picture[LABELLED:].any()
        assert torch.autograd.grad(taught, img)[0].abs().flatten(1).sum(1).all()
        assert taught.detach() == pytest.approx(ALL * sum(float(items[t.column]) for t in criterion.terms), rel=1e-5)

    def test_pcd_of_a_picture_does_not_depend_on_its_label(self, make_checkpoint):
        teacher = make_checkpoint(seed=1)
        values = []
        for given in (batch(), batch(labelled=ALL)):
            net, criterion = distilled(teacher, {"pcd": {"cls": 1.0, "loc": 1.0}})
            values.append(through(net, criterion, given)[0][3])
        assert torch.equal(*values)

    def test_a_gain_is_that_of_the_labelled_pictures_however_many_others_there_are(self, make_checkpoint):
        teacher, gains = make_checkpoint(seed=1), []
        for given in (batch(LABELLED, LABELLED), batch()):
            net, criterion = distilled(teacher, {"pcd": {"cls": "auto:0.5", "loc": "auto:0.25"}}, calibrate_batches=1)
            through(net, criterion, given)
            assert all(term.fixed for term in criterion.terms)
            gains.append([term.gain for term in criterion.terms])
        assert gains[0] == pytest.approx(gains[1], rel=1e-3)

    def test_without_a_label_gains_are_held_against_the_loss_of_the_teachers_boxes(self, make_checkpoint):
        net, criterion = distilled(make_checkpoint(seed=1), {"pcd": {"cls": "auto:0.5"}}, calibrate_batches=1)
        none = {"cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4), "batch_idx": torch.zeros(0)}
        loss, _, preds = through(net, criterion, {**batch(labelled=0), **none})
        (term,) = criterion.terms
        seen = teacher_targets(criterion.teacher(batch()["img"]), criterion.teacher.spec, torch.arange(3))
        assert len(seen.classes), "the teacher sees nothing, so this shows nothing"
        boxes = {"bboxes": seen.boxes_xywhn, "cls": seen.classes[:, None].float(), "batch_idx": seen.image.float()}
        scores = ultra.read_outputs(preds).branch(ONE2MANY).scores
        norm = [
            torch.autograd.grad(x, scores, retain_graph=True)[0].norm()
            for x in (loss[3], criterion.base(preds, {**batch(), **boxes})[0].sum())
        ]
        assert float(norm[0] / norm[1]) == pytest.approx(0.5, rel=1e-3) and not loss[:3].any()
        assert term.fixed


def output(boxes: list[tuple[int, int, int, float]]) -> tuple[HeadOutput, HeadSpec]:
    """Two pictures of 64 px, head of one level of 8 px cells; (picture, cell, class, logit): a box of 2 cells each way."""
    spec = HeadSpec((4,), (8,), 1, 3, (4,))
    scores, sides = torch.full((2, 3, 64), -9.0), torch.full((2, 4, 64), 1.0)
    for picture, cell, kind, logit in boxes:
        scores[picture, kind, cell] = logit
    return HeadOutput((torch.zeros(2, 4, 8, 8),), {ONE2MANY: Branch(sides, scores)}), spec


class TestTeacherBoxes:
    def test_are_its_sure_detections_in_the_students_classes(self):
        found, spec = output([(0, 0, 0, 3.0), (1, 9, 2, 3.0), (1, 60, 1, -2.0)])
        seen = teacher_targets(found, spec, torch.tensor([2, 0, -1]))
        assert seen.image.tolist() == [0, 1] and seen.classes.tolist() == [1, 0]
        # the centre of cell 0 is 4, 4, its box 8 px to each side; cell 9 lies one cell further down and right
        wanted = torch.tensor([[4, 4, 16, 16], [12, 12, 16, 16]]) / 64
        torch.testing.assert_close(seen.boxes_xywhn, wanted)

    def test_of_the_pictures_without_labels_only(self):
        found, spec = output([(0, 0, 0, 3.0), (1, 9, 2, 3.0)])
        seen = teacher_targets(found, spec, torch.arange(3), first=1)
        assert seen.image.tolist() == [1] and seen.classes.tolist() == [2]
        given = Targets(torch.full((1, 4), 0.5), torch.tensor([1]), torch.tensor([0]))
        both = joined([given, seen], 1)
        assert both.image.tolist() == [0, 1] and both.classes.tolist() == [1, 2] and both.labelled == 1

    def test_nothing_is_seen_where_the_teacher_is_unsure(self):
        found, spec = output([(0, 0, 0, -2.0)])
        assert teacher_targets(found, spec, torch.arange(3)).boxes_xywhn.shape == (0, 4)

    @pytest.mark.parametrize("uses", [True, False])
    def test_reach_the_methods_that_look_at_boxes(self, make_checkpoint, uses):
        recipe = {"mar": {"mask": 1.0}} if uses else {"pkd": {"pkd": 1.0}}
        net, criterion = distilled(make_checkpoint(seed=1), recipe)
        got: list[Targets] = []
        distiller = criterion.methods[0].distiller
        forward = distiller.forward
        distiller.forward = lambda s, t, targets: (got.append(targets), forward(s, t, targets))[1]
        through(net, criterion, batch())
        assert got[0].labelled == LABELLED and got[0].image[:3].tolist() == [0, 0, 1]
        assert set(got[0].image[3:].tolist()) == ({2, 3, 4} if uses else set())
