"""Small nets in ONNX, written by hand, that have what a detector has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.quantize.calibration import CalibrationSet, Candidate, choose

pytest.importorskip("onnx")

from onnx import ModelProto, TensorProto, checker, helper, numpy_helper, shape_inference

Node = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


def build_net(
    nodes: Sequence[Node],
    weights: dict[str, np.ndarray],
    outputs: dict[str, Sequence[int]],
    size: Sequence[int] = (1, 3, 16, 16),
) -> ModelProto:
    """A net with the input `images`; nodes are (type, inputs, outputs, attributes) and named after their first output."""
    graph = helper.make_graph(
        [helper.make_node(kind, list(i), list(o), f"node/{o[0]}", **a) for kind, i, o, a in nodes],
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, list(size))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(s)) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    checker.check_model(model)
    return shape_inference.infer_shapes(model, strict_mode=True)


def run_net(model: ModelProto, image: np.ndarray, *names: str) -> list[np.ndarray]:
    """Outputs of a net, without any of ONNX Runtime's fusions: what the graph says, number by number."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(list(names) or None, {"images": image})


@pytest.fixture(scope="session")
def tiny_detector() -> Callable[..., ModelProto]:
    """Makes a one-level detector: stem, SiLU, split and concatenation, a box and a class branch, a DFL tail.

    Its weights may be changed by name: stem, body, box, class.
    """

    def make(seed: int = 0, **changes: np.ndarray) -> ModelProto:
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

        weights: dict[str, np.ndarray] = {
            "stem": normal(8, 3, 3, 3) * 4, "body": normal(4, 4, 3, 3) * 3, "box": normal(16, 8, 1, 1) * 3,
            "class": normal(2, 8, 1, 1) * 6, "dfl": np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1),
            **{f"{n}_b": normal(c, 1)[:, 0] for n, c in (("stem", 8), ("body", 4), ("box", 16), ("class", 2))},
            "to_bins": np.array([1, 4, 4, 64]), "to_boxes": np.array([1, 4, 64]), "to_scores": np.array([1, 2, 64]),
            "halves": np.array([4, 4]), "stride": np.float32(2.0),
        }  # fmt: skip
        weights.update(changes)
        same = {"pads": [1, 1, 1, 1]}
        nodes: list[Node] = [
            ("Conv", ["images", "stem", "stem_b"], ["a"], {"strides": [2, 2], **same}),
            ("Sigmoid", ["a"], ["a_s"], {}),
            ("Mul", ["a", "a_s"], ["a_y"], {}),
            ("Split", ["a_y", "halves"], ["left", "right"], {"axis": 1}),
            ("Conv", ["right", "body", "body_b"], ["b"], same),
            ("Sigmoid", ["b"], ["b_s"], {}),
            ("Mul", ["b", "b_s"], ["b_y"], {}),
            ("Add", ["right", "b_y"], ["sum"], {}),
            ("Concat", ["left", "sum"], ["neck"], {"axis": 1}),
            ("Conv", ["neck", "box", "box_b"], ["box_out"], {}),
            ("Conv", ["neck", "class", "class_b"], ["class_out"], {}),
            ("Reshape", ["box_out", "to_bins"], ["bins"], {}),
            ("Transpose", ["bins"], ["bins_t"], {"perm": [0, 2, 1, 3]}),
            ("Softmax", ["bins_t"], ["shares"], {"axis": 1}),
            ("Conv", ["shares", "dfl"], ["means"], {}),
            ("Reshape", ["means", "to_boxes"], ["sides"], {}),
            ("Mul", ["sides", "stride"], ["pixels"], {}),
            ("Reshape", ["class_out", "to_scores"], ["logits"], {}),
            ("Sigmoid", ["logits"], ["scores"], {}),
            ("Concat", ["pixels", "scores"], ["output0"], {"axis": 1}),
        ]
        return build_net(nodes, weights, {"output0": (1, 6, 64)})

    return make


@pytest.fixture(scope="session")
def calibration(frames: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> CalibrationSet:
    """The frames as a calibration set."""
    import cv2

    folder = tmp_path_factory.mktemp("calibration")
    for i, frame in enumerate(frames):
        cv2.imwrite(str(folder / f"{i}.png"), frame)
    return choose([Candidate(Path(p)) for p in sorted(folder.glob("*.png"))], len(frames))
