"""Several processes: gradients that DDP does not see, files and failures that must get from one process to another."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from yolo_kd import errors
from yolo_kd.cfg.atomic import write_text
from yolo_kd.engine import ultra
from yolo_kd.errors import YoloKDError

ELSEWHERE = "a term of another rank is 0 or not finite"  # says a rank whose own terms are fine


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over all ranks; nothing without a process group.

    Adapters are no part of the module that DDP wraps. A rank without a gradient counts as one of zeros, so that all
    ranks take part in the same reductions.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def from_first_rank(value: Any) -> Any:
    """What the first rank holds, on every rank."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


@contextmanager
def kept_for_workers(files: Iterable[Path]) -> Iterator[None]:
    """In the parent: inside, these files outlive the run folder, which Ultralytics removes before it starts the workers."""
    generate = ultra.training_loop.generate_ddp_command

    def launch(trainer: Any) -> Any:
        held = {path: path.read_bytes() for path in files if path.exists()}
        command = generate(trainer)
        for path, content in held.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return command

    with ultra.renamed(ultra.training_loop, generate_ddp_command=launch):
        yield


@contextmanager
def reported_to(folder: Path, rank: int) -> Iterator[None]:
    """In a worker: leave the message of an error of ours in the run folder, then let it go on.

    The launcher tells its caller only that some worker ended with some code. Ranks fail together, so each has a file.
    """
    try:
        yield
    except YoloKDError as error:
        report = json.dumps({"type": type(error).__name__, "message": str(error)})
        with suppress(YoloKDError):  # no room for the report; the worker must end all the same
            write_text(folder / f"error.{rank}.json", report)
        raise


def worker_error(folder: Path) -> YoloKDError | None:
    """In the parent: the error that a worker left, of its own type; None if there is none.

    Of several that of the lowest rank whose own terms failed: the others can only say that one did.
    """
    ranks = [rank for path in folder.glob("error.*.json") if (rank := path.stem.partition(".")[2]).isdecimal()]
    left = (_taken(folder / f"error.{rank}.json") for rank in sorted(ranks, key=int))
    found = [error for error in left if error is not None]
    return min(found, key=lambda error: ELSEWHERE in str(error), default=None)


def _taken(path: Path) -> YoloKDError | None:
    """The error in a report, which is removed; None if it cannot be read."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return getattr(errors, report["type"], YoloKDError)(report["message"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
