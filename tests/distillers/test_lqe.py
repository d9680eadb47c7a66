"""LQE and its predictors: DGQP against the stored values of its authors, the rest by hand and against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from yolo_kd.distillers import load
from yolo_kd.distillers.adapters import generator
from yolo_kd.distillers.base import ONE2MANY, Branch, ClassMap, HeadOutput, Targets
from yolo_kd.distillers.boxes import bins_last
from yolo_kd.distillers.lqe import quality_focal_loss, quality_loss
from yolo_kd.distillers.quality import DGQP, SDGQP, dgqp_statistics, sdgqp_statistics
from yolo_kd.errors import YoloKDError

CASES = ["dgqp_default", "dgqp_16bins", "dgqp_nomean", "dgqp_deg_1x1", "dgqp_deg_const", "dgqp_deg_sharp"]
LN3 = math.log(3)  # logit of 3/4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def linear(weights, name, x):
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def mlp(weights, name, x):
    return linear(weights, f"{name}.2", np.maximum(linear(weights, f"{name}.0", x), 0)).item()


def soft_by_loops(predictor: SDGQP, sides: np.ndarray) -> float:
    """The quality of one box (4, bins) of logits, from the formula of methods.md."""
    weights = {k: v.detach().double().numpy() for k, v in predictor.state_dict().items()}
    statistics = []
    for side in sides:
        p = sorted(softmax(side), reverse=True)
        size = 1 + (len(p) - 1) * sigmoid(mlp(weights, "size", np.array(p)))
        gates = [sigmoid((size - j + 0.5) / 0.5) for j in range(1, len(p) + 1)]
        statistics += [g * x for g, x in zip(gates, p)]
        statistics.append(sum(g * x for g, x in zip(gates, p)) / sum(gates))
    return sigmoid(mlp(weights, "reg_conf", np.array(statistics)))


def hard_by_loops(predictor: DGQP, sides: np.ndarray) -> float:
    weights = {k: v.detach().double().numpy() for k, v in predictor.state_dict().items()}
    top = [sorted(softmax(side), reverse=True)[:4] for side in sides]
    return sigmoid(mlp(weights, "reg_conf", np.array([x for side in top for x in (*side, sum(side) / 4)])))


def fitted(pair, **args):
    """Without a fit: large random weights instead, so that the qualities differ."""
    distiller = load("lqe")(pair.student_spec, pair.teacher_spec, pair.classes, **args)
    random = torch.Generator().manual_seed(4)
    distiller.load_fit_state(
        {k: torch.randn(v.shape, generator=random) * 0.3 for k, v in distiller.fit_state().items()}
    )
    return distiller


@pytest.mark.parametrize("name", CASES)
def test_dgqp_agrees_with_the_authors_code(name, fake):
    """There the predictor is a 1x1 convolution and the score sigmoid(class) x quality; here it is a linear layer."""
    case = fake.Golden(name)
    leaves, weights = case.inputs(), case.inputs("param.", grad=False)
    bins, topk, mean = int(case.number("reg_max")) + 1, int(case.number("topk")), bool(case.number("add_mean"))
    predictor = DGQP(bins, generator(0), topk, mean, int(case.number("hidden")))
    predictor.load_state_dict(
        {k.removeprefix("param."): v.flatten(1) if v.ndim == 4 else v for k, v in weights.items()}
    )
    logits = bins_last(leaves["in.reg_logits"].flatten(2), bins)
    case.compare("out.stat", dgqp_statistics(logits.softmax(-1), topk, mean).mT)
    shape = leaves["in.reg_logits"].shape
    quality = predictor(logits).sigmoid().view(shape[0], 1, *shape[2:])
    case.compare("out.quality", quality)
    score = leaves["in.cls_logits"].sigmoid() * quality
    case.compare("out.score", score)
    loss = (score * leaves["in.cotangent"].detach()).sum()
    case.compare("out.loss", loss)
    loss.backward()
    case.compare_gradients({**leaves, **{f"param.{k}": p for k, p in predictor.named_parameters()}})


def test_hard_statistics_by_hand():
    p = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.0, 0.0, 1.0, 0.0]])
    want = [0.4, 0.3, 0.35, 1, 0, 0.5]
    assert dgqp_statistics(p, topk=2).tolist() == pytest.approx(want)
    assert dgqp_statistics(p, topk=2, mean=False).tolist() == pytest.approx([0.4, 0.3, 1, 0])


def test_soft_statistics_by_hand():
    # Size 2: gates sigmoid of 3, 1, -1. Size 1 of the second side: 1, -1, -3.
    p = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0]])
    found = sdgqp_statistics(p, torch.tensor([[2.0], [1.0]])).tolist()
    g = {x: 1 / (1 + math.exp(-x)) for x in (3, 1, -1, -3)}
    first = [g[3] * 0.5, g[1] * 0.3, g[-1] * 0.2]
    second = [g[1] * 0.6, g[-1] * 0.4, 0]
    want = [*first, sum(first) / (g[3] + g[1] + g[-1]), *second, sum(second) / (g[1] + g[-1] + g[-3])]
    assert found == pytest.approx(want)


def test_a_size_of_four_lets_four_bins_through():
    """Statistics of a constant 1 are the gates: 4.0 of them, and almost 1, 1, 1, .73, .27, 0, ..."""
    gates = sdgqp_statistics(torch.ones(1, 16), torch.tensor([[4.0]]))[:16]
    assert gates.sum().item() == pytest.approx(4, abs=2e-2)
    assert gates[:3].min() > 0.95 and gates[5:].max() < 0.05 and gates[3].item() == pytest.approx(0.731, abs=1e-3)


def test_predictors_have_the_size_of_the_specification():
    count = [sum(p.numel() for p in make(16, generator(0)).parameters()) for make in (SDGQP, DGQP)]
    assert count == [4481 + 145, 1409]


@pytest.mark.parametrize(("make", "by_loops"), [(SDGQP, soft_by_loops), (DGQP, hard_by_loops)])
def test_predictors_agree_with_plain_loops_and_see_no_place(make, by_loops):
    random = generator(3)
    predictor = make(6, random)
    logits = torch.randn(5, 4, 6, generator=random) * 2
    found = predictor(logits).sigmoid()
    assert found.tolist() == pytest.approx([by_loops(predictor, x) for x in logits.double().numpy()], rel=1e-5)
    torch.testing.assert_close(predictor(logits[..., [3, 0, 5, 1, 4, 2]]).sigmoid(), found)
    assert found.std() > 1e-3


def test_two_by_two_by_hand():
    # Student 3/4, 1/4, 1/2, 1/4 and teacher 1/2, 1/4, 3/4, 3/4, weights 1/2, 1, 1/4, 1: as in test_pcd.py.
    student = torch.tensor([[LN3, -LN3, 0, -LN3]])
    teacher, weights = torch.tensor([[0.5, 0.25, 0.75, 0.75]]), torch.tensor([[0.5, 1, 0.25, 1]])
    bce = [-math.log(3 / 4) / 2 - math.log(1 / 4) / 2, math.log(2), -math.log(1 / 4) * 3 / 4 - math.log(3 / 4) / 4]
    total = 0.5 * bce[0] / 4 + 0.25 * bce[1] / 4 + 1 * bce[2] / 2
    assert quality_loss(student, teacher, weights, torch.tensor([2.0])).item() == pytest.approx(total / 2)
    two = [torch.cat((x, x)) for x in (student, teacher, weights)]
    assert quality_loss(*two, torch.tensor([1.0, 4.0])).item() == pytest.approx(total * (1 + 1 / 4) / 2)
    # How a predictor learns: squared differences 1/16, 0, 1/16, 1/4 and the mean over all.
    total = bce[0] / 16 + bce[1] / 16 + bce[2] / 4
    assert quality_focal_loss(student, teacher).item() == pytest.approx(total / 4)


@pytest.mark.parametrize("bins", [(1, 1), (1, 16), (16, 1)], ids=str)
def test_without_distributions_the_highest_shared_probability_is_the_quality(bins, fake):
    """w = q_t = 1/2, 1/4, 3/4, 3/4 and q_s = 3/4, 1/4, 1/2, 1/4; classes 0 and 2 of the student are 1 and 0 of the teacher."""
    one = {"channels": (4,), "strides": (8,), "towers": (4,), "nc": 3}
    student, teacher = (fake.make_spec(reg_max=n, **one) for n in bins)
    pair = fake.make_pair(student, teacher, ([0, 2], [1, 0]), images=1, sizes=((2, 2),))
    low = -5.0
    s = torch.tensor([[[LN3, low, low, -LN3], [9.0] * 4, [low, -LN3, 0, low]]], requires_grad=True)
    t = torch.tensor([[[low, -LN3, LN3, low], [0.0, low, low, LN3], [9.0] * 4]])
    boxes = pair.student.branch(ONE2MANY).boxes
    pair.student.branches[ONE2MANY] = Branch(boxes, s)
    pair.teacher.branches[ONE2MANY] = Branch(pair.teacher.branch(ONE2MANY).boxes, t)
    distiller = load("lqe")(student, teacher, pair.classes, student_predictor="own")
    term = pair.run(distiller)["lqe"]
    first, third = -math.log(3 / 4) / 2 - math.log(1 / 4) / 2, math.log(2)
    fourth = -math.log(1 / 4) * 3 / 4 - math.log(3 / 4) / 4
    assert term.item() == pytest.approx((1 / 2 * first / 4 + 3 / 4 * third / 4 + 3 / 4 * fourth / 2) / (9 / 4))
    at_boxes, at_scores = torch.autograd.grad(term, [boxes, s], allow_unused=True)
    assert at_boxes is None and at_scores[0].bool().tolist() == [
        [True, False, False, True],
        [False] * 4,
        [False, False, True, False],
    ]
    assert not distiller.needs_fit and not any(p.requires_grad for p in distiller.parameters())


@pytest.mark.parametrize(
    ("args", "quality"),
    [({}, soft_by_loops), ({"top": 4}, soft_by_loops), ({"kind": "hard"}, hard_by_loops)],
    ids=["soft", "top 4", "hard"],
)
def test_the_term_agrees_with_plain_loops(args, quality, fake):
    """sum over cells of w |q_s - q_t| BCE(q_s, q_t) / N, N over all cells, mean over the images."""
    spec = fake.make_spec(reg_max=5, nc=4)
    pair = fake.make_pair(fake.make_spec(reg_max=5), spec, ([2, 0], [1, 3]), sizes=((2, 3), (1, 2), (1, 1)))
    distiller = fitted(pair, **args)
    student, teacher = pair.student.branch(ONE2MANY), pair.teacher.branch(ONE2MANY)
    want = []
    for image in range(2):
        w = sigmoid(teacher.scores[image, [1, 3]].amax(0).double().numpy())
        total = 0.0
        for a in sorted(range(len(w)), key=lambda a: -w[a])[: args.get("top")]:
            q, y = (
                quality(distiller.predictor, x.boxes[image, :, a].detach().double().numpy().reshape(4, 5))
                for x in (student, teacher)
            )
            total -= w[a] * abs(q - y) * (y * math.log(q) + (1 - y) * math.log(1 - q))
        want.append(total / max(w.sum(), 1))
    assert min(want) > 1e-3
    assert pair.run(distiller)["lqe"].item() == pytest.approx(np.mean(want), rel=1e-4)


def test_the_papers_form_has_its_own_predictor_and_looks_at_all_cells(fake):
    pair = fake.make_pair()
    paper, own, shared = (
        fitted(pair, **args)
        for args in ({"form": "paper", "top": 20}, {"student_predictor": "own", "top": 0}, {"top": 0})
    )
    few = fitted(pair, student_predictor="own", top=20)
    terms = [pair.run(distiller)["lqe"] for distiller in (paper, own, shared, few)]
    # It starts as a copy of the teacher's, so the value is that of the shared one; only 20 cells are less.
    assert terms[0] == terms[1] and terms[0].item() == pytest.approx(terms[2].item()) and terms[0] > terms[3]
    terms[0].backward()
    assert all(p.grad is not None for p in paper.own.parameters())
    assert not any(p.requires_grad for p in paper.predictor.parameters())


def test_the_students_predictor_learns_overlaps_and_the_student_does_not(fake):
    """Its weights get the gradients of distillation and of the focal loss on the overlap, the boxes the first only."""
    pair = fake.make_pair()
    own, shared = fitted(pair, student_predictor="own", top=0), fitted(pair, top=0)
    boxes = pair.student.branch(ONE2MANY).boxes
    found = [torch.autograd.grad(pair.run(d)["lqe"], boxes)[0] for d in (own, shared)]
    torch.testing.assert_close(*found)
    # With the teacher's boxes the distillation is at its minimum, and what is left is the focal loss.
    teacher = pair.teacher.branch(ONE2MANY)
    pair.student.branches[ONE2MANY] = teacher
    pair.run(own)["lqe"].backward()
    from_term = [p.grad.clone() for p in own.own.parameters()]
    own.zero_grad()
    overlap = own._overlap(teacher.boxes, teacher.scores, None, pair.teacher, pair.targets, pair.teacher_spec)
    assert 0 < overlap.max() <= 1
    quality_focal_loss(own.own(bins_last(teacher.boxes, 16)), overlap).backward()
    for a, b in zip(from_term, own.own.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad)


def test_permuted_bins_leave_lqe_but_not_loc(fake):
    """lqe knows how sure a box is and not where it is: only an addition to pcd.loc."""
    pair = fake.make_pair()
    lqe, pcd = fitted(pair), pair.build("pcd")
    before = pair.run(lqe)["lqe"], pair.run(pcd)["loc"]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    branch = pair.student.branch(ONE2MANY)
    boxes = branch.boxes.detach().unflatten(1, (4, 16))[:, :, order].flatten(1, 2)
    pair.student.branches[ONE2MANY] = Branch(boxes, branch.scores)
    torch.testing.assert_close(pair.run(lqe)["lqe"], before[0])
    assert abs(pair.run(pcd)["loc"] / before[1] - 1) > 0.01
    # So a teacher's distribution in another place is perfect for lqe, and far from it for loc.
    teacher = pair.teacher.branch(ONE2MANY)
    moved = teacher.boxes.unflatten(1, (4, 16)).roll(4, 2).flatten(1, 2)
    pair.student.branches[ONE2MANY] = Branch(moved, teacher.scores)
    assert pair.run(lqe)["lqe"] < 1e-6 < 1 < pair.run(pcd)["loc"]


def quarters(best_class: list[int], objects: Targets, classes: ClassMap, fake):
    """A teacher on one level of 2 x 2 cells of 8 px whose boxes reach one stride to each side, and its fit."""
    spec = fake.make_spec(channels=(4,), strides=(8,), reg_max=4, nc=2, towers=(4,))
    boxes = torch.full((1, 4, 4, 4), -30.0)
    boxes[:, :, 1] = 30.0  # distance 1 on every side
    scores = torch.full((1, 2, 4), -6.0)
    scores[0, best_class, range(4)] = torch.tensor([1.0, 3, 2, 0])
    output = HeadOutput((torch.zeros(1, 4, 2, 2),), {ONE2MANY: Branch(boxes.flatten(1, 2), scores)})
    return load("lqe")(spec, spec, classes).fit([(output, objects)], steps=2)


def test_the_fit_looks_at_objects_of_the_cells_class(fake):
    """Cell 0 at (4, 4) has the box -4..12, the object is 0..16: 12^2 in common, 16^2 + 16^2 - 12^2 in the union: 9/23.

    All four cells overlap as much; those whose best class is the object's are kept, and as many others with target 0.
    """
    same = ClassMap(torch.tensor([0, 1]), torch.tensor([0, 1]))
    whole = Targets(torch.tensor([[0.5, 0.5, 1, 1]]), torch.tensor([1]), torch.tensor([0]))
    found = quarters([1, 0, 0, 0], whole, same, fake)
    assert (found["rows"], found["positives"]) == (2, 0.5)
    assert found["mean_iou"] == pytest.approx(9 / 23)
    found = quarters([1, 1, 0, 1], whole, same, fake)
    assert (found["rows"], found["positives"]) == (4, 0.75)
    with pytest.raises(YoloKDError, match=r"no box of the teacher on an object of its class.*lqe\.lqe=none"):
        quarters([0, 0, 0, 0], whole, same, fake)
    # The object's class counts under the student's names: its class 1 is the teacher's 0.
    crossed = ClassMap(torch.tensor([0, 1]), torch.tensor([1, 0]))
    assert quarters([0, 1, 1, 1], whole, crossed, fake)["rows"] == 2


def test_the_fit_takes_the_box_where_it_is(fake):
    """The same object in the lower right quarter, 8..16: cell 3 at (12, 12), box 4..20, holds it: 8^2 / 16^2."""
    same = ClassMap(torch.tensor([0, 1]), torch.tensor([0, 1]))
    quarter = Targets(torch.tensor([[0.75, 0.75, 0.5, 0.5]]), torch.tensor([0]), torch.tensor([0]))
    found = quarters([1, 1, 1, 0], quarter, same, fake)
    assert (found["rows"], found["mean_iou"]) == (2, pytest.approx(1 / 4))
    # Cell 0, box -4..12, has 4 x 4 of it: 16 / (64 + 256 - 16).
    assert quarters([0, 1, 1, 1], quarter, same, fake)["mean_iou"] == pytest.approx(1 / 19)


def test_the_fit_learns_that_sharp_boxes_are_good(fake):
    """Of cells that see one object, those with sharp sides have its box and flat ones another."""
    spec = fake.make_spec(channels=(4,), strides=(8,), reg_max=8, nc=1, towers=(4,))
    random = torch.Generator().manual_seed(0)
    good = torch.rand(64, generator=random) < 0.5
    boxes = torch.randn(1, 4, 8, 64, generator=random) * 0.1
    boxes[0, :, 1] += good * 12.0  # flat sides reach 3.5 strides
    output = HeadOutput((torch.zeros(1, 4, 8, 8),), {ONE2MANY: Branch(boxes.flatten(1, 2), torch.zeros(1, 1, 64))})
    centres = torch.cartesian_prod(*(torch.arange(8) * 8.0 + 4,) * 2).flip(1) / 64
    targets = Targets(torch.cat((centres, torch.full((64, 2), 0.25)), 1), torch.zeros(64), torch.zeros(64))
    distiller = load("lqe")(spec, spec, ClassMap(torch.tensor([0]), torch.tensor([0])))
    found = distiller.fit([(output, targets)], steps=150)
    quality = distiller.predictor(bins_last(output.branch(ONE2MANY).boxes, 8)).sigmoid()[0]
    assert found["correlation"] > 0.95 and quality[good].min() > quality[~good].max() + 0.3
