"""The decode tail: exactly what follows the last convolutions, for every family, in either format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from yolo_kd.deploy.quantize.tail import CONV, Op, Tail, decode_tail, of_onnx, of_openvino

from yolo_kd.errors import MisuseError

FAMILIES = [
    ("yolov8n.yaml", {}),
    ("yolov9t.yaml", {}),
    ("yolov10n.yaml", {}),
    ("yolov10n.yaml", {"nms": False}),
    ("yolo11n.yaml", {}),
    ("yolo12n.yaml", {}),
    ("yolo26n.yaml", {}),
    ("yolo26n.yaml", {"nms": False}),
]
NAMES = [f"{model.removesuffix('.yaml')}{'-end2end' if keys else ''}" for model, keys in FAMILIES]


def test_tail_of_a_small_detector(tiny_detector: Callable[..., Any]) -> None:
    tail = decode_tail(*of_onnx(tiny_detector()))
    assert tail.entries == ("box_out", "class_out")
    assert tail.scores == {"class_out"}
    assert tail.ops == {
        "bins", "bins_t", "shares", "means", "sides", "pixels", "logits", "scores", "output0"
    }  # fmt: skip


def test_a_bias_added_apart_belongs_to_its_convolution() -> None:
    ops = [
        Op("images", "input", (), "Parameter"),
        Op("w", "constant", (), "Constant"),
        Op("conv", "conv", ("images", "w"), "Convolution"),
        Op("b", "constant", (), "Constant"),
        Op("bias", "add", ("conv", "b"), "Add"),
        Op("out", "sigmoid", ("bias",), "Sigmoid"),
    ]
    assert decode_tail(ops, ["out"]) == Tail(frozenset({"out"}), ("bias",), frozenset({"bias"}))


def test_an_attention_before_a_convolution_is_no_dfl() -> None:
    """The projection behind an attention has a product, not a softmax, in front of it: the walk ends there."""
    ops = [
        Op("images", "input", (), "Parameter"),
        Op("qkv", "conv", ("images",), "Conv"),
        Op("weights", "softmax", ("qkv",), "Softmax"),
        Op("product", "other", ("qkv", "weights"), "MatMul"),
        Op("shape", "moves", ("product",), "Reshape"),
        Op("projection", "conv", ("shape",), "Conv"),
        Op("out", "sigmoid", ("projection",), "Sigmoid"),
    ]
    assert decode_tail(ops, ["out"]).ops == {"out"}


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([Op("images", "input", (), "Parameter"), Op("out", "other", ("images",), "Relu")], "YOLO detector"),
        (
            [Op("images", "input", (), "Parameter"), Op("out", "other", ("images",), "FakeQuantize")],
            "quantized already",
        ),
    ],
)
def test_no_detector_is_refused(ops: list[Op], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        decode_tail(ops, ["out"])


def read(path: Path, form: str) -> tuple[list[Op], list[str]]:
    if form == "onnx":
        import onnx

        return of_onnx(onnx.load(path))
    import openvino as ov

    return of_openvino(ov.Core().read_model(next(path.glob("*.xml"))))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["openvino", "onnx"])
@pytest.mark.parametrize(("model", "keys"), FAMILIES, ids=NAMES)
def test_every_family(exported: Callable[..., Path], model: str, keys: dict[str, Any], form: str) -> None:
    ops, outputs = read(exported(model, form, 64, **keys), form)
    tail = decode_tail(ops, outputs)
    by_name = {op.name: op for op in ops}
    assert len(tail.entries) == 6 and len(tail.scores) == 3
    inside = [name for name in tail.ops if by_name[name].kind == CONV]
    assert len(inside) == (0 if model.startswith("yolo26") else 1), "the DFL, and no other convolution"
    readers = {i for name in tail.ops for i in by_name[name].inputs}
    assert set(tail.entries) <= readers, "the tail begins right behind the last convolutions"
    last = ops[-1].name
    assert last in tail.ops or last in outputs
    biggest = [name for name in by_name if by_name[name].kind == CONV and name not in tail.ops]
    assert len(biggest) > 60, "all the rest of the net is outside"
