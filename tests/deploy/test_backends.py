"""The runtimes behind one seam: the same bits in, what really runs reported, and one line for everything that is wrong."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from yolo_kd.deploy.artifact import Artifact, read_artifact
from yolo_kd.deploy.backends import BACKENDS, Settings, load_backend, ort, ov
from yolo_kd.deploy.backends.fake import FakeBackend

from yolo_kd.errors import MisuseError, YoloKDError

NET_HW = (16, 32)
METADATA = {"task": "detect", "imgsz": list(NET_HW), "names": {0: "thing"}, "args": {}}


def openvino_net(
    folder: Path, shape: tuple[int, ...] = (1, 3, *NET_HW), outputs: int = 1, fill: float = 1.0
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
        openvino.Model([ops.result(rows) for _ in range(outputs)], [pixels], "net"), folder / "best.xml", False
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


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "fast"}, "expected latency or throughput"),
        ({"mode": "latencyy"}, "did you mean 'latency'"),
        ({"threads": 0}, "threads=0: expected a whole number of at least 1"),
        ({"threads": 1.5}, "threads=1.5"),
        ({"batch": True}, "batch=True"),
        ({"timeout_s": 0}, "expected seconds above 0"),
        ({"timeout_s": float("nan")}, "expected seconds above 0"),
        ({"device": ""}, "expected a name such as CPU"),
    ],
)
def test_settings_out_of_range(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError, match=message):
        Settings(**keys)


@pytest.mark.parametrize(
    ("form", "keys", "message"),
    [
        ("openvino", {"device": "GPU.7"}, r"device=GPU\.7: OpenVINO finds no such device here, only .*CPU"),
        ("openvino", {"device": "CP"}, "no such device"),
        ("openvino", {"precision": "int4"}, "expected f32, bf16, f16 or none"),
        ("onnx", {"device": "AUTO"}, "device=AUTO: ONNX Runtime has no such provider here, only .*CPU"),
        ("onnx", {"precision": "bf16"}, "ONNX Runtime has none to choose"),
        ("onnx", {"batch": 2}, r"takes tensor\(float\) \[1, 3, 16, 32\], expected float \[2, 3, 16, 32\]"),
    ],
)
def test_what_is_not_here_is_refused(tmp_path: Path, form: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError, match=message) as caught:
        load_backend(MAKE[form](tmp_path), Settings(**keys))
    assert "\n" not in str(caught.value)


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


def test_a_quantized_net_runs_in_int8(tmp_path: Path, exported: Callable[..., Path]) -> None:
    import nncf
    import openvino

    shutil.copytree(exported(), tmp_path / "int8")
    images = np.random.default_rng(0).random((2, 1, 3, 96, 160), np.float32)
    net = nncf.quantize(openvino.Core().read_model(exported() / "best.xml"), nncf.Dataset(list(images)), subset_size=2)
    openvino.save_model(net, tmp_path / "int8" / "best.xml")
    artifact = replace(read_artifact(tmp_path / "int8"), precision="int8")
    assert load_backend(artifact, Settings(precision="f32")).precision == "int8+f32"


def ruin(folder: Path, name: str, content: bytes | None) -> None:
    """Replace a file; None cuts it to a third."""
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: len(raw) // 3] if content is None else content)


@pytest.mark.parametrize("name", ["best.xml", "best.bin"])
@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"<html></html>", b"\x00" * 64, b'<net name="x" version="11">']
)
def test_a_damaged_openvino_net_is_one_line(tmp_path: Path, name: str, content: bytes | None) -> None:
    artifact = openvino_net(tmp_path)
    if name == "best.bin" and content is not None:
        content = content[:20]  # shorter than the weights: longer junk is a net of other weights, which hashes find
    ruin(tmp_path, name, content)
    with pytest.raises(MisuseError, match=r"best\.xml: .*(damaged|export it again)") as caught:
        load_backend(artifact, Settings())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    artifact = openvino_net(tmp_path)
    (tmp_path / "best.bin").unlink()
    with pytest.raises(MisuseError, match="damaged, incomplete"):
        load_backend(artifact, Settings())


@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x00" * 64])
def test_a_damaged_onnx_net_is_one_line(tmp_path: Path, content: bytes | None, capfd: pytest.CaptureFixture) -> None:
    artifact = onnx_net(tmp_path)
    ruin(tmp_path, "best.onnx", content)
    for use in (lambda: load_backend(artifact, Settings()), lambda: read_artifact(tmp_path / "best.onnx")):
        with pytest.raises(MisuseError, match=r"best\.onnx: ") as caught:
            use()
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("form", MAKE)
def test_a_net_of_two_outputs_is_no_detector(tmp_path: Path, form: str) -> None:
    with pytest.raises(MisuseError, match="expected a detector with one input and one output, found 1 inputs and 2"):
        load_backend(MAKE[form](tmp_path, outputs=2), Settings())


@pytest.mark.parametrize("form", MAKE)
def test_a_net_of_another_size_than_its_metadata(tmp_path: Path, form: str) -> None:
    artifact = MAKE[form](tmp_path, shape=(1, 3, 16, 16))
    with pytest.raises(MisuseError, match=r"takes .*16,\s?16\]?.*export it (again|with that shape)"):
        load_backend(artifact, Settings())


def test_a_selecting_net_keeps_its_batch(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="selects its boxes for batch=1, not 2"):
        load_backend(replace(openvino_net(tmp_path), end2end=True), Settings(batch=2))


@pytest.mark.parametrize(("form", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    artifact = MAKE[form](tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MisuseError, match=rf'{package} is not installed; run: pip install "yolo-kd\[{form}\]"'):
        load_backend(artifact, Settings())


def test_metadata_of_onnx_is_read_as_values(tmp_path: Path) -> None:
    onnx_net(tmp_path)
    assert ort.metadata(tmp_path / "best.onnx") == METADATA


class Broken:
    """A session whose runs fail, or never end."""

    def __init__(self, wait: Any = None) -> None:
        self.wait = wait

    def run(self, *_: object) -> list[np.ndarray]:
        if self.wait:
            self.wait.wait()
        raise RuntimeError("ran\nout of memory")


def test_a_failing_run_reaches_the_caller(tmp_path: Path) -> None:
    backend = load_backend(onnx_net(tmp_path), Settings())
    working, backend._session = backend._session, Broken()
    backend.start(0, canvas())
    with pytest.raises(YoloKDError, match="ONNX Runtime failed on CPU: ran out of memory"):
        backend.wait(0)
    with pytest.raises(YoloKDError, match="ran out of memory"):
        backend.infer(canvas())
    backend._session = working
    backend.start(0, canvas())
    assert np.array_equal(backend.wait(0)[:, :3], as_torch_has_it(canvas()))


def test_a_run_that_hangs_ends_with_a_line(tmp_path: Path) -> None:
    from threading import Event

    backend, release = load_backend(onnx_net(tmp_path), Settings(timeout_s=0.2)), Event()
    backend._session = Broken(release)
    backend.start(0, canvas())
    for use in (lambda: backend.wait(0), lambda: backend.wait(0), lambda: backend.infer(canvas())):
        with pytest.raises(YoloKDError, match=r"no answer on CPU within 0\.2 s and counts as hung"):
            use()
    backend.close()
    release.set()


HANGING = """
import sys, threading
import numpy as np, openvino
from openvino import opset13 as ops
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.deploy.backends import Settings, load_backend
from yolo_kd.errors import YoloKDError

class Never(openvino.Op):
    def __init__(self, inputs=None):
        super().__init__(self)
        if inputs is not None:
            self.set_arguments(inputs)
            self.constructor_validate_and_infer_types()
    def validate_and_infer_types(self):
        self.set_output_type(0, self.get_input_element_type(0), self.get_input_partial_shape(0))
    def clone_with_new_inputs(self, inputs):
        return Never(inputs)
    def has_evaluate(self):
        return True
    def evaluate(self, outputs, inputs):
        threading.Event().wait()

backend = load_backend(read_artifact(sys.argv[1]), Settings(mode="throughput", timeout_s=0.3))
given = ops.parameter([1, 4], np.float32)
hanging = openvino.Core().compile_model(openvino.Model([ops.result(Never([given]))], [given], "never"), "CPU")
backend._requests = [hanging.create_infer_request() for _ in backend._requests]
backend._compiled = hanging
del hanging
backend.start(0, np.zeros((1, 16, 32, 3), np.uint8))
for _ in range(2):
    try:
        backend.wait(0)
    except YoloKDError as error:
        print(error)
backend.close()
del backend
print("closed", flush=True)
"""


def test_a_request_that_hangs_ends_with_a_line_and_the_process_can_end(tmp_path: Path) -> None:
    """A net with an operation that never ends. Taking such a request apart blocks for ever, so it must be left behind."""
    openvino_net(tmp_path)
    answer = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)], capture_output=True, text=True, timeout=60, check=True
    )
    lines = answer.stdout.splitlines()
    assert lines[0] == lines[1] and "no answer on CPU within 0.3 s and counts as hung" in lines[0]
    assert lines[2] == "closed"


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


class TestCompileCache:
    """Compiled nets are kept, and are served only as they were stored and only for the net they were made from."""

    @staticmethod
    def run(artifact: Artifact, cache: Path) -> np.ndarray:
        backend = load_backend(artifact, Settings(cache=cache, precision="f32"))
        found = backend.infer(canvas())
        backend.close()
        return found

    def test_the_second_start_takes_what_the_first_left(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        artifact, cache = openvino_net(tmp_path / "net"), tmp_path / "cache"
        first = self.run(artifact, cache)
        (blob,) = cache.rglob("*.blob")
        stamp = blob.stat().st_mtime_ns
        assert np.array_equal(self.run(artifact, cache), first)
        assert list(cache.rglob("*.blob")) == [blob] and blob.stat().st_mtime_ns == stamp
        assert not caplog.records and not list(cache.rglob("*.part"))

    @pytest.mark.parametrize("damage", ["flipped", "cut", "unsealed", "empty seal"])
    def test_what_was_damaged_is_thrown_away(
        self, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        artifact, cache = openvino_net(tmp_path / "net"), tmp_path / "cache"
        first = self.run(artifact, cache)
        (blob,) = cache.rglob("*.blob")
        blob.chmod(0o644)
        raw = blob.read_bytes()
        if damage == "flipped":
            blob.write_bytes(raw[:-40] + bytes(byte ^ 0xFF for byte in raw[-40:]))
        elif damage == "cut":
            blob.write_bytes(raw[:50])
        elif damage == "unsealed":
            blob.with_suffix(".sha256").unlink()
        else:
            blob.with_suffix(".sha256").write_text("")
        assert np.array_equal(self.run(artifact, cache), first)
        assert "is not as it was stored" in caplog.text
        caplog.clear()
        assert np.array_equal(self.run(artifact, cache), first) and not caplog.records

    def test_the_same_net_with_other_weights_has_its_own(self, tmp_path: Path) -> None:
        cache = tmp_path / "cache"
        one = self.run(openvino_net(tmp_path / "one"), cache)
        other = self.run(openvino_net(tmp_path / "other", fill=0.5), cache)
        assert np.allclose(other * 2, one) and len(list(cache.iterdir())) == 2

    def test_a_place_that_cannot_be_written_is_said(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        artifact = openvino_net(tmp_path / "net")
        (tmp_path / "file").write_text("in the way")
        caplog.set_level(logging.WARNING)
        assert np.allclose(self.run(artifact, tmp_path / "file")[:, :3], as_torch_has_it(canvas()), rtol=2e-7, atol=0)
        assert "compiled nets cannot be kept there" in caplog.text
