"""The arithmetic of choosing a teacher engine: measured rows in, the fastest that agrees with float32 out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from yolo_kd.engine.agreement import Agreement

TINY = 1e-9  # in place of a limit of 0, to divide by


@dataclass(frozen=True)
class Limits:
    """How far an engine may be from float32.

    Args:
        feature: Relative error of any neck map (`max_feature_error`).
        score: Score error, see `Agreement` (`max_score_error`).
    """

    feature: float
    score: float


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        engine: Its name.
        agreement: With float32; None if it did not run.
        ms: Milliseconds per image; None if it did not run.
        trouble: Why it did not run.
    """

    engine: str
    agreement: Agreement | None = None
    ms: float | None = None
    trouble: str = ""


def objection(row: Row, limits: Limits, strides: Sequence[int]) -> str:
    """Why this row cannot be chosen: the worst numbers with limit and key; empty if it can.

    >>> objection(Row("x", Agreement((0.01, 0.2), 0.05), 3.0), Limits(0.05, 0.1), (8, 16))
    'P4 .200 > max_feature_error .050'
    """
    if row.agreement is None:
        return row.trouble
    found = row.agreement
    if not all(map(math.isfinite, [*found.features, found.score, found.score_mean, found.score_max])):
        return "outputs are not finite"
    error, stride = max(zip(found.features, strides, strict=True))
    reasons = []
    if error > limits.feature:
        reasons.append(f"{level_name(stride)} {_short(error)} > max_feature_error {_short(limits.feature)}")
    if found.score > limits.score:
        reasons.append(f"score {_short(found.score)} > max_score_error {_short(limits.score)}")
    return ", ".join(reasons)


def decide(rows: Sequence[Row], limits: Limits, strides: Sequence[int]) -> str | None:
    """Name of the fastest engine without objection, None if there is none."""
    good = [row for row in rows if row.ms is not None and not objection(row, limits, strides)]
    return min(good, key=lambda row: row.ms or 0.0).engine if good else None


def least_off(rows: Sequence[Row], limits: Limits) -> str | None:
    """Name of the engine that ran and exceeds its limits by the smallest factor, None if none ran."""

    def excess(row: Row) -> float:
        assert row.agreement is not None
        feature, score = max(limits.feature, TINY), max(limits.score, TINY)
        worst = max(max(row.agreement.features) / feature, row.agreement.score / score)
        return math.inf if math.isnan(worst) else worst

    ran = [row for row in rows if row.agreement is not None]
    return min(ran, key=excess).engine if ran else None


def table(rows: Sequence[Row], limits: Limits, strides: Sequence[int], chosen: str | None) -> Iterator[str]:
    """The rows as aligned lines, a heading first."""
    width = max(len("teacher engine"), *(len(row.engine) for row in rows))
    levels = " ".join(f"{level_name(s):>5}" for s in strides)
    yield f"{'teacher engine':<{width}} {levels} {'score':>5} {'ms/image':>8}  (errors against float32)"
    for row in rows:
        if row.agreement is None or row.ms is None:
            numbers = " ".join([f"{'-':>5}"] * (len(strides) + 1)) + f" {'-':>8}"
        else:
            errors = [*row.agreement.features, row.agreement.score]
            numbers = " ".join(f"{_short(e):>5}" for e in errors) + f" {row.ms:>8.1f}"
        verdict = objection(row, limits, strides) or ("chosen" if row.engine == chosen else "passes")
        yield f"{row.engine:<{width}} {numbers}  {verdict}"


def level_name(stride: int) -> str:
    """The usual name of a pyramid level.

    >>> level_name(8), level_name(32)
    ('P3', 'P5')
    """
    return f"P{int(math.log2(stride))}"


def _short(number: float) -> str:
    """Three decimals without a leading zero.

    >>> _short(0.0421), _short(1.5)
    ('.042', '1.500')
    """
    return f"{number:.3f}".removeprefix("0") if number < 1 else f"{number:.3f}"
