"""Criss-cross attention against the stored values and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from yolo_kd.distillers.criss_cross import CrissCrossBlock, affinity_attention, criss_cross_attention

CASES = ["cca_core", "cca_core_tall", "cca_deg_1x1", "cca_deg_column", "cca_deg_const", "cca_deg_row"]


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_authors_code(name, fake):
    case = fake.Golden(name)
    leaves = case.inputs()
    out = criss_cross_attention(leaves["in.q"], leaves["in.k"], leaves["in.v"])
    case.compare("out.out", out)
    loss = (out * leaves["in.cotangent"].detach()).sum()
    case.compare("out.loss", loss)
    loss.backward()
    case.compare_gradients(leaves)


@pytest.mark.parametrize("name", ["cca_module", "cca_module_deg_gamma0"])
def test_the_block_agrees_with_the_authors_code(name, fake):
    case = fake.Golden(name)
    block = CrissCrossBlock(16, case.number("reduction"))
    block.load_state_dict({k.removeprefix("param."): v for k, v in case.inputs("param.", grad=False).items()})
    x = case.tensor("in.x", grad=True)
    out = block(x)
    case.compare("out.out", out)
    (out * case.tensor("in.cotangent")).sum().backward()
    case.compare_gradients({"in.x": x, **{f"param.{k}": p for k, p in block.named_parameters()}})


def test_two_by_two_by_hand():
    x = torch.tensor([1.0, -1.0, 1.0, 1.0]).view(1, 1, 2, 2)
    out = affinity_attention(x, tau=1.0)
    # Cell (0, 0) sees itself and the cell below with cosine 1, the cell to its right with cosine -1.
    e = math.e
    assert out[0, 0, 0, 0].item() == pytest.approx((e + e - 1 / e) / (2 * e + 1 / e), abs=1e-6)
    # Cell (0, 1) sees itself with cosine 1 and two cells with cosine -1.
    assert out[0, 0, 0, 1].item() == pytest.approx((-e + 2 / e) / (e + 2 / e), abs=1e-6)


def test_one_pass_sees_row_and_column_only_and_two_see_all():
    x = torch.randn(1, 4, 5, 6, requires_grad=True)
    once = affinity_attention(x)
    seen = torch.autograd.grad(once[0, :, 2, 3].sum(), x, retain_graph=True)[0].abs().sum(1)[0] > 0
    want = torch.zeros(5, 6, dtype=torch.bool)
    want[2], want[:, 3] = True, True
    assert torch.equal(seen, want)
    seen = torch.autograd.grad(affinity_attention(once)[0, :, 2, 3].sum(), x)[0].abs().sum(1)[0] > 0
    assert seen.all()


def test_large_energies_stay_finite():
    q = torch.full((1, 2, 3, 3), 60.0, requires_grad=True)
    out = criss_cross_attention(q, q * torch.tensor([1.0, -1.0]).view(1, 2, 1, 1) * 60, q)
    out.sum().backward()
    assert out.isfinite().all() and q.grad.isfinite().all()
