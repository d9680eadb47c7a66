"""What a CPU is called in verdicts and reports: by what INT8 and bf16 run on."""

from __future__ import annotations

import platform

import pytest
from yolo_kd.deploy import machine


@pytest.mark.parametrize(
    ("flags", "said", "bf16"),
    [
        ({"avx2", "avx_vnni", "avx512_vnni", "avx512_bf16"}, "avx512_vnni, avx512_bf16", True),
        ({"avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16"}, "amx_int8, amx_bf16", True),
        ({"avx2", "avx_vnni"}, "avx_vnni", False),
        ({"asimddp", "i8mm", "bf16", "svebf16"}, "i8mm, svebf16", True),
        ({"avx512_bf16"}, "avx512_bf16", True),
        ({"avx2", "fma"}, platform.machine(), False),
    ],
)
def test_the_units_for_int8_and_bf16_are_named_the_best_of_each(monkeypatch, flags, said, bf16):
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags))
    assert machine.describe() == said and machine.has_bf16() is bf16
