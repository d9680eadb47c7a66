"""The sidecar: what a run needs to go on and a plain checkpoint must not carry.

`last.pt` stays a plain Ultralytics checkpoint. Beside it lies `last.kd.pt` with adapters, their optimizer state, the
calibrated gains and the ranges of fake quantization. It holds tensors and plain values only, and is loaded in torch's
weights-only mode.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from yolo_kd.errors import MisuseError

FORMAT = 1
SIDECAR = "last.kd.pt"


def sidecar_path(last: Path) -> Path:
    """Where the sidecar of a last.pt lies."""
    return last.with_name(SIDECAR)


def save_sidecar(path: Path, state: dict[str, Any]) -> None:
    """Write atomically: to a temporary file, flushed to the disk, then renamed."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        torch.save({"format": FORMAT, **state}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_sidecar(path: Path) -> dict[str, Any] | None:
    """The state, or None where there is no sidecar.

    Raises:
        MisuseError: Damaged, or of another format.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged archive
        raise MisuseError(
            f"{path.name}: not readable ({type(error).__name__}); start anew, or resume an older copy"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise MisuseError(
            f"{path.name}: format {found}, expected {FORMAT}; it was written by another version of yolo-kd"
        )
    return state


def split_optimizer(state: dict[str, Any], adapters: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """An optimizer state without its last group, and that group's part; adapters are always the last group.

    Args:
        state: `optimizer.state_dict()`.
        adapters: Number of adapter tensors; 0 leaves the state as it is.
    """
    if not adapters:
        return state, {}
    *groups, last = state["param_groups"]
    own = set(last["params"])
    plain = {"state": {k: v for k, v in state["state"].items() if k not in own}, "param_groups": groups}
    return plain, {"state": {k: v for k, v in state["state"].items() if k in own}, "param_groups": [last]}


def join_optimizer(plain: dict[str, Any], adapters: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `split_optimizer`."""
    if not adapters:
        return plain
    return {
        "state": {**plain["state"], **adapters["state"]},
        "param_groups": [*plain["param_groups"], *adapters["param_groups"]],
    }
