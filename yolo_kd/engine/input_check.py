"""What `val` and `predict` are given, looked at before Ultralytics gets it, which fails over it deep inside or takes others.

A source is what Ultralytics takes for one: a picture, a film, a folder, a pattern, a .txt or .csv list of these, an address,
a stream, a .streams list, the number of a camera, the screen, or nothing, for which it has pictures of its own.
"""

from __future__ import annotations

import csv
import glob
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from yolo_kd.data.description import read_description
from yolo_kd.engine import ultra
from yolo_kd.engine.classes import check_ids
from yolo_kd.engine.readable_errors import data_error
from yolo_kd.errors import MisuseError, YoloKDError

ADDRESSES = ("rtsp://", "rtmp://", "tcp://", "http://", "https://")
LISTS = {".txt", ".csv"}
EXPECTED = "expected a picture, a film, a folder, a pattern or a .txt list of these, an address, or a camera's number"


def check_input(mode: str, keys: Mapping[str, Any], model: Any) -> None:
    """Refuse a source, data or classes that cannot work with this model.

    Args:
        mode: "val" or "predict".
        keys: Ultralytics' keys; without `data`, the model is validated on its own.
        model: Ultralytics' object of the model, with the task and the keys it was trained with.

    Raises:
        MisuseError: One of them cannot.
        YoloKDError: The data would have to be downloaded, and could not be.
    """
    # an artifact's classes are known only once its engine runs
    names: Mapping[int, str] | None = ultra.class_names(model.model) if isinstance(model.model, nn.Module) else None
    if mode == "predict":
        check_source(keys.get("source"))
    else:
        keys = {**keys, "data": keys.get("data") or _own_data(model)}
        if model.task != "classify":  # whose data is a folder of folders
            names = _read_as_val_does(keys) or names
    check_ids(keys.get("classes"), names)


def check_source(source: Any) -> None:
    """Refuse a `source=` in which Ultralytics would find nothing; what is not on a disk is left to it.

    Raises:
        MisuseError: Nothing there, no picture or video in it, or no source at all.
    """
    if isinstance(source, list | tuple):
        for entry in source:
            if isinstance(entry, str | Path) and not _is_address(str(entry)) and not Path(entry).is_file():
                raise MisuseError(
                    f"source={entry}: no such file; every entry of a list has to be a picture or an address"
                )
        return
    if isinstance(source, bool | float):
        raise MisuseError(f"source={source}: {EXPECTED}")
    text = str(source)
    lower = text.lower()
    if source is None or text.isnumeric() or _is_address(text) or lower == "screen" or lower.startswith("screen "):
        return
    if Path(text).suffix.lower() in LISTS and Path(text).is_file():
        _check_list(Path(text))
        return
    what = "" if lower.endswith(".streams") and Path(text).is_file() else _lacks(text)
    if what:
        raise MisuseError(f"source={text}: {what}; {EXPECTED}")


def _is_address(text: str) -> bool:
    return text.lower().startswith(ADDRESSES)


def _check_list(path: Path) -> None:
    """Refuse a list of nothing, or with an entry that is found neither from here nor beside the list."""
    lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
    if path.suffix.lower() == ".csv":
        rows = list(csv.reader(lines))
        lines = [cell for row in (rows[1:] if rows[:1] == [["source"]] else rows) for cell in row]
    entries = [line.strip() for line in lines if line.strip()]
    for entry in entries:
        if not (_found(entry) or _found(str(path.parent / entry))):
            raise MisuseError(f"source={path}: names {entry}, which is not there; mend that line, or take it out")
    if not any(_media(_found(entry) or _found(str(path.parent / entry))) for entry in entries):
        raise MisuseError(f"source={path}: names no picture or video; {EXPECTED}")


def _found(text: str) -> list[Path]:
    """The files that a path, a folder or a pattern stands for, or the folder itself where it is empty."""
    path = Path(text)
    if "*" in text:
        return [Path(name) for name in glob.glob(text, recursive=True)]  # noqa: PTH207  # as Ultralytics expands it
    if path.is_dir():
        return [entry for entry in path.glob("*.*") if not entry.name.startswith(".")] or [path]
    return [path] if path.is_file() else []


def _lacks(text: str) -> str:
    """Why a path stands for no picture or video; empty if it does."""
    there = _found(text)
    if _media(there):
        return ""
    if "*" in text:
        return "matches no picture or video"
    if Path(text).is_dir():
        return "holds no picture or video"
    return "is no picture or video" if there else "no such file or folder"


def _media(paths: Iterable[Path]) -> bool:
    known = ultra.data_scan.IMG_FORMATS | ultra.data_scan.VID_FORMATS
    return any(path.suffix[1:].lower() in known for path in paths)


def _own_data(model: Any) -> str:
    """The data that a checkpoint was trained on; Ultralytics would fetch coco8 instead of data that moved."""
    data = str(model.overrides.get("data") or "")
    if data and ("://" in data or Path(data).exists() or not {"/", "\\"} & set(data)):
        return data
    why = f"what the model was trained on, {data}, is not there" if data else "the model names none of its own"
    raise MisuseError(
        f"data= is missing: {why}; name the data set to validate on, e.g. yolo-kd val model={model.overrides.get('model')} "
        "data=data.yaml"
    )


def _read_as_val_does(keys: Mapping[str, Any]) -> Mapping[int, str] | None:
    """The classes of the data; fetched now if they are not on this disk. None where Ultralytics converts them first."""
    data = str(keys["data"])
    if data.endswith(".ndjson"):
        return None
    if Path(data).suffix in {".yaml", ".yml"} and "://" not in data:
        read_description(data)  # says better what is wrong, and what the name may have been meant for
    try:
        return ultra.data_scan.check_det_dataset(data, split=keys.get("split") or "val")["names"]
    except YoloKDError:
        raise
    except Exception as error:  # of any kind, as in Ultralytics' trainer
        raise data_error(keys, error) from error
