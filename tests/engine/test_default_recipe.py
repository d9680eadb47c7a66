"""What the shipped recipe adds to the invariants: a fit before the first step, auto gains, and a teacher in OpenVINO."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("openvino", reason="the extra [openvino] is optional")

from yolo_kd.deploy.machine import has_bf16

from yolo_kd.engine import fitting, selection, ultra

ENGINE = "openvino-bf16" if has_bf16() else "openvino-fp32"
TERMS = ("csgr.cs", "pcd.cls", "pcd.loc", "lqe.lqe")

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that is empty at first."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_KD_HOME", str(folder))
        yield folder


@pytest.fixture
def taught(train, make_checkpoint, home, monkeypatch) -> Callable[..., Weights]:
    """The weights of a student that `auto` teaches in OpenVINO, for which torch is no candidate."""
    monkeypatch.setattr(selection, "candidates", lambda wanted, device: [ENGINE])
    monkeypatch.setattr(fitting, "FIT_BATCHES", 4)
    teacher = str(make_checkpoint(seed=1))

    def run(**keys: object) -> Weights:
        trainer = train(teacher=teacher, teacher_engine="auto", force=True, calibrate_batches=1, **keys)
        assert trainer.distillation.teacher.engine_name == ENGINE
        assert tuple(t.key for t in trainer.criterion.terms) == TERMS
        return ultra.unwrap_model(trainer.model).state_dict()

    return run


def same(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_same_seed_same_weights_whether_fitted_now_or_before(taught, home):
    shutil.rmtree(home / fitting.FOLDER, ignore_errors=True)
    fitted = taught()
    from_cache = taught()
    shutil.rmtree(home / fitting.FOLDER)
    assert same(fitted, from_cache) and same(fitted, taught())


def test_gains_of_zero_are_none(train, taught):
    """Also where pictures come together with others out of the data set's buffer, which the sampled ones must not move."""
    mixed = {"close_mosaic": 0, "mixup": 0.3, "epochs": 2}
    none = ultra.unwrap_model(train(distill="none", **mixed).model).state_dict()
    assert same(none, taught(**dict.fromkeys(TERMS, 0), **mixed))
    assert not same(none, taught(**dict.fromkeys(TERMS[1:], 0), **mixed))
