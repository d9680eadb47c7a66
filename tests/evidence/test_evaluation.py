"""A detector over a data set: labels in pixels, classes by name, slices by light and sharpness."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from yolo_kd.data.corruptions import STRENGTHS, corrupt
from yolo_kd.data.split import read_split
from yolo_kd.deploy.detections import Detections

from yolo_kd.errors import MisuseError
from yolo_kd.evidence.evaluate import spoilt
from yolo_kd.evidence.evaluation import look, read_frame, unmatched


@pytest.fixture
def split(tmp_path: Path):
    """Six pictures of 80 x 40 pixels, brighter from one to the next, each with one box."""
    for folder in ("images", "labels"):
        (tmp_path / folder / "val").mkdir(parents=True)
    for i in range(6):
        cv2.imwrite(str(tmp_path / "images" / "val" / f"{i}.png"), np.full((40, 80, 3), 20 + 40 * i, np.uint8))
        (tmp_path / "labels" / "val" / f"{i}.txt").write_text(f"{i % 2} 0.5 0.5 0.25 0.5\n")
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"val": "images/val", "names": ["car", "bus"]}))
    return read_split(path)


def detector(names: dict[int, str], kind: int, box=(30, 10, 50, 30)):
    def detect(frame: np.ndarray) -> Detections:
        return Detections(
            np.array([box], np.float32), np.array([0.9], np.float32), np.array([kind]), names, frame.shape[:2]
        )

    return detect


def test_labels_come_in_pixels_and_precision_follows(split):
    seen = look(detector({0: "car", 1: "bus"}, 0), split)
    assert seen.truths[0].xyxy.tolist() == [[30, 10, 50, 30]] and seen.truths[1].class_id.tolist() == [1]
    result = seen.meter().precision()
    # precision for car: a hit in every second picture of equal confidence
    assert result.by_class["bus"] == 0.0 and 0.4 < result.by_class["car"] <= 1.0


def test_classes_are_matched_by_name_and_others_left_out(split):
    swapped = look(detector({0: "bus", 1: "car"}, 1), split)
    assert [d.class_id.tolist() for d in swapped.found] == [[0]] * 6 and dict(swapped.found[0].names) == {
        0: "car",
        1: "bus",
    }
    other = look(detector({0: "car", 7: "tree"}, 7), split)
    assert all(len(d) == 0 for d in other.found)
    with pytest.raises(MisuseError, match="the model knows tree; the data set car, bus: no class in common"):
        look(detector({0: "tree"}, 0), split)


def test_names_are_compared_normalised_and_lone_ones_are_said(split):
    seen = look(detector({0: "Car", 1: "BUS"}, 1), split)
    assert [d.class_id.tolist() for d in seen.found] == [[1]] * 6
    assert unmatched({0: "Car", 1: "BUS"}, split) == ""
    assert unmatched({0: "Car", 1: "tree"}, split) == "only the model knows tree; only the data set knows bus"


def test_thirds_by_light_are_the_dark_and_the_bright_pictures(split):
    slices = look(detector({0: "car", 1: "bus"}, 0), split).slices()
    assert slices["dark"].tolist() == [0, 1] and slices["bright"].tolist() == [4, 5]
    assert sum(len(v) for v in slices.values()) == 12


def test_a_blurred_picture_is_in_the_blurred_third(split):
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (40, 80, 3), np.uint8)

    def change(frame: np.ndarray, index: int) -> np.ndarray:
        return cv2.GaussianBlur(noise, (0, 0), 0.3 + index)

    seen = look(detector({0: "car", 1: "bus"}, 0), split, change=change)
    assert seen.slices()["blurred"].tolist() == [5, 4] and seen.slices()["sharp"].tolist() == [1, 0]


def test_corruptions_are_those_of_the_recipe_at_three_strengths_and_by_a_seed_for_each_picture(split):
    names, seen, detect = ["fog", "sensor_noise"], [], detector({0: "car", 1: "bus"}, 0)
    found = spoilt(lambda frame: (seen.append(frame), detect(frame))[1], split, names)
    clean = [read_frame(path) for path in split.images]
    wanted = [corrupt(frame, name, s, seed=i) for name in names for s in STRENGTHS for i, frame in enumerate(clean)]
    assert len(seen) == len(wanted) and all(map(np.array_equal, seen, wanted))
    assert {name: len(values) for name, values in found.items()} == {"fog": 3, "sensor_noise": 3}


def test_progress_is_shown_with_the_time_left(split, capsys):
    look(detector({0: "car", 1: "bus"}, 0), split, label="float")
    assert capsys.readouterr().err == "float: 6/6 images, 0 s left  \n"


@pytest.mark.parametrize(("raw", "said"), [(b"", "is empty"), (b"no picture", "or TIFF, whatever its name says")])
def test_unreadable_image_is_named(tmp_path, raw, said):
    path = tmp_path / "x.jpg"
    path.write_bytes(raw)
    with pytest.raises(MisuseError, match=rf"x.jpg: .*{said}"):
        read_frame(path)
