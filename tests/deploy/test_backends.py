"""The runtimes behind one seam: the same bits in, side by side, and what really runs is what they say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy.artifact import Artifact, read_artifact
from yolo_kd.deploy.backends import BACKENDS, Settings, load_backend, ort, ov
from yolo_kd.deploy.backends.fake import FakeBackend

from tests.deploy.tiny_nets import MAKE, METADATA, NET_HW, as_torch_has_it, canvas, onnx_net, openvino_net
from yolo_kd.errors import MisuseError, YoloKDError


def test_every_back_end_of_the_list_loads(tmp_path: Path, made_up: Callable[..., Artifact]) -> None:
    artifacts = {"fake": made_up()} | {form: make(tmp_path) for form, make in MAKE.items()}
    assert set(artifacts) == set(BACKENDS)
    for artifact in artifacts.values():
        backend = load_backend(artifact, Settings())
        assert backend.precision and backend.device and backend.batch == 1 and backend.slots == 1
        backend.close()


@pytest.mark.parametrize("form", MAKE)
@pytest.mark.parametrize("batch", [1, 3])
def test_the_net_sees_the_bits_that_torch_would_feed_it(tmp_path: Path, form: str, batch: int) -> None:
    keys = {"shape": ("batch", 3, *NET_HW)} if form == "onnx" else {}
    settings = Settings(precision="f32", batch=batch)
    backend, pixels = load_backend(MAKE[form](tmp_path, **keys), settings), canvas(batch)
    found = backend.infer(pixels)
    assert backend.precision == "f32" and found.dtype == np.float32
    assert np.allclose(found[:, :3], as_torch_has_it(pixels), rtol=2e-7, atol=0) and not found[:, 3:].any()
    assert np.array_equal(backend.infer(pixels[0] if batch == 1 else pixels), found)


def test_in_bf16_too(tmp_path: Path) -> None:
    """OpenVINO's own scaling step multiplies by 1/255 in bf16: .23 % too bright."""
    import openvino

    if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("this CPU has no bf16")
    backend, pixels = load_backend(openvino_net(tmp_path), Settings(precision="bf16")), canvas()
    assert backend.precision == "bf16"
    assert np.array_equal(backend.infer(pixels)[:, :3], as_torch_has_it(pixels, "bf16"))


@pytest.mark.parametrize("batch", [1, 2])
def test_open_shapes_are_made_static(tmp_path: Path, batch: int) -> None:
    """INT8 with open shapes crashes on CPUs with AMX."""
    backend = load_backend(openvino_net(tmp_path, shape=(-1, 3, -1, -1)), Settings(precision="f32", batch=batch))
    shape = backend._compiled.input(0).partial_shape
    assert shape.is_static and list(shape.to_shape()) == [batch, *NET_HW, 3]
    assert np.allclose(backend.infer(canvas(batch))[:, :3], as_torch_has_it(canvas(batch)), rtol=2e-7, atol=0)


def test_an_onnx_net_with_half_precision_input(tmp_path: Path) -> None:
    found = load_backend(onnx_net(tmp_path, half=True), Settings()).infer(canvas())
    assert found.dtype == np.float32
    assert np.array_equal(found[:, :3], as_torch_has_it(canvas(), "f16"))


@pytest.mark.parametrize("form", MAKE)
@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_slots_run_side_by_side_and_keep_their_own(tmp_path: Path, form: str, mode: str) -> None:
    backend = load_backend(MAKE[form](tmp_path), Settings(mode=mode, threads=2, precision="f32"))
    assert backend.slots == 1 if mode == "latency" else backend.slots >= 2
    pixels = [canvas(seed=i) for i in range(backend.slots)]
    for _ in range(2):
        for slot, one in enumerate(pixels):
            backend.start(slot, one)
        for slot in reversed(range(backend.slots)):
            assert np.allclose(backend.wait(slot)[:, :3], as_torch_has_it(pixels[slot]), rtol=2e-7, atol=0)


@pytest.mark.parametrize("form", MAKE)
def test_what_infer_gave_stays(tmp_path: Path, form: str) -> None:
    backend = load_backend(MAKE[form](tmp_path), Settings())
    first = backend.infer(canvas(seed=1))
    before = first.copy()
    backend.infer(canvas(seed=2))
    assert np.array_equal(first, before)


@pytest.mark.parametrize("form", MAKE)
def test_a_closed_net_says_so(tmp_path: Path, form: str) -> None:
    backend = load_backend(MAKE[form](tmp_path), Settings())
    backend.start(0, canvas())
    backend.close()
    for use in (lambda: backend.wait(0), lambda: backend.start(0, canvas()), lambda: backend.infer(canvas())):
        with pytest.raises(MisuseError, match="closed"):
            use()


@pytest.mark.parametrize("name", ["cpu", "Cpu"])
@pytest.mark.parametrize("form", MAKE)
def test_a_device_is_known_in_any_case(tmp_path: Path, form: str, name: str) -> None:
    assert load_backend(MAKE[form](tmp_path), Settings(device=name)).device == "CPU"


def test_auto_says_what_it_chose(tmp_path: Path) -> None:
    assert load_backend(openvino_net(tmp_path), Settings(device="AUTO", threads=1)).device != "AUTO"


def test_another_precision_than_asked_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov, "_running_precision", lambda compiled: "int8+bf16")
    with pytest.raises(YoloKDError, match=r"precision=f32: CPU runs int8\+bf16 instead"):
        load_backend(openvino_net(tmp_path), Settings(precision="f32"))
    assert load_backend(openvino_net(tmp_path), Settings(precision="bf16")).precision == "int8+bf16"


def test_an_int8_artifact_that_runs_in_float_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_backend(openvino_net(tmp_path), Settings(precision="f32"))
    assert not caplog.records
    load_backend(replace(openvino_net(tmp_path), precision="int8"), Settings(precision="f32"))
    assert "is an INT8 net, but CPU runs it in f32" in caplog.text


def test_weights_stored_in_half_precision_are_not_taken_for_what_it_runs_in(tmp_path: Path) -> None:
    """OpenVINO calls a convolution of such weights "f16" although it computes in float32."""
    assert load_backend(openvino_net(tmp_path, half=True), Settings(precision="f32")).precision == "f32"


@pytest.mark.slow
def test_a_quantized_net_runs_in_int8(tmp_path: Path, exported: Callable[..., Path], tiny: Path) -> None:
    import nncf
    import openvino

    parent = exported(str(tiny))
    shutil.copytree(parent, tmp_path / "int8")
    images = np.random.default_rng(0).random((2, 1, 3, 96, 160), np.float32)
    net = nncf.quantize(openvino.Core().read_model(parent / "best.xml"), nncf.Dataset(list(images)), subset_size=2)
    openvino.save_model(net, tmp_path / "int8" / "best.xml")
    artifact = replace(read_artifact(tmp_path / "int8"), precision="int8")
    assert load_backend(artifact, Settings(precision="f32")).precision == "int8+f32"


def test_metadata_of_onnx_is_read_as_values(tmp_path: Path) -> None:
    onnx_net(tmp_path)
    assert ort.metadata(tmp_path / "best.onnx") == METADATA


def test_the_fake_gives_what_it_was_given(made_up: Callable[..., Artifact]) -> None:
    raw = np.ones((1, 7, 5), np.float32)
    backend = FakeBackend(made_up(), Settings(mode="throughput"), raw)
    assert backend.slots == 2 and backend.output_shape == (1, 7, 5)
    backend.start(1, canvas())
    assert np.array_equal(backend.wait(1), raw) and backend.infer(canvas()) is not raw
    doubled = FakeBackend(made_up(), Settings(), lambda pixels: pixels[:, 0].astype(np.float32) * 2)
    assert np.array_equal(doubled.infer(canvas()[0]), canvas()[:, 0].astype(np.float32) * 2)


@pytest.mark.parametrize("end2end", [False, True])
def test_a_fake_of_nothing_sees_nothing(made_up: Callable[..., Artifact], end2end: bool) -> None:
    from yolo_kd.deploy.decode import decode

    artifact = made_up(end2end=end2end)
    assert len(decode(FakeBackend(artifact, Settings()).infer(canvas()), 3, 0.0, end2end)[0]) == 0
