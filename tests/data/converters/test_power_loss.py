"""A picture whose name outlived its content, as after a power loss, is made again; no name comes before its content is on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.converters.samples import kitti
from yolo_kd.cli import main


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    kitti(tmp_path / "in")
    return ["data", "convert", "from=kitti", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out'}"]


@pytest.mark.parametrize("left", [0, 100])
def test_an_emptied_picture_is_made_again_by_the_same_command(tmp_path: Path, words: list[str], left: int) -> None:
    assert main(words) == 0
    lost, kept = (tmp_path / "out/images/train" / f"00000{i}.png" for i in range(2))
    lost.write_bytes(lost.read_bytes()[:left])
    before = kept.stat()
    assert main(words) == 0
    assert lost.read_bytes() == (tmp_path / "in/training/image_2/000000.png").read_bytes()
    assert (kept.stat().st_ino, kept.stat().st_ctime_ns) == (before.st_ino, before.st_ctime_ns), "copied once"
    assert not list((tmp_path / "out").rglob("*.part"))


def test_a_picture_is_on_the_disk_before_it_has_its_name(tmp_path: Path, words: list[str], monkeypatch) -> None:
    synced: dict[int, int] = {}
    real_sync, real_rename = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        real_sync(descriptor)
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size

    def replace(self: Path, target: Path) -> Path:
        assert synced.get(self.stat().st_ino) == self.stat().st_size > 0, f"{self.name} is renamed before it is written"
        return real_rename(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    assert main(words) == 0
    assert {p.stat().st_ino for p in (tmp_path / "out/images").rglob("*.png")} <= synced.keys()
