"""Where unlabeled pictures come from, and which of them are pictures of another part."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from yolo_kd.data import unlabeled
from yolo_kd.data.unlabeled import digest_of, find_unlabeled, frames_of, images_of, same_files

from yolo_kd.errors import MisuseError


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((12, 16, 3), value, np.uint8))
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """40 frames, each brighter than the one before."""
    path = tmp_path / "flight.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 24))
    for i in range(40):
        writer.write(np.full((24, 32, 3), 6 * i, np.uint8))
    writer.release()
    return path


class TestSources:
    def test_folders_lists_and_files_in_their_order_each_picture_once(self, tmp_path, video):
        late, early = picture(tmp_path / "b" / "deep" / "1.png"), picture(tmp_path / "a" / "2.jpg")
        (tmp_path / "list.txt").write_text(f"./a/2.jpg\n{late}\n\n")
        found = find_unlabeled([str(tmp_path / "list.txt"), str(tmp_path / "b"), str(video), str(early)])
        assert found.images == (early, late) and found.videos == (video,)
        (tmp_path / "b" / "raw.DNG").write_bytes(b"x")
        everything = find_unlabeled([str(tmp_path)])
        assert everything.videos == (video,) and everything.others == (tmp_path / "b" / "raw.DNG",) and not found.others

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("nowhere", "does not exist; expected a folder, a video, or a .txt list"),
            ("empty", "holds no image and no video, only nothing"),
            ("notes.md", "is a '.md' file; expected a folder"),
            ("gone.txt", "1 of 2 files are missing, first"),
            ("none.txt", "is empty; expected a path"),
            ("strange.txt", "which is neither a picture nor a video"),
        ],
    )
    def test_what_is_none_is_said_in_one_line(self, tmp_path, name, said):
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.md").write_text("x")
        (tmp_path / "gone.txt").write_text(f"{picture(tmp_path / 'p.png')}\n./q.png\n")
        (tmp_path / "none.txt").write_text("\n")
        (tmp_path / "strange.txt").write_text("./notes.md\n")
        with pytest.raises(MisuseError) as refusal:
            find_unlabeled([str(tmp_path / name)])
        assert str(refusal.value).startswith(f"unlabeled={tmp_path / name}: ") and said in str(refusal.value)


class TestFrames:
    def test_are_evenly_spread_and_made_once(self, video, tmp_path):
        frames = frames_of(video, 5, tmp_path / "cache")
        assert [path.name for path in frames] == [
            "0000004.png",
            "0000012.png",
            "0000020.png",
            "0000028.png",
            "0000036.png",
        ]
        shades = [int(cv2.imread(str(path)).mean()) for path in frames]
        assert shades == pytest.approx([24, 72, 120, 168, 216], abs=3)
        kept = frames[0].stat().st_mtime_ns
        assert frames_of(video, 5, tmp_path / "cache") == frames and frames[0].stat().st_mtime_ns == kept
        assert len(frames_of(video, 100, tmp_path / "cache")) == 40
        assert sorted(path.name for path in video.parent.iterdir()) == ["cache", "flight.avi"]

    def test_of_a_broken_video_leave_nothing(self, tmp_path):
        (tmp_path / "cut.mp4").write_bytes(b"\0" * 100)
        with pytest.raises(MisuseError, match="no frame can be read"):
            frames_of(tmp_path / "cut.mp4", 5, tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())

    def test_that_cannot_be_decoded_are_none(self, video, tmp_path, monkeypatch):
        """It can be stepped through, but gives no picture."""
        monkeypatch.setattr(unlabeled, "sample_frames", lambda *_: iter(()))
        with pytest.raises(MisuseError, match=rf"unlabeled={video}: none of its frames can be read"):
            frames_of(video, 5, tmp_path / "cache")
        assert not list((tmp_path / "cache").iterdir())


def test_equal_files_are_found_by_content_not_by_name(tmp_path):
    one, two = picture(tmp_path / "x" / "1.png", 10), picture(tmp_path / "x" / "2.png", 20)
    twin, alike = picture(tmp_path / "y" / "9.png", 10), picture(tmp_path / "y" / "2.png", 30)
    assert one.stat().st_size == alike.stat().st_size, "else this shows nothing"
    assert same_files([one, two], [alike, twin]) == {one: twin}
    assert digest_of([one]) == digest_of([twin]) != digest_of([two])
    assert digest_of([one, two]) != digest_of([two, one])


def test_images_of_parts_are_those_that_are_there(tmp_path):
    one, two = picture(tmp_path / "x" / "1.png"), picture(tmp_path / "y" / "2.png")
    (tmp_path / "list.txt").write_text(f"{two}\n./gone.png\n")
    (tmp_path / "x" / "1.txt").write_text("0 .5 .5 .1 .1\n")
    assert images_of([tmp_path / "x", tmp_path / "list.txt", tmp_path / "gone"]) == [one, two]
