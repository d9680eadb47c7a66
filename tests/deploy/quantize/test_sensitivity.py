"""Errors of the head's outputs, their ranking, and how many layers go back to float."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from yolo_kd.deploy.quantize.sensitivity import LayerError, accuracy_aware, head_error, rank


def entries(box: float = 0.0, logit: float = 0.0) -> dict[str, np.ndarray]:
    """One level of 1 x 2 cells: an object (logit 0) in the first, background (logit -60) in the second."""
    boxes = np.full((1, 4, 1, 2), 3.0)
    boxes[..., 1] += box
    return {"boxes": boxes, "scores": np.array([[[[0.0, -60.0 + logit]]]])}


def test_errors_of_the_background_do_not_count() -> None:
    assert head_error(entries(), entries(), {"scores"}) == 0
    assert head_error(entries(), entries(box=100.0), {"scores"}) < 1e-6
    assert head_error(entries(), entries(logit=30.0), {"scores"}) < 1e-6
    assert head_error(entries(), entries(box=100.0), set()) > 1


def test_an_error_by_hand() -> None:
    """Boxes 3 become 3.3 at the object: relative error .1; scores are equal: mean .05."""
    found = entries()
    found["boxes"] = found["boxes"] * 1.1
    assert head_error(entries(), found, {"scores"}) == pytest.approx(0.05)


def test_the_worst_layer_comes_first() -> None:
    sizes = {"a": 1.01, "b": 1.2, "c": 1.05}

    def alone(layer: str) -> list[dict[str, np.ndarray]]:
        return [{"boxes": entries()["boxes"] * sizes[layer], "scores": entries()["scores"]}] * 3

    seen: list[Any] = []
    rows = rank(list(sizes), [entries()] * 3, alone, {"scores"}, lambda *step: seen.append(step))
    assert [row.layer for row in rows] == ["b", "c", "a"]
    assert rows[0].error == pytest.approx(0.1)
    assert seen[-1] == ("sensitivity of layers", 3, 3)


RANKING = [LayerError(name, 1.0 / (i + 1)) for i, name in enumerate("abcdef")]


def restore(metric_of: Any, max_drop: float = 0.01, least: int = 0) -> tuple[Any, list[int]]:
    made: list[int] = []

    def make(layers: tuple[str, ...]) -> tuple[str, ...]:
        made.append(len(layers))
        return layers

    return accuracy_aware(RANKING, make, lambda net: metric_of(len(net)), 0.5, max_drop, least), made


def test_a_plain_net_that_is_good_enough_is_all_that_is_made() -> None:
    found, made = restore(lambda n: 0.495)
    assert found.enough and found.layers == () and made == [0]


def test_a_plain_net_that_is_known_to_fall_short_is_not_tried() -> None:
    found, made = restore(lambda n: 0.495, least=1)
    assert found.layers == ("a",) and made == [1]
    assert restore(lambda n: 0.4, least=99)[1] == [6]  # all there are


def test_layers_go_back_until_it_is_enough() -> None:
    found, made = restore(lambda n: 0.25 + 0.0625 * n)
    assert made == [0, 1, 2, 4] and found.layers == ("a", "b", "c", "d") and found.enough
    assert found.tried == ((0, 0.25), (1, 0.3125), (2, 0.375), (4, 0.5))


def test_the_best_is_returned_where_nothing_is_enough() -> None:
    found, made = restore(lambda n: 0.45 if n == 2 else 0.4)
    assert made == [0, 1, 2, 4, 6] and not found.enough
    assert found.layers == ("a", "b") and found.metric == 0.45 and len(found.tried) == 5
