"""Which engine runs the teacher: measured against float32 on real batches, then the fastest that agrees.

The decision is arithmetic on rows of numbers (`decide`), apart from building and running engines (`choose`).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from yolo_kd.cfg.settings import DistillSettings
from yolo_kd.engine import machine
from yolo_kd.engine.agreement import Agreement, compare
from yolo_kd.engine.ir_cache import FOLDER, key_digest, write_json
from yolo_kd.engine.openvino_engine import Builder, images_digest
from yolo_kd.engine.openvino_graph import missing_packages
from yolo_kd.engine.teacher import Engine, Teacher, TorchEngine, half_precision
from yolo_kd.errors import GateError, MisuseError, YoloKDError

REFERENCE = "torch-fp32"
DTYPES = {"torch-bf16": torch.bfloat16, "torch-fp16": torch.float16, REFERENCE: torch.float32}
CHECK_BATCHES = 2  # agreement and speed are measured on these; INT8 is calibrated on the others
TIMED_RUNS = 3
TIMED_SECONDS = 5.0  # no further run once this is spent
ROWS_VERSION = 1  # raise it when the numbers of a row change their meaning
NOT_TRIED = "not tried: INT8 in the backbone alone is already too far off"


@dataclass(frozen=True)
class Limits:
    """How far an engine may be from float32.

    Args:
        feature: Relative error of any neck map (`max_feature_error`).
        score: Score error, see `Agreement` (`max_score_error`).
    """

    feature: float
    score: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        engine: Its name.
        agreement: With float32; None if it did not run.
        ms: Milliseconds per image; None if it did not run.
        trouble: Why it did not run.
    """

    engine: str
    agreement: Agreement | None = None
    ms: float | None = None
    trouble: str = ""


@dataclass(frozen=True)
class Choice:
    """What runs the teacher and why.

    Args:
        name: Engine name for `Teacher.use`.
        engine: The engine.
        rows: What was measured.
        reused: Whether an earlier decision of the same key was taken over.
    """

    name: str
    engine: Engine
    rows: tuple[Row, ...]
    reused: bool = False


def objection(row: Row, limits: Limits, strides: Sequence[int]) -> str:
    """Why this row cannot be chosen: number, limit and key; empty if it can.

    >>> objection(Row("x", Agreement((0.01, 0.2), 0.05), 3.0), Limits(0.05, 0.1), (8, 16))
    'P4 .200 > max_feature_error .050'
    """
    if row.agreement is None:
        return row.trouble
    found = row.agreement
    if not all(map(math.isfinite, [*found.features, found.score, found.score_mean, found.score_max])):
        return "outputs are not finite"
    reasons = [
        f"{level_name(stride)} {_short(error)} > max_feature_error {_short(limits.feature)}"
        for stride, error in zip(strides, found.features, strict=True)
        if error > limits.feature
    ]
    if found.score > limits.score:
        reasons.append(f"score {_short(found.score)} > max_score_error {_short(limits.score)}")
    return ", ".join(reasons)


def decide(rows: Sequence[Row], limits: Limits, strides: Sequence[int]) -> str | None:
    """Name of the fastest engine without objection, None if there is none."""
    good = [row for row in rows if row.ms is not None and not objection(row, limits, strides)]
    return min(good, key=lambda row: row.ms or 0.0).engine if good else None


def least_off(rows: Sequence[Row], limits: Limits) -> str | None:
    """Name of the engine that ran and exceeds its limits by the smallest factor, None if none ran."""

    def excess(row: Row) -> float:
        assert row.agreement is not None
        worst = max(max(row.agreement.features) / limits.feature, row.agreement.score / limits.score)
        return math.inf if math.isnan(worst) else worst

    ran = [row for row in rows if row.agreement is not None]
    return min(ran, key=excess).engine if ran else None


def candidates(wanted: str, device: torch.device) -> list[str]:
    """Engine names to try for a `teacher_engine`, each less exact than the one before.

    Raises:
        MisuseError: The wanted engine cannot run on this device or CPU.
    """
    half = half_precision(device)
    in_torch = [name for name, dtype in DTYPES.items() if dtype in (torch.float32, half)][::-1]
    if wanted == "torch" or (wanted == "auto" and device.type != "cpu"):
        return in_torch
    if device.type != "cpu":
        raise MisuseError(
            f"teacher_engine={wanted}: OpenVINO runs on the CPU, training is on {device}; use torch or auto"
        )
    plain = "openvino-bf16" if machine.has_bf16() else "openvino-fp32"
    if wanted == "openvino-bf16":
        if plain != wanted:
            raise MisuseError(f"teacher_engine={wanted}: this CPU ({machine.describe()}) has no bf16; use auto")
        return [wanted]
    quantized = ["openvino-int8", "openvino-int8-all"]
    return quantized if wanted == "openvino-int8" else [*in_torch, plain, *quantized]


def batches_needed(settings: DistillSettings, batch: int) -> int:
    """How many batches of this size `choose` uses."""
    return CHECK_BATCHES + math.ceil(settings.calibration_images / batch)


def choose(
    teacher: Teacher,
    settings: DistillSettings,
    batches: Sequence[Tensor],
    cache: Path,
    log: Callable[[str], None],
) -> Choice:
    """Build and measure the candidates of `settings.teacher_engine` and pick the fastest that agrees with float32.

    On several ranks call it on the first, and `build` with its choice on the others: timings differ.

    Args:
        teacher: It keeps the engine that it has; `use` is the caller's.
        settings: Wanted engine, limits, calibration images, force.
        batches: Augmented training batches (B, C, H, W) in [0, 1] on the teacher's device, all of the training's shape;
            `batches_needed` says how many.
        cache: Folder for converted models and decisions.
        log: Receives single lines, the table among them.

    Raises:
        MisuseError: The forced engine is not installed or does not run here.
        GateError: The forced engine is too far from float32, and `force` is off.
        YoloKDError: The forced engine could not be built.
    """
    wanted = settings.teacher_engine
    names = candidates(wanted, teacher.device)
    if wanted.startswith("openvino") and (missing := missing_packages("int8" in wanted)):
        raise MisuseError(
            f"teacher_engine={wanted}: {' and '.join(missing)} not installed; run: pip install yolo-kd[openvino]"
        )
    builder = _builder(teacher, settings, names, batches, cache, log)
    key = _key(teacher, settings, batches)
    path = cache / FOLDER / f"{teacher.sha256[:16]}-measured-{key_digest(key)}.json"
    limits = Limits(settings.max_feature_error, settings.max_score_error)
    rows, engines, reused = _earlier(path, key, log), {}, True
    if rows is None:
        rows, engines = _measure(teacher, settings, builder, names, batches[:CHECK_BATCHES], limits)
        reused = False
        if all(row.agreement or row.trouble == NOT_TRIED for row in rows):
            write_json(path, {"key": key, "rows": [asdict(row) for row in rows]})
    chosen = decide(rows, limits, teacher.strides)
    for line in table(rows, limits, teacher.strides, chosen):
        log(line)
    if chosen is None:
        chosen = REFERENCE if REFERENCE in names else _forced(rows, limits, teacher.strides, settings, log)
    engine = engines.get(chosen) or build(chosen, teacher, settings.teacher_compile, builder)
    return Choice(chosen, engine, tuple(rows), reused)


def build(name: str, teacher: Teacher, compiled: bool, builder: Builder) -> Engine:
    """The engine of that name.

    Args:
        name: As in a Choice.
        teacher: Whose net it is.
        compiled: Use torch.compile for an engine in torch.
        builder: Builds those in OpenVINO.
    """
    if name in DTYPES:
        return TorchEngine(teacher.net, teacher.device, DTYPES[name], compiled)
    return builder.build(name)


def table(rows: Sequence[Row], limits: Limits, strides: Sequence[int], chosen: str | None) -> Iterator[str]:
    """The rows as aligned lines, a heading first."""
    width = max(len("teacher engine"), *(len(row.engine) for row in rows))
    levels = " ".join(f"{level_name(s):>5}" for s in strides)
    yield f"{'teacher engine':<{width}} {levels} {'score':>5} {'ms/image':>8}  (errors against float32)"
    for row in rows:
        if row.agreement is None or row.ms is None:
            numbers = " ".join([f"{'-':>5}"] * (len(strides) + 1)) + f" {'-':>8}"
        else:
            errors = [*row.agreement.features, row.agreement.score]
            numbers = " ".join(f"{_short(e):>5}" for e in errors) + f" {row.ms:>8.1f}"
        verdict = objection(row, limits, strides) or ("chosen" if row.engine == chosen else "passes")
        yield f"{row.engine:<{width}} {numbers}  {verdict}"


def level_name(stride: int) -> str:
    """The usual name of a pyramid level.

    >>> level_name(8), level_name(32)
    ('P3', 'P5')
    """
    return f"P{int(math.log2(stride))}"


def _measure(
    teacher: Teacher,
    settings: DistillSettings,
    builder: Builder,
    names: Sequence[str],
    batches: Sequence[Tensor],
    limits: Limits,
) -> tuple[list[Row], dict[str, Engine]]:
    """A row for every name, and the engines that ran."""
    rows: list[Row] = []
    engines: dict[str, Engine] = {}
    exact = TorchEngine(teacher.net, teacher.device, torch.float32)
    probe = copy(teacher)
    probe.use(REFERENCE, exact)
    reference = [probe(img) for img in batches]
    for name in names:
        backbone = next((row for row in rows if row.engine == "openvino-int8" and row.agreement), None)
        if name == "openvino-int8-all" and backbone and objection(backbone, limits, teacher.strides):
            rows.append(Row(name, trouble=NOT_TRIED))
            continue
        try:
            reuse = name == REFERENCE and not settings.teacher_compile
            engine = exact if reuse else build(name, teacher, settings.teacher_compile, builder)
            probe.use(name, engine)
            agreement = compare(reference, [probe(img) for img in batches])
            rows.append(Row(name, agreement, _milliseconds(probe, batches[0])))
            engines[name] = engine
        except Exception as error:  # whatever a runtime raises is a reason in the table, not the end of the run
            reason = str(error) if isinstance(error, YoloKDError) else f"{type(error).__name__}: {error}"
            rows.append(Row(name, trouble=" ".join(reason.split())[:200]))
    return rows, engines


def _milliseconds(teacher: Teacher, img: Tensor) -> float:
    """Median time per image; the teacher has run on this shape before."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < TIMED_RUNS and sum(seconds) < TIMED_SECONDS):
        start = time.perf_counter()
        teacher(img)
        if img.is_cuda:
            torch.cuda.synchronize(img.device)
        seconds.append(time.perf_counter() - start)
    return median(seconds) / len(img) * 1e3


def _forced(
    rows: Sequence[Row],
    limits: Limits,
    strides: Sequence[int],
    settings: DistillSettings,
    log: Callable[[str], None],
) -> str:
    """What runs although no row of the forced engine passes, or why nothing may."""
    wanted, name = settings.teacher_engine, least_off(rows, limits)
    if name is None:
        raise YoloKDError("; ".join(row.trouble for row in rows) + "; use teacher_engine=auto")
    reason = objection(next(row for row in rows if row.engine == name), limits, strides)
    if not settings.force:
        raise GateError(
            f"teacher_engine={wanted}: too far from float32 ({reason}); "
            "use teacher_engine=auto, raise that limit, or go on with force=true"
        )
    log(f"teacher engine: {name} is used although it is too far from float32 ({reason}), because force=true")
    return name


def _builder(
    teacher: Teacher,
    settings: DistillSettings,
    names: Sequence[str],
    batches: Sequence[Tensor],
    cache: Path,
    log: Callable[[str], None],
) -> Builder:
    calibration = torch.cat(list(batches[CHECK_BATCHES:] or batches))[: settings.calibration_images].cpu()
    if len(calibration) < settings.calibration_images and any("int8" in name for name in names):
        log(f"teacher engine: {len(calibration)} calibration images, {settings.calibration_images} asked for")
    shape = batches[0].shape
    return Builder(teacher.net, teacher.sha256, (shape[0], shape[1], shape[2], shape[3]), calibration, cache, log)


def _key(teacher: Teacher, settings: DistillSettings, batches: Sequence[Tensor]) -> dict[str, Any]:
    """All that the rows depend on."""
    return {
        "version": ROWS_VERSION,
        "teacher": teacher.sha256,
        "outputs": teacher.net.output_names(),
        "strides": list(teacher.strides),
        "device": str(teacher.device) if teacher.device.type == "cpu" else torch.cuda.get_device_name(teacher.device),
        "cpu": [machine.model_name(), *sorted(machine.cpu_flags())],
        "threads": torch.get_num_threads(),
        "versions": {name: _version(name) for name in ("torch", "openvino", "nncf")},
        "wanted": settings.teacher_engine,
        "compiled": settings.teacher_compile,
        "limits": [settings.max_feature_error, settings.max_score_error],
        "calibration": settings.calibration_images,
        "images": images_digest(torch.cat(list(batches)).cpu()),
    }


def _earlier(path: Path, key: Mapping[str, Any], log: Callable[[str], None]) -> list[Row] | None:
    """The rows that were measured for this key, if they are there."""
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
        if found["key"] != key:
            raise ValueError("measured for another key")
        rows = [Row(r["engine"], _agreement(r["agreement"]), r["ms"], r["trouble"]) for r in found["rows"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        log(f"teacher engine: {path} is damaged ({' '.join(str(error).split())[:120]}); measuring again")
        return None
    log(f"teacher engine: as measured before on this machine (delete {path} to measure again)")
    return rows


def _agreement(plain: Mapping[str, Any] | None) -> Agreement | None:
    return None if plain is None else Agreement(**{**plain, "features": tuple(plain["features"])})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _short(number: float) -> str:
    """Three decimals without a leading zero.

    >>> _short(0.0421), _short(1.5)
    ('.042', '1.500')
    """
    return f"{number:.3f}".removeprefix("0") if number < 1 else f"{number:.3f}"
