"""What `open_detector` looks at before it trusts a net, and a process without torch."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy import open_detector, runtime
from yolo_kd.deploy.artifact import Artifact, Verdict, read_artifact, write_manifest
from yolo_kd.deploy.backends import Settings
from yolo_kd.deploy.backends.fake import FakeBackend

from yolo_kd.errors import GateError, MisuseError, YoloKDError

Made = Callable[..., Any]
GREY = np.full((64, 64, 3), 114, np.uint8)


def test_an_artifact_with_a_manifest(artifact_folder: Path, frames: list[np.ndarray]) -> None:
    with open_detector(artifact_folder) as one, open_detector(read_artifact(artifact_folder), cache=False) as other:
        assert one.artifact.files and len(one(frames[0])) > 0
        assert np.array_equal(one(frames[0]).xyxy, other(frames[0]).xyxy)


@pytest.mark.parametrize("name", ["best.xml", "best.bin", "metadata.yaml"])
def test_hashes_are_checked_before_anything_is_loaded(
    artifact_folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "load_backend", lambda *_: pytest.fail("it was loaded"))
    raw = bytearray((artifact_folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (artifact_folder / name).write_bytes(raw)
    with pytest.raises(GateError, match=f"{name} has sha256"):
        open_detector(artifact_folder)


def test_a_rejected_artifact_is_refused(
    artifact_folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdict = Verdict(False, ("AP fell by .03", "slower than float"))
    write_manifest(replace(read_artifact(artifact_folder), verdict=verdict))
    with monkeypatch.context() as patch, pytest.raises(GateError, match=r"AP fell by \.03; slower than float"):
        patch.setattr(runtime, "load_backend", lambda *_: pytest.fail("it was loaded"))
        open_detector(artifact_folder)
    caplog.set_level(logging.WARNING, "yolo_kd.deploy")
    with open_detector(artifact_folder, allow_rejected=True) as detector:
        for _ in range(3):
            detector(GREY)
    assert len(caplog.records) == 1 and "AP fell by .03; slower than float" in caplog.text


def test_a_passed_one_opens_without_a_word(artifact_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_manifest(replace(read_artifact(artifact_folder), verdict=Verdict(True)))
    caplog.set_level(logging.WARNING, "yolo_kd.deploy")
    open_detector(artifact_folder).close()
    assert not caplog.records


def test_a_net_of_nan_does_not_open(artifact_folder: Path) -> None:
    (artifact_folder / "artifact.json").unlink()
    weights = artifact_folder / "best.bin"
    raw = np.frombuffer(weights.read_bytes(), np.float32).copy()
    raw[len(raw) // 2 :][:20_000] = np.nan  # in the middle of some convolution
    weights.write_bytes(raw.tobytes())
    with pytest.raises(YoloKDError, match="NaN or infinite"):
        open_detector(artifact_folder)


def test_a_net_that_mixes_up_its_batch_does_not_open(made_up: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen: a net with its suppression inside, reshaped to a batch of two, finds nothing on every second picture."""

    def second_is_empty(canvas: np.ndarray) -> np.ndarray:
        raw = np.zeros((len(canvas), 7, 1), np.float32)
        raw[0] = 0.5
        return raw

    closed = []
    monkeypatch.setattr(
        runtime, "load_backend", lambda artifact, settings: FakeBackend(artifact, settings, second_is_empty)
    )
    monkeypatch.setattr(FakeBackend, "close", lambda backend: closed.append(backend))
    with pytest.raises(YoloKDError, match="batch=2: the same picture gives another result in each place"):
        open_detector(made_up(), batch=2)
    assert len(closed) == 1


def test_a_fake_artifact_opens(made_up: Made) -> None:
    with open_detector(made_up()) as detector:
        assert len(detector(GREY)) == 0


@pytest.mark.parametrize("target", ["latency", "throughput", "npu"])
@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_what_a_search_chose_is_used_in_its_mode_on_its_cpu(
    made_up: Made, target: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads only in the mode they were found in; the precision, which the gate judged, in both and with any threads."""
    used: list[Settings] = []
    monkeypatch.setattr(runtime.machine, "cores", lambda: 8)

    def load(artifact: Artifact, settings: Settings) -> FakeBackend:
        used.append(settings)
        return FakeBackend(artifact, settings)

    monkeypatch.setattr(runtime, "load_backend", load)
    monkeypatch.setattr(runtime.machine, "model_name", lambda: "this CPU")
    chosen = {"target": target, "threads": 3, "precision": "f32", "cpu": "this CPU"}
    for facts in ({"runtime": chosen}, {"runtime": {**chosen, "cpu": "another"}}, {}):
        open_detector(replace(made_up(), facts=facts), mode=mode).close()
    for own in ({"threads": 5}, {"precision": "bf16"}):
        open_detector(replace(made_up(), facts={"runtime": chosen}), mode=mode, **own).close()
    monkeypatch.setattr(runtime.machine, "cores", lambda: 2)  # fewer than where it was chosen
    open_detector(replace(made_up(), facts={"runtime": chosen}), mode=mode).close()
    threads = 3 if mode == target else None
    asked = [(5, "f32"), (None, "bf16")]
    assert [(s.threads, s.precision) for s in used] == [
        (threads, "f32"),
        (None, None),
        (None, None),
        *asked,
        (threads and 2, "f32"),
    ]


def test_the_cache_lies_in_the_cache_home_or_where_one_says(
    exported: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path / "home"))
    open_detector(exported(), cache=False).close()
    assert not list(tmp_path.iterdir())
    open_detector(exported(), cache=tmp_path / "own").close()
    assert list((tmp_path / "own").rglob("*.blob")) and not (tmp_path / "home").exists()
    open_detector(exported()).close()
    assert list((tmp_path / "home" / "compiled").rglob("*.blob"))


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="no such file or folder"):
        open_detector(tmp_path / "best_openvino_model")


WITHOUT = """
import json, sys
blocked = {"torch", "torchvision", "ultralytics", "nncf", "onnx", "pycocotools", "albumentations", *sys.argv[2:]}
class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker)
import yolo_kd.deploy
heavy = sorted({"numpy", "cv2", "openvino", "onnxruntime", "yaml"} & set(sys.modules))
from yolo_kd.deploy import open_detector
from yolo_kd.errors import YoloKDError
import numpy as np
frame = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
try:
    detector = open_detector(sys.argv[1], cache=False)
    found = {"boxes": detector(frame).xyxy.tolist(), "many": len(list(detector.many([frame] * 3)))}
except YoloKDError as error:
    found = {"error": f"{type(error).__name__}: {error}"}
print(json.dumps({"heavy": heavy, "torch": bool(blocked & set(sys.modules)), **found}))
"""


def run_without(source: Path, *packages: str) -> dict[str, Any]:
    command = [sys.executable, "-c", WITHOUT, str(source), *packages]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=source.parent)
    assert answer.stderr == ""
    return json.loads(answer.stdout)


@pytest.mark.parametrize(("form", "other"), [("openvino", "onnxruntime"), ("onnx", "openvino")])
def test_it_runs_where_torch_cannot_be_imported(exported: Made, form: str, other: str) -> None:
    source = exported(form=form)
    found = run_without(source, other)
    assert found["heavy"] == [] and not found["torch"] and found["many"] == 3
    frame = np.random.default_rng(1).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    with open_detector(source, cache=False) as detector:
        assert found["boxes"] == detector(frame).xyxy.tolist() != []


@pytest.mark.parametrize(("form", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_without_its_runtime_it_says_what_to_install(exported: Made, form: str, package: str) -> None:
    found = run_without(exported(form=form), package)
    assert found["error"] == f'MisuseError: {package} is not installed; run: pip install "yolo-kd[{form}]"'
