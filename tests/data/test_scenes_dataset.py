"""The written data set: complete or absent, reused or refused, independent of count and processes."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
import yaml
from yolo_kd.data.scenes import CLASSES, default_root, render_scene, write_dataset

from yolo_kd.errors import MisuseError

SIZE = 96


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes") / "small"
    write_dataset(root, train=5, val=3, size=SIZE)
    return root


def test_layout_on_disk(written: Path) -> None:
    data = yaml.safe_load((written / "data.yaml").read_text())
    assert data == {"train": "images/train", "val": "images/val", "names": dict(enumerate(CLASSES))}
    for split, count in (("train", 5), ("val", 3)):
        pictures = sorted((written / "images" / split).iterdir())
        assert len(pictures) == count
        assert all(cv2.imread(str(path)).shape == (SIZE, SIZE, 3) for path in pictures)
        assert [p.stem for p in pictures] == [p.stem for p in sorted((written / "labels" / split).iterdir())]


def test_labels_are_those_of_the_scene(written: Path) -> None:
    for index in range(5):
        scene = render_scene(0, "train", index, SIZE)
        lines = (written / "labels" / "train" / f"train_{index:06d}.txt").read_text().splitlines()
        rows = [[float(word) for word in line.split()] for line in lines]
        assert [int(row[0]) for row in rows] == scene.classes.tolist()
        for row, box in zip(rows, scene.boxes_xywhn):
            assert row[1:] == pytest.approx(box, abs=1e-6)


def test_files_depend_neither_on_processes_nor_on_counts(written: Path, tmp_path: Path) -> None:
    write_dataset(tmp_path / "pool", train=5, val=3, size=SIZE, jobs=2)
    assert hashes(tmp_path / "pool") == hashes(written)
    write_dataset(tmp_path / "more", train=6, val=1, test=1, size=SIZE)
    more = hashes(tmp_path / "more")
    for name, digest in hashes(written).items():
        if "train_" in name or name.endswith("val_000000.jpg"):
            assert more[name] == digest
    assert yaml.safe_load((tmp_path / "more" / "data.yaml").read_text())["test"] == "images/test"


def test_progress_counts_up_to_all_pictures(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_dataset(tmp_path / "d", train=2, val=1, size=SIZE, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_the_same_data_set_is_reused(written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    calls: list[int] = []
    path = write_dataset(written, train=5, val=3, size=SIZE, progress=lambda done, _: calls.append(done))
    assert path == written / "data.yaml"
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"train": 6}, {"size": 128}])
def test_another_data_set_under_the_same_name_is_refused(written: Path, change: dict) -> None:
    before = hashes(written)
    with pytest.raises(MisuseError) as caught:
        write_dataset(written, **{"train": 5, "val": 3, "size": SIZE, **change})
    assert "choose another root" in str(caught.value)
    assert hashes(written) == before


def test_a_different_renderer_version_is_refused(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d", train=1, val=1, size=SIZE)
    manifest = tmp_path / "d" / "scenes.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "renderer": 0}))
    with pytest.raises(MisuseError, match="renderer=0"):
        write_dataset(tmp_path / "d", train=1, val=1, size=SIZE)


def test_a_foreign_folder_and_a_damaged_data_set_are_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(MisuseError, match="holds no readable scenes"):
        write_dataset(tmp_path / "mine", train=1, val=1, size=SIZE)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    write_dataset(tmp_path / "d", train=2, val=1, size=SIZE)
    (tmp_path / "d" / "images" / "train" / "train_000001.jpg").unlink()
    with pytest.raises(MisuseError, match="should hold 2 images, has 1"):
        write_dataset(tmp_path / "d", train=2, val=1, size=SIZE)


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    assert write_dataset(tmp_path / "d", train=1, val=1, size=SIZE).exists()


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    def fail(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset(tmp_path / "d", train=3, val=1, size=SIZE, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_leaves_no_half_data_set_and_can_be_repeated(tmp_path: Path) -> None:
    code = (
        "import os, sys, pathlib; from yolo_kd.data.scenes import write_dataset\n"
        "stop = lambda done, total: os.kill(os.getpid(), 9) if done == total else None\n"
        f"write_dataset(pathlib.Path(sys.argv[1]), train=2, val=1, size={SIZE}, progress=stop)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "d")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "d").exists()
    write_dataset(tmp_path / "d", train=2, val=1, size=SIZE)
    assert (tmp_path / "d" / "scenes.json").exists()


def test_two_writers_of_the_same_data_set_both_succeed(tmp_path: Path) -> None:
    def overtake(done: int, total: int) -> None:
        if done == total:
            write_dataset(tmp_path / "d", train=1, val=1, size=SIZE)

    assert write_dataset(tmp_path / "d", train=1, val=1, size=SIZE, progress=overtake).exists()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MisuseError) as caught:
        write_dataset(tmp_path / "file" / "d", train=1, val=1, size=SIZE, key="YOLO_KD_HOME")
    assert str(caught.value) == (
        f"YOLO_KD_HOME={tmp_path / 'file'}: cannot be written (Not a directory); choose another place with YOLO_KD_HOME="
    )


@pytest.mark.parametrize("numbers", [{"train": 0}, {"val": 0}, {"test": -1}, {"size": 20}, {"seed": -3}, {"jobs": 0}])
def test_numbers_out_of_range_are_refused_before_anything_is_written(tmp_path: Path, numbers: dict) -> None:
    with pytest.raises(MisuseError, match=f"{next(iter(numbers))} must be"):
        write_dataset(tmp_path / "d", **numbers)
    assert list(tmp_path.iterdir()) == []


def test_default_root_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("YOLO_KD_HOME", str(tmp_path))
    assert default_root() == tmp_path / "scenes"
    monkeypatch.delenv("YOLO_KD_HOME")
    assert default_root() == Path.home() / ".cache" / "yolo-kd" / "scenes"


def test_ultralytics_finds_the_pictures_from_any_folder(
    written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = pytest.importorskip("ultralytics.data.utils").check_det_dataset
    monkeypatch.chdir(tmp_path)
    found = check(str(written / "data.yaml"), autodownload=False)
    assert Path(found["train"]) == written / "images" / "train"
    assert Path(found["val"]) == written / "images" / "val"
    assert found["nc"] == len(CLASSES)
