"""PCD by hand, against plain loops over its formula, and its invariances. There is no public code to store values of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from yolo_kd.distillers.base import ONE2MANY
from yolo_kd.distillers.pcd import classification_loss, localisation_loss, overlap_loss

LN3 = math.log(3)  # logit of 3/4


def one(value: float) -> torch.Tensor:
    return torch.tensor([value])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def giou_by_corners(a, b):
    """Of two boxes left, top, right, bottom from the same point."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = (-a[0], -a[1], a[2], a[3]), (-b[0], -b[1], b[2], b[3])
    inter = max(min(ax2, bx2) - max(ax1, bx1), 0) * max(min(ay2, by2) - max(ay1, by1), 0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - inter
    hull = (max(ax2, bx2) - min(ax1, bx1)) * (max(ay2, by2) - min(ay1, by1))
    return inter / union - (hull - union) / hull


def by_loops(student, teacher, pairs, bins, top=None, temperature=1.0, overlap=False):
    """(cls, loc) of one branch from the formula of methods.md, cell by cell in float64.

    `pairs` are the shared classes (student, teacher), `bins` those of student and teacher, `top` the cells looked at.
    """
    zs, zt, ds, dt = (
        x.detach().double().numpy() for x in (student.scores, teacher.scores, student.boxes, teacher.boxes)
    )
    cls, loc = [], []
    for image in range(len(zs)):
        w = [max(sigmoid(zt[image, t, a]) for _, t in pairs) for a in range(zt.shape[2])]
        norm = max(sum(w), 1)
        total_c = total_l = 0.0
        for a in sorted(range(len(w)), key=lambda a: -w[a])[:top]:
            unlike = []
            for s, t in pairs:
                q, y = sigmoid(zs[image, s, a]), sigmoid(zt[image, t, a])
                unlike.append(abs(q - y))
                total_c -= abs(q - y) * (y * math.log(q) + (1 - y) * math.log(1 - q))
            sides_s, sides_t = (d[image, :, a].reshape(4, n) for d, n in zip((ds, dt), bins))
            if overlap:
                boxes = [
                    [softmax(side) @ np.arange(len(side)) if len(side) > 1 else side[0] for side in sides]
                    for sides in (sides_s, sides_t)
                ]
                total_l += max(unlike) * (1 - giou_by_corners(*boxes))
                continue
            for side_s, side_t in zip(sides_s, sides_t):
                p, q = softmax(side_t / temperature), softmax(side_s / temperature)
                total_l += w[a] / 4 * temperature**2 * sum(p * np.log(p / q))
        cls.append(total_c / norm)
        loc.append(total_l / norm)
    return np.mean(cls), np.mean(loc)


def test_classification_two_by_two_by_hand():
    # Student 3/4, 1/4, 1/2, 1/4 and teacher 1/2, 1/4, 3/4, 3/4: differences 1/4, 0, 1/4, 1/2.
    student = torch.tensor([LN3, -LN3, 0, -LN3]).view(1, 1, 4)
    teacher = torch.tensor([0, -LN3, LN3, LN3]).view(1, 1, 4)
    bce = [
        -math.log(3 / 4) / 2 - math.log(1 / 4) / 2,
        None,
        math.log(2),
        -math.log(1 / 4) * 3 / 4 - math.log(3 / 4) / 4,
    ]
    total = bce[0] / 4 + bce[2] / 4 + bce[3] / 2
    assert total == pytest.approx(0.938354, abs=1e-6)
    assert classification_loss(student, teacher, one(1)).item() == pytest.approx(total)
    assert classification_loss(student, teacher, one(2)).item() == pytest.approx(total / 2)
    # A second image, its own normaliser: (total / 2 + total / 5) / 2. Two equal classes: twice the sum.
    both = [torch.cat((x, x)) for x in (student, teacher)]
    assert classification_loss(*both, torch.tensor([2.0, 5.0])).item() == pytest.approx(total * 0.35)
    classes = [torch.cat((x, x), 1) for x in (student, teacher)]
    assert classification_loss(*classes, one(1)).item() == pytest.approx(2 * total)


def test_localisation_two_by_two_by_hand():
    # Two bins. Teacher 3/4 1/4, student 1/2 1/2 on the left side of the first cell, equal elsewhere.
    student, teacher = torch.zeros(1, 8, 4), torch.zeros(1, 8, 4)
    teacher[0, 0, 0] = LN3
    weights = torch.tensor([[0.5, 0.25, 1.0, 0.25]])
    kl = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert kl == pytest.approx(0.130812, abs=1e-6)  # the other direction is .143841
    assert localisation_loss(student, teacher, weights, one(2), 2).item() == pytest.approx(0.5 * kl / 4 / 2)
    # At T = 2 the logit is ln(3) / 2, the probability sqrt(3) / (1 + sqrt(3)) = .634.
    p = math.sqrt(3) / (1 + math.sqrt(3))
    kl = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    assert localisation_loss(student, teacher, weights, one(2), 2, 2.0).item() == pytest.approx(4 * 0.5 * kl / 4 / 2)
    # All four sides of the third cell, whose weight is 1, in the second of two images with its own normaliser.
    teacher[0, :, 0], teacher[0, ::2, 2] = 0, LN3
    kl = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    found = localisation_loss(
        student.repeat(2, 1, 1), torch.cat((student, teacher)), weights.repeat(2, 1), torch.tensor([1.0, 4.0]), 2
    )
    assert found.item() == pytest.approx((0 + kl / 4) / 2)


def test_overlap_two_by_two_by_hand():
    # Boxes 2 x 2 and 4 x 1 with GIoU 2/6 - 2/8 (test_boxes.py) in the first cell, equal ones in the others.
    student = torch.ones(1, 4, 4)
    teacher = student.clone()
    teacher[0, :, 0] = torch.tensor([3.0, 0, 1, 1])
    weights = torch.tensor([[0.5, 0.25, 1.0, 0.25]])
    assert overlap_loss(student, teacher, weights, one(2)).item() == pytest.approx(0.5 * (1 - 1 / 12) / 2)


def test_the_square_of_the_temperature_keeps_the_strength():
    """T^2 KL tends to half the variance of the difference of the logits over the bins."""
    random = torch.Generator().manual_seed(0)
    s, t = (torch.randn(1, 64, 1, generator=random, dtype=torch.float64) for _ in range(2))
    limit = (s - t).view(4, 16).var(1, correction=0).mean().item() / 2
    ones = torch.ones(1, 1, dtype=torch.float64)
    assert localisation_loss(s, t, ones, ones[0], 16, 1e4).item() == pytest.approx(limit, rel=1e-3)


@pytest.mark.parametrize("args", [{}, {"top": 5}, {"top": 5, "form": "paper"}, {"temperature": 2.0}], ids=str)
@pytest.mark.parametrize("shared", [([0, 1, 2], [0, 1, 2]), ([2, 0], [1, 3])], ids=["all", "two of them"])
def test_terms_agree_with_plain_loops(args, shared, fake):
    pair = fake.make_pair(
        fake.make_spec(reg_max=5), fake.make_spec(reg_max=5, nc=4), shared, sizes=((2, 3), (1, 2), (1, 1))
    )
    terms = pair.run(pair.build("pcd", **args))
    top = args.get("top") if args.get("form") != "paper" else None
    cls, loc = by_loops(
        pair.student.branch(ONE2MANY),
        pair.teacher.branch(ONE2MANY),
        list(zip(*shared)),
        (5, 5),
        top,
        args.get("temperature", 1.0),
    )
    assert terms["cls"].item() == pytest.approx(cls, rel=1e-4)
    assert terms["loc"].item() == pytest.approx(loc, rel=1e-4)


@pytest.mark.parametrize("bins", [(1, 1), (1, 6), (6, 1), (4, 6)], ids=str)
def test_heads_of_unlike_bins_agree_with_plain_loops(bins, fake):
    specs = [fake.make_spec(reg_max=n) for n in bins]
    pair = fake.make_pair(*specs, sizes=((2, 3), (1, 2), (1, 1)))
    terms = pair.run(pair.build("pcd", top=6))
    classes = [(k, k) for k in range(3)]
    branches = pair.student.branch(ONE2MANY), pair.teacher.branch(ONE2MANY)
    cls, loc = by_loops(*branches, classes, bins, 6, overlap=True)
    assert terms["cls"].item() == pytest.approx(cls, rel=1e-4)
    assert terms["loc"].item() == pytest.approx(loc, rel=1e-4)


def test_equal_distributions_have_no_loss_whatever_their_logits():
    """softmax(log p + c) = p, so by hand L_l = 0 and its gradient is p - p."""
    log_p = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    teacher = log_p.repeat(4).view(1, 16, 1).repeat(1, 1, 3)
    student = (teacher + torch.tensor([7.0, -3, 0, 50]).repeat_interleave(4).view(1, 16, 1)).requires_grad_()
    loss = localisation_loss(student, teacher, torch.ones(1, 3), one(1), 4)
    loss.backward()
    assert abs(loss.item()) < 1e-5 and student.grad.abs().max() < 1e-5


def test_the_place_of_the_mode_counts():
    """Modes at bins 5 and 9, which have the same sorted bins, by hand: a of the mode, b of the 15 others."""
    student, teacher = torch.zeros(1, 64, 1), torch.zeros(1, 64, 1)
    student.view(4, 16)[:, 5], teacher.view(4, 16)[:, 9] = 6.0, 6.0
    a, b = math.exp(6) / (math.exp(6) + 15), 1 / (math.exp(6) + 15)
    kl = a * math.log(a / b) + b * math.log(b / a)
    found = localisation_loss(student, teacher, torch.ones(1, 1), one(1), 16).item()
    assert found == pytest.approx(kl, rel=1e-5) and found > 5


def test_the_gradient_of_a_side_sums_to_zero_and_points_from_student_to_teacher():
    """d KL / d z = q - p: softmax(student) - softmax(teacher), times w / 4 / N."""
    random = torch.Generator().manual_seed(0)
    s, t = (torch.randn(1, 64, 3, generator=random) for _ in range(2))
    s.requires_grad_()
    weights = torch.tensor([[0.5, 0.0, 1.0]])
    localisation_loss(s, t, weights, one(1.5), 16).backward()
    q, p = (x.detach().view(4, 16, 3).softmax(1) for x in (s, t))
    torch.testing.assert_close(s.grad.view(4, 16, 3), (q - p) * weights / 4 / 1.5)
    assert s.grad.view(4, 16, 3).sum(1).abs().max() < 1e-6


@pytest.mark.parametrize("offset", [-2.0, -0.3, 0.3, 2.0])
def test_classification_is_least_at_the_teachers_score(offset):
    """With one class, too, where a softmax over classes would say nothing."""
    teacher = torch.tensor([-3.0, -1.0, 0.0, 2.0]).view(1, 1, 4)
    assert classification_loss(teacher, teacher, one(1)).item() == 0
    here, further = (classification_loss(teacher + x, teacher, one(1)).item() for x in (offset, offset * 1.5))
    assert 0 < here < further


def test_the_constant_of_the_overlap_carries_no_gradient(fake):
    pair = fake.make_pair(fake.make_spec(reg_max=1), fake.make_spec(reg_max=1))
    pair.run(pair.build("pcd"))["loc"].backward()
    branch = pair.student.branch(ONE2MANY)
    assert branch.scores.grad is None and branch.boxes.grad.any()


def test_cells_that_only_unshared_classes_see_are_not_looked_at(fake):
    """The weight is that of shared classes: student class 0 is teacher class 1; teacher class 0 is sure of cell 3."""
    pair = fake.make_pair(classes=([0], [1]), sizes=((2, 2), (1, 1), (1, 1)), images=1)
    teacher = pair.teacher.branch(ONE2MANY)
    teacher.scores[0, 0], teacher.scores[0, 1] = -9.0, -9.0
    teacher.scores[0, 0, 3], teacher.scores[0, 1, 2] = 9.0, 1.0
    terms = pair.run(pair.build("pcd", top=1))
    sum(terms.values()).backward()
    for x in (pair.student.branch(ONE2MANY).scores, pair.student.branch(ONE2MANY).boxes):
        assert x.grad[0].any(0).nonzero().flatten().tolist() == [2]
