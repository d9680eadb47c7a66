"""distill_maps.jpg: labels, boxes of both, the teacher's attention and the energy of both necks, for some val pictures.

A block of three rows for each picture: labels and the teacher's attention on each level; the teacher's boxes and the
energy of its neck; the student's. The colours of a level mean the same for teacher and student.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from yolo_kd.cfg.atomic import write_bytes
from yolo_kd.deploy.detections import Detections
from yolo_kd.deploy.drawing import FONT_SCALE, class_colour, draw, fitted, printable
from yolo_kd.engine.maps import Maps
from yolo_kd.errors import YoloKDError

NAME = "distill_maps.jpg"
SIDE = 300  # pixels of the longer side of a panel
HEADER = 22
GAP = 4
PAPER, INK = 255, (40, 40, 40)


def draw_maps(pictures: Sequence[Maps], path: Path) -> None:
    """Write the picture in one move.

    Args:
        pictures: What was seen; at least one.
        path: The file.

    Raises:
        YoloKDError: It cannot be encoded or written.
    """
    import cv2

    blocks = [_block(maps) for maps in pictures]
    width = max(block.shape[1] for block in blocks)
    rows = [np.pad(b, ((0, 2 * GAP), (0, width - b.shape[1]), (0, 0)), constant_values=PAPER) for b in blocks]
    done, data = cv2.imencode(".jpg", np.concatenate(rows), [cv2.IMWRITE_JPEG_QUALITY, 88])
    if not done:
        raise YoloKDError(f"{path}: the picture cannot be encoded")
    write_bytes(path, data.tobytes(), "project")


def heat(frame: np.ndarray, values: np.ndarray, highest: float) -> np.ndarray:
    """The frame in grey under a map in colours, from dark (0) to bright (`highest` and above).

    Args:
        frame: (H, W, 3) uint8.
        values: (h, w), stretched over the frame cell by cell.
        highest: Value of the brightest colour.
    """
    import cv2

    levels = (255 * np.clip(values / max(highest, 1e-9), 0, 1)).astype(np.uint8)
    size_wh = (frame.shape[1], frame.shape[0])
    colours = cv2.applyColorMap(cv2.resize(levels, size_wh, interpolation=cv2.INTER_NEAREST), cv2.COLORMAP_INFERNO)
    grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(grey, 0.5, colours, 0.75, 0)


def _block(maps: Maps) -> np.ndarray:
    rows: list[list[np.ndarray]] = []
    small, _ = fitted(maps.frame, maps.labels, SIDE, enlarge=True)
    for title, found, which in (
        ("labels", maps.labels, "attention"),
        ("teacher", maps.teacher, "teacher"),
        ("student", maps.student, "student"),
    ):
        row = [_panel(_boxes(maps.frame, found), f"{title}: {len(found)} {'box' if len(found) == 1 else 'boxes'}")]
        for level in maps.levels:
            values = getattr(level, which)
            both = np.concatenate((level.teacher.ravel(), level.student.ravel()))
            highest = 1.0 if which == "attention" else float(np.quantile(both, 0.995))
            what = "teacher's attention" if which == "attention" else f"{which}'s energy"
            row.append(_panel(heat(small, values, highest), f"{level.name} {what}"))
        rows.append(row)
    grid = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    return np.concatenate((_heading(maps, grid.shape[1]), grid))


def _heading(maps: Maps, width: int) -> np.ndarray:
    """The file, and the colour of each class that occurs."""
    import cv2

    name = Path(maps.name).name
    line = _line(name, width)
    left = cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, 1)[0][0] + 16
    kinds = np.unique(np.concatenate([found.class_id for found in (maps.labels, maps.teacher, maps.student)]))
    for kind in kinds.tolist():
        text = printable(maps.labels.names[kind], kind)
        cv2.rectangle(line, (left, 5), (left + 11, HEADER - 6), class_colour(kind), -1)
        cv2.putText(line, text, (left + 16, HEADER - 7), cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, INK, 1, cv2.LINE_AA)
        left += cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, 1)[0][0] + 30
    return line


def _boxes(frame: np.ndarray, found: Detections) -> np.ndarray:
    panel, boxes = fitted(frame, found, SIDE, enlarge=True)
    return draw(panel, boxes, np.zeros(len(boxes), bool))


def _panel(picture: np.ndarray, title: str) -> np.ndarray:
    padded = np.pad(picture, ((0, GAP), (0, GAP), (0, 0)), constant_values=PAPER)
    return np.concatenate((_line(title, padded.shape[1]), padded))


def _line(text: str, width: int) -> np.ndarray:
    import cv2

    line = np.full((HEADER, width, 3), PAPER, np.uint8)
    cv2.putText(line, text, (1, HEADER - 7), cv2.FONT_HERSHEY_SIMPLEX, FONT_SCALE, INK, 1, cv2.LINE_AA)
    return line
