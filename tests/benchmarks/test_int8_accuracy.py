"""Which bars an INT8 net is held against in each runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import int8_accuracy

CASE = int8_accuracy.Case("coco", Path("a.pt"), Path("data.yaml"), 640, "val")
ROWS = {
    "float": {"AP": 0.43, "speed": 1.0},
    "ours INT8": {"AP": 0.424, "drop": 0.006, "speed": 1.5},
    "Ultralytics INT8": {"AP": 0.421, "drop": 0.009, "speed": 0.6},
    int8_accuracy.ON_TRAIN: {"AP": 0.5, "drop": -0.07, "speed": 9.0},
}


@pytest.mark.parametrize(("backend", "limit", "holds"), [("openvino", 0.005, False), ("onnx", 0.010, True)])
def test_the_bars_of_a_runtime(backend: str, limit: float, holds: bool):
    lost, *speed, above = int8_accuracy._bars(CASE, backend, ROWS)
    label = f"coco, {backend}: "
    assert (lost.name, lost.value, lost.limit, lost.sense) == (f"{label}AP lost by INT8", 0.006, limit, "<=")
    assert lost.holds is holds
    assert [(b.name, b.value, b.limit, b.sense) for b in speed] == (
        [(f"{label}speed against float", 1.5, 1.25, ">=")] if backend == "onnx" else []
    )
    assert (above.name, above.limit, above.sense) == (f"{label}AP above Ultralytics' INT8", 0.0, ">=")
    assert above.value == pytest.approx(0.003), "against the export as it ships, which calibrates on val"


def test_where_ultralytics_export_fails_there_is_no_bar_against_it():
    rows = {name: row for name, row in ROWS.items() if name != "Ultralytics INT8"}
    assert [b.name for b in int8_accuracy._bars(CASE, "openvino", rows)] == ["coco, openvino: AP lost by INT8"]
