"""Which bars the way from frame to boxes is held against, and which arms they divide."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks import edge_latency

P50 = {
    "Ultralytics float 640x640": 20.0, "Ultralytics INT8 640x640": 16.0,
    "ours float32 640x640": 30.0, "bare float32 640x640": 27.0,
    "ours float 640x640": 15.0, "bare float 640x640": 14.0,
    "ours INT8 640x640": 10.0, "bare INT8 640x640": 9.0,
    "ours float 384x640": 9.0, "bare float 384x640": 8.0,
    "letterbox alone 384x640": 0.5,
    "ours INT8 384x640": 6.0, "bare INT8 384x640": 5.0,
}  # fmt: skip
SPEEDS = {"Ultralytics float": 40.0, "ours float": 70.0, "ours INT8": 100.0}
CAMERA = "ours at the camera's shape over Ultralytics, "
NO_CAMERA = ("ours INT8 384", "bare INT8 384")


def rows(*left_out: str) -> dict[str, dict[str, Any]]:
    """The worst tail is that of our INT8 net at the square shape; a bare net's is worse, and is not ours."""
    tails = {"ours INT8 640x640": 1.6, "bare INT8 640x640": 3.0}
    kept = {name: p50 for name, p50 in P50.items() if not name.startswith(left_out or ("none",))}
    return {name: {"arm": name, "p50 ms": p50, "p99 ms": p50 * tails.get(name, 1.2)} for name, p50 in kept.items()}


@pytest.mark.parametrize(("isa", "limit"), [(["avx512_vnni"], 1.4), (["avx512_bf16", "amx_bf16"], 1.0)])
def test_the_bars(monkeypatch: pytest.MonkeyPatch, isa: list[str], limit: float):
    monkeypatch.setattr(edge_latency, "machine", lambda: {"isa": isa})
    bars = edge_latency._bars(rows(), SPEEDS)
    assert [(b.name, b.value, b.limit, b.sense) for b in bars] == [
        ("frame to boxes over the bare inference, worst arm", pytest.approx(6 / 5), 1.10, "<="),
        ("ours over Ultralytics, float, same shape", pytest.approx(15 / 20), 0.75, "<="),
        ("ours over Ultralytics, INT8, same shape", pytest.approx(10 / 16), 0.75, "<="),
        (f"{CAMERA}float", pytest.approx(9 / 20), 0.5, "<="),
        (f"{CAMERA}INT8", pytest.approx(6 / 16), 0.5, "<="),
        ("p99 over p50, worst of ours", pytest.approx(1.6), 1.5, "<="),
        ("INT8's speed over OpenVINO's default", pytest.approx(14 / 9), limit, ">="),
        ("INT8's speed over float32", pytest.approx(27 / 9), 2.0, ">="),
        ("frames/s over Ultralytics, float", pytest.approx(70 / 40), 1.5, ">="),
    ]


def test_without_an_int8_net_of_the_cameras_shape_float_alone_is_held_there():
    names = [b.name for b in edge_latency._bars(rows(*NO_CAMERA), SPEEDS)]
    assert [name for name in names if name.startswith(CAMERA)] == [f"{CAMERA}float"] and len(names) == 8


def test_the_floors_are_bare_over_ultralytics_of_the_same_precision():
    found = [line.split(";")[0] for line in edge_latency._floors(rows())]
    assert found == [
        "floor of ours over Ultralytics, float, 640x640: 0.700", "floor of ours over Ultralytics, float, 384x640: 0.400",
        "floor of ours over Ultralytics, INT8, 640x640: 0.562", "floor of ours over Ultralytics, INT8, 384x640: 0.312",
        "p99 over p50 of the bare inference, worst: 3.000",
    ]  # fmt: skip
