"""A training with teacher_engine=auto: what engines are calibrated on, which one teaches, and when it stays in torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import pytest
import torch
from yolo_kd.deploy import machine

from tests.engine.stopping import stopped
from yolo_kd import DistillationTrainer
from yolo_kd.engine import selection, setup
from yolo_kd.engine.openvino_engine import Builder
from yolo_kd.engine.teacher import TorchEngine

FASTEST = "openvino-bf16"
CALIBRATION = 10  # more than the batches hold that agreement is measured on
STILL = dict.fromkeys(("mosaic", "scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0)


class Counted(TorchEngine):
    """Counts its batches."""

    batches = 0

    def __call__(self, img: torch.Tensor) -> Any:
        self.batches += 1
        return super().__call__(img)


@pytest.fixture
def auto(train, make_checkpoint, monkeypatch, tmp_path) -> Callable[..., tuple[Any, dict[str, Builder], list[str]]]:
    """Trains with engines that are all exact, OpenVINO the fastest: the trainer, what each was built from, the lines."""
    builders: dict[str, Builder] = {}
    lines: list[str] = []

    def build(name: str, teacher: Any, compiled: bool, builder: Builder) -> Counted:
        builders[name] = builder
        return Counted(teacher.net, teacher.device, torch.float32)

    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(selection, "_build", build)
    monkeypatch.setattr(selection, "time_runs", lambda runs, img: {name: 9.0 - 8 * (name == FASTEST) for name in runs})
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
    teacher = str(make_checkpoint(seed=1))
    keys = {
        "teacher": teacher,
        "distill": "pkd",
        "force": True,
        "teacher_engine": "auto",
        "calibration_images": CALIBRATION,
    }

    def run(**more: Any) -> tuple[Any, dict[str, Builder], list[str]]:
        builders.clear(), lines.clear()
        return train(**(keys if "resume" not in more else {"teacher_engine": "auto"}), **more), builders, lines

    return run


def plain(pictures: Path) -> list[torch.Tensor]:
    """The training pictures (3, H, W) in RGB, unchanged."""
    paths = sorted((pictures.parent / "images" / "train").glob("*.png"))
    return [torch.from_numpy(cv2.imread(str(p))[..., ::-1].copy()).permute(2, 0, 1) / 255 for p in paths]


@pytest.mark.parametrize(("keys", "unchanged"), [({}, 0), (STILL, CALIBRATION)])
def test_the_fastest_teaches_and_int8_is_calibrated_on_augmented_pictures(auto, pictures, keys, unchanged):
    """Without augmentation they are the pictures themselves, so the comparison can tell."""
    trainer, builders, lines = auto(**keys)
    assert trainer.distillation.teacher.engine_name == FASTEST
    checks = selection.CHECK_BATCHES
    assert trainer.distillation.teacher.engine.batches == checks + len(trainer.train_loader)
    assert f"teacher runs on {FASTEST}" in lines
    report = json.loads((trainer.save_dir / "preflight.json").read_text())
    assert report["engine"] == FASTEST
    measured = [row["engine"] for row in report["engines"]]
    assert {"torch-fp32", FASTEST, "openvino-int8", "openvino-int8-all"} <= set(measured)
    calibration = builders["openvino-int8"].calibration
    assert calibration.shape == (CALIBRATION, 3, 64, 64)
    known = plain(pictures)
    assert sum(any(torch.allclose(img, p, atol=1e-3) for p in known) for img in calibration) == unchanged


def test_with_multi_scale_auto_stays_in_torch(auto):
    """OpenVINO would be compiled anew for every size."""
    trainer, builders, lines = auto(multi_scale=0.5)
    assert trainer.distillation.teacher.engine_name.startswith("torch-")
    assert builders and all(name.startswith("torch-") for name in builders)
    assert sum(line.startswith("multi_scale: the teacher stays in torch") for line in lines) == 1


def test_a_resumed_run_keeps_its_engine_although_another_is_faster_now(auto, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        auto(trainer_class=stopped(1), epochs=2)
    run = tmp_path / "run"
    report = json.loads((run / "preflight.json").read_text())
    assert report["engine"] == FASTEST
    (run / "preflight.json").write_text(json.dumps({**report, "engine": "torch-fp32"}))
    trainer, builders, lines = auto(model=str(run / "weights" / "last.pt"), resume=True)
    assert trainer.distillation.teacher.engine_name == "torch-fp32" and "teacher runs on torch-fp32" in lines
    assert trainer.epoch == 1 and list(builders) == ["torch-fp32"], "the others were built to be measured again"
    kept = json.loads((run / "preflight.json").read_text())
    assert kept["engine"] == "torch-fp32" and kept["engines"] == report["engines"]
    assert not any("not bit-exact" in line for line in lines)


def test_a_resumed_run_that_lost_its_engine_says_so(auto, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        auto(trainer_class=stopped(1), epochs=2)
    run = tmp_path / "run"
    (run / "preflight.json").unlink()
    _, _, lines = auto(model=str(run / "weights" / "last.pt"), resume=True)
    assert any(line.startswith("WARNING not bit-exact: the teacher's engine was chosen anew") for line in lines)
    maps = json.loads((run / "preflight.json").read_text())["maps"]
    assert "teacher" in maps and "student" not in maps, (
        "a checkpoint half-way is no start that a teacher must be ahead of"
    )


@pytest.mark.parametrize(
    ("resume", "engine", "wanted", "kept"),
    [
        (True, "openvino-int8", "auto", "openvino-int8"),
        (True, "openvino-int8", "torch", ""),  # the user asks for another one now
        (True, "of-another-machine", "auto", ""),
        (True, None, "auto", ""),
        (False, "openvino-int8", "auto", ""),
    ],
)
def test_an_engine_is_kept_where_it_may_still_run(resume, engine, wanted, kept):
    kd = SimpleNamespace(teacher_engine=wanted)
    trainer = SimpleNamespace(resume=resume, kd=kd, device=torch.device("cpu"))
    assert setup._chosen_before(trainer, {"engine": engine}) == kept
