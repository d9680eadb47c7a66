"""CSGR: the fast way equals the plain one, the checks of its specification, and a case by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from yolo_kd.distillers.adapters import Feature, normalised, pointwise, semi_orthogonal
from yolo_kd.distillers.base import Targets
from yolo_kd.distillers.boxes import cell_grid
from yolo_kd.distillers.csgr import box_attention, category_semantic_loss, global_relation, score_attention
from yolo_kd.distillers.csgr_released import class_vectors

LAYOUTS = [torch.contiguous_format, torch.channels_last]


def plain_norm(x: torch.Tensor, norm: str) -> torch.Tensor:
    if norm == "none":
        return x
    dims = (0, 2, 3) if norm == "pkd" else (2, 3)
    var, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) / (var + 1e-5).sqrt()


def as_feature(x: torch.Tensor) -> Feature:
    return Feature(x, None, torch.ones(1, x.shape[1]))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("norm", ["pkd", "instance", "none"])
@pytest.mark.parametrize("adapted", [True, False])
def test_the_projection_that_is_not_built_equals_the_plain_one(norm, adapted, layout):
    """Loss and gradients of both terms to 1e-5."""
    random = torch.Generator().manual_seed(0)
    x = (torch.randn(2, 6, 6, 8, generator=random) + 1).to(memory_format=layout).requires_grad_()
    t = (torch.randn(2, 9 if adapted else 6, 6, 8, generator=random) * 2 - 1).to(memory_format=layout)
    adapter = pointwise(6, 9, random, bias=norm == "none") if adapted else nn.Identity()
    attention = torch.rand(2, 3, 48, generator=random)
    attention = attention / attention.sum(2, keepdim=True)
    presence = torch.tensor([[0.9, 0.2, 0.0], [0.5, 0.0, 0.0]])
    matrix = semi_orthogonal(4, t.shape[1], random)

    s_plain, t_plain = plain_norm(adapter(x), norm), plain_norm(t, norm)
    plain = {"cs": category_semantic_loss(as_feature(s_plain), as_feature(t_plain), attention, presence)}
    seen = [
        global_relation(torch.einsum("dc,bchw->bdhw", matrix, F.avg_pool2d(z, 2)), tau=0.1) for z in (s_plain, t_plain)
    ]
    plain["gr"] = F.mse_loss(*seen)

    s, t_fast = normalised(x, adapter, norm), normalised(t, None, norm)
    fast = {"cs": category_semantic_loss(s, t_fast, attention, presence)}
    fast["gr"] = F.mse_loss(*(global_relation(z.project(matrix, 2), tau=0.1) for z in (s, t_fast)))
    assert torch.allclose(s.dense(), s_plain, atol=1e-5)

    inputs = [x, *adapter.parameters()]
    for term in ("cs", "gr"):
        torch.testing.assert_close(fast[term], plain[term], rtol=1e-5, atol=1e-6)
        grads = [torch.autograd.grad(v[term], inputs, retain_graph=True, allow_unused=True) for v in (fast, plain)]
        for a, b in zip(*grads):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_two_by_two_by_hand(fake):
    logits = torch.tensor([0.0, -60.0, -60.0, -60.0]).view(1, 1, 4)
    attention, presence = score_attention(logits)
    assert attention[0, 0].tolist() == pytest.approx([1, 0, 0, 0], abs=1e-5) and presence.item() == 0.5
    s, t = torch.tensor([3.0, 9, 9, 9]).view(1, 1, 2, 2), torch.tensor([1.0, 0, 0, 0]).view(1, 1, 2, 2)
    assert category_semantic_loss(as_feature(s), as_feature(t), attention, presence).item() == pytest.approx(
        4, abs=1e-4
    )
    x = torch.tensor([1.0, -1.0, 1.0, 1.0]).view(1, 1, 2, 2)
    e = math.e
    seen = (2 * e - 1 / e) / (2 * e + 1 / e)  # as in test_criss_cross
    assert global_relation(x, tau=1.0)[0, 0, 0, 0].item() == pytest.approx(1 + seen, abs=1e-6)
    assert global_relation(x, tau=1.0, gamma=0.5, residual=False)[0, 0, 0, 0].item() == pytest.approx(
        seen / 2, abs=1e-6
    )


def test_power_two_keeps_the_attention_on_a_small_object():
    p = torch.full((1, 1, 6400), 0.01)
    p[..., :16] = 0.8
    share = {g: score_attention(p.logit(), power=g)[0][0, 0, :16].sum().item() for g in (1.0, 2.0)}
    assert share[1.0] == pytest.approx(0.17, abs=0.01) and share[2.0] == pytest.approx(0.94, abs=0.01)


def test_only_classes_present_take_part():
    logits = torch.full((2, 5, 6), -8.0)
    logits[0, 3, 2], logits[1, 1, 0], logits[1, 4, 1] = 2.0, 1.0, 0.0
    attention, presence = score_attention(logits)
    assert attention.shape == (2, 2, 6)
    assert presence[0].tolist() == pytest.approx([torch.tensor(2.0).sigmoid().item(), 0])
    assert attention[0, 0].argmax() == 2 and attention[1].argmax(1).tolist() == [0, 1]
    attention, presence = score_attention(torch.full((2, 5, 6), -8.0))
    assert not presence.any() and attention.isfinite().all()


def test_absent_classes_do_not_change_the_loss():
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 12, generator=random)
    s, t = (as_feature(torch.randn(2, 3, 3, 4, generator=random)) for _ in range(2))
    want = category_semantic_loss(s, t, *score_attention(logits))
    more = torch.cat((torch.full((2, 9, 12), -9.0), logits), 1)
    torch.testing.assert_close(category_semantic_loss(s, t, *score_attention(more)), want)


def test_the_gradient_of_cs_is_in_the_region_of_the_class():
    p = torch.full((1, 1, 400), 0.01)
    p[..., 100:110] = 0.9
    x = torch.randn(1, 4, 20, 20, requires_grad=True)
    t = as_feature(torch.randn(1, 4, 20, 20))
    category_semantic_loss(normalised(x), t, *score_attention(p.logit())).backward()
    size = x.grad.abs().sum(1).flatten()
    inside, outside = size[100:110].mean(), torch.cat((size[:100], size[110:])).mean()
    assert inside > 30 * outside


def test_labels_as_attention():
    grid = cell_grid([(2, 4)], [8], torch.zeros(1))  # 16 x 32 pixels
    boxes = torch.tensor([[0.25, 0.5, 0.5, 1.0], [0.9, 0.1, 0.001, 0.001], [0.125, 0.25, 0.25, 0.5]])
    attention, presence = box_attention(Targets(boxes, torch.tensor([2, 0, 2]), torch.tensor([1, 1, 1])), grid, 2)
    assert presence.tolist() == [[0, 0], [1, 1]]
    # Class 0, far smaller than a cell, has the cell of its centre; class 2 the left half, once although boxes overlap.
    assert attention[1].tolist() == [[0, 0, 0, 1, 0, 0, 0, 0], [0.25, 0.25, 0, 0, 0.25, 0.25, 0, 0]]


def test_gr_of_unrelated_maps_is_two_without_attention(fake):
    spec = fake.make_spec(channels=(32, 32, 32))
    pair = fake.make_pair(spec, spec, images=24)
    gr = pair.run(pair.build("csgr", passes=0, pool=1))["gr"].item()
    assert gr == pytest.approx(2.0, abs=0.1)
    narrow = pair.run(pair.build("csgr", passes=0, pool=1, width=16))["gr"].item()
    assert narrow == pytest.approx(2.0, abs=0.2)  # the random projection keeps mean squares


def test_gr_without_attention_is_twice_pkd(fake):
    pair = fake.make_pair(fake.make_spec(), fake.make_spec(), images=24)
    gr = pair.run(pair.build("csgr", gamma=0.0, pool=1))["gr"]
    pkd = pair.run(pair.build("pkd"))["pkd"]
    torch.testing.assert_close(gr, 2 * pkd, rtol=1e-2, atol=0)


@pytest.mark.parametrize("term", ["cs", "gr"])
def test_the_gradient_does_not_change_the_scale_of_a_channel(term, fake):
    pair = fake.make_pair(fake.make_spec(), fake.make_spec())
    pair.run(pair.build("csgr"))[term].backward()
    for x in pair.student.feats:
        along = (x.grad * x.detach()).sum((0, 2, 3))
        assert (along.abs() < 1e-3 * (x.grad.norm() * x.detach().norm())).all()
        assert x.grad.sum((0, 2, 3)).abs().max() < 1e-5


def test_attention_has_no_weights(fake):
    distiller = fake.make_pair().build("csgr")
    assert all(name.startswith("adapters.") for name, _ in distiller.named_parameters())


def test_no_class_seen_gives_zero_and_no_nan(fake):
    pair = fake.make_pair()
    pair.teacher.branches["one2many"].scores.fill_(-9)
    terms = pair.run(pair.build("csgr"))
    assert terms["cs"] == 0 and terms["gr"] > 0


def test_released_form_by_hand_and_its_frozen_teacher_path(fake):
    # Two cells, logits 0 and ln 3: weights 1/4 and 3/4.
    vectors = class_vectors(
        torch.tensor([4.0, 8.0]).view(1, 1, 1, 2), torch.tensor([0.0, math.log(3)]).view(1, 1, 1, 2)
    )
    assert vectors.item() == pytest.approx(7)
    pair = fake.make_pair()
    distiller = pair.build("csgr", form="paper").train()
    weight, slow = (getattr(distiller.released[0], k)["classify"].weight for k in ("online", "slow"))
    assert not slow.requires_grad and torch.equal(weight, slow)
    with torch.no_grad():
        weight += 1
    sum(pair.run(distiller).values()).backward()
    torch.testing.assert_close(weight - slow, torch.full_like(weight, 0.999))
    assert slow.grad is None and weight.grad is not None


@pytest.mark.parametrize(("term", "factor"), [("cs", 5e-4), ("gr", 1e-5)])
def test_released_weights_are_sums_per_image(term, factor, fake):
    """The published factor times the sum over classes (or cells) and channels, divided by images; mean of the levels."""
    pair = fake.equal_pair(noise=1.0)
    images, levels, want = 2, [], []
    for level, (s, t) in zip(
        pair.build("csgr", form="paper").released, zip(pair.student.feats, pair.teacher.feats), strict=True
    ):
        # Widths are equal, and at the start the slow modules are copies and the block's gamma is 0: what is left is
        # the normalised maps, their class vectors, and the factor.
        s, t = ((x - x.mean((0, 2, 3), True)) / (x.std((0, 2, 3), keepdim=True) + 1e-6) for x in (s.detach(), t))
        if term == "cs":
            weight = level.online["classify"].weight.flatten(1)
            s, t = (torch.einsum("bka,bca->bkc", (weight @ x).softmax(2), x) for x in (s.flatten(2), t.flatten(2)))
        want.append(factor * (s - t).square().sum() / images)
        levels.append(s[0].numel())
    weighted, means = (
        pair.run(pair.build("csgr", form="paper", released_weights=w).eval())[term] for w in (True, False)
    )
    torch.testing.assert_close(weighted, torch.stack(want).mean())
    torch.testing.assert_close(means, torch.stack([w / factor / n for w, n in zip(want, levels)]).mean())
