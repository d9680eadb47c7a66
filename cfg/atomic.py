"""A file that is there whole or not at all: written beside its place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from yolo_kd.errors import MisuseError, YoloKDError

ARTIFACT_MANIFEST = "artifact.json"  # in a folder of which every file is hashed: nothing else goes there
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def write_text(path: Path, text: str, key: str = "out", *, shared: bool = False) -> None:
    """Write or replace a text file, see `write_bytes`.

    Raises:
        MisuseError: Half a character, as a word of a command line that is not UTF-8 leaves behind.
    """
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError as error:
        start = max(error.start - 20, 0)
        raise MisuseError(
            f"{path}: {text[start : error.end]!a} would be in it, which is no text; expected UTF-8"
        ) from None
    write_bytes(path, data, key, shared=shared)


def write_bytes(path: Path, data: bytes, key: str = "out", *, shared: bool = False) -> None:
    """Write or replace a file; its folder is made if it is missing.

    Args:
        path: The file.
        data: All of it.
        key: The user's key that named it, for messages.
        shared: Whether other processes may write it meanwhile, as in a cache; the last one wins.

    Raises:
        MisuseError: The place cannot be written.
        YoloKDError: The disk is full.
    """
    _refuse_folder(path, key)
    part = path.with_name(f"{path.name}.{os.getpid()}.part" if shared else f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a crash of the machine may leave the new name with nothing in it
        part.replace(path)
    except OSError as error:
        raise refusal(error, path, key) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def refuse_taken(path: Path, mark: str, key: str = "out") -> None:
    """Refuse, before long work, a place where something lies that we did not write, or where nothing can be written.

    Args:
        path: The file to be.
        mark: A text that every file of the kind holds.
        key: The user's key that named it, for messages.

    Raises:
        MisuseError: Something else is there, or the place cannot be written.
    """
    refuse_unwritable(path, key)
    if path.exists() and mark not in path.read_text(encoding="utf-8", errors="replace"):
        raise MisuseError(f"{key}={path}: exists and was not written by this command; choose another name with {key}=")


def refuse_unwritable(path: Path, key: str = "out") -> None:
    """Refuse, before long work, a place where no file can be written.

    Raises:
        MisuseError: A folder is there, or a file where a folder has to be, or rights are missing; or the place is in the folder
            of an artifact, all files of which its next verdict hashes.
    """
    _refuse_folder(path, key)
    for above in path.resolve().parents:
        if (above / ARTIFACT_MANIFEST).is_file():
            raise MisuseError(f"{key}={path}: is in the artifact's own folder; choose a place outside of {above}")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise refusal(NotADirectoryError(errno.ENOTDIR, f"{folder.name} is a file"), path, key)
    if not os.access(folder, os.W_OK):
        raise refusal(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), path, key)


def _refuse_folder(path: Path, key: str) -> None:
    if path.is_dir():
        raise MisuseError(f"{key}={path}: is a folder, expected a file")


def refusal(error: OSError, path: Path, key: str = "out") -> YoloKDError:
    """What to tell somebody whose disk or rights end a write."""
    if error.errno in _FULL:
        return YoloKDError(f"{key}={path}: no room left on the disk; make room and run the same command again")
    return MisuseError(f"{key}={path}: cannot be written ({error.strerror}); choose another place with {key}=")
