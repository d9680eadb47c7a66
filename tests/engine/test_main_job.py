"""The main job as its user sees it: a pretrained student under a better teacher, what is printed, and where it is left."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_kd import DistillationTrainer, distill
from yolo_kd.engine import ultra
from yolo_kd.errors import GateError

EPOCHS = 2
KEYS: dict[str, Any] = {
    "distill": "pkd", "teacher_engine": "torch", "cpu_threads": 1, "epochs": EPOCHS, "imgsz": 64, "batch": 4, "nbs": 4,
    "optimizer": "SGD", "lr0": 0.01, "warmup_epochs": 0, "plots": False, "val": False, "seed": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def seen(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data.yaml that is validated on its training pictures, which `learnt` knows."""
    path = tmp_path_factory.mktemp("seen") / "data.yaml"
    described = yaml.safe_load(pictures.read_text())
    path.write_text(yaml.safe_dump({**described, "path": str(pictures.parent), "val": described["train"]}))
    return str(path)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where Ultralytics' settings put runs; its own tests have another place, which is not meant here."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ultralytics.cfg.TESTS_RUNNING", False)
        patch.setattr("ultralytics.cfg.SETTINGS", {"runs_dir": str(folder)})
        yield folder


@pytest.fixture(scope="module")
def job(learnt, make_checkpoint, seen, runs) -> SimpleNamespace:
    """One training without force=, project= or name=: its lines and its folder."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(re.sub(r"\x1b\[[0-9;]*m", "", record.getMessage()))
    student = make_checkpoint("yolov8n.yaml", seed=5)
    ultra.LOGGER.addHandler(handler)
    try:
        distill(teacher=learnt, student=student, data=seen, **KEYS)
    finally:
        ultra.LOGGER.removeHandler(handler)
    return SimpleNamespace(lines=lines, folder=runs / "detect" / "train", teacher=learnt, student=student)


def test_a_pretrained_student_is_taught_and_keeps_its_weights(job):
    """One epoch of SGD moves a weight by little; a student from scratch would start elsewhere."""
    start = ultra.load_detector(str(job.student), "student").state_dict()
    end = ultra.load_detector(str(job.folder / "weights" / "last.pt"), "student").state_dict()
    key = "model.0.conv.weight"
    assert 0 < float((end[key] - start[key]).norm() / start[key].norm()) < 0.1
    with (job.folder / "results.csv").open() as file:
        header, *rows = (line.strip().split(",") for line in file)
    assert len(rows) == EPOCHS and all(float(dict(zip(header, row))["train/pkd_loss"]) > 0 for row in rows)


def test_preflight_prints_the_pair_and_both_maps(job):
    lines = [line.removeprefix("yolo-kd: ") for line in job.lines if line.startswith("yolo-kd: ")]
    maps = json.loads((job.folder / "preflight.json").read_text())["maps"]
    assert maps["teacher"]["mAP50-95"] > maps["student"]["mAP50-95"] + 0.3
    number = "{} on val, 3 shared classes: mAP50 {:.4f}, mAP50-95 {:.4f}"
    expected = [
        "teacher last.pt (0.3 M parameters, sha256",
        "strides (8, 16, 32) -> (8, 16, 32), shared (8, 16, 32); reg_max 16 -> 16; neck (24, 32, 48) -> (64, 128, 256)",
        "classes: 3 shared (car, truck, person)",
        *(number.format(who, *maps[who].values()) for who in ("teacher", "student")),
    ]
    found = [next((i for i, line in enumerate(lines) if line.startswith(start)), None) for start in expected]
    assert None not in found and found == sorted(found), (found, lines)


def test_shares_are_logged_once_an_epoch(job):
    said = [line for line in job.lines if "gradient shares of the detection loss" in line]
    assert len(said) == EPOCHS
    with (job.folder / "results.csv").open() as file:
        header, *rows = (line.strip().split(",") for line in file)
    for line, row in zip(said, rows):
        assert line.endswith(f"pkd.pkd {float(dict(zip(header, row))['share/pkd.pkd']):.3g}")


def test_progress_has_a_column_for_each_term(job):
    headings = [line.split() for line in job.lines if line.split()[:2] == ["Epoch", "GPU_mem"]]
    assert (
        headings == [["Epoch", "GPU_mem", "box_loss", "cls_loss", "dfl_loss", "pkd_loss", "Instances", "Size"]] * EPOCHS
    )


def test_runs_are_numbered_as_ultralytics_numbers_them(job, seen):
    """Without project= and name=, ours and theirs in turn."""
    keys = {"model": "yolov8n.yaml", "data": seen, "device": "cpu"}
    ours = DistillationTrainer(overrides={**keys, "distill": "none"})
    theirs = DetectionTrainer(overrides=keys)
    last = DistillationTrainer(overrides={**keys, "distill": "none"})
    assert [t.save_dir for t in (ours, theirs, last)] == [job.folder.with_name(f"train-{i}") for i in (2, 3, 4)]
    assert {p.name for p in job.folder.iterdir()} >= {"args.yaml", "kd.yaml", "results.csv", "weights"}
    assert {p.name for p in (job.folder / "weights").iterdir()} >= {"best.pt", "last.pt", "last.kd.pt"}


def test_a_teacher_no_better_than_the_pretrained_student_is_refused(learnt, make_checkpoint, seen, tmp_path):
    before = torch.get_num_threads()
    teacher = make_checkpoint("yolov8n.yaml", seed=1)
    with pytest.raises(
        GateError, match=r"mAP50-95 on the val split is 0\.0\d+, the pretrained student starts at 0\.[4-9]"
    ):
        distill(teacher=teacher, student=learnt, data=seen, teacher_floor=0.0, project=str(tmp_path), **KEYS)
    torch.set_num_threads(before)


@pytest.mark.parametrize(("version", "told"), [("8.5.0", 1), ("9.4.190", 1), ("8.4.999", 0)])
def test_an_untested_ultralytics_is_said(monkeypatch, pictures, tmp_path, version, told):
    lines: list[str] = []
    monkeypatch.setattr(ultra, "version", lambda: version)
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
    DistillationTrainer(
        overrides={"model": "yolov8n.yaml", "data": str(pictures), "project": str(tmp_path), "distill": "none"}
    )
    assert (
        sum(f"WARNING Ultralytics {version} is untested here; tested: {ultra.TESTED}" in line for line in lines) == told
    )
