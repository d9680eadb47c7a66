"""Nets that show what they are fed: three channels in, the same numbers out as five rows of cells; and what they should say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from yolo_kd.deploy.artifact import Artifact, read_artifact

NET_HW = (16, 32)
METADATA = {"task": "detect", "imgsz": list(NET_HW), "names": {0: "thing"}, "args": {}}


def openvino_net(
    folder: Path, shape: tuple[int, ...] = (1, 3, *NET_HW), outputs: int = 1, fill: float = 1.0, half: bool = False
) -> Artifact:
    """An IR that gives back its three channels as five rows of cells (R, G, B, 0, 0), as a detector of one class would."""
    import openvino as openvino
    from openvino import opset13 as ops

    pixels = ops.parameter(list(shape), np.float32)
    weights = np.zeros((5, shape[1], 1, 1), np.float32)
    weights[range(3), range(3)] = fill
    maps = ops.convolution(pixels, ops.constant(weights), [1, 1], [0, 0], [0, 0], [1, 1])
    rows = ops.reshape(maps, np.array([0, 0, -1]), special_zero=True)
    folder.mkdir(exist_ok=True)
    openvino.save_model(
        openvino.Model([ops.result(rows) for _ in range(outputs)], [pixels], "net"), folder / "best.xml", half
    )
    (folder / "metadata.yaml").write_text(yaml.safe_dump(METADATA))
    return read_artifact(folder)


def onnx_net(folder: Path, shape: tuple[Any, ...] = (1, 3, *NET_HW), outputs: int = 1, half: bool = False) -> Artifact:
    """The same net as an ONNX file with Ultralytics' metadata inside."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    weights = np.zeros((5, 3, 1, 1), np.float16 if half else np.float32)
    weights[range(3), range(3)] = 1
    nodes = [
        helper.make_node("Conv", ["images", "weights"], ["maps"]),
        *(helper.make_node("Reshape", ["maps", "rows"], [f"output{i}"]) for i in range(outputs)),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", kind, shape)],
        [helper.make_tensor_value_info(f"output{i}", kind, None) for i in range(outputs)],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(np.array([0, 5, -1]), "rows")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {key: str(value) for key, value in METADATA.items()})
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "best.onnx")
    return read_artifact(folder / "best.onnx")


MAKE = {"openvino": openvino_net, "onnx": onnx_net}


def canvas(batch: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *NET_HW, 3), dtype=np.uint8)


def as_torch_has_it(pixels: np.ndarray, precision: str = "f32") -> np.ndarray:
    """(B, 3, H * W) RGB / 255, rounded as torch rounds."""
    import torch

    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[precision]
    rgb = torch.from_numpy(pixels[..., ::-1].transpose(0, 3, 1, 2).copy()).float().div_(255).to(kind)
    return rgb.float().numpy().reshape(len(pixels), 3, -1)
