"""An ONNX net as something to read, run and take tensors out of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolo_kd.errors import MisuseError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

CHUNK_BYTES = 1 << 29  # of tensors that one run hands out; the whole of a large net would be several GB


def read_onnx(path: Path) -> ModelProto:
    """A net whose weights and other constants are all initializers.

    Raises:
        MisuseError: A package is missing, the file is damaged, or its shapes are not static.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401  # needed soon after; better said now
    except ImportError as error:
        raise MisuseError(f'{error.name} is not installed; run: pip install "yolo-kd[onnx]"') from None
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    except Exception as error:  # protobuf, checker, inference and file errors have no common class
        reason = " ".join(str(error).split())[:120]
        raise MisuseError(
            f"{path}: not a readable ONNX net ({reason}); export it with yolo-kd export format=onnx"
        ) from None
    graph = model.graph
    nodes, known = [], weights_of(model)
    for node in graph.node:
        source = None
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            source = node.attribute[0].t
        elif node.op_type == "Identity":  # torch stores equal weights once
            source = known.get(node.input[0])
        if source is None:
            nodes.append(node)
            continue
        weight = graph.initializer.add()
        weight.CopyFrom(source)
        weight.name = node.output[0]
        known[weight.name] = weight
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def weights_of(model: ModelProto) -> dict[str, Any]:
    """Initializers by name."""
    return {weight.name: weight for weight in model.graph.initializer}


def array(weight: Any) -> np.ndarray:
    """The values of an initializer."""
    from onnx import numpy_helper

    return numpy_helper.to_array(weight)


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Tensor to the node that makes it."""
    return {output: node for node in model.graph.node for output in node.output}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor to the nodes that read it."""
    found: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            found.setdefault(name, []).append(node)
    return found


def session(model: ModelProto, outputs: Sequence[str] = ()) -> tuple[Any, str]:
    """An ONNX Runtime session on one core that also returns these tensors, and the name of its input."""
    import onnx
    import onnxruntime as ort

    if outputs:
        model = copy(model)
        there = {output.name for output in model.graph.output}
        extra = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in outputs if n not in there]
        model.graph.output.extend(extra)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # sums in one order: the same numbers on each run
    options.log_severity_level = 3
    made = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return made, made.get_inputs()[0].name


def look_inside(
    model: ModelProto,
    names: Sequence[str],
    images: Iterable[np.ndarray],
    see: Callable[[str, np.ndarray], None],
) -> None:
    """Run the net and show each named tensor of each image, in pieces that fit into memory.

    Args:
        model: The net.
        names: Tensors of it; the input's own name is one.
        images: (1, 3, H, W) float32; gone through once per piece.
        see: Called with name and values.
    """
    for piece in _pieces(model, names):
        run, entry = session(model, [n for n in piece if n != model.graph.input[0].name])
        inner = [n for n in piece if n != entry]
        for image in images:
            if entry in piece:
                see(entry, image)
            for name, values in zip(inner, run.run(inner, {entry: image}) if inner else (), strict=True):
                see(name, values)


def shapes_of(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Static shape of each tensor that shape inference knows."""
    graph = model.graph
    found = {}
    for info in [*graph.input, *graph.value_info, *graph.output]:
        sizes = [d.dim_value for d in info.type.tensor_type.shape.dim]
        if all(sizes):
            found[info.name] = tuple(sizes)
    return found


def input_hw(model: ModelProto, path: Path) -> tuple[int, int]:
    """Height and width of the net's input.

    Raises:
        MisuseError: It is not a static (1, 3, H, W).
    """
    name = model.graph.input[0].name
    shape = shapes_of(model).get(name, ())
    if len(shape) != 4 or shape[:2] != (1, 3):
        raise MisuseError(f"{path}: expected one static input (1, 3, height, width), found {shape or 'open sizes'}")
    return shape[2], shape[3]


def copy(model: ModelProto) -> ModelProto:
    """A net of its own."""
    made = type(model)()
    made.CopyFrom(model)
    return made


def _pieces(model: ModelProto, names: Sequence[str]) -> list[list[str]]:
    shapes: Mapping[str, tuple[int, ...]] = shapes_of(model)
    pieces: list[list[str]] = [[]]
    room = CHUNK_BYTES
    for name in names:
        size = 4 * int(np.prod(shapes.get(name, (1 << 20,))))
        if size > room and pieces[-1]:
            pieces.append([])
            room = CHUNK_BYTES
        pieces[-1].append(name)
        room -= size
    return pieces
