"""A fit is made once per teacher and data, and made again when its file is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.full_disk import files_end_at
from yolo_kd import DistillationTrainer
from yolo_kd.distillers.lqe import LQE
from yolo_kd.engine import fitting
from yolo_kd.engine.samples import SAMPLE_SEED


@pytest.fixture
def fits(monkeypatch, tmp_path):
    """Counts calls of LQE.fit; the cache is empty."""
    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path / "home"))
    calls: list[int] = []
    fit = LQE.fit
    monkeypatch.setattr(LQE, "fit", lambda self, *args, **keys: (calls.append(1), fit(self, *args, **keys))[1])
    return calls


def test_kept_reused_and_repaired(train, make_checkpoint, fits, tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(DistillationTrainer, "log", lambda self, line: lines.append(line))
    keys = {"distill": "lqe", "force": True, "teacher_engine": "torch"}
    teacher = str(make_checkpoint(seed=1))

    def state(trainer):
        return {k: v.clone() for k, v in trainer.distillation.methods[0].distiller.fit_state().items()}

    first = state(train(teacher=teacher, **keys))
    again = state(train(teacher=teacher, **keys))
    assert len(fits) == 1
    assert all(torch.equal(first[k], again[k]) for k in first)
    kept = list((tmp_path / "home" / "fits").iterdir())
    assert len(kept) == 1
    kept[0].write_bytes(b"damaged")
    train(teacher=teacher, **keys)
    assert len(fits) == 2 and any("damaged" in line for line in lines)
    other = train(teacher=str(make_checkpoint(seed=2)), **keys)
    assert len(fits) == 3, "another teacher needs a fit of its own"
    runs, (method,) = other.distillation.teacher, other.distillation.methods
    before = fitting._path(other, runs, method)
    assert before.exists()
    runs.use("another", runs.engine)
    assert fitting._path(other, runs, method) != before, "so does another engine, whose outputs are a little different"


def test_other_labels_need_a_fit_of_their_own_wherever_they_changed(train, make_checkpoint, fits, tmp_path, pictures):
    """Without mosaic the first batch holds half of the pictures; the other half counts as much."""
    data = (
        Path(shutil.copytree(pictures.parent, tmp_path / "own", ignore=shutil.ignore_patterns("*.cache"))) / "data.yaml"
    )
    keys = {"distill": "lqe", "force": True, "teacher_engine": "torch", "mosaic": 0, "data": str(data)}
    keys["teacher"] = str(make_checkpoint(seed=1))
    train(**keys)
    last = np.random.default_rng(SAMPLE_SEED).permutation(8)[-1]
    labels = data.parent / "labels" / "train" / f"{last:03}.txt"
    labels.write_text("".join(labels.read_text().splitlines(True)[:-1]))
    train(**keys)
    assert len(fits) == 2


@pytest.mark.parametrize("trouble", ["full disk", "no folder"])
def test_a_fit_that_cannot_be_kept_is_a_line(tmp_path, trouble):
    lines: list[str] = []
    method = SimpleNamespace(name="lqe", distiller=SimpleNamespace(fit_state=lambda: {"weight": torch.zeros(1000)}))
    folder = tmp_path / "fits"
    if trouble == "no folder":
        folder.write_text("a file in its place")
    with files_end_at(1000):
        fitting._store(folder / "x.pt", method, {"loss": 1.0}, SimpleNamespace(log=lines.append))
    assert len(lines) == 1 and lines[0].startswith("lqe: ") and lines[0].endswith("; it is fitted again next time")
    assert f"YOLO_KD_HOME={folder / 'x.pt'}: " in lines[0]
    assert not list(tmp_path.rglob("*x.pt*"))
