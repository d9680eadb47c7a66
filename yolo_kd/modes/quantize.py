"""`yolo-kd quantize`: INT8 artifacts from a checkpoint or from a float artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from yolo_kd.cfg.values import read_size
from yolo_kd.deploy.artifact import MANIFEST, Artifact, read_artifact, sha256
from yolo_kd.deploy.quantize.calibration import CalibrationSet, read_calibration
from yolo_kd.deploy.quantize.onnx import ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings
from yolo_kd.deploy.quantize.produce import Producer, Settings
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.errors import MisuseError, did_you_mean
from yolo_kd.modes.calibrate import gather, tell

RECIPES: Mapping[str, type[OpenVINOSettings] | type[ONNXSettings]] = {
    "openvino": OpenVINOSettings,
    "onnx": ONNXSettings,
}
DEFAULTS: dict[str, Any] = {
    "model": None,
    "data": None,
    "backend": "all",
    "calibration": None,
    "count": 300,
    "imgsz": 640,
    "end2end": False,
    "sensitivity": False,
    "out": None,
    "seed": 0,
    "overwrite": False,
    "trust": False,
    "debug": False,
}


def main(settings: dict[str, Any]) -> int:
    """Export if need be, choose calibration pictures if need be, quantize; returns the exit code."""
    recipes = read_recipes(settings)
    keys = {**DEFAULTS, **{k: v for k, v in settings.items() if "." not in k}}
    _check(keys)
    parents = float_parents(keys)
    calibration = _calibration(keys)
    for parent in parents:
        producer = Producer(parent, calibration, Line())
        recipe = recipes[parent.format]
        worst = producer.sensitivity(recipe) if keys["sensitivity"] else []
        artifact = producer.write(recipe, int8_folder(parent), keys["overwrite"], worst)
        layers = artifact.facts["layers"]
        print(
            f"{artifact.folder}: {layers['int8_convolutions']} convolutions on integers, {layers['float_convolutions']} in "
            "float; judge it with yolo-kd gate"
        )
        for row in worst[:5]:
            print(f"  {row.error:.4f} {row.layer}")
    return 0


def read_recipes(settings: Mapping[str, Any]) -> dict[str, Settings]:
    """The recipe of each back end from `openvino.key=value` and `onnx.key=value`.

    Raises:
        MisuseError: An unknown key, or a value that the recipe does not take.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in RECIPES}
    for key, value in settings.items():
        backend, dot, inner = key.partition(".")
        if not dot:
            if key not in DEFAULTS:
                raise MisuseError(
                    f"{key}={value}: unknown key{did_you_mean(key, DEFAULTS)}; see yolo-kd quantize --help"
                )
            continue
        if backend not in RECIPES:
            raise MisuseError(f"{key}={value}: no back end '{backend}'{did_you_mean(backend, RECIPES)}")
        known = {f.name: f.default for f in fields(RECIPES[backend])}
        if inner not in known:
            raise MisuseError(f"{key}={value}: {backend} has no setting '{inner}'{did_you_mean(inner, known)}")
        given[backend][inner] = _convert(key, value, known[inner])
    if "seed" in settings:
        given["openvino"].setdefault("seed", _convert("seed", settings["seed"], 0))
    return {"openvino": OpenVINOSettings(**given["openvino"]), "onnx": ONNXSettings(**given["onnx"])}


def float_parents(keys: Mapping[str, Any]) -> list[Artifact]:
    """The float artifacts to quantize: exported from a checkpoint if they are not there yet, or the one given.

    Raises:
        MisuseError: The model is no such thing, or another export is in the way.
    """
    model, wanted = str(keys["model"]), str(keys["backend"])
    if not model.endswith(".pt"):
        parent = read_artifact(model)
        if wanted not in ("all", parent.format):
            raise MisuseError(
                f"backend={wanted}: {model} is for {parent.format}; give the checkpoint for the other one"
            )
        return [parent]
    from yolo_kd.engine.export import export

    size, checkpoint = read_size("imgsz", keys["imgsz"]), Path(model)
    folder = Path(str(keys["out"])) if keys["out"] is not None else checkpoint.parent
    found = []
    for format in RECIPES if wanted == "all" else [wanted]:
        target = folder / f"{checkpoint.stem}_{format}_model"
        if (target / MANIFEST).is_file() and checkpoint.is_file() and not keys["overwrite"]:
            there = read_artifact(target)
            same = (there.facts.get("parent") or {}).get("sha256") == sha256(checkpoint)
            if not same or (there.input_hw, there.precision, there.end2end) != (size, "fp32", keys["end2end"]):
                raise MisuseError(
                    f"{target}: is of other weights, size or precision, and the float parent belongs there; "
                    "overwrite=true replaces it, or choose another folder with out="
                )
            there.check_files()
            found.append(there)
        else:
            found.append(export(model, format, size, "fp32", keys["end2end"], folder, keys["overwrite"], keys["trust"]))
    return found


def int8_folder(parent: Artifact) -> Path:
    """Where the INT8 artifact of a float one goes: as Ultralytics names it, beside the parent."""
    return parent.folder.absolute().with_name(f"{Path(parent.model).stem}_int8_{parent.format}_model")


def help_text() -> str:
    """The keys."""
    lines = []
    for backend, recipe in RECIPES.items():
        lines += [f"  {backend}.{f.name}={_spell(f.default)}" for f in fields(recipe)]
    return "\n".join(
        [
            "usage: yolo-kd quantize model=<.pt or float folder> data=<data.yaml> [key=value ...]",
            "",
            "  model=             checkpoint, or a float artifact (then no torch is needed)",
            "  data=              data set whose train part is calibrated on; not needed with calibration=",
            "  backend=all        openvino, onnx or all",
            "  calibration=       list from yolo-kd calibrate",
            "  count=300          calibration pictures, where the list is made here",
            "  imgsz=640          input size, a side or height,width",
            "  end2end=false      true takes the one-to-one head of v10 and 26",
            "  sensitivity=false  true measures what each layer costs and names the worst in artifact.json",
            "  out=               where the folders go; beside the checkpoint if left out",
            "  seed=0             of the choice of pictures, and of NNCF",
            "  overwrite=false    true replaces folders that yolo-kd did not write, and float exports of other settings",
            "  trust=false        true lets the checkpoint run code of its own while it is loaded",
            "",
            "recipe, with the defaults that measured best (docstrings of yolo_kd.deploy.quantize.openvino and .onnx):",
            *lines,
        ]
    )


def _check(keys: Mapping[str, Any]) -> None:
    for key in ("end2end", "sensitivity", "overwrite", "trust"):
        if not isinstance(keys[key], bool):
            raise MisuseError(f"{key}={keys[key]}: expected true or false")
    if not keys["model"]:
        raise MisuseError("model= is missing: yolo-kd quantize model=best.pt data=<data.yaml>")
    if keys["backend"] not in (*RECIPES, "all"):
        near = did_you_mean(str(keys["backend"]), RECIPES)
        raise MisuseError(f"backend={keys['backend']}: expected openvino, onnx or all{near}")
    if not isinstance(keys["count"], int) or isinstance(keys["count"], bool) or keys["count"] < 1:
        raise MisuseError(f"count={keys['count']}: expected a whole number from 1 on")
    if not keys["calibration"] and not keys["data"]:
        raise MisuseError("data= is missing: name a data.yaml to calibrate on, or a list with calibration=")


def _calibration(keys: Mapping[str, Any]) -> CalibrationSet:
    """The list given, or one chosen from the data set and written beside the artifacts."""
    if keys["calibration"]:
        return read_calibration(str(keys["calibration"]))
    model = Path(str(keys["model"]))
    folder = Path(str(keys["out"])) if keys["out"] is not None else model.absolute().parent
    out = folder / f"{model.stem}_calibration.json"
    found = gather(str(keys["data"]), keys["count"], None, out, int(keys["seed"]))
    tell(found, out)
    return found


def _convert(key: str, value: Any, default: Any) -> Any:
    """A value of the default's type."""
    kind = type(default)
    if kind is tuple:
        return tuple(str(v) for v in value) if isinstance(value, list | tuple) else tuple(str(value).split(","))
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and value is None:
        return "none"  # read as a value, the word means nothing
    if type(value) is not kind:
        expected = {"bool": "true or false", "int": "a whole number", "float": "a number"}.get(kind.__name__, "a word")
        raise MisuseError(f"{key}={value}: expected {expected}, e.g. {key}={_spell(default)}")
    return value


def _spell(value: Any) -> str:
    """A value as one types it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
