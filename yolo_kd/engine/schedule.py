"""How strongly the terms act as training goes on."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """The factor that all gains are multiplied by.

    Args:
        kind: "constant"; "linear" and "cosine" fall from 1 to 0 over the distilled part of the run (YOLOv6 and
            DAMO-YOLO let theirs fall to .01 and .1); "mosaic" is 1 until mosaic closes (RTMDet's choice), then 0.
        until: Share of the run after which the factor is 0.
    """

    kind: str = "constant"
    until: float = 1.0

    def factor(self, progress: float, mosaic_closed: bool) -> float:
        """The factor in [0, 1] at `progress`, the share of the run's epochs that are done.

        >>> s = Schedule("linear", until=0.5)
        >>> [s.factor(p, False) for p in (0, 0.25, 0.5)]
        [1.0, 0.5, 0.0]
        """
        if progress >= self.until or (self.kind == "mosaic" and mosaic_closed):
            return 0.0
        done = progress / self.until
        if self.kind == "linear":
            return 1.0 - done
        if self.kind == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * done))
        return 1.0
