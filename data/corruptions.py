"""Pictures as the field spoils them: blur, weather, darkness, noise, compression, at three strengths.

The values are those of cfg/augment/field.yaml, the transforms are Albumentations'. No transform moves anything, so the
labels stay.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
import yaml

from yolo_kd.errors import MisuseError, did_you_mean

STRENGTHS = (1, 2, 3)
FIELD = "field"


@cache
def corruptions(recipe: str = FIELD) -> Mapping[str, tuple[Any, ...]]:
    """Name to its value at the strengths 1, 2 and 3, of a file in cfg/augment."""
    text = files("yolo_kd.cfg").joinpath("augment", f"{recipe}.yaml").read_text(encoding="utf-8")
    return {name: tuple(values) for name, values in yaml.safe_load(text).items()}


def corrupt(image: np.ndarray, name: str, strength: int, seed: int = 0) -> np.ndarray:
    """A spoilt copy of a picture; the same arguments give the same copy.

    Args:
        image: (H, W, 3) uint8, BGR.
        name: One of `corruptions()`.
        strength: 1, 2 or 3.
        seed: Of what is random in it; take another for each picture.

    Raises:
        MisuseError: No such corruption or strength, or Albumentations is missing.
    """
    try:
        from albumentations import Compose
    except ImportError:
        raise MisuseError("corruptions need albumentations: pip install albumentations") from None
    transform = transform_of(name, strength, image.shape[:2])
    rgb = np.ascontiguousarray(image[..., ::-1])
    mixed = zlib.crc32(f"{name} {strength} {seed}".encode())  # the same for no two corruptions of one picture
    return np.ascontiguousarray(Compose([transform], seed=mixed)(image=rgb)["image"][..., ::-1])


def training_recipe(recipe: str, size: int, share: float) -> list[dict[str, Any]]:
    """The same for a training: a share of the pictures gets one corruption at one strength, all equally often.

    Args:
        recipe: Name of a file in cfg/augment.
        size: Side of the training pictures in pixels.
        share: Of the pictures that are spoilt, above 0 and up to 1.

    Returns:
        Transforms as plain values, as Ultralytics' `augmentations=` takes and its checkpoints keep them.

    Raises:
        MisuseError: Albumentations is missing.
    """
    try:
        from albumentations import OneOf, to_dict
    except ImportError:
        raise MisuseError('augment= needs albumentations: pip install "yolo-kd[train]"') from None
    kinds = [(name, strength) for name in corruptions(recipe) for strength in STRENGTHS]
    ways = [transform_of(name, strength, (size, size), recipe) for name, strength in kinds]
    return [to_dict(OneOf(ways, p=share))]


def transform_of(name: str, strength: int, size_hw: tuple[int, int], recipe: str = FIELD) -> Any:
    """The transform of Albumentations for pictures of one size, always applied.

    Raises:
        MisuseError: No such corruption or strength.
    """
    known = corruptions(recipe)
    if name not in known:
        raise MisuseError(f"{name}: no such corruption{did_you_mean(name, known)}; use one of {', '.join(known)}")
    if strength not in STRENGTHS:
        raise MisuseError(f"strength={strength}: expected 1, 2 or 3")
    return _BUILDERS[name](known[name][strength - 1], size_hw)


def _motion_blur(share: float, size_hw: tuple[int, int]) -> Any:
    import albumentations

    length = max(int(share * max(size_hw)) // 2 * 2 + 1, 3)  # kernels are odd
    return albumentations.MotionBlur(blur_limit=(length, length), allow_shifted=False, direction_range=(0, 0), p=1)


def _fog(share: float, size_hw: tuple[int, int]) -> Any:
    import albumentations

    return albumentations.RandomFog(fog_coef_range=(share, share), p=1)


def _rain(drops: tuple[float, int, float], size_hw: tuple[int, int]) -> Any:
    import albumentations

    share, width, brightness = drops
    length = max(round(share * max(size_hw)), 2)
    return albumentations.RandomRain(
        drop_length=length, drop_width=width, brightness_coefficient=brightness, blur_value=3, p=1
    )


def _low_light(exponent: float, size_hw: tuple[int, int]) -> Any:
    import albumentations

    percent = 100 * exponent
    return albumentations.RandomGamma(gamma_limit=(percent, percent), p=1)


def _sensor_noise(share: float, size_hw: tuple[int, int]) -> Any:
    import albumentations

    return albumentations.GaussNoise(std_range=(share, share), p=1)


def _jpeg(quality: int, size_hw: tuple[int, int]) -> Any:
    import albumentations

    return albumentations.ImageCompression(quality_range=(quality, quality), p=1)


def _downscale(share: float, size_hw: tuple[int, int]) -> Any:
    import albumentations
    import cv2

    ways = {"downscale": cv2.INTER_AREA, "upscale": cv2.INTER_LINEAR}
    return albumentations.Downscale(scale_range=(share, share), interpolation_pair=ways, p=1)


_BUILDERS: dict[str, Callable[[Any, tuple[int, int]], Any]] = {
    "motion_blur": _motion_blur,
    "fog": _fog,
    "rain": _rain,
    "low_light": _low_light,
    "sensor_noise": _sensor_noise,
    "jpeg": _jpeg,
    "downscale": _downscale,
}
