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
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.backends import Settings
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.quantize.agreement import Agreement, agree
from yolo_kd.deploy.runtime import open_detector

from yolo_kd.errors import GateError, MisuseError, YoloKDError

WARM_UP = 10  # runs before the first one counts
WINDOW_S = 60.0  # the first minute of load is compared with the last; of a shorter load the two halves
HEAT_S = 300.0  # below which a load says little about heat
MAX_FRAMES = 20_000_000  # of which the latency is kept: 80 MB that are taken before memory is looked at


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

    def __post_init__(self) -> None:
        ms = self.max_ms
        if ms is not None and (isinstance(ms, bool) or not isinstance(ms, int | float) or not 0 < ms < float("inf")):
            raise MisuseError(f"max_ms={ms}: expected milliseconds above 0, e.g. max_ms=33")


@dataclass(frozen=True)
class Load:
    """What minutes of load showed.

    Args:
        frames: Number of frames.
        start_ms: Median, 95th and 99th percentile of the latency in the first minute, or half of a shorter load.
        end_ms: The same in the last minute, or the other half.
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

    There is one whatever the bundle holds. Of one that is refused before it runs, or does not run, parity and load are None.

    Raises:
        MisuseError: No such file or key, or a value that cannot be.
        YoloKDError: There is no room to unpack it.
    """
    if not minutes > 0:
        raise MisuseError(f"minutes={minutes:g}: expected a load of more than 0 minutes")
    Settings(device=device, threads=threads)  # refuses what no device takes
    report: dict[str, Any] = {
        "bundle": path.name,
        "passed": False,
        "reasons": [],
        "remarks": [],
        "verdict": None,
        "hashes": False,
        "signed": False,
        "parity": None,
        "load": None,
        "start_seconds": None,
        "limits": asdict(limits),
        "device": _device(device),
    }
    with tempfile.TemporaryDirectory(prefix="yolo-kd-accept-") as temporary:
        folder = Path(temporary) / "bundle"
        try:
            artifact = bundle.unpack(path, folder, require_signature)
            report |= {"hashes": True, "signed": require_signature is not None, "remarks": _remarks(artifact, minutes)}
            if artifact.verdict is not None:
                report["verdict"] = asdict(artifact.verdict)
                if not artifact.verdict.passed:
                    raise GateError(f"the gate rejected the artifact: {'; '.join(artifact.verdict.reasons)}")
            references = bundle.read_references(folder, artifact.names)
            if not references:
                raise GateError(
                    "holds no reference pictures, so nothing can be compared; bundle the artifact with some"
                )
            report |= _tried(artifact, references, minutes, device, threads, limits)
        except GateError as error:
            report["reasons"] = [str(error).removeprefix(f"{path.name}: ")]
    report["passed"] = not report["reasons"]
    return report


def _tried(
    artifact: Artifact,
    references: Sequence[tuple[np.ndarray, Detections]],
    minutes: float,
    device: str,
    threads: int | None,
    limits: Limits,
) -> dict[str, Any]:
    """The part of the report that is measured: on the reference pictures, then under load."""
    found: dict[str, Any] = {}
    pictures = [picture for picture, _ in references]
    begun = time.monotonic()
    try:
        with open_detector(artifact, device=device, threads=threads, cache=False) as detector:
            found["start_seconds"] = time.monotonic() - begun
            found["device"] = _device(detector.backend.device, detector.backend.precision)
            same = agree([wanted for _, wanted in references], [detector(p) for p in pictures])
            found["parity"] = {**asdict(same), "f1": same.f1, "pictures": len(pictures)}
            load = put_under_load(detector, pictures, 60 * minutes)
            found["load"] = {**asdict(load), "minutes": minutes}
    except YoloKDError as error:  # whether it runs here is what acceptance is there to find out
        return {**found, "reasons": [f"does not run on this device: {error}"]}
    return {**found, "reasons": decide(same, load, limits)}


def _device(name: str, precision: str | None = None) -> dict[str, Any]:
    return {"name": name, "runs in": precision, "cpu": machine.model_name(), "isa": machine.describe()}


def _remarks(artifact: Artifact, minutes: float) -> list[str]:
    remarks = []
    if artifact.verdict is None:
        remarks.append("the artifact was never judged by yolo-kd gate")
    if 60 * minutes < HEAT_S:
        remarks.append(f"{minutes:g} min of load say little about heat; minutes={HEAT_S / 60:g} or more do")
    return remarks


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
    # Taken beforehand and touched, so that the record itself does not look like a leak.
    room = min(int(seconds * 2000) + 1000, MAX_FRAMES)
    ends, latencies = np.ones(room, np.float32), np.ones(room, np.float32)
    before, begun, count, now = resident(), clock(), 0, 0.0
    while count < room and (count == 0 or now < seconds):
        start = clock()
        detect(frames[count % len(frames)])
        now = clock() - begun
        ends[count], latencies[count] = now, 1000 * (now + begun - start)
        count += 1
    after = resident()
    ends, latencies = ends[:count], latencies[:count]
    span = min(WINDOW_S, ends[-1] / 2)
    last = latencies[ends >= ends[-1] - span]
    return Load(
        count, _percentiles(latencies[: max(int((ends <= span).sum()), 1)]), _percentiles(last), after - before, after
    )


def decide(same: Agreement, load: Load, limits: Limits) -> list[str]:
    """Why the device cannot be accepted; nothing if it can."""
    reasons = []
    # Each comparison asks for what is good, so that a number that is NaN is bad.
    if same.parent == 0:
        reasons.append("the float parent saw nothing on the reference pictures: they prove nothing; bundle others")
    elif same.candidate == 0:
        reasons.append(f"detects nothing on the reference pictures, the float parent {same.parent} boxes")
    elif not same.f1 >= limits.min_f1:
        reasons.append(f"boxes disagree with the float parent: F1 {same.f1:.3f}, expected {limits.min_f1:g} or more")
    elif not (same.iou >= limits.min_iou and same.score_error <= limits.max_score_error):
        reasons.append(
            f"boxes are off: mean IoU {same.iou:.3f} (expected {limits.min_iou:g}), confidences off by "
            f"{same.score_error:.3f} (allowed {limits.max_score_error:g})"
        )
    slowing = load.end_ms[0] / load.start_ms[0]
    if not slowing <= limits.max_slowing:
        reasons.append(
            f"slows down under load: {load.start_ms[0]:.1f} ms at the start, {load.end_ms[0]:.1f} ms at the end "
            f"({slowing:.2f} x, allowed {limits.max_slowing:g} x); check cooling and power"
        )
    if not load.growth_mb <= limits.max_growth_mb:
        reasons.append(f"memory grows under load by {load.growth_mb:.0f} MB, allowed {limits.max_growth_mb:g} MB")
    if limits.max_ms is not None and not load.end_ms[0] <= limits.max_ms:
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


def _percentiles(times: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = np.percentile(times, (50, 95, 99))
    return float(low), float(middle), float(high)
