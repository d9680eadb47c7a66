"""Share of a training step that is spent waiting for the loader.

    python -m benchmarks.loader data=hituav/data_scene.yaml imgsz=320,640 longer=0,1920
    python -m benchmarks.loader data=hituav/data_scene.yaml imgsz=320 arms=plain steps=5 cpu_threads=1 write=false

Each case is a training by DistillationTrainer as a user starts it, in a process of its own, with Ultralytics' whole loop.
A step lasts from where the loop asks for a batch to where it asks for the next one, and waits until it has the batch.
Validation and saving are off, because they are no part of a step. The cases of one arm take turns step by step: a training
stands still at its loader until it is its turn. Pictures come from files, from memory (cache=ram), or from files as
Ultralytics reads them (`stock`), in the loop's own thread: what decoding them ahead has saved, and no bar. Weights do not
change what a step costs, so teacher and student start random.

`longer` enlarges the pictures of a copy to that longer side (0: as they are): decoding costs by the pixel of the file, and
cameras take larger pictures than those that are published. The copy was just written, so that files come from the page
cache; a slow disk comes on top. On a busy machine the clock says nothing. Processor time still does with cpu_threads=1,
because threads that wait for each other count as busy.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import fmean
from typing import Any

import cv2
import numpy as np
import yaml
from yolo_kd.cfg.documents import parse_yaml
from yolo_kd.data.split import Split, read_split

from benchmarks.inputs import listed
from benchmarks.machine import quiet
from benchmarks.result import bar, command_line, write
from benchmarks.step_time import random_teacher
from yolo_kd.cli import parse
from yolo_kd.errors import MisuseError, YoloKDError
from yolo_kd.evidence.table import aligned

DEFAULTS: dict[str, Any] = {
    "data": None,
    "imgsz": "320,640",
    "longer": "0",
    "batch": 16,
    "steps": 30,
    "warmup": 12,  # more than calibrate_batches, during which a step measures gradients too
    "teacher": "yolov8l.yaml",
    "student": "yolov8n.yaml",
    "arms": "",
    "sources": "",
    "cpu_threads": None,
    "write": True,
}
LIMIT = 0.1
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"distill": "none"},
    "default": {},
    "openvino-int8": {"teacher_engine": "openvino-int8"},
}
SOURCES: dict[str, Any] = {"files": False, "memory": "ram", "stock": False}  # cache=
JPEG_QUALITY = 90  # of enlarged pictures
FEW, OWN = 16, "loader.yaml"


@dataclass(frozen=True)
class Step:
    """Seconds of one step by the clock and by the processor time of all its threads; the wait is part of the whole."""

    waiting: float
    whole: float
    cpu_waiting: float
    cpu_whole: float


class Case:
    """A training in a process of its own, which stands still between two turns.

    Args:
        overrides: For the trainer.
        log: What the training prints.

    Raises:
        YoloKDError: It ended before its first step.
    """

    def __init__(self, overrides: dict[str, Any], log: Path) -> None:
        context = get_context("spawn")
        self.log, self.steps = log, list[Step]()
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=train, args=(theirs, overrides, log), daemon=True)
        self.process.start()
        theirs.close()
        self.teacher_on: str | None = self._answer()

    def turn(self) -> None:
        """One step, or the end of an epoch.

        Raises:
            YoloKDError: The training ended by itself.
        """
        self.pipe.send(True)
        step = self._answer()
        if step is not None:
            self.steps.append(step)

    def close(self) -> None:
        """End the training."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def _answer(self) -> Any:
        try:
            return self.pipe.recv()
        except EOFError:
            said = self.log.read_text(errors="replace").strip().splitlines() if self.log.exists() else []
            raise YoloKDError(f"the training ended by itself: {said[-1] if said else 'without a word'}") from None


def main() -> int:
    """Measure, print, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    if not keys["data"]:
        print("loader: data= is missing; see the head of this file", file=sys.stderr)
        return 2
    arms, sources = chosen("arms", keys["arms"], list(ARMS)), chosen("sources", keys["sources"], list(SOURCES))
    notes, rows = quiet(), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="yolo-kd-loader-") as temporary:
        for longer in numbers(keys["longer"]):
            folder = Path(temporary) / f"{longer}"
            data = enlarged(Path(str(keys["data"])).resolve(), folder / "data", longer)
            for size in numbers(keys["imgsz"]):
                for arm in arms:
                    rows += measured(arm, sources, size, data, keys, folder / f"{size}-{arm}")
                    print(aligned(rows[-len(sources) :]), flush=True)
    bars = [
        bar(f"{row['arm']} at {row['imgsz']} px, {row['pictures']} from {row['from']}", row["share"], LIMIT, "<=")
        for row in rows
        if row["from"] != "stock"
    ]
    if keys["write"]:
        write("loader", command_line(), rows, bars, notes=notes)
    else:
        print(aligned(rows), *notes, sep="\n")
    return 0


def measured(
    arm: str, sources: list[str], size: int, data: Path, keys: dict[str, Any], folder: Path
) -> list[dict[str, Any]]:
    """The rows of one arm, a row for each place that pictures come from.

    Raises:
        YoloKDError: A training ended by itself.
    """
    split = read_split(str(data), "train")
    overrides = {
        "model": str(keys["student"]), "data": str(data), "imgsz": size, "batch": int(keys["batch"]), "nbs": int(keys["batch"]),
        "optimizer": "AdamW", "epochs": 1000, "warmup_epochs": 0, "val": False, "save": False, "plots": False,
        "verbose": False, "check_data": False, "force": True, "project": str(folder), **ARMS[arm],
    }  # fmt: skip
    if arm != "plain":
        overrides["teacher"] = random_teacher(str(keys["teacher"]), split.names, data.parent.parent)
    if keys["cpu_threads"]:
        overrides["cpu_threads"] = int(keys["cpu_threads"])
    cases, warmup = dict[str, Case](), int(keys["warmup"])
    try:
        for source in sources:
            cases[source] = Case({**overrides, "cache": SOURCES[source], "name": source}, folder / f"{source}.log")
        while any(len(case.steps) < warmup + int(keys["steps"]) for case in cases.values()):
            for case in cases.values():
                case.turn()
    finally:
        for case in cases.values():
            case.close()
    what = {"pictures": _sides(split), "imgsz": size, "arm": arm}
    return [
        {**what, "from": source, "teacher on": case.teacher_on, **summary(case.steps[warmup:])}
        for source, case in cases.items()
    ]


def summary(steps: list[Step]) -> dict[str, float]:
    """Means, and shares of the sums.

    >>> summary([Step(1.0, 4.0, 1.0, 7.0), Step(3.0, 12.0, 1.0, 13.0)])["share"]
    0.25
    """
    mean = {field.name: fmean(getattr(step, field.name) for step in steps) for field in fields(Step)}
    return {
        "s/step": mean["whole"],
        "s waiting": mean["waiting"],
        "share": mean["waiting"] / mean["whole"],
        "CPU s/step": mean["cpu_whole"],
        "CPU s waiting": mean["cpu_waiting"],
        "CPU share": mean["cpu_waiting"] / mean["cpu_whole"],
    }


def train(pipe: Connection, overrides: dict[str, Any], log: Path) -> None:
    """In a process of its own: a training that takes a step whenever it is told to, and says what the last one took."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    from yolo_kd.engine import resumable
    from yolo_kd.engine.loader import ResumableLoader
    from yolo_kd.engine.trainer import DistillationTrainer

    if overrides.get("name") == "stock":
        resumable.decode_ahead = lambda loader: None

    class Told(ResumableLoader):
        answer: Any = None  # of the turn that ends where the loop comes here again

        def __iter__(self) -> Iterator[Any]:
            batches = super().__iter__()
            while True:
                pipe.send(self.answer)
                pipe.recv()
                self.answer = None
                asked, asked_cpu = time.perf_counter(), time.process_time()
                batch = next(batches, None)
                got, got_cpu = time.perf_counter(), time.process_time()
                if batch is None:
                    return
                yield batch
                end, end_cpu = time.perf_counter(), time.process_time()
                if len(batch["img"]) == overrides["batch"]:  # the last one of an epoch can be smaller
                    self.answer = Step(got - asked, end - asked, got_cpu - asked_cpu, end_cpu - asked_cpu)

    def start(trainer: Any) -> None:
        trainer.train_loader.__class__ = Told
        if trainer.distillation is not None:
            trainer.train_loader.answer = trainer.distillation.teacher.engine_name

    trainer = DistillationTrainer(overrides=overrides)
    trainer.add_callback("on_train_start", start)
    trainer.train()


def enlarged(data: Path, target: Path, longer: int) -> Path:
    """A copy of a data set, because Ultralytics writes beside labels; with the pictures that it trains on enlarged.

    Of val few pictures are left, on which a random teacher is judged before each training.

    Args:
        data: Its YAML; everything lies beside it.
        target: The copy's folder.
        longer: Longer side of every training picture in pixels; 0 leaves them as they are.

    Raises:
        MisuseError: Pictures lie elsewhere, so that a copy of the YAML's folder would lead to the originals.
    """
    shutil.copytree(data.parent, target, ignore=shutil.ignore_patterns("*.cache", "*.npy"))
    paths, few = (read_split(str(target / data.name), part).images for part in ("train", "val"))
    if outside := [path for path in paths if not path.resolve().is_relative_to(target.resolve())]:
        raise MisuseError(f"data={data}: {outside[0]} is not in its folder; expected a data set in one folder")
    (target / "few.txt").write_text("".join(f"{path.resolve()}\n" for path in few[:FEW]))
    raw = parse_yaml((target / data.name).read_text(encoding="utf-8"))
    (target / OWN).write_text(yaml.safe_dump({**raw, "path": str(target.resolve()), "val": "few.txt"}))
    for path in paths if longer else ():
        picture = _picture(path)
        scale = longer / max(picture.shape[:2])
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        path.chmod(0o644)
        cv2.imencode(path.suffix, picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tofile(path)
    return target / OWN


def chosen(key: str, words: Any, known: list[str]) -> list[str]:
    """The words of a list; all that are known where it is empty.

    Raises:
        MisuseError: An unknown one.

    >>> chosen("arms", "plain", ["plain", "default"]), chosen("arms", "", ["plain", "default"])
    (['plain'], ['plain', 'default'])
    """
    given = [word for word in str(words or "").split(",") if word] or known
    if unknown := [word for word in given if word not in known]:
        raise MisuseError(f"{key}={','.join(unknown)}: expected {', '.join(known)}")
    return given


def numbers(words: Any) -> list[int]:
    """A list of whole numbers, as the command line gives it.

    >>> numbers("320,640"), numbers(320)
    ([320, 640], [320])
    """
    return [int(word) for word in listed(words)]


def _sides(split: Split) -> str:
    height, width = _picture(split.images[0]).shape[:2]
    return f"{width}x{height}"


def _picture(path: Path) -> np.ndarray:
    """As it is stored, so that a grey one stays grey: it costs less to decode."""
    found = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        raise MisuseError(f"{path}: no picture; yolo-kd data check lists what is wrong with a data set")
    return found


if __name__ == "__main__":
    sys.exit(main())
