"""Time of day and weather: where the sun is, how the lamps shine, and what the air does to the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from yolo_kd.data.scenes.camera import Camera

MOODS = ("sunny", "overcast", "hazy", "dusk", "night")


@dataclass(frozen=True)
class Light:
    """The light of one scene.

    Args:
        mood: One of MOODS.
        sun: (3,) unit vector towards the sun (or the brightest part of the sky).
        shadow: How much darker a shadow is, 0-1.
        ambient: Light that reaches faces turned away from the sun, share of the full light.
        tint: (3,) BGR factors of the whole picture.
        haze: Share of white in the farthest part of the picture.
    """

    mood: str
    sun: np.ndarray
    shadow: float
    ambient: float
    tint: np.ndarray
    haze: float

    @property
    def lamps_on(self) -> bool:
        """Whether vehicles and street lamps shine."""
        return self.mood in ("dusk", "night")


def choose_light(rng: np.random.Generator, mood: str | None = None) -> Light:
    """Random light; `mood` is one of MOODS or None for chance."""
    mood = mood or MOODS[rng.choice(5, p=[0.42, 0.24, 0.10, 0.12, 0.12])]
    turn = rng.uniform(0, 2 * np.pi)
    low, high = {"sunny": (28, 65), "overcast": (50, 75), "hazy": (30, 60), "dusk": (12, 24), "night": (40, 70)}[mood]
    height = np.deg2rad(rng.uniform(low, high))
    sun = np.array([np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height), np.sin(height)])
    shadow = {
        "sunny": (0.45, 0.68),
        "overcast": (0.08, 0.22),
        "hazy": (0.15, 0.3),
        "dusk": (0.15, 0.4),
        "night": (0.0, 0.15),
    }
    ambient = {"sunny": 0.5, "overcast": 0.75, "hazy": 0.65, "dusk": 0.6, "night": 0.7}[mood]
    base, bright = {
        "sunny": ((0.94, 1.0, 1.04), (0.92, 1.2)),
        "overcast": ((1.03, 1.0, 0.97), (0.72, 1.0)),
        "hazy": ((1.02, 1.0, 0.99), (0.8, 1.05)),
        "dusk": ((0.86, 0.88, 1.06), (0.42, 0.72)),
        "night": ((1.18, 0.98, 0.86), (0.26, 0.46)),
    }[mood]
    tint = np.array(base) * rng.uniform(*bright) * rng.uniform(0.96, 1.04, 3)
    haze = float(rng.uniform(0.2, 0.5)) if mood == "hazy" else float(rng.uniform(0.0, 0.08))
    return Light(mood, sun, float(rng.uniform(*shadow[mood])), ambient, tint, haze)


def shine(
    picture: np.ndarray,
    light: Light,
    camera: Camera,
    lamps: list[tuple[float, float, float]],
    beams: list[np.ndarray],
    glows: np.ndarray,
) -> np.ndarray:
    """Put a picture painted in full light into its light and air.

    Args:
        picture: (h, w, 3) uint8 BGR.
        light: What to apply.
        camera: The camera of `picture`.
        lamps: x, y, z of street lamps in metres.
        beams: (4, 2) ground polygons in metres in front of driving vehicles.
        glows: (K, 6) x, y in pixels, radius in pixels, BGR of shining faces.

    Returns:
        (h, w, 3) uint8 BGR, a new picture.
    """
    height, width = picture.shape[:2]
    level: np.ndarray = light.tint.astype(np.float32).reshape(1, 1, 3)
    if light.lamps_on:
        share = np.float32(1.0 if light.mood == "night" else 0.35)
        level = level + share * _pools((height, width), camera, lamps, beams)
    lit = picture * level
    if light.haze > 0.01:
        veil = np.linspace(light.haze, light.haze * 0.55, height, dtype=np.float32)[:, None, None]
        air = np.array([206.0, 202.0, 196.0], np.float32) * np.float32(min(1.0, light.tint.mean()))
        lit = lit * (1 - veil) + veil * air
    if light.lamps_on and len(glows):
        lit = lit + _glow((height, width), glows)
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _pools(
    shape: tuple[int, int], camera: Camera, lamps: list[tuple[float, float, float]], beams: list[np.ndarray]
) -> np.ndarray:
    """Light that lamps throw on the ground, float32 (h, w, 3); a quarter of the resolution is enough for soft light."""
    small = np.zeros((shape[0] // 4 + 1, shape[1] // 4 + 1, 3), np.float32)
    scale = 1.0
    if lamps:
        ground = np.array([(x, y, 0.0) for x, y, _ in lamps])
        pixels, scales = camera.project(ground)
        scale = float(scales.mean())
        for (x, y), s in zip(pixels, scales):
            for metres, share in ((9.0, 0.22), (5.5, 0.3), (3.0, 0.3)):
                if abs(x) < 1e4 and abs(y) < 1e4:
                    layer = np.zeros_like(small)
                    cv2.circle(layer, (int(x / 4), int(y / 4)), max(1, int(metres * s / 4)), (0.42, 0.72, 1.0), -1)
                    small += layer * share
    for beam in beams:
        pixels, scales = camera.project(np.concatenate([beam, np.zeros((len(beam), 1))], 1))
        scale = float(scales.mean())
        layer = np.zeros_like(small)
        cv2.fillConvexPoly(layer, np.round(pixels / 4).astype(np.int32), (0.55, 0.62, 0.66))
        small += layer
    soft = cv2.GaussianBlur(small, (0, 0), max(1.0, 0.35 * scale))
    return cv2.resize(soft, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _glow(shape: tuple[int, int], glows: np.ndarray) -> np.ndarray:
    """The lamps themselves with a small halo, float32 (h, w, 3)."""
    layer = np.zeros((*shape, 3), np.uint8)
    for x, y, radius, *color in glows.tolist():
        cv2.circle(layer, (round(x * 8), round(y * 8)), round(max(0.7, radius) * 8), color, -1, cv2.LINE_AA, 3)
    halo = cv2.GaussianBlur(layer, (0, 0), 2.2)
    return layer.astype(np.float32) + 1.1 * halo.astype(np.float32)
