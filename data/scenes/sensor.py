"""What the flying camera adds: defocus, motion blur, noise, vignetting, exposure, JPEG blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from yolo_kd.data.scenes.light import Light


@dataclass(frozen=True)
class Sensor:
    """The faults of one camera.

    Args:
        defocus: Gaussian sigma in pixels, 0 for none.
        smear: Length in pixels and direction in radians of the motion blur; length below 1.5 is none.
        noise: Standard deviation in grey levels.
        vignette: How much darker the corners are, 0-1.
        contrast: Factor around mid grey.
        gamma: Exponent of the tone curve.
        jpeg: Quality 1-100.
    """

    defocus: float
    smear: tuple[float, float]
    noise: float
    vignette: float
    contrast: float
    gamma: float
    jpeg: int


def choose_sensor(rng: np.random.Generator, light: Light) -> Sensor:
    """Random faults; dark scenes are noisier and more blurred, as exposure and gain go up."""
    dark = light.lamps_on
    smear = float(rng.uniform(2, 4)) if rng.random() < (0.3 if dark else 0.15) else 0.0
    return Sensor(
        defocus=float(rng.uniform(0.4, 0.9)) if rng.random() < 0.3 else 0.0,
        smear=(smear, float(rng.uniform(0, np.pi))),
        noise=float(rng.uniform(3, 8) if dark else rng.uniform(1, 5)),
        vignette=float(rng.uniform(0.0, 0.25)),
        contrast=float(rng.uniform(0.55, 0.8) if rng.random() < 0.12 else rng.uniform(0.85, 1.15)),
        gamma=float(rng.uniform(0.8, 1.2)),
        jpeg=int(rng.integers(38, 95)),
    )


def steady(sensor: Sensor) -> Sensor:
    """The same camera without the faults that a video codec and a gimbal take away or add themselves."""
    return replace(sensor, defocus=0.0, smear=(0.0, 0.0), noise=min(sensor.noise, 2.5), jpeg=100)


def expose(rng: np.random.Generator, picture: np.ndarray, sensor: Sensor) -> np.ndarray:
    """The picture (h, w, 3) uint8 as the camera delivers it; a new picture of the same kind."""
    height, width = picture.shape[:2]
    if sensor.smear[0] >= 1.5:
        picture = cv2.filter2D(picture, -1, _smear_kernel(*sensor.smear))
    if sensor.defocus:
        picture = cv2.GaussianBlur(picture, (0, 0), sensor.defocus)
    levels = np.arange(256) / 255
    curve = np.clip((levels**sensor.gamma - 0.5) * sensor.contrast + 0.5, 0, 1) * 255
    exposed = cv2.LUT(picture, np.round(curve).astype(np.uint8)).astype(np.float32)
    if sensor.vignette > 0.02:
        y, x = np.linspace(-1, 1, height, dtype=np.float32), np.linspace(-1, 1, width, dtype=np.float32)
        exposed *= (1 - sensor.vignette * (y[:, None] ** 2 + x[None] ** 2) / 2)[..., None]
    # Demosaicing leaves fine noise in the brightness and coarser noise in the colours.
    exposed += sensor.noise * 0.8 * rng.standard_normal((height, width, 1), np.float32)
    coarse = rng.standard_normal((height // 2 + 1, width // 2 + 1, 3), np.float32) * np.float32(sensor.noise * 0.9)
    exposed += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    result = np.clip(exposed, 0, 255).astype(np.uint8)
    if sensor.jpeg < 100:
        _, packed = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, sensor.jpeg])
        result = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return result


def _smear_kernel(length: float, direction: float) -> np.ndarray:
    size = 2 * int(np.ceil(length / 2)) + 1
    kernel = np.zeros((size, size), np.float32)
    middle, half = size / 2 - 0.5, length / 2
    dx, dy = half * np.cos(direction), half * np.sin(direction)
    ends = [(round((middle + s * dx) * 16), round((middle + s * dy) * 16)) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_8, 4)
    return kernel / kernel.sum()
