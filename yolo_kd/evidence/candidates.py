"""What a search for a recipe found, and what it came to in words.

Formulas: the speed-up of a candidate is the median time of the fastest float on the same device, whatever back end and
precision that ran in, divided by the candidate's; its drop is the AP of the fastest float of its own back end (of any, if
that was not measured) minus its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from yolo_kd.evidence.summary import Summary

Kind = Literal["float", "passed", "rejected", "failed", "not judged"]


@dataclass(frozen=True)
class Row:
    """A candidate, or a float net beside which candidates are judged.

    Args:
        name: What it is called.
        backend: "openvino" or "onnx".
        precision: What really ran, such as "int8+bf16" or "f32".
        settings: The recipe in a few words.
        ap: Average precision in [0, 1]; None if it was not measured.
        by_size: AP of "small", "medium" and "large" boxes; None where there is none.
        p50_ms: Median milliseconds per frame (a second by the frames in it, for throughput); None if it was not timed.
        p95_ms: The 95th percentile.
        size_mb: Size of the files in megabytes.
        verdict: "float" for what is no candidate, otherwise "passed", "rejected", "failed" if it could not be made, or "not
            judged" if its turn at the gate never came.
        reasons: Why not.
        chosen: Whether it is the one to ship.
        held_out: AP of it and of its float on pictures that it was not chosen on, if `ap` is of those that it was.
    """

    name: str
    backend: str
    precision: str
    settings: str
    ap: float | None
    by_size: Mapping[str, float | None]
    p50_ms: float | None
    p95_ms: float | None
    size_mb: float
    verdict: Kind
    reasons: tuple[str, ...] = ()
    chosen: bool = False
    held_out: tuple[float, float] | None = None


@dataclass(frozen=True)
class Pair:
    """One picture twice, with the float's boxes and with the candidate's.

    Args:
        title: What the picture is called.
        parent_jpeg: With the float's boxes.
        candidate_jpeg: With the candidate's.
        kind: "disagree most" or "typical".
        caption: Where they disagree, in words.
    """

    title: str
    parent_jpeg: bytes
    candidate_jpeg: bytes
    kind: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Report:
    """All that the report of a quantization shows.

    Args:
        title: Heading.
        facts: Machine, instruction set, data, split, hashes, versions, command: name to value.
        rows: Floats and candidates in any order.
        worst_layers: Layer and its error when it alone is quantized, the worst first.
        pairs: Pictures with the boxes of both.
        notes: Lines that the reader must not miss.
        max_drop: AP that a candidate may lose; None if that is not known.
        throughput: Whether times are those of a stream, several frames under way, and not of single frames.
    """

    title: str
    facts: Mapping[str, str]
    rows: Sequence[Row]
    worst_layers: Sequence[tuple[str, float]] = ()
    pairs: Sequence[Pair] = ()
    notes: Sequence[str] = ()
    max_drop: float | None = None
    throughput: bool = False


def known(value: float | None) -> float | None:
    """The value, or None where it is no number."""
    return value if value is not None and math.isfinite(value) else None


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Fastest first; those without a time last."""
    return sorted(rows, key=lambda row: (known(row.p50_ms) is None, known(row.p50_ms) or 0.0))


def fastest_float(rows: Sequence[Row]) -> Row | None:
    """The float net with the lowest median time, whatever ran it; None if no float was timed."""
    floats = (row for row in ranked(rows) if row.verdict == "float")
    return next((row for row in floats if known(row.p50_ms)), None)


def parent_of(row: Row, rows: Sequence[Row]) -> Row | None:
    """The float whose AP a candidate is compared with; None if no float has one."""
    floats = [r for r in ranked(rows) if r.verdict == "float" and known(r.ap) is not None]
    own = [r for r in floats if r.backend == row.backend]
    return next(iter([*own, *floats]), None)


def drop(row: Row, rows: Sequence[Row]) -> float | None:
    """AP that a candidate loses against its float; negative if it gains."""
    parent, ap = parent_of(row, rows), known(row.ap)
    return None if parent is None or parent.ap is None or ap is None else parent.ap - ap


def speed_up(row: Row, rows: Sequence[Row]) -> float | None:
    """How many times as fast as the fastest float."""
    base, ms = fastest_float(rows), known(row.p50_ms)
    return None if base is None or base.p50_ms is None or not ms else base.p50_ms / ms


def summarise(report: Report) -> Summary:
    """The verdict in words, and the numbers that it rests on."""
    rows = report.rows
    tried = [row for row in rows if row.verdict != "float"]
    passed = [row for row in tried if row.verdict == "passed"]
    chosen = next((row for row in rows if row.chosen), None)
    if chosen is None and not tried:
        return Summary(False, "No INT8 candidate was tried")
    if chosen is None and passed:
        return Summary(False, f"{len(passed)} of {_count(tried)} passed, and none was chosen", _why_not(tried))
    if chosen is None:
        unknown = sum(row.verdict == "not judged" for row in tried)
        but = f", {unknown} {'was' if unknown == 1 else 'were'} not judged" if unknown else ""
        return Summary(False, f"{_none_of(tried)}{but}: keep the float model", _why_not(tried))
    lines = [speed_line(chosen, report), _precision_line(chosen, report), *chosen.reasons]
    if chosen.verdict == "float":
        heading = f"The float model {chosen.name} was chosen: {len(passed)} of {_count(tried)} passed the gate"
        return Summary(False, heading, (*lines, *_why_not(tried)), _figures(chosen, report))
    if chosen.verdict != "passed":
        return Summary(
            False, f"{chosen.name} was chosen although it {_was(chosen)}", tuple(lines), _figures(chosen, report)
        )
    heading = f"{chosen.name} passed and was chosen"
    return Summary(True, heading, tuple(lines), _figures(chosen, report))


def speed_line(row: Row, report: Report) -> str:
    """Its speed in words, against the fastest float of any back end that the report has, and against the others."""
    rows, how_timed = report.rows, "several under way" if report.throughput else "median"
    base, times = fastest_float(rows), speed_up(row, rows)
    if row.p50_ms is None or known(row.p50_ms) is None:
        return "It was not timed on this device."
    ran = f"{row.p50_ms:.2f} ms per frame ({how_timed}, in {row.precision})"
    if base is None or base.p50_ms is None or times is None:
        return f"{ran}; no float was timed, so there is no speed-up to quote."
    if base is row:
        return f"{ran}, the fastest float on this device."
    how = f"{times:.2f} × the speed of" if times >= 1 else f"slower ({times:.2f} ×) than"
    line = f"{ran}: {how} the fastest float on this device, {base.name} in {base.precision} ({base.p50_ms:.2f} ms)"
    others = [r for r in ranked(rows) if r.verdict == "float" and r is not base and known(r.p50_ms)]
    more = [f"{(r.p50_ms or 0.0) / row.p50_ms:.2f} × {r.name} in {r.precision} ({r.p50_ms:.2f} ms)" for r in others]
    return "; ".join([line, *more]) + "."


def _count(tried: Sequence[Row]) -> str:
    return "the one candidate" if len(tried) == 1 else f"the {len(tried)} candidates"


def _none_of(tried: Sequence[Row]) -> str:
    return "The one candidate did not pass" if len(tried) == 1 else f"None of the {len(tried)} candidates passed"


def _was(row: Row) -> str:
    return {"rejected": "was rejected", "not judged": "was not judged"}.get(row.verdict, "failed")


def _why_not(tried: Sequence[Row]) -> tuple[str, ...]:
    """The first reason of the three that came closest."""
    lost = sorted((r for r in tried if r.verdict != "passed"), key=lambda r: -(known(r.ap) or 0.0))
    return tuple(f"{row.name} {_was(row)}: {row.reasons[0] if row.reasons else 'no reason given'}" for row in lost[:3])


def _precision_line(row: Row, report: Report) -> str:
    allowed = "" if report.max_drop is None else f", {report.max_drop:g} may be lost"
    if row.held_out is not None:
        ap, wanted = row.held_out
        return f"AP {ap:.4f} against {wanted:.4f} of its float, on pictures that it was not chosen on: {_change(wanted - ap)}{allowed}."
    parent, lost = parent_of(row, report.rows), drop(row, report.rows)
    if known(row.ap) is None:
        return "Its AP was not measured."
    if parent is None or lost is None:
        return f"AP {row.ap:.4f}; that of no float was measured."
    if parent is row:
        return f"AP {row.ap:.4f}."
    return f"AP {row.ap:.4f} against {parent.ap:.4f} of {parent.name} in {parent.precision}: {_change(lost)}{allowed}."


def _change(lost: float) -> str:
    return "equal" if abs(lost) < 5e-5 else f"{abs(lost):.4f} {'lost' if lost > 0 else 'gained'}"


def _figures(row: Row, report: Report) -> tuple[tuple[str, str], ...]:
    rows = report.rows
    base, times, lost = fastest_float(rows), speed_up(row, rows), drop(row, rows)
    parent = parent_of(row, rows)
    found = []
    if times is not None and base is not None and base is not row:
        found.append((f"{times:.2f} ×", f"the speed of {base.backend} in {base.precision}, the fastest float here"))
    if row.p50_ms is not None and known(row.p50_ms) is not None:
        late = "" if known(row.p95_ms) is None else f"; 95 % within {row.p95_ms:.1f} ms"
        how = f"{1000 / row.p50_ms:.0f} frames a second" if report.throughput else f"median{late}"
        found.append((f"{row.p50_ms:.1f} ms", f"per frame, {how}"))
    if row.held_out is not None:
        found.append(
            (_signed(row.held_out[0] - row.held_out[1]), f"AP against float ({row.held_out[0]:.4f}), held out")
        )
    elif lost is not None and parent is not row:
        found.append((_signed(-lost), f"AP against float ({row.ap:.4f})"))
    if known(row.size_mb):
        found.append((f"{row.size_mb:.1f} MB", "on disk" + _share(row, rows)))
    return tuple(found)


def _signed(value: float) -> str:
    """
    >>> _signed(-0.0021), _signed(0.0082), _signed(-0.00001)
    ('−0.0021', '+0.0082', '+0.0000')
    """
    return f"{round(value, 4) + 0.0:+.4f}".replace("-", "−")


def _share(row: Row, rows: Sequence[Row]) -> str:
    parent = next((r for r in ranked(rows) if r.verdict == "float" and r.backend == row.backend), None)
    return "" if parent is None or parent is row or not known(parent.size_mb) else f", float {parent.size_mb:.1f} MB"
