"""`augment=field`: training pictures as the field spoils them, through Ultralytics' own `augmentations=`.

They are plain Albumentations transforms, so that a checkpoint resumes where yolo-kd is not installed. They take the place
of the few that Ultralytics applies to 1 % of the pictures by default (blur, grey, CLAHE).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yolo_kd.cfg.settings import DistillSettings
from yolo_kd.data.corruptions import training_recipe
from yolo_kd.errors import MisuseError

DEFAULT_SIZE = 640  # Ultralytics' imgsz


def augmentations(kd: DistillSettings, theirs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What `augment=` puts into Ultralytics' `augmentations=`.

    Raises:
        MisuseError: Both are given.
    """
    if theirs.get("augmentations"):
        raise MisuseError(f"augment={kd.augment}: together with augmentations=, which it fills; use one of them")
    size = theirs.get("imgsz") or DEFAULT_SIZE
    side = max(size) if isinstance(size, list | tuple) else int(size)
    return training_recipe(str(kd.augment), side, kd.augment_share)


def check_channels(trainer: Any) -> None:
    """Refuse pictures that the transforms do not take.

    Raises:
        MisuseError: The data are no colour pictures.
    """
    channels = trainer.data["channels"]
    if trainer.kd.augment and channels != 3:
        raise MisuseError(f"augment={trainer.kd.augment}: is for pictures of 3 channels, the data has {channels}")
