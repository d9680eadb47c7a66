"""Cross-layer equalization: the same outputs, like ranges; and hands off where it does not hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.quantize.equalize import equalize
from yolo_kd.deploy.quantize.onnx_graph import array, weights_of

from .conftest import Node, build_net, run_net


def chain(between: list[Node], last: str, extra: list[Node] | None = None, **outputs: Any) -> Any:
    rng = np.random.default_rng(0)
    first = (
        rng.normal(size=(8, 3, 3, 3)).astype(np.float32) * np.logspace(-2, 2, 8, dtype=np.float32)[:, None, None, None]
    )
    nodes: list[Node] = [("Conv", ["images", "w1", "b1"], ["a"], {"pads": [1, 1, 1, 1]}), *between]
    nodes += [("Conv", [last, "w2"], ["y"], {}), *(extra or [])]
    weights = {
        "w1": first,
        "b1": rng.normal(size=8).astype(np.float32),
        "w2": rng.normal(size=(4, 8, 1, 1)).astype(np.float32),
    }
    return build_net(nodes, weights, {"y": (1, 4, 16, 16), **outputs})


HOMOGENEOUS = [
    ([], "a"),
    ([("Relu", ["a"], ["r"], {})], "r"),
    ([("LeakyRelu", ["a"], ["r"], {"alpha": 0.1})], "r"),
]


@pytest.mark.parametrize(("between", "last"), HOMOGENEOUS, ids=["nothing", "relu", "leaky"])
def test_the_net_computes_the_same_with_like_ranges(between: list[Node], last: str) -> None:
    model = chain(between, last)
    image = np.random.default_rng(1).random((1, 3, 16, 16), np.float32)
    before = run_net(model, image)[0]
    assert equalize(model) == 1
    assert run_net(model, image)[0] == pytest.approx(before, rel=1e-3, abs=1e-3 * float(np.abs(before).max()))
    w1, w2 = (np.abs(array(weights_of(model)[name])) for name in ("w1", "w2"))
    assert w1.max((1, 2, 3)) == pytest.approx(w2.max((0, 2, 3)), rel=1e-4)


def test_silu_is_left_alone(tiny_detector: Callable[..., Any]) -> None:
    model = tiny_detector()
    before = model.SerializeToString(deterministic=True)
    assert equalize(model) == 0
    assert model.SerializeToString(deterministic=True) == before


def test_a_second_reader_forbids_it() -> None:
    model = chain([], "a", [("Relu", ["a"], ["other"], {})], other=(1, 8, 16, 16))
    assert equalize(model) == 0


def test_an_output_in_between_forbids_it() -> None:
    assert equalize(chain([], "a", None, a=(1, 8, 16, 16))) == 0


def test_a_dead_channel_stays_finite() -> None:
    model = chain([], "a")
    dead = array(weights_of(model)["w1"]).copy()
    dead[3] = 0
    from onnx import numpy_helper

    weights_of(model)["w1"].CopyFrom(numpy_helper.from_array(dead, "w1"))
    assert equalize(model) == 1
    assert all(np.isfinite(array(w)).all() for w in weights_of(model).values())
