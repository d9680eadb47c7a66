"""Files that are not what they are named for: what they are instead, and where the one that is meant lies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ultralytics import YOLO

from tests.bomb import Bomb
from yolo_kd.cli import main
from yolo_kd.engine.resume import SIDECAR, save_sidecar


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line of a command that ends with exit code 2."""
    code, lines = main(list(words)), capsys.readouterr().err.splitlines()
    ours = [line for line in lines if line.startswith("yolo-kd: ")]
    assert code == 2 and len(ours) == 1, lines
    return ours[0].removeprefix("yolo-kd: ")


@pytest.fixture
def kept_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A runs folder that Ultralytics' settings name, with a run in it; the process stands elsewhere."""
    runs, here = tmp_path / "clone" / "runs", tmp_path / "here"
    weights = runs / "detect" / "teacher" / "weights"
    for folder in (weights, here, tmp_path / "settings" / "Ultralytics"):
        folder.mkdir(parents=True)
    for name in ("best.pt", "last.pt"):
        (weights / name).write_bytes(b"a checkpoint")
    (tmp_path / "settings" / "Ultralytics" / "settings.json").write_text(json.dumps({"runs_dir": str(runs)}))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.chdir(here)
    return runs


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("train", "data=x.yaml", "teacher="), "runs/detect/teacher/weights/best.pt"),
        (("train", "resume="), "runs/detect/teacher/weights/last.pt"),
        (("export", "model="), "./runs/detect/teacher/weights/best.pt"),
        (("gate", "data=x.yaml", "artifact="), "runs/detect/teacher/weights"),
        (("report", "run="), "runs/detect/teacher"),
        (("report", ""), "runs/detect/teacher"),
    ],
)
def test_a_run_that_lies_in_ultralytics_own_folder_is_pointed_at(capsys, kept_elsewhere, words, path):
    line = said(capsys, *words[:-1], words[-1] + path)
    there = kept_elsewhere / Path(path).relative_to("runs")
    assert f" here; there is one at {there}" in line and "did you mean" not in line


def test_a_folder_of_another_name_stands_for_runs(capsys, kept_elsewhere, tmp_path):
    renamed = kept_elsewhere.rename(kept_elsewhere.with_name("trainings"))
    (tmp_path / "settings" / "Ultralytics" / "settings.json").write_text(json.dumps({"runs_dir": str(renamed)}))
    line = said(capsys, "train", "data=x.yaml", "teacher=runs/detect/teacher/weights/best.pt")
    assert f"there is one at {renamed / 'detect' / 'teacher' / 'weights' / 'best.pt'}" in line


@pytest.mark.parametrize("settings", ["", "[]", '{"runs_dir": 7}', '{"runs_dir": "/gone"}', None])
def test_what_is_nowhere_is_only_missing(capsys, kept_elsewhere, tmp_path, settings):
    path = tmp_path / "settings" / "Ultralytics" / "settings.json"
    path.unlink() if settings is None else path.write_text(settings)
    for given in ("runs/detect/teacher/weights/best.pt", "weights/yolov8.pt", str(tmp_path / "best.pt")):
        line = said(capsys, "train", "data=x.yaml", f"teacher={given}")
        assert line == f"teacher={given}: no such file; expected a .pt detection checkpoint"
    assert "(did you mean 'yolov8l.pt'?)" in said(capsys, "train", "data=x.yaml", "teacher=yolov8ll.pt")


def test_ultralytics_is_not_needed_to_find_it(kept_elsewhere):
    block = "for name in ('torch', 'torchvision', 'ultralytics'): sys.modules[name] = None"
    words = ["doctor", "model=runs/detect/teacher/weights/openvino"]
    (kept_elsewhere / "detect" / "teacher" / "weights" / "openvino").mkdir()
    code = f"import sys\n{block}\nfrom yolo_kd.cli import main; sys.exit(main({words!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ)
    )
    assert done.returncode == 2 and f"here; there is one at {kept_elsewhere}" in done.stderr, done.stderr


@pytest.mark.parametrize("trust", [[], ["trust=true"]], ids=str)
@pytest.mark.parametrize("key", ["teacher", "student", "pretrained"])
def test_weights_without_a_model_are_called_so(capsys, tmp_path, pictures, tiny, trust, key):
    net = YOLO(str(tiny), verbose=False).model
    for name, held in (
        ("plain.pt", net.state_dict()),
        ("nested.pt", {"model": net.state_dict(), "epoch": 3}),
    ):
        torch.save(held, tmp_path / name)
        line = said(
            capsys, "train", "distill=none" if key != "teacher" else "distill=pkd", f"{key}={tmp_path / name}",
            f"data={pictures}", f"project={tmp_path / 'runs'}", *trust,
        )  # fmt: skip
        assert line.startswith(f"{key}={tmp_path / name}: holds weights but no model; name the best.pt or last.pt of a")
        assert "trust=" not in line


def test_a_sidecar_is_called_one(capsys, tmp_path, pictures):
    save_sidecar(tmp_path / SIDECAR, {"epoch": 1, "distillers": {"pkd": {"weight": torch.ones(2)}}})
    line = said(capsys, "train", f"teacher={tmp_path / SIDECAR}", f"data={pictures}", f"project={tmp_path / 'runs'}")
    assert "last.kd.pt: is what yolo-kd keeps beside a checkpoint; name the best.pt or last.pt" in line


def test_code_is_not_run_to_find_out(capsys, tmp_path, pictures):
    mark = tmp_path / "executed"
    torch.save({"weight": torch.ones(2), "extra": Bomb(mark)}, tmp_path / "bomb.pt")
    line = said(capsys, "train", f"teacher={tmp_path / 'bomb.pt'}", f"data={pictures}")
    assert "would run its own code" in line and not mark.exists()


def test_a_classifier_without_a_training_is_no_detector(capsys, tmp_path, pictures):
    YOLO("yolov8n-cls.yaml", verbose=False).save(tmp_path / "cls.pt")
    line = said(capsys, "train", f"teacher={tmp_path / 'cls.pt'}", f"data={pictures}")
    assert "cls.pt: is a 'classify' model with the head Classify, expected a detection model" in line
    line = said(capsys, "train", "distill=none", "student=rtdetr-l.yaml", f"data={pictures}")
    assert "is a model with the head RTDETRDecoder, expected" in line, "whose YAML tells no task"
