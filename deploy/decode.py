"""From a net's raw output to candidate boxes, vectorised over its cells.

The rules are those of Ultralytics' `predict`: a cell speaks for its best class only, and only if that score is strictly
above the threshold. Thresholding comes first, so that everything after it touches a handful of cells.
"""

from __future__ import annotations

import numpy as np

from yolo_kd.errors import MisuseError, YoloKDError

ROW = 6  # x1, y1, x2, y2, score, class of a net with its own suppression


def decode(
    raw: np.ndarray, nc: int, confidence: float, end2end: bool, multi_label: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The boxes of one picture whose best score is above `confidence`, in the net's order.

    Args:
        raw: (4 + nc, cells) of centre x, centre y, width, height and one score per class; for an end-to-end net (N, 6)
            of x1, y1, x2, y2, score and class. Pixels of the net's input; a leading 1 for the batch is accepted.
        nc: Number of classes.
        confidence: Threshold in [0, 1].
        end2end: Which of the two it is.
        multi_label: A cell speaks for every class above `confidence`, as in Ultralytics' validation; average precision
            needs that. No matter to an end-to-end net.

    Returns:
        boxes_xyxy_net (K, 4) float32 in pixels of the net's input, scores (K,) float32, class_id (K,) int64; all copies.

    Raises:
        MisuseError: The shape is not that of such a detector.
        YoloKDError: A number that is not finite, or a class that does not exist.
    """
    check_shape(raw.shape, nc, end2end)
    raw = raw[0] if raw.ndim == 3 else raw
    return _decode_rows(raw, nc, confidence) if end2end else _decode_cells(raw, confidence, multi_label)


def check_shape(shape: tuple[int, ...], nc: int, end2end: bool) -> None:
    """Stop if a net's output has not the shape of a detector's.

    Raises:
        MisuseError: It has not; the message names both.
    """
    inner = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(inner) != 2 or (inner[1] != ROW if end2end else inner[0] != 4 + nc):
        wanted = f"(1, N, {ROW}) of an end-to-end detector" if end2end else f"(1, {4 + nc}, cells) for {nc} classes"
        raise MisuseError(f"the net gives {tuple(shape)}, expected {wanted}; it is no such detector, export it again")


def _decode_cells(raw: np.ndarray, confidence: float, multi_label: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    best = raw[4:].max(axis=0)  # NaN wins a maximum, so one look at `best` sees every score
    _check_finite(best, "scores")
    _check_finite(raw[:4], "boxes")
    kept = np.flatnonzero(best > np.float32(confidence))
    scores, class_id = best[kept].astype(np.float32, copy=False), raw[4:, kept].argmax(axis=0)
    if multi_label:
        every = raw[4:, kept]
        cells, class_id = np.nonzero(np.float32(confidence) < every.T)
        kept, scores = kept[cells], every[class_id, cells].astype(np.float32, copy=False)
    boxes = raw[:4, kept].astype(np.float32, copy=False)
    half = boxes[2:] / 2
    return np.concatenate((boxes[:2] - half, boxes[:2] + half)).T, scores, class_id.astype(np.int64, copy=False)


def _decode_rows(raw: np.ndarray, nc: int, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    _check_finite(raw, "boxes or scores")
    rows = raw[raw[:, 4] > np.float32(confidence)].astype(np.float32, copy=False)
    class_id = rows[:, 5].astype(np.int64)
    if len(rows) and not 0 <= class_id.min() <= class_id.max() < nc:
        raise YoloKDError(
            f"the net names class {class_id.min()} to {class_id.max()}, it has 0 to {nc - 1}; it is damaged or was badly "
            "quantized, do not use it"
        )
    return rows[:, :4], rows[:, 4], class_id


def _check_finite(values: np.ndarray, what: str) -> None:
    finite = np.isfinite(values)
    if not finite.all():
        raise YoloKDError(
            f"the net's {what} hold {values.size - int(finite.sum())} of {values.size} numbers that are NaN or infinite; "
            "try precision=f32, or export or quantize it again"
        )
