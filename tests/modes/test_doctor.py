"""`yolo-kd doctor`: what is there, what is not, and a device that was asked for and is missing."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy import doctor
from yolo_kd.deploy.artifact import read_artifact, write_manifest
from yolo_kd.deploy.quantize.agreement import Agreement, raw_errors

from tests.deploy.tiny_nets import MAKE
from yolo_kd.cli import main
from yolo_kd.errors import MisuseError, YoloKDError

PROVIDERS = ["CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"]
FOUND = {"openvino": {"CPU": {}, "GPU.0": {}}, "onnxruntime": PROVIDERS, "accelerators": []}


def test_the_inventory_names_processor_packages_and_devices(capsys, tmp_path):
    assert main(["doctor", f"out={tmp_path / 'found.json'}"]) == 0
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    import openvino

    assert set(found["openvino"]) == set(openvino.Core().available_devices)
    assert found["packages"]["openvino"] and "CPUExecutionProvider" in found["onnxruntime"]
    assert "OpenVINO CPU: full_device_name" in printed and "ONNX Runtime: " in printed


def test_the_processor_is_told_by_what_computes_bf16_and_int8(monkeypatch):
    import openvino

    monkeypatch.setattr(doctor.machine, "cpu_flags", lambda: frozenset({"sse4_2", "avx512_vnni", "amx_bf16", "fpu"}))
    found = doctor.inventory()
    assert found["processor"]["isa"] == ["amx_bf16", "avx512_vnni"]
    told = found["openvino"]["CPU"]
    assert told["OPTIMIZATION_CAPABILITIES"] == openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert "FP32" in told["OPTIMIZATION_CAPABILITIES"]


def test_an_npu_is_listed_with_its_driver_and_compiler(monkeypatch, capsys):
    import openvino

    facts = {"FULL_DEVICE_NAME": "AI Boost", "NPU_DRIVER_VERSION": 1688, "NPU_COMPILER_VERSION": 458757, "OTHER": 1}

    class Core:
        available_devices = ("NPU",)

        def get_property(self, device, name):
            return list(facts) if name == "SUPPORTED_PROPERTIES" else facts[name]

    monkeypatch.setattr(openvino, "Core", Core)
    assert main(["doctor"]) == 0
    line = "OpenVINO NPU: full_device_name AI Boost, npu_driver_version 1688, npu_compiler_version 458757"
    assert line in capsys.readouterr().out.splitlines()


def test_operations_that_a_device_does_not_take_are_counted(tmp_path, monkeypatch, capsys):
    import openvino

    whole = openvino.Core.query_model

    def query(core, model, device):
        kept = whole(core, model, device)
        left = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() in {"Convolution", "Constant"}]
        return {name: kind for name, kind in kept.items() if name not in left}

    monkeypatch.setattr(openvino.Core, "query_model", query)
    net, out = MAKE["openvino"](tmp_path), tmp_path / "found.json"
    assert main(["doctor", f"model={net.folder}", "device=CPU", f"out={out}"]) == 0
    assert json.loads(out.read_text())["examined"][0]["falls_off"] == {"Convolution": 1}
    assert "1 Convolution" in capsys.readouterr().out


def test_an_artifact_is_compiled_run_and_compared(float_export, pictures, capsys, tmp_path):
    out = tmp_path / "found.json"
    assert main(["doctor", f"model={float_export}", "device=cpu", f"data={pictures}", "split=train", f"out={out}"]) == 0
    one = json.loads(out.read_text())["examined"][0]
    assert one["device"] == "CPU" and one["runs"] and one["falls_off"] == {} and one["ms"] > 0
    assert one["f1"] > 0.8 and one["iou"] > 0.9
    assert "no quantized layer" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["openvino", "onnx"])
def test_shapes_are_said_though_all_is_well(form, tmp_path, capsys):
    net, shape = MAKE[form], ((1, 3, 16, 32), ("batch", 3, "height", 32) if form == "onnx" else (-1, 3, -1, 32))
    assert doctor.shapes(net(tmp_path / "open", shape=shape[1])) == "open ?x32, batch ?"
    static, out = net(tmp_path / "static", shape=shape[0]), tmp_path / "found.json"
    assert main(["doctor", f"model={static.model_path}", "device=CPU", f"out={out}"]) == 0
    assert "\nshapes: static 16x32, batch 1\n" in capsys.readouterr().out
    assert json.loads(out.read_text())["shapes"] == "static 16x32, batch 1"


COMMAND = re.compile(r"yolo-kd (?P<mode>export|quantize) (?P<words>(?:[a-z]+=\S+ ?)+)")


def commands(text: str) -> list[list[str]]:
    """The commands in a hint, as words."""
    return [
        [m["mode"], *m["words"].strip(" ,;()").split()]
        for m in COMMAND.finditer(text.replace(")", " ").replace(",  ", " "))
    ]


def test_hints_are_commands_that_run(float_export, tmp_path, monkeypatch, capsys):
    """Each with keys that its mode takes together: what is missing is only the file."""
    monkeypatch.chdir(tmp_path)
    folder = edited(float_export, tmp_path, lambda model: model.reshape([-1, 3, 64, 64]) or model)
    parent = {"parent": {"file": "student.pt"}}
    hints = doctor.npu_faults(replace(read_artifact(folder), facts=parent))
    with pytest.raises(YoloKDError) as refused:
        doctor.devices(FOUND, "openvino", "NPU")
    found = [words for text in (*hints, str(refused.value)) for words in commands(text)]
    assert [words[0] for words in found] == ["export", "quantize", "quantize"]
    assert found[0][1:] == ["model=student.pt", "imgsz=64,64"]
    for words in found:
        assert main(words) == 2
        assert re.search(r"(model|data)=\S+: no such (file|data set)", capsys.readouterr().err), words


@pytest.mark.parametrize("words", [["device=NPU"], ["device=NPU", "model=MODEL"]])
def test_an_npu_that_is_not_there_is_said_and_exits_one(float_export, capsys, words):
    assert main(["doctor", *(w.replace("MODEL", str(float_export)) for w in words)]) == 1
    said = capsys.readouterr().err
    assert (
        "device=NPU: " in said
        and "OpenVINO" in said
        and "CPU here" in said
        and "linux-npu-driver" in said
        and "target=npu" in said
    )


def test_devices_are_found_by_name_or_family():
    assert doctor.devices(FOUND, "openvino", None) == ["CPU", "GPU.0"]
    assert doctor.devices(FOUND, "openvino", "gpu") == ["GPU"]
    assert doctor.devices(FOUND, "onnx", None) == ["CPU", "CUDA"] and doctor.devices(FOUND, "onnx", "cuda") == ["CUDA"]
    with pytest.raises(YoloKDError, match="the kernel shows accel0 in"):
        doctor.devices({**FOUND, "accelerators": ["accel0"]}, "openvino", "NPU")
    with pytest.raises(YoloKDError, match="device=GPU.1: OpenVINO finds CPU, GPU.0 here; install its driver"):
        doctor.devices(FOUND, "openvino", "GPU.1")
    assert doctor.devices(FOUND, "onnx", "GPU") == ["GPU"]  # as open_detector takes it


@pytest.mark.parametrize(
    "wanted, hint",
    [("auto", "AUTO is no device, it takes one of these"), ("foo", "name one of these"), ("CPI", "did you mean 'CPU'")],
)
@pytest.mark.parametrize("form", ["openvino", "onnx", None])
def test_a_driver_is_advised_only_for_what_has_one(form, wanted, hint):
    with pytest.raises(YoloKDError, match=f"device={wanted}: ") as caught:
        doctor.devices(FOUND, form, wanted)
    assert hint in str(caught.value) and "driver" not in str(caught.value)


def test_a_changed_file_is_refused_before_anything_parses_it(float_export, tmp_path, capsys):
    folder = tmp_path / "best_openvino_model"
    shutil.copytree(float_export, folder)
    write_manifest(read_artifact(folder))
    (folder / "best.xml").write_text("<net")
    assert main(["doctor", f"model={folder}", "device=CPU"]) == 3
    assert "best.xml has sha256" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["cut", "no net", "no weights"])
def test_a_damaged_net_of_which_no_hash_is_known_is_one_line(float_export, tmp_path, capfd, fault):
    """Of Ultralytics' folders there is none: the device is not to blame, and OpenVINO's own words say nothing."""
    folder = tmp_path / "best_openvino_model"
    shutil.copytree(float_export, folder)
    whole = (folder / "best.xml").read_bytes()
    (folder / "best.xml").write_bytes({"cut": whole[:5000], "no net": b"hello", "no weights": whole}[fault])
    if fault == "no weights":
        (folder / "best.bin").write_bytes(b"")
    assert main(["doctor", f"model={folder}"]) == 2
    said = capfd.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "best.xml: " in said[0] and "damaged" in said[0]


@pytest.mark.parametrize("words", [["model=MODEL"], ["model=MODEL", "device=CPU"], ["model=MODEL", "device=NPU"]])
def test_a_runtime_that_is_not_installed_is_said_not_a_device_that_is_missing(float_export, monkeypatch, capsys, words):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["doctor", *(w.replace("MODEL", str(float_export)) for w in words)]) == 2
    assert 'openvino is not installed; run: pip install "yolo-kd[openvino]"' in capsys.readouterr().err


def test_without_a_model_a_device_of_either_runtime_will_do(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["doctor", "device=cpu"]) == 0
    assert doctor.devices(FOUND, None, "cuda") == ["CUDA"] and doctor.devices(FOUND, None, "gpu") == ["GPU"]
    assert main(["doctor", "device=GPU.7"]) == 1
    assert "device=GPU.7: OpenVINO and ONNX Runtime find CPU here" in capsys.readouterr().err


def edited(float_export: Path, folder: Path, change) -> Path:
    """A copy of the net with an operation more."""
    import openvino as ov

    model = ov.Core().read_model(float_export / "best.xml")
    ov.save_model(change(model), folder / "best.xml")
    (folder / "metadata.yaml").write_text((float_export / "metadata.yaml").read_text())
    return folder


def test_what_an_npu_would_stumble_over(float_export, tmp_path):
    import openvino as ov
    from openvino import opset13 as ops

    def open_batch(model):
        model.reshape([-1, 3, 64, 64])
        return model

    def choosing(model):
        output = model.outputs[0].get_node().input(0).get_source_output()
        return ov.Model([ops.result(ops.non_zero(output))], model.get_parameters(), "choosing")

    opened = read_artifact(edited(float_export, tmp_path, open_batch))
    assert any(f.startswith("open shapes (") for f in doctor.npu_faults(opened))
    (tmp_path / "b").mkdir()
    faults = doctor.npu_faults(read_artifact(edited(float_export, tmp_path / "b", choosing)))
    assert any(f.startswith("NonZero in the graph") for f in faults)
    with pytest.raises(MisuseError, match="an NPU takes OpenVINO ones"):
        doctor.npu_faults(replace(opened, format="onnx"))


def test_a_device_that_cannot_compile_gives_its_reason_and_exits_one(float_export, tmp_path, monkeypatch, capsys):
    def refuse(*_args, **_keys):
        raise YoloKDError("OpenVINO cannot compile the net for CPU: unsupported thing")

    monkeypatch.setattr(doctor, "open_detector", refuse)
    assert main(["doctor", f"model={float_export}"]) == 1
    assert "CPU does not run it: OpenVINO cannot compile the net for CPU: unsupported thing" in capsys.readouterr().out


def test_what_falls_off_is_only_said_where_it_was_looked_at(tmp_path, monkeypatch, capsys):
    """ONNX Runtime tells by refusing: a net that runs runs whole, of one that does not nothing is known."""
    net, out = MAKE["onnx"](tmp_path), tmp_path / "found.json"
    words = ["doctor", f"model={net.model_path}", "device=CPU", f"out={out}"]
    assert main(words) == 0
    assert json.loads(out.read_text())["examined"][0]["falls_off"] == {} and "nothing" in capsys.readouterr().out

    def refuse(*_args, **_keys):
        raise YoloKDError("CUDAExecutionProvider cannot run it: fallback is disabled")

    monkeypatch.setattr(doctor, "open_detector", refuse)
    assert main(words) == 1
    printed = capsys.readouterr().out
    assert json.loads(out.read_text())["examined"][0]["falls_off"] is None
    assert "not checked" in printed and "nothing" not in printed


def test_a_provider_that_leaves_nodes_to_the_cpu_is_refused(tmp_path, monkeypatch):
    """On this the word of the doctor rests."""
    from yolo_kd.deploy.backends import Settings, ort

    asked = {}

    def session(_ort, _model, options, provider):
        asked[provider] = options.get_session_config_entry("session.disable_cpu_ep_fallback")
        raise YoloKDError("no such device")

    net = MAKE["onnx"](tmp_path)
    monkeypatch.setattr(ort, "_session", session)
    monkeypatch.setattr(ort, "_find_provider", lambda *_: "CUDAExecutionProvider")
    with pytest.raises(YoloKDError, match="no such device"):
        ort.ONNXBackend(net, Settings(device="CUDA"))
    assert asked == {"CUDAExecutionProvider": "1"}


class Wrong:
    """A back end whose device computes something else."""

    def __init__(self, backend, change):
        self.backend, self.change = backend, change

    def __getattr__(self, name):
        return getattr(self.backend, name)

    def run(self, canvas):
        return self.change(self.backend.run(canvas).copy())

    infer = run


def rescaled(rows: slice, factor: float):
    def change(raw):
        raw[:, rows] *= factor
        return raw

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rescaled(slice(0, 4), 0.0), "raw boxes are 1.000 off, allowed 0.05"),
        (rescaled(slice(0, 4), 1.2), "raw boxes are 0.2"),
        (rescaled(slice(4, 5), 0.4), "raw scores are 0.600 off, allowed 0.5"),
        (rescaled(slice(4, 5), 1.4), None),
        (rescaled(slice(0, 4), 1.04), None),
    ],
)
def test_a_device_that_computes_something_else_fails_though_nothing_is_seen(
    tmp_path, monkeypatch, capsys, change, said
):
    """Noise, and scores far below any threshold: no box on either side."""
    net, out, opened = MAKE["openvino"](tmp_path), tmp_path / "found.json", doctor.open_detector

    def open_wrong(artifact, **keys):
        detector = opened(artifact, **keys)

        def faintly(raw):
            raw[:, 4] = raw[:, 0] * 1e-3  # the net of the test has no scores of its own
            return raw if keys.get("precision") == "f32" else change(raw)

        detector.backend = Wrong(detector.backend, faintly)
        return detector

    monkeypatch.setattr(doctor, "open_detector", open_wrong)
    assert main(["doctor", f"model={net.folder}", "device=CPU", f"out={out}"]) == (1 if said else 0)
    one = json.loads(out.read_text())["examined"][0]
    assert one["f1"] is None and one["runs"] and bool(one["disagrees"]) is bool(said)
    assert (f"CPU disagrees with the CPU in float32: {said}" in capsys.readouterr().out) is bool(said)


def test_boxes_that_are_not_the_cpus_fail_where_there_are_enough():
    assert (
        doctor.disagreement(Agreement(6, 6, 0, 0.0, 0.0), 0.01, 0.1) == "F1 of the boxes is 0.000, expected 0.5 or more"
    )
    assert doctor.disagreement(Agreement(6, 6, 3, 0.9, 0.0), 0.01, 0.1) == ""
    assert doctor.disagreement(Agreement(1, 1, 0, 0.0, 0.0), 0.01, 0.1) == ""
    assert "raw scores are nan off" in doctor.disagreement(Agreement(0, 0, 0, 0.0, 0.0), None, math.nan)


def test_raw_errors_are_of_boxes_and_scores_apart():
    exact = np.zeros((1, 6, 2), np.float32)
    exact[:, :4], exact[:, 4:] = 100.0, 0.5
    found = exact.copy()
    found[:, :4] += 10.0
    found[:, 5] = 0.0
    assert raw_errors(exact, found, False) == pytest.approx((0.1, 0.5**0.5))
    assert raw_errors(0 * exact, 0 * exact, False) == (0.0, 0.0) and raw_errors(0 * exact, exact, False)[0] == math.inf
    rows = np.array([[[0, 0, 9, 9, 0.4, 0], [5, 5, 8, 8, 0.4, 0]]], np.float32)
    assert raw_errors(rows, rows[:, ::-1], True) == (None, 0.0), "equals that change places are no error"


def test_misspelt_key(capsys):
    assert main(["doctor", "modle=x"]) == 2
    assert "modle=x: unknown key (did you mean 'model'?)" in capsys.readouterr().err


def test_no_file_of_somebody_else_is_written_over(tmp_path, capsys):
    (out := tmp_path / "data.yaml").write_text("names: {0: car}")
    assert main(["doctor", f"out={out}"]) == 2
    assert "exists and was not written by this command" in capsys.readouterr().err
    assert out.read_text() == "names: {0: car}"
