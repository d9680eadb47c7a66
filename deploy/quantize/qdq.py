"""QuantizeLinear and DequantizeLinear put into an ONNX net, so that ONNX Runtime finds its integer kernels.

A node runs on integers if all it reads comes out of a DequantizeLinear and all it writes goes into a QuantizeLinear. So the
decision is one per node, and each tensor between has one grid. What is quantized: the convolutions given, then what only
moves numbers in front of them (split, concatenation, pooling, resizing), then arithmetic all of whose inputs are quantized.
Attention products stay in float: they are small.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from yolo_kd.deploy.quantize.onnx_graph import array, consumers, producers, weights_of
from yolo_kd.deploy.quantize.ranges import Grid

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

SAME_GRID = {"MaxPool", "Resize", "Split"}  # hand on numbers of their input, so also its grid
MOVES = SAME_GRID | {"Concat"}
ARITHMETIC = {"Sigmoid", "Mul", "Add", "LeakyRelu"}
FUSED = {"Relu"}  # a part of the convolution before it, and its cut at 0 a part of the grid
ONE_INPUT = {"Conv", "MaxPool", "Resize", "Split", "Sigmoid", "LeakyRelu", "Relu"}
SIGMOID_GRID = Grid(1 / 255, 0)
INT32_ROOM = 2.0**30  # of a bias in units of its scale


@dataclass(frozen=True)
class Weights:
    """A convolution's numbers as they go into the integer net.

    Args:
        codes: (O, ...) int8.
        scales: (O,) float32.
        bias: (O,) float32, None if the convolution has none.
    """

    codes: np.ndarray
    scales: np.ndarray
    bias: np.ndarray | None

    @property
    def values(self) -> np.ndarray:
        """(O, ...) float32, what the codes stand for."""
        return self.codes * self.scales.reshape(-1, *(1,) * (self.codes.ndim - 1))


def quantized_nodes(model: ModelProto, convolutions: Collection[str], outside: Collection[str]) -> dict[str, NodeProto]:
    """The nodes that run on integers, by their first output, in order.

    Args:
        model: The float net.
        convolutions: First outputs of the convolutions to quantize.
        outside: First outputs of the nodes of the decode tail.
    """
    made, read = producers(model), consumers(model)
    weights = weights_of(model)
    kept = {
        node.output[0]: node
        for node in model.graph.node
        if node.output[0] not in outside
        and (node.output[0] in convolutions or node.op_type in MOVES | ARITHMETIC | FUSED)
    }

    def fits(name: str, node: NodeProto) -> bool:
        if node.op_type == "Conv":
            return True
        if node.op_type in MOVES:
            return any(reader.output[0] in kept for output in node.output for reader in read.get(output, ()))
        inputs = [i for i in node.input if i]
        if any(i in weights or i not in made or made[i].output[0] not in kept for i in inputs):
            return False
        return node.op_type not in FUSED or (made[inputs[0]].op_type == "Conv" and len(read[inputs[0]]) == 1)

    while lost := [name for name, node in kept.items() if not fits(name, node)]:
        for name in lost:
            del kept[name]
    return kept


def grid_tensors(nodes: Mapping[str, NodeProto]) -> list[str]:
    """The tensors that need a grid of their own, in order: all that the nodes read or write, but for those that share."""
    without = {*sharing(nodes), *_inside_fused(nodes)}
    found = dict.fromkeys(name for node in nodes.values() for name in [*activations(node), *node.output])
    return [name for name in found if name not in without]


def sharing(nodes: Mapping[str, NodeProto]) -> dict[str, str]:
    """Tensor to the one whose grid it has."""
    found: dict[str, str] = {}
    for node in nodes.values():
        if node.op_type in SAME_GRID:
            source = found.get(node.input[0], node.input[0])
            found.update(dict.fromkeys(node.output, source))
    return found


def activations(node: NodeProto) -> list[str]:
    """The inputs of a node that are no weights, sizes or scales."""
    return [node.input[0]] if node.op_type in ONE_INPUT else [i for i in node.input if i]


def insert(
    model: ModelProto,
    nodes: Mapping[str, NodeProto],
    grids: Mapping[str, Grid],
    weights: Mapping[str, Weights],
    signed: bool = False,
) -> ModelProto:
    """A copy of the net in which these nodes run on integers.

    Args:
        model: The float net; stays as it is.
        nodes: From `quantized_nodes`.
        grids: For each of `grid_tensors`.
        weights: For each convolution among the nodes, by its first output.
        signed: Activations as int8 instead of uint8: the same levels, slower on CPUs.
    """
    from onnx import helper, numpy_helper

    made = type(model)()
    made.CopyFrom(model)
    graph = made.graph
    shared, inside = sharing(nodes), _inside_fused(nodes)
    shift, kind = (128, np.int8) if signed else (0, np.uint8)
    added: list[NodeProto] = []
    there: set[str] = set()

    def store(name: str, values: Any) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def pair(name: str) -> None:
        own = grids[shared.get(name, name)]
        scale, zero = store(f"{name}/scale", np.float32(own.scale)), store(f"{name}/zero", kind(own.zero - shift))
        added.append(helper.make_node("QuantizeLinear", [name, scale, zero], [f"{name}/q"], f"{name}/Quantize"))
        added.append(
            helper.make_node("DequantizeLinear", [f"{name}/q", scale, zero], [f"{name}/dq"], f"{name}/Dequantize")
        )
        there.add(name)

    def constant(name: str, codes: np.ndarray, scales: np.ndarray) -> str:
        inputs = [store(f"{name}/codes", codes), store(f"{name}/scale", scales.astype(np.float32))]
        inputs.append(store(f"{name}/zero", np.zeros(len(scales), codes.dtype)))
        added.append(helper.make_node("DequantizeLinear", inputs, [f"{name}/dq"], f"{name}/Dequantize", axis=0))
        return f"{name}/dq"

    written = {output for node in nodes.values() for output in node.output if output not in inside}
    for node in graph.node:
        mine = node.output[0] in nodes
        wanted = activations(node) if mine else []
        for name in wanted:
            if name not in there and name not in inside:  # from a float node, or the net's input
                pair(name)
        for i, name in enumerate(node.input):
            if name in there and (name in wanted or name in written):
                node.input[i] = f"{name}/dq"
        if mine and node.op_type == "Conv":
            own, entry = weights[node.output[0]], grids[shared.get(wanted[0], wanted[0])]
            node.input[1] = constant(f"{node.output[0]}/weight", own.codes, own.scales)
            if own.bias is not None:
                scales = (np.float32(entry.scale) * own.scales).astype(np.float32)
                codes = np.rint(own.bias / scales.astype(np.float64)).astype(np.int32)
                bias = constant(f"{node.output[0]}/bias", codes, scales)
                del node.input[2:]
                node.input.append(bias)
        added.append(node)
        for name in node.output:
            if name in written:
                pair(name)
    ordered = [type(node).FromString(node.SerializeToString()) for node in added]
    del graph.node[:]
    graph.node.extend(ordered)
    used = {name for node in graph.node for name in node.input}
    left = [w for w in graph.initializer if w.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    return made


def room_for_bias(scales: np.ndarray, bias: np.ndarray | None, entry: Grid) -> np.ndarray:
    """Weight scales made larger where the bias would not fit into int32: channels without weights to speak of."""
    if bias is None:
        return scales
    return np.maximum(scales, np.abs(bias) / (INT32_ROOM * entry.scale)).astype(np.float32)


def read_weights(model: ModelProto, nodes: Mapping[str, NodeProto]) -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    """Float weight and bias of each convolution among the nodes."""
    there = weights_of(model)
    return {
        name: (array(there[node.input[1]]), array(there[node.input[2]]) if len(node.input) > 2 else None)
        for name, node in nodes.items()
        if node.op_type == "Conv"
    }


def count(model: ModelProto) -> dict[str, int]:
    """How many convolutions run on integers and in float, and how many quantizing nodes there are."""
    made = producers(model)
    integers = [
        node.op_type == "Conv" and node.input[0] in made and made[node.input[0]].op_type == "DequantizeLinear"
        and node.input[1] in made
        for node in model.graph.node
    ]  # fmt: skip
    kinds = [node.op_type for node in model.graph.node]
    return {
        "int8_convolutions": sum(integers),
        "float_convolutions": kinds.count("Conv") - sum(integers),
        "qdq_nodes": kinds.count("QuantizeLinear") + kinds.count("DequantizeLinear"),
    }


def _inside_fused(nodes: Mapping[str, NodeProto]) -> set[str]:
    """Tensors between a convolution and the Relu that is one kernel with it."""
    return {node.input[0] for node in nodes.values() if node.op_type in FUSED}
