"""The same pictures elsewhere: what is written there is not written here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from yolo_kd.data.mirror import mirrored
from yolo_kd.data.split import read_split

from tests.conftest import write_pictures


def state(root: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p.relative_to(root)): (p.stat().st_mtime_ns, p.read_bytes()) for p in root.rglob("*") if p.is_file()}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two parts; val is a list with a picture of train in it, and two pictures of one name; one label file is missing."""
    path = write_pictures(tmp_path / "own", names=("no", "car: red", "3"))
    (tmp_path / "own" / "labels" / "val" / "002.txt").unlink()
    (tmp_path / "own" / "val.txt").write_text("./images/val/002.png\n./images/train/003.png\n./images/val/003.png\n")
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "val": "val.txt"}))
    return path


def test_it_holds_the_same_pictures_labels_and_names_in_order(data: Path) -> None:
    import cv2

    own = read_split(data)
    with mirrored(own) as there:
        seen = read_split(there)
        assert seen.names == own.names and len(seen.images) == 3
        for ours, theirs in zip(own.images, seen.images, strict=True):
            assert np.array_equal(cv2.imread(str(ours)), cv2.imread(str(theirs)))
            for one, other in zip(own.labels(ours), seen.labels(theirs), strict=True):
                assert np.array_equal(one, other)
        assert [image.stem for image in seen.images] == ["000000", "000001", "000002"]
    assert not there.parent.exists()


def test_what_is_written_there_is_not_written_here(data: Path) -> None:
    before = state(data.parent)
    with mirrored(read_split(data)) as there:
        for label in (there.parent / "labels").iterdir():
            label.write_text("0 0 0 0 0\n")
        (there.parent / "labels.cache").write_bytes(b"x")
        picture = there.parent / "images" / "000000.png"
        (there.parent / "new.png").write_bytes(b"x")
        (there.parent / "new.png").replace(picture)  # as Ultralytics mends a picture
    assert state(data.parent) == before


def test_without_links_it_copies(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with mirrored(read_split(data)) as there:
        assert len(read_split(there).images) == 3 and not any(p.is_symlink() for p in there.parent.rglob("*"))
