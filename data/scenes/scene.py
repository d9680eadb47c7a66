"""One still picture with its labels, from a seed."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import cv2
import numpy as np
from yolo_kd.data.scenes.camera import Camera
from yolo_kd.data.scenes.ground import paint_ground
from yolo_kd.data.scenes.layout import Layout, build_layout
from yolo_kd.data.scenes.light import Light, choose_light, shine
from yolo_kd.data.scenes.mesh import Solid
from yolo_kd.data.scenes.painter import Painting, paint
from yolo_kd.data.scenes.sensor import Sensor, choose_sensor, expose
from yolo_kd.data.scenes.traffic import Actor, populate
from yolo_kd.data.scenes.zones import ZoneMap

from yolo_kd.errors import MisuseError, did_you_mean

# Part of every seed and manifest: raise it with every change that alters a picture or a label.
VERSION = 1
SPLITS = ("train", "val", "test")
OVERSAMPLE = 2
# Ground raster pixels per picture pixel; more than this is lost in the final reduction.
_GROUND_DETAIL = 1.6


@dataclass(frozen=True)
class Scene:
    """A picture and what is in it.

    Args:
        image: (h, w, 3) uint8 BGR.
        boxes_xywhn: (N, 4) centre x, centre y, width, height as shares of the picture.
        classes: (N,) class ids, see CLASSES.
        tracks: (N,) number of each object in its world; the same in all frames of a video.
    """

    image: np.ndarray
    boxes_xywhn: np.ndarray
    classes: np.ndarray
    tracks: np.ndarray


@dataclass(frozen=True)
class World:
    """Layout, its painted ground, who is in it, and the light."""

    layout: Layout
    ground: np.ndarray
    actors: list[Actor]
    light: Light


def render_scene(seed: int, split: str, index: int, size: int = 320) -> Scene:
    """Picture `index` of a split; it depends on the arguments and VERSION only.

    Args:
        seed: Seed of the data set, 0 or more.
        split: One of SPLITS; splits never share a layout.
        index: Number of the picture, 0 or more.
        size: Side of the square picture in pixels, 64 to 2048. Larger pictures show more ground and more detail.

    Raises:
        MisuseError: An argument is out of its range.
    """
    check_request(seed, split, index, size)
    rng = np.random.default_rng(np.random.SeedSequence([VERSION, seed, zlib.crc32(split.encode()), index, size]))
    camera = choose_camera(rng, (size, size))
    light = choose_light(rng)
    world = build_world(rng, camera, light, margin=4.0)
    painting = paint_view(world, camera, seconds=0.0)
    image = develop(rng, painting, world, camera, choose_sensor(rng, light))
    return to_scene(painting, image)


def check_request(seed: int, split: str, index: int, size: int) -> None:
    """Raise a MisuseError unless the arguments of `render_scene` are in range."""
    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS)
        raise MisuseError(f"split must be one of {', '.join(SPLITS)}, got {split!r}{hint}")
    for name, value, low, high in (("seed", seed, 0, 2**63), ("index", index, 0, 2**31), ("size", size, 64, 2048)):
        if not low <= value <= high:
            raise MisuseError(f"{name} must be from {low} to {high}, got {value}: choose one in that range")


def choose_camera(rng: np.random.Generator, size_wh: tuple[int, int]) -> Camera:
    """A drone at a random height, direction and tilt, looking at the origin."""
    side = float(np.sqrt(size_wh[0] * size_wh[1]))
    # 6 to 13 pixels per metre at 640: cars of 26 to 60 pixels. A smaller picture sees less ground as well as fewer
    # pixels (hence the root), or persons would vanish at 320.
    px_per_metre = 6.0 * (13.0 / 6.0) ** rng.random() * np.sqrt(side / 640)
    tilt = np.deg2rad(rng.uniform(0, 8) if rng.random() < 0.4 else rng.uniform(10, 32))
    return Camera.over(
        (0.0, 0.0), float(px_per_metre), float(rng.uniform(0, 2 * np.pi)), float(tilt), size_wh, 1.1 * side
    )


def build_world(
    rng: np.random.Generator,
    camera: Camera,
    light: Light,
    margin: float,
    only_view: bool = True,
    setting: str | None = None,
    crossing: bool | None = None,
) -> World:
    """Everything that a camera may see.

    Args:
        rng: Source of all choices.
        camera: The (first) view.
        light: Goes into the world as it is.
        margin: Metres of world around the view.
        only_view: Whether actors are put where the camera looks only; False fills the margin too.
        setting: See `build_layout`.
        crossing: See `build_layout`.
    """
    view = camera.footprint()
    low, high = view.min(0) - margin, view.max(0) + margin
    centre_scale = camera.focal / float(np.linalg.norm(camera.position - np.array([*view.mean(0), 0.0])))
    zones = ZoneMap((float(low[0]), float(low[1]), float(high[0]), float(high[1])), _GROUND_DETAIL * centre_scale)
    layout = build_layout(
        rng, zones, view, tallest=0.35 * float(camera.position[2]), setting=setting, crossing=crossing
    )
    if only_view:
        middle = view.mean(0)
        away = view - middle
        zones.close_outside(middle + away * (1 + margin / np.linalg.norm(away, axis=1, keepdims=True)))
    actors = populate(rng, layout, crowded=float(rng.random()))
    return World(layout, paint_ground(rng, layout), actors, light)


def paint_view(world: World, camera: Camera, seconds: float) -> Painting:
    """The world in full light at a time, on a canvas OVERSAMPLE times as large as the camera's picture."""
    large = camera.scaled(OVERSAMPLE)
    to_canvas = large.ground_to_pixels() @ world.layout.zones.to_ground()
    canvas = cv2.warpPerspective(
        world.ground, to_canvas, large.size_wh, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
    )
    solids = world.layout.solids + [actor.at(seconds, number) for number, actor in enumerate(world.actors)]
    return paint(canvas, large, solids, world.layout.foliage, world.light, OVERSAMPLE)


def develop(
    rng: np.random.Generator, painting: Painting, world: World, camera: Camera, sensor: Sensor, seconds: float = 0.0
) -> np.ndarray:
    """The final picture (h, w, 3) of a painting: reduced, lit, and seen through the sensor."""
    picture = cv2.resize(painting.canvas, camera.size_wh, interpolation=cv2.INTER_AREA)
    glows = painting.glows.copy()
    glows[:, :3] /= OVERSAMPLE
    beams = [_beam(actor.at(seconds, 0)) for actor in world.actors] if world.light.lamps_on else []
    shown = [beam for beam in beams if beam is not None]
    return expose(rng, shine(picture, world.light, camera, world.layout.lamps, shown, glows), sensor)


def to_scene(painting: Painting, image: np.ndarray) -> Scene:
    """Boxes as shares of the picture, beside the picture."""
    height, width = painting.canvas.shape[:2]
    x0, y0, x1, y1 = (painting.boxes_xyxy / (width, height, width, height)).T
    boxes = np.stack([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0], 1)
    return Scene(image, boxes, painting.classes, painting.tracks)


def _beam(solid: Solid) -> np.ndarray | None:
    """The ground that the head lamps of a driving vehicle light: (4, 2) metres."""
    if not solid.moving:
        return None
    front = float(solid.mesh.extent[1, 0])
    local = np.array([[front, -0.7], [front + 9.0, -2.4], [front + 9.0, 2.4], [front, 0.7]])
    cos, sin = np.cos(solid.heading), np.sin(solid.heading)
    return local @ np.array([[cos, sin], [-sin, cos]]) + (solid.x, solid.y)
