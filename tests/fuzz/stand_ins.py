"""Stand-ins for what takes minutes, so that an input that is taken ends where the work would begin."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ultralytics.nn.tasks import load_checkpoint

from tests.fuzz.guard import OUT, Reached

LOAD_S = 0.02  # of an acceptance


class _Model:
    """In place of Ultralytics' YOLO, which loads a checkpoint as it is told to: then a training is set up as far as its data."""

    def __init__(self, model: Any, task: str | None = None) -> None:
        self.model = str(model)
        if self.model.endswith(".pt"):
            load_checkpoint(self.model)

    def train(self, trainer: Any, **keys: Any) -> None:
        trainer(overrides={"model": self.model, "task": "detect", **keys, "mode": "train"})
        raise Reached

    @property
    def task_map(self) -> Any:
        raise Reached

    def __getattr__(self, name: str) -> Any:
        return _reach


def _reach(*_: Any, **__: Any) -> Any:
    raise Reached


@contextlib.contextmanager
def stand_ins(home: Path) -> Iterator[None]:
    """Inside, nothing trains, exports, quantizes or renders, and caches go to `home`."""
    import ultralytics.engine.trainer as training
    from yolo_kd.deploy import acceptance

    from yolo_kd import api
    from yolo_kd.engine import export, pseudo_labels, ultra
    from yolo_kd.evidence import judge
    from yolo_kd.modes import data_sheet, demo, quantize

    under_load, save_dir = acceptance.put_under_load, training.get_save_dir

    def shortly(detect: Any, frames: Any, seconds: float, *args: Any, **keys: Any) -> Any:
        return under_load(detect, frames, min(seconds, LOAD_S), *args, **keys)

    def below_out(args: Any, name: str | None = None) -> Path:
        args = copy.copy(args)
        args.project = str(Path.cwd() / OUT / str(args.project or ""))
        return save_dir(args, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("YOLO_KD_HOME", str(home))
        patch.setattr(ultra, "YOLO", _Model)
        patch.setattr(training, "get_save_dir", below_out)
        patch.setattr(api, "_scenes", lambda: "data.yaml")
        patch.setattr(export, "_run", _reach)
        patch.setattr(pseudo_labels, "_found", _reach)
        patch.setattr(quantize, "Producer", _reach)
        patch.setattr(demo, "_render", _reach)
        patch.setattr(data_sheet, "contact_sheet", _reach)
        patch.setattr(acceptance, "put_under_load", shortly)
        patch.setattr(judge, "TIMED", 2)
        yield
