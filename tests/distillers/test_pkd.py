"""PKD against the stored values, by hand, and its two ways of computing."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from yolo_kd.distillers.pkd import pkd_loss, pkd_projected_loss

CASES = [
    "pkd_multilevel",
    "pkd_weight6",
    "pkd_resize_student",
    "pkd_resize_teacher",
    "pkd_deg_1x1_n2",
    "pkd_deg_both_const",
    "pkd_deg_student_const",
    "pkd_deg_teacher_const",
]


@pytest.mark.parametrize("name", CASES)
def test_agrees_with_the_authors_code(name, fake):
    case = fake.Golden(name)
    leaves = case.inputs()
    resize = "hp.resize_stu" not in case.data or bool(case.number("resize_stu"))
    total = torch.zeros(())
    for level in range(case.number("levels")):
        s, t = leaves[f"in.student_{level}"], leaves[f"in.teacher_{level}"].detach()
        loss = case.number("loss_weight") * pkd_loss(s, t, case.number("eps"), resize)
        case.compare(f"out.loss_{level}", loss)
        total = total + loss
    case.compare("out.loss", total)
    total.backward()
    case.compare_gradients(leaves)


def test_one_number_per_channel_is_zero_where_the_authors_code_is_nan(fake):
    case = fake.Golden("pkd_deg_1x1_n1")
    assert case.data["info.official_is_nan"]
    s, t = case.tensor("in.student_0", grad=True), case.tensor("in.teacher_0")
    loss = pkd_loss(s, t)
    loss.backward()
    assert loss == 0 and not s.grad.any()


def test_two_by_two_by_hand():
    student = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 2, 2)
    # Deviations -1.5 -.5 .5 1.5 and -.5 -.5 .5 .5: r = 2 / (sqrt(5) * 1); the loss is (n - 1) / n * (1 - r).
    teacher = torch.tensor([0.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2)
    assert pkd_loss(student, teacher).item() == pytest.approx(0.75 * (1 - 2 / 5**0.5), abs=1e-5)
    assert pkd_loss(student, -student).item() == pytest.approx(1.5, abs=1e-5)


def test_scale_and_offset_of_a_channel_do_not_matter():
    s, t = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    factor, offset = torch.tensor([0.5, 3.0, 40.0]).view(1, 3, 1, 1), torch.tensor([7.0, -1.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(pkd_loss(s * factor + offset, t), pkd_loss(s, t), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_projected_form_is_the_plain_one(layout):
    random = torch.Generator().manual_seed(0)
    x = (torch.randn(3, 5, 6, 7, generator=random) + 2).to(memory_format=layout).requires_grad_()
    w = torch.randn(8, 5, generator=random, requires_grad=True)
    t = (torch.randn(3, 8, 6, 7, generator=random) * 3 - 4).to(memory_format=layout)
    t[:, 2] = 1.5  # constant channel
    plain = pkd_loss(F.conv2d(x, w[:, :, None, None]), t)
    fast = pkd_projected_loss(x, w, t)
    torch.testing.assert_close(fast, plain, rtol=1e-5, atol=1e-6)
    for a, b in zip(torch.autograd.grad(fast, (x, w)), torch.autograd.grad(plain, (x, w))):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_levels_are_averaged_or_summed(fake):
    pair = fake.make_pair()
    mean, total = (pair.run(pair.build("pkd", reduce=r))["pkd"] for r in ("mean", "sum"))
    torch.testing.assert_close(total, 3 * mean)


def test_only_different_widths_get_an_adapter(fake):
    student = fake.make_spec(channels=(9, 8, 13))
    distiller = fake.make_pair(student).build("pkd")
    assert [k for k, _ in distiller.named_parameters()] == ["adapters.1.weight"]
