"""Compiled OpenVINO nets on disk, for a warm start, each with its hash.

OpenVINO stores what it compiled and loads it again without a look at its content: with 4000 bytes of it flipped, a
YOLOv8n found things with confidence 1.0 on a grey picture (2026.4, CPU). So every stored net gets a hash beside it, and one
that does not fit is thrown away before OpenVINO can see it. The folder is named by the hash of the net's files: no other
net can ever be served, whatever OpenVINO takes for its own key. Where a device names its driver or compiler, as an NPU does,
their versions are part of the name too: what an older driver compiled is left alone, and served again after a step back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from yolo_kd.deploy.artifact import Artifact, sha256

if TYPE_CHECKING:
    import openvino as ov

LOG = logging.getLogger("yolo_kd.deploy")
STORED, HASH = ".blob", ".sha256"
VERSIONS = ("DRIVER_VERSION", "COMPILER_VERSION")  # how the names of such properties end, e.g. NPU_DRIVER_VERSION


@contextlib.contextmanager
def compile_cache(artifact: Artifact, root: Path, drivers: Mapping[str, str]) -> Iterator[Path | None]:
    """The folder to hand to OpenVINO while it compiles; None, and a line that says so, where nothing can be written.

    On entry it holds nothing but nets that are as they were stored; on leaving, what is new in it gets its hash.

    Args:
        artifact: The net.
        root: Where the folders lie.
        drivers: From `driver_versions`.
    """
    folder = root / (_digest(artifact) + (f"-{_digest_of(drivers)}" if drivers else ""))
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


def driver_versions(core: ov.Core, device: str) -> dict[str, str]:
    """Versions of drivers and compilers of a device, of every device there is for "AUTO"; empty where none is named.

    >>> class Core:
    ...     available_devices = ["CPU", "NPU"]
    ...     told = {"CPU": {"FULL_DEVICE_NAME": "x"}, "NPU": {"NPU_DRIVER_VERSION": 1688, "NPU_COMPILER_VERSION": 458757}}
    ...
    ...     def get_property(self, device, name):
    ...         return list(self.told[device]) if name == "SUPPORTED_PROPERTIES" else self.told[device][name]
    >>> driver_versions(Core(), "AUTO")
    {'NPU.NPU_DRIVER_VERSION': '1688', 'NPU.NPU_COMPILER_VERSION': '458757'}
    >>> driver_versions(Core(), "CPU")
    {}
    """
    found = {}
    for one in core.available_devices if device == "AUTO" else [device]:
        for name in core.get_property(one, "SUPPORTED_PROPERTIES"):
            if name.endswith(VERSIONS):
                found[f"{one}.{name}"] = str(core.get_property(one, name))
    return found


def _digest_of(versions: Mapping[str, str]) -> str:
    return hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:16]


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
