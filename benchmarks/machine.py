"""What a benchmark ran on: processor, instruction sets, GPU, versions, and whether the machine was quiet."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

# The instruction sets that decide which kernels torch, OpenVINO and ONNX Runtime choose.
_X86 = ("avx2", "fma", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "avx_vnni", "avx_vnni_int8")
_AMX = ("amx_tile", "amx_bf16", "amx_fp16", "amx_int8")
_ARM = ("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2")

# Name in the result file -> distributions that may carry it.
_PACKAGES = {
    "torch": ("torch",),
    "ultralytics": ("ultralytics-opencv-headless", "ultralytics"),
    "openvino": ("openvino",),
    "nncf": ("nncf",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
}

# A 1-minute load above this share of the cores means that something else runs.
_BUSY_SHARE = 0.3


def machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, Any]:
    """The machine as `{"cpu", "isa", "cores", "gpu"}`; `gpu` is None where there is none.

    Args:
        cpuinfo: Where Linux describes the processor; elsewhere Python's `platform` has to do.
    """
    facts = _first_processor(cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else "")
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    name = facts.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in facts:
        name += f" (family {facts['cpu family']}, model {facts.get('model', '?')})"
    return {"cpu": name, "isa": [flag for flag in _X86 + _AMX + _ARM if flag in flags], "cores": cores(), "gpu": _gpu()}


def cores() -> int:
    """Cores that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of Python and of those runtimes that are installed."""
    found = {"python": platform.python_version()}
    for name, distributions in _PACKAGES.items():
        for distribution in distributions:
            try:
                found[name] = metadata.version(distribution)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def quiet(load: float | None = None) -> list[str]:
    """Notes for the result file: empty on a quiet machine, one warning when other processes were running.

    Call it before the first measurement; afterwards the benchmark itself is the load.

    Args:
        load: 1-minute load average; read from the system when None.

    >>> quiet(load=0.0)
    []
    """
    if load is None:
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= _BUSY_SHARE * cores():
        return []
    note = f"busy machine: load average {load:.1f} on {cores()} cores before the start, so times may be too long"
    print(f"warning: {note}", file=sys.stderr)
    return [note]


def _first_processor(cpuinfo: str) -> dict[str, str]:
    """The `key: value` lines of the first block."""
    pairs = (line.partition(":") for line in cpuinfo.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, colon, value in pairs if colon}


def _gpu() -> str | None:
    """Names of the GPUs as the driver gives them."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown, nvidia-smi failed"  # a benchmark that ran for an hour should not be lost over this
    return ", ".join(line.strip() for line in answer.splitlines() if line.strip()) or None
