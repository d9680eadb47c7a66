"""What this CPU computes fast: read from the flags that the kernel reports, not guessed from a model name."""

from __future__ import annotations

import os
import platform
from functools import lru_cache
from pathlib import Path

# The best first. x86: AMX, AVX512, AVX; Arm: SVE, NEON.
INT8_FLAGS = ("amx_int8", "avx512_vnni", "avx_vnni_int8", "avx_vnni", "i8mm", "asimddp")
BF16_FLAGS = ("amx_bf16", "avx512_bf16", "svebf16", "bf16")


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags of the first core; empty where the system does not list them (macOS, Windows)."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_bf16() -> bool:
    """Whether the CPU has bf16 dot products; without them bf16 is emulated and slower than float32."""
    return not cpu_flags().isdisjoint(BF16_FLAGS)


@lru_cache(maxsize=1)
def model_name() -> str:
    """What the CPU calls itself, or the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def describe() -> str:
    """A few words for the log: the best units for INT8 and for bf16, such as "avx512_vnni, avx512_bf16", or the architecture."""
    best = (next((flag for flag in known if flag in cpu_flags()), None) for known in (INT8_FLAGS, BF16_FLAGS))
    return ", ".join(flag for flag in best if flag) or platform.machine()
