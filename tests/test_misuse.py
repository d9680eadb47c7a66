"""What only Ultralytics would notice, far inside or not at all: one line that names the key, and exit 2."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from yolo_kd.cli import main
from yolo_kd.engine import ultra


@pytest.fixture
def said(capsys, monkeypatch, tmp_path: Path) -> Callable[..., str]:
    """Run a command that has to be refused; returns its one line."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 2) -> str:
        assert main([*words, f"project={tmp_path / 'runs'}"]) == code
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("yolo-kd: ")]
        assert len(lines) == 1 and "\\x1b" not in lines[0] and "\x1b" not in lines[0]
        return lines[0].removeprefix("yolo-kd: ")

    return run


@pytest.fixture
def data(pictures: Path, tmp_path: Path) -> Path:
    """A copy of the tests' pictures to spoil."""
    root = Path(shutil.copytree(pictures.parent, tmp_path / "data", ignore=shutil.ignore_patterns("*.cache")))
    return root / pictures.name


def rewrite(path: Path, **entries: Any) -> Path:
    """The data.yaml with other entries; None takes one out."""
    raw = {**yaml.safe_load(path.read_text()), **entries}
    path.write_text(yaml.safe_dump({k: v for k, v in raw.items() if v is not None}))
    return path


# -- predict -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("gone", "no such file or folder"),
        ("gone.png", "no such file or folder"),
        ("gone/*.png", "matches no picture or video"),
        ("empty", "holds no picture or video"),
        ("notes.md", "is no picture or video"),
        ("list.txt", "names gone.png, which is not there"),
        ("none.txt", "names no picture or video"),
        ("cameras.streams", "no such file"),
        ("1.5", "expected a picture"),
    ],
)
def test_a_source_that_is_none_is_misuse(said, tmp_path: Path, make_checkpoint, source: str, why: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("no picture")
    (tmp_path / "list.txt").write_text("gone.png\n")
    (tmp_path / "none.txt").write_text("\n")
    line = said("predict", f"model={make_checkpoint()}", f"source={source}")
    assert line.startswith("source=") and why in line and source in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "source",
    [
        None, 0, "0", "screen", "screen 0 10 10", "rtsp://camera/1", "https://example.com/a.jpg", "http://example.com/page",
        "cameras.streams", "folder", "folder/*.png", "fol*", "one.png", "one.mp4", "list.txt", "list.csv", ["one.png"],
        ["https://example.com/a.jpg"],
    ],
)  # fmt: skip
def test_every_source_of_ultralytics_goes_through(monkeypatch, tmp_path: Path, source: Any) -> None:
    from yolo_kd.engine.input_check import check_source

    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    for name in ("folder/a.png", "one.png", "one.mp4", "folder.PNG"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "list.txt").write_text("one.png\nfolder\nfolder/*.png\n")
    (tmp_path / "list.csv").write_text("source\none.png,one.mp4\n")
    (tmp_path / "cameras.streams").write_text("rtsp://camera/1\n")
    check_source(source)


def test_every_file_of_several_sources_has_to_be_there(said, tmp_path: Path, make_checkpoint) -> None:
    (tmp_path / "one.png").write_bytes(b"")
    line = said("predict", f"model={make_checkpoint()}", 'source=["one.png","gone.png"]')
    assert line.startswith("source=gone.png: no such file")


def test_a_name_that_no_disk_holds_is_misuse(said, make_checkpoint) -> None:
    assert "no such file; the name is longer" in said("predict", f"model={make_checkpoint()}", f"source={'a' * 300}")


def test_entries_of_a_list_may_lie_beside_it(monkeypatch, tmp_path: Path) -> None:
    from yolo_kd.engine.input_check import check_source

    monkeypatch.chdir(tmp_path)
    (tmp_path / "flight").mkdir()
    (tmp_path / "flight/a.png").write_bytes(b"")
    (tmp_path / "flight/list.txt").write_text("a.png\n")
    check_source("flight/list.txt")


@pytest.mark.parametrize(
    ("classes", "why"),
    [
        ("car", "classes=car: expected class ids, e.g. classes=0,2"),
        ("99", "classes=99: no such class; expected ids of 0 car, 1 truck, 2 person"),
        ("[]", "classes=[]: expected class ids"),
    ],
)
def test_classes_are_ids_of_the_model_or_the_data(
    said, pictures: Path, make_checkpoint, classes: str, why: str
) -> None:
    model = make_checkpoint()
    picture = next((pictures.parent / "images/val").glob("*.png"))
    assert said("predict", f"model={model}", f"source={picture}", f"classes={classes}").startswith(why)
    assert said("val", f"model={model}", f"data={pictures}", f"classes={classes}").startswith(why)
    assert said("train", "distill=none", f"data={pictures}", f"classes={classes}").startswith(why)
    words = [f"teacher={model}", f"data={pictures}", f"classes={classes}"]
    assert said("train", *words).startswith(why), "the teacher has nothing to do with it"


# -- val ---------------------------------------------------------------------------------------------------------------


def test_data_without_the_part_is_misuse_of_val(said, data: Path, make_checkpoint) -> None:
    model = f"model={make_checkpoint()}"
    line = said("val", model, f"data={data}", "split=test")
    assert line.startswith(f"data={data}: ") and "'test:' images not found" in line and "scenes" not in line
    line = said("val", model, f"data={rewrite(data, val=None)}")
    assert line.startswith(f"data={data}: ") and "'val:' key missing" in line
    assert said("val", model, "data=gone.yaml").startswith("data=gone.yaml: no such data set YAML")


def test_a_folder_that_holds_no_data_yaml_is_misuse(said, tmp_path: Path, make_checkpoint) -> None:
    (tmp_path / "bare").mkdir()
    for words in (["val", f"model={make_checkpoint()}"], ["train", "distill=none"]):
        line = said(*words, "data=bare")
        assert line.startswith("data=bare: No YAML file found in ") and not (tmp_path / "runs").exists()


def test_pictures_that_are_not_there_are_misuse_of_val(said, data: Path, make_checkpoint) -> None:
    model = f"model={make_checkpoint()}"
    for picture in (data.parent / "images/val").iterdir():
        picture.unlink()
    line = said("val", model, f"data={data}")
    assert line.startswith(f"data={data}: val: Error loading data from ") and "https" not in line
    shutil.rmtree(data.parent / "images/val")
    assert "images not found" in said("val", model, f"data={data}")


@pytest.mark.parametrize("own", [None, "PLACE/gone/data.yaml"])
def test_a_model_whose_data_moved_is_not_validated_on_others(said, tmp_path: Path, make_checkpoint, own) -> None:
    """Ultralytics would fetch coco8, measure on that, and say so in the log only."""
    found = torch.load(make_checkpoint(), weights_only=False)
    own = own and own.replace("PLACE", str(tmp_path))
    torch.save({**found, "train_args": {"task": "detect", "data": own}}, tmp_path / "best.pt")
    line = said("val", "model=best.pt")
    assert line.startswith("data= is missing: ") and "model=best.pt data=" in line
    assert own is None or f"{own}, is not there" in line


def test_a_model_is_validated_on_its_own_data_while_they_are_there(
    monkeypatch, tmp_path: Path, pictures, make_checkpoint
):
    found = torch.load(make_checkpoint(), weights_only=False)
    torch.save({**found, "train_args": {"task": "detect", "data": str(pictures)}}, tmp_path / "best.pt")
    words = [f"model={tmp_path / 'best.pt'}", "imgsz=64", "plots=false", f"project={tmp_path}", "classes=0,2"]
    assert main(["val", *words, "name=its_own"]) == 0
    assert main(["val", *words, f"data={pictures.parent}", "name=by_folder"]) == 0


# -- train -------------------------------------------------------------------------------------------------------------


def test_what_ultralytics_says_of_a_key_of_train_names_it(said, tiny: Path, pictures: Path) -> None:
    words = ["train", "distill=none", f"student={tiny}", f"data={pictures}", "cpu_threads=1", "imgsz=32"]
    assert said(*words, "freeze=100", "batch=4").startswith("freeze=100: 'freeze=100' froze the entire model")
    line = said(*words, "batch=7")
    assert line.startswith("batch=7: final batch=1 training at imgsz=32") and "change batch" in line


def test_the_teacher_of_ultralytics_own_distillation_is_a_detector(said, tmp_path: Path, pictures: Path) -> None:
    net = ultra.YOLO("yolov8n-cls.yaml", verbose=False).model
    torch.save({"model": net, "train_args": {"task": "classify"}}, tmp_path / "cls.pt")
    line = said("train", "distill=none", f"data={pictures}", "distill_model=cls.pt")
    assert line.startswith("distill_model=cls.pt: is a 'classify' model") and not (tmp_path / "runs").exists()


def test_an_empty_part_cannot_be_forced(said, data: Path, tiny: Path) -> None:
    for picture in (data.parent / "images/val").iterdir():
        picture.unlink()
    words = ["train", "distill=none", f"student={tiny}", f"data={data}", "imgsz=64", "batch=4", "cpu_threads=1"]
    for forced in ([], ["force=true"]):
        line = said(*words, *forced)
        assert (
            line.startswith(f"data={data}: ")
            and f"no picture in val that training could use ({data.parent / 'images/val'})" in line
            and "force" not in line
        )
    line = said(*words, "check_data=false")
    assert line.startswith(f"data={data}: val: Error loading data from ")
