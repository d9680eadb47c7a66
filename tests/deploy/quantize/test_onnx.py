"""Static quantization for ONNX Runtime: a tiny net by every setting, and a family of YOLO as a whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.quantize.calibration import CalibrationSet, images
from yolo_kd.deploy.quantize.onnx import ONNXQuantizer, ONNXSettings
from yolo_kd.deploy.quantize.onnx_graph import CHUNK_BYTES, look_inside, producers, read_onnx, session
from yolo_kd.deploy.quantize.qdq import count
from yolo_kd.deploy.quantize.tail import decode_tail, of_onnx

from yolo_kd.errors import MisuseError

from .conftest import run_net
from .test_tail import FAMILIES, NAMES

SMALL = {"stem": 0, "head": "int8"}


@pytest.fixture
def tiny(tiny_detector: Callable[..., Any], tmp_path: Path) -> Path:
    import onnx

    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_detector(), path)
    return path


def error(path: Path, made: Any, calibration: CalibrationSet) -> float:
    """Mean difference of a score on the calibration pictures."""
    model = read_onnx(path)
    pairs = [(run_net(model, x)[0], run_net(made, x)[0]) for x in images(calibration, (16, 16))]
    return float(np.mean([np.abs(a - b)[:, 4:].mean() for a, b in pairs]))


EVERY = [
    {}, {"activations": "s8"}, {"per_channel": False}, {"ranges": "percentile", "percent": 99.9}, {"ranges": "minmax"},
    {"weights": "minmax"}, {"bias": "none"}, {"head": "float"}, {"stem": 1}, {"float_layers": ("node/b",)},
]  # fmt: skip


@pytest.mark.parametrize("change", EVERY, ids=[str(c) for c in EVERY])
def test_every_setting_gives_a_net_that_sees(tiny: Path, calibration: CalibrationSet, change: dict[str, Any]) -> None:
    settings = ONNXSettings(**{**SMALL, **change})
    made = ONNXQuantizer(tiny, images(calibration, (16, 16))).build(settings)
    assert 0 < error(tiny, made, calibration) < 0.015
    left = (settings.head == "float") * 2 + settings.stem + len(settings.float_layers)
    assert count(made)["int8_convolutions"] == 4 - left


def test_settings_that_make_no_sense(tiny: Path, calibration: CalibrationSet) -> None:
    for keys, said in [
        ({"activations": "u16"}, "u8, s8"),
        ({"ranges": "entropy"}, "mse, percentile, minmax"),
        ({"percent": 0.99}, "99.99"),
        ({"stem": -1}, "0 or more"),
    ]:
        with pytest.raises(MisuseError, match=said):
            ONNXSettings(**keys)
    quantizer = ONNXQuantizer(tiny, images(calibration, (16, 16)))
    with pytest.raises(MisuseError, match="did you mean 'node/b'"):
        quantizer.build(ONNXSettings(float_layers=("nod/b",)))
    with pytest.raises(MisuseError, match="SiLU"):
        quantizer.build(ONNXSettings(equalize=True))
    with pytest.raises(MisuseError, match="takes 16x16 pixels, the images are 32x32"):
        ONNXQuantizer(tiny, images(calibration, (32, 32)))


def test_equal_settings_give_equal_bytes_and_leave_random_states(tiny: Path, calibration: CalibrationSet) -> None:
    states = random.getstate(), np.random.get_state()[1].copy()
    nets = [
        ONNXQuantizer(tiny, images(calibration, (16, 16))).build(ONNXSettings()).SerializeToString(deterministic=True)
        for _ in range(2)
    ]
    assert nets[0] == nets[1]
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()


def test_a_corrected_bias_restores_the_mean(
    tiny_detector: Callable[..., Any], tmp_path: Path, calibration: CalibrationSet
) -> None:
    """One large weight per channel makes all others coarse; the input, in steps of 1/255, is not rounded at all."""
    import onnx

    weight = np.random.default_rng(0).uniform(0, 0.4, (8, 3, 3, 3)).astype(np.float32)
    weight[:, 0, 0, 0] = 100.0
    path = tmp_path / "coarse.onnx"
    onnx.save(tiny_detector(stem=weight), path)
    quantizer = ONNXQuantizer(path, images(calibration, (16, 16)))
    shift = {}
    for bias in ("none", "fast"):
        left = ("node/b", "node/box_out", "node/class_out")
        made = quantizer.build(ONNXSettings(**SMALL, float_layers=left, bias=bias, weights="minmax", ranges="minmax"))
        off = []
        for x in images(calibration, (16, 16)):
            wanted, found = (run_net(_open_at(net, "a"), x, "a")[0] for net in (read_onnx(path), made))
            off.append((found - wanted).mean((0, 2, 3)))
        shift[bias] = float(np.abs(np.mean(off, 0)).max())
    assert shift["fast"] < 0.2 * shift["none"]


def _open_at(model: Any, name: str) -> Any:
    from onnx import TensorProto, helper

    made = type(model)()
    made.CopyFrom(model)
    made.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return made


def test_a_layer_with_ruinous_weights_is_the_most_sensitive(
    tiny_detector: Callable[..., Any], tmp_path: Path, calibration: CalibrationSet
) -> None:
    import onnx

    """A single large weight, of a channel that SiLU closes, takes the levels of all others."""
    body = np.random.default_rng(1).normal(size=(4, 4, 3, 3)).astype(np.float32) * 0.3
    bad = body.copy()
    bad[0, :, 1, 1] = -60.0
    settings = ONNXSettings(stem=0, per_channel=False, weights="minmax", bias="none")
    errors = {}
    for name, weight in (("sound", body), ("ruined", bad)):
        path = tmp_path / f"{name}.onnx"
        onnx.save(tiny_detector(body=weight), path)
        rows = ONNXQuantizer(path, images(calibration, (16, 16))).sensitivity(settings)
        errors[name] = {row.layer: row.error for row in rows}
        assert set(errors[name]) == {"a", "b"} and [r.error for r in rows] == sorted(
            errors[name].values(), reverse=True
        )
    assert max(errors["ruined"], key=errors["ruined"].__getitem__) == "b"
    assert errors["ruined"]["b"] > 3 * errors["sound"]["b"]


def test_tensors_come_in_pieces_and_are_the_same(
    tiny: Path, calibration: CalibrationSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert CHUNK_BYTES > 1 << 20
    model, names = read_onnx(tiny), ["a", "images", "a_y", "neck"]
    sums: list[dict[str, float]] = []
    runs: list[list[list[str]]] = []

    def spied(net: Any, outputs: list[str]) -> tuple[Any, str]:
        runs[-1].append(outputs)
        return session(net, outputs)

    monkeypatch.setattr("yolo_kd.deploy.quantize.onnx_graph.session", spied)
    for room in (1 << 29, 3000):
        runs.append([])
        monkeypatch.setattr("yolo_kd.deploy.quantize.onnx_graph.CHUNK_BYTES", room)
        found: dict[str, float] = {}

        def see(name: str, values: np.ndarray, found: dict[str, float] = found) -> None:
            found[name] = found.get(name, 0.0) + float(values.sum())

        look_inside(model, names, images(calibration, (16, 16)), see)
        sums.append(found)
    assert sums[0] == sums[1] and set(sums[0]) == set(names)
    assert len(runs[0]) == 1 and runs[1] == [["a"], [], ["a_y"], ["neck"]]  # 2 to 3 kB each


def test_weights_that_are_stored_once_belong_to_each_convolution(tiny: Path, calibration: CalibrationSet) -> None:
    """torch's exporter writes equal biases once, and an Identity for the second."""
    import onnx

    model = onnx.load(tiny)
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["box_b"], ["box_b_again"], "again"))
    next(node for node in model.graph.node if node.output[0] == "box_out").input[2] = "box_b_again"
    onnx.save(model, tiny)
    made = ONNXQuantizer(tiny, images(calibration, (16, 16))).build(ONNXSettings(**SMALL))
    assert count(made)["int8_convolutions"] == 4 and error(tiny, made, calibration) < 0.015


@pytest.mark.parametrize("kind", ["missing", "words", "cut", "open"])
def test_a_file_that_is_no_net(tiny: Path, tmp_path: Path, calibration: CalibrationSet, kind: str) -> None:
    import onnx

    path = tmp_path / "bad.onnx"
    if kind == "words":
        path.write_text("words")
    elif kind == "cut":
        path.write_bytes(tiny.read_bytes()[:-200])
    elif kind == "open":
        model = onnx.load(tiny)
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        onnx.save(model, path)
    with pytest.raises(
        MisuseError, match="one static input" if kind == "open" else "not a readable ONNX net"
    ) as caught:
        ONNXQuantizer(path, images(calibration, (16, 16)))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "keys"), FAMILIES, ids=NAMES)
def test_every_family_is_quantized_but_for_its_tail(
    exported: Callable[..., Path], calibration: CalibrationSet, model: str, keys: dict[str, Any]
) -> None:
    path = exported(model, "onnx", 64, **keys)
    made = ONNXQuantizer(path, images(calibration, (64, 64))).build(ONNXSettings(**SMALL))
    plain = read_onnx(path)
    tail, nodes, sources = decode_tail(*of_onnx(plain)), producers(made), producers(plain)
    convolutions = {n for n, node in sources.items() if node.op_type == "Conv"}
    integers = {n for n in convolutions if nodes[n].input[1].endswith("/dq")}
    assert integers == convolutions - tail.ops
    touched = {node.input[0] for node in made.graph.node if node.op_type == "QuantizeLinear"}
    assert not touched & tail.ops, "something in the tail is rounded"
    x = next(iter(images(calibration, (64, 64))))
    wanted, found = run_net(plain, x)[0], run_net(made, x)[0]
    assert found.shape == wanted.shape and np.isfinite(found).all()
    if not keys:  # rows of an end-to-end head are sorted by score and cannot be compared one by one
        assert np.abs(found - wanted)[:, 4:].mean() < 0.2 and np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.95
