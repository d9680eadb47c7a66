"""From what a tensor was seen to hold to the range that its 256 levels cover.

A range costs twice: rounding grows with its width, clipping with what lies outside. `mse` takes the range whose squared
error is least *after the activation that reads the tensor*: for x * sigmoid(x) everything below -6 or so is 0 anyway, so
levels spent there are lost. With YOLOv8n on COCO images this is most of the difference between a blind and a seeing INT8
net where the runtime quantizes before the activation, as ONNX Runtime has to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

BINS = 8192  # over [-limit, limit]; at least 2048 of them hold values, 8 per level
SAMPLES = 1 << 16  # values of one tensor and image that enter the histogram
LEVELS = 255
STEPS = 32  # ends tried in one sweep
SWEEPS = 3
Function = Callable[[np.ndarray], np.ndarray]


@dataclass
class Histogram:
    """What a tensor held, over all images: exact ends, and counts on a grid that doubles as it must.

    The grid's limit is a power of two, and two bins become one when it doubles, so the result does not depend on the order
    of the images.
    """

    low: float = np.inf
    high: float = -np.inf
    limit: float = 2.0**-10
    counts: np.ndarray = field(default_factory=lambda: np.zeros(BINS, np.int64))

    def add(self, values: np.ndarray) -> None:
        """Take in the values of one image."""
        flat = values.ravel()
        self.low, self.high = min(self.low, float(flat.min())), max(self.high, float(flat.max()))
        while max(-self.low, self.high) >= self.limit:
            wider = np.zeros_like(self.counts)
            wider[BINS // 4 : BINS * 3 // 4] = self.counts[::2] + self.counts[1::2]
            self.counts, self.limit = wider, self.limit * 2
        step = -(-flat.size // SAMPLES) | 1  # odd, so that it does not keep to some columns of a picture
        # a power of two times a float is exact, so a value falls into the same bin whatever the limit was before
        bins = np.floor(flat[::step] * np.float32(BINS / (2 * self.limit))).astype(np.int32) + BINS // 2
        self.counts += np.bincount(bins, minlength=BINS)

    @property
    def centres(self) -> np.ndarray:
        """(BINS,) the value in the middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * self.limit / BINS) - self.limit


@dataclass(frozen=True)
class Grid:
    """value = (code - zero) * scale, with codes from 0 to 255."""

    scale: float
    zero: int

    def round(self, values: np.ndarray) -> np.ndarray:
        """The values that the levels stand for."""
        return (np.clip(np.rint(values / self.scale) + self.zero, 0, LEVELS) - self.zero) * self.scale


def grid(low: float, high: float) -> Grid:
    """Levels over a range, widened so that 0 is one of them exactly.

    >>> grid(0.0, 255.0), grid(-1.0, 1.0).zero
    (Grid(scale=1.0, zero=0), 127)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / LEVELS)) or 2.0**-20  # a tensor that is always 0
    return Grid(scale, int(np.clip(round(-low / scale), 0, LEVELS)))


def min_max(seen: Histogram) -> Grid:
    """The range that was seen."""
    return grid(seen.low, seen.high)


def percentile(seen: Histogram, percent: float) -> Grid:
    """The range without the outermost values, `(100 - percent) / 2` percent at either end."""
    total = np.cumsum(seen.counts)
    outside = (100 - percent) / 200 * total[-1]
    centres = seen.centres
    low = centres[np.searchsorted(total, outside, side="right")]
    high = centres[min(np.searchsorted(total, total[-1] - outside), BINS - 1)]
    return grid(max(low, seen.low), min(high, seen.high))


def least_error(seen: Histogram, function: Function | None = None) -> Grid:
    """The range with the least squared error of `function(rounded)` against `function(value)`.

    Both ends are swept in turn over 32 shares of what was seen, and the lower one over values near 0 as well, where
    activations saturate.

    Args:
        seen: What the tensor held.
        function: What reads it; the identity if None.
    """
    full = seen.counts > 0
    values, share = seen.centres[full], seen.counts[full] / seen.counts.sum()
    wanted = values if function is None else function(values)

    def error(low: float, high: float) -> float:
        rounded = grid(low, high).round(values)
        return float(share @ (rounded - wanted if function is None else function(rounded) - wanted) ** 2)

    shares = np.arange(STEPS, 0, -1) / STEPS
    lows = sorted({*(min(seen.low, 0.0) * shares), *(v for v in np.arange(-12, 0, 0.5) if v > seen.low)})
    highs = sorted({*(max(seen.high, 0.0) * shares)}, reverse=True)
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    for _ in range(SWEEPS):
        high = min(highs, key=lambda h: error(low, h))
        low = min(lows, key=lambda v: error(v, high))
    return grid(low, high)


def silu(values: np.ndarray) -> np.ndarray:
    """x * sigmoid(x)."""
    return values * sigmoid(values)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow."""
    return 1 / (1 + np.exp(-np.clip(values, -60, 60)))


def weight_scales(weight: np.ndarray, per_channel: bool, search: bool) -> np.ndarray:
    """(O,) scales of symmetric INT8 weights.

    Args:
        weight: (O, ...) values.
        per_channel: One scale per output channel instead of one for all.
        search: Take the one of 21 shares of the largest weight that has the least squared error.
    """
    flat = weight.reshape(len(weight), -1) if per_channel else weight.reshape(1, -1)
    best = np.abs(flat).max(1) / 127
    best[best == 0] = 2.0**-20
    if search:
        whole, least = best.copy(), np.full(len(flat), np.inf)
        for part in np.linspace(1, 0.6, 21):
            scale = (whole * part)[:, None]
            error = ((np.clip(np.rint(flat / scale), -127, 127) * scale - flat) ** 2).sum(1)
            better = error < least
            least[better], best[better] = error[better], scale[better, 0]
    return np.broadcast_to(best, len(weight)).astype(np.float32)
