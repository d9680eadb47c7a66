"""Ranges from what was seen: exact counts, and the least error after the activation."""

from __future__ import annotations

import numpy as np
import pytest
from yolo_kd.deploy.quantize.ranges import (
    Grid,
    Histogram,
    grid,
    least_error,
    min_max,
    percentile,
    sigmoid,
    silu,
    weight_scales,
)


def seen(*parts: np.ndarray) -> Histogram:
    found = Histogram()
    for part in parts:
        found.add(part)
    return found


def spread(seed: int, scale: float, size: int = 40_000) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)


def test_the_order_of_images_does_not_matter() -> None:
    parts = [spread(0, 0.1), spread(1, 30.0), spread(2, 2.0)]
    forward, backward = seen(*parts), seen(*parts[::-1])
    assert forward.limit == backward.limit == 256.0
    assert (forward.counts == backward.counts).all() and forward.counts.sum() == 120_000
    values = np.concatenate(parts)
    assert (forward.low, forward.high) == (values.min(), values.max())


def test_the_histogram_counts_what_numpy_counts() -> None:
    values = spread(3, 5.0)
    found = seen(values)
    wanted, _ = np.histogram(values, bins=len(found.counts), range=(-found.limit, found.limit))
    assert (found.counts == wanted).all()


def test_zero_is_always_a_level() -> None:
    for low, high in [(-1.3, 2.7), (0.5, 3.0), (-3.0, -0.5), (0.0, 0.0)]:
        found = grid(low, high)
        assert found.round(np.zeros(1)) == 0.0 and found.scale > 0


def test_a_grid_by_hand() -> None:
    """0 to 510 in 255 steps of 2: 3 lies between 2 and 4 and goes to the even code 2 * 2, 600 is cut at 510."""
    assert min_max(seen(np.array([0.0, 510.0]))) == Grid(2.0, 0)
    assert Grid(2.0, 0).round(np.array([3.0, 600.0, -7.0])).tolist() == [4.0, 510.0, 0.0]


def test_percentile_leaves_out_the_tails() -> None:
    values = np.concatenate([np.linspace(-1, 1, 99_000), np.full(500, -50.0), np.full(500, 50.0)])
    found = Histogram()
    for part in np.array_split(np.random.default_rng(0).permutation(values), 10):
        found.add(part)
    kept = percentile(found, 98.0)
    assert kept.scale * 255 == pytest.approx(2.0, abs=0.1)
    assert percentile(found, 100.0).scale * 255 == pytest.approx(100.0, abs=0.1)


def error(values: np.ndarray, found: Grid, function=lambda x: x) -> float:
    return float(((function(found.round(values)) - function(values)) ** 2).mean())


def test_least_error_cuts_off_what_is_rare_enough() -> None:
    """4.2 million values up to 1 and one 100: keeping it costs (100 / 255)^2 / 12 = .0128 on average, a range up to 16
    (16 / 255)^2 / 12 + 84^2 / 4.2e6 = .0020."""
    found = Histogram()
    bulk = np.random.default_rng(4).uniform(0, 1, 60_000)
    for _ in range(70):
        found.add(bulk)
    found.add(np.array([100.0]))
    assert least_error(found).scale * 255 < 20 < min_max(found).scale * 255


def test_least_error_is_about_the_best_of_all_ranges() -> None:
    values = np.random.default_rng(5).laplace(size=50_000).astype(np.float32)
    found = error(values, least_error(seen(values)))
    every = [
        error(values, grid(low, high))
        for low in np.linspace(values.min(), -1, 30)
        for high in np.linspace(1, values.max(), 30)
    ]
    assert found <= 1.05 * min(every)


def test_levels_are_not_spent_where_the_activation_is_flat() -> None:
    values = spread(6, 10.0)
    for function in (silu, sigmoid):
        found = least_error(seen(values), function)
        assert -found.zero * found.scale > -12.5
        assert error(values, found, function) < 0.5 * error(values, least_error(seen(values)), function)


def test_weight_scales_by_hand() -> None:
    weight = np.array([[1.27, -0.5], [0.0, 0.0], [0.1, -2.54]], np.float32)
    assert weight_scales(weight, True, False) == pytest.approx([0.01, 2.0**-20, 0.02])
    assert weight_scales(weight, False, False) == pytest.approx([0.02, 0.02, 0.02])


def test_searched_weight_scales_are_never_worse() -> None:
    weight = np.random.default_rng(7).normal(size=(8, 50_000)).astype(np.float32)

    def lost(scales: np.ndarray) -> np.ndarray:
        codes = np.clip(np.rint(weight / scales[:, None]), -127, 127)
        return ((codes * scales[:, None] - weight) ** 2).sum(1)

    plain, found = lost(weight_scales(weight, True, False)), lost(weight_scales(weight, True, True))
    assert (found <= plain).all() and found.sum() < 0.97 * plain.sum()
