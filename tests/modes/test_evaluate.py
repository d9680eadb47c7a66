"""`yolo-kd evaluate`: the same precision as Ultralytics', for a checkpoint and for what is exported from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml
from yolo_kd.data.split import read_split
from yolo_kd.deploy.artifact import write_manifest
from yolo_kd.deploy.detections import Detections

from tests.deploy.tiny_nets import NET_HW, openvino_net
from yolo_kd.cli import main, parse
from yolo_kd.engine import torch_backend
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.average_precision import PrecisionMeter
from yolo_kd.evidence.evaluation import truth_of
from yolo_kd.modes import evaluate


@pytest.fixture(scope="module")
def evaluated(learnt: Path, float_export: Path, pictures: Path, tmp_path_factory) -> dict:
    """The checkpoint and its OpenVINO export in float, on the pictures that it knows."""
    words = [f"model={learnt}", f"beside={float_export}", f"data={pictures}", "split=train"]
    out = tmp_path_factory.mktemp("evaluated") / "found" / "report.json"
    assert main(["evaluate", *words, "imgsz=64", "corruptions=fog,low_light", f"out={out}"]) == 0
    return json.loads(out.read_text())


def test_precision_is_that_of_ultralytics_own_detections(evaluated, learnt, pictures, tmp_path):
    """The AP of what Ultralytics' validation detects, matched and averaged by pycocotools.

    Not its mAP: by default it pads images of 64 pixels to 96, which costs this net .07.
    """
    from ultralytics import YOLO

    YOLO(learnt).val(
        data=str(pictures),
        split="train",
        imgsz=64,
        save_json=True,
        plots=False,
        rect=False,
        project=str(tmp_path),
        name="v",
    )
    rows: dict[str, list] = {}
    for row in json.loads((tmp_path / "v" / "predictions.json").read_text()):
        rows.setdefault(row["file_name"], []).append([*row["bbox"], row["score"], row["category_id"] - 1])
    split = read_split(pictures, "train")
    found = []
    for image in split.images:
        table = np.array(rows[image.name], float)
        boxes = np.concatenate((table[:, :2], table[:, :2] + table[:, 2:4]), 1)
        found.append(Detections(boxes, table[:, 4], table[:, 5].astype(int), split.names, (64, 64)))
    wanted = PrecisionMeter([truth_of(split, p, (64, 64)) for p in split.images], found, split.names).precision()
    ours = next(iter(evaluated["models"].values()))["precision"]
    assert wanted.ap > 0.5 and ours["AP"] == pytest.approx(wanted.ap, abs=0.005)
    assert evaluated["split"] == "train" and len(evaluated["models"]) == 2
    assert all(0.5 < found["ultralytics"]["mAP50-95"] < 1 for found in evaluated["models"].values())


def test_a_difference_to_ultralytics_is_explained(evaluated):
    """It pads the pictures of the checkpoint, and the artifact has one shape."""
    checkpoint, artifact = evaluated["models"].values()
    for found in (checkpoint, artifact):
        ours, theirs = found["precision"]["AP"], found["ultralytics"]
        shares = theirs.get("apart", {"none": ours - theirs["mAP50-95"]})
        assert sum(shares.values()) == pytest.approx(ours - theirs["mAP50-95"])
        assert abs(shares.get("boxes", 0.0)) < 0.005 and abs(shares.get("none", 0.0)) <= 0.005
    assert checkpoint["ultralytics"]["apart"]["padding"] > 0.01


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


def test_nothing_is_written_where_data_and_models_lie(learnt, float_export, pictures, tmp_path, capsys):
    """Ultralytics leaves a cache beside labels, and mends a JPEG that does not end as one."""
    import cv2

    shutil.copytree(pictures.parent, tmp_path / "data", ignore=shutil.ignore_patterns("*.cache"))
    image = tmp_path / "data" / "images" / "train" / "000.png"
    cv2.imwrite(str(image.with_suffix(".jpg")), cv2.imread(str(image)))
    image.unlink()
    with image.with_suffix(".jpg").open("ab") as file:
        file.write(b"a camera's padding")
    shutil.copyfile(learnt, tmp_path / "data" / "best.pt")
    shutil.copytree(float_export, tmp_path / "data" / "best_openvino_model")
    before = state(tmp_path)
    words = [f"data={tmp_path}/data/data.yaml", f"model={tmp_path}/data/best.pt", "imgsz=64", "split=train"]
    assert main(["evaluate", *words, f"beside={tmp_path}/data/best_openvino_model"]) == 0
    assert state(tmp_path) == before
    printed = capsys.readouterr().out
    assert (
        "Ultralytics' mAP50-95" in printed and "because it pads pictures to rectangles, the device to 64x64" in printed
    )


def evaluate_without(packages: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys\nfor name in {packages.split()!r}: sys.modules[name] = None\n"
        f"from yolo_kd.cli import main; sys.exit(main({['evaluate', *words]!r}))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=folder, env=dict(os.environ), capture_output=True, text=True, timeout=300, check=False
    )


def test_an_artifact_is_evaluated_where_torch_and_ultralytics_do_not_exist(float_export, pictures, tmp_path):
    words = [f"model={float_export}", f"data={pictures}", "split=train", f"out={tmp_path}/found.json"]
    done = evaluate_without("torch torchvision ultralytics", tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Ultralytics' own mAP is left out: torch and ultralytics are not installed\n")
    (found,) = json.loads((tmp_path / "found.json").read_text())["models"].values()
    assert found["precision"]["AP"] > 0.5 and "ultralytics" not in found
    quiet = evaluate_without("torch torchvision ultralytics", tmp_path, *words, "ultralytics=false")
    assert quiet.returncode == 0 and "Ultralytics" not in quiet.stdout


@pytest.mark.parametrize(
    ("packages", "words", "said"),
    [
        ("torch ultralytics", ("model=PT",), "torch and ultralytics are not installed, which a checkpoint needs"),
        ("ultralytics", ("model=OV", "beside=PT"), "ultralytics is not installed, which a checkpoint needs"),
        (
            "torch ultralytics pycocotools",
            ("model=OV",),
            "pycocotools, which is not installed; run: pip install pycocotools",
        ),
        (
            "torch ultralytics albumentations",
            ("model=OV", "corruptions=fog"),
            "needs albumentations, which is not installed; run: pip install albumentations\n",
        ),
    ],
)
def test_a_package_that_is_missing_is_said_before_anything_is_measured(
    learnt, float_export, pictures, tmp_path, packages, words, said
):
    filled = [w.replace("PT", str(learnt)).replace("OV", str(float_export)) for w in words]
    done = evaluate_without(packages, tmp_path, *filled, f"data={pictures}", "split=train")
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "images" not in done.stderr


def test_checkpoint_and_float_artifact_agree(evaluated):
    ours = [found["precision"] for found in evaluated["models"].values()]
    assert ours[0] == {k: v if v is None else pytest.approx(v, abs=0.03) for k, v in ours[1].items()}


def test_true_is_every_corruption_of_the_recipe_that_trains():
    assert evaluate._corruptions(True) == [
        *yaml.safe_load(files("yolo_kd.cfg").joinpath("augment/field.yaml").read_text())
    ]


def test_corruptions_cost_precision(evaluated):
    for found in evaluated["models"].values():
        for values in found["corruptions"].values():
            assert len(values) == 3 and values[2] < found["precision"]["AP"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=DATA"], "model= is missing"),
        (["model=PT", "data=DATA", "splt=val"], "splt=val: unknown key (did you mean 'split'?)"),
        (["model=PT", "data=DATA", "split=test"], "has no 'test' part; it has train, val"),
        (["model=PT", "data=DATA", "corruptions=fogg"], "corruptions=fogg: no such corruption (did you mean 'fog'?)"),
        (["model=PT", "data=DATA", "imgsz=384,640,999"], "expected a side or height,width in pixels"),
        (["model=PT", "data=DATA", "imgsz=abc"], "imgsz=abc: expected a side or height,width"),
        (["model=PT", "data=DATA", "imgsz=100"], "imgsz=100: expected multiples of 32"),
        (["model=none.pt", "data=DATA"], "model=none.pt: no such file"),
        (["model=none_model", "data=DATA"], "none_model: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(learnt, pictures, capsys, words, said):
    filled = [w.replace("DATA", str(pictures)).replace("PT", str(learnt)) for w in words]
    assert main(["evaluate", *filled]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0]


@pytest.mark.parametrize(
    ("device", "models", "said"),
    [
        ("cuda:0", ["best.pt", "OV"], "best_openvino_model is an artifact, which runs on CPU, GPU or NPU; choose cpu"),
        ("GPU", ["OV", "best.pt"], "best.pt is a checkpoint, which runs on cpu or cuda:0; choose cpu"),
        ("cuda", ["OV"], "best_openvino_model is an artifact"),
    ],
)
def test_a_device_that_only_one_of_two_models_can_run_on_is_refused_before_anything_is_opened(
    pictures, tmp_path, capsys, monkeypatch, device, models, said
):
    openvino_net(tmp_path / "best_openvino_model")
    monkeypatch.setattr(evaluate, "open_any", lambda *_: pytest.fail("opened"))
    paths = [str(tmp_path / m.replace("OV", "best_openvino_model")) for m in models]
    words = [f"model={paths[0]}", *(f"beside={p}" for p in paths[1:]), f"data={pictures}", f"device={device}"]
    assert main(["evaluate", *words]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and f"device={device}: {said}" in printed[0]


@pytest.mark.parametrize("device", ["cpu", "CPU"])
def test_the_cpu_is_the_same_by_either_name(monkeypatch, tmp_path, device):
    asked = []
    monkeypatch.setattr(torch_backend, "open_checkpoint", lambda *args, **_: asked.append(args[2]))
    monkeypatch.setattr(evaluate, "open_detector", lambda *_, **keys: asked.append(keys["device"]))
    for source in ("best.pt", "best_openvino_model"):
        evaluate._check_device(source, device)
        evaluate.open_any(source, {"imgsz": 64, "device": device, "trust": False})
    assert asked == ["cpu", "CPU"] and torch_backend._device(device).type == "cpu"


@pytest.mark.parametrize(
    ("device", "said"), [("cuda:99", "CUDA devices here; use device=cpu"), ("GPU", "torch has no such device")]
)
def test_a_device_that_torch_does_not_have_is_one_line(device, said):
    with pytest.raises(MisuseError, match=said):
        torch_backend.open_checkpoint("no.pt", 64, device)


def test_a_size_that_is_none_is_refused_before_anything_is_opened(float_export, pictures, capsys, monkeypatch):
    """Of an artifact, which has a size of its own, it was told after minutes of measuring."""
    monkeypatch.setattr(evaluate, "open_any", lambda *_: pytest.fail("opened"))
    assert main(["evaluate", f"model={float_export}", f"data={pictures}", "imgsz=abc"]) == 2
    assert "imgsz=abc: expected a side or height,width" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "size"),
    [
        (["model=PT"], 640),
        (["model=PT", "imgsz=320"], 320),
        (["model=PT", "imgsz=64,96"], (64, 96)),
        (["model=PT", "beside=OV"], 64),
        (["model=OV", "beside=PT"], 64),
        (["model=PT", "beside=WIDE"], NET_HW),
        (["model=PT", "beside=WIDE", "imgsz=16,32"], NET_HW),
        (["model=PT", "beside=OV", "imgsz=64"], 64),
    ],
)
def test_a_checkpoint_beside_an_artifact_takes_its_size(float_export, pictures, tmp_path, monkeypatch, words, size):
    """Compared at 640 pixels, a float parent looked better or worse than its artifact for no reason of precision."""
    openvino_net(tmp_path / "wide_openvino_model")
    asked = {}

    def opened(source, keys):
        asked[source] = keys["imgsz"]
        raise MisuseError("opened")

    places = {"PT": tmp_path / "best.pt", "OV": float_export, "WIDE": tmp_path / "wide_openvino_model"}
    monkeypatch.setattr(evaluate, "open_any", opened)
    keys = {key: places.get(value, value) for key, value in parse(words).items()}
    with pytest.raises(MisuseError, match="opened"):
        evaluate.main({**keys, "data": str(pictures)})
    assert set(asked.values()) == {size}


@pytest.mark.parametrize("size", ["imgsz=640", "imgsz=64,96"])
def test_a_size_that_the_artifact_does_not_have_is_refused(pictures, tmp_path, capsys, monkeypatch, size):
    """It was passed over."""
    monkeypatch.setattr(evaluate, "open_any", lambda *_: pytest.fail("opened"))
    openvino_net(tmp_path / "best_openvino_model")
    assert main(["evaluate", f"model={tmp_path}/best_openvino_model", f"data={pictures}", size]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and f"{size}: best_openvino_model takes 16x32; leave imgsz= out" in printed[0]


@pytest.mark.parametrize("mode", ["evaluate", "doctor"])
def test_no_report_lies_among_the_files_of_an_artifact(pictures, tmp_path, capsys, mode):
    """The next verdict hashed it with them."""
    folder = write_manifest(openvino_net(tmp_path / "best_openvino_model")).folder
    before = state(folder)
    words = [f"model={folder}", f"out={folder}/new/report.json", *([f"data={pictures}"] if mode == "evaluate" else [])]
    assert main([mode, *words]) == 2
    assert "report.json: is in the artifact's own folder" in capsys.readouterr().err
    assert state(folder) == before


def test_a_second_model_that_is_not_there_is_told_before_the_first_is_measured(
    float_export, pictures, capsys, monkeypatch
):
    monkeypatch.setattr(evaluate, "report", lambda *_: pytest.fail("measured"))
    assert main(["evaluate", f"model={float_export}", "beside=gone.pt", f"data={pictures}", "split=train"]) == 2
    assert "gone.pt: no such file" in capsys.readouterr().err


def test_no_file_of_somebody_else_is_written_over(float_export, pictures, tmp_path, capsys):
    (out := tmp_path / "data.yaml").write_text("names: {0: car}")
    assert main(["evaluate", f"model={float_export}", f"data={pictures}", f"out={out}"]) == 2
    assert "exists and was not written by this command" in capsys.readouterr().err
    assert out.read_text() == "names: {0: car}"
