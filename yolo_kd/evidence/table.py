"""Rows of flat dictionaries as a table, for a terminal or for Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ABSENT = "-"


def number(value: float) -> str:
    """A number with four significant digits, or all digits before the point when it has more.

    >>> number(0.123456), number(1234567.8), number(3.0), number(16)
    ('0.1235', '1234568', '3', '16')
    """
    if isinstance(value, int):
        return str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def cell(value: Any) -> str:
    """One value as text; absent ones are a dash."""
    if value is None:
        return _ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, int | float) else str(value)


def columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys of all rows in the order in which they first appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for a terminal: columns padded, numbers to the right.

    >>> print(aligned([{"engine": "torch", "seconds": 12.5}, {"engine": "openvino", "seconds": 1.59}]))
    engine    seconds
    torch        12.5
    openvino     1.59
    """
    names = columns(rows)
    grid = [names, *([cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in grid) for i in range(len(names))]
    right = [_numeric(rows, name) for name in names]
    lines = (
        "  ".join(text.rjust(width) if r else text.ljust(width) for text, width, r in zip(line, widths, right))
        for line in grid
    )
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table for Markdown, numbers to the right.

    >>> print(markdown([{"a": 1, "b": "x|y"}]))
    | a | b |
    |---:|---|
    | 1 | x\\|y |
    """
    names = columns(rows)
    rule = "|".join("---:" if _numeric(rows, name) else "---" for name in names)
    body = (" | ".join(_escape(cell(row.get(name))) for name in names) for row in rows)
    return "\n".join([f"| {' | '.join(map(_escape, names))} |", f"|{rule}|", *(f"| {line} |" for line in body)])


def _numeric(rows: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether the column holds numbers only, absent values aside."""
    values = [row[name] for row in rows if row.get(name) is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
