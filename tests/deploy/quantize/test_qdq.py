"""Integer nodes put into a net: which ones, with which numbers, and that the runtime computes what the graph says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.quantize.onnx_graph import producers, session, weights_of
from yolo_kd.deploy.quantize.qdq import (
    Weights,
    count,
    grid_tensors,
    insert,
    quantized_nodes,
    read_weights,
    room_for_bias,
    sharing,
)
from yolo_kd.deploy.quantize.ranges import Grid, grid, weight_scales
from yolo_kd.deploy.quantize.tail import decode_tail, of_onnx

from .conftest import build_net, run_net


def rounded(model: Any, nodes: dict[str, Any], grids: dict[str, Grid]) -> dict[str, Weights]:
    """Weights of the convolutions, rounded per channel."""
    shared, found = sharing(nodes), {}
    for name, (weight, bias) in read_weights(model, nodes).items():
        entry = nodes[name].input[0]
        scales = room_for_bias(weight_scales(weight, True, False), bias, grids[shared.get(entry, entry)])
        codes = np.clip(np.rint(weight / scales.reshape(-1, 1, 1, 1)), -127, 127).astype(np.int8)
        found[name] = Weights(codes, scales, bias)
    return found


def test_one_convolution_by_hand() -> None:
    """y = 2 x - 1 with x on a grid of 1/255 and y on one of .01: x = .4 gives code 102 and y = -.2."""
    model = build_net(
        [("Conv", ["images", "w", "b"], ["y"], {})],
        {"w": np.full((1, 1, 1, 1), 2.0, np.float32), "b": np.array([-1.0], np.float32)},
        {"y": (1, 1, 1, 1)},
        size=(1, 1, 1, 1),
    )
    nodes = quantized_nodes(model, ["y"], ())
    weights = {"y": Weights(np.full((1, 1, 1, 1), 100, np.int8), np.array([0.02], np.float32), np.array([-1.0]))}
    made = insert(model, nodes, {"images": Grid(1 / 255, 0), "y": Grid(0.01, 100)}, weights)
    names = ["images/q", "y/dq"]
    codes, value = run_net(_returning(made, names), np.full((1, 1, 1, 1), 0.4, np.float32), *names)
    assert codes.item() == 102 and value.item() == pytest.approx(-0.2)
    assert weights_of(made)["y/bias/codes"].int32_data or weights_of(made)["y/bias/codes"].raw_data


def _returning(model: Any, names: list[str]) -> Any:
    """The net with these tensors among its outputs, of whatever type."""
    from onnx import ValueInfoProto

    made = type(model)()
    made.CopyFrom(model)
    made.graph.output.extend([ValueInfoProto(name=name) for name in names])
    return made


def test_what_is_quantized_in_a_detector(tiny_detector: Callable[..., Any]) -> None:
    model = tiny_detector()
    tail = decode_tail(*of_onnx(model))
    every = quantized_nodes(model, ["a", "b", "box_out", "class_out"], tail.ops)
    assert set(every) == {"a", "a_s", "a_y", "left", "b", "b_s", "b_y", "sum", "neck", "box_out", "class_out"}
    assert sharing(every) == {"left": "a_y", "right": "a_y"}
    assert "left" not in grid_tensors(every) and "images" in grid_tensors(every)
    stem_in_float = quantized_nodes(model, ["b", "box_out", "class_out"], tail.ops)
    assert not {"a", "a_s", "a_y"} & set(stem_in_float), "the activation of a float convolution stays in float"
    assert {"left", "sum", "neck"} <= set(stem_in_float)
    assert set(quantized_nodes(model, [], tail.ops)) == set(), "moving numbers alone is not worth it"


def full_grids(model: Any, nodes: dict[str, Any], image: np.ndarray) -> dict[str, Grid]:
    """Grids over what one image gives."""
    names = grid_tensors(nodes)
    inner = [n for n in names if n != "images"]
    run, entry = session(model, inner)
    values = dict(zip(inner, run.run(inner, {entry: image}), strict=True), images=image)
    return {name: grid(float(values[name].min()), float(values[name].max())) for name in names}


@pytest.mark.parametrize("signed", [False, True])
def test_the_integer_net_says_about_the_same(tiny_detector: Callable[..., Any], signed: bool) -> None:
    model = tiny_detector()
    image = np.random.default_rng(1).random((1, 3, 16, 16), np.float32)
    tail = decode_tail(*of_onnx(model))
    nodes = quantized_nodes(model, ["a", "b", "box_out", "class_out"], tail.ops)
    grids = full_grids(model, nodes, image)
    made = insert(model, nodes, grids, rounded(model, nodes, grids), signed)
    wanted = run_net(model, image)[0]
    found = run_net(made, image)[0]
    assert np.abs(found - wanted).max() < 0.05 * np.abs(wanted).max()
    run, entry = session(made)
    fused = run.run(None, {entry: image})[0]
    assert np.abs(fused - found).max() < 0.02 * np.abs(wanted).max(), "the runtime's integer kernels differ"
    assert count(made) == {"int8_convolutions": 4, "float_convolutions": 1, "qdq_nodes": count(made)["qdq_nodes"]}
    read_by_tail = {i for node in made.graph.node if node.output[0] in tail.ops for i in node.input}
    assert {"box_out/dq", "class_out/dq"} <= read_by_tail
    quantizing = {n.output[0] for n in made.graph.node if n.op_type.endswith("Linear")}
    assert not {f"{name}/dq" for name in tail.ops} & quantizing, "something in the tail is quantized"


def test_signed_codes_are_the_unsigned_ones_moved(tiny_detector: Callable[..., Any]) -> None:
    model = tiny_detector()
    image = np.random.default_rng(2).random((1, 3, 16, 16), np.float32)
    nodes = quantized_nodes(model, ["a", "b"], decode_tail(*of_onnx(model)).ops)
    grids = full_grids(model, nodes, image)
    nets = [insert(model, nodes, grids, rounded(model, nodes, grids), signed) for signed in (False, True)]
    unsigned, signed = (run_net(_returning(net, ["a/q"]), image, "a/q")[0] for net in nets)
    assert unsigned.dtype == np.uint8 and signed.dtype == np.int8
    assert (unsigned.astype(int) - 128 == signed).all()


def test_the_float_net_stays_as_it_was(tiny_detector: Callable[..., Any]) -> None:
    model = tiny_detector()
    before = model.SerializeToString(deterministic=True)
    image = np.random.default_rng(3).random((1, 3, 16, 16), np.float32)
    nodes = quantized_nodes(model, ["a", "b"], decode_tail(*of_onnx(model)).ops)
    grids = full_grids(model, nodes, image)
    insert(model, nodes, grids, rounded(model, nodes, grids))
    assert model.SerializeToString(deterministic=True) == before


def test_relu_is_a_part_of_its_convolution() -> None:
    rng = np.random.default_rng(4)
    weight = rng.normal(size=(4, 3, 1, 1)).astype(np.float32)
    model = build_net(
        [("Conv", ["images", "w"], ["c"], {}), ("Relu", ["c"], ["r"], {}), ("Conv", ["r", "v"], ["y"], {})],
        {"w": weight, "v": rng.normal(size=(2, 4, 1, 1)).astype(np.float32)},
        {"y": (1, 2, 16, 16)},
    )
    nodes = quantized_nodes(model, ["c", "y"], ())
    assert set(nodes) == {"c", "r", "y"} and "c" not in grid_tensors(nodes)
    image = rng.random((1, 3, 16, 16), np.float32)
    grids = full_grids(model, nodes, image)
    made = insert(model, nodes, grids, rounded(model, nodes, grids))
    assert producers(made)["r"].input[0] == "c", "nothing is rounded between the two"
    wanted, found = (run_net(net, image)[0] for net in (model, made))
    assert np.abs(found - wanted).max() < 0.03 * np.abs(wanted).max()


def test_a_channel_without_weights_keeps_its_bias() -> None:
    """A scale from weights of 0 would put a bias of 5 far outside of int32."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0] = 0.5
    bias = np.array([1.0, 5.0], np.float32)
    model = build_net(
        [("Conv", ["images", "w", "b"], ["y"], {})], {"w": weight, "b": bias}, {"y": (1, 2, 16, 16)}
    )  # fmt: skip
    nodes = quantized_nodes(model, ["y"], ())
    grids = {"images": Grid(1 / 255, 0), "y": Grid(0.05, 0)}
    made = insert(model, nodes, grids, rounded(model, nodes, grids))
    found = run_net(made, np.zeros((1, 3, 16, 16), np.float32))[0]
    assert found[0, :, 0, 0] == pytest.approx([1.0, 5.0], abs=0.03)


def test_a_tensor_with_float_and_integer_readers() -> None:
    """The float reader of a float node's output gets the float numbers, not the rounded ones."""
    one = np.ones((1, 3, 1, 1), np.float32)
    model = build_net(
        [
            ("Conv", ["images", "w"], ["f"], {}),
            ("Conv", ["f", "v"], ["q"], {}),
            ("Sub", ["f", "q"], ["y"], {}),
        ],
        {"w": one, "v": np.ones((1, 1, 1, 1), np.float32)},
        {"y": (1, 1, 16, 16)},
    )
    nodes = quantized_nodes(model, ["q"], ())
    grids = {"f": Grid(0.5, 0), "q": Grid(0.5, 0)}
    made = insert(model, nodes, grids, rounded(model, nodes, grids))
    found = run_net(made, np.full((1, 3, 16, 16), 0.1, np.float32))[0]
    assert found == pytest.approx(0.3 - 0.5), "f is .3 and its rounded self .5"
