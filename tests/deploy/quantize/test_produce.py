"""From a float artifact to an INT8 one: what lies in the folder, and that nothing half-made does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.artifact import Artifact, Verdict, read_artifact, write_manifest
from yolo_kd.deploy.quantize.calibration import CalibrationSet
from yolo_kd.deploy.quantize.onnx import ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings
from yolo_kd.deploy.quantize.produce import Producer
from yolo_kd.deploy.quantize.sensitivity import LayerError

from tests.full_disk import files_end_at
from yolo_kd.errors import MisuseError, YoloKDError

RECIPES = {"openvino": OpenVINOSettings(bias="none", ranges="mean", stem=1), "onnx": ONNXSettings(stem=1)}


@pytest.fixture(params=["openvino", "onnx"])
def parent(request: pytest.FixtureRequest, exported: Callable[..., Path], tiny: Path, tmp_path: Path) -> Artifact:
    form = request.param
    source = exported(str(tiny), form, 64)
    folder = tmp_path / f"best_{form}_model"
    shutil.copytree(source, folder) if source.is_dir() else folder.mkdir()
    if source.is_file():
        shutil.copy(source, folder / "best.onnx")
    found = read_artifact(folder)
    facts = {"parent": {"file": "best.pt", "sha256": "ab" * 32}}
    return write_manifest(replace(found, facts=facts, verdict=Verdict(True)))


def test_the_artifact(parent: Artifact, calibration: CalibrationSet, tmp_path: Path) -> None:
    target = tmp_path / f"best_int8_{parent.format}_model"
    made = Producer(parent, calibration).write(RECIPES[parent.format], target, worst=[LayerError("a", 0.25)])
    made.check_files()
    assert (made.precision, made.format, made.input_hw, dict(made.names)) == (
        "int8", parent.format, (64, 64), dict(parent.names),
    )  # fmt: skip
    assert made.verdict is None, "the parent's verdict is not its own"
    facts = made.facts
    assert facts["parent"] == parent.facts["parent"]
    nets = {n: h for n, h in parent.files.items() if n != "metadata.yaml"}
    assert facts["float_model"] == {"file": parent.model, "files": nets}
    assert facts["calibration"]["hash"] == calibration.hash and facts["calibration"]["images"] == len(calibration)
    assert facts["recipe"]["backend"] == parent.format and facts["recipe"]["stem"] == 1
    assert facts["sensitivity"] == [{"layer": "a", "error": 0.25}]
    packages = ("yolo-kd", *{"openvino": ("openvino", "nncf"), "onnx": ("onnx", "onnxruntime")}[parent.format])
    assert facts["versions"] == {name: version(name) for name in packages}
    age = datetime.now(timezone.utc) - datetime.fromisoformat(facts["created"])
    assert age.total_seconds() < 600 and facts["created"].endswith("+00:00")
    plain = json.loads((target / "artifact.json").read_text())
    assert plain["preprocessing"] == {
        "resize": "letterbox", "pad": 114, "channels": "RGB", "scale": "1/255", "layout": "NCHW",
    }  # fmt: skip
    assert facts["layers"]["int8_convolutions"] == (26 if parent.format == "openvino" else 20)
    small, large = ((folder / parent.model).with_suffix(".bin" if parent.format == "openvino" else ".onnx").stat().st_size
                    for folder in (made.folder, parent.folder))  # fmt: skip
    assert small < 0.4 * large
    without = read_artifact(_without_manifest(made.folder))
    assert without.precision == "int8", "Ultralytics' metadata does not say so"


def _without_manifest(folder: Path) -> Path:
    copy = folder.with_name(f"{folder.name}_bare")
    shutil.copytree(folder, copy)
    (copy / "artifact.json").unlink()
    return copy


def test_ultralytics_runs_it(
    parent: Artifact, calibration: CalibrationSet, frames: list[np.ndarray], tmp_path: Path
) -> None:
    from ultralytics import YOLO
    from yolo_kd.deploy import open_detector

    made = Producer(parent, calibration).write(
        RECIPES[parent.format], tmp_path / f"best_int8_{parent.format}_model"
    )  # fmt: skip
    source = made.folder if parent.format == "openvino" else made.model_path
    results = YOLO(source, task="detect")(frames[0], imgsz=64, conf=0.25, iou=0.7, verbose=False)[0].boxes
    with open_detector(made.folder, precision="f32" if parent.format == "openvino" else None) as detector:
        own = detector(frames[0])
    assert len(own) > 0 and abs(len(results) - len(own)) <= max(2, 0.1 * len(own))


@pytest.mark.parametrize("room", [1_000, 220_000])
def test_a_full_disk_leaves_nothing(parent: Artifact, calibration: CalibrationSet, tmp_path: Path, room: int) -> None:
    """The description of the net does not fit (1 kB), or its weights do not; OpenVINO says "basic_ios::clear: iostream error" to it."""
    producer = Producer(parent, calibration)
    before = sorted(p.name for p in tmp_path.iterdir())
    with (
        pytest.raises(YoloKDError, match=r"out: no room left on the disk; nothing was left") as caught,
        files_end_at(room),
    ):
        producer.write(RECIPES[parent.format], tmp_path / "out")
    assert ".part" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_a_net_that_openvino_cannot_write_for_another_reason(
    parent: Artifact, calibration: CalibrationSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if parent.format != "openvino":
        pytest.skip("of OpenVINO's writer")
    import openvino as ov

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such\noperation")

    monkeypatch.setattr(ov, "save_model", fail)
    with pytest.raises(YoloKDError, match=r"best\.xml: OpenVINO could not write the net: no such operation"):
        Producer(parent, calibration).write(RECIPES[parent.format], tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_what_cannot_be_quantized(parent: Artifact, calibration: CalibrationSet, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="INT8 is made from fp32"):
        Producer(replace(parent, precision="fp16"), calibration)
    other = RECIPES["onnx" if parent.format == "openvino" else "openvino"]
    with pytest.raises(MisuseError, match="cannot be used on a net in"):
        Producer(parent, calibration).write(other, tmp_path / "out")
    with pytest.raises(MisuseError, match="is not ours"):
        (tmp_path / "taken").mkdir()
        (tmp_path / "taken" / "photo.jpg").write_text("x")
        Producer(parent, calibration).write(RECIPES[parent.format], tmp_path / "taken")
    made = Producer(parent, calibration).write(RECIPES[parent.format], tmp_path / "int8")
    with pytest.raises(MisuseError, match="quantized already"):
        Producer(replace(made, precision="fp32"), calibration)
