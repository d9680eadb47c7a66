"""The video: as many frames and label files as asked, and a world that moves smoothly."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from yolo_kd.data.scenes import fly, render_video
from yolo_kd.data.scenes.dataset import label_text

from yolo_kd.errors import MisuseError, YoloKDError

SIZE = (320, 180)


def paths_of(frames: list) -> dict[int, dict[int, np.ndarray]]:
    """For each object: frame number to its box in pixels."""
    found: dict[int, dict[int, np.ndarray]] = {}
    for number, frame in enumerate(frames):
        for track, box in zip(frame.tracks, frame.boxes_xywhn * (*SIZE, *SIZE)):
            found.setdefault(int(track), {})[number] = box
    return found


@pytest.fixture(scope="module")
def frames() -> list:
    return list(fly(20, 25, SIZE, seed=1))


def test_video_and_labels_have_one_entry_per_frame(tmp_path: Path) -> None:
    path = render_video(tmp_path / "v.mp4", frames=6, fps=10, size_wh=SIZE, seed=2)
    capture = cv2.VideoCapture(str(path))
    shapes = []
    while True:
        ok, frame = capture.read()
        if not ok:
            break
        shapes.append(frame.shape)
    assert shapes == [(180, 320, 3)] * 6
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    names = sorted(p.name for p in (tmp_path / "v_labels").iterdir())
    assert names == [f"{i:06d}.txt" for i in range(6)]
    for number, scene in enumerate(fly(6, 10, SIZE, seed=2)):
        text = (tmp_path / "v_labels" / f"{number:06d}.txt").read_text()
        assert text == label_text(scene.boxes_xywhn, scene.classes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["v.mp4", "v_labels"]


def test_objects_keep_their_class_and_move_smoothly(frames: list) -> None:
    classes: dict[int, int] = {}
    for frame in frames:
        for track, class_id in zip(frame.tracks, frame.classes):
            assert classes.setdefault(int(track), int(class_id)) == class_id
    checked = 0
    for boxes in paths_of(frames).values():
        for n, box in boxes.items():
            trio = [boxes.get(n - 1), box, boxes.get(n + 1)]
            # A box that the frame or a tree cuts jumps with the cut: only whole, equal boxes tell the motion.
            if any(b is None for b in trio) or np.ptp([b[2:] for b in trio], axis=0).max() > 1.5:
                continue
            before, now, after = (b[:2] for b in trio)
            assert np.hypot(*(after - now)) < 12
            assert np.hypot(*(after - 2 * now + before)) < 2.0
            checked += 1
    assert checked > 50


def test_some_objects_travel_and_the_drone_drifts(frames: list) -> None:
    ways = [np.hypot(*(boxes[19][:2] - boxes[0][:2])) for boxes in paths_of(frames).values() if {0, 19} <= boxes.keys()]
    assert max(ways) > 8
    assert min(ways) > 0.05
    assert min(ways) < 0.5 * max(ways)


def test_video_depends_on_its_seed_only(frames: list) -> None:
    again = next(fly(1, 25, SIZE, seed=1))
    assert again.image.tobytes() == frames[0].image.tobytes()
    assert next(fly(1, 25, SIZE, seed=3)).image.tobytes() != again.image.tobytes()


def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "v.mp4").write_bytes(b"mine")
    with pytest.raises(MisuseError, match="exists already"):
        render_video(tmp_path / "v.mp4", frames=1, size_wh=SIZE)
    assert (tmp_path / "v.mp4").read_bytes() == b"mine"


def test_a_writer_that_cannot_open_is_reported_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed:
        def __init__(self, *_: object) -> None: ...

        def isOpened(self) -> bool:
            return False

        fourcc = staticmethod(lambda *_: 0)

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    with pytest.raises(YoloKDError, match="mp4v writer"):
        render_video(tmp_path / "v.mp4", frames=1, size_wh=SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong", [{"frames": 0}, {"fps": 0}, {"seed": -1}, {"size_wh": (321, 180)}, {"size_wh": (32, 32)}]
)
def test_arguments_out_of_range_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(MisuseError):
        render_video(tmp_path / "v.mp4", **{"frames": 1, "size_wh": SIZE, **wrong})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MisuseError, match="must end in"):
        render_video(tmp_path / "v.avi")
