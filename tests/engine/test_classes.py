"""Classes are matched by name."""

from __future__ import annotations

import json

import pytest

from yolo_kd.engine.classes import compare, describe, match, require_shared
from yolo_kd.errors import MisuseError


@pytest.mark.parametrize(
    ("student", "teacher", "pairs"),
    [
        (["a", "b"], ["a", "b"], [(0, 0), (1, 1)]),  # identical
        (["b"], ["a", "b", "c"], [(0, 1)]),  # subset
        (["a", "b"], ["b", "a"], [(0, 1), (1, 0)]),  # reordered
        (["a"], ["b", "a", "A "], [(0, 1)]),  # twice the teacher's: its first
        (["a", "x"], ["y", "a"], [(0, 1)]),  # partly
        (["Traffic_Light"], ["traffic light"], [(0, 0)]),  # spelt otherwise
        (["a"], ["b"], []),
    ],
)
def test_pairs(student, teacher, pairs):
    found = match(dict(enumerate(student)), dict(enumerate(teacher)))
    assert list(zip(found.student.tolist(), found.teacher.tolist())) == pairs


def test_line_lists_what_is_and_is_not_shared():
    student, teacher = {0: "car", 1: "drone"}, {0: "boat", 1: "car"}
    line = describe(student, teacher, match(student, teacher))
    assert line == (
        "classes: 1 shared (car); 1 only the student's, learnt from labels (drone); 1 only the teacher's, ignored (boat)"
    )


def test_the_80_names_of_coco_are_listed_and_endless_lists_are_cut():
    coco, lvis = ({i: f"name{i}" for i in range(n)} for n in (80, 1203))
    line = describe(coco, coco, match(coco, coco))
    assert line == f"classes: 80 shared ({', '.join(coco.values())})"
    line = describe(coco, lvis, match(coco, lvis))
    assert line.endswith("name179, ... 1023 more)") and "80 shared (name0, " in line
    assert compare(coco, lvis, match(coco, lvis)) == {
        "shared": list(coco.values()), "student": [], "teacher": list(lvis.values())[80:],
    }  # fmt: skip


def test_nothing_shared_says_what_to_do():
    student, teacher = {0: "cell"}, {0: "car"}
    with pytest.raises(
        MisuseError, match=r"teacher=x\.pt: none of .*rename them in data.yaml, or fine-tune the teacher"
    ):
        require_shared(student, teacher, match(student, teacher), "x.pt")


@pytest.mark.slow
@pytest.mark.parametrize("names", [("person", "car", "truck"), ("truck",), ("bus", "car"), ("Car", "TRUCK", "person")])
def test_training_works_on_the_shared_classes(train, make_checkpoint, names):
    trainer = train(teacher=str(make_checkpoint(names=names, seed=1)), distill="pcd", force=True)
    assert trainer.distillation.shared.shared == len({n.lower() for n in names} & {"car", "truck", "person"})
    assert float(trainer.loss_items["kdcls_loss"]) > 0
    report = json.loads((trainer.save_dir / "preflight.json").read_text())
    listed = {kind: {n.lower() for n in found} for kind, found in report["classes"].items()}
    ours, theirs = {"car", "truck", "person"}, {n.lower() for n in names}
    assert listed == {"shared": ours & theirs, "student": ours - theirs, "teacher": theirs - ours}


def test_training_without_a_shared_class_is_refused(train, make_checkpoint):
    with pytest.raises(MisuseError, match="none of its classes"):
        train(teacher=str(make_checkpoint(names=("cat", "dog"), seed=1)), distill="pkd", force=True)
