"""A line on the terminal that says how far a long step is and how long the rest may take."""

from __future__ import annotations

import sys
import time
from typing import TextIO

EVERY_S = 0.5  # between two writes of the line on a terminal
EVERY_S_LOG = 30.0  # between two lines where nobody can rewrite one


class Line:
    """Call it with (step, done, total).

    Args:
        stream: Where to write; the process's stderr if None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream
        self._step, self._start, self._last = "", 0.0, 0.0

    def __call__(self, step: str, done: int, total: int) -> None:
        """Write the line, if it is time."""
        now = time.monotonic()
        if step != self._step or done <= 1:
            self._step, self._start, self._last = step, now, now
        terminal = self.stream.isatty()
        if done < total and now - self._last < (EVERY_S if terminal else EVERY_S_LOG):
            return
        self._last = now
        spent = now - self._start
        left = f", about {clock(spent / done * (total - done))} left" if done and done < total else ""
        text = f"{step}: {done} of {total}{left}"
        self.stream.write(f"\r{text:<78}" + ("\n" if done == total else "") if terminal else f"{text}\n")
        self.stream.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds, as people read them.

    >>> clock(7.4), clock(75)
    ('7 s', '1 min 15 s')
    """
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"
