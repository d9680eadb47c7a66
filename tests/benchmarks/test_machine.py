"""The description of the machine: read from cpuinfo texts written here, and from this machine."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from benchmarks.machine import cores, machine, quiet, versions

ZEN5 = """processor\t: 0
cpu family\t: 26
model\t\t: 2
model name\t: AMD EPYC
flags\t\t: fpu avx2 fma avx512f avx_vnni avx512_bf16 avx512_vnni

processor\t: 1
model name\t: another
"""


def test_name_family_and_instruction_sets_come_from_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(ZEN5, encoding="utf-8")
    found = machine(cpuinfo)
    assert found["cpu"] == "AMD EPYC (family 26, model 2)"
    assert found["isa"] == ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni"]


def test_arm_features_are_known(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nFeatures : fp asimd i8mm\n", encoding="utf-8")
    assert machine(cpuinfo)["isa"] == ["asimd", "i8mm"]


def test_without_cpuinfo_the_platform_answers(tmp_path: Path) -> None:
    found = machine(tmp_path / "absent")
    assert found["cpu"] and found["isa"] == []


def test_cores_are_those_that_may_be_used() -> None:
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_versions_name_python_and_what_is_installed() -> None:
    torch = pytest.importorskip("torch")
    found = versions()
    assert found["python"] == platform.python_version()
    assert torch.__version__.startswith(found["torch"])


def test_a_busy_machine_is_noted_and_a_quiet_one_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert quiet(load=0.0) == []
    (note,) = quiet(load=2.0 * cores())
    assert "busy machine" in note and f"{2.0 * cores():.1f}" in note
    assert note in capsys.readouterr().err


def test_a_gpu_that_does_not_answer_does_not_stop_a_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nexit 9\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert machine()["gpu"] == "unknown, nvidia-smi failed"
    tool.write_text("#!/bin/sh\necho NVIDIA H100\n", encoding="utf-8")
    assert machine()["gpu"] == "NVIDIA H100"
