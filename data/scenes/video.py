"""A short flight over moving traffic, with labels for every frame."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from yolo_kd.data.labels import label_text
from yolo_kd.data.scenes.camera import Camera
from yolo_kd.data.scenes.light import choose_light
from yolo_kd.data.scenes.scene import VERSION, Scene, build_world, develop, paint_view, to_scene
from yolo_kd.data.scenes.sensor import choose_sensor, steady

from yolo_kd.errors import MisuseError, YoloKDError

# Metres of world beyond the first view: the drift below, and vehicles that start their lane over out of sight.
_MARGIN = 26.0
_DRIFT = 6.0


def render_video(
    path: Path, frames: int = 120, fps: int = 25, size_wh: tuple[int, int] = (640, 360), seed: int = 0
) -> Path:
    """Write a video (MPEG-4, `.mp4`) and its labels, `<stem>_labels/000000.txt` and so on, beside it.

    Args:
        path: File to create; it and the folder of labels must not exist yet.
        frames: Number of frames, at least 1.
        fps: Frames per second, 1 to 120.
        size_wh: Even width and height in pixels, 64 to 2048.
        seed: Seed of the world, 0 or more.

    Returns:
        The path of the video.

    Raises:
        MisuseError: An argument is out of range, or the files exist.
        YoloKDError: This OpenCV cannot write MPEG-4, or a file could not be written.
    """
    path = Path(path).expanduser().resolve()
    labels = path.with_name(f"{path.stem}_labels")
    if path.suffix != ".mp4":
        raise MisuseError(f"a video path must end in .mp4, got {path.name}: rename it")
    for existing in (path, labels):
        if existing.exists():
            raise MisuseError(f"{existing} exists already: delete it or choose another name")
    scenes = fly(frames, fps, size_wh, seed)
    partial = path.parent / f".{path.stem}.{secrets.token_hex(4)}.partial"
    try:
        partial.mkdir(parents=True)
        (partial / "labels").mkdir()
        writer = cv2.VideoWriter(str(partial / "video.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), fps, size_wh)
        if not writer.isOpened():
            raise YoloKDError("OpenCV could not open an mp4v writer: install an opencv-python-headless with FFmpeg")
        try:
            for number, scene in enumerate(scenes):
                writer.write(scene.image)
                (partial / "labels" / f"{number:06d}.txt").write_text(label_text(scene.boxes_xywhn, scene.classes))
        finally:
            writer.release()
        (partial / "labels").rename(labels)
        (partial / "video.mp4").rename(path)
    except OSError as error:
        raise YoloKDError(
            f"video could not be written to {path.parent}: {error}; free space or choose a path"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def fly(frames: int, fps: int, size_wh: tuple[int, int], seed: int) -> Iterator[Scene]:
    """The frames of `render_video`, one by one; `Scene.tracks` tells which object is which in all of them.

    Raises:
        MisuseError: An argument is out of range.
    """
    if frames < 1 or not 1 <= fps <= 120 or seed < 0:
        raise MisuseError(f"wanted frames >= 1, fps 1 to 120, seed >= 0; got frames={frames} fps={fps} seed={seed}")
    if any(side % 2 or not 64 <= side <= 2048 for side in size_wh):
        raise MisuseError(f"size_wh must be two even numbers from 64 to 2048, got {size_wh}: MPEG-4 needs even sides")
    return _frames(frames, fps, size_wh, seed)


def _frames(frames: int, fps: int, size_wh: tuple[int, int], seed: int) -> Iterator[Scene]:
    rng = np.random.default_rng(np.random.SeedSequence([VERSION, seed, *size_wh]))
    side = float(np.sqrt(size_wh[0] * size_wh[1]))
    scale, yaw, tilt = (
        rng.uniform(7.0, 9.0) * np.sqrt(side / 640),
        rng.uniform(-0.5, 0.5),
        np.deg2rad(rng.uniform(8, 24)),
    )
    first = Camera.over((0.0, 0.0), float(scale), float(yaw), float(tilt), size_wh, 1.1 * side)
    light = choose_light(rng, str(rng.choice(["sunny", "sunny", "overcast"])))
    setting = str(rng.choice(["urban", "urban", "suburb"]))
    # No crossing: traffic there would have to give way.
    world = build_world(rng, first, light, _MARGIN, only_view=False, setting=setting, crossing=False)
    sensor = replace(steady(choose_sensor(rng, light)), contrast=1.0, gamma=1.0)
    phase = rng.uniform(0, 2 * np.pi, 3)
    for number in range(frames):
        seconds = number / fps
        # Slow swings with periods of 20 to 30 s: the hover of a drone in light wind.
        swing = np.sin(phase + seconds * 2 * np.pi / np.array([20.0, 26.0, 30.0]))
        target = (float(_DRIFT * swing[0]), float(0.6 * _DRIFT * swing[1]))
        camera = Camera.over(target, float(scale), float(yaw + 0.06 * swing[2]), float(tilt), size_wh, 1.1 * side)
        painting = paint_view(world, camera, seconds)
        noise = np.random.default_rng(np.random.SeedSequence([VERSION, seed, *size_wh, number]))
        yield to_scene(painting, develop(noise, painting, world, camera, sensor, seconds))
