"""Which bars training on the grid is held against: INT8 nets only, and the lower end of the interval."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import qat

AP = {qat.BASE: 0.40, qat.CONTROL: 0.44, qat.ALONE: 0.60, qat.TAUGHT: 0.43}
COST = {"float": 0.0, "openvino int8": 0.01, "onnx int8": 0.02}
SEEN: Any = {
    (split, arm, net): SimpleNamespace(ap=ap - cost * (arm == qat.BASE) - worse)
    for split, worse in (("val", 0.0), ("test", 0.3))
    for arm, ap in AP.items()
    for net, cost in COST.items()
}


def test_the_bars(monkeypatch: pytest.MonkeyPatch):
    def interval(one: Any, other: Any) -> tuple[float, float]:
        return one.ap - other.ap - 0.02, one.ap - other.ap + 0.02

    monkeypatch.setattr(qat, "drop_interval", interval)
    found = {b.name: (b.value, b.limit, b.sense) for b in qat._bars("val", SEEN)}
    assert found == {
        f"{net}, val: AP of '{qat.TAUGHT}' minus '{other}', lower end of the interval": (pytest.approx(low), 0.0, ">=")
        for net, other, low in [
            ("openvino int8", qat.BASE, 0.43 - 0.39 - 0.02), ("openvino int8", qat.CONTROL, 0.43 - 0.44 - 0.02),
            ("onnx int8", qat.BASE, 0.43 - 0.38 - 0.02), ("onnx int8", qat.CONTROL, 0.43 - 0.44 - 0.02),
        ]
    }  # fmt: skip
