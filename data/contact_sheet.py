"""A contact sheet of the field: one picture as it is, and under every corruption at its three strengths."""

from __future__ import annotations

import numpy as np
from yolo_kd.data.corruptions import STRENGTHS, corrupt, corruptions

WORDS = ("slight", "clear", "severe")
BAR = 26  # pixels above each picture for its name
GAP = 6
LONGEST = 256  # pixels of a picture's longer side on the sheet


def contact_sheet(picture: np.ndarray, seed: int = 0) -> np.ndarray:
    """Draw the sheet.

    Args:
        picture: (H, W, 3) uint8, BGR; spoilt at its own size, then scaled down.
        seed: Of what is random in a corruption.

    Returns:
        (H', W', 3) uint8, BGR: a row per corruption; the picture as it is, slight, clear, severe.
    """
    rows = []
    for name in corruptions():
        tiles = [_tile(picture, "as it is")]
        for strength, word in zip(STRENGTHS, WORDS, strict=True):
            tiles.append(_tile(corrupt(picture, name, strength, seed), f"{name.replace('_', ' ')}, {word}"))
        rows.append(np.concatenate(tiles, 1))
    return np.concatenate(rows, 0)


def _tile(picture: np.ndarray, words: str) -> np.ndarray:
    import cv2

    scale = LONGEST / max(picture.shape[:2])
    size_wh = (max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1))
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    tile = np.full((small.shape[0] + BAR + GAP, small.shape[1] + GAP, 3), 255, np.uint8)
    tile[BAR : BAR + small.shape[0], : small.shape[1]] = small
    return cv2.putText(tile, words, (2, BAR - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
