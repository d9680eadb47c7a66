"""The invariants of the engine; each of these tests fails when its invariant is broken."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import NUM_THREADS

from tests.conftest import TINY
from yolo_kd import DistillationTrainer
from yolo_kd.engine import trainer as trainer_module
from yolo_kd.engine import ultra
from yolo_kd.engine.resumable import ResumableTrainer
from yolo_kd.errors import GateError

STRICT = {"amp": False, "channels_last": False}
PKD = {"distill": "pkd", "force": True, "teacher_engine": "torch"}
MIXED = {"close_mosaic": 0, "mixup": 0.3, "epochs": 2}  # pictures joined with others from a buffer


def weights(trainer) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in ultra.unwrap_model(trainer.model).state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def digest(module: torch.nn.Module) -> str:
    h = hashlib.sha256()
    for key, value in module.state_dict().items():
        h.update(key.encode() + value.detach().float().numpy().tobytes())
    return h.hexdigest()


@pytest.fixture
def distilled(train, make_checkpoint):
    return train(model="yolov8n.yaml", teacher=str(make_checkpoint("yolov8s.yaml", seed=1)), **PKD)


class TestStudentIsPlain:
    def test_model_is_the_stock_model(self, distilled):
        stock = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
        model = ultra.unwrap_model(distilled.model)
        assert type(model) is DetectionModel
        assert {k: v.shape for k, v in model.state_dict().items()} == {
            k: v.shape for k, v in stock.state_dict().items()
        }
        hooks = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
        assert hooks == []

    def test_best_checkpoint_needs_no_yolo_kd(self, distilled, tmp_path):
        code = f"""
import sys
class Block:
    def find_spec(self, name, *a):
        if name.split('.')[0] == 'yolo_kd':
            raise ImportError('yolo_kd is blocked')
sys.meta_path.insert(0, Block())
import numpy as np
from ultralytics import YOLO
model = YOLO({str(distilled.best)!r})
assert type(model.model).__name__ == 'DetectionModel'
model.predict(np.zeros((64, 64, 3), np.uint8), imgsz=64, verbose=False)
print(model.export(format='torchscript', imgsz=64, verbose=False))
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_flops
student, stock = YOLO({str(distilled.best)!r}).model, DetectionModel('yolov8n.yaml', nc=3, verbose=False)
assert sum(p.numel() for p in student.parameters()) == sum(p.numel() for p in stock.parameters())
assert get_flops(student, 64) == get_flops(stock, 64) > 0, (get_flops(student, 64), get_flops(stock, 64))
assert not any(m.split('.')[0] == 'yolo_kd' for m in sys.modules)
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]

    def test_train_args_hold_no_key_of_ours(self, distilled):
        ckpt = torch.load(distilled.last, weights_only=False)
        assert set(ckpt["train_args"]) <= set(ultra.train_keys()) | {"save_dir", "augmentations"}


class TestCriterionIsInvisible:
    def test_copies_and_state_do_not_carry_it(self, distilled):
        model = ultra.unwrap_model(distilled.model)
        assert type(model.criterion).__name__ == "DistillationCriterion"
        assert deepcopy(model).criterion is None
        assert not any("criterion" in k or "adapter" in k or "teacher" in k for k in model.state_dict())
        assert type(distilled.ema.ema.criterion).__name__ in {"v8DetectionLoss", "NoneType"}

    def test_pickled_model_carries_nothing(self, distilled, tmp_path):
        torch.save(ultra.unwrap_model(distilled.model), tmp_path / "m.pt")
        assert b"yolo_kd" not in (tmp_path / "m.pt").read_bytes()
        assert b"yolo_kd" not in distilled.last.read_bytes()
        assert b"yolo_kd" not in distilled.best.read_bytes()

    def test_optimizer_in_checkpoint_has_the_stock_groups(self, train, make_checkpoint, monkeypatch):
        monkeypatch.setattr(DistillationTrainer, "final_eval", lambda self: None)  # which strips the optimizer
        trainer = train(teacher=str(make_checkpoint(seed=1)), **PKD)
        saved = torch.load(trainer.last, weights_only=False)["optimizer"]
        assert len(saved["param_groups"]) == 3
        assert len(trainer.optimizer.param_groups) == 4


class TestTeacher:
    def test_sees_the_same_pixels_also_with_multi_scale(self, train, make_checkpoint):
        seen: dict[str, list] = {"student": [], "teacher": []}

        class Spy(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                teacher = self.distillation.teacher
                engine = teacher.engine
                teacher.use("spy", lambda img: (seen["teacher"].append(img), engine(img))[1])
                model = ultra.unwrap_model(self.model)
                model.model[0].register_forward_pre_hook(
                    lambda m, x: seen["student"].append(x[0]) if m.training else None
                )

        train(Spy, teacher=str(make_checkpoint(seed=1)), multi_scale=0.5, epochs=2, **PKD)
        assert len(seen["teacher"]) == 4
        assert len({tuple(t.shape) for t in seen["teacher"]}) > 1, "multi-scale changed nothing, so this shows nothing"
        for student, teacher in zip(seen["student"], seen["teacher"], strict=True):
            assert student.data_ptr() == teacher.data_ptr() or torch.equal(student, teacher)

    def test_is_frozen(self, train, make_checkpoint):
        before: list[str] = []

        class Spy(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                before.append(digest(self.distillation.teacher.engine.net))

        path = make_checkpoint(seed=1)
        file_before = hashlib.sha256(path.read_bytes()).hexdigest()
        trainer = train(Spy, teacher=str(path), **PKD)
        net = trainer.distillation.teacher.engine.net
        assert isinstance(net, type(trainer.distillation.teacher.net)), "this is to look at the net that runs"
        assert digest(net) == before[0]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == file_before
        assert not any(p.requires_grad for p in net.parameters()) and not any(m.training for m in net.modules())
        assert not net.train().training and not any(m.training for m in net.modules())


class TestOffMeansOff:
    @pytest.mark.parametrize(("head", "theirs"), [("Detect", MIXED), ("v10Detect", {})], ids=["mixed", "dual"])
    def test_none_is_stock(self, train, tmp_path, head, theirs):
        """Of two branches the weights in the loss shift from epoch to epoch."""
        path = tmp_path / "student.yaml"
        path.write_text(yaml.safe_dump({"nc": 3, **TINY, "head": [[[3, 4, 5], 1, head, ["nc"]]]}))
        keys = {"model": str(path), **STRICT, **theirs, "epochs": 3}
        stock = weights(train(DetectionTrainer, **keys))
        ours = weights(train(distill="none", cpu_threads=NUM_THREADS, **keys))
        assert same(stock, ours)

    @pytest.mark.parametrize(
        ("theirs", "keys"),
        [
            *(({"optimizer": name}, {"distill": "pkd", "pkd.pkd": 0}) for name in ("SGD", "AdamW", "MuSGD")),
            ({}, {"distill": "mar", "mar.mask": 0, "mar.relation": 0}),  # hooks the student's towers
            (MIXED, {"distill": "pkd", "pkd.pkd": 0}),
        ],
        ids=["SGD", "AdamW", "MuSGD", "mar", "mixed"],
    )
    def test_gain_zero_is_none(self, train, make_checkpoint, theirs, keys):
        none = weights(train(distill="none", **theirs))
        zero = train(teacher=str(make_checkpoint(seed=1)), **{**PKD, **keys}, **theirs)
        assert all(float(zero.loss_items[column]) > 0 for column in zero.criterion.last), "nothing was measured"
        assert same(none, weights(zero))

    def test_a_gain_above_zero_is_not(self, train, make_checkpoint):
        none = weights(train(distill="none"))
        some = weights(train(teacher=str(make_checkpoint(seed=1)), **PKD))
        assert not same(none, some)


class TestDeterminism:
    def test_same_seed_same_weights(self, train, make_checkpoint):
        keys = {"teacher": str(make_checkpoint(seed=1)), **PKD}
        assert same(weights(train(**keys)), weights(train(**keys)))


class TestTermsAreReal:
    def test_dead_term_is_refused(self, train, make_checkpoint):
        class Dead(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                distiller = self.distillation.methods[0].distiller
                distiller.forward = lambda s, t, y: {"pkd": s.feats[0].sum() * 0}

        with pytest.raises(
            GateError, match=r"pkd\.pkd=0 on the first batch.* Leave it out with pkd\.pkd=none, or use force=true"
        ):
            train(
                Dead,
                teacher=str(make_checkpoint(seed=1)),
                **{**PKD, "teacher_floor": 0.0, "force": False},
            )

    def test_detached_term_is_refused(self, train, make_checkpoint):
        class Detached(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                distiller = self.distillation.methods[0].distiller
                weight = next(distiller.parameters())
                distiller.forward = lambda s, t, y: {"pkd": weight.square().sum()}

        with pytest.raises(
            GateError, match=r"does not reach the student's neck.* Leave it out with pkd\.pkd=none, or use"
        ):
            train(
                Detached,
                teacher=str(make_checkpoint(seed=1)),
                **{**PKD, "teacher_floor": 0.0, "force": False},
            )

    def test_forced_past_a_dead_term_is_said(self, train, make_checkpoint, monkeypatch):
        lines: list[str] = []
        monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))

        class Dead(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                distiller = self.distillation.methods[0].distiller
                distiller.forward = lambda s, t, y: {"pkd": s.feats[0].sum() * 0}

        train(Dead, teacher=str(make_checkpoint(seed=1)), **PKD)
        told = [line for line in lines if line.startswith("WARNING forced: ")]
        assert sum("pkd.pkd=0 on the first batch" in line for line in told) == 1
        assert sum("pkd.pkd: its gradient does not reach the student's neck" in line for line in told) == 1

    def test_terms_are_float32_and_outside_autocast(self, train, make_checkpoint):
        seen: list = []

        class Spy(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                distiller = self.distillation.methods[0].distiller
                forward = distiller.forward

                def spy(student, teacher, targets):
                    tensors = [*student.feats, *teacher.feats, *(b.scores for b in student.branches.values())]
                    seen.append(({t.dtype for t in tensors}, torch.is_autocast_enabled("cpu")))
                    return forward(student, teacher, targets)

                distiller.forward = spy

        train(Spy, teacher=str(make_checkpoint(seed=1)), amp="bf16", **PKD)
        assert seen and all(dtypes == {torch.float32} and not on for dtypes, on in seen)


class TestAdapters:
    @pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
    def test_are_the_last_group_and_learn(self, train, make_checkpoint, optimizer):
        start: list[list[torch.Tensor]] = []

        class Spy(DistillationTrainer):
            def _setup_train(self):
                super()._setup_train()
                start.append([p.detach().clone() for p in self._adapters()])

        trainer = train(Spy, teacher=str(make_checkpoint(seed=1)), optimizer=optimizer, **PKD)
        group = trainer.optimizer.param_groups[-1]
        weights = next(g for g in trainer.optimizer.param_groups if g["param_group"] == "weight")
        assert group["param_group"] == "adapter" and group["initial_lr"] == pytest.approx(0.01)
        for key in {"momentum", "nesterov", "betas", "weight_decay", "use_muon"} & set(weights):
            assert group[key] == weights[key], key
        assert all(a is b for a, b in zip(group["params"], trainer._adapters()))
        assert all(not torch.equal(a, b) for a, b in zip(start[0], trainer._adapters()))

    def test_are_warmed_up_and_scheduled_like_the_others(self, train, make_checkpoint):
        rates: list[tuple[float, float]] = []

        class Spy(DistillationTrainer):
            def optimizer_step(self):
                groups = self.optimizer.param_groups
                weight = next(g for g in groups if g["param_group"] == "weight")
                rates.append((weight["lr"], groups[-1]["lr"]))
                super().optimizer_step()

        train(Spy, teacher=str(make_checkpoint(seed=1)), epochs=3, warmup_epochs=1, **PKD)
        assert len({a for a, _ in rates}) > 3
        assert all(a == pytest.approx(b) for a, b in rates)

    def test_gradients_are_averaged_and_then_clipped_by_a_norm_of_their_own(self, train, make_checkpoint, monkeypatch):
        seen: list[dict[str, float]] = []

        def average(parameters) -> None:
            for parameter in parameters:
                parameter.grad *= 1e9  # an average over ranks, as far as this test can see
            seen.append({"student": norm_of(trainers[0])})

        def norm_of(trainer) -> float:
            grads = [p.grad.flatten() for p in trainer.model.parameters() if p.grad is not None]
            return float(torch.cat(grads).norm())

        trainers: list[DistillationTrainer] = []

        class Spy(DistillationTrainer):
            def optimizer_step(self):
                trainers[:] = [self]
                super().optimizer_step()

        def step(self) -> None:
            own = torch.cat([p.grad.flatten() for p in self._adapters()])
            seen[-1] |= {"adapters": float(own.norm()), "after": norm_of(self), "scale": self.scaler.get_scale()}
            taken(self)

        taken = ResumableTrainer.optimizer_step
        monkeypatch.setattr(trainer_module, "average_gradients", average)
        monkeypatch.setattr(ResumableTrainer, "optimizer_step", step)
        train(Spy, teacher=str(make_checkpoint(seed=1)), **PKD)
        assert len(seen) == 2, "a step of the trainer did not average the adapters' gradients"
        for found in seen:
            assert found["adapters"] == pytest.approx(10 * found["scale"], rel=1e-3)
            assert found["student"] == found["after"] > 0

    def test_sidecar_holds_them(self, distilled):
        state = torch.load(distilled.last.with_name("last.kd.pt"), weights_only=True)
        own = distilled.distillation.methods[0].distiller.state_dict()
        assert own and all(torch.equal(state["distillers"]["pkd"][k], v) for k, v in own.items())


def test_results_have_a_column_per_term_and_none_of_zeros(train, make_checkpoint):
    trainer = train(teacher=str(make_checkpoint(seed=1)), val=True, **PKD)
    header, row = Path(trainer.csv).read_text().splitlines()[:2]
    values = dict(zip(header.split(","), row.split(",")))
    assert float(values["train/pkd_loss"]) > 0
    assert float(values["gain/pkd.pkd"]) > 0 and float(values["share/pkd.pkd"]) > 0
    assert "val/pkd_loss" not in values and "val/box_loss" in values
