"""Images a second of `yolo-kd data check`, beside decoding the same images once.

    python -m benchmarks.data_check data=hituav/data.yaml,hituav/data_scene.yaml leaks=.36,0 rounds=5 jobs=1

Both read every file of every part and decode it in the same number of threads; the check also hashes files and looks,
reads labels, and compares val and test with train. The files are read once before the first round, so that no arm pays
for the disk. The quick check is what a training does before its first step. `leaks` gives what is known of each data set:
the share of val that looks like a training picture. Whatever else was found is in the notes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from yolo_kd.data.check import check
from yolo_kd.data.description import read_description
from yolo_kd.data.findings import Report
from yolo_kd.data.split import read_split

from benchmarks.inputs import listed
from benchmarks.machine import quiet
from benchmarks.result import bar, command_line, write
from yolo_kd.cli import parse
from yolo_kd.errors import MisuseError

DEFAULTS: dict[str, Any] = {"data": None, "leaks": "", "rounds": 5, "jobs": 1}
LIMIT = 0.5  # of the speed of decoding once
EXACT = 0.005  # that a share found may be off the one known


def main() -> int:
    """Measure, print, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    sources = [word for word in str(keys["data"] or "").split(",") if word]
    if not sources:
        print("data_check: data= is missing; see the head of this file", file=sys.stderr)
        return 2
    known = [float(word) for word in listed(keys["leaks"])]
    if known and len(known) != len(sources):
        print(f"data_check: leaks= has {len(known)} shares, data= {len(sources)} data sets", file=sys.stderr)
        return 2
    notes = quiet()
    cv2.setNumThreads(1)  # threads are ours here: one picture in each
    rows, bars = [], []
    for place, source in enumerate(sources):
        speeds, report = measure(source, int(keys["rounds"]), int(keys["jobs"]))
        name = "/".join(Path(source).parts[-2:])
        rows += [{"data": name, "arm": arm, "images": images(report), "images/s": s} for arm, s in speeds.items()]
        bars.append(bar(f"{name}: check over decoding once", speeds["check"] / speeds["decode once"], LIMIT, ">="))
        if known:
            off = abs(report.near["val"] - known[place])
            bars.append(
                bar(f"{name}: share of val that looks like train, off the {known[place]:.0%} known", off, EXACT, "<=")
            )
        near = ", ".join(f"{part} {share:.1%}" for part, share in report.near.items())
        notes.append(
            f"{name}: {report.errors} errors; images that look like a training picture: {near or 'not compared'}"
        )
    write("data_check", command_line(), rows, bars, notes=notes)
    return 0


def measure(source: str, rounds: int, jobs: int) -> tuple[dict[str, float], Report]:
    """Median images per second of each arm, which take turns, and what the check found.

    Raises:
        MisuseError: No such data set, or an image that is listed and missing.
    """
    if rounds < 1 or jobs < 1:
        raise MisuseError(f"rounds={rounds} jobs={jobs}: expected 1 or more")
    data = read_description(source)
    paths = sorted({path for part in data.parts for path in read_split(source, part).images})
    decode(paths, jobs)
    arms: dict[str, Callable[[], Any]] = {
        "decode once": lambda: decode(paths, jobs),
        "check": lambda: check(data, jobs=jobs),
        "quick check": lambda: check(data, deep=False, jobs=jobs),
    }
    times: dict[str, list[float]] = {name: [] for name in arms}
    answers: dict[str, Any] = {}
    for _ in range(rounds):
        for name, run in arms.items():
            start = time.perf_counter()
            answers[name] = run()
            times[name].append(time.perf_counter() - start)
    speeds = {name: len(paths) / statistics.median(taken) for name, taken in times.items()}
    return speeds, answers["check"]


def decode(paths: Sequence[Path], jobs: int) -> int:
    """Decode every image; returns the number of pixels, so that nothing is left out."""

    def one(path: Path) -> int:
        pixels = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        return 0 if pixels is None else pixels.shape[0] * pixels.shape[1]

    with ThreadPoolExecutor(jobs) as pool:
        return sum(pool.map(one, paths))


def images(report: Report) -> int:
    """Images of all parts."""
    return sum(count.images for count in report.parts.values())


if __name__ == "__main__":
    sys.exit(main())
