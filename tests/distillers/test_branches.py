"""Heads with two branches: who learns from whom, with which share, and what reaches the neck."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from yolo_kd.distillers.base import ONE2MANY, ONE2ONE, pair_branches
from yolo_kd.distillers.boxes import bins_last
from yolo_kd.distillers.lqe import quality_loss
from yolo_kd.distillers.pcd import classification_loss, localisation_loss
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import student_view
from yolo_kd.errors import YoloKDError

MANY, ONE = 0.3, 0.7  # the shares that the fake heads have
# dual student, dual teacher -> pairs of branches with their share
PAIRS = {
    (True, True): [(ONE2MANY, ONE2MANY, MANY), (ONE2ONE, ONE2ONE, ONE)],
    (True, False): [(ONE2MANY, ONE2MANY, MANY), (ONE2ONE, ONE2MANY, ONE)],
    (False, True): [(ONE2MANY, ONE2MANY, 1.0)],
    (False, False): [(ONE2MANY, ONE2MANY, 1.0)],
}
every = pytest.mark.parametrize(("student", "teacher"), PAIRS, ids=lambda dual: "dual" if dual else "single")


def of_one_branch(distiller, student, teacher) -> dict[str, torch.Tensor]:
    """The terms of a pair of branches over all cells, from the functions that are tested by hand."""
    weights = teacher.scores.sigmoid().amax(1)
    norm = weights.sum(1).clamp_min(1)
    if not distiller.needs_fit:
        return {
            "cls": classification_loss(student.scores, teacher.scores, norm),
            "loc": localisation_loss(student.boxes, teacher.boxes, weights, norm, 16),
        }
    s, t = (distiller.predictor(bins_last(x.boxes, 16)) for x in (student, teacher))
    return {"lqe": quality_loss(s, t.sigmoid(), weights, norm)}


@every
def test_each_branch_learns_from_the_same_branch_or_the_only_one(student, teacher, fake):
    pair = fake.make_pair(fake.make_spec(dual=student), fake.make_spec(dual=teacher))
    found = list(pair_branches(pair.student, pair.teacher))
    for (s, t, share), (name_s, name_t, want) in zip(found, PAIRS[student, teacher], strict=True):
        assert s is pair.student.branches[name_s] and t is pair.teacher.branches[name_t] and share == want


@pytest.mark.parametrize("name", ["pcd", "lqe"])
@every
def test_a_term_is_the_sum_of_the_branches_by_their_shares(name, student, teacher, fake):
    """All branches have other tensors, so that another pairing or share would give another value."""
    pair = fake.make_pair(fake.make_spec(dual=student), fake.make_spec(dual=teacher))
    distiller = pair.build(name, top=0)
    want: dict[str, float] = {}
    alone = []
    for name_s, name_t, share in PAIRS[student, teacher]:
        terms = of_one_branch(distiller, pair.student.branches[name_s], pair.teacher.branches[name_t])
        alone.append(terms)
        want = {term: want.get(term, 0) + share * value.item() for term, value in terms.items()}
    found = {term: value.item() for term, value in pair.run(distiller).items()}
    assert found == pytest.approx(want, rel=1e-4) and found.keys() == set(distiller.terms)
    for term in found if student else ():
        one, other = (terms[term].item() for terms in alone)
        assert abs(one / other - 1) > 0.005  # else the shares could not be told apart


def test_the_branches_get_gradients_by_their_shares(fake):
    """With equal tensors in both branches the gradients differ by the shares alone."""
    pair = fake.make_pair(fake.make_spec(dual=True), fake.make_spec())
    branch = pair.student.branches[ONE2MANY]
    pair.student.branches[ONE2ONE] = replace(
        branch, **{k: getattr(branch, k).detach().clone().requires_grad_() for k in ("boxes", "scores")}
    )
    sum(pair.run(pair.build("pcd")).values()).backward()
    other = pair.student.branches[ONE2ONE]
    for a, b in ((branch.boxes, other.boxes), (branch.scores, other.scores)):
        torch.testing.assert_close(a.grad / MANY, b.grad / ONE)


def test_a_branch_without_a_share_is_refused(fake):
    pair = fake.make_pair(fake.make_spec(dual=True))
    with pytest.raises(YoloKDError, match="expected a weight for every branch"):
        list(pair_branches(replace(pair.student, branch_weights={ONE2MANY: 1.0}), pair.teacher))


@pytest.mark.parametrize("family", ["yolov10n.yaml", "yolo26n.yaml"])
def test_the_one_to_one_branch_stays_out_of_the_neck(family, fake):
    """On the real heads: all its share on one branch, the neck gets nothing from the one, and something from the other."""
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(0)
    model = DetectionModel(family, nc=3, verbose=False).train()
    spec = ultra.head_spec(model)
    view = student_view(model(torch.rand(2, 3, 64, 64)), [], {ONE2MANY: 0.5, ONE2ONE: 0.5})
    pair = fake.make_pair(spec, spec, sizes=view.sizes_hw)
    reached = {}
    for name, other in ((ONE2MANY, ONE2ONE), (ONE2ONE, ONE2MANY)):
        pair.student = replace(view, branch_weights={name: 1.0, other: 0.0})
        total = sum(pair.run(pair.build("pcd")).values())
        leaves = [*view.feats, view.branches[name].scores, view.branches[name].boxes]
        found = torch.autograd.grad(total, leaves, retain_graph=True, allow_unused=True)
        reached[name] = [g is not None and bool(g.any()) for g in found]
    assert spec.dual and reached == {ONE2MANY: [True] * 5, ONE2ONE: [False] * 3 + [True] * 2}
