"""INT8 OpenVINO nets taken apart: which layers run on integers, and what one of them costs alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import openvino as ov

CONVOLUTIONS = {"Convolution", "GroupConvolution"}
_MOVES = {"Concat", "VariadicSplit", "Split", "MaxPool", "Interpolate", "Reshape", "Transpose"}
_INTEGERS = {"i8", "u8", "i4", "u4"}


def quantized_layers(model: ov.Model) -> list[str]:
    """Names of the convolutions that run on integers, in order: those whose weights are rounded."""
    return [
        op.get_friendly_name()
        for op in model.get_ordered_ops()
        if op.get_type_name() in CONVOLUTIONS and _is_rounded(op.input_value(1).get_node())
    ]


def alone(quantized: ov.Model, float_model: ov.Model, layer: str) -> ov.Model:
    """A copy of an INT8 net in which this convolution alone has rounded weights, and all but its inputs are in float."""
    made = quantized.clone()
    source = {op.get_friendly_name(): op for op in float_model.get_ordered_ops()}
    constants = _constants(float_model)
    kept: set[str] = set()
    for op in made.get_ordered_ops():
        if op.get_type_name() in CONVOLUTIONS:
            if op.get_friendly_name() == layer:
                kept = _roundings_before(op.input_value(0).get_node())
            else:
                _restore(op, source, constants)
    constants = _constants(made)
    for op in made.get_ordered_ops():
        rounds = op.get_type_name() == "FakeQuantize" and _source(op, 0) not in constants
        if rounds and op.get_friendly_name() not in kept:
            op.output(0).replace(op.input_value(0))
    made.validate_nodes_and_infer_types()
    return made


def outputs_at(model: ov.Model, names: Sequence[str], images: Iterable[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """What these operations give for each image, computed in float32."""
    import openvino as ov

    made = model.clone()
    found = {op.get_friendly_name(): op for op in made.get_ordered_ops() if op.get_friendly_name() in names}
    tapped = ov.Model([found[name].output(0) for name in names], made.get_parameters())
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = ov.Core().compile_model(tapped, "CPU", exact)
    for image in images:
        yield {name: value.copy() for name, value in zip(names, compiled(image).values(), strict=True)}


def _restore(op: Any, source: dict[str, Any], constants: set[str]) -> None:
    """Give a convolution its float weights again, and its own bias instead of a corrected one."""
    own = source[op.get_friendly_name()]
    op.input(1).replace_source_output(_constant(own.input_value(1)))
    for reader in op.output(0).get_target_inputs():
        add = reader.get_node()
        old = source.get(add.get_friendly_name())
        if add.get_type_name() == "Add" and old is not None:
            for port in (0, 1):
                if _source(old, port) in constants:
                    add.input(port).replace_source_output(_constant(old.input_value(port)))


def _roundings_before(node: Any) -> set[str]:
    """The roundings that a value went through last, on its ways through operations that only move numbers."""
    if node.get_type_name() == "FakeQuantize":
        return {node.get_friendly_name()}
    if node.get_type_name() not in _MOVES:
        return set()
    ways = [_roundings_before(port.get_source_output().get_node()) for port in node.inputs()]
    return set().union(*ways)


def _is_rounded(node: Any) -> bool:
    if node.get_type_name() == "Constant":
        return node.get_element_type().get_type_name() in _INTEGERS
    if node.get_type_name() == "FakeQuantize":
        return True
    return node.get_type_name() != "Parameter" and any(
        _is_rounded(port.get_source_output().get_node()) for port in node.inputs()
    )


def _constants(model: ov.Model) -> set[str]:
    """The operations that depend on no input of the net."""
    found: set[str] = set()
    for op in model.get_ordered_ops():  # each behind those that it reads
        ports = range(op.get_input_size())
        if op.get_type_name() == "Constant" or (ports and all(_source(op, port) in found for port in ports)):
            found.add(op.get_friendly_name())
    return found


def _source(op: Any, port: int) -> str:
    return op.input_value(port).get_node().get_friendly_name()


def _constant(output: Any) -> Any:
    """The same values as a constant of their own, in float32."""
    import openvino as ov
    from openvino import opset13 as opset

    node = output.get_node()
    if node.get_type_name() == "Constant":
        values = node.get_data()
    else:  # half-precision weights behind a conversion, or reshaped ones
        values = next(iter(ov.Core().compile_model(ov.Model([output], []), "CPU")([]).values()))
    return opset.constant(np.asarray(values, np.float32)).output(0)
