"""A file is whole, or as it was; what stands in the way is one line."""

from __future__ import annotations

import errno
import subprocess
import sys

import pytest
from yolo_kd.cfg import atomic

from yolo_kd.errors import MisuseError, YoloKDError


def fail(number: int):
    def fsync(_: int) -> None:
        raise OSError(number, "as the test wants it")

    return fsync


def test_the_folder_is_made_and_the_file_replaced(tmp_path):
    target = tmp_path / "new" / "report.html"
    atomic.write_text(target, "first")
    atomic.write_text(target, "zwölf")
    assert target.read_bytes() == "zwölf".encode() and [p.name for p in target.parent.iterdir()] == ["report.html"]


def test_a_full_disk_leaves_the_old_file_and_is_no_misuse(tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    atomic.write_text(target, "first")
    monkeypatch.setattr(atomic.os, "fsync", fail(errno.ENOSPC))
    with pytest.raises(YoloKDError, match=r"out=.*report\.html: no room left on the disk") as caught:
        atomic.write_text(target, "second")
    assert not isinstance(caught.value, MisuseError)
    assert target.read_text() == "first" and [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_two_processes_write_one_file_and_neither_fails(tmp_path, monkeypatch):
    """Two trainings under one teacher fill the same cache."""
    target, fsync = tmp_path / "fit.pt", atomic.os.fsync

    def meanwhile(handle: int) -> None:
        words = "import sys, pathlib, yolo_kd.cfg.atomic as a; a.write_text(pathlib.Path(sys.argv[1]), 'b', shared=1)"
        subprocess.run([sys.executable, "-c", words, str(target)], check=True)
        assert target.read_text() == "b"
        fsync(handle)

    monkeypatch.setattr(atomic.os, "fsync", meanwhile)
    atomic.write_text(target, "first", shared=True)
    assert target.read_text() == "first" and list(tmp_path.iterdir()) == [target]


def test_a_place_that_cannot_be_written_names_the_key(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        MisuseError, match=r"project=.*report\.html: cannot be written \(.*choose another place with project="
    ):
        atomic.write_text(tmp_path / "file" / "report.html", "x", "project")


def test_a_place_that_cannot_be_written_is_refused_before_long_work(tmp_path, monkeypatch):
    """As on a device whose file system is read-only; the nearest folder that there is decides."""
    monkeypatch.setattr(atomic.os, "access", lambda folder, how: folder != tmp_path)
    for name in ("report.json", "new/folder/report.json"):
        with pytest.raises(MisuseError, match=f"out={tmp_path / name}: cannot be written"):
            atomic.refuse_taken(tmp_path / name, "mark")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("")
    with pytest.raises(MisuseError, match=r"cannot be written \(file is a file\)"):
        atomic.refuse_taken(tmp_path / "other" / "file" / "report.json", "mark")
    atomic.refuse_taken(tmp_path / "other" / "report.json", "mark")
