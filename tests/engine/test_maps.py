"""What student and teacher see in a picture: formulas by hand, boxes as Ultralytics has them, and the drawing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.drawing import class_colour

from yolo_kd.distillers.base import ONE2MANY
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import TeacherNet
from yolo_kd.engine.maps import Level, Maps, class_attention, feature_energy, look
from yolo_kd.engine.maps_picture import GAP, HEADER, SIDE, draw_maps, heat

NAMES = {0: "car", 1: "truck", 2: "person"}


def logit(*p: float) -> torch.Tensor:
    return torch.tensor(p).logit()


def test_energy_by_hand():
    """0, 0, 0, 4 has mean 1 and variance 3: a ninth of it is ... (-1, -1, -1, 3) squared over 3."""
    x = torch.tensor([[[0.0, 0.0], [0.0, 4.0]]])
    assert torch.allclose(feature_energy(x), torch.tensor([[1 / 3, 1 / 3], [1 / 3, 3.0]]), atol=1e-5)
    two = torch.cat((x, 7 * torch.ones(1, 2, 2)))
    assert torch.allclose(feature_energy(two), feature_energy(x) / 2, atol=1e-5), "a constant channel counts nothing"


def test_energy_does_not_see_scale_and_shift_of_a_channel():
    torch.manual_seed(0)
    x = torch.randn(8, 5, 6)
    scale, shift = torch.rand(8, 1, 1) + 0.5, torch.randn(8, 1, 1)
    assert torch.allclose(feature_energy(x * scale + shift), feature_energy(x), atol=1e-4)
    assert float(feature_energy(x).mean()) == pytest.approx(1.0, abs=1e-4)
    assert torch.isfinite(feature_energy(torch.zeros(3, 2, 2))).all()


def test_attention_by_hand():
    """Class 0 is seen with .8 and .4: squared, as a share of the best, 1 and .25, times .8. Class 1 with .03 is not there."""
    scores = torch.stack((logit(0.8, 0.4), logit(0.03, 0.03)))
    assert torch.allclose(class_attention(scores, (1, 2), 2.0, 0.05), torch.tensor([[0.8, 0.2]]), atol=1e-4)
    assert class_attention(logit(0.01, 0.02)[None], (2, 1), 2.0, 0.05).tolist() == [[0.0], [0.0]]


def test_of_two_classes_the_stronger_is_shown_in_each_cell():
    scores = torch.stack((logit(0.8, 0.01), logit(0.01, 0.6)))
    assert torch.allclose(class_attention(scores, (1, 2), 2.0, 0.05), torch.tensor([[0.8, 0.6]]), atol=1e-2)


def item(seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 255, (3, 64, 96), dtype=np.uint8))
    return {
        "img": image, "cls": torch.tensor([[1.0]]), "bboxes": torch.tensor([[0.5, 0.5, 0.25, 0.5]]), "im_file": "a/b.png",
    }  # fmt: skip


@pytest.fixture(scope="module")
def nets(make_checkpoint) -> tuple[TeacherNet, TeacherNet]:
    """A student, and a teacher of other weights that knows the classes in another order and one more."""
    student = make_checkpoint("yolov8n.yaml", ("car", "truck", "person"), 1)
    teacher = make_checkpoint("yolov8n.yaml", ("person", "dog", "truck"), 2)
    return tuple(TeacherNet(ultra.load_detector(str(p), "student")) for p in (student, teacher))  # type: ignore[return-value]


def seen(nets, columns: tuple[int, ...] = (-1, 2, 0)) -> Maps:
    return look(nets[0], nets[1], item(), NAMES, torch.tensor(columns), (8, 16, 32))


def test_labels_frame_and_levels_are_those_of_the_picture(nets):
    found = seen(nets)
    assert found.name == "a/b.png" and found.frame.shape == (64, 96, 3)
    assert (found.frame[..., 0] == item()["img"][2].numpy()).all(), "BGR of an RGB tensor"
    assert found.labels.xyxy.tolist() == [[36, 16, 60, 48]] and found.labels.class_id.tolist() == [1]
    assert [level.name for level in found.levels] == ["P3", "P4", "P5"]
    sizes = [(8, 12), (4, 6), (2, 3)]
    for level, size in zip(found.levels, sizes, strict=True):
        assert level.attention.shape == level.teacher.shape == level.student.shape == size
        assert level.attention.min() >= 0 and level.attention.max() <= 1
    assert not np.allclose(found.levels[0].teacher, found.levels[0].student)


def test_attention_is_the_teachers_and_energy_that_of_each_neck(nets):
    with torch.no_grad():
        student, teacher = (net.unflatten(net(item()["img"][None].float() / 255)) for net in nets)
    found, start = seen(nets), 0
    for i, level in enumerate(found.levels):
        assert np.allclose(level.student, feature_energy(student.feats[i][0]), atol=1e-4)
        assert np.allclose(level.teacher, feature_energy(teacher.feats[i][0]), atol=1e-4)
        size = level.attention.shape
        cells = slice(start, start := start + size[0] * size[1])
        own, other = (
            class_attention(out.branch(ONE2MANY).scores[0, :, cells], size, 2.0, 0.05) for out in (teacher, student)
        )
        assert np.allclose(level.attention, own, atol=1e-4) and not np.allclose(own, other, atol=1e-2)


def test_the_students_boxes_are_those_of_ultralytics(nets, make_checkpoint):
    from ultralytics import YOLO

    found = seen(nets)
    checkpoint = make_checkpoint("yolov8n.yaml", ("car", "truck", "person"), 1)
    theirs = YOLO(checkpoint)(found.frame, imgsz=(64, 96), conf=0.25, iou=0.7, verbose=False)[0].boxes
    assert len(theirs) == len(found.student) > 0
    assert np.allclose(theirs.xyxy.numpy(), found.student.xyxy, atol=0.05)
    assert (theirs.cls.numpy() == found.student.class_id).all()
    assert np.allclose(theirs.conf.numpy(), found.student.confidence, atol=1e-3)


def test_the_teachers_boxes_carry_the_students_classes_and_unknown_ones_are_left_out(nets):
    plain, mapped = seen(nets, (0, 1, 2)), seen(nets)
    assert set(mapped.teacher.class_id.tolist()) <= {1, 2} and len(mapped.teacher) > 0
    persons = plain.teacher.xyxy[plain.teacher.class_id == 0]
    found = mapped.teacher.xyxy[mapped.teacher.class_id == 2]
    assert len(persons) and any(np.allclose(box, other, atol=1e-3) for box in persons for other in found)


def test_shared_levels_only(nets):
    found = look(nets[0], nets[1], item(), NAMES, torch.tensor([-1, 2, 0]), (16, 32))
    whole = seen(nets)
    assert [level.name for level in found.levels] == ["P4", "P5"]
    assert np.allclose(found.levels[0].teacher, whole.levels[1].teacher)
    assert np.allclose(found.levels[0].attention, whole.levels[1].attention)


def test_a_picture_without_labels(nets):
    bare = {**item(), "cls": torch.zeros(0, 1), "bboxes": torch.zeros(0, 4)}
    assert len(look(nets[0], nets[1], bare, NAMES, torch.tensor([-1, 2, 0]), (8,)).labels) == 0


def test_heat_is_dark_for_nothing_and_bright_for_the_highest():
    frame = np.full((40, 40, 3), 100, np.uint8)
    out = heat(frame, np.array([[0.0, 0.0], [0.0, 2.0]]), 2.0).astype(int)
    assert out[10, 10].sum() < out[30, 30].sum() - 200
    assert (out[10, 10] == out[10, 30]).all(), "a cell is a square, not a blur"
    assert (heat(frame, np.full((2, 2), 9.0), 2.0) == heat(frame, np.full((2, 2), 2.0), 2.0)).all()


def boxes(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    table = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].astype(int), NAMES, (100, 150))


def test_a_block_has_three_rows_and_a_panel_for_each_level(tmp_path):
    frame = np.full((100, 150, 3), 90, np.uint8)
    none, hot = np.zeros((4, 6)), np.full((4, 6), 1.0)
    maps = Maps(
        "x/päth.png", frame, boxes((30, 20, 90, 80, 1.0, 0)), boxes(), boxes((30, 20, 90, 80, 0.5, 2)),
        (Level("P3", hot, none, hot), Level("P4", none, hot, none)),
    )  # fmt: skip
    draw_maps([maps, maps], tmp_path / "m.jpg")
    assert [p.name for p in tmp_path.iterdir()] == ["m.jpg"]
    picture = cv2.imread(str(tmp_path / "m.jpg")).astype(int)
    height = 200 + GAP + HEADER
    assert picture.shape == (2 * (HEADER + 3 * height + 2 * GAP), 3 * (SIDE + GAP), 3)

    def at(row: int, column: int, x: int, y: int) -> np.ndarray:
        """A pixel of a panel, in pixels of the enlarged frame."""
        return picture[HEADER + row * height + HEADER + y, column * (SIDE + GAP) + x]

    assert np.abs(at(0, 0, 60, 100) - class_colour(0)).max() < 60, "the label's left edge, twice as large"
    assert np.abs(at(1, 0, 60, 100) - 90).max() < 12, "the teacher found nothing"
    assert np.abs(at(2, 0, 60, 100) - class_colour(2)).max() < 60
    bright = [[at(row, column, 150, 100).sum() > 300 for column in (1, 2)] for row in range(3)]
    assert bright == [[True, False], [False, True], [True, False]]
