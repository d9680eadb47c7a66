"""Acceptance on the device itself, without torch or labels: is this the student that was judged, and does it keep up?

Hashes first, then the boxes on the bundle's reference pictures beside those of the float parent, then load: latency at
the start and after minutes of it (heat makes a device slower), and memory that must not grow.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from yolo_kd.deploy import bundle, machine
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.quantize.agreement import Agreement, agree
from yolo_kd.deploy.runtime import open_detector

from yolo_kd.errors import MisuseError

WARM_UP = 10  # runs before the first one counts
START_S = 10.0  # seconds of load that count as the start


@dataclass(frozen=True)
class Limits:
    """What is tolerated on the device.

    Args:
        min_f1: Matched F1 with the float parent's boxes on the reference pictures.
        min_iou: Mean IoU of the matched boxes.
        max_score_error: Mean absolute difference of their confidences.
        max_slowing: Median latency at the end of the load as a multiple of that at its start.
        max_growth_mb: Growth of resident memory under load, in MB.
        max_ms: Median latency at the end in milliseconds; None for no limit.
    """

    min_f1: float = 0.9
    min_iou: float = 0.85
    max_score_error: float = 0.05
    max_slowing: float = 1.25
    max_growth_mb: float = 30.0
    max_ms: float | None = None


@dataclass(frozen=True)
class Load:
    """What minutes of load showed.

    Args:
        frames: Number of frames.
        start_ms: Median, 95th and 99th percentile of the latency in the first seconds.
        end_ms: The same in as many seconds at the end.
        growth_mb: Resident memory at the end minus that after the warm-up.
        resident_mb: Resident memory at the end.
    """

    frames: int
    start_ms: tuple[float, float, float]
    end_ms: tuple[float, float, float]
    growth_mb: float
    resident_mb: float


def accept(
    path: Path,
    minutes: float = 1.0,
    device: str = "CPU",
    threads: int | None = None,
    require_signature: Path | None = None,
    limits: Limits = Limits(),
) -> dict[str, Any]:
    """The report of a bundle on this device: verdict, reasons, parity, load, machine.

    Raises:
        GateError: The bundle is not what was judged: tampered, truncated, unsigned.
        MisuseError: A device or package that is not there, or a bundle without reference pictures.
    """
    with tempfile.TemporaryDirectory(prefix="yolo-kd-accept-") as temporary:
        folder = Path(temporary) / "bundle"
        artifact = bundle.unpack(path, folder, require_signature)
        references = bundle.read_references(folder, artifact.names)
        if not references:
            raise MisuseError(f"{path}: holds no reference pictures; bundle the artifact with some")
        pictures = [picture for picture, _ in references]
        begun = time.monotonic()
        with open_detector(artifact, device=device, threads=threads, cache=False) as detector:
            started_s = time.monotonic() - begun
            same = agree([wanted for _, wanted in references], [detector(p) for p in pictures])
            load = put_under_load(detector, pictures, 60 * minutes)
            ran, where = detector.backend.precision, detector.backend.device
    reasons = decide(same, load, limits)
    return {
        "bundle": path.name,
        "passed": not reasons,
        "reasons": reasons,
        "signed": require_signature is not None,
        "parity": {**asdict(same), "f1": same.f1, "pictures": len(pictures)},
        "load": {**asdict(load), "minutes": minutes},
        "start_seconds": started_s,
        "limits": asdict(limits),
        "device": {"name": where, "runs in": ran, "cpu": machine.model_name(), "isa": machine.describe()},
    }


def put_under_load(
    detect: Callable[[np.ndarray], Detections],
    frames: Sequence[np.ndarray],
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
    resident: Callable[[], float] | None = None,
) -> Load:
    """Run frames one after another for a time.

    Args:
        detect: What is to be loaded.
        frames: Taken in turn.
        seconds: How long.
        clock: Seconds that only grow.
        resident: Resident memory of this process in MB.
    """
    resident = resident or resident_mb
    for index in range(WARM_UP):
        detect(frames[index % len(frames)])
    before, begun = resident(), clock()
    times: list[tuple[float, float]] = []
    while not times or clock() - begun < seconds:
        start = clock()
        detect(frames[len(times) % len(frames)])
        times.append((start - begun, 1000 * (clock() - start)))
    span = min(START_S, seconds / 2)
    total = times[-1][0]
    first = [ms for at, ms in times if at <= span]
    last = [ms for at, ms in times if at >= total - span]
    after = resident()
    return Load(len(times), _percentiles(first), _percentiles(last), after - before, after)


def decide(same: Agreement, load: Load, limits: Limits) -> list[str]:
    """Why the device cannot be accepted; nothing if it can."""
    reasons = []
    if same.candidate == 0 and same.parent > 0:
        reasons.append(f"detects nothing on the reference pictures, the float parent {same.parent} boxes")
    elif same.f1 < limits.min_f1:
        reasons.append(f"boxes disagree with the float parent: F1 {same.f1:.3f}, expected {limits.min_f1:g} or more")
    elif same.matched and (same.iou < limits.min_iou or same.score_error > limits.max_score_error):
        reasons.append(
            f"boxes are off: mean IoU {same.iou:.3f} (expected {limits.min_iou:g}), confidences off by "
            f"{same.score_error:.3f} (allowed {limits.max_score_error:g})"
        )
    slowing = load.end_ms[0] / load.start_ms[0]
    if slowing > limits.max_slowing:
        reasons.append(
            f"slows down under load: {load.start_ms[0]:.1f} ms at the start, {load.end_ms[0]:.1f} ms at the end "
            f"({slowing:.2f} x, allowed {limits.max_slowing:g} x); check cooling and power"
        )
    if load.growth_mb > limits.max_growth_mb:
        reasons.append(f"memory grows under load by {load.growth_mb:.0f} MB, allowed {limits.max_growth_mb:g} MB")
    if limits.max_ms is not None and load.end_ms[0] > limits.max_ms:
        reasons.append(f"too slow: {load.end_ms[0]:.1f} ms per frame, allowed {limits.max_ms:g} ms")
    return reasons


def resident_mb() -> float:
    """Resident memory of this process in MB; its peak where the system tells no more."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(row for row in status.read_text().splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def _percentiles(times: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = np.percentile(times, (50, 95, 99))
    return float(low), float(middle), float(high)
