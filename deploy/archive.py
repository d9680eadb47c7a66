"""Zip archives from strangers: nothing leaves the target folder, nothing swells beyond what it declared.

Before anything is written, every entry is looked at: absolute paths, `..`, drive letters, backslashes, links, devices,
encryption, two entries of one name (also up to case, which some disks do not tell apart), too many, too large, or swelling
too much. A header that lies about a size ends at that size, with a checksum that does not fit.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from yolo_kd.cfg.atomic import refusal

from yolo_kd.errors import GateError, MisuseError

CHUNK = 1 << 20
_FORBIDDEN = set('<>:"|?*\\') | {chr(i) for i in range(32)}
_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OSError)


@dataclass(frozen=True)
class Bounds:
    """What an archive may hold.

    Args:
        entries: Number of files.
        bytes: Of all files together, unpacked.
        ratio: Unpacked size of one file as a multiple of its packed size, above 1 MB.
    """

    entries: int = 2000
    bytes: int = 2 << 30
    ratio: int = 200


def pack(folder: Path, out: Path) -> None:
    """Write every file of a folder into a zip, sorted, with the same date in each: equal folders give equal bytes."""
    part = out.with_name(out.name + ".part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                info = zipfile.ZipInfo(path.relative_to(folder).as_posix(), (1980, 1, 1, 0, 0, 0))
                info.external_attr = (stat.S_IFREG | 0o644) << 16
                info.compress_type = zipfile.ZIP_DEFLATED
                with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target, CHUNK)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def opened(path: Path, bounds: Bounds = Bounds()) -> Iterator[zipfile.ZipFile]:
    """An archive whose list of entries was found harmless.

    Raises:
        MisuseError: No such file, or no zip.
        GateError: An entry that has no business in it, or a damaged archive.
    """
    if not path.is_file():
        raise MisuseError(f"{path}: no such file; expected a .zip that yolo-kd bundle made")
    try:
        archive = zipfile.ZipFile(path)
    except _ERRORS as error:
        raise GateError(f"{path.name}: no readable zip ({error}); it is truncated or damaged, copy it again") from None
    with archive:
        _check_entries(path.name, archive.infolist(), bounds)
        yield archive


def names(archive: zipfile.ZipFile) -> list[str]:
    """The files in an archive, sorted."""
    return sorted(info.filename for info in archive.infolist() if not info.is_dir())


def read(archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """One file of at most `limit` bytes.

    Raises:
        GateError: It is missing, larger, or damaged.
    """
    return b"".join(_chunks(archive, name, limit))


def sha256_of(archive: zipfile.ZipFile, name: str) -> str:
    """SHA-256 of one file, in hexadecimal.

    Raises:
        GateError: It is damaged, or longer than it declares.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(archive, name, archive.getinfo(name).file_size):
        digest.update(chunk)
    return digest.hexdigest()


def unpack(archive: zipfile.ZipFile, target: Path) -> None:
    """Write every file below `target`, a new folder that appears whole or not at all.

    Raises:
        MisuseError: The folder exists, or cannot be written.
        GateError: A file is damaged or longer than it declares.
        YoloKDError: The disk is full.
    """
    if target.exists():
        raise MisuseError(f"{target}: exists already; choose a folder that does not")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # a name that nobody can lay in wait at, in a folder that goes with what is left in it
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as temporary:
            part = Path(temporary) / "unpacked"
            part.mkdir()
            for name in names(archive):
                path = part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as file:
                    for chunk in _chunks(archive, name, archive.getinfo(name).file_size):
                        file.write(chunk)
            part.rename(target)
    except OSError as error:
        raise refusal(error, target, "folder") from error


def _chunks(archive: zipfile.ZipFile, name: str, limit: int) -> Iterator[bytes]:
    where = Path(str(archive.filename)).name
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise GateError(f"{where}: {name} is missing; copy the bundle again") from None
    if info.file_size > limit:
        raise GateError(f"{where}: {name} has {info.file_size} bytes, at most {limit} were expected")
    try:
        with archive.open(info) as file:  # stops at the declared size, and compares the checksum there
            while chunk := file.read(CHUNK):
                yield chunk
    except _ERRORS as error:
        raise GateError(f"{where}: {name} is damaged ({error}); copy the bundle again") from None


def _check_entries(where: str, entries: list[zipfile.ZipInfo], bounds: Bounds) -> None:
    if len(entries) > bounds.entries:
        raise GateError(f"{where}: holds {len(entries)} entries, at most {bounds.entries} were expected")
    total = sum(info.file_size for info in entries)
    if total > bounds.bytes:
        raise GateError(f"{where}: unpacks to {total} bytes, at most {bounds.bytes} were expected")
    seen: set[str] = set()
    if not all(info.filename for info in entries):
        raise GateError(f"{where}: has an entry without a name; do not use this file")
    files = {info.filename.casefold() for info in entries if not info.is_dir()}
    for info in entries:
        fault = _fault(info, bounds)
        key = info.filename.rstrip("/").casefold()
        if fault is None and (key in seen or any(str(parent) in files for parent in PurePosixPath(key).parents)):
            fault = "occurs twice, or lies in what is a file"
        if fault is not None:
            raise GateError(f"{where}: entry {info.orig_filename!r:.80} {fault}; do not use this file")
        seen.add(key)


def _fault(info: zipfile.ZipInfo, bounds: Bounds) -> str | None:
    """What makes an entry dangerous; None if nothing does."""
    name = (
        info.orig_filename
    )  # as it stands in the file: `filename` is cut at a zero byte and has its backslashes turned
    path = PurePosixPath(name)
    mode = info.external_attr >> 16
    if path.is_absolute() or ".." in path.parts or set(name) & _FORBIDDEN or name.rstrip("/") != str(path):
        return "has a path that leads out of the folder or that some disks cannot hold"
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by method {info.compress_type}, expected stored or deflated"
    if info.file_size > CHUNK and info.file_size > bounds.ratio * max(info.compress_size, 1):
        return f"swells from {info.compress_size} to {info.file_size} bytes"
    return None
