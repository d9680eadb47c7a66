"""A folder is there whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from yolo_kd.cfg.atomic import write_text
from yolo_kd.deploy.quantize.staging import check_target, staged

from tests.full_disk import files_end_at
from yolo_kd.errors import MisuseError, YoloKDError


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_it_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "net"
    with staged(target) as part:
        (part / "model").write_text("x")
        assert not target.exists()
    assert [p.name for p in target.iterdir()] == ["model"]
    assert [p.name for p in target.parent.iterdir()] == ["net"]


def test_nothing_is_left_after_a_failure(tmp_path: Path) -> None:
    target = fill(tmp_path / "net", "artifact.json")
    with pytest.raises(RuntimeError), staged(target) as part:
        (part / "half").write_text("x")
        raise RuntimeError("failed")
    assert [p.name for p in tmp_path.iterdir()] == ["net"] and (target / "artifact.json").exists()


def test_ours_is_replaced_and_anything_else_asked_for(tmp_path: Path) -> None:
    ours, theirs, file = fill(tmp_path / "a", "artifact.json", "old"), fill(tmp_path / "b", "photo.jpg"), tmp_path / "c"
    with staged(ours) as part:
        fill(part, "new")
    assert [p.name for p in ours.iterdir()] == ["new"]
    with pytest.raises(MisuseError, match="is not ours; overwrite=true"), staged(theirs):
        raise AssertionError("the block must not run")
    assert (theirs / "photo.jpg").exists()
    with staged(theirs, overwrite=True) as part:
        fill(part, "new")
    assert [p.name for p in theirs.iterdir()] == ["new"]
    file.write_text("x")
    with pytest.raises(MisuseError, match="is a file"):
        check_target(file, overwrite=True)


def test_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(YoloKDError, match="no room left") as caught, staged(tmp_path / "net") as part:
        (part / "half").write_text("x")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not isinstance(caught.value, MisuseError) and not list(tmp_path.iterdir())


def test_a_full_disk_that_was_put_into_words_already_names_the_folder_to_be(tmp_path: Path) -> None:
    with (
        pytest.raises(YoloKDError, match=r"net: no room left") as caught,
        staged(tmp_path / "net") as part,
        files_end_at(9),
    ):
        write_text(part / "artifact.json", "x" * 10, "artifact")
    assert ".part" not in str(caught.value) and not list(tmp_path.iterdir())
    with pytest.raises(YoloKDError, match="another reason"), staged(tmp_path / "net"):
        raise YoloKDError("another reason")


def test_a_place_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(MisuseError, match="cannot be written"), staged(tmp_path / "file" / "net"):
        raise AssertionError("the block must not run")
