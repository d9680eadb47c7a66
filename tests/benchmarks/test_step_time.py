"""Which bars a step is held against, and what its clock waits for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import step_time

ROWS: dict[tuple[int, str], dict[str, Any]] = {
    (320, name): {"s/step": seconds, "distillers": 0.1, "distillers' backward": 0.05, "peak GiB": 2.0}
    for name, seconds in {
        "Ultralytics plain": 2.0,
        "Ultralytics distill_model=": 8.0,
        "ours plain": 0.9,
        "ours csgr_lqe, torch": 2.4,
        "ours csgr_lqe, openvino-bf16": 2.0,
        "ours csgr_lqe, openvino-int8": 1.0,
    }.items()
}


@pytest.mark.parametrize(("isa", "limit"), [(["avx512_vnni"], 1.3), (["avx512_bf16", "amx_bf16"], 1.0)])
def test_bars_of_a_cpu_count_only_engines_that_pass(monkeypatch: pytest.MonkeyPatch, isa: list[str], limit: float):
    monkeypatch.setattr(step_time, "machine", lambda: {"gpu": None, "isa": isa})
    bars = step_time._bars(ROWS, [320], ["torch", "openvino-bf16"])
    assert [(b.value, b.limit) for b in bars] == [
        (0.25, 0.32), (0.25, 0.25), (1.0, limit), (0.45, 0.5), (pytest.approx(0.075), 0.2), (1.0, 1.2),
    ]  # fmt: skip
    assert all(b.sense == "<=" for b in bars) and "openvino-bf16" in bars[1].name


def test_a_gpu_has_one_bar_a_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(step_time, "machine", lambda: {"gpu": "NVIDIA", "isa": []})
    [bar] = step_time._bars(ROWS, [320, 640], ["torch"])
    assert (bar.name, bar.value, bar.limit) == ("320 px: ours / Ultralytics' distillation", 0.3, 0.75)


@pytest.mark.parametrize(("device", "waits"), [("cpu", 0), ("cuda", 1)])
def test_the_clock_waits_for_a_gpu(monkeypatch: pytest.MonkeyPatch, device: str, waits: int):
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    arm = object.__new__(step_time.Arm)
    arm.trainer = SimpleNamespace(device=torch.device(device))
    assert arm._clock() > 0 and len(waited) == waits
