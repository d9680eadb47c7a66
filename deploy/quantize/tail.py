"""The decode tail of a detector, found in the graph: what has to stay in float.

Behind the last convolutions of the head there are no weights, only arithmetic on numbers of very different size: box
distances, softmax over bins, anchors, pixels, and scores between 0 and 1 that end in one tensor with the pixels. One
INT8 scale over these is what makes a detector blind. The walk goes back from the outputs and ends at the convolutions;
the one that averages DFL bins follows a softmax and belongs to the tail. Nothing here looks at names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from yolo_kd.errors import MisuseError

CONV, SOFTMAX, SIGMOID, ADD, SHAPE_OF, CONSTANT = "conv", "softmax", "sigmoid", "add", "shape_of", "constant"
MOVES = "moves"  # changes where numbers lie, not what they are
INPUT, OTHER = "input", "other"
_KINDS = {
    "Conv": CONV, "Convolution": CONV, "GroupConvolution": CONV, "Softmax": SOFTMAX, "Sigmoid": SIGMOID, "Add": ADD,
    "Shape": SHAPE_OF, "ShapeOf": SHAPE_OF, "Constant": CONSTANT, "Parameter": INPUT,
    **dict.fromkeys(
        ("Reshape", "Transpose", "Concat", "Split", "VariadicSplit", "Slice", "StridedSlice", "Squeeze", "Unsqueeze",
         "Flatten", "Identity", "Gather"), MOVES),
}  # fmt: skip
_QUANTIZED = {"FakeQuantize", "QuantizeLinear", "DequantizeLinear"}


@dataclass(frozen=True)
class Op:
    """One operation of a graph, of either format.

    Args:
        name: Unique in the graph.
        kind: One of the constants above.
        inputs: Names of the operations it reads.
        type: As the format calls it.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    type: str


@dataclass(frozen=True)
class Tail:
    """What follows the last convolutions of the head.

    Args:
        ops: Names of the operations that stay in float.
        entries: The operations whose outputs it reads: last convolutions, or the addition of their bias.
        scores: Those of the entries that hold class logits.
    """

    ops: frozenset[str]
    entries: tuple[str, ...]
    scores: frozenset[str]


def decode_tail(ops: Iterable[Op], outputs: Iterable[str]) -> Tail:
    """Walk back from the outputs to the last convolutions.

    Args:
        ops: The graph in topological order.
        outputs: Names of the operations that the graph returns.

    Raises:
        MisuseError: A way back reaches the input without a convolution: no detector of ours. Or it is quantized already.
    """
    graph = {op.name: op for op in ops}
    if quantized := next((op for op in graph.values() if op.type in _QUANTIZED), None):
        raise MisuseError(
            f"the net is quantized already ({quantized.type} '{quantized.name}'); start from the float one"
        )
    constants = _constants(graph)
    live = {name: [i for i in op.inputs if i not in constants] for name, op in graph.items()}
    inside: set[str] = set()
    entries: list[str] = []
    waiting = [o for o in outputs if o not in constants]
    while waiting:
        name = waiting.pop()
        if name in inside or name in entries:
            continue
        if _ends_head(name, graph, live):
            entries.append(name)
            continue
        if graph[name].kind == INPUT or not live[name]:
            raise MisuseError(
                "the net's outputs are not computed from convolutions alone; expected a YOLO detector (v8, v9, v10, 11, "
                "12, 26) as yolo-kd export writes it, with a static shape"
            )
        inside.add(name)
        if graph[name].kind != SHAPE_OF:  # a shape holds none of the numbers
            waiting += live[name]
    order = {name: i for i, name in enumerate(graph)}
    entries.sort(key=order.__getitem__)
    readers: dict[str, list[str]] = {}
    for name in inside:
        for source in live[name]:
            readers.setdefault(source, []).append(name)
    return Tail(frozenset(inside), tuple(entries), frozenset(e for e in entries if _meets_sigmoid(e, graph, readers)))


def of_openvino(model: Any) -> tuple[list[Op], list[str]]:
    """The operations of an `openvino.Model`, named by their friendly names, and those it returns."""
    ops: list[Op] = []
    outputs: list[str] = []
    for node in model.get_ordered_ops():
        inputs = tuple(port.get_source_output().get_node().get_friendly_name() for port in node.inputs())
        kind = node.get_type_name()
        if kind == "Result":
            outputs += inputs
        else:
            ops.append(Op(node.get_friendly_name(), _KINDS.get(kind, OTHER), inputs, kind))
    if len({op.name for op in ops}) != len(ops):
        raise AssertionError("friendly names are not unique; give them numbers first")
    return ops, outputs


def of_onnx(model: Any) -> tuple[list[Op], list[str]]:
    """The nodes of an `onnx.ModelProto`, named by their first outputs, and those it returns."""
    graph = model.graph
    made_by = {output: node.output[0] for node in graph.node for output in node.output}
    ops = [Op(weight.name, CONSTANT, (), "Constant") for weight in graph.initializer]
    fed = {weight.name for weight in graph.initializer}
    ops += [Op(i.name, INPUT, (), "Parameter") for i in graph.input if i.name not in fed]
    for node in graph.node:
        inputs = tuple(made_by.get(i, i) for i in node.input if i)
        ops.append(Op(node.output[0], _KINDS.get(node.op_type, OTHER), inputs, node.op_type))
    return ops, [made_by[o.name] for o in graph.output]


def _constants(graph: Mapping[str, Op]) -> set[str]:
    """Operations that depend on no input of the net."""
    found: set[str] = set()
    for name, op in graph.items():
        if op.kind == CONSTANT or (op.kind != INPUT and op.inputs and all(i in found for i in op.inputs)):
            found.add(name)
    return found


def _ends_head(name: str, graph: Mapping[str, Op], live: Mapping[str, list[str]]) -> bool:
    """Whether an operation is a convolution that is no DFL, or adds the bias of one."""
    if (
        graph[name].kind == ADD and len(live[name]) == 1
    ):  # OpenVINO adds a convolution's bias in an operation of its own
        name = live[name][0]
    if graph[name].kind != CONV:
        return False
    while live[name]:
        name = live[name][0]
        if graph[name].kind != MOVES:
            break
    return graph[name].kind != SOFTMAX


def _meets_sigmoid(entry: str, graph: Mapping[str, Op], readers: Mapping[str, list[str]]) -> bool:
    """Whether the numbers of an entry come to a sigmoid before any other arithmetic."""
    waiting, seen = list(readers.get(entry, ())), set()
    while waiting:
        name = waiting.pop()
        if graph[name].kind == SIGMOID:
            return True
        if name not in seen and graph[name].kind == MOVES:
            seen.add(name)
            waiting += readers.get(name, ())
    return False
