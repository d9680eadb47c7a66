"""What the scenes hold and what makes them hard: roads, buildings, trees, shadows, height, time of day, haze, blur, noise; each
is seen in what a picture is made of."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from yolo_kd.data.scenes import scene
from yolo_kd.data.scenes.camera import Camera
from yolo_kd.data.scenes.light import MOODS, Light, choose_light, shine
from yolo_kd.data.scenes.mesh import Solid
from yolo_kd.data.scenes.painter import paint
from yolo_kd.data.scenes.sensor import Sensor, choose_sensor, expose
from yolo_kd.data.scenes.vehicles import car

FAULTLESS = Sensor(defocus=0.0, smear=(0.0, 0.0), noise=0.0, vignette=0.0, contrast=1.0, gamma=1.0, jpeg=100)


class Chosen(Exception):
    """Camera and light of a picture, before anything is painted."""


def views(count: int, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Camera, Light]]:
    """What `render_scene` chooses for the first pictures, without rendering them."""

    def stop(_rng: Any, camera: Camera, light: Light, **_: Any) -> None:
        raise Chosen(camera, light)

    monkeypatch.setattr(scene, "build_world", stop)
    found = []
    for index in range(count):
        with pytest.raises(Chosen) as chosen:
            scene.render_scene(0, "train", index)
        found.append(chosen.value.args)
    return found


def gradient_energy(picture: np.ndarray) -> float:
    return sum(float(np.square(np.diff(picture.astype(float), axis=axis)).mean()) for axis in (0, 1))


def test_pictures_are_taken_in_every_mood_and_from_several_heights(monkeypatch) -> None:
    found = views(200, monkeypatch)
    moods = Counter(light.mood for _, light in found)
    assert set(moods) == set(MOODS) and min(moods.values()) >= 8
    heights = np.array([camera.position[2] for camera, _ in found])
    px_per_metre = np.array([camera.focal / np.linalg.norm(camera.position) for camera, _ in found])
    for spread in (heights, px_per_metre):
        low, high = np.quantile(spread, (0.05, 0.95))
        assert high >= 1.5 * low
    directions = np.array([camera.axes[1, :2] for camera, _ in found])
    assert (directions.min(0) < -0.8).all() and (directions.max(0) > 0.8).all(), "up in the picture is any direction"


def test_there_are_roads_everywhere_and_buildings_and_trees_in_most_pictures(monkeypatch) -> None:
    def stop(world: scene.World, *_: Any, **__: Any) -> None:
        raise Chosen(world.layout)

    monkeypatch.setattr(scene, "paint_view", stop)
    buildings, trees = [], []
    for index in range(24):
        with pytest.raises(Chosen) as chosen:
            scene.render_scene(0, "train", index, 160)
        (layout,) = chosen.value.args
        assert layout.roads and all(road.width > 4 for road in layout.roads)
        sizes = [np.ptp(solid.mesh.extent, axis=0) for solid in layout.solids if solid.fixed]
        buildings.append(sum(min(size[:2]) > 5 and size[2] > 2 for size in sizes))
        trees.append(sum(float((f.balls[:, 2] + f.balls[:, 3]).max()) > 2 for f in layout.foliage))
    for found in (buildings, trees):
        assert sum(count > 0 for count in found) > 12 and len(set(found)) > 3


def test_what_stands_up_casts_a_shadow_away_from_the_sun() -> None:
    camera = Camera.over((0.0, 0.0), 14.0, 0.4, 0.0, (320, 320), 350.0)
    east = np.diff(camera.project(np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))[0], axis=0)[0]

    def darkened(shadow: float, sun: tuple[float, float, float]) -> np.ndarray:
        """(N, 2) x, y of the ground that is darker than without the car, from the middle of the picture."""
        light = Light("sunny", np.array(sun) / np.linalg.norm(sun), shadow, 0.5, np.ones(3), 0.0)
        canvas = np.full((320, 320, 3), 200, np.uint8)
        seen = paint(canvas, camera, [Solid(car(np.random.default_rng(0)), 0.0, 0.0, 0.0, 0, 0)], [], light, 2)
        rows, columns = np.nonzero((seen.canvas[..., 1] < 190) & (seen.ids == 0))
        return np.column_stack((columns, rows)) - 160.0

    assert len(darkened(0.0, (1, 0, 1))) == 0
    for sun in (1.0, -1.0):
        away = darkened(0.5, (sun, 0, 1)) @ (east / np.linalg.norm(east)) * -sun
        assert len(away) > 100 and away.mean() > 10
    assert len(darkened(0.5, (1, 0, 0.5))) > 1.3 * len(darkened(0.5, (1, 0, 1))), "the lower the sun, the longer"


def test_dusk_and_night_are_darker_than_the_day_and_their_lamps_shine() -> None:
    camera = Camera.over((0.0, 0.0), 8.0, 0.0, 0.0, (32, 32), 35.0)
    grey, no_glow = np.full((32, 32, 3), 128, np.uint8), np.zeros((0, 6))

    def brightness(mood: str, lamps: list[tuple[float, float, float]]) -> list[float]:
        lights = [choose_light(np.random.default_rng(seed), mood) for seed in range(8)]
        return [float(shine(grey, light, camera, lamps, [], no_glow).mean()) for light in lights]

    day, dusk, night = (brightness(mood, []) for mood in ("sunny", "dusk", "night"))
    assert max(night) < min(dusk) + 10 and max(dusk) < 0.85 * min(day) and np.mean(night) < 0.7 * np.mean(dusk)
    lamp = [(0.0, 0.0, 6.0)]
    assert all(lit > dark + 1 for lit, dark in zip(brightness("dusk", lamp), dusk, strict=True))
    assert brightness("sunny", lamp) == day


def test_haze_takes_the_contrast() -> None:
    camera = Camera.over((0.0, 0.0), 8.0, 0.0, 0.0, (32, 32), 35.0)
    board = (np.indices((32, 32)).sum(0) // 4 % 2 * 160 + 40).astype(np.uint8)[..., None].repeat(3, 2)
    clear = replace(choose_light(np.random.default_rng(0), "hazy"), haze=0.0)
    seen = [
        shine(board, replace(clear, haze=haze), camera, [], [], np.zeros((0, 6))).std() for haze in (0.0, 0.25, 0.5)
    ]
    assert seen[0] > 1.1 * seen[1] > 1.1 * 1.1 * seen[2]


def test_noise_spreads_the_levels_of_a_flat_picture() -> None:
    flat = np.full((96, 96, 3), 120, np.uint8)
    assert (expose(np.random.default_rng(0), flat, FAULTLESS) == flat).all()
    spread = [expose(np.random.default_rng(0), flat, replace(FAULTLESS, noise=n)).std() for n in (2.0, 4.0, 8.0)]
    assert spread == pytest.approx([2.0, 4.0, 8.0], rel=0.25)


@pytest.mark.parametrize("fault", [{"smear": (3.5, 0.7)}, {"defocus": 0.8}], ids=["motion", "defocus"])
def test_blur_takes_the_edges(fault: dict[str, Any]) -> None:
    rough = np.random.default_rng(1).integers(0, 256, (96, 96, 3), np.uint8)
    sharp = expose(np.random.default_rng(0), rough, FAULTLESS)
    blurred = expose(np.random.default_rng(0), rough, replace(FAULTLESS, **fault))
    assert gradient_energy(blurred) < 0.5 * gradient_energy(sharp)
    assert blurred.mean() == pytest.approx(sharp.mean(), abs=2), "nothing else changes"


def test_cameras_blur_and_always_have_noise_and_more_of_it_in_the_dark() -> None:
    def sensors(mood: str) -> list[Sensor]:
        light = choose_light(np.random.default_rng(0), mood)
        return [choose_sensor(np.random.default_rng(seed), light) for seed in range(200)]

    day, dusk = sensors("sunny"), sensors("dusk")
    for found in (day, dusk):
        assert all(sensor.noise >= 1 for sensor in found)
        assert 20 <= sum(sensor.defocus > 0 for sensor in found) <= 100
    smeared = [sum(sensor.smear[0] >= 1.5 for sensor in found) for found in (day, dusk)]
    assert 10 <= smeared[0] < smeared[1] <= 100
    assert np.mean([s.noise for s in dusk]) > 1.5 * np.mean([s.noise for s in day])
