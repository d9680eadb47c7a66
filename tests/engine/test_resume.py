"""What a stopped run keeps: adapters, gains, settings. (Bit-exact resume is a promise of a later version.)"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from yolo_kd import DistillationTrainer
from yolo_kd.engine import resume
from yolo_kd.errors import MisuseError


class Stopped(DistillationTrainer):
    """Ends after two of its epochs as if it had been killed: without the final evaluation that strips checkpoints."""

    def _setup_train(self):
        super()._setup_train()
        self.add_callback("on_model_save", lambda t: setattr(t, "stop", t.epoch == 1))

    def final_eval(self):
        pass


def test_adapters_gains_and_epoch_go_on(train, make_checkpoint):
    teacher = str(make_checkpoint("yolov8s.yaml", seed=1))
    first = train(Stopped, teacher=teacher, distill="pkd", force=True, epochs=4, calibrate_batches=2, optimizer="AdamW")
    assert first.epoch == 1
    adapters = [p.detach().clone() for p in first._adapters()]
    gain = first.criterion.terms[0].gain
    assert first.criterion.terms[0].fixed
    plain = yaml.safe_load((first.save_dir / "kd.yaml").read_text())
    assert plain["fixed_gains"] == {"pkd.pkd": pytest.approx(gain)}
    start: dict = {}

    class Resumed(DistillationTrainer):
        def _setup_train(self):
            super()._setup_train()
            start["adapters"] = [p.detach().clone() for p in self._adapters()]
            start["moments"] = [self.optimizer.state[p]["exp_avg"].abs().sum() for p in self._adapters()]
            start["gain"], start["fixed"] = self.criterion.terms[0].gain, self.criterion.terms[0].fixed
            start["epoch"] = self.start_epoch

    again = train(Resumed, model=str(first.last), resume=True)
    assert start["epoch"] == 2 and again.epoch == 3
    assert all(torch.equal(a, b) for a, b in zip(start["adapters"], adapters))
    assert all(m > 0 for m in start["moments"])
    assert start["fixed"] and start["gain"] == pytest.approx(gain)


def test_optimizer_state_splits_and_joins():
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": parameters[:2]}, {"params": parameters[2:]}], lr=0.1, momentum=0.9)
    for p in parameters:
        p.grad = torch.ones(2)
    optimizer.step()
    state = optimizer.state_dict()
    plain, own = resume.split_optimizer(state, 1)
    assert len(plain["param_groups"]) == 1 and set(plain["state"]) == {0, 1} and set(own["state"]) == {2}
    assert resume.join_optimizer(plain, own) == state


@pytest.mark.parametrize("damage", ["truncated", "other format"])
def test_sidecar_that_cannot_be_trusted_is_refused(tmp_path: Path, damage: str):
    path = tmp_path / "last.kd.pt"
    resume.save_sidecar(path, {"gains": {"a": 1.0}})
    assert resume.load_sidecar(path)["gains"] == {"a": 1.0}
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:100])
    else:
        torch.save({"format": 99}, path)
    with pytest.raises(MisuseError, match="last.kd.pt"):
        resume.load_sidecar(path)


def test_run_without_settings_is_not_ours(train):
    from ultralytics.models.yolo.detect import DetectionTrainer

    class Stock(DetectionTrainer):
        def final_eval(self):
            pass

    stock = train(Stock, epochs=2)
    with pytest.raises(MisuseError, match=r"no kd.yaml there"):
        train(model=str(stock.last), resume=True, distill="pkd")
