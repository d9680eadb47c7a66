"""Which pictures stand for all: what each looks like, which are the same, and a choice that covers their variety.

Ranges of activations come from what the calibration set shows. Near-duplicates add time and nothing else; dark pictures,
rare classes and small objects add ranges. So the choice takes every class first, rarest first, and then always the picture
that is farthest from all that are taken (Gonzalez 1985: at most twice as far from the best cover), which makes every
beginning of the list a cover as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolo_kd.pictures.likeness import signs

SIDE = 640  # longest side to which objects are scaled before they are called small, medium or large
SIZES = (32.0, 96.0)  # COCO's limits, in pixels
SAME_SCENE_BITS, SAME_SCENE_LEVELS = 12, 10.0  # see `scenes`
CLASS_SHARE = 0.5  # of the set, at most, is taken for the sake of classes


@dataclass(frozen=True)
class Look:
    """What is known of a picture once its pixels are gone.

    Args:
        sha256: Of the file.
        pixel_sha256: Of the decoded pixels and their shape: equal for one picture stored twice without loss.
        bits: (64,) bool, signs of the lowest 8x8 frequencies.
        thumb: (8, 8) float32 grey levels.
        tone: (4,) brightness, contrast, colourfulness, sharpness, all roughly in [0, 1].
        sizes: Share of small, medium and large objects, then the number of objects / 20; zeros without labels.
        classes: Ids of the classes that occur.
    """

    sha256: str
    pixel_sha256: str
    bits: np.ndarray
    thumb: np.ndarray
    tone: np.ndarray
    sizes: np.ndarray
    classes: frozenset[int] = frozenset()


def look_at(
    pixels: np.ndarray, sha256: str, kinds: np.ndarray | None = None, boxes_xywhn: np.ndarray | None = None
) -> Look:
    """Describe a picture.

    Args:
        pixels: (H, W, 3) uint8 BGR.
        sha256: Of its file.
        kinds: (N,) class ids of its objects.
        boxes_xywhn: (N, 4) boxes as shares of the picture.
    """
    import cv2

    grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY)
    bits, small = signs(grey)
    levels = cv2.resize(pixels, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    detail = cv2.Laplacian(cv2.resize(grey, (160, 160), interpolation=cv2.INTER_AREA), cv2.CV_32F)
    tone = [
        grey.mean() / 255, grey.std() / 128, float(np.ptp(levels, axis=2).mean()) / 255,
        np.log1p(float(detail.std())) / 5,
    ]  # fmt: skip
    return Look(
        sha256=sha256,
        pixel_sha256=hashlib.sha256(repr(pixels.shape).encode() + np.ascontiguousarray(pixels).tobytes()).hexdigest(),
        bits=bits,
        thumb=cv2.resize(small, (8, 8), interpolation=cv2.INTER_AREA),
        tone=np.array(tone, np.float32),
        sizes=_sizes(pixels.shape[:2], boxes_xywhn),
        classes=frozenset() if kinds is None else frozenset(int(k) for k in kinds),
    )


def near_duplicates(looks: Sequence[Look], bits: int) -> list[int]:
    """Indices of pictures that differ from an earlier one, itself kept, in at most so many of their 64 bits."""
    dropped, kept = [], np.zeros((len(looks), 64), bool)
    count = 0
    for i, look in enumerate(looks):
        if count and (kept[:count] != look.bits).sum(1).min() <= bits:
            dropped.append(i)
        else:
            kept[count] = look.bits
            count += 1
    return dropped


def scenes(looks: Sequence[Look]) -> int:
    """How many scenes the pictures show.

    Two are of one scene if their bits differ in at most 12 places or their thumbnails by at most 10 grey levels on
    average, and so is what hangs together by such steps. Measured: each of four videos 1, 128 COCO pictures 128.
    """
    if not looks:
        return 0
    bits, thumbs = np.stack([k.bits for k in looks]), np.stack([k.thumb.ravel() for k in looks])
    open_, found = set(range(len(looks))), 0
    while open_:
        found += 1
        waiting = [open_.pop()]
        while waiting:
            i, rest = waiting.pop(), np.array(sorted(open_), int)
            near = (bits[rest] != bits[i]).sum(1) <= SAME_SCENE_BITS
            near |= np.abs(thumbs[rest] - thumbs[i]).mean(1) <= SAME_SCENE_LEVELS
            waiting += rest[near].tolist()
            open_ -= set(rest[near].tolist())
    return found


def spread(looks: Sequence[Look], count: int) -> list[int]:
    """Indices of `count` pictures that cover the variety of all, in the order in which they were taken."""
    count = min(count, len(looks))
    if not count:
        return []
    points = _points(looks)
    distance = np.full(len(looks), np.inf)
    taken: list[int] = []

    def take(index: int) -> None:
        taken.append(index)
        np.minimum(distance, ((points - points[index]) ** 2).sum(1), out=distance)
        distance[index] = -1.0  # never again

    take(int(((points - points.mean(0)) ** 2).sum(1).argmin()))
    for kind, need in _needs(looks, count):
        have = sum(kind in looks[i].classes for i in taken)
        holders = [i for i, look in enumerate(looks) if kind in look.classes]
        while have < need and len(taken) < max(1, int(count * CLASS_SHARE)):
            best = max(holders, key=lambda i: distance[i])
            if distance[best] < 0:
                break
            take(best)
            have += 1
    while len(taken) < count:
        take(int(distance.argmax()))
    return taken


def _needs(looks: Sequence[Look], count: int) -> list[tuple[int, int]]:
    """(class, pictures wanted of it), rarest first."""
    frequency: dict[int, int] = {}
    for look in looks:
        for kind in look.classes:
            frequency[kind] = frequency.get(kind, 0) + 1
    each = max(1, int(count * CLASS_SHARE) // max(len(frequency), 1))
    return [(k, min(each, n)) for k, n in sorted(frequency.items(), key=lambda item: (item[1], item[0]))]


def _points(looks: Sequence[Look]) -> np.ndarray:
    """(N, D) positions: scene, tone and objects weigh the same, whatever the number of their columns."""
    scene = np.stack([look.thumb.ravel() - look.thumb.mean() for look in looks])
    blocks = [scene, np.stack([look.tone for look in looks]), np.stack([look.sizes for look in looks])]
    scaled = []
    for block in blocks:
        centred = block - block.mean(0)
        scaled.append(centred / max(float(np.sqrt((centred**2).sum(1).mean())), 1e-6))
    return np.concatenate(scaled, 1).astype(np.float64)


def _sizes(size_hw: tuple[int, int], boxes_xywhn: np.ndarray | None) -> np.ndarray:
    if boxes_xywhn is None or not len(boxes_xywhn):
        return np.zeros(4, np.float32)
    scale = SIDE / max(size_hw)
    side = np.sqrt(boxes_xywhn[:, 2] * size_hw[1] * boxes_xywhn[:, 3] * size_hw[0]) * scale
    bins = np.bincount(np.digitize(side, SIZES), minlength=3)
    return np.array([*(bins / len(side)), min(len(side), 20) / 20], np.float32)
