"""A pickle as a stranger may send it."""

from __future__ import annotations

from pathlib import Path


class Bomb:
    """Pickles to a call that leaves a mark where it is run."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))
