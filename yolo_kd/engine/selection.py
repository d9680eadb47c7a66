"""Which engine runs the teacher: measured against float32 on real batches, then the fastest that agrees.

The decision itself is arithmetic on rows of numbers (engine_rows.py); this builds, runs and times the engines.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from yolo_kd.cfg.atomic import write_text
from yolo_kd.cfg.home import HOME
from yolo_kd.cfg.settings import DistillSettings
from yolo_kd.deploy import machine
from yolo_kd.distillers.base import HeadOutput
from yolo_kd.engine.agreement import Agreement, compare
from yolo_kd.engine.engine_rows import Limits, Row, decide, least_off, objection, table
from yolo_kd.engine.exact import installed
from yolo_kd.engine.ir_cache import FOLDER, key_digest
from yolo_kd.engine.openvino_engine import Builder, images_digest
from yolo_kd.engine.openvino_graph import require_packages
from yolo_kd.engine.teacher import Engine, Teacher, TorchEngine, half_precision
from yolo_kd.errors import GateError, MisuseError, YoloKDError

REFERENCE = "torch-fp32"
DTYPES = {"torch-bf16": torch.bfloat16, "torch-fp16": torch.float16, REFERENCE: torch.float32}
CHECK_BATCHES = 2  # agreement and speed are measured on these; INT8 is calibrated on the others
TIMED_RUNS = 5
TIMED_SECONDS = 5.0  # of one engine; no further run of it once they are spent
ROWS_VERSION = 1  # raise it when the numbers of a row change their meaning
NOT_TRIED = "not tried: INT8 in the backbone alone is already too far off"


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


def batches_needed(settings: DistillSettings, batch: int, device: torch.device) -> int:
    """How many batches of this size `choose` uses; INT8 wants some to calibrate on."""
    quantized = any("int8" in name for name in candidates(settings.teacher_engine, device))
    return CHECK_BATCHES + (math.ceil(settings.calibration_images / batch) if quantized else 0)


def choose(
    teacher: Teacher,
    settings: DistillSettings,
    batches: Sequence[Tensor],
    cache: Path,
    log: Callable[[str], None],
) -> Choice:
    """Build and measure the candidates of `settings.teacher_engine` and pick the fastest that agrees with float32.

    On several ranks call it on the first, and `build` with its name on the others: timings differ.

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
    if wanted.startswith("openvino"):
        require_packages(f"teacher_engine={wanted}", quantized="int8" in wanted)
    builder = _builder(teacher, settings, names, batches, cache, log)
    key = _key(teacher, settings, batches)
    path = cache / FOLDER / f"{teacher.sha256[:16]}-measured-{key_digest(key)}.json"
    limits = Limits(settings.max_feature_error, settings.max_score_error)
    rows, reused = _earlier(path, key, log), True
    engines: dict[str, Engine] = {}
    if rows is None:
        rows, engines = _measure(teacher, settings, builder, names, batches[:CHECK_BATCHES], limits)
        reused = False
        if all(row.agreement or row.trouble == NOT_TRIED for row in rows):
            _remember(path, key, rows, log)
    chosen = decide(rows, limits, teacher.strides)
    for line in table(rows, limits, teacher.strides, chosen):
        log(line)
    if chosen is None:
        chosen = REFERENCE if REFERENCE in names else _forced(rows, limits, teacher.strides, settings, log)
        _require_that_it_ran(chosen, rows, settings)
    engine = engines.get(chosen) or _build(chosen, teacher, settings.teacher_compile, builder)
    return Choice(chosen, engine, tuple(rows), reused)


def build(
    name: str,
    teacher: Teacher,
    settings: DistillSettings,
    batches: Sequence[Tensor],
    cache: Path,
    log: Callable[[str], None],
) -> Engine:
    """The engine of a Choice's name, without measuring; arguments as for `choose`."""
    return _build(name, teacher, settings.teacher_compile, _builder(teacher, settings, [name], batches, cache, log))


def _build(name: str, teacher: Teacher, compiled: bool, builder: Builder) -> Engine:
    if name in DTYPES:
        return TorchEngine(teacher.net, teacher.device, DTYPES[name], compiled)
    return builder.build(name)


def _measure(
    teacher: Teacher,
    settings: DistillSettings,
    builder: Builder,
    names: Sequence[str],
    batches: Sequence[Tensor],
    limits: Limits,
) -> tuple[list[Row], dict[str, Engine]]:
    """A row for every name, and the engines that ran."""
    exact = TorchEngine(teacher.net, teacher.device, torch.float32)
    engines: dict[str, Engine] = {}
    agreements: dict[str, Agreement] = {}
    troubles: dict[str, str] = {}

    def run(engine: Engine, img: Tensor) -> HeadOutput:
        probe = copy(teacher)
        probe.use("", engine)
        return probe(img)

    reference = [run(exact, img) for img in batches]
    for name in names:
        backbone = agreements.get("openvino-int8")
        if name == "openvino-int8-all" and backbone and objection(Row("", backbone), limits, teacher.strides):
            troubles[name] = NOT_TRIED
            continue
        try:
            reuse = name == REFERENCE and not settings.teacher_compile
            engine = exact if reuse else _build(name, teacher, settings.teacher_compile, builder)
            agreements[name] = compare(reference, [run(engine, img) for img in batches])
            engines[name] = engine
        except Exception as error:  # whatever a runtime raises is a reason in the table, not the end of the run
            reason = str(error) if isinstance(error, YoloKDError) else f"{type(error).__name__}: {error}"
            troubles[name] = " ".join(reason.split())[:200]
    times = time_runs({name: partial(run, engine, batches[0]) for name, engine in engines.items()}, batches[0])
    return [Row(n, agreements.get(n), times.get(n), troubles.get(n, "")) for n in names], engines


def time_runs(runs: Mapping[str, Callable[[], object]], img: Tensor) -> dict[str, float]:
    """Median time per image of each run, taken in turns: what else the machine does then meets all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(TIMED_RUNS):
        for name, run in runs.items():
            if sum(seconds[name]) < TIMED_SECONDS:
                start = time.perf_counter()
                run()
                if img.is_cuda:
                    torch.cuda.synchronize(img.device)
                seconds[name].append(time.perf_counter() - start)
    return {name: median(taken) / len(img) * 1e3 for name, taken in seconds.items()}


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


def _require_that_it_ran(name: str, rows: Sequence[Row], settings: DistillSettings) -> None:
    """The reference agrees with itself, so nothing but a failure keeps it from being chosen."""
    for row in rows:
        if row.engine == name and row.agreement is None:
            advice = "leave out teacher_compile=true" if settings.teacher_compile else "see debug=true"
            raise YoloKDError(
                f"teacher_engine={settings.teacher_engine}: {name} does not run here: {row.trouble}; {advice}"
            )


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
        "device": torch.cuda.get_device_name(teacher.device) if teacher.device.type == "cuda" else str(teacher.device),
        "cpu": [machine.model_name(), *sorted(machine.cpu_flags())],
        "threads": torch.get_num_threads(),
        "versions": {name: installed(name) for name in ("torch", "openvino", "nncf")},
        "wanted": settings.teacher_engine,
        "compiled": settings.teacher_compile,
        "limits": [settings.max_feature_error, settings.max_score_error],
        "calibration": settings.calibration_images,
        "images": images_digest(torch.cat(list(batches)).cpu()),
    }


def _remember(path: Path, key: Mapping[str, Any], rows: Sequence[Row], log: Callable[[str], None]) -> None:
    try:
        write_text(path, json.dumps({"key": key, "rows": [asdict(row) for row in rows]}, indent=1), HOME, shared=True)
    except YoloKDError as error:
        log(f"teacher engine: {error}; it is measured again next time")


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
