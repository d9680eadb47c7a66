"""A folder that is there whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from yolo_kd.deploy.artifact import MANIFEST

from yolo_kd.errors import MisuseError, YoloKDError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PROBE = 1 << 20  # bytes; more than what a stream holds back before it notices that a disk is full


def check_target(target: Path, overwrite: bool, mark: str = MANIFEST) -> None:
    """Refuse a place that is taken by something that we did not write.

    Args:
        target: The folder to be.
        overwrite: Replace whatever folder is there.
        mark: The file by which we know our own.

    Raises:
        MisuseError: A file is there, or a folder without the mark.
    """
    if not target.exists():
        return
    if not target.is_dir():
        raise MisuseError(f"{target}: is a file, expected a place for a folder; choose another with out=")
    if any(target.iterdir()) and not (target / mark).is_file() and not overwrite:
        raise MisuseError(f"{target}: exists and holds no {mark}, so it is not ours; overwrite=true replaces it")


def require_room(folder: Path) -> None:
    """Find out whether a write failed for want of room, which libraries such as OpenVINO say in no clear words.

    Args:
        folder: Where the half-written file still lies: a full disk has no room beside it.

    Raises:
        OSError: As the disk has it.
    """
    with (folder / "probe").open("wb") as file:
        file.write(bytes(_PROBE))
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def staged(target: Path, overwrite: bool = False, mark: str = MANIFEST) -> Iterator[Path]:
    """A new folder of another name beside `target`, which becomes `target` if the block ends well and is removed otherwise.

    Args:
        target: The folder to be; one of ours that is there is replaced.
        overwrite: Replace one that is not ours as well.
        mark: The file by which we know our own.

    Raises:
        MisuseError: The place is taken, or cannot be written.
        YoloKDError: The disk is full.
    """
    target = target.absolute()
    check_target(target, overwrite, mark)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        if target.exists():
            target.rename(old)
        part.rename(target)
    except (OSError, YoloKDError) as error:
        fault = error if isinstance(error, OSError) else error.__cause__  # of a file in `part`, a name that is gone
        code = fault.errno if isinstance(fault, OSError) else None
        if code in _FULL:
            raise YoloKDError(
                f"{target}: no room left on the disk; nothing was left behind, make room and try again"
            ) from error
        if code in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
            raise MisuseError(
                f"{target}: cannot be written ({os.strerror(code)}); choose another place with out="
            ) from error
        raise
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)
