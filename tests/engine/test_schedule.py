"""Gains over the run."""

from __future__ import annotations

import pytest

from yolo_kd.engine.schedule import Schedule
from yolo_kd.errors import MisuseError


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


def test_teacher_is_asked_on_every_kth_step_but_more_than_once_an_epoch(train, make_checkpoint):
    from yolo_kd import DistillationTrainer

    calls: list[int] = []

    class Spy(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            teacher = self.distillation.teacher
            engine = teacher.engine
            teacher.use("spy", lambda img: (calls.append(self.criterion.step), engine(img))[1])

    keys = {"teacher": str(make_checkpoint(seed=1)), "distill": "pkd", "force": True}
    train(Spy, batch=2, nbs=2, epochs=2, teacher_every=3, **keys)  # 4 batches an epoch
    assert calls == [0, 3, 6]
    calls.clear()
    for every, batch in ((4, 2), (9, 2), (2, 4)):
        wanted = (
            rf"teacher_every={every}: .* at most of an epoch's {8 // batch}; use teacher_every={8 // batch - 1} or less"
        )
        with pytest.raises(MisuseError, match=wanted):
            train(Spy, batch=batch, epochs=2, teacher_every=every, **keys)
    assert not calls
    train(Spy, batch=8, teacher_every=1, **keys)  # one batch an epoch
    assert calls == [0]
