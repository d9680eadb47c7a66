"""Raw outputs worked by hand, and the numbers that must not pass in silence."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy.decode import check_shape, decode

from yolo_kd.errors import MisuseError, YoloKDError


def test_a_case_by_hand(cells) -> None:
    raw = cells([(10, 20, 4, 6), (30, 30, 10, 10), (50, 50, 1, 3)], [[0.1, 0.6], [0.2, 0.2], [0.9, 0.3]])
    boxes, scores, class_id = decode(raw, 2, 0.25, end2end=False)
    assert boxes.tolist() == [[8, 17, 12, 23], [49.5, 48.5, 50.5, 51.5]]
    assert scores.tolist() == pytest.approx([0.6, 0.9])
    assert class_id.tolist() == [1, 0]
    assert (boxes.dtype, scores.dtype, class_id.dtype) == (np.float32, np.float32, np.int64)


def test_a_score_at_the_threshold_is_not_above_it(cells) -> None:
    raw = cells([(5, 5, 2, 2), (9, 9, 2, 2)], [[0.25], [np.nextafter(np.float32(0.25), np.float32(1))]])
    assert len(decode(raw, 1, 0.25, end2end=False)[0]) == 1


def test_a_cell_speaks_for_its_best_class_only(cells) -> None:
    _, scores, class_id = decode(cells([(5, 5, 2, 2)], [[0.8, 0.9, 0.7]]), 3, 0.25, end2end=False)
    assert class_id.tolist() == [1] and scores.tolist() == pytest.approx([0.9])


def test_of_equal_classes_the_first_wins(cells) -> None:
    assert decode(cells([(5, 5, 2, 2)], [[0.1, 0.5, 0.5]]), 3, 0.25, end2end=False)[2].tolist() == [1]


def test_the_batch_of_one_may_be_left_out(cells) -> None:
    raw = cells([(5, 5, 2, 2)], [[0.5]])
    for one, other in zip(decode(raw, 1, 0.1, False), decode(raw[0], 1, 0.1, False), strict=True):
        assert np.array_equal(one, other)


def test_rows_of_an_end_to_end_net() -> None:
    raw = np.array([[[1, 2, 3, 4, 0.9, 1], [5, 6, 7, 8, 0.3, 0], [0, 0, 0, 0, 0.25, 0]]], np.float32)
    boxes, scores, class_id = decode(raw, 2, 0.25, end2end=True)
    assert boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert scores.tolist() == pytest.approx([0.9, 0.3]) and class_id.tolist() == [1, 0]


@pytest.mark.parametrize("end2end", [False, True])
def test_nothing_found_is_empty_of_the_right_shape(end2end: bool) -> None:
    raw = np.zeros((1, 300, 6) if end2end else (1, 84, 300), np.float32)
    boxes, scores, class_id = decode(raw, 80, 0.25, end2end)
    assert (boxes.shape, scores.shape, class_id.shape) == ((0, 4), (0,), (0,))


@pytest.mark.parametrize("end2end", [False, True])
def test_the_result_is_a_copy(end2end: bool) -> None:
    raw = np.array([[[1, 2, 3, 4, 0.9, 1]]], np.float32) if end2end else np.full((1, 6, 1), 0.5, np.float32)
    found = decode(raw, 2, 0.25, end2end)
    before = [part.copy() for part in found]
    raw[:] = 0
    assert all(np.array_equal(one, other) for one, other in zip(found, before, strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 3, 4, 5])
def test_a_number_that_is_not_finite_is_an_error(cells, value: float, row: int) -> None:
    raw = cells([(5, 5, 2, 2)] * 4, [[0.1, 0.2]] * 4)
    raw[0, row, 2] = value
    if row >= 4:  # the cell's best score: -inf in one class hides behind the other, so both
        raw[0, 4:, 2] = value
    with pytest.raises(YoloKDError, match=r"NaN or infinite; try precision=f32"):
        decode(raw, 2, 0.25, end2end=False)


def test_one_nan_among_good_scores_is_seen(cells) -> None:
    raw = cells([(5, 5, 2, 2)] * 2, [[0.1, 0.9]] * 2)
    raw[0, 4, 1] = np.nan
    with pytest.raises(YoloKDError, match="1 of 2 numbers"):
        decode(raw, 2, 0.25, end2end=False)


def test_a_row_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(YoloKDError, match="NaN or infinite"):
        decode(np.array([[[1, 2, np.nan, 4, 0.1, 1]]], np.float32), 2, 0.25, end2end=True)


@pytest.mark.parametrize("index", [-1, 2, 90])
def test_a_class_that_does_not_exist_is_an_error(index: int) -> None:
    with pytest.raises(YoloKDError, match="it has 0 to 1"):
        decode(np.array([[[1, 2, 3, 4, 0.9, index]]], np.float32), 2, 0.25, end2end=True)


@pytest.mark.parametrize(
    ("shape", "end2end"),
    [((1, 85, 10), False), ((84, 10, 1), False), ((1, 1000), False), ((2, 84, 10), False), ((1, 300, 7), True)],
)
def test_another_shape_is_named(shape: tuple[int, ...], end2end: bool) -> None:
    with pytest.raises(MisuseError, match=r"expected \(1, .*export it again"):
        check_shape(shape, 80, end2end)
    with pytest.raises(MisuseError, match="it is no such detector"):
        decode(np.zeros(shape, np.float32), 80, 0.25, end2end)
