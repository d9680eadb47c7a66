"""Compiled OpenVINO nets on disk, for a warm start, each with its hash.

OpenVINO stores what it compiled and loads it again without a look at its content: with 4000 bytes of it flipped, a
YOLOv8n found things with confidence 1.0 on a grey picture (2026.4, CPU). So every stored net gets a hash beside it, and one
that does not fit is thrown away before OpenVINO can see it. The folder is named by the hash of the net's files: no other
net can ever be served, whatever OpenVINO takes for its own key.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from yolo_kd.deploy.artifact import Artifact, sha256

LOG = logging.getLogger("yolo_kd.deploy")
STORED, HASH = ".blob", ".sha256"


@contextlib.contextmanager
def compile_cache(artifact: Artifact, root: Path) -> Iterator[Path | None]:
    """The folder to hand to OpenVINO while it compiles; None, and a line that says so, where nothing can be written.

    On entry it holds nothing but nets that are as they were stored; on leaving, what is new in it gets its hash.
    """
    folder = root / _digest(artifact)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    except OSError as error:
        LOG.warning("%s: compiled nets cannot be kept there (%s); every start compiles anew", folder, error.strerror)
        yield None
        return
    yield folder
    try:
        _seal(folder)
    except OSError as error:
        LOG.warning("%s: compiled nets cannot be kept there (%s); every start compiles anew", folder, error.strerror)


def _digest(artifact: Artifact) -> str:
    """16 hexadecimal digits for each file of the net."""
    path = artifact.model_path
    parts = [p for p in (path, path.with_suffix(".bin")) if p.is_file()]
    return "-".join((artifact.files.get(p.name) or sha256(p))[:16] for p in parts)


def _sweep(folder: Path) -> None:
    for stored in folder.glob(f"*{STORED}"):
        beside = stored.with_suffix(HASH)
        if not beside.is_file() or beside.read_text() != sha256(stored):
            LOG.warning("%s: is not as it was stored, or was never finished; the net is compiled anew", stored)
            stored.unlink(missing_ok=True)


def _seal(folder: Path) -> None:
    for stored in folder.glob(f"*{STORED}"):
        beside = stored.with_suffix(HASH)
        part = beside.with_suffix(f".{os.getpid()}.part")
        if not beside.is_file() or beside.stat().st_mtime_ns < stored.stat().st_mtime_ns:
            try:
                part.write_text(sha256(stored))
                part.replace(beside)
            finally:
                part.unlink(missing_ok=True)
