"""A stopped run that goes on otherwise than it began: for longer, in another place, under another teacher."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from yolo_kd.deploy.artifact import sha256

from tests.bomb import Bomb
from tests.engine.stopping import FAST, PLAIN, stop, stopped
from yolo_kd import DistillationTrainer, distill
from yolo_kd.engine import resume
from yolo_kd.engine.resume import load_sidecar, sidecar_path
from yolo_kd.errors import GateError, MisuseError


class TestLonger:
    def test_more_epochs_change_the_schedule_and_say_so(self, train, lines):
        last = stop(train, 1, epochs=2, **PLAIN)
        with pytest.raises(MisuseError, match=r"epochs=1: the resumed run has 2; it may be raised"):
            train(model=str(last), resume=True, epochs=1)
        trainer = train(model=str(last), resume=True, epochs=4)
        assert trainer.epoch == 3 and any("epochs 2 -> 4: the schedule changes" in line for line in lines)
        assert trainer.scheduler.get_last_lr()[0] == pytest.approx(0.01 * (0.25 * 0.99 + 0.01))
        assert torch.load(trainer.last, weights_only=False)["train_args"]["epochs"] == 4

    def test_a_run_that_is_over_goes_on_from_its_float32_weights(self, train, tmp_path):
        first = train(epochs=2, **PLAIN)
        with pytest.raises(MisuseError, match=r"this run is over after 2 of 2 epochs; to train longer raise epochs="):
            distill(resume=first.last)
        plain = Path(shutil.copytree(first.save_dir, tmp_path / "plain")) / "weights/last.pt"
        plain.with_name("last.kd.pt").unlink()
        for keys in ({}, {"epochs": 3}):  # Ultralytics' own refusal is an AssertionError, and names no epochs=
            with pytest.raises(
                MisuseError, match=r"this run is over, .* needs the last\.kd\.pt .* use student="
            ) as refusal:
                distill(resume=plain, **keys)
            assert str(plain) in str(refusal.value)
        start: dict[str, Any] = {}

        class Resumed(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                start.update({k: v.clone() for k, v in self.ema.ema.state_dict().items()})

        again = train(Resumed, model=str(first.last), resume=str(first.last), epochs=3)
        assert again.epoch == 2
        assert all(torch.equal(start[k], v) for k, v in first.ema.ema.state_dict().items())

    @pytest.mark.parametrize(
        "schedule", [{"until": 0.5}, {"schedule": "mosaic", "close_mosaic": 1}], ids=["until", "mosaic"]
    )
    def test_distillation_that_was_off_within_an_epoch_is_on_again(self, train, make_checkpoint, schedule):
        """4 batches an epoch, killed after the second of epoch 2 of 2, where nothing was distilled any more."""
        keys = {"teacher": str(make_checkpoint(seed=1)), "batch": 2, "epochs": 2, "save_steps": 2, **schedule, **FAST}
        last = stop(train, 3, **keys)
        state = resume.load_sidecar(resume.sidecar_path(last))
        assert (state["position"], state["criterion"]["factor"]) == (2, 0.0)
        twice = Path(shutil.copytree(last.parents[1], last.parents[2] / "twice")) / "weights/last.pt"
        seen: list[tuple[int, int, float]] = []
        orders: list[list[int]] = []

        class Resumed(DistillationTrainer):
            def preprocess_batch(self, batch):
                seen.append((self.epoch, self.batches_done, self.criterion.factor))
                orders.append([Path(file).name for file in batch["im_file"]])
                return super().preprocess_batch(batch)

        train(Resumed, model=str(last), resume=True, epochs=6, batch=2)
        assert seen[:6] == [(1, 2, 1.0), (1, 3, 1.0), (2, 0, 1.0), (2, 1, 1.0), (2, 2, 1.0), (2, 3, 1.0)]
        assert len({name for batch in orders[2:6] for name in batch}) == 8, "an epoch shows each picture once"
        whole = orders[:]
        orders.clear()

        class Again(Resumed, stopped(1)):
            """Ends once more, with the epoch that it went on within."""

        with pytest.raises(KeyboardInterrupt):
            train(Again, model=str(twice), resume=str(twice), epochs=6, batch=2)
        train(Resumed, model=str(twice), resume=str(twice), batch=2)
        assert orders == whole

    def test_patience_counts_anew(self, train, lines):
        class Flat(DistillationTrainer):
            def validate(self):
                self.best_fitness = 0.5
                return dict(self.metrics), 0.5

        first = train(Flat, epochs=9, patience=2, val=True, **PLAIN)
        assert first.epoch == 2, "the first was the best, and two did not improve on it"
        again = train(Flat, model=str(first.last), resume=str(first.last), epochs=10)
        assert again.epoch == 4 and any(line.endswith("; patience= counts anew") for line in lines)


class TestFolder:
    """What a run folder from elsewhere, may not do, and from where its run goes on."""

    def test_its_trust_is_not_ours(self, train, make_checkpoint, tmp_path):
        """The settings of a foreign run name its teacher, and say that it may be trusted."""
        teacher = Path(shutil.copy(make_checkpoint(seed=1), tmp_path / "teacher.pt"))
        last = stop(train, 1, teacher=str(teacher), epochs=2, trust=True, **FAST)
        settings = last.parents[1] / "kd.yaml"
        assert yaml.safe_load(settings.read_text())["trust"] is True
        ran = tmp_path / "ran"
        torch.save({"model": Bomb(ran)}, teacher)
        with pytest.raises(MisuseError, match=rf"teacher={teacher}: .*its own code; .* add trust=true"):
            distill(resume=last)
        assert not ran.exists()
        with pytest.raises(MisuseError, match=rf"teacher={teacher}: not a readable checkpoint"):  # and no traceback
            distill(resume=last, trust=True)
        assert ran.exists(), "else the bomb is none"

    def test_is_resumed_from_anywhere(self, train, pictures, monkeypatch, tmp_path):
        shutil.copytree(pictures.parent, tmp_path / "data")
        monkeypatch.chdir(tmp_path / "data")
        last = stop(train, 1, data=pictures.name, epochs=2, **PLAIN)
        monkeypatch.chdir("/")
        distill(resume=last)
        (tmp_path / "data").rename(tmp_path / "moved")
        last = stop(train, 1, data=str(tmp_path / "moved" / pictures.name), epochs=2, **PLAIN)
        (tmp_path / "moved").rename(tmp_path / "data")
        with pytest.raises(MisuseError, match=rf"resume={last}: the data of that run are not there .*data=/new/place"):
            distill(resume=last)
        (tmp_path / "moved").mkdir()
        (tmp_path / "moved" / pictures.name).write_text("names: [car]\n")
        with pytest.raises(MisuseError, match=rf"resume={last}: the data of that run are not what they were"):
            distill(resume=last)
        distill(resume=last, data=tmp_path / "data" / pictures.name)


class TestTeacher:
    def test_that_was_moved_or_changed(self, train, make_checkpoint, tmp_path, lines):
        teacher = Path(shutil.copy(make_checkpoint(seed=1), tmp_path / "teacher.pt"))
        last = stop(train, 1, teacher=str(teacher), epochs=2, **FAST)
        settings = last.parents[1] / "args.yaml"
        before = settings.read_bytes()
        moved = teacher.rename(tmp_path / "moved.pt")
        with pytest.raises(MisuseError, match=rf"teacher={teacher}: this is the teacher of the resumed run"):
            distill(resume=last, batch=2)
        shutil.copy(make_checkpoint(seed=2), teacher)
        with pytest.raises(GateError, match=rf"teacher={teacher}: not the checkpoint .* expected {sha256(moved)[:12]}"):
            distill(resume=last, epochs=4)
        assert settings.read_bytes() == before, "settings of what never ran"
        distill(resume=last, teacher=moved, epochs=3, batch=2)
        assert not any("another teacher" in line for line in lines)
        assert {"epochs": 3, "batch": 2}.items() <= yaml.safe_load(settings.read_text()).items()

    def test_another_one_is_taken_when_it_is_named(self, train, make_checkpoint, lines):
        last = stop(train, 1, teacher=str(make_checkpoint(seed=1)), epochs=2, **FAST)
        with pytest.raises(MisuseError, match="other sizes than those of the run's teacher"):
            distill(resume=last, teacher=make_checkpoint("yolov8s.yaml", seed=1))
        distill(resume=last, teacher=make_checkpoint(seed=2))
        assert "WARNING another teacher than before: this is no longer the run that was stopped" in lines

    def test_another_one_is_fitted_to_anew_also_when_the_run_goes_back(self, train, make_checkpoint, lines):
        """The teacher's quality predictor is the teacher's; the student's own, beside it, has learnt from the student."""
        one, two = (str(make_checkpoint(seed=seed)) for seed in (1, 2))
        keys = {"distill": "lqe", "lqe.student_predictor": "own", "force": True, "teacher_engine": "torch"}
        seen: dict[str, dict[str, torch.Tensor]] = {}

        def state(trainer, part):
            found = trainer.distillation.methods[0].distiller.state_dict()
            return {k: v.clone() for k, v in found.items() if k.startswith(f"{part}.")}

        class Fitted(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                seen["wanted"] = state(self, "predictor")

        class Poisoned(DistillationTrainer):
            recovered: tuple[bool, ...] = ()

            def _setup_train(self):
                super()._setup_train()
                seen["fitted"], seen["own"] = state(self, "predictor"), state(self, "own")

            def _handle_nan_recovery(self, epoch):
                if not self.recovered:
                    self.loss = torch.tensor(float("nan"))
                self.recovered += (super()._handle_nan_recovery(epoch),)
                if len(self.recovered) == 1:
                    seen["fitted back"], seen["own back"] = state(self, "predictor"), state(self, "own")
                return self.recovered[-1]

        train(Fitted, teacher=two, name="fresh", **keys)
        last = stop(train, 1, teacher=one, epochs=2, **keys)
        left = load_sidecar(sidecar_path(last))["distillers"]["lqe"]
        trainer = train(Poisoned, model=str(last), resume=True, teacher=two)
        assert trainer.recovered == (True, False) and trainer.epoch == 1
        assert "WARNING another teacher than before: this is no longer the run that was stopped" in lines
        for name, value in seen["wanted"].items():
            assert not torch.equal(left[name], value), "both teachers have the same"
            assert torch.equal(seen["fitted"][name], value) and torch.equal(seen["fitted back"][name], value), name
        assert seen["own"].keys() == seen["own back"].keys() and seen["own"]
        for name, value in seen["own"].items():
            assert torch.equal(left[name], value) and torch.equal(seen["own back"][name], value), name
