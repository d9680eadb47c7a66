"""The teacher in OpenVINO: equal to torch in every family, padded right, its outputs the caller's, its cache honest."""

from __future__ import annotations

import importlib.util
import random
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("openvino", reason="the extra [openvino] is optional")
pytest.importorskip("nncf", reason="the extra [openvino] is optional")

from yolo_kd.deploy.machine import has_bf16

from tests.conftest import TINY
from yolo_kd.engine import openvino_graph as graph
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import TeacherNet
from yolo_kd.engine.ir_cache import FOLDER
from yolo_kd.engine.openvino_engine import COMPILED_SHAPES, Builder, OpenVINOEngine
from yolo_kd.errors import MisuseError, YoloKDError

QUICK = ["yolov8n", "yolo26n"]
FAMILIES = [*QUICK, *(pytest.param(f, marks=pytest.mark.slow) for f in ("yolov9t", "yolov10n", "yolo11n", "yolo12n"))]
SHAPE = (2, 3, 64, 64)
SHA = "a" * 64
convert, quantize = graph.convert, graph.quantize


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape or SHAPE, generator=torch.Generator().manual_seed(seed))


@lru_cache
def net_of(family: str, towers: bool = False) -> TeacherNet:
    """Random weights, and BN statistics measured on random images so that every map has a size that makes sense."""
    from ultralytics.nn.tasks import DetectionModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DetectionModel({"nc": 3, **TINY} if family == "tiny" else f"{family}.yaml", nc=3, verbose=False)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
                module.reset_running_stats()
        with torch.no_grad():
            model.train()(images(8, 3, 64, 64))
    return TeacherNet(model.eval(), towers)


@lru_cache
def graph_of(family: str):
    return convert(net_of(family))


def errors(net: TeacherNet, found: list[Tensor], img: Tensor) -> list[float]:
    with torch.no_grad():
        wanted = net(img)
    assert [tuple(f.shape) for f in found] == [tuple(w.shape) for w in wanted]
    return [float((f - w).norm() / w.norm()) for f, w in zip(found, wanted, strict=True)]


def quantizers(model) -> list[str]:
    return [op.get_friendly_name() for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize"]


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny nets: a second thread costs more than it saves, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def lines() -> list[str]:
    return []


@lru_cache
def quantized(family: str):
    return quantize(graph_of(family), images(2, 3, 64, 64), graph.BACKBONE)


@pytest.fixture
def calls() -> list[str]:
    return []


@pytest.fixture
def builder(tmp_path, lines, calls, monkeypatch) -> Builder:
    """Converts and quantizes once a session, but counts every call."""
    monkeypatch.setattr(graph, "convert", lambda _net: calls.append("convert") or graph_of("tiny").clone())
    monkeypatch.setattr(graph, "quantize", lambda *_a: calls.append("quantize") or quantized("tiny").clone())
    return plain_builder(tmp_path, lines)


def plain_builder(tmp_path, lines) -> Builder:
    return Builder(net_of("tiny"), SHA, SHAPE, images(2, 3, 64, 64), tmp_path, lines.append)


@pytest.mark.parametrize("family", FAMILIES)
def test_equals_torch_at_the_traced_and_at_another_size(family, lines):
    engine = OpenVINOEngine(graph_of(family), "f32", SHAPE, lines.append)
    for img in (images(), images(2, 3, 96, 64)):
        assert max(errors(net_of(family), engine(img), img)) < 1e-3
    assert lines == ["teacher engine: compiled for 96x64 px, batch 2"]
    assert [output.get_any_name() for output in graph_of(family).outputs] == net_of(family).output_names()


def test_tower_maps_come_along(lines):
    net = net_of("yolov8n", towers=True)
    engine = OpenVINOEngine(graph.convert(net), "f32", SHAPE, lines.append)
    assert len(engine(images())) == len(net.output_names()) == 8
    assert max(errors(net, engine(images()), images())) < 1e-3


def test_decoding_is_not_in_the_graph():
    kinds = {op.get_type_name() for op in graph_of("yolov8n").get_ordered_ops()}
    assert not kinds & {"Softmax", "Sigmoid", "TopK", "Subtract"}
    assert not {"Sigmoid", "TopK"} & {op.get_type_name() for op in graph_of("yolo26n").get_ordered_ops()}


@pytest.mark.parametrize("family", FAMILIES)
def test_backbone_is_what_comes_before_neck_and_head(family):
    """As many convolutions as the backbone's layers have, whatever the family."""
    net = net_of(family)
    layers = net.model.model[: len(net.model.yaml["backbone"])]
    wanted = sum(isinstance(m, torch.nn.Conv2d) for m in layers.modules())
    named = [op.get_friendly_name() for op in graph_of(family).get_ordered_ops() if "Convolution" in op.get_type_name()]
    assert sum(name.startswith("backbone/") for name in named) == wanted
    assert len(named) > wanted


def test_partial_batch_is_padded_and_cut(lines):
    engine = OpenVINOEngine(graph_of("tiny"), "f32", (4, *SHAPE[1:]), lines.append)
    img = images(4, 3, 64, 64)
    for part in (img[:1], img[1:]):
        assert max(errors(net_of("tiny"), engine(part), part)) < 1e-3
    whole, first = engine(img), engine(img[:3])
    assert all(torch.allclose(f, w[:3], atol=1e-5) for f, w in zip(first, whole, strict=True))


def test_larger_batch_runs_in_pieces(lines):
    engine = OpenVINOEngine(graph_of("tiny"), "f32", SHAPE, lines.append)
    img = images(5, 3, 64, 64)
    assert max(errors(net_of("tiny"), engine(img), img)) < 1e-3
    assert lines == []


def test_channels_last_and_non_contiguous_images(lines):
    engine = OpenVINOEngine(graph_of("tiny"), "f32", SHAPE, lines.append)
    wanted = engine(images())
    turned = images().to(memory_format=torch.channels_last)
    flipped = images().flip(3).flip(3)
    for img in (turned, flipped, images(2, 3, 64, 128)[..., :64]):
        with torch.no_grad():
            assert max(errors(net_of("tiny"), engine(img), img)) < 1e-3
    assert torch.equal(engine(turned)[0], wanted[0])


def test_outputs_survive_the_next_call(lines):
    engine = OpenVINOEngine(graph_of("tiny"), "f32", SHAPE, lines.append)
    first = engine(images())
    kept = [t.clone() for t in first]
    second = engine(images(seed=1))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))
    assert not torch.equal(first[0], second[0])


def test_images_are_left_alone(lines):
    img = images()
    OpenVINOEngine(graph_of("tiny"), "f32", SHAPE, lines.append)(img)
    assert torch.equal(img, images())


def test_few_sizes_stay_compiled_and_each_new_one_is_a_line(lines):
    engine = OpenVINOEngine(graph_of("tiny"), "f32", SHAPE, lines.append)
    for width in range(COMPILED_SHAPES):
        engine(images(2, 3, 64, 96 + 32 * width))
    assert len(engine._requests) == COMPILED_SHAPES
    assert len(lines) == COMPILED_SHAPES and "64x96 px, batch 2" in lines[0]
    engine(images(2, 3, 64, 96))
    assert len(lines) == COMPILED_SHAPES
    engine(images())  # the first was the least recently used
    assert len(lines) == COMPILED_SHAPES + 1


@pytest.mark.skipif(not has_bf16(), reason="this CPU has no bf16")
def test_bf16_is_close(builder):
    found = errors(net_of("tiny"), builder.build("openvino-bf16")(images()), images())
    assert 1e-4 < max(found[:3]) < 0.3  # random nets amplify rounding more than trained ones (.03 there)


@pytest.mark.parametrize("family", QUICK)
def test_int8_keeps_neck_and_head_in_float(family, lines):
    names = quantizers(quantized(family))
    assert len(names) > 10 and not any(name.startswith("float/") for name in names)
    assert not _downstream_quantizers(quantized(family))
    assert quantizers(graph_of(family)) == []  # what it was made from is as before
    engine = OpenVINOEngine(quantized(family), "f32", SHAPE, lines.append)
    assert 1e-3 < errors(net_of(family), engine(images()), images())[0] < 1  # random nets amplify what rounding does


@pytest.mark.slow
def test_int8_everywhere_reaches_the_head():
    everywhere = quantize(graph_of("tiny"), images(2, 3, 64, 64), graph.ALL)
    assert len(_downstream_quantizers(everywhere)) > 10


def _downstream_quantizers(model) -> list[str]:
    """FakeQuantize nodes that a neck or head op reads, directly or over weights."""
    found = []
    for op in model.get_ordered_ops():
        if op.get_friendly_name().startswith("float/"):
            sources = [port.get_source_output().get_node() for port in op.inputs()]
            found += [s.get_friendly_name() for s in sources if s.get_type_name() == "FakeQuantize"]
    return found


def test_cache_hit_does_not_convert_again(builder, calls, lines):
    first = builder.build("openvino-int8")(images())
    assert sorted(calls) == ["convert", "quantize"]
    again = builder.build("openvino-int8")(images())
    builder.build("openvino-fp32")
    assert len(calls) == 2 and len(lines) == 1
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not list((builder.cache / FOLDER).glob(".*"))


def test_other_calibration_images_are_another_entry(builder, calls):
    builder.build("openvino-int8")
    replace(builder, calibration=images(2, 3, 64, 64, seed=1)).build("openvino-int8")
    replace(builder, sha256="b" * 64).build("openvino-fp32")
    assert sorted(calls) == ["convert", "convert", "quantize", "quantize"]


@pytest.mark.parametrize("suffix", [".xml", ".bin", ".json"])
def test_damaged_cache_is_built_again_and_says_so(builder, lines, suffix):
    wanted = builder.build("openvino-fp32")(images())
    (path,) = (builder.cache / FOLDER).glob(f"*{suffix}")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[: -len(content) // 4] if suffix == ".json" else content)
    found = builder.build("openvino-fp32")(images())
    assert len(lines) == 1 and "is damaged" in lines[0] and "\n" not in lines[0]
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    builder.build("openvino-fp32")
    assert len(lines) == 1


def test_cache_that_cannot_be_written_is_a_line(builder, lines, tmp_path):
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    assert len(builder.build("openvino-fp32")(images())) == 5
    assert len(lines) == 1 and "could not write" in lines[0]


def test_random_states_threads_and_the_net_stay(tmp_path, lines):
    builder = plain_builder(tmp_path, lines)
    weights = {k: v.clone() for k, v in builder.net.state_dict().items()}
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state(), torch.get_num_threads()
    builder.build("openvino-int8")(images())
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert torch.get_num_threads() == before[3]
    after = builder.net.state_dict()
    assert weights.keys() == after.keys() and all(torch.equal(weights[k], after[k]) for k in weights)
    assert not any(m._forward_hooks for m in builder.net.modules())


@pytest.mark.parametrize(("name", "missing"), [("openvino-bf16", ["openvino"]), ("openvino-int8", ["nncf"])])
def test_missing_package_says_what_to_install(builder, monkeypatch, name, missing):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in missing else find(n, *a))
    with pytest.raises(MisuseError, match=rf"{missing[0]} not installed; run: pip install yolo-kd\[openvino\]"):
        builder.build(name)


def test_what_openvino_raises_becomes_one_line(builder, monkeypatch):
    def fail(*_args):
        raise RuntimeError("Check failed\nat some/file.cpp:12")

    monkeypatch.setattr(graph, "convert", fail)
    with pytest.raises(YoloKDError, match="teacher_engine=openvino-fp32: RuntimeError: Check failed at some"):
        builder.build("openvino-fp32")


def test_backbone_taps_are_backbone_layers():
    layers = ultra.backbone_taps(net_of("yolov8n").model)
    assert [layer.i for layer in layers] == [4, 6, 9]
