"""Which recipe, precision hint and number of threads is the fastest on this device without losing more than allowed.

Every candidate is built and measured, and stays in the table: precision on pictures that were neither calibrated on nor are
judged on, time in turns with all others. Floats are candidates too, in what the runtime picks by itself and in float32,
because a speed-up means something only against the float that would run otherwise: OpenVINO takes bf16 where the CPU has
it and does not say so.

Not tried: int8 activations of ONNX Runtime (`onnx.activations=s8`), which x86 has no instruction for, and one scale for all
channels of a weight (`onnx.per_channel=false`), less precise on each net that was tried; both can be asked for by name.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.data.split import Split
from yolo_kd.deploy import machine
from yolo_kd.deploy.artifact import MANIFEST, Artifact
from yolo_kd.deploy.quantize.onnx import ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings
from yolo_kd.deploy.quantize.produce import Producer, Settings
from yolo_kd.deploy.runtime import Detector, open_detector
from yolo_kd.errors import GateError, MisuseError, YoloKDError
from yolo_kd.evidence.evaluation import LOW_CONFIDENCE, look, read_frame
from yolo_kd.evidence.judge import time_in_turn

TARGETS = ("latency", "throughput", "npu")
TIMED = 60  # runs of each candidate
BURSTS = 3  # lists of frames of each candidate, for throughput
FRAMES = 8

RECIPES: Mapping[str, Mapping[str, Settings]] = {
    "openvino": {
        "default": OpenVINOSettings(),
        "quantile ranges": OpenVINOSettings(ranges="quantile"),
        "float stem": OpenVINOSettings(stem=3),
        "float head": OpenVINOSettings(head="float"),
        "symmetric": OpenVINOSettings(preset="performance"),
        "fast bias": OpenVINOSettings(bias="fast"),
    },
    "onnx": {
        "default": ONNXSettings(),
        "int8 head": ONNXSettings(head="int8"),
        "int8 stem": ONNXSettings(stem=0),
        "percentile": ONNXSettings(ranges="percentile"),
    },
}
# An NPU wants symmetric weights and activations, and no float islands between integers.
NPU_RECIPES: Mapping[str, Settings] = {
    "symmetric": OpenVINOSettings(preset="performance"),
    "symmetric, quantile ranges": OpenVINOSettings(preset="performance", ranges="quantile"),
    "symmetric, fast bias": OpenVINOSettings(preset="performance", bias="fast"),
}
# What the reader of a search's table has to know.
NOTES: Mapping[str, str] = {
    "latency": "p50 and p95: one frame after the other, candidates in turns.",
    "throughput": f"frames/s: median of {BURSTS} lists of {4 * FRAMES} frames, several frames under way at once; a frame has no "
    "time of its own then, so there is no p50 and no p95.",
    "npu": "Not timed: what this CPU needs for them says nothing about an NPU. The most precise one comes first.",
}


@dataclass(frozen=True)
class Way:
    """How an artifact is run.

    Args:
        precision: Hint for what is not INT8; the device's choice if None.
        threads: Of the CPU; the runtime's choice if None.
    """

    precision: str | None = None
    threads: int | None = None


@dataclass(frozen=True)
class Trial:
    """A candidate and what was measured of it.

    Args:
        name: Recipe, or "float".
        artifact: What was made; None if that failed.
        backend: "openvino" or "onnx".
        way: How it is run.
        settings: The recipe; None for the float parent.
        runs_in: The precision that really ran.
        ap: Average precision on the tuning pictures; None without labels.
        by_size: AP of small, medium and large boxes.
        p50: Median milliseconds a frame; None for throughput, and for an NPU.
        p95: Of every twenty frames nineteen are faster.
        fps: Frames per second; None but for throughput.
        size_mb: Megabytes of its files.
        failure: Why it could not be made or run.
        rejected: The gate's reasons, if it tried the gate and was rejected.
    """

    name: str
    artifact: Artifact | None
    backend: str
    way: Way
    settings: Settings | None = None
    runs_in: str = ""
    ap: float | None = None
    by_size: Mapping[str, float | None] = field(default_factory=dict)
    p50: float | None = None
    p95: float | None = None
    fps: float | None = None
    size_mb: float = 0.0
    failure: str = ""
    rejected: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Per frame, by what was aimed at; infinite for what did not run."""
        if self.fps:
            return 1 / self.fps
        return self.p50 / 1000 if self.p50 else float("inf")

    def row(self) -> dict[str, Any]:
        """The line of a table."""
        recipe = {} if self.settings is None else changed(self.settings)
        return {
            "back end": self.backend,
            "recipe": self.name,
            "settings": ", ".join(f"{k}={v}" for k, v in recipe.items()),
            "precision": self.way.precision,
            "threads": self.way.threads,
            "runs in": self.runs_in,
            "AP": self.ap,
            "p50 ms": self.p50,
            "p95 ms": self.p95,
            "frames/s": self.fps,
            "MB": self.size_mb,
            "rejected": self.failure or "; ".join(self.rejected) or None,
        }


def changed(settings: Settings) -> dict[str, Any]:
    """What a recipe does otherwise than the default one."""
    plain = asdict(type(settings)())
    return {key: value for key, value in asdict(settings).items() if value != plain[key]}


def ways(artifact: Artifact, cores: int) -> list[Way]:
    """How an artifact may be run on this CPU: the runtime's choice, float32 where that is not it, half of the cores."""
    hints: list[str | None] = [None]
    if artifact.format == "openvino" and machine.has_bf16():
        hints.append("f32")
    threads = [None] if cores == 1 else [None, cores // 2]
    return [Way(hint, count) for hint in hints for count in threads]


def ranked(trials: Sequence[Trial], backend: str, max_drop: float) -> list[Trial]:
    """The INT8 candidates of a back end that lose no more than allowed against its float.

    The fastest comes first, of equally fast ones, such as those that nobody timed, the most precise. Without labels nothing
    is known of the loss, and all that ran are taken.
    """
    own = [t for t in trials if t.backend == backend and not t.failure]
    parents = [t.ap for t in own if t.settings is None and t.way.precision is None and t.ap is not None]
    kept = [
        t
        for t in own
        if t.settings is not None and (not parents or (t.ap is not None and parents[0] - t.ap <= max_drop))
    ]
    return sorted(kept, key=lambda t: (t.seconds, -(t.ap or 0.0)))


def search(
    producers: Mapping[str, Producer],
    tuning: Split,
    target: str,
    folder: Path,
    timed: int = TIMED,
    tell: Any = print,
) -> list[Trial]:
    """Make and measure every candidate.

    Args:
        producers: One for each back end.
        tuning: Pictures to compare the candidates on.
        target: "latency" or "throughput"; "npu" takes the recipes for one, and times nothing.
        folder: Where the artifacts go, each in a folder of its own.
        timed: Runs of each candidate.
        tell: Called with a line for each step.
    """
    trials: list[Trial] = []
    for backend, producer in producers.items():
        recipes = NPU_RECIPES if target == "npu" else RECIPES[backend]
        made: list[tuple[str, Settings | None, Artifact | None, str]] = [("float", None, producer.parent, "")]
        for number, (name, recipe) in enumerate(recipes.items(), 1):
            tell(f"{backend}: recipe {number} of {len(recipes)}, {name}")
            try:
                made.append((name, recipe, producer.write(recipe, folder / f"{backend}_{number}"), ""))
            except (MisuseError, YoloKDError) as error:
                made.append((name, recipe, None, str(error)))
        for name, settings, artifact, failure in made:
            if artifact is None:
                trials.append(Trial(name, None, backend, Way(), settings, failure=failure))
            else:
                plain = Trial(name, artifact, backend, Way(), settings, size_mb=size_mb(artifact))
                trials += _judged(plain, tuning, [Way()] if target == "npu" else ways(artifact, machine.cores()))
    if target == "npu":
        return trials
    tell(f"timing {sum(not t.failure for t in trials)} candidates in turns")
    frames = [read_frame(p) for p in tuning.images[:FRAMES]]
    return _bursts(trials, frames) if target == "throughput" else _turns(trials, frames, timed)


def average_precision(artifact: Artifact, tuning: Split, way: Way = Way(), label: str = "") -> tuple[Any, str]:
    """Precision of an artifact on labelled pictures (None without a label), and what it ran in."""
    with _open(artifact, way, confidence=LOW_CONFIDENCE, multi_label=True) as detector:
        seen = look(detector, tuning, label)
        labelled = any(len(t.xyxy) for t in seen.truths)
        return (seen.meter().precision() if labelled else None), detector.backend.precision


def _judged(plain: Trial, tuning: Split, tried: Sequence[Way]) -> list[Trial]:
    """An artifact in every way it may be run, with its precision; threads do not change numbers."""
    assert plain.artifact is not None
    known: dict[str | None, Trial] = {}
    found = []
    for way in tried:
        if way.precision not in known:
            label = f"{plain.backend} {plain.name}{f' {way.precision}' if way.precision else ''}"
            try:
                precision, ran = average_precision(plain.artifact, tuning, way, label)
                ap, sizes = (precision.ap, precision.by_size) if precision else (None, {})
                known[way.precision] = replace(plain, ap=ap, by_size=sizes, runs_in=ran)
            except (YoloKDError, GateError) as error:
                known[way.precision] = replace(plain, failure=str(error))
        found.append(replace(known[way.precision], way=way))
    return found


def _turns(trials: Sequence[Trial], frames: Sequence[np.ndarray], timed: int) -> list[Trial]:
    """The trials with their latencies."""
    with contextlib.ExitStack() as stack:
        there = [i for i, t in enumerate(trials) if not t.failure]
        opened = [stack.enter_context(_open(trials[i].artifact, trials[i].way)) for i in there]
        times = time_in_turn(opened, frames, timed)
    found = list(trials)
    for i, spent in zip(there, times, strict=True):
        found[i] = replace(found[i], p50=statistics.median(spent), p95=float(np.percentile(spent, 95)))
    return found


def _bursts(trials: Sequence[Trial], frames: Sequence[np.ndarray]) -> list[Trial]:
    """The trials with their frames per second over a list, several frames under way at once."""
    found = list(trials)
    listed = [frames[i % len(frames)] for i in range(4 * FRAMES)]
    rates: dict[int, list[float]] = {i: [] for i, t in enumerate(trials) if not t.failure}
    with contextlib.ExitStack() as stack:
        opened = {i: stack.enter_context(_open(trials[i].artifact, trials[i].way, mode="throughput")) for i in rates}
        for burst in range(BURSTS + 1):
            for i, detector in opened.items():
                start = time.perf_counter()
                for _ in detector.many(listed):
                    pass
                if burst:  # the first one warms up
                    rates[i].append(len(listed) / (time.perf_counter() - start))
    for i, rate in rates.items():
        found[i] = replace(found[i], fps=statistics.median(rate))
    return found


def _open(artifact: Artifact | None, way: Way, **options: Any) -> Detector:
    assert artifact is not None
    return open_detector(
        artifact, threads=way.threads, precision=way.precision, allow_rejected=True, cache=False, **options
    )


def size_mb(artifact: Artifact) -> float:
    """Megabytes of an artifact's files without the manifest."""
    files = (p for p in artifact.folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return sum(p.stat().st_size for p in files) / 1e6
