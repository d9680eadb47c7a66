"""Pictures and labels: the same from the same seed, tight, complete, and without torch."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from yolo_kd.data.scenes import CLASSES, Scene, render_scene
from yolo_kd.data.scenes.camera import Camera
from yolo_kd.data.scenes.light import Light
from yolo_kd.data.scenes.mesh import Foliage, MeshBuilder, Solid
from yolo_kd.data.scenes.painter import Painting, paint
from yolo_kd.data.scenes.people import bicycle, person
from yolo_kd.data.scenes.traffic import CAR
from yolo_kd.data.scenes.vehicles import bus, car, truck

from yolo_kd.errors import MisuseError

BACKGROUND = (3, 251, 7)
FLAT_LIGHT = Light("overcast", np.array([0.3, 0.2, 0.93]), 0.0, 0.7, np.ones(3), 0.0)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(0, "train", index) for index in range(40)]


def view(tilt: float, size: int = 640) -> Camera:
    return Camera.over((0.0, 0.0), 14.0, 0.4, np.deg2rad(tilt), (size, size), 1.1 * size)


def painted(solids: list[Solid], foliage: list[Foliage] = (), tilt: float = 20.0) -> Painting:
    camera = view(tilt)
    canvas = np.empty((*camera.size_wh[::-1], 3), np.uint8)
    canvas[:] = BACKGROUND
    return paint(canvas, camera, solids, list(foliage), FLAT_LIGHT, oversample=2)


def bounds(mask: np.ndarray) -> list[int]:
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [cols[0], rows[0], cols[-1] + 1, rows[-1] + 1]


def crown(x: float, y: float, radius: float) -> Foliage:
    return Foliage(np.array([[x, y, 5.0, radius]]), np.array([[40.0, 90.0, 60.0]]))


def test_same_arguments_give_the_same_bytes_whatever_was_rendered_before() -> None:
    first = render_scene(3, "val", 7)
    render_scene(3, "val", 6)
    again = render_scene(3, "val", 7)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.boxes_xywhn.tobytes() == again.boxes_xywhn.tobytes()
    assert first.classes.tolist() == again.classes.tolist()


def test_global_random_state_is_neither_read_nor_changed() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()
    first = render_scene(0, "train", 0, 128)
    assert (np.random.get_state()[1] == before).all()
    np.random.seed(2)
    assert render_scene(0, "train", 0, 128).image.tobytes() == first.image.tobytes()


@pytest.mark.parametrize("other", [(1, "train", 0), (0, "val", 0), (0, "test", 0), (0, "train", 1)])
def test_seed_split_and_index_each_change_the_world(other: tuple[int, str, int]) -> None:
    one, two = render_scene(0, "train", 0), render_scene(*other)
    assert (one.image != two.image).any()
    assert one.boxes_xywhn.shape != two.boxes_xywhn.shape or not np.allclose(one.boxes_xywhn, two.boxes_xywhn)


@pytest.mark.parametrize("size", [96, 320, 640])
def test_picture_has_the_asked_size(size: int) -> None:
    scene = render_scene(0, "train", 2, size)
    assert scene.image.shape == (size, size, 3)
    assert scene.image.dtype == np.uint8


def test_boxes_lie_inside_the_picture_and_are_large_enough(scenes: list[Scene]) -> None:
    boxes = np.concatenate([scene.boxes_xywhn for scene in scenes])
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    assert (low >= -1e-9).all()
    assert (high <= 1 + 1e-9).all()
    assert (np.sqrt(boxes[:, 2] * boxes[:, 3]) * 320 >= 3.0).all()


def test_every_class_occurs_and_cars_are_the_most_among_vehicles(scenes: list[Scene]) -> None:
    counts = np.bincount(np.concatenate([scene.classes for scene in scenes]), minlength=len(CLASSES))
    car_, truck_, bus_, person_, bicycle_ = counts
    assert counts.min() >= 5
    assert car_ > 5 * truck_ > 0
    assert truck_ > bus_
    assert person_ > bicycle_


def test_pictures_are_neither_black_nor_white_nor_alike(scenes: list[Scene]) -> None:
    means = np.array([scene.image.mean() for scene in scenes])
    assert means.min() > 8
    assert means.max() < 235
    assert means.std() > 15


@pytest.mark.parametrize(
    "shape", [car, truck, bus, person, lambda rng: bicycle(rng, True), lambda rng: bicycle(rng, False)]
)
@pytest.mark.parametrize("tilt", [0.0, 30.0])
def test_box_is_exactly_what_the_object_changes_in_the_picture(shape, tilt: float) -> None:
    solid = Solid(shape(np.random.default_rng(5)), 3.0, -2.0, 0.7, class_id=1, track=0)
    painting = painted([solid], tilt=tilt)
    changed = (painting.canvas != BACKGROUND).any(2)
    assert painting.boxes_xyxy.tolist() == [bounds(changed)]
    assert ((painting.ids == 1) == changed).all()


def test_ids_and_boxes_agree_in_a_whole_world() -> None:
    from yolo_kd.data.scenes.light import choose_light
    from yolo_kd.data.scenes.scene import build_world, choose_camera, paint_view

    rng = np.random.default_rng(11)
    camera = choose_camera(rng, (320, 320))
    painting = paint_view(build_world(rng, camera, choose_light(rng), 4.0), camera, 0.0)
    assert len(painting.boxes_xyxy) > 5
    for number, box in enumerate(painting.boxes_xyxy, start=1):
        assert bounds(painting.ids == number) == box.tolist()


def test_a_covered_object_carries_no_label_and_a_half_covered_one_a_smaller_box() -> None:
    solid = Solid(car(np.random.default_rng(0)), 0.0, 0.0, 0.0, class_id=CAR, track=0)
    whole = painted([solid], tilt=0.0).boxes_xyxy[0]
    assert len(painted([solid], [crown(0.0, 0.0, 4.0)], tilt=0.0).boxes_xyxy) == 0
    mostly = painted([solid], [crown(-1.2, 0.0, 2.6)], tilt=0.0)
    assert ((mostly.canvas != BACKGROUND) & (mostly.canvas != (40, 90, 60))).any()
    assert len(mostly.boxes_xyxy) == 0
    half = painted([solid], [crown(3.2, 0.0, 3.0)], tilt=0.0)
    assert np.prod(half.boxes_xyxy[0, 2:] - half.boxes_xyxy[0, :2]) < 0.9 * np.prod(whole[2:] - whole[:2])
    assert half.boxes_xyxy[0].tolist() == bounds(half.ids == 1)


def test_an_object_that_hardly_reaches_into_the_frame_carries_no_label() -> None:
    mesh = bus(np.random.default_rng(0))
    half, right = 640 / 14 / 2, np.array([np.cos(0.4), -np.sin(0.4)])

    def at(metres: float) -> Painting:
        return painted([Solid(mesh, *(right * metres), -0.4, class_id=2, track=0)], tilt=0.0)

    assert (at(half + 3.5).canvas != BACKGROUND).any()
    assert len(at(half + 3.5).boxes_xyxy) == 0
    assert at(half).boxes_xyxy[0, 2] == 640


def test_the_nearer_of_two_solids_covers_the_farther() -> None:
    wall = MeshBuilder()
    wall.box((-0.2, 0.2), (-4.0, 4.0), (0.0, 6.0), (10, 10, 10), (20, 20, 20))
    camera = view(30.0)
    away = np.array([np.sin(0.4), np.cos(0.4)])
    behind = Solid(car(np.random.default_rng(0)), *(away * 1.6), 0.0, class_id=CAR, track=0)
    screen = Solid(wall.build(), 0.0, 0.0, float(np.arctan2(away[1], away[0])))
    assert np.hypot(behind.x - camera.position[0], behind.y - camera.position[1]) > np.hypot(*camera.position[:2])
    for order in ([behind, screen], [screen, behind]):
        assert len(painted(order, tilt=30.0).boxes_xyxy) == 0


def test_projection_of_the_ground_agrees_with_its_homography() -> None:
    camera = view(25.0)
    corners = camera.footprint()
    pixels, _ = camera.project(np.concatenate([corners, np.zeros((4, 1))], 1))
    assert np.allclose(pixels, [[0, 0], [640, 0], [640, 640], [0, 640]], atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((0, "trian", 0, 320), "did you mean 'train'"),
        ((-1, "train", 0, 320), "seed must be from 0"),
        ((0, "train", -1, 320), "index must be from 0"),
        ((0, "train", 0, 32), "size must be from 64 to 2048, got 32"),
    ],
)
def test_arguments_out_of_range_are_named(arguments: tuple, part: str) -> None:
    with pytest.raises(MisuseError) as caught:
        render_scene(*arguments)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_rendering_works_where_torch_and_ultralytics_cannot_be_imported() -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.modules['ultralytics'] = None\n"
        "from yolo_kd.data.scenes import render_scene\n"
        "print(len(render_scene(0, 'train', 1, 128).classes))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 0
