"""Whether there is something to learn; the numbers are made up, the decision is arithmetic."""

from __future__ import annotations

import pytest

from yolo_kd.engine.preflight import decide


def maps(teacher50, teacher, student=None):
    found = {"teacher": {"mAP50": teacher50, "mAP50-95": teacher}}
    return found if student is None else {**found, "student": {"mAP50": student, "mAP50-95": student}}


def test_a_teacher_above_the_floor_may_teach():
    assert decide(maps(0.05, 0.02), 0.05) is None
    assert decide(maps(0.5, 0.31, student=0.30), 0.05) is None


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (maps(0.0499, 0.02), "below teacher_floor=0.05"),
        (maps(0.5, 0.30, student=0.30), "nothing to learn"),
        (maps(0.5, 0.20, student=0.30), "starts at 0.3000"),
    ],
)
def test_others_may_not(found, said):
    assert said in decide(found, 0.05)


@pytest.mark.slow
def test_a_coco_teacher_is_measured_on_the_shared_classes_by_name(train, make_checkpoint):
    """The same weights under permuted names and columns are the same teacher."""
    import torch

    from yolo_kd import DistillationTrainer
    from yolo_kd.engine import ultra
    from yolo_kd.engine.classes import match
    from yolo_kd.engine.evaluation import evaluate
    from yolo_kd.engine.teacher import Teacher

    found = []

    class Probe(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            teacher = Teacher(str(make_checkpoint("yolov8s.yaml", seed=1)), torch.device("cpu"))
            names = dict(self.data["names"])
            truth = self.test_loader.dataset.labels
            assert sum(len(t["cls"]) for t in truth) == 12

            def perfect(img):
                """Outputs that decode to the labels, class by class in the teacher's own order."""
                return teacher(img)

            order = [2, 0, 1]
            renamed = {i: names[j] for i, j in enumerate(order)}

            def permuted(img):
                output = teacher(img)
                branch = output.branch("one2many")
                scores = branch.scores[:, order]
                return type(output)(output.feats, {"one2many": type(branch)(branch.boxes, scores)})

            for predict, own in ((perfect, names), (permuted, renamed)):
                found.append(evaluate(self, predict, teacher.full_spec, match(names, own), "probe"))
            head = ultra.head_spec(self.model)
            assert head.nc == 3

    train(Probe, distill="none")
    assert found[0] == found[1]
