"""Several processes: gradients that DDP does not see, and failures that must reach the one who started them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import distributed as dist

from yolo_kd import errors
from yolo_kd.errors import YoloKDError

REPORT = "error.json"


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


@contextmanager
def reported_to(folder: Path) -> Iterator[None]:
    """In a worker: leave the message of an error of ours in the run folder, then let it go on.

    The launcher tells its caller only that some worker ended with some code.
    """
    try:
        yield
    except YoloKDError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / REPORT).write_text(json.dumps({"type": type(error).__name__, "message": str(error)}))
        raise


def worker_error(folder: Path) -> YoloKDError | None:
    """In the parent: the error that a worker left, of its own type; None if there is none."""
    path = folder / REPORT
    if not path.exists():
        return None
    found = json.loads(path.read_text())
    path.unlink()
    return getattr(errors, found["type"], YoloKDError)(found["message"])
