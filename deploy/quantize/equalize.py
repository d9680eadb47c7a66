"""Cross-layer equalization: scale channels so that neighbouring layers have weights of like size (arXiv:1906.04721).

With s > 0 and f(s x) = s f(x), the net W2 f(W1 x + b1) equals (W2 S) f(S^-1 W1 x + S^-1 b1) for any diagonal S. The factor
s_i = sqrt(r1_i / r2_i), with r the largest absolute weight of channel i in either layer, makes both ranges the same. It holds
for ReLU, LeakyReLU and no activation; **not for SiLU**, which Ultralytics' models have by default: x * sigmoid(x) is not
homogeneous, nothing is changed there, and the caller can say so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from yolo_kd.deploy.quantize.onnx_graph import array, consumers, weights_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

HOMOGENEOUS = {"Relu", "LeakyRelu"}
SWEEPS = 4  # chains need several: the second layer of one pair is the first of the next


def equalize(model: ModelProto) -> int:
    """Equalize every pair of convolutions in place; returns how many pairs there are (0 in a net of SiLUs)."""
    pairs = _pairs(model)
    there = weights_of(model)
    for _ in range(SWEEPS if pairs else 0):
        for first, second in pairs:
            _equalize(first, second, there)
    return len(pairs)


def _pairs(model: ModelProto) -> list[tuple[NodeProto, NodeProto]]:
    """Convolutions of which the second alone reads the first, with a homogeneous activation between them or none."""
    read, there = consumers(model), weights_of(model)
    uses: dict[str, int] = {}
    for node in model.graph.node:
        for name in node.input:
            uses[name] = uses.get(name, 0) + 1
    returned = {output.name for output in model.graph.output}
    found = []
    for first in (node for node in model.graph.node if node.op_type == "Conv"):
        last = first
        while (after := read.get(last.output[0], [])) and len(after) == 1 and after[0].op_type in HOMOGENEOUS:
            last = after[0]
        if len(after) != 1 or after[0].op_type != "Conv" or after[0].input[0] != last.output[0]:
            continue
        second = after[0]
        shapes = [there[node.input[1]].dims for node in (first, second) if node.input[1] in there]
        own = all(uses[name] == 1 for node in (first, second) for name in node.input[1:])
        grouped = any(a.name == "group" and a.i != 1 for a in second.attribute)
        if (
            len(shapes) == 2
            and own
            and not grouped
            and shapes[0][0] == shapes[1][1]
            and not returned & {last.output[0]}
        ):
            found.append((first, second))
    return found


def _equalize(first: NodeProto, second: NodeProto, there: dict[str, Any]) -> None:
    before, after = array(there[first.input[1]]), array(there[second.input[1]])
    r1, r2 = np.abs(before).max((1, 2, 3)), np.abs(after).max((0, 2, 3))
    scale = np.where((r1 > 0) & (r2 > 0), np.sqrt(r1 / np.where(r2 > 0, r2, 1)), 1.0)
    _store(there, first.input[1], before / scale[:, None, None, None])
    _store(there, second.input[1], after * scale[None, :, None, None])
    if len(first.input) > 2:
        _store(there, first.input[2], array(there[first.input[2]]) / scale)


def _store(there: dict[str, Any], name: str, values: np.ndarray) -> None:
    from onnx import numpy_helper

    there[name].CopyFrom(numpy_helper.from_array(values.astype(np.float32), name))
