"""report.html of a quantization: the verdict, every candidate, where it loses, and pictures to look at.

One file that needs no network; how it is put together is in page.py, what the words rest on in candidates.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from yolo_kd.evidence import candidates, page
from yolo_kd.evidence.candidates import Pair, Report, Row, known, ranked
from yolo_kd.evidence.charts.bars import Series, bars
from yolo_kd.evidence.charts.scatter import Mark, scatter, shape
from yolo_kd.evidence.page import Markup, element

__all__ = ["Pair", "Report", "Row", "write_report"]

KINDS = ("float", "passed", "rejected", "failed", "not judged")
ABSENT = "–"


def write_report(path: Path, report: Report) -> None:
    """Write the page.

    Args:
        path: The file; its folder is made if need be.
        report: What it shows.

    Raises:
        MisuseError: It cannot be written there.
    """
    page.write(path, html(report))


def html(report: Report) -> Markup:
    """The page of a report."""
    rows = [replace(r, ap=known(r.ap), p50_ms=known(r.p50_ms), p95_ms=known(r.p95_ms)) for r in ranked(report.rows)]
    report = replace(report, rows=rows)
    return page.document(
        report.title,
        page.verdict(candidates.summarise(report)),
        page.mind(report.notes) if report.notes else None,
        _charts(report),
        _candidates(report),
        _layers(report.worst_layers),
        _strip(report.pairs),
        page.section("Facts", page.definitions(report.facts)) if report.facts else None,
    )


def _charts(report: Report) -> Markup | None:
    marks, missing = [], []
    for number, row in enumerate(report.rows, 1):
        if row.ap is None or row.p50_ms is None:
            missing.append(f"{number} {row.name}")
        else:
            marks.append(Mark(number, row.name, row.p50_ms, row.p95_ms, row.ap, row.verdict, row.chosen))
    sizes = _sizes(report)
    if not marks and sizes is None:
        return None
    return element("div", _scatter(marks, missing, report) if marks else None, sizes, class_="charts")


def _scatter(marks: Sequence[Mark], missing: Sequence[str], report: Report) -> Markup:
    drop = report.max_drop
    floor = "" if drop is None else f" Dashed: {drop:g} AP below the best float, the most that may be lost."
    late = " The line to the right of a mark ends at its 95th percentile." if any(m.late_ms for m in marks) else ""
    unit = f"milliseconds per frame, {'several under way' if report.throughput else 'median'} →"
    absent = f" Not shown, for want of AP or time: {', '.join(missing)}." if missing else ""
    kinds = [kind for kind in KINDS if any(m.kind == kind for m in marks)]
    return element(
        "figure",
        element("h2", "Accuracy against latency"),
        element(
            "p",
            f"AP (IoU .5 to .95) over milliseconds per frame on this device: better is up and to the left.{late} Numbers are "
            f"those of the table.{floor}{absent}",
            class_="note",
        ),
        _legend(kinds, any(m.chosen for m in marks)),
        element("div", scatter(marks, 680.0, 420.0, unit, drop), class_="wide"),
        element("div", scatter(marks, 360.0, 380.0, unit, drop), class_="narrow"),
    )


def _legend(kinds: Sequence[str], ringed: bool = False) -> Markup:
    def entry(word: str, kind: str, *parts: Markup) -> Markup:
        return element(
            "li", element("svg", *parts, viewBox="0 0 20 20", aria_hidden="true"), word, class_=page.coloured(kind)
        )

    entries = [entry(kind, kind, shape(kind, 10.0, 10.0)) for kind in kinds]
    if ringed:
        entries.append(entry("chosen", "float", element("circle", class_="ring", cx=10, cy=10, r=8)))
    return element("ul", *entries, class_="legend")


def _sizes(report: Report) -> Markup | None:
    """AP by size of the chosen one, or else of the candidate that came closest, beside its float."""
    tried = [r for r in report.rows if r.verdict != "float" and r.ap is not None]
    shown = next((r for r in tried if r.chosen), None) or max(tried, key=lambda r: r.ap or 0.0, default=None)
    if shown is None:
        return None
    parent = candidates.parent_of(shown, report.rows)
    both = [row for row in (parent, shown) if row is not None]
    groups = ["all", *dict.fromkeys(size for row in both for size in row.by_size)]
    series = [Series(row.verdict, {"all": row.ap, **{k: known(v) for k, v in row.by_size.items()}}) for row in both]
    words = [f"{row.name} ({row.precision})" for row in both]
    entries = [
        element(
            "li",
            element(
                "svg", element("rect", class_="mark", width=16, height=16), viewBox="0 0 16 16", aria_hidden="true"
            ),
            word,
            class_=page.coloured(row.verdict),
        )
        for row, word in zip(both, words, strict=True)
    ]
    return element(
        "figure",
        element("h2", "AP by size, float against INT8"),
        element(
            "p",
            "Small: below 32² pixels of the picture; large: from 96² on; – where no such box is labelled.",
            class_="note",
        ),
        element("ul", *entries, class_="legend"),
        bars(groups, series, 400.0, 300.0),
        class_="small",
    )


def _candidates(report: Report) -> Markup | None:
    if not report.rows:
        return None
    sizes = list(dict.fromkeys(size for row in report.rows for size in row.by_size))
    heads = [
        "candidate",
        "runs in",
        "ms per frame" if report.throughput else "p50 ms",
        "p95 ms",
        "speed",
        "AP",
        "lost",
        "MB",
        *sizes,
        "verdict",
    ]
    table = page.table(
        heads,
        [_cells(number, row, sizes, report) for number, row in enumerate(report.rows, 1)],
        {"candidate", "runs in", "verdict"},
        [f"{page.coloured(row.verdict)}{' chosen' if row.chosen else ''}" for row in report.rows],
    )
    base = candidates.fastest_float(report.rows)
    against = (
        "" if base is None else f" Speed is a multiple of that of {base.name} in {base.precision}, the fastest float."
    )
    note = f"The fastest first. Lost: AP against the float of the same back end.{against}"
    return page.section("Every candidate", table, note=note)


def _cells(number: int, row: Row, sizes: Sequence[str], report: Report) -> list[str]:
    reasons = page.bullets(row.reasons, "reasons") if row.reasons else None
    word = row.verdict + (", chosen" if row.chosen else "")
    return [
        element("div", element("b", f"{number} {row.name}"), _soft(row.settings)),
        element("div", row.backend, _soft(row.precision)),
        _number(row.p50_ms, 2),
        _number(row.p95_ms, 2),
        _times(candidates.speed_up(row, report.rows)),
        _number(row.ap, 4),
        ABSENT if row.verdict == "float" else _number(candidates.drop(row, report.rows), 4),
        _number(known(row.size_mb), 1),
        *(_number(known(row.by_size.get(size)), 3) for size in sizes),
        element("div", element("span", word, class_="tag"), reasons),
    ]


def _soft(text: str) -> Markup | None:
    return element("span", text, class_="soft") if text else None


def _layers(worst: Sequence[tuple[str, float]]) -> Markup | None:
    if not worst:
        return None
    most = max((error for _, error in worst if known(error) is not None), default=0.0) or 1.0
    rows = []
    for layer, error in worst:
        share = min(max((known(error) or 0.0) / most, 0.0), 1.0)
        rows.append(
            [
                element("code", layer),
                _number(known(error), 4),
                element("span", class_="share", style=f"width:{share:.1%}"),
            ]
        )
    table = page.table(["layer", "error", ""], rows, {"layer", ""})
    note = "Relative error of the head's outputs when this layer alone is quantized: these go back to float first."
    return page.section("Layers with the largest error", table, note=note)


def _strip(pairs: Sequence[Pair]) -> Markup | None:
    if not pairs:
        return None
    figures = []
    for pair in pairs:
        both = (
            element("figure", page.picture(data, f"{pair.title}, boxes of {who}"), element("figcaption", who))
            for who, data in (("float", pair.parent_jpeg), ("INT8", pair.candidate_jpeg))
        )
        kind = element("b", f"{pair.kind}: ") if pair.kind else None
        heading = element("p", kind, pair.title, _soft(pair.caption))
        figures.append(element("figure", heading, element("div", *both), class_="pair"))
    note = (
        "The same pictures with the boxes of both, above a confidence of .25. Thin: found by both. Thick, with name and "
        "confidence: found on this side only. A class has the same colour on both sides."
    )
    return page.section("Float and INT8 side by side", *figures, note=note)


def _number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _times(value: float | None) -> str:
    return ABSENT if value is None else f"{value:.2f}\u00a0×"
