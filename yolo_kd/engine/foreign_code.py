"""What others put into checkpoints, lists of labels and a data.yaml is not run.

Ultralytics runs the code under `download:` of a data.yaml, Python or a shell script, as soon as the validation pictures are
not there. Here it has to have come with Ultralytics or yolo-kd, or `trust=true` was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from yolo_kd.cfg.documents import read_mapping
from yolo_kd.engine import ultra
from yolo_kd.engine.label_lists import plain_label_lists
from yolo_kd.errors import MisuseError


@contextmanager
def no_foreign_code(trust: bool) -> Iterator[None]:
    """Inside, Ultralytics runs no code of a checkpoint or a data.yaml, unless `trust`, and none of a list of labels.

    A checkpoint that needs code is refused by Ultralytics; a data.yaml is, here, by a MisuseError.
    """
    with ultra.restricted_loading(trust), plain_label_lists(), nullcontext() if trust else _no_downloads():
        yield


@contextmanager
def _no_downloads() -> Iterator[None]:
    with ultra.renamed(ultra.data_scan, exec=_execute, subprocess=SimpleNamespace(run=_refuse)):
        yield


def _execute(code: str, names: dict[str, Any]) -> None:
    if code not in _shipped():
        _refuse(names["yaml"].get("yaml_file"))
    exec(code, names)  # noqa: S102  # that of a descriptor that was installed with Ultralytics or with us


def _shipped() -> list[str]:
    """What the descriptors of Ultralytics and of yolo-kd run."""
    folders = (Path(str(files("ultralytics"))) / "cfg" / "datasets", Path(str(files("yolo_kd.data"))))
    return [read_mapping("data", path).get("download", "") for folder in folders for path in folder.glob("*.yaml")]


def _refuse(source: Any, **_: Any) -> None:
    where = f"{source}: " if isinstance(source, str) else ""  # of a shell script the words are all there is
    raise MisuseError(
        f"data: {where}the validation pictures are not there, and download: is code of its own, which is not run; fetch them "
        "yourself, or trust=true runs it"
    )
