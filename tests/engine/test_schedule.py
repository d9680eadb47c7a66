"""Gains over the run."""

from __future__ import annotations

import pytest

from yolo_kd.engine.schedule import Schedule


@pytest.mark.parametrize(
    ("kind", "until", "progress", "closed", "factor"),
    [
        ("constant", 1.0, 0.99, True, 1.0),
        ("constant", 0.5, 0.49, False, 1.0),
        ("constant", 0.5, 0.5, False, 0.0),
        ("linear", 1.0, 0.25, False, 0.75),
        ("linear", 0.5, 0.25, False, 0.5),
        ("cosine", 1.0, 0.0, False, 1.0),
        ("cosine", 1.0, 0.5, False, 0.5),
        ("mosaic", 1.0, 0.9, False, 1.0),
        ("mosaic", 1.0, 0.9, True, 0.0),
    ],
)
def test_factor(kind, until, progress, closed, factor):
    assert Schedule(kind, until).factor(progress, closed) == pytest.approx(factor)


@pytest.mark.parametrize("keys", [{"until": 0.5}, {"schedule": "mosaic", "close_mosaic": 2}])
def test_teacher_does_not_run_once_it_is_off(train, make_checkpoint, keys):
    from yolo_kd import DistillationTrainer

    calls: list[int] = []

    class Spy(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            teacher = self.distillation.teacher
            engine = teacher.engine
            teacher.use("spy", lambda img: (calls.append(self.epoch), engine(img))[1])

    trainer = train(Spy, teacher=str(make_checkpoint(seed=1)), distill="pkd", force=True, epochs=4, **keys)
    assert calls == [0, 0, 1, 1]
    rows = trainer.csv.read_text().splitlines()
    column = rows[0].split(",").index("train/pkd_loss")
    assert [float(r.split(",")[column]) > 0 for r in rows[1:]] == [True, True, False, False]


def test_teacher_every_second_step(train, make_checkpoint):
    from yolo_kd import DistillationTrainer

    calls: list[int] = []

    class Spy(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            teacher = self.distillation.teacher
            engine = teacher.engine
            teacher.use("spy", lambda img: (calls.append(self.criterion.step), engine(img))[1])

    train(Spy, teacher=str(make_checkpoint(seed=1)), distill="pkd", force=True, epochs=2, teacher_every=2)
    assert calls == [0, 2]
