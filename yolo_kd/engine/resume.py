"""A checkpoint as files: last.pt, the sidecar beside it, and both as they were one save earlier.

`last.pt` stays a plain Ultralytics checkpoint. Beside it lies `last.kd.pt` with what an exact resume needs: float32
weights, optimizer, adapters, gains, counters, random states. It holds tensors and plain values only, is loaded in torch's
weights-only mode, and names the last.pt that it belongs to by SHA-256.

Everything is written into a folder beside the old files, flushed to the disk, and renamed. Two files cannot change their
names at once, so the older pair gets a second name first (previous.pt, previous.kd.pt): wherever a kill falls, last.pt
belongs to one of the two sidecars.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
import yaml

from yolo_kd.deploy.artifact import sha256
from yolo_kd.errors import MisuseError, YoloKDError

FORMAT = 4
LAST, SIDECAR = "last.pt", "last.kd.pt"
PREVIOUS, PREVIOUS_SIDECAR = "previous.pt", "previous.kd.pt"
STAGING = ".saving"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
PLAIN = (int, float, str, bool, list, tuple, dict, type(None))
TORCH_WRITER = "inline_container"  # torch.save to a path says no more than where it failed


class DamagedError(MisuseError):
    """A sidecar that cannot be read."""


class _State(dict[str, Any]):
    """A sidecar's state, which says what it lacks and knows the file that it is from."""

    def __init__(self, values: Mapping[str, Any], sidecar: Path) -> None:
        super().__init__(values)
        self.sidecar = sidecar

    def __missing__(self, key: str) -> Any:
        raise MisuseError(f"{SIDECAR}: holds no '{key}', so it was changed; start anew, or resume an older copy")


def sidecar_path(last: Path) -> Path:
    """Where the sidecar of a last.pt lies."""
    return last.with_name(SIDECAR)


def save_sidecar(path: Path, state: dict[str, Any]) -> None:
    """Write a sidecar that is there whole or not at all.

    Raises:
        OSError: As the disk says it.
    """
    buffer = io.BytesIO()  # a disk that fills up under torch's own writer raises a RuntimeError without a cause
    torch.save({"format": FORMAT, **state}, buffer)
    with _replacing(path) as part:
        part.write_bytes(buffer.getbuffer())


def load_sidecar(path: Path) -> _State | None:
    """The state, or None where there is no sidecar.

    Raises:
        MisuseError: Damaged, or of another format; later, where it is asked for something that it lacks.
    """
    if not path.exists():
        return None
    try:
        with ZipFile(path) as archive:
            if (broken := archive.testzip()) is not None:  # torch reads weights with another bit than was saved
                raise BadZipFile(f"{broken} has another checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for a damaged archive
        raise DamagedError(
            f"{path.name}: not readable ({type(error).__name__}); start anew, or resume an older copy"
        ) from None
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise MisuseError(
            f"{path.name}: format {found}, expected {FORMAT}; it was written by another version of yolo-kd: resume with "
            "that one, or start anew"
        )
    return _State(state, path)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """An empty folder on the same disk, gone afterwards."""
    staged = folder / STAGING
    shutil.rmtree(staged, ignore_errors=True)  # of a run that was killed
    staged.mkdir(parents=True)
    try:
        yield staged
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def commit(staged: Path, folder: Path, state: dict[str, Any]) -> None:
    """Put staged checkpoints and their sidecar in place of the older ones, which become the previous generation.

    Args:
        staged: Holds last.pt, and under other names files of the same content (best.pt, epoch3.pt).
        folder: Where they belong.
        state: The sidecar's.

    Raises:
        OSError: As the disk says it; the older generation is whole.
    """
    copies = sorted(path.name for path in staged.iterdir() if path.name != LAST)
    save_sidecar(staged / SIDECAR, {**state, "whole": sha256(staged / LAST), "copies": copies})
    for name in (LAST, *copies):
        flush(staged / name)
    for name, older in ((SIDECAR, PREVIOUS_SIDECAR), (LAST, PREVIOUS)):
        if (folder / name).exists():
            _second_name(folder / name, staged / older)
            (staged / older).replace(folder / older)
    for name in (SIDECAR, LAST, *copies):
        (staged / name).replace(folder / name)
    flush(folder)


def settle(checkpoint: Path, state: _State) -> None:
    """Make the pair that a run goes on from its newest, and write those copies of a checkpoint that a kill prevented.

    A kill between the two names, or damage, leaves it half or wholly under the names of the older pair, whose place the next
    save takes before its own pair is there.
    """
    last = checkpoint.with_name(LAST)
    if checkpoint.name in (LAST, PREVIOUS):
        for found, newest in ((state.sidecar, sidecar_path(last)), (checkpoint, last)):
            if found != newest:
                with _replacing(newest) as part:
                    part.unlink(missing_ok=True)  # of a run that was killed; it may be the very file that is linked to
                    _second_name(found, part)
    for name in state["copies"]:
        path = checkpoint.with_name(name)
        if not path.exists() or sha256(path) != state["whole"]:
            with _replacing(path) as part:
                shutil.copyfile(checkpoint, part)


def forget_previous(folder: Path) -> None:
    """Remove the older generation, once a run has ended."""
    for name in (PREVIOUS, PREVIOUS_SIDECAR):
        (folder / name).unlink(missing_ok=True)


def usable_checkpoint(path: Path) -> Path:
    """The checkpoint to go on from: the one that is named, or the one before where that has lost its sidecar.

    Raises:
        MisuseError: Sidecars are there and none belongs to it, or they are of another version.
    """
    if path.name != LAST or not any(_sidecars(path)):
        return path
    for candidate in (path, path.with_name(PREVIOUS)):
        if candidate.exists() and _find(candidate) is not None:
            return candidate
    raise _no_match(path)


def state_of(path: Path) -> _State | None:
    """The state that belongs to a checkpoint; None where there is no sidecar at all.

    Raises:
        MisuseError: Sidecars are there and none belongs to it, or they are of another version.
    """
    if not any(_sidecars(path)):
        return None
    state = _find(path)
    if state is None:
        raise _no_match(path)
    return state


def is_stripped(path: Path, state: dict[str, Any]) -> bool:
    """Whether a checkpoint is what the end of its run left: without optimizer, everything else in the sidecar."""
    return state.get("stripped") == sha256(path)


def only_begun(path: Path) -> MisuseError:
    """What to say of a checkpoint that was saved within the first epoch and has lost its sidecar."""
    return MisuseError(
        f"resume={path}: saved within the first epoch, of which only the {SIDECAR} beside it knows how far it came, and that "
        "is not there; start the run anew"
    )


def run_is_over(path: Path, state: Mapping[str, Any] | None = None) -> MisuseError:
    """What to say of a checkpoint that the end of its run left, with its sidecar's state or without a sidecar."""
    over = f"resume={path}: this run is over"
    weights = f"to start from its weights use student={path}"
    if state is None:
        return MisuseError(f"{over}, and to train longer needs the {SIDECAR} beside it, which is not there; {weights}")
    done = f"after {state['epoch'] + 1} of {state['epochs']} epochs"
    return MisuseError(f"{over} {done}; to train longer raise epochs=, {weights}")


@contextmanager
def room_for(what: str, last: Path, epoch: int) -> Iterator[None]:
    """A disk without room as one line that says what is still there.

    Args:
        what: What is being written.
        last: The run's last.pt.
        epoch: Epochs that the checkpoint on the disk has.

    Raises:
        YoloKDError: No room.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        if getattr(error, "errno", None) not in NO_ROOM and TORCH_WRITER not in str(error):
            raise
        kept = (
            f"the checkpoint after epoch {epoch} is whole: make room, then yolo-kd train resume={last}"
            if last.exists()
            else "there is no checkpoint yet: make room and start again"
        )
        raise YoloKDError(f"{last.parent}: no room left on the disk for {what}; {kept}") from error


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write settings that are there whole or not at all; a file that says the same stays.

    Args:
        path: The file.
        values: By key; what is no plain value becomes its text, as in Ultralytics.

    Raises:
        OSError: As the disk says it.
    """
    plain = {key: value if isinstance(value, PLAIN) else str(value) for key, value in values.items()}
    text = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()
    if not path.exists() or path.read_bytes() != text:
        with _replacing(path) as part:
            part.write_bytes(text)


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


def flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A name to write under; what was written is then on the disk, and takes the place of `path`."""
    part = path.with_name(path.name + ".part")
    try:
        yield part
        flush(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _second_name(path: Path, link: Path) -> None:
    try:
        link.hardlink_to(path)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, link)
        flush(link)


def _sidecars(path: Path) -> list[Path]:
    return [found for name in (SIDECAR, PREVIOUS_SIDECAR) if (found := path.with_name(name)).exists()]


def _find(path: Path) -> _State | None:
    digest = sha256(path)
    for sidecar in _sidecars(path):
        state = _read(sidecar)
        if state is not None and digest in (state["whole"], state.get("stripped")):
            return state
    return None


def _read(sidecar: Path) -> _State | None:
    """A sidecar's state; None if it is damaged, for which the one before steps in."""
    try:
        return load_sidecar(sidecar)
    except DamagedError:
        return None


def _no_match(path: Path) -> MisuseError:
    listed = " and ".join(sidecar.name for sidecar in _sidecars(path))
    return MisuseError(
        f"resume={path}: {listed} beside it belong to another checkpoint or are damaged (was it changed by another program?); "
        "resume the last.pt of a run as yolo-kd left it, or start anew"
    )
