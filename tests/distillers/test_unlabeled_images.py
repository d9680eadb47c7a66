"""What each method does with images that have no labels; the engine puts the teacher's boxes where labels are missing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from yolo_kd.distillers import DISTILLERS, load
from yolo_kd.distillers.base import Targets

LOOKING = {("mar", ""), ("csgr", "gt_boxes")}


@pytest.mark.parametrize(
    ("name", "args"),
    [*((name, {}) for name in DISTILLERS), ("csgr", {"attention": "gt_boxes"}), ("lqe", {"student_predictor": "own"})],
)
def test_a_method_that_looks_at_boxes_says_so(name, args, fake):
    """Others give the same terms whatever the targets of an unlabeled image are."""
    pair = fake.make_pair()
    distiller = pair.build(name, **args).eval()
    assert distiller.uses_boxes == ((name, str(args.get("attention", ""))) in LOOKING)
    first = pair.targets.image == 0
    known = Targets(pair.targets.boxes_xywhn[first], pair.targets.classes[first], pair.targets.image[first], 1)
    all_terms = pair.run(distiller)
    pair.targets = known
    changed = [term for term, value in pair.run(distiller).items() if not torch.allclose(value, all_terms[term])]
    assert bool(changed) == distiller.uses_boxes


def test_a_method_looks_at_boxes_for_its_active_terms_only(fake):
    pair = fake.make_pair()
    distiller = load("csgr")(pair.student_spec, pair.teacher_spec, pair.classes, attention="gt_boxes")
    distiller.select(["gr"])
    assert not distiller.uses_boxes


def gradients_of_the_own_predictor(pair, targets):
    distiller = pair.build("lqe", student_predictor="own")
    pair.targets = targets
    pair.run(distiller)["lqe"].backward()
    return [p.grad.clone() for p in distiller.own.parameters()]


def test_a_students_predictor_learns_overlaps_from_labelled_images_only(fake):
    pair = fake.make_pair()
    targets = replace(pair.targets, labelled=1)
    moved = targets.boxes_xywhn.clone()
    moved[targets.image == 1] *= 0.5
    one = gradients_of_the_own_predictor(pair, targets)
    two = gradients_of_the_own_predictor(pair, replace(targets, boxes_xywhn=moved))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    both = gradients_of_the_own_predictor(pair, replace(targets, labelled=None))
    assert any(not torch.equal(a, b) for a, b in zip(one, both, strict=True))


def test_it_learns_nothing_without_a_labelled_image_and_every_weight_takes_part(fake):
    pair = fake.make_pair()
    moved = replace(pair.targets, boxes_xywhn=pair.targets.boxes_xywhn * 0.5, labelled=0)
    one = gradients_of_the_own_predictor(pair, replace(pair.targets, labelled=0))
    two = gradients_of_the_own_predictor(pair, moved)
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(one, two, strict=True))
