"""Native against the stored values and by hand."""

from __future__ import annotations

import pytest
import torch

from yolo_kd.distillers.base import Branch, ClassMap, HeadOutput, HeadSpec, Targets
from yolo_kd.distillers.native import Native, weighted_l2

SL2 = ["native_sl2", "native_sl2_deg_1x1", "native_sl2_deg_const", "native_sl2_deg_tiny_score"]


@pytest.mark.parametrize("name", [*SL2, "native_sl2_deg_zero_score"])
def test_weighted_l2_agrees_with_the_official_code(name, fake):
    case = fake.Golden(name)
    leaves = case.inputs()
    loss = weighted_l2(leaves["in.student"], case.tensor("in.teacher"), case.tensor("in.teacher_score"))
    case.compare("out.loss", loss)
    loss.backward()
    case.compare_gradients(leaves)


@pytest.mark.parametrize("name", ["native_full", "native_full_deg_1x1", "native_full_deg_const"])
def test_the_term_agrees_with_the_official_code(name, fake):
    case = fake.Golden(name)
    inputs, levels = case.inputs(), range(case.number("levels"))
    student = HeadOutput(tuple(inputs[f"in.student_{i}"] for i in levels), {})
    scores = {b: case.tensor(f"in.scores_{b}") for b in ("one2many", "one2one")}
    teacher = HeadOutput(
        tuple(case.tensor(f"in.teacher_{i}") for i in levels), {b: Branch(s, s) for b, s in scores.items()}
    )
    specs = [
        HeadSpec(tuple(f.shape[1] for f in o.feats), (8, 16, 32), 16, case.number("num_classes"), (1, 1, 1))
        for o in (student, teacher)
    ]
    classes = torch.arange(specs[0].nc)
    distiller = Native(*specs, ClassMap(classes, classes))
    weights = case.inputs("param.", grad=False)
    renamed = {k.removeprefix("param.").replace("proj", "projectors.", 1): v for k, v in weights.items()}
    distiller.load_state_dict(renamed, strict=True) if "student_classes" not in distiller.state_dict() else None
    item = case.number("dis") * distiller(student, teacher, Targets(*torch.zeros(3, 0)))["native"]
    case.compare("out.item", item)
    loss = item * case.number("batch")
    case.compare("out.loss", loss)
    loss.backward()
    parameters = {"param." + k.replace("projectors.", "proj", 1): p for k, p in distiller.named_parameters()}
    case.compare_gradients({**inputs, **parameters})


def test_two_by_two_by_hand():
    s, t = torch.tensor([1.0, 2, 3, 4]).view(1, 1, 2, 2), torch.tensor([0.0, 0, 3, 0]).view(1, 1, 2, 2)
    weights = torch.tensor([0.5, 0.25, 1.0, 0.25]).view(1, 1, 4)
    assert weighted_l2(s, t, weights).item() == pytest.approx((0.5 * 1 + 0.25 * 4 + 0.25 * 16) / 2)
