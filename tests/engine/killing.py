"""Trains in processes that die at chosen moments. Started by the fixture `killed` as a program of its own.

Each training is a fork of one process that has loaded torch and Ultralytics and computed nothing: that saves the seconds
of loading, and SIGKILL ends it as it ends any process. A moment is the number of an event; events are the beginnings and
ends of steps and validations, and every file operation of a save.

Each line of its input is a request,

    {"root": ..., "keys": {...}, "kinds": [["save"], ["batch", "step"]], "seed": 1}

and the answer a line of JSON: a list with the training that nothing stops, then one for each list of kinds, whose run dies
so often: before a random event of that kind.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from benchmarks.kill import over
from yolo_kd.api import distill
from yolo_kd.engine import resume, ultra
from yolo_kd.engine.resumable import ResumableTrainer

LOADED = ("albumentations", "matplotlib.pyplot", "mlflow", "scipy.stats", "torchvision")  # late, by every training
LAST = Path("run") / "weights" / "last.pt"


class Death:
    """Counts events, notes them, and kills this process before the chosen one."""

    def __init__(self, at: int | None) -> None:
        self.at, self.seen = at, []

    def event(self, kind: str) -> None:
        if len(self.seen) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(kind)

    def watch(self, owner: Any, name: str, kind: str) -> None:
        before = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            self.event(kind)
            result = before(*args, **kwargs)
            self.event(kind)
            return result

        setattr(owner, name, watched)


def train(keys: dict[str, Any], death: int | None, report: Path) -> None:
    """Train or resume, in this process, watched."""
    watcher = Death(death)
    watcher.watch(ResumableTrainer, "optimizer_step", "step")
    watcher.watch(ResumableTrainer, "preprocess_batch", "batch")
    watcher.watch(ResumableTrainer, "save_metrics", "row")
    watcher.watch(ultra.DetectionTrainer, "validate", "validation")
    watcher.watch(resume, "flush", "save")
    watcher.watch(Path, "replace", "save")
    watcher.watch(Path, "write_bytes", "save")
    distill(**keys)
    report.write_text(json.dumps(watcher.seen))


def forked(root: Path, keys: dict[str, Any], death: int | None, resumes: bool = False) -> tuple[int, list[str]]:
    """Exit code (negative: the signal) of a training in a fork, and the events that it saw."""
    report = root / "events.json"
    if resumes and (root / LAST).exists():
        keys = {"resume": str(root / LAST)}
    else:
        keys = {**keys, "project": str(root), "name": "run", "exist_ok": True}
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with (root / "log.txt").open("a") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                train(keys, death, report)
            code = 0
        except BaseException as error:
            (root / "error.txt").write_text(f"{type(error).__name__}: {error}")
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    seen = json.loads(report.read_text()) if report.exists() else []
    return (-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)), seen


def trained(request: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs that a request asks for."""
    chance = random.Random(request["seed"])
    events: list[str] = []
    runs = []
    for number, kinds in enumerate([[], *request["kinds"]]):
        root = Path(request["root"]) / str(number)
        root.mkdir(parents=True)
        codes = []
        for kind in kinds:
            known = events[: len(events) // len(kinds)]  # so that each death finds something to end
            death = chance.choice([i for i, seen in enumerate(known) if seen == kind])
            codes.append(forked(root, request["keys"], death, resumes=True)[0])
        done = over(root / "run")  # killed after its final files were written
        code, seen = (0, []) if done else forked(root, request["keys"], None, resumes=True)
        events = events or seen
        runs.append({"root": str(root), "kinds": kinds, "deaths": codes, "code": code})
    return runs


def main() -> None:
    torch.set_num_threads(1)
    for name in LOADED:
        with suppress(ImportError):
            import_module(name)
    for line in sys.stdin:
        print(json.dumps(trained(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
