"""MAR by hand, against plain loops over its formula, and its invariances. There is no public code to store values of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from yolo_kd.distillers import load
from yolo_kd.distillers.adapters import normalised, pointwise
from yolo_kd.distillers.base import ONE2MANY, Branch, ClassMap, HeadOutput, Targets
from yolo_kd.distillers.mar import (
    gather_cells,
    mask_weights,
    masked_distance,
    relation_cells,
    relation_divergence,
    relation_loss,
    relation_matrix,
)

ASIDE = math.exp(-2)  # the mask one cell beside the centre of an object of 8 px at stride 8: two deviations of 4 px
NOBODY = Targets(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0))


def two_by_two(student: list[float], teacher: list[float], fake, objects: Targets | None = None, **args):
    """The terms of maps of 2 x 2 cells of 8 px with one channel, in the neck and in the tower.

    The object is 8 px wide on the first cell: M is 1, e^-2, e^-2 and, at e^-4, cut to 0. The teacher's boxes reach two
    strides up and to the left of a cell's centre, none down and right.
    """
    spec = fake.make_spec(channels=(1,), strides=(8,), reg_max=1, nc=1, towers=(1,))
    boxes = torch.tensor([2.0, 2, 0, 0]).view(1, 4, 1).repeat(1, 1, 4)
    outputs = []
    for values in (student, teacher):
        maps = (torch.tensor(values).view(1, 1, 2, 2).requires_grad_(values is student),)
        outputs.append(HeadOutput(maps, {ONE2MANY: Branch(boxes, torch.zeros(1, 1, 4))}, maps))
    objects = objects or Targets(torch.tensor([[0.25, 0.25, 0.5, 0.5]]), torch.zeros(1), torch.zeros(1))
    distiller = load("mar")(spec, spec, ClassMap(torch.tensor([0]), torch.tensor([0])), norm="none", **args)
    return {term: value.item() for term, value in distiller(*outputs, objects).items()}


def test_mask_two_by_two_by_hand(fake):
    # Squared differences 1, 4, 9, 16; near the object 1 and twice e^-2 of them, far from it the last cell.
    near, far = (1 + ASIDE * (4 + 9)) / (1 + 2 * ASIDE), 16
    case = ([1.0, 2, 3, 4], [0.0, 0, 0, 0], fake)
    assert two_by_two(*case)["mask"] == pytest.approx(near + 0.25 * far)
    assert two_by_two(*case, near=3.0, far=0.0)["mask"] == pytest.approx(3 * near)
    # rho 1: deviation 8, so e^-.5 aside and e^-1 diagonally; no cell is far.
    aside, across = math.exp(-0.5), math.exp(-1)
    want = (1 + aside * (4 + 9) + across * 16) / (1 + 2 * aside + across)
    assert two_by_two(*case, rho=1.0)["mask"] == pytest.approx(want)
    # Without objects all is far.
    assert two_by_two(*case, NOBODY)["mask"] == pytest.approx(0.25 * (1 + 4 + 9 + 16) / 4)


def test_mask_of_rings_and_of_overlaps_by_hand(fake):
    case = ([1.0, 2, 3, 4], [0.0, 0, 0, 0], fake)
    # 8 px reach 4, 6 and 8 px from the centre at factors 1, 1.5, 2: the cells aside have .1, and so has the diagonal.
    rings = (1 + 0.1 * (4 + 9 + 16)) / 1.3
    assert two_by_two(*case, regions="ring")["mask"] == pytest.approx(rings)
    assert two_by_two(*case, form="paper")["mask"] == pytest.approx(rings)
    # Boxes -12..4, -4..12 aside: in common with the object 0..8 are 4 x 4 px on the diagonal's first cell, 8 x 4 beside,
    # 8 x 8 on the last; each box has 16 x 16, the object 8 x 8.
    iou = [16 / (256 + 64 - 16), 32 / (256 + 64 - 32), 32 / (256 + 64 - 32), 64 / 256]
    mask = [x if x >= 0.1 else 0 for x in iou]
    assert [x > 0 for x in mask] == [False, True, True, True]
    want = (mask[1] * 4 + mask[2] * 9 + mask[3] * 16) / sum(mask) + 0.25 * 1
    assert two_by_two(*case, regions="iou")["mask"] == pytest.approx(want)


def test_relation_two_by_two_by_hand(fake):
    # Less their means the maps are -1 -1 1 1 and -1 1 -1 1, so all cosines are 1 or -1. Student and teacher differ, by 2,
    # where the products + - - + of two cells have opposite signs: the first or last with the second or third.
    w = [1, 0.5 + 0.5 * ASIDE, 0.5 + 0.5 * ASIDE, 0.5]
    want = 4 * 2 * (w[0] + w[3]) * (w[1] + w[2]) / sum(w) ** 2
    maps = ([0.0, 0, 2, 2], [5.0, 9, 5, 9])
    assert two_by_two(*maps, fake)["relation"] == pytest.approx(want, abs=1e-5)
    assert two_by_two(*maps, fake, form="paper")["relation"] == pytest.approx(4 * 8 / 16, abs=1e-5)
    # Rows of the teacher: e^(1 / tau) twice and e^(-1 / tau) twice; half of each is of the other sign in the student's.
    tau = 0.5
    big, small = (math.exp(x / tau) / (2 * math.exp(1 / tau) + 2 * math.exp(-1 / tau)) for x in (1, -1))
    want = (big - small) * math.log(big / small)
    assert two_by_two(*maps, fake, similarity="kl", tau=tau)["relation"] == pytest.approx(want, rel=1e-4)


def test_relations_are_averaged_over_images_each_with_its_weights():
    student, teacher = torch.zeros(2, 2, 2), torch.zeros(2, 2, 2)
    student[0, 0, 1], student[1] = 3.0, 1.0
    weights = torch.tensor([[1.0, 0.5], [0.5, 0.5]])
    # First image 9 x 1 x .5 / (1.5)^2, second 1 whatever its weights.
    assert relation_loss(student, teacher, weights).item() == pytest.approx((9 * 0.5 / 2.25 + 1) / 2)


def test_the_divergence_is_the_teachers_from_the_students():
    # Rows 3/4 1/4 and 1/2 1/2: KL(teacher || student) is .1308, the other way .1438.
    teacher = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]])
    kl = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert relation_divergence(torch.zeros(1, 2, 2), teacher, 1.0).item() == pytest.approx(kl / 2)
    assert relation_divergence(torch.zeros(1, 2, 2), teacher / 10, 0.1).item() == pytest.approx(kl / 2)


def test_weights_of_near_and_far_sum_to_their_shares():
    mask = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]]).view(2, 1, 2, 2)
    weights = mask_weights(mask, near=1.0, far=0.25)
    assert weights.flatten().tolist() == pytest.approx([1 / 2, 1 / 4, 0.05, 0.05, 0.05, 0.05, 0.05, 1 / 4])
    assert mask_weights(torch.zeros(1, 1, 2, 2)).flatten().tolist() == pytest.approx([0.25 / 4] * 4)


@pytest.mark.parametrize("norm", ["pkd", "instance", "none"])
@pytest.mark.parametrize("adapted", [True, False])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_projection_that_is_not_built_equals_the_plain_one(norm, adapted, layout):
    random = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 4, 3, 5, generator=random) + 1).to(memory_format=layout).requires_grad_()
    t = (torch.randn(2, 6 if adapted else 4, 3, 5, generator=random) * 2 - 1).to(memory_format=layout)
    adapter = pointwise(4, 6, random, bias=norm == "none") if adapted else nn.Identity()
    weights = torch.rand(2, 1, 3, 5, generator=random)

    def unit(z):
        if norm == "none":
            return z
        dims = (0, 2, 3) if norm == "pkd" else (2, 3)
        return (z - z.mean(dims, keepdim=True)) / (z.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()

    plain = (weights[:, 0] * (unit(adapter(x)) - unit(t)).square().mean(1)).sum()
    fast = masked_distance(normalised(x, adapter, norm), normalised(t, None, norm), weights)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-5)
    inputs = [x, *adapter.parameters()]
    for a, b in zip(torch.autograd.grad(fast, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_the_mask_term_is_the_mean_over_the_levels(fake):
    """Against plain loops over levels, images, objects and cells."""
    spec = fake.make_spec()
    pair = fake.make_pair(spec, spec)
    want = []
    for level, stride in enumerate(spec.strides):
        s, t = (x.feats[level].detach().double().numpy() for x in (pair.student, pair.teacher))
        s, t = (
            (x - x.mean((0, 2, 3), keepdims=True)) / np.sqrt(x.var((0, 2, 3), keepdims=True) + 1e-5) for x in (s, t)
        )
        e = ((s - t) ** 2).mean(1)
        mask = np.zeros_like(e)
        for image, y, x in np.ndindex(e.shape):
            for box, owner in zip(
                pair.targets.boxes_xywhn.double() * torch.tensor([96, 64, 96, 64]), pair.targets.image
            ):
                cx, cy, w, h = (box / stride).tolist()
                dx, dy = (x + 0.5 - cx) / max(0.5 * w, 0.5), (y + 0.5 - cy) / max(0.5 * h, 0.5)
                value = math.exp(-0.5 * (dx**2 + dy**2))
                if owner == image and value >= 0.05:
                    mask[image, y, x] = max(mask[image, y, x], value)
        outside = mask == 0
        want.append((mask * e).sum() / mask.sum() + 0.25 * e[outside].sum() / max(outside.sum(), 1))
    assert pair.run(pair.build("mar"))["mask"].item() == pytest.approx(np.mean(want), rel=1e-4)


def test_cells_by_score_by_mask_and_of_the_rest():
    # Twelve cells, eight chosen: the four of the highest score, two of the highest mask among the others, two more.
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0, -1, -2]])
    mask = torch.tensor([[1.0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0, 0.9, 0.8]])
    cells = relation_cells(scores, mask, 8)[0].tolist()
    assert cells[:4] == [0, 1, 2, 3] and set(cells[4:6]) == {10, 11}
    assert len(set(cells)) == 8 and set(cells[6:]) <= {4, 5, 6, 7, 8, 9}
    assert relation_cells(scores, mask, 12).tolist() == [list(range(12))]


def test_the_rest_is_spread_over_all_scores_and_differs_between_images():
    random = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 2000, generator=random)
    cells = relation_cells(scores, torch.zeros(2, 2000), 256)
    assert all(len(set(row)) == 256 for row in cells.tolist())
    rest = scores.gather(
        1, cells[:, 192:]
    )  # 64 of a standard normal less its top: mean about 0, 64^-.5 = .125 of error
    assert rest.mean(1).abs().max() < 0.5 and rest.min() < -1
    assert len(set(cells[0, 192:].tolist()) & set(cells[1, 192:].tolist())) < 32
    flat = relation_cells(torch.zeros(1, 2000), torch.zeros(1, 2000), 256)[0, 192:]
    assert flat.max() - flat.min() > 1000  # constant scores are spread, too


def test_vectors_are_gathered_from_their_level():
    levels = (torch.arange(16.0).view(1, 2, 2, 4), torch.arange(100.0, 104).view(1, 2, 1, 2))
    found = gather_cells(levels, torch.tensor([[9, 0, 6, 8]]))
    assert found[0].tolist() == [[101, 103], [0, 8], [6, 14], [100, 102]]


def relation(towers: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return relation_loss(relation_matrix(towers), relation_matrix(teacher), torch.ones(towers.shape[:2]))


def test_channels_offset_and_scale_of_the_tower_do_not_matter():
    random = torch.Generator().manual_seed(0)
    s, t = (torch.randn(2, 20, 6, generator=random).requires_grad_() for _ in range(2))
    want = relation(s, t.detach())
    gradient = torch.autograd.grad(want, s)[0]
    torch.testing.assert_close(relation(s[..., [3, 1, 0, 5, 2, 4]], t), want)
    torch.testing.assert_close(relation(s + torch.randn(6, generator=random), t), want)
    torch.testing.assert_close(relation(s @ torch.linalg.qr(torch.randn(6, 6, generator=random))[0], t), want)
    tenfold = (s.detach() * 10).requires_grad_()
    torch.testing.assert_close(relation(tenfold, t.detach()), want)
    torch.testing.assert_close(torch.autograd.grad(relation(tenfold, t.detach()), tenfold)[0], gradient / 10)


def test_unrelated_towers_are_told_apart_although_their_cosines_are_alike():
    """Cosines of centred Gaussian vectors have the variance 1 / C, two unrelated ones differ by 2 / C = .016 squared."""
    random = torch.Generator().manual_seed(0)
    s, t = (torch.randn(2, 256, 128, generator=random) + 3 for _ in range(2))
    assert relation(s, t).item() == pytest.approx(2 / 128, rel=0.05)


def test_only_the_chosen_cells_get_a_gradient(fake):
    pair = fake.make_pair()
    pair.run(pair.build("mar", cells=16))["relation"].backward()
    touched = torch.cat([x.grad.abs().sum(1).flatten(1) for x in pair.student.towers], 1) > 0
    assert touched.sum(1).tolist() == [16, 16]
    best = pair.teacher.branch(ONE2MANY).scores.amax(1).topk(8, 1).indices
    assert touched.gather(1, best).all()


def test_the_choice_of_cells_does_not_look_at_the_student(fake):
    pair = fake.make_pair()
    distiller = pair.build("mar", cells=16)
    pair.run(distiller)["relation"].backward()
    first = [x.grad.abs().sum(1) > 0 for x in pair.student.towers]
    pair.student = fake.map_tensors(pair.student, lambda x: x.flip(-1) * 3 - 1, grad=True)
    pair.run(distiller)["relation"].backward()
    assert all(torch.equal(a, x.grad.abs().sum(1) > 0) for a, x in zip(first, pair.student.towers))


def test_the_gradient_of_the_mask_term_is_near_the_object(fake):
    """One object of 5 x 5 cells among 20 x 20, deviation 2.5: a cell with M > .5 has a weight of about .72 / sum M, with
    sum M = 2 pi 2.5^2 = 39 that is .018; the other 368 share half of sum M and .25: .0020 each. A factor of 9."""
    spec = fake.make_spec(channels=(8,), strides=(8,), towers=(5,))
    box = Targets(torch.tensor([[0.5, 0.5, 0.25, 0.25]]), torch.zeros(1), torch.zeros(1))
    pair = fake.make_pair(spec, spec, images=1, sizes=((20, 20),))
    pair.targets = box
    pair.run(pair.build("mar"))["mask"].backward()
    size = pair.student.feats[0].grad.abs().sum(1)[0]
    offset = torch.arange(20) + 0.5 - 10
    inside = torch.exp(-0.5 * (offset[:, None] ** 2 + offset**2) / 2.5**2) > 0.5
    assert inside.sum() == 32  # a circle of 2.94 cells: eight centres a quarter
    ratio = size[inside].mean() / size[~inside].mean()
    assert 5 < ratio < 14


def test_without_objects_both_terms_are_there(fake):
    pair = fake.make_pair()
    pair.targets = Targets(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0))
    terms = pair.run(pair.build("mar", near=1.0))
    other = pair.run(pair.build("mar", near=7.0))
    assert terms["mask"] > 0 and terms["relation"] > 0
    torch.testing.assert_close(terms["mask"], other["mask"])  # nothing is near
