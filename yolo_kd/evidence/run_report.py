"""report.html of a training: verdict, curves, what was distilled, teacher, maps, settings. One file, no network."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yolo_kd.engine.history import events, wanted_shares
from yolo_kd.evidence import page
from yolo_kd.evidence.charts.curves import Curve, curves
from yolo_kd.evidence.page import Markup, element
from yolo_kd.evidence.run import COARSE, FINE, Run, remarks, summarise

WIDE, NARROW = (540.0, 320.0), (360.0, 300.0)
_PRECISION = "Dashed: the teacher's mAP50-95."
FIRST = (
    "model", "data", "epochs", "imgsz", "batch", "nbs", "optimizer", "lr0", "lrf", "warmup_epochs", "close_mosaic", "seed",
    "device", "amp", "pretrained",
)  # fmt: skip


def write_run_report(path: Path, run: Run) -> None:
    """Write the page.

    Raises:
        MisuseError: It cannot be written there.
    """
    page.write(path, html(run))


def html(run: Run) -> Markup:
    """The page of a run."""
    notes = remarks(run)
    return page.document(
        f"Training {run.folder.resolve().name}",
        page.verdict(summarise(run)),
        page.mind(notes) if notes else None,
        _curves(run),
        _epochs(run),
        _teacher(run),
        _maps(run),
        _settings(run),
    )


def _curves(run: Run) -> Markup | None:
    history = run.history
    if not history.epochs:
        return None
    charts = [
        _chart(run, "Precision on the val split", _PRECISION if run.teacher_map() else "", *_precision(run)),
        _chart(run, "Detection losses", "Training, and dashed the validation.", _losses(run)),
    ]
    terms = history.terms()
    if terms:
        lines = [Curve(name, values, i) for i, (name, values) in enumerate(terms.items())]
        note = "As each method gives them, not multiplied by anything."
        charts.append(_chart(run, "Distillation terms", note, lines, log=True))
    shares, wanted = history.group("share"), wanted_shares(run.recipe.get("methods") or {})
    if shares:
        lines = [Curve(name, values, i) for i, (name, values) in enumerate(shares.items())]
        levels = [(wanted[name], i, "") for i, name in enumerate(shares) if name in wanted]
        note = "Gradient of the weighted term as a multiple of the detection loss's, where it acts. Dashed: asked for."
        charts.append(_chart(run, "Gradient shares", note, lines, levels, log=True))
    return element("div", *charts, class_="charts even")


def _chart(
    run: Run, title: str, note: str, lines: Sequence[Curve], levels: Sequence[tuple[float, int, str]] = (),
    log: bool = False,
) -> Markup:  # fmt: skip
    recipe = run.recipe
    until = recipe.get("until") if recipe.get("methods") else None
    marks = events(
        run.planned, _whole(run.args.get("close_mosaic")),
        str(recipe.get("schedule", "constant")), float(until) if isinstance(until, int | float) else 1.0,
    )  # fmt: skip
    drawn = [
        element("div", curves(run.history.epochs, lines, *size, log=log, levels=levels, marks=marks), class_=class_)
        for size, class_ in ((WIDE, "wide"), (NARROW, "narrow"))
    ]
    return element("figure", element("h2", title), element("p", note, class_="note") if note else None, *drawn)


def _precision(run: Run) -> tuple[list[Curve], list[tuple[float, int, str]]]:
    lines = [
        Curve(name, run.history.columns[column], colour)
        for name, column, colour in (("mAP50-95", FINE, 0), ("mAP50", COARSE, 2))
        if column in run.history.columns
    ]
    teacher = run.teacher_map()
    return lines, [] if teacher is None else [(teacher, 0, "teacher")]


def _losses(run: Run) -> list[Curve]:
    names = list(run.history.losses("train"))
    lines = [Curve(name, values, names.index(name)) for name, values in run.history.losses("train").items()]
    val = run.history.losses("val")
    return lines + [Curve("", values, names.index(name), True) for name, values in val.items() if name in names]


def _epochs(run: Run) -> Markup | None:
    """Best and last epoch in numbers."""
    best, done = run.best, len(run.history.epochs)
    if best is None:
        return None
    shown = {"best": best, "last": done - 1}
    columns = [c for c in run.history.columns if c.startswith(("metrics/", "val/"))]
    heads = ["", "epoch", *(c.partition("/")[2].removesuffix("(B)").replace("_", " ") for c in columns)]
    rows = [
        [element("b", name), f"{run.history.epochs[i]:.0f}", *(_number(run.history.columns[c][i]) for c in columns)]
        for name, i in shown.items()
    ]
    return page.section(
        "Metrics", page.table(heads, rows, {""}), note="On the val split; losses are those of validation."
    )


def _teacher(run: Run) -> Markup | None:
    found = run.preflight
    if not found:
        return None
    maps = found.get("maps") or {}
    facts = {"checkpoint": str(found.get("teacher", "")), "sha256": str(found.get("teacher_sha256", ""))}
    for who, values in maps.items():
        if isinstance(values, Mapping):
            label = "teacher, before the first step" if who == "teacher" else "student, before the first step"
            facts[label] = ", ".join(f"{name} {_number(value)}" for name, value in values.items())
    facts["ran on"] = str(found.get("engine", ""))
    rows = [row for row in found.get("engines") or [] if isinstance(row, Mapping)]
    return page.section("Teacher", page.definitions({k: v for k, v in facts.items() if v}), _engines(rows))


def _engines(rows: Sequence[Mapping[str, Any]]) -> Markup | None:
    if not rows:
        return None
    cells = []
    for row in rows:
        agreement = row.get("agreement") or {}
        features = ", ".join(_number(v, 3) for v in agreement.get("features") or ())
        cells.append(
            [
                element("b", str(row.get("engine", ""))), _number(row.get("ms"), 2), features,
                _number(agreement.get("score"), 3), str(row.get("trouble") or ""),
            ]
        )  # fmt: skip
    heads = ["engine", "ms per image", "error of the neck maps", "error of the scores", "trouble"]
    table = page.table(heads, cells, {"engine", "error of the neck maps", "trouble"})
    return element("div", element("p", "Engines tried, against float32:", class_="note"), table, class_="spaced")


def _maps(run: Run) -> Markup | None:
    if not run.maps:
        return None
    note = (
        "Some val pictures: labels, boxes of teacher and student above a confidence of .25, where the teacher sees a class on "
        "each level, and where the necks are busy (each channel at zero mean and unit variance, squared, averaged; the same "
        "colours for both)."
    )
    return page.section(
        "What teacher and student see", page.picture(run.maps, "maps of teacher and student"), note=note
    )


def _settings(run: Run) -> Markup | None:
    if not run.args and not run.settings:
        return None
    ours = (
        _flat({k: v for k, v in run.settings.items() if k != "recipe"} | {"recipe": run.recipe}) if run.settings else {}
    )
    first = {key: str(run.args[key]) for key in FIRST if key in run.args}
    rest = {key: str(value) for key, value in sorted(run.args.items()) if key not in first}
    parts = [
        element("h3", "Ultralytics"),
        page.definitions(first),
        element("details", element("summary", f"the other {len(rest)} keys"), page.definitions(rest)) if rest else None,
        element("h3", "yolo-kd") if ours else None,
        page.definitions(ours) if ours else None,
    ]
    return page.section("Settings", *parts)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested names joined by dots.

    >>> _flat({"recipe": {"name": "pkd", "methods": {"pkd": {"pkd": 2}}}, "teacher": None})
    {'recipe.name': 'pkd', 'recipe.methods.pkd.pkd': '2', 'teacher': 'None'}
    """
    found: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{name}.")
        else:
            found[name] = str(value)
    return found


def _number(value: Any, digits: int = 4) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}"


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0
