"""What a CPU training gets that Ultralytics refuses or ignores there: bf16, channels_last, all cores."""

from __future__ import annotations

import pytest
import torch

from yolo_kd import DistillationTrainer
from yolo_kd.engine import trainer as trainer_module
from yolo_kd.engine import ultra


class Spy(DistillationTrainer):
    """Notes what the student is given and what it gives."""

    seen: dict[str, object]

    def _setup_train(self) -> None:
        super()._setup_train()
        model, base, seen = ultra.unwrap_model(self.model), self.criterion.base, {}
        Spy.seen = seen

        def look(module, inputs) -> None:
            if module.training:
                seen["image"] = inputs[0].is_contiguous(memory_format=torch.channels_last)
                seen["weights"] = module.conv.weight.is_contiguous(memory_format=torch.channels_last)

        model.model[0].register_forward_pre_hook(look)
        raw = self.criterion.__class__.__call__

        class Watching(type(self.criterion)):
            def __call__(self, preds, batch):
                out = ultra.read_outputs(preds)
                seen["outputs"] = {t.dtype for b in out.branches.values() for t in (b.boxes, b.scores)}
                seen["autocast"] = torch.is_autocast_enabled("cpu")
                return raw(self, preds, batch)

        class Lost(type(base)):
            def __call__(self, preds, batch):
                out = ultra.read_outputs(preds)
                seen["lost"] = {t.dtype for b in out.branches.values() for t in (b.boxes, b.scores)}
                seen["autocast in the loss"] = torch.is_autocast_enabled("cpu")
                return super().__call__(preds, batch)

        base.__class__, self.criterion.__class__ = Lost, Watching


@pytest.mark.parametrize(
    ("capable", "keys", "dtype"),
    [
        (True, {}, torch.bfloat16),
        (False, {}, torch.float32),
        (True, {"amp": False}, torch.float32),
        (False, {"amp": "bf16"}, torch.bfloat16),
    ],
)
def test_the_student_runs_in_bf16_where_the_cpu_has_it(train, monkeypatch, capable, keys, dtype):
    monkeypatch.setattr(trainer_module, "has_bf16", lambda: capable)
    train(Spy, distill="none", fraction=0.5, **keys)
    assert Spy.seen["outputs"] == {dtype} and Spy.seen["autocast"] == (dtype == torch.bfloat16)
    assert Spy.seen["lost"] == {torch.float32} and not Spy.seen["autocast in the loss"]


@pytest.mark.parametrize(("keys", "expected"), [({}, True), ({"channels_last": False}, False)])
def test_images_and_weights_are_channels_last_unless_refused(train, keys, expected):
    train(Spy, distill="none", fraction=0.5, amp=False, **keys)
    assert (Spy.seen["image"], Spy.seen["weights"]) == (expected, expected)


@pytest.mark.parametrize(("keys", "threads"), [({}, 3), ({"cpu_threads": 2}, 2)])
def test_all_cores_work_unless_told_otherwise(monkeypatch, tmp_path, pictures, keys, threads):
    monkeypatch.setattr(trainer_module, "cores", lambda: 3)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        overrides = {"model": "yolov8n.yaml", "data": str(pictures), "project": str(tmp_path), "distill": "none"}
        DistillationTrainer(overrides={**overrides, "device": "cpu", **keys})
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
