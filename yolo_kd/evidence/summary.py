"""What a report says first."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """What a search, or a training, came to.

    Args:
        good: Whether there is an artifact to ship, or a training without a fault.
        heading: The verdict in one line.
        lines: What it rests on.
        figures: (number, what it is) worth large letters.
    """

    good: bool
    heading: str
    lines: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
