"""`yolo-kd quantize`: INT8 artifacts from a checkpoint or from a float artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.cfg.values import read_size
from yolo_kd.data.description import read_description
from yolo_kd.data.split import Split, read_split
from yolo_kd.deploy.artifact import MANIFEST, Artifact, read_artifact, sha256, write_manifest
from yolo_kd.deploy.doctor import npu_faults
from yolo_kd.deploy.quantize.calibration import CalibrationSet, read_calibration
from yolo_kd.deploy.quantize.onnx import ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings
from yolo_kd.deploy.quantize.produce import Producer, Settings, named, require_fp32
from yolo_kd.deploy.quantize.progress import Line
from yolo_kd.deploy.quantize.staging import check_target
from yolo_kd.errors import MisuseError, did_you_mean
from yolo_kd.evidence.average_precision import require_pycocotools
from yolo_kd.evidence.candidates import Report, speed_line
from yolo_kd.evidence.outcome import Outcome, Plan, fastest, one_recipe
from yolo_kd.evidence.page import require_own
from yolo_kd.evidence.quantization_report import chosen, report
from yolo_kd.evidence.report import write_report
from yolo_kd.evidence.search import NOTES, TARGETS, Trial
from yolo_kd.evidence.table import aligned
from yolo_kd.evidence.verdict import text
from yolo_kd.modes.calibrate import gather, require_own_list, tell, warn
from yolo_kd.modes.gate import LIMITS, REJECTED, read_limits
from yolo_kd.modes.keys import settled

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
    "imgsz": None,  # IMGSZ of a checkpoint; an artifact has its own
    "end2end": False,
    "recipe": "default",
    "target": "latency",
    "split": "val",
    "gate": True,
    "accuracy_aware": True,
    "sensitivity": True,
    "threads": None,
    "out": None,
    "seed": 0,
    "overwrite": False,
    "trust": False,
    "debug": False,
    **LIMITS,
}
IMGSZ = 640
CALIBRATED_SHARE = 2 / 3  # of the training pictures at most; the rest is for choosing between candidates
LEAST_TUNING, MOST_TUNING = 32, 128
CHOSEN_BY = "yolo-kd quantize"  # says the list that is made here; another's is not replaced


def main(settings: dict[str, Any]) -> int:
    """Export if need be, choose calibration pictures if need be, quantize, judge; returns the exit code."""
    recipes = read_recipes(settings)
    plain = {k: v for k, v in settings.items() if "." not in k}
    keys = settled(plain, DEFAULTS, "quantize", {"count": 1}, free=("imgsz",))
    if keys["target"] == "npu":
        keys, recipes = _for_npu(keys, settings, recipes)
    _check(keys, any("." in k for k in settings))
    limits = read_limits(keys)
    judged_on = read_split(str(keys["data"]), str(keys["split"])) if keys["data"] and keys["gate"] else None
    if judged_on:
        require_pycocotools()
    parents = float_parents(keys)
    where = partial(int8_folder, out=keys["out"])
    for parent in parents:  # before minutes of calibration, or hours of a search
        require_fp32(parent)
        check_target(where(parent), keys["overwrite"])
    beside, stem = where(parents[0]).parent, Path(parents[0].model).stem
    page, listed = beside / f"{stem}_int8_report.html", beside / f"{stem}_calibration.json"
    if judged_on and not keys["overwrite"]:
        require_own(page)
    if not keys["calibration"]:
        require_own_list(listed, CHOSEN_BY, keys["overwrite"])
    calibration = _calibration(keys, listed)
    producers = {parent.format: Producer(parent, calibration, Line()) for parent in parents}
    if judged_on is None:
        return _unjudged(producers, recipes, where, keys)
    tuning = left_over(str(keys["data"]), calibration)
    if keys["recipe"] == "auto" and tuning is None:
        if settings.get("recipe") == "auto":
            raise MisuseError(
                f"recipe=auto: data={keys['data']} has too few training pictures to choose between recipes on; leave "
                "recipe= out, or lower count="
            )
        keys["recipe"] = "default"
        print("recipe=default: too few training pictures are left to choose between recipes on")
    plan = Plan(
        limits, judged_on, tuning, keys["target"], keys["threads"], keys["overwrite"], keys["accuracy_aware"],
        keys["sensitivity"],
    )  # fmt: skip
    trials: list[Trial] = []
    with tempfile.TemporaryDirectory(prefix="yolo-kd-") as work:
        if keys["recipe"] == "auto":
            outcomes, trials = fastest(producers, plan, where, Path(work))
            print(aligned([t.row() for t in trials]))
            print(NOTES[plan.target])
        else:
            outcomes = [one_recipe(p, recipes[b], plan, where(p.parent), Path(work) / b) for b, p in producers.items()]
        found = report(outcomes, trials, parents, plan)
        write_report(page, found)
    for outcome in outcomes:
        _tell_outcome(outcome, trials, found)
    if keys["target"] == "npu":
        print(
            "prepared for an NPU: run yolo-kd doctor model=<folder> device=NPU and yolo-kd gate device=NPU where there is one"
        )
    print(f"report: {page}")
    best = chosen(outcomes)
    if keys["recipe"] == "auto" and best:
        first = "most precise" if keys["target"] == "npu" else "fastest"
        print(f"the {first} that passed: {best.judged.artifact.folder}")
        return 0
    return 0 if best and all(o.judged.verdict.passed for o in outcomes) else REJECTED


def left_over(source: str, calibration: CalibrationSet) -> Split | None:
    """Training pictures that were not calibrated on, evenly out of all, for choosing between candidates.

    Args:
        source: A data.yaml.
        calibration: What was calibrated on.

    Returns:
        At most 128 pictures; None if there are fewer than 32, or no train part.
    """
    if "train" not in read_description(source).parts:
        return None
    split = read_split(source, "train")
    taken = {path.resolve() for path in calibration.images}
    rest = [path for path in split.images if path.resolve() not in taken]
    some = [rest[i] for i in np.unique(np.linspace(0, len(rest) - 1, min(len(rest), 2 * MOST_TUNING)).astype(int))]
    known = set(calibration.hashes)
    fresh = [path for path in some if sha256(path) not in known]
    step = max(1, len(fresh) // MOST_TUNING)
    return replace(split, images=tuple(fresh[::step][:MOST_TUNING])) if len(fresh) >= LEAST_TUNING else None


def read_recipes(settings: Mapping[str, Any]) -> dict[str, Settings]:
    """The recipe of each back end from `openvino.key=value` and `onnx.key=value`.

    Raises:
        MisuseError: An unknown key, or a value that the recipe does not take.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in RECIPES}
    for key, value in settings.items():
        backend, dot, inner = key.partition(".")
        if not dot:
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
        MisuseError: The model is no such thing or of another size, or another export is in the way.
    """
    model, wanted = str(keys["model"]), str(keys["backend"])
    size = read_size("imgsz", IMGSZ if keys["imgsz"] is None else keys["imgsz"])
    if not model.endswith(".pt"):
        parent = read_artifact(model)
        if wanted not in ("all", parent.format):
            raise MisuseError(
                f"backend={wanted}: {model} is for {parent.format}; give the checkpoint for the other one"
            )
        if keys["imgsz"] is not None and size != parent.input_hw:
            own = "x".join(map(str, parent.input_hw))
            raise MisuseError(f"imgsz={size[0]},{size[1]}: {model} takes {own}; export another from its checkpoint")
        return [parent]
    from yolo_kd.engine.export import export

    checkpoint = Path(model)
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


def int8_folder(parent: Artifact, out: str | Path | None = None) -> Path:
    """Where the INT8 artifact of a float one goes, as Ultralytics names it: into `out`, or beside the parent if that is None.

    A bare .onnx file, which has no folder of its own, has it beside itself.
    """
    bare = parent.format == "onnx" and not (parent.folder / MANIFEST).is_file()
    beside = parent.folder.absolute() if bare else parent.folder.absolute().parent
    folder = beside if out is None else Path(out).absolute()
    return folder / f"{Path(parent.model).stem}_int8_{parent.format}_model"


def help_text() -> str:
    """The keys."""
    lines = []
    for backend, recipe in RECIPES.items():
        lines += [f"  {backend}.{f.name}={_spell(f.default)}" for f in fields(recipe)]
    limits = "\n".join(f"  {key}={value}" for key, value in LIMITS.items())
    return f"""usage: yolo-kd quantize model=<.pt or float artifact> data=<data.yaml> [key=value ...]

Makes INT8 artifacts beside their float parents, judges each with the gate, writes a report, exits 3 if one is rejected (with
recipe=auto: if none passes). All that is measured is measured on this machine's CPU: there is no device=; yolo-kd gate
device= judges an artifact on another device.

  model=               checkpoint, or a float artifact, folder or file (then no torch is needed)
  data=                data set: its train part is calibrated on, its split= judged on; val and test are never calibrated on;
                       with calibration= it needs no train part
  backend=all          openvino, onnx or all
  recipe=default       auto tries recipes, precision hints and threads; of those within max_drop the fastest that the gate passes
                       is taken
  target=latency       what auto aims at: latency, throughput (frames/s, several under way), or npu: OpenVINO, symmetric,
                       recipe=auto where data= and gate= allow, the most precise one, not timed, refused for what an NPU
                       would stumble over; prepared without the device
  calibration=         list from yolo-kd calibrate
  count=300            calibration pictures, where the list is made here: <name>_calibration.json beside the artifacts
  imgsz={IMGSZ}            input size, a side or height,width; of a checkpoint
  end2end=false        true takes the one-to-one head of v10 and 26; of a checkpoint
  split=val            part of the data set for the gate
  gate=true            false leaves the judgement to yolo-kd gate
  accuracy_aware=true  a net whose boxes, confidences or AP are beyond the gate's limits gets its most sensitive layers back
                       in float, if {LEAST_TUNING} training pictures are left that were not calibrated on; false leaves it rejected
  sensitivity=true     names the layers with the largest error in every artifact's manifest and report; false only those of a
                       rejected one, which saves 8 runs of the net for each of its layers
  threads=             of the CPU while it is judged; the runtime chooses unless given
  out=                 where everything goes; beside the float artifact or checkpoint if left out; yolo-kd gate finds a float
                       artifact only beside its INT8 one, and takes parent= for others
  seed=0               of the choice of pictures, and of NNCF
  overwrite=false      true replaces folders and files that yolo-kd quantize did not write, and float exports of other settings
  trust=false          true lets the checkpoint run code of its own while it is loaded

limits of the gate (see yolo-kd gate --help):
{limits}

recipe; what each default was chosen by is in the docstrings of yolo_kd.deploy.quantize.openvino (within noise of others) and
.onnx; auto leaves out onnx.activations=s8 (x86 has no instruction for it) and onnx.per_channel=false (less precise there):
{chr(10).join(lines)}"""


def _for_npu(
    keys: dict[str, Any], given: Mapping[str, Any], recipes: dict[str, Settings]
) -> tuple[dict[str, Any], dict[str, Settings]]:
    """The keys and recipes that a plan for an NPU implies; a line says what was chosen.

    Raises:
        MisuseError: A key that asks for something else.
    """
    if keys["backend"] not in ("all", "openvino"):
        raise MisuseError(f"backend={keys['backend']}: target=npu is served by OpenVINO alone; leave backend= out")
    own = [key for key in given if key.startswith("openvino.")]
    if "openvino.preset" in own and given["openvino.preset"] != "performance":
        raise MisuseError(
            f"openvino.preset={given['openvino.preset']}: target=npu takes symmetric activations; leave it out"
        )
    recipe = keys["recipe"]
    if "recipe" not in given and keys["data"] and keys["gate"] and not own:
        recipe = "auto"
    print(f"target=npu: backend=openvino, recipe={recipe}, openvino.preset=performance")
    asked = recipes["openvino"]
    assert isinstance(asked, OpenVINOSettings)
    symmetric = {**recipes, "openvino": replace(asked, preset="performance")}
    return {**keys, "backend": "openvino", "recipe": recipe}, symmetric


def _unjudged(
    producers: Mapping[str, Producer],
    recipes: Mapping[str, Settings],
    where: Callable[[Artifact], Path],
    keys: Mapping[str, Any],
) -> int:
    """Artifacts without a verdict; the exit code."""
    code = 0
    for backend, producer in producers.items():
        made = producer.write(recipes[backend], where(producer.parent), keys["overwrite"])
        if keys["sensitivity"]:
            worst = named(producer.sensitivity(recipes[backend], made))
            made = write_manifest(replace(made, facts={**made.facts, "sensitivity": worst}))
        _say(made)
        for fault in npu_faults(made) if keys["target"] == "npu" else ():
            code = REJECTED
            print(f"  on an NPU: {fault}")
    print("not judged yet: yolo-kd gate artifact=<folder> data=<data.yaml>")
    return code


def _tell_outcome(outcome: Outcome, trials: Sequence[Trial], found: Report) -> None:
    """The gate's word, whose speed is against the parent, and that of the search, against the fastest float of all."""
    _say(outcome.judged.artifact)
    print(text(outcome.judged))
    if outcome.trial is not None and outcome.trial.seconds != float("inf"):
        print(f"  in the search: {speed_line(found.rows[trials.index(outcome.trial)], found)}")


def _say(artifact: Artifact) -> None:
    layers = artifact.facts["layers"]
    print(
        f"{artifact.folder}: {layers['int8_convolutions']} convolutions on integers, {layers['float_convolutions']} in float"
    )
    for row in artifact.facts.get("sensitivity", ()) if artifact.verdict is None else ():
        print(f"  largest error of one layer alone: {row['error']:.4f} {row['layer']}")


def _check(keys: Mapping[str, Any], own_recipe: bool) -> None:
    if not keys["model"]:
        raise MisuseError("model= is missing: yolo-kd quantize model=best.pt data=<data.yaml>")
    for key, known in (("backend", (*RECIPES, "all")), ("recipe", ("default", "auto")), ("target", TARGETS)):
        if keys[key] not in known:
            near = did_you_mean(str(keys[key]), known)
            raise MisuseError(f"{key}={keys[key]}: expected {', '.join(known[:-1])} or {known[-1]}{near}")
    if not keys["calibration"] and not keys["data"]:
        raise MisuseError("data= is missing: name a data.yaml to calibrate on, or a list with calibration=")
    if not keys["calibration"] and "train" not in read_description(str(keys["data"])).parts:
        raise MisuseError(
            f"data={keys['data']}: has no 'train' part to calibrate on; choose pictures with yolo-kd calibrate "
            f"source=<folder or video> evaluation={keys['data']}, and name the list with calibration="
        )
    if keys["recipe"] == "auto" and not (keys["data"] and keys["gate"]):
        raise MisuseError("recipe=auto: needs data= and gate=true, because candidates are compared and judged on it")
    if keys["recipe"] == "auto" and own_recipe:
        raise MisuseError("recipe=auto: tries recipes of its own; leave openvino.* and onnx.* out")
    if keys["target"] == "throughput" and keys["recipe"] != "auto":
        raise MisuseError(f"target={keys['target']}: is what a search aims at; add recipe=auto")


def _calibration(keys: Mapping[str, Any], out: Path) -> CalibrationSet:
    """The list given, or one chosen from the data set and written to `out`."""
    if keys["calibration"]:
        given = read_calibration(str(keys["calibration"]))
        warn(given)
        return given
    there = len(read_split(str(keys["data"]), "train").images)
    count = min(keys["count"], max(1, int(there * CALIBRATED_SHARE)))
    if count < keys["count"]:
        print(
            f"count={keys['count']}: {count} of {there} training pictures are taken, the rest is for comparing candidates"
        )
    found = gather(str(keys["data"]), count, None, out, int(keys["seed"]), chosen_by=CHOSEN_BY)
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
