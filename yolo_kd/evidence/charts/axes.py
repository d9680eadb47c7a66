"""From numbers to places on paper: ranges, round ticks, and how wide a text is going to be."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from itertools import pairwise

FONT = 12.0  # pixels; `svg text` in page_style.py
_WIDTH = 0.62  # of a letter, in font sizes: DejaVu Sans, the widest of the fonts that are asked for


@dataclass(frozen=True)
class Axis:
    """A linear scale.

    Args:
        low: Value at `start`.
        high: Value at `end`; above `low`.
        start: Pixel of `low`.
        end: Pixel of `high`; below `start` on an axis that goes up.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside the range are put on its edge.

        >>> Axis(0, 10, 100, 200)(2.5), Axis(0, 1, 300, 0)(2)
        (125.0, 0.0)
        """
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values inside the range, see `round_ticks`."""
        return round_ticks(self.low, self.high, count)


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten in [low, high], about `count` of them.

    >>> round_ticks(0, 52), round_ticks(0.361, 0.377, 4)
    ([0.0, 10.0, 20.0, 30.0, 40.0, 50.0], [0.365, 0.37, 0.375])
    """
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(math.log(factor * power / raw)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def padded(low: float, high: float, least: float, share: float = 0.08) -> tuple[float, float]:
    """The range with some air on both sides, and never narrower than `least`.

    >>> padded(10, 20, 1), padded(0.5, 0.5, 0.02, 0.0)
    ((9.2, 20.8), (0.49, 0.51))
    """
    lack = max(least - (high - low), 0.0) / 2
    low, high = low - lack, high + lack
    return low - share * (high - low), high + share * (high - low)


def decimals(values: list[float]) -> int:
    """How many digits after the point tell neighbours apart.

    >>> decimals([0.36, 0.365, 0.37]), decimals([0, 20, 40]), decimals([3])
    (3, 0, 0)
    """
    step = min((b - a for a, b in pairwise(values)), default=1.0)
    return max(0, -math.floor(math.log10(step) + 1e-9))


def text_width(text: str, size: float = FONT) -> float:
    """A little more than the pixels that a text takes: letters of East Asia are twice as wide as others."""
    return size * sum(1.05 if unicodedata.east_asian_width(c) in "WF" else _WIDTH for c in text)
