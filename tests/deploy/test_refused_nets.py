"""What a back end cannot run is one line: settings, devices, packages, damaged files, nets that are no detectors."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yolo_kd.deploy.artifact import read_artifact
from yolo_kd.deploy.backends import Settings, load_backend, ov

from tests.deploy.tiny_nets import MAKE, onnx_net, openvino_net
from yolo_kd.errors import MisuseError


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mode": "fast"}, "expected latency or throughput"),
        ({"mode": "latencyy"}, "did you mean 'latency'"),
        ({"threads": 0}, "threads=0: expected a whole number of at least 1"),
        ({"threads": 5000}, r"threads=5000: this process has \d+ cores; expected no more"),
        ({"threads": 1.5}, "threads=1.5"),
        ({"batch": True}, "batch=True"),
        ({"timeout_s": 0}, "expected seconds above 0"),
        ({"timeout_s": float("nan")}, "expected seconds above 0"),
        ({"timeout_s": float("inf")}, "timeout_s=inf: expected seconds above 0, 86400 at most"),
        ({"precision": ["f32"]}, r"precision=\['f32'\]: expected a word such as f32"),
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
        ("onnx", {"batch": 2}, r"takes a batch of 1, not 2; open it with batch=1, and with mode=throughput"),
    ],
)
def test_what_is_not_here_is_refused(tmp_path: Path, form: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(MisuseError, match=message) as caught:
        load_backend(MAKE[form](tmp_path), Settings(**keys))
    assert "\n" not in str(caught.value)


def ruin(folder: Path, name: str, content: bytes | None) -> None:
    """Replace a file; None cuts it to a third."""
    raw = (folder / name).read_bytes()
    (folder / name).write_bytes(raw[: len(raw) // 3] if content is None else content)


@pytest.mark.parametrize("name", ["best.xml", "best.bin"])
@pytest.mark.parametrize(
    "content", [None, b"", b"hello", b"<html></html>", b"\x00" * 64, b'<net name="x" version="11">']
)
def test_a_damaged_openvino_net_is_one_line(
    tmp_path: Path, name: str, content: bytes | None, capfd: pytest.CaptureFixture
) -> None:
    artifact = openvino_net(tmp_path)
    if name == "best.bin" and content is not None:
        content = content[:20]  # shorter than the weights: longer junk is a net of other weights, which hashes find
    ruin(tmp_path, name, content)
    with pytest.raises(MisuseError, match=r"best\.xml: .*(damaged|export it again)") as caught:
        load_backend(artifact, Settings())
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400
    assert capfd.readouterr().err == ""  # OpenVINO's other front ends would have had their say


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
    with pytest.raises(MisuseError, match="for a batch of 1, not 2; open it with batch=1, and with mode=throughput"):
        load_backend(replace(openvino_net(tmp_path), end2end=True), Settings(batch=2))


def test_an_npu_takes_one_frame_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ov, "_find_device", lambda core, wanted: "NPU")
    with pytest.raises(MisuseError, match="batch=2: an NPU gives wrong results above 1; use batch=1"):
        load_backend(openvino_net(tmp_path), Settings(device="NPU", batch=2))


@pytest.mark.parametrize(("form", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_a_missing_package_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    artifact = MAKE[form](tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MisuseError, match=rf'{package} is not installed; run: pip install "yolo-kd\[{form}\]"'):
        load_backend(artifact, Settings())
