"""Boxes on a picture, for people: legible on any background, a colour for each class."""

from __future__ import annotations

import colorsys
import unicodedata
from dataclasses import replace

import numpy as np
from yolo_kd.deploy.detections import Detections

GOLDEN = 0.618034  # of the colour circle from one class to the next: neighbours never look alike
FONT_SCALE = 0.42
LOUD, QUIET = 4, 2  # pixels


def class_colour(index: int) -> tuple[int, int, int]:
    """The BGR colour of a class id: the same in every picture.

    >>> class_colour(0) == class_colour(0) != class_colour(1)
    True
    """
    red, green, blue = colorsys.hsv_to_rgb((0.58 + index * GOLDEN) % 1.0, 0.8 if index % 2 else 0.65, 1.0)
    return round(255 * blue), round(255 * green), round(255 * red)


def fitted(frame: np.ndarray, found: Detections, longest: int, enlarge: bool = False) -> tuple[np.ndarray, Detections]:
    """Frame and boxes made smaller, so that the longer side has at most this many pixels.

    Args:
        frame: (H, W, 3) uint8.
        found: Boxes on it.
        longest: Pixels.
        enlarge: Make a small one larger too: the longer side has exactly so many.
    """
    import cv2

    height, width = frame.shape[:2]
    share = longest / max(height, width) if enlarge else min(1.0, longest / max(height, width))
    size_wh = max(1, round(width * share)), max(1, round(height * share))
    scale = np.array([size_wh[0] / width, size_wh[1] / height] * 2, np.float32)
    resized = cv2.resize(frame, size_wh, interpolation=cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR)
    return resized, replace(found, xyxy=found.xyxy * scale, size_hw=(size_wh[1], size_wh[0]))


def draw(frame: np.ndarray, found: Detections, loud: np.ndarray | None = None) -> np.ndarray:
    """A copy of the frame with boxes.

    Args:
        frame: (H, W, 3) uint8 in BGR.
        found: Boxes on it.
        loud: (N,) whether a box is drawn thick, with name and confidence; the others thin, without. All if None.
    """
    out = np.ascontiguousarray(frame).copy()
    stressed = np.ones(len(found), bool) if loud is None else np.asarray(loud, bool)
    order = [*np.flatnonzero(~stressed), *np.flatnonzero(stressed)[::-1]]  # loud ones on top, the surest last
    for index in order:
        _rectangle(out, found.xyxy[index], class_colour(int(found.class_id[index])), stressed[index])
    for index in order:
        if stressed[index]:
            kind = int(found.class_id[index])
            text = f"{printable(found.names[kind], kind)} {found.confidence[index]:.2f}"
            _tag(out, found.xyxy[index], text, class_colour(kind))
    return out


def printable(name: str, kind: int) -> str:
    """The name in letters that OpenCV has: accents go, and where nothing is left the class id stands for it.

    >>> printable("piéton", 0), printable("行人", 3)
    ('pieton', 'class 3')
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return "".join(c for c in plain if c.isprintable()).strip() or f"class {kind}"


def _rectangle(out: np.ndarray, box: np.ndarray, colour: tuple[int, int, int], loud: bool) -> None:
    import cv2

    low, high = _corners(out, box)
    if loud:
        cv2.rectangle(out, low, high, (0, 0, 0), LOUD + 2)  # a dark rim stands out on a background of the same colour
    cv2.rectangle(out, low, high, colour, LOUD if loud else QUIET)


def _tag(out: np.ndarray, box: np.ndarray, text: str, colour: tuple[int, int, int]) -> None:
    """The text on its class's colour above the box, or inside it where there is no room above."""
    import cv2

    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, 1)
    (left, top), _ = _corners(out, box)
    left = max(0, min(left - 1, out.shape[1] - width - 4))
    bottom = top if top - height - below - 3 >= 0 else top + height + below + 3
    cv2.rectangle(out, (left, bottom - height - below - 3), (left + width + 4, bottom), colour, -1)
    dark = 0.114 * colour[0] + 0.587 * colour[1] + 0.299 * colour[2] > 110
    ink = (0, 0, 0) if dark else (255, 255, 255)
    cv2.putText(out, text, (left + 2, bottom - below), cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, ink, 1, cv2.LINE_AA)


def _corners(out: np.ndarray, box: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    limit = np.array([out.shape[1], out.shape[0]] * 2) - 1
    left, top, right, bottom = np.clip(np.rint(box), 0, limit).astype(int).tolist()
    return (left, top), (right, bottom)
