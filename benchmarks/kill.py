"""Trainings killed with SIGKILL and resumed: does each end bit for bit like the one that nothing stopped?

    python -m benchmarks.kill
    python -m benchmarks.kill kills=6 arms=plain
    python -m benchmarks.kill out=runs/kill

Two small trainings on rendered scenes, plain and distilled, both by `yolo-kd train` as a user starts it, one thread each,
with a checkpoint after every second batch; the teacher is wider than the student, so that adapters are among what is kept.
First each runs to its end. Then it is started again, killed at a random moment, resumed from its last.pt (or started anew
where there is none yet), killed again, and so on until it lives to its end. Each process draws, with equal chances, where it
is killed: anywhere between its start and its end, while batches are trained or validated, or during a save. One that ends
before its moment has come was not killed, so the kinds do not come out equal; and after a kill before the first checkpoint,
or after the end of the run, nothing is resumed: a note says how many kills were followed by a resume. A run is different if
a float32 weight of student or EMA, a tensor of last.pt or best.pt, or a number of results.csv is another one; a checkpoint
is unusable if the resumed process ends by itself with an error. Only a run of all kills writes a result. With `out` the
same command goes on where it was stopped, by the same code, since its runs are compared; what differs or cannot be used
stays there.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from yolo_kd.cfg.atomic import write_text
from yolo_kd.data.scenes import write_dataset

from benchmarks.machine import quiet
from benchmarks.result import bar, command_line, write
from yolo_kd.cli import parse
from yolo_kd.engine import ultra
from yolo_kd.engine.resume import LAST, SIDECAR, STAGING, is_stripped, state_of
from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.evidence.table import aligned

DEFAULTS: dict[str, Any] = {"kills": 100, "seed": 0, "arms": "plain,distilled", "out": None}
FULL = 100
TRAINING = [
    "student=yolov8n.yaml",
    "epochs=5",
    "imgsz=64",
    "batch=4",
    "nbs=8",
    "optimizer=AdamW",
    "warmup_epochs=1",
    "close_mosaic=2",
    "mixup=0.2",
    "save_steps=2",
    "plots=false",
    "cpu_threads=1",
    "check_data=false",
    "name=run",
    "exist_ok=true",
]
TEACHER = "yolov8s.yaml"  # between equal widths there would be no adapter
ARMS = {
    "plain": ["distill=none", "augment=field"],
    "distilled": ["distill=csgr_lqe", "teacher_engine=torch", "force=true"],
}
MOMENTS = ("anywhere", "training", "save")
UNDER_WAY = "Starting training for"  # Ultralytics' line before the first batch
LOOK_S = 0.0005  # between two looks for a save, which takes some .1 s


@dataclass
class Training:
    """One training that may die many times.

    Args:
        folder: Its place; Ultralytics' run folder is `run` in it.
        words: Of `yolo-kd train`, without project=.
    """

    folder: Path
    words: list[str]

    @property
    def run(self) -> Path:
        """Ultralytics' run folder."""
        return self.folder / "run"

    def start(self) -> subprocess.Popen[bytes]:
        """Go on from last.pt, or from the beginning where there is none."""
        last = self.run / "weights" / LAST
        words = [f"resume={last}"] if last.exists() else [*self.words, f"project={self.folder}"]
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            command = [sys.executable, "-u", "-m", "yolo_kd.cli", "train", *words]
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)

    @property
    def log(self) -> Path:
        """What the process of the moment says."""
        return self.folder / "log.txt"

    def said(self) -> str:
        """Its last line."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


@dataclass
class Tally:
    """What was seen in one arm.

    Args:
        ready: Seconds until the training that nothing stops trains batches.
        seconds: Until its end.
        deaths: Kills by moment.
        runs, resumed, different, unusable: Trainings, starts from a checkpoint, and what must not be.
        notes: On these.
    """

    ready: float
    seconds: float
    deaths: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MOMENTS, 0))
    runs: int = 0
    resumed: int = 0
    different: int = 0
    unusable: int = 0
    notes: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As a row of the result."""
        at = {f"kills {moment}": count for moment, count in self.deaths.items()}
        names = ("runs", "resumed", "different", "unusable")
        return {**at, **{name: getattr(self, name) for name in names}}

    def followed(self, arm: str) -> str:
        """How many of the kills put a checkpoint to the test; before each start from one lies one kill."""
        return (
            f"{arm}: {self.resumed} of {sum(self.deaths.values())} kills were followed by a resume from a checkpoint, the others "
            "fell before the first one or after the run's end"
        )


def main() -> int:
    """Kill, resume, compare, print; write where all kills were asked for."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    kills, arms = int(keys["kills"]), [arm for arm in str(keys["arms"]).split(",") if arm]
    unknown = [arm for arm in arms if arm not in ARMS]
    if unknown or kills < 1:
        print(f"kill: kills={kills} arms={','.join(arms)}: expected 1 or more, and {','.join(ARMS)}", file=sys.stderr)
        return 2
    notes = quiet()
    with tempfile.TemporaryDirectory(prefix="yolo-kd-kill-") as temporary:
        out = Path(str(keys["out"] or temporary)).resolve()
        data = write_dataset(out / "scenes", train=14, val=6, size=64)
        rows = []
        for number, arm in enumerate(arms):
            share = kills // len(arms) + (number < kills % len(arms))
            words = [*TRAINING, *ARMS[arm], f"data={data}"]
            if arm == "distilled":
                words.append(f"teacher={teacher(out, data)}")
            tally = killed(out / arm, words, share, int(keys["seed"]))
            rows.append({"arm": arm, **tally.row()})
            notes += [tally.followed(arm), *tally.notes]
    bars = [
        bar("runs that end otherwise", sum(row["different"] for row in rows), 0, "<="),
        bar("checkpoints that cannot be used", sum(row["unusable"] for row in rows), 0, "<="),
    ]
    if kills >= FULL and len(arms) == len(ARMS):
        write("kill", command_line(), rows, bars, notes=notes)
        return 0
    print(aligned(rows), *notes, sep="\n")
    return 0 if all(each.holds for each in bars) else 1


def teacher(out: Path, data: Path) -> Path:
    """A checkpoint to learn from; that it knows little does not matter here."""
    training = Training(out / "teacher", [*TRAINING, f"student={TEACHER}", "distill=none", f"data={data}"])
    if not over(training.run):
        to_the_end(training)
    return training.run / "weights" / "best.pt"


def killed(folder: Path, words: list[str], kills: int, seed: int) -> Tally:
    """Kill trainings so often in all, and compare those that lived to their end; what is done is kept in `folder`."""
    whole, record = Training(folder / "whole", words), folder / "tally.json"
    if record.exists():
        tally = Tally(**json.loads(record.read_text()))
    else:
        shutil.rmtree(whole.folder, ignore_errors=True)
        tally = Tally(*to_the_end(whole))
        write_text(record, json.dumps(asdict(tally)))
    while sum(tally.deaths.values()) < kills:
        number = tally.runs + 1
        training = Training(folder / str(number), words)
        shutil.rmtree(training.folder, ignore_errors=True)  # of a run that was going on when this benchmark was stopped
        one_run(training, whole, kills, tally, random.Random(f"{seed} {folder.name} {number}"))  # noqa: S311 - no secrets
        tally.runs = number
        write_text(record, json.dumps(asdict(tally)))
        print(f"{folder.name}: {sum(tally.deaths.values())} of {kills} kills, {number} runs", flush=True)
    return tally


def one_run(training: Training, whole: Training, kills: int, tally: Tally, chance: random.Random) -> None:
    """Kill one training until it lives to its end, and compare it."""
    name = f"{training.folder.parent.name}, run {training.folder.name}"
    while not over(training.run):
        left = kills - sum(tally.deaths.values())
        tally.resumed += (training.run / "weights" / LAST).exists()
        process = training.start()
        moment = chance.choice(MOMENTS) if left else ""
        if moment and die(process, training, moment, chance, tally.ready, tally.seconds):
            tally.deaths[moment] += 1
            continue
        process.wait()
        break
    if not over(training.run):
        tally.unusable += 1
        tally.notes.append(f"{name}: {training.said()[:200]}")
    elif found := differences(whole.run, training.run):
        tally.different += 1
        tally.notes.append(f"{name}: {len(found)} differences, the first {found[0]}")
    else:
        shutil.rmtree(training.folder)


def to_the_end(training: Training) -> tuple[float, float]:
    """Seconds until batches are trained, and until the end, of a run that nothing stops.

    Raises:
        YoloKDError: It fails.
    """
    start, process = time.monotonic(), training.start()
    ready = 0.0
    while process.poll() is None:
        if not ready and under_way(training):
            ready = time.monotonic() - start
        time.sleep(0.01)
    if process.returncode != 0:
        raise YoloKDError(f"the training that nothing stops failed: {training.said()}")
    return ready, time.monotonic() - start


def die(
    process: subprocess.Popen[bytes], training: Training, moment: str, chance: random.Random, ready: float, end: float
) -> bool:
    """Kill a training at a random moment; False if it ended before."""
    left = saving(training)  # by a process that was killed in a save
    if moment != "anywhere":
        while process.poll() is None and not under_way(training):
            time.sleep(0.01)
    until = time.monotonic() + chance.uniform(0, end if moment == "anywhere" else end - ready)
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    if moment == "save":
        while process.poll() is None and saving(training) in (None, left):
            time.sleep(LOOK_S)
        time.sleep(chance.uniform(0, 0.2))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def saving(training: Training) -> tuple[int, int] | None:
    """What tells one save's folder from another's; None where there is none."""
    try:
        found = (training.run / "weights" / STAGING).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def under_way(training: Training) -> bool:
    """Whether batches are trained."""
    return UNDER_WAY in training.log.read_text(errors="replace")


def over(run: Path) -> bool:
    """Whether a run has written its final files; it may have been killed after that."""
    last = run / "weights" / LAST
    try:
        state = state_of(last) if last.exists() else None
    except MisuseError:  # the next process says why
        return False
    return state is not None and is_stripped(last, state)


def differences(one: Path, other: Path) -> list[str]:
    """What two run folders that lived to their end do not have in common; times are left out."""
    found = []
    states = [torch.load(run / "weights" / SIDECAR, weights_only=True) for run in (one, other)]
    pairs = [(part, *(state[part] for state in states)) for part in ("model", "ema")]
    for name in (LAST, "best.pt"):
        models = (ultra.load_detector(str(run / "weights" / name), "model") for run in (one, other))
        pairs.append((name, *(model.state_dict() for model in models)))
    for part, first, second in pairs:
        if first.keys() != second.keys():
            found.append(f"{part}: other names of tensors")
        else:
            found += [f"{part}: {name}" for name, tensor in first.items() if not torch.equal(tensor, second[name])]
    tables = [list(csv.DictReader((run / "results.csv").read_text().splitlines())) for run in (one, other)]
    if len(tables[0]) != len(tables[1]):
        return [*found, "results.csv: number of rows"]
    for mine, theirs in zip(*tables):
        found += [f"results.csv: {k} of epoch {mine['epoch']}" for k in mine if k != "time" and mine[k] != theirs[k]]
    return found


if __name__ == "__main__":
    sys.exit(main())
