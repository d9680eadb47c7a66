"""TensorBoard and MLflow get the distillation terms from Ultralytics' own callbacks: read back from their real stores.

Ultralytics logs nothing while pytest runs, so the training has a process of its own, with settings of its own.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from yolo_kd.engine import loggers
from yolo_kd.engine.history import History, read_history

EPOCHS = 2
TERMS = {
    f"train/{name}_loss" for name in ("cs", "kdcls", "kdloc", "lqe")
}  # pcd's cls and loc beside the detection loss's
SCRIPT = """
import sys
from ultralytics import settings

settings.update({"tensorboard": True, "mlflow": True})
from yolo_kd import distill

teacher, student, data, project = sys.argv[1:]
distill(
    teacher=teacher, student=student, data=data, project=project, name="run", epochs=%d, imgsz=64, batch=4, nbs=4,
    optimizer="SGD", warmup_epochs=0, force=True, teacher_engine="torch", cpu_threads=1, plots=False, verbose=False, seed=1,
)
"""


@pytest.fixture(scope="module")
def logged(
    pictures: Path, tiny: Path, make_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with `run/` of two epochs, TensorBoard's event file in it, and `mlruns/` of MLflow beside it."""
    folder = tmp_path_factory.mktemp("loggers")
    own = {
        "YOLO_CONFIG_DIR": str(folder / "settings"),
        "MLFLOW_TRACKING_URI": (folder / "mlruns").as_uri(),
        "MLFLOW_ALLOW_FILE_STORE": "true",  # in maintenance at MLflow, and the only store without a data base
        "MLFLOW_EXPERIMENT_NAME": "distillation",
    }
    inherited = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    words = [str(make_checkpoint(str(tiny), seed=1)), str(tiny), str(pictures), str(folder)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % EPOCHS, *words],
        env={**inherited, **own},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def check(found: dict[str, list[tuple[int, float]]], first_step: int, history: History) -> None:
    """Every term once an epoch, finite, not 0, and the number that results.csv has."""
    assert found.keys() >= TERMS, f"missing: {sorted(TERMS - found.keys())}"
    for name in TERMS:
        steps, values = zip(*sorted(found[name]))
        assert steps == tuple(range(first_step, first_step + EPOCHS)), name
        assert all(math.isfinite(value) and value > 0 for value in values), name
        assert values == pytest.approx(history.columns[name], rel=1e-3), name


@pytest.mark.slow
def test_tensorboard_shows_the_terms(logged: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logged / "run")).Reload()
    found = {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}
    check(found, 1, read_history(logged / "run" / "results.csv"))
    assert events.Tags()["graph"], "Ultralytics could not trace the student under our criterion"


QUIET = """
import sys
from ultralytics import settings

settings.update({"mlflow": True})
from yolo_kd import distill

student, data, project = sys.argv[1:]
distill(
    distill="none", student=student, data=data, project=project, name="run", epochs=1, imgsz=64, batch=4, val=False,
    cpu_threads=1, plots=False, verbose=False,
)
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("sqlalchemy") is not None, reason="MLflow opens its own store here")
def test_mlflow_that_is_merely_installed_says_nothing(pictures: Path, tiny: Path, tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST" and not k.startswith("MLFLOW")}
    own = {**kept, "YOLO_CONFIG_DIR": str(tmp_path / "settings")}
    words = [sys.executable, "-c", QUIET, str(tiny), str(pictures), str(tmp_path)]
    done = subprocess.run(words, env=own, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run" / "weights" / "last.pt").exists()
    assert "MLflow" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("uri", "named", "kept"),
    [
        ("sqlite:////x/mlflow.db", False, 1),
        ("sqlite:////x/mlflow.db", True, 2),  # which Ultralytics says that it cannot open
        ("http://127.0.0.1:5000", True, 2),
    ],
)
def test_mlflow_stays_where_a_store_is_named(monkeypatch: pytest.MonkeyPatch, uri: str, named: bool, kept: int) -> None:
    def theirs() -> None: ...

    def other() -> None: ...

    theirs.__module__ = "ultralytics.utils.callbacks.mlflow"
    monkeypatch.setitem(
        sys.modules, "mlflow", SimpleNamespace(get_tracking_uri=lambda: uri, is_tracking_uri_set=lambda: named)
    )
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    callbacks = {"on_train_end": [theirs, other]}
    loggers.drop_mlflow_without_store(callbacks)
    assert callbacks["on_train_end"][-1] is other and len(callbacks["on_train_end"]) == kept


@pytest.mark.slow
def test_mlflow_shows_the_terms(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    from mlflow.tracking import MlflowClient

    client = MlflowClient((logged / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("distillation")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    found = {
        name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)] for name in run.data.metrics
    }
    check(found, 0, read_history(logged / "run" / "results.csv"))
    assert run.info.status == "FINISHED" and run.data.params["epochs"] == str(EPOCHS)
    assert "kd" not in run.data.params, "our settings travel beside Ultralytics' own"
