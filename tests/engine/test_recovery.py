"""What Ultralytics does when a run goes wrong, or runs against the clock, with a teacher beside it."""

from __future__ import annotations

import csv
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from ultralytics.engine import trainer as ultralytics_trainer
from yolo_kd.deploy.machine import has_bf16

from yolo_kd import DistillationTrainer
from yolo_kd.engine.resume import load_sidecar, sidecar_path

FAST = {"distill": "pkd", "force": True, "teacher_engine": "torch"}


@pytest.fixture
def teacher(make_checkpoint) -> str:
    return str(make_checkpoint(seed=1))


def test_not_a_number_goes_back_to_the_last_checkpoint_with_its_adapters(train, teacher):
    seen: dict = {}

    class Poisoned(DistillationTrainer):
        def _handle_nan_recovery(self, epoch):
            if epoch == 1 and "kept" not in seen:
                seen["kept"] = load_sidecar(sidecar_path(self.last))["distillers"]["pkd"]
                self.loss = torch.tensor(float("nan"))
                with torch.no_grad():
                    for adapter in self._adapters():
                        adapter.fill_(7.0)
                recovered = super()._handle_nan_recovery(epoch)
                seen["back"] = {k: v.clone() for k, v in self.distillation.methods[0].distiller.state_dict().items()}
                return recovered
            return super()._handle_nan_recovery(epoch)

    trainer = train(Poisoned, teacher=teacher, epochs=3, **FAST)
    assert seen["kept"].keys() == seen["back"].keys() and len(seen["kept"]) > 0
    assert all(torch.equal(seen["back"][k], v) for k, v in seen["kept"].items())
    with (trainer.save_dir / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["epoch"] for r in rows] == ["1", "2", "3"]
    assert all(float(r["train/pkd_loss"]) > 0 for r in rows)


def test_not_a_number_goes_back_off_the_integer_grid(train, make_checkpoint, tiny):
    """Ultralytics then copies the student for a new EMA, which must not take along the hooks that round."""
    seen: list[tuple[bool, int]] = []

    class Poisoned(DistillationTrainer):
        def _handle_nan_recovery(self, epoch):
            if epoch == 1 and not any(recovered for recovered, _ in seen):
                self.loss = torch.tensor(float("nan"))
            recovered = super()._handle_nan_recovery(epoch)
            layers = (*self.model.modules(), *self.ema.ema.modules())
            seen.append((recovered, sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in layers)))
            return recovered

    keys = {"qat": True, "distill": "none", "val": True, "epochs": 3, "optimizer": "AdamW", "lr0": 0.0005}
    trainer = train(Poisoned, model=str(make_checkpoint(str(tiny))), **keys)
    assert seen == [(False, 0), (True, 0), (False, 0), (False, 0)]
    assert trainer.quantization.seen[0] > 0 and b"yolo_kd" not in trainer.last.read_bytes()


NO_BF16 = pytest.mark.skipif(not has_bf16(), reason="this CPU has no bf16")


@pytest.mark.parametrize("engine", ["torch", pytest.param("openvino-bf16", marks=NO_BF16)])
def test_out_of_memory_goes_on_with_half_the_batch_and_the_teacher(train, teacher, engine):
    sizes: list[int] = []

    class Small(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            whole = self.criterion.teacher.engine

            def engine(img):
                sizes.append(len(img))
                if len(img) > 2:
                    raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB")
                return whole(img)

            self.criterion.teacher.engine = engine

    keys = {**FAST, "teacher_engine": engine, "max_feature_error": 9, "max_score_error": 9}
    trainer = train(Small, teacher=teacher, **keys)
    assert sizes == [4, 2, 2, 2, 2] and trainer.batch_size == 2
    assert float(trainer.loss_items["pkd_loss"]) > 0


def test_against_the_clock_the_schedule_follows_the_estimated_epochs(train, teacher, monkeypatch):
    """time=: Ultralytics estimates the number of epochs anew after each; a second passes at each look at the clock."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(ultralytics_trainer, "time", SimpleNamespace(time=lambda: float(next(ticks)), sleep=None))
    factors: list[tuple[int, int, float]] = []

    class Watched(DistillationTrainer):
        def optimizer_step(self):
            factors.append((self.epoch, self.epochs, self.criterion.factor))
            super().optimizer_step()

    trainer = train(Watched, teacher=teacher, epochs=100, time=30 / 3600, until=0.5, **FAST)
    assert 3 <= trainer.epoch < 20
    for epoch, epochs, factor in factors:
        assert factor == (1.0 if epoch / epochs < 0.5 else 0.0), (epoch, epochs)
    assert {f for *_, f in factors} == {0.0, 1.0}


def test_stock_ultralytics_resumes_our_last_checkpoint(train, teacher):
    """The student that leaves us is plain, also half-way: without yolo_kd its run goes on as an undistilled one."""

    class Stopped(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            self.add_callback("on_model_save", lambda t: setattr(t, "stop", t.epoch == 1))

        def final_eval(self):
            pass

    first = train(Stopped, teacher=teacher, epochs=3, **FAST)
    code = (
        "import sys; sys.modules['yolo_kd'] = None\n"
        "from ultralytics import YOLO\n"
        f"model = YOLO({str(first.last)!r}); model.train(resume=True)\n"
        "t = model.trainer; print('ENDED', t.start_epoch, t.epoch, len(t.optimizer.param_groups))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    groups = len(first.optimizer.param_groups) - 1
    assert f"ENDED 2 2 {groups}" in done.stdout


@pytest.mark.parametrize("part", ["weight", "moment", "gradient"])
def test_save_steps_leave_the_checkpoint_from_before_something_was_not_finite(train, part):
    """4 batches, a step after every second one; before the last of the second epoch something is spoilt.

    A moment or gradient spoils the last step's weights, after a loss that is still finite.
    """
    recovered: list[bool] = []

    class Spoilt(DistillationTrainer):
        def _setup_train(self):
            self.add_callback("on_train_batch_end", Spoilt._spoil)  # before it is saved
            super()._setup_train()

        def _spoil(self):
            if self.epoch == 1 and self.batches_done == 2 and not recovered[1:]:
                weight = next(iter(self.model.parameters()))
                moment = self.optimizer.state[weight]["momentum_buffer"]
                {"weight": weight.data, "moment": moment, "gradient": weight.grad}[part].fill_(float("nan"))

        def _handle_nan_recovery(self, epoch):
            if epoch == 1 and not recovered[1:]:
                state = load_sidecar(sidecar_path(self.last))
                assert (state["epoch"], state["position"]) == (0, 2)
                assert all(v.isfinite().all() for v in state["model"].values())
            recovered.append(super()._handle_nan_recovery(epoch))
            return recovered[-1]

    trainer = train(Spoilt, distill="none", check_data=False, batch=2, nbs=4, epochs=3, save_steps=1)
    assert recovered == [False, True, False, False]
    assert all(v.isfinite().all() for v in trainer.ema.ema.state_dict().values())


def test_an_epoch_that_is_resumed_goes_back_as_one_that_nothing_stopped(train):
    """Ultralytics has nothing to go back to in a process's first epoch; a resumed one has the checkpoint it came from."""
    keys = {"distill": "none", "check_data": False, "epochs": 3}

    class Poisoned(DistillationTrainer):
        recovered: tuple[bool, ...] = ()

        def _handle_nan_recovery(self, epoch):
            if epoch == 1 and True not in self.recovered:
                self.loss = torch.tensor(float("nan"))
            self.recovered += (super()._handle_nan_recovery(epoch),)
            return self.recovered[-1]

    class Killed(Poisoned):
        def _save(self, within_epoch):
            super()._save(within_epoch)
            raise KeyboardInterrupt

    whole = train(Poisoned, name="whole", **keys)
    assert whole.recovered == (False, True, False, False)
    with pytest.raises(KeyboardInterrupt):
        train(Killed, name="killed", **keys)
    again = train(Poisoned, model=str(whole.save_dir.with_name("killed") / "weights/last.pt"), resume=True)
    assert again.recovered == (True, False, False)
    longer = train(Poisoned, model=str(whole.last), resume=str(whole.last), epochs=4)
    assert longer.recovered == (False,), "of a run that is over there is only its stripped checkpoint"
    ended = again.ema.ema.state_dict()
    assert all(torch.equal(ended[k], v) for k, v in whole.ema.ema.state_dict().items())
