"""Which pictures a number was measured on, as a hash, and whether they were among those that ranges were measured on."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yolo_kd.data.split import Split, label_path
from yolo_kd.deploy.artifact import sha256

SHORT = 16  # hexadecimal digits of a picture's hash that a manifest keeps


@dataclass(frozen=True)
class Identity:
    """What a part of a data set was, byte by byte.

    Args:
        hash: SHA-256 over the pictures' hashes and those of their labels, in order.
        pictures: The first 16 digits of each picture's SHA-256.
    """

    hash: str
    pictures: tuple[str, ...]


def identify(split: Split) -> Identity:
    """Hash every picture of a part, and its labels."""
    whole = hashlib.sha256()
    pictures = []
    for image in split.images:
        digest = sha256(image)
        labels = label_path(image)
        whole.update(f"{digest} {sha256(labels) if labels.is_file() else '-'}\n".encode())
        pictures.append(digest[:SHORT])
    return Identity(whole.hexdigest(), tuple(pictures))


def overlap(seen: Identity, facts: Mapping[str, Any]) -> int:
    """How many of the pictures are among those that an artifact was calibrated on, by the bytes of their files.

    Args:
        seen: The evaluation pictures.
        facts: Of the artifact; `calibration.pictures` holds the first 16 digits of each picture's hash.
    """
    calibration = facts.get("calibration")
    known = calibration.get("pictures") if isinstance(calibration, Mapping) else None
    return len(set(known) & set(seen.pictures)) if isinstance(known, list) else 0
