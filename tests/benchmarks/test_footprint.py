"""Which bars a runtime process is held against, and which of its starts they are about."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks import footprint

STARTS = [  # the first compiles, the others find it in the cache
    {"start": 4.0, "whole": 5.0, "MB": 210.0, "heavy": [], "runs in": "int8+bf16"},
    {"start": 0.3, "whole": 0.9, "MB": 190.0, "heavy": [], "runs in": "int8+bf16"},
    {"start": 1.2, "whole": 2.0, "MB": 260.0, "heavy": [], "runs in": "int8+bf16"},
    {"start": 0.5, "whole": 1.1, "MB": 190.0, "heavy": [], "runs in": "int8+bf16"},
]


def measured(monkeypatch: pytest.MonkeyPatch, folder: Path, starts: list[dict[str, Any]]) -> dict[str, Any]:
    left = iter(starts)
    monkeypatch.setattr(footprint, "_start", lambda path, keys, home: next(left))
    (folder / "best.bin").write_bytes(bytes(3_000_000))
    return footprint._measure(folder, {"starts": len(starts) - 1})


def test_the_bars_are_about_warm_starts_and_the_largest_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    row = measured(monkeypatch, tmp_path, STARTS)
    assert (row["files MB"], row["first start s"], row["with imports s"]) == (3.0, 4.0, 1.1)
    memory, start = footprint._bars(row)
    assert (memory.name, memory.value, memory.limit, memory.sense) == (
        f"{tmp_path.name}: largest resident memory, MB", 260.0, 250.0, "<=",
    )  # fmt: skip
    assert (start.name, start.value, start.limit, start.sense) == (f"{tmp_path.name}: warm start, s", 0.5, 1.0, "<=")


def test_a_runtime_that_loads_torch_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    with pytest.raises(SystemExit, match="the runtime loaded torch"):
        measured(monkeypatch, tmp_path, [{**STARTS[0], "heavy": ["torch"]}, STARTS[1]])
