"""`yolo-kd export`: the net that comes out is the checkpoint's, the manifest says what it is, and nothing else changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy import open_detector
from yolo_kd.deploy.artifact import read_artifact, sha256

from tests.full_disk import files_end_at
from yolo_kd.cli import main
from yolo_kd.engine import export as module
from yolo_kd.engine import ultra

NAMES = {0: "car", 1: "truck", 2: "person"}


@pytest.fixture
def checkpoint(make_checkpoint: Callable[..., Path], tmp_path: Path) -> Path:
    return Path(shutil.copy(make_checkpoint("yolov8n.yaml"), tmp_path / "best.pt"))


def torch_says(checkpoint: Path, canvas: np.ndarray, one_to_one: bool = False) -> np.ndarray:
    """(1, 4 + classes, cells) of the checkpoint in float32 for a BGR canvas."""
    import torch

    model = ultra.load_detector(str(checkpoint), "model").float().eval()
    if hasattr(model.model[-1], "end2end"):
        model.model[-1].end2end = one_to_one
    image = torch.from_numpy(canvas[..., ::-1].transpose(2, 0, 1)[None].copy()).float() / 255
    with torch.no_grad():
        found = model(image)
    return (found[0] if isinstance(found, tuple) else found).numpy()


def canvas(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def net_says(folder: Path, frame: np.ndarray, **options: Any) -> np.ndarray:
    with open_detector(folder, cache=False, threads=1, **options) as detector:
        return detector.backend.run(frame[None])


def words(checkpoint: Path, *more: str) -> list[str]:
    return ["export", f"model={checkpoint}", "imgsz=64", *more]


@pytest.mark.slow
def test_an_openvino_net_says_what_the_checkpoint_says(checkpoint, tmp_path, capsys):
    before = checkpoint.read_bytes()
    assert main(words(checkpoint)) == 0
    folder = tmp_path / "best_openvino_model"
    assert capsys.readouterr().out.endswith(f"{folder}: openvino fp32, input 64x64\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", folder.name] and checkpoint.read_bytes() == before
    assert {p.name for p in folder.iterdir()} == {"best.xml", "best.bin", "metadata.yaml", "artifact.json"}
    wanted, found = torch_says(checkpoint, canvas(64, 64)), net_says(folder, canvas(64, 64), precision="f32")
    assert found.shape == wanted.shape == (1, 7, 84)
    assert np.abs(found - wanted)[:, :4].max() < 0.05 and np.abs(found - wanted)[:, 4:].max() < 1e-3


def test_the_manifest(checkpoint, tmp_path):
    assert main(words(checkpoint, "format=onnx")) == 0
    folder = tmp_path / "best_onnx_model"
    found = read_artifact(folder)
    assert (found.format, found.precision, found.input_hw, found.end2end) == ("onnx", "fp32", (64, 64), False)
    assert dict(found.names) == NAMES and found.verdict is None
    assert found.facts["parent"] == {"file": "best.pt", "sha256": sha256(checkpoint)}
    assert {"yolo-kd", "torch", "onnx", "onnxruntime"} <= found.facts["versions"].keys()
    assert found.facts["created"].endswith("+00:00")
    found.check_files()
    assert found.files == {"best.onnx": sha256(folder / "best.onnx")}
    plain = json.loads((folder / "artifact.json").read_text())
    assert plain["preprocessing"]["resize"] == "letterbox" and plain["input_hw"] == [64, 64]
    wanted, said = torch_says(checkpoint, canvas(64, 64)), net_says(folder, canvas(64, 64))
    assert np.abs(said - wanted)[:, :4].max() < 0.05 and np.abs(said - wanted)[:, 4:].max() < 1e-3


def test_another_size_than_it_was_trained_at_is_said(checkpoint, caplog):
    """Ultralytics' own export would take that of the training."""
    import torch

    saved = torch.load(checkpoint, weights_only=False)
    torch.save({**saved, "train_args": {"imgsz": 96}}, checkpoint)
    said = "best.pt: its training says imgsz=96, which Ultralytics would export it at; this is for 64x64"
    assert main(words(checkpoint, "format=onnx")) == 0 and said in caplog.messages
    caplog.clear()
    assert main(["export", f"model={checkpoint}", "format=onnx", "imgsz=64,96"]) == 0
    assert not [line for line in caplog.messages if "its training says" in line]


def test_a_rectangle_has_its_height_first(checkpoint, tmp_path):
    import onnx

    assert (
        main(["export", f"model={checkpoint}", "format=onnx", "imgsz=32,96", f"out={tmp_path / 'new' / 'place'}"]) == 0
    )
    folder = tmp_path / "new" / "place" / "best_onnx_model"
    shape = onnx.load(folder / "best.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in shape] == [1, 3, 32, 96] and read_artifact(folder).input_hw == (32, 96)
    wanted, said = torch_says(checkpoint, canvas(32, 96)), net_says(folder, canvas(32, 96))
    assert said.shape == wanted.shape and np.abs(said - wanted)[:, 4:].max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("form", ["openvino", "onnx"])
def test_half_precision_halves_the_weights_and_hardly_moves_what_is_said(checkpoint, tmp_path, form):
    assert main(words(checkpoint, f"format={form}", "precision=fp16")) == 0
    folder = tmp_path / f"best_{form}_model"
    assert read_artifact(folder).precision == "fp16"
    weights = sum(p.numel() for p in ultra.load_detector(str(checkpoint), "model").parameters())
    stored = sum(p.stat().st_size for p in folder.iterdir() if p.suffix in {".bin", ".onnx"})
    assert 1.9 * weights < stored < 2.3 * weights  # bytes; batch norms are folded
    said = net_says(folder, canvas(64, 64), **({"precision": "f32"} if form == "openvino" else {}))
    error = np.abs(said - torch_says(checkpoint, canvas(64, 64)))[:, 4:]
    assert 0 < error.max() < 0.05


@pytest.mark.slow
def test_either_head_of_a_dual_one(make_checkpoint, tmp_path):
    checkpoint = shutil.copy(make_checkpoint("yolo26n.yaml"), tmp_path / "best.pt")
    assert main(words(checkpoint, "format=onnx", "end2end=true")) == 0
    folder = tmp_path / "best_onnx_model"
    assert read_artifact(folder).end2end and net_says(folder, canvas(64, 64)).shape[1:] == (84, 6)
    assert main(words(checkpoint, "format=onnx")) == 0  # ours, so it is replaced without being asked
    assert not read_artifact(folder).end2end and net_says(folder, canvas(64, 64)).shape == (1, 7, 84)


REFUSED = [
    (["format=tflite"], "format=tflite: expected one of openvino, onnx"),
    (["precision=int8"], "expected fp32 or fp16; yolo-kd quantize makes int8"),
    (["imgsz=100"], "imgsz=100,100: expected multiples of 32 up to 4096, e.g. imgsz=384,640"),
    (["imgsz=64,8192"], "imgsz=64,8192: expected multiples of 32 up to 4096"),
    (["imgsz=0"], "expected a side or height,width in pixels"),
    (["imgsz=64,64,64"], "expected a side or height,width in pixels"),
    (["end2end=true"], "the model has no one-to-one head (v10 and 26 have one)"),
    (["end2end=1"], "end2end=1: expected true or false"),
    (["model=TMP/gone.pt"], "gone.pt"),
    (["model=TMP/words.pt"], "words.pt"),
    (["model=none"], "model= is missing: yolo-kd export model=best.pt"),
    (["out=TMP/words.pt"], "words.pt"),
    (["precison=fp16"], "did you mean 'precision'?"),
    (["half=True"], "half=True: is a key of Ultralytics' own export; here: precision=fp16"),
    (["int8=True"], "int8=True: is a key of Ultralytics' own export; here: yolo-kd quantize"),
    (["dynamic=True"], "shapes are static, one export for each imgsz="),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[" ".join(change) for change, _ in REFUSED])
def test_refusals_are_one_line_and_leave_nothing(checkpoint, tmp_path, capsys, change, said):
    (tmp_path / "words.pt").write_text("words")
    assert main(words(checkpoint, *(w.replace("TMP", str(tmp_path)) for w in change))) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0], printed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best.pt", "words.pt"]


def test_a_folder_of_somebody_else_is_replaced_only_when_told(checkpoint, tmp_path, capsys):
    taken = tmp_path / "best_onnx_model"
    taken.mkdir()
    (taken / "photo.jpg").write_text("mine")
    assert main(words(checkpoint, "format=onnx")) == 2
    assert "holds no artifact.json, so it is not ours; overwrite=true" in capsys.readouterr().err
    assert (taken / "photo.jpg").read_text() == "mine"
    assert main(words(checkpoint, "format=onnx", "overwrite=true")) == 0
    assert {p.name for p in taken.iterdir()} == {"best.onnx", "artifact.json"}


def test_a_package_that_is_missing_is_named_with_what_to_run(checkpoint, monkeypatch, capsys):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert main(words(checkpoint, "format=onnx")) == 2
    assert 'onnx and onnxruntime not installed; run: pip install "yolo-kd[onnx]"' in capsys.readouterr().err


@pytest.mark.parametrize("lies", [True, False])
def test_an_exporter_that_fails_is_one_line_and_leaves_nothing(checkpoint, tmp_path, monkeypatch, capsys, lies):
    def export(self: Any, **_: Any) -> str:
        if lies:
            return str(tmp_path / "nowhere.onnx")
        raise RuntimeError("no such\noperator")

    monkeypatch.setattr(ultra.YOLO, "export", export)
    assert main(words(checkpoint, "format=onnx")) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    said = "nowhere.onnx, but nothing is there" if lies else "could not export to onnx: RuntimeError: no such operator"
    assert len(printed) == 1 and said in printed[0]
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


@pytest.mark.parametrize("form", ["openvino", "onnx"])
@pytest.mark.parametrize("room", [1_000, "weights"])
def test_a_full_disk_is_one_line_and_leaves_nothing(make_checkpoint, tiny, tmp_path, capfd, form, room):
    """The checkpoint cannot be copied (1 kB), or the net, twice its size in float32, cannot be written."""
    checkpoint = Path(shutil.copy(make_checkpoint(str(tiny)), tmp_path / "best.pt"))
    with files_end_at(checkpoint.stat().st_size + 4096 if room == "weights" else room):
        assert main(words(checkpoint, f"format={form}")) == 1
    printed = "".join(capfd.readouterr()).strip().splitlines()
    assert len(printed) == 1 and "no room left on the disk; nothing was left behind" in printed[0], printed
    assert f"best_{form}_model" in printed[0] and ".part" not in printed[0]
    assert [p.name for p in tmp_path.iterdir()] == ["best.pt"]


def test_the_help_names_every_key(capsys):
    from yolo_kd.modes.export import DEFAULTS

    assert main(["export", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {key}=" in text for key in DEFAULTS if key != "debug")
