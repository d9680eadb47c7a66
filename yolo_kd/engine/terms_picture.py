"""distill_terms.png: what the terms were worth over the epochs, and how much they pulled."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolo_kd.cfg.atomic import write_bytes
from yolo_kd.engine.history import History

NAME = "distill_terms.png"
NEVER_ZERO = 1e-6  # of a logarithmic axis: a term that is off is left out of the line


def draw_terms(history: History, wanted: Mapping[str, float], marks: Mapping[str, float], path: Path) -> None:
    """Write the picture in one move; see `terms_figure`."""
    picture = io.BytesIO()
    terms_figure(history, wanted, marks).savefig(picture, format="png")
    write_bytes(path, picture.getvalue(), "project")


def terms_figure(history: History, wanted: Mapping[str, float], marks: Mapping[str, float]) -> Any:
    """Terms, gradient shares and gains over the epochs, as a figure of matplotlib.

    Args:
        history: The run's results.csv.
        wanted: Shares that the recipe asks for, by `method.term`; drawn as dashed lines.
        marks: Words to the epoch at which something changes; drawn as vertical lines before it.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 10), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3, 1, sharex=True)
    shares = history.group("share")
    for axes, (title, label, values) in zip(panels, (
        ("Each term as its method gave it", "term, unscaled", history.terms()),
        ("Gradient of the weighted term as a multiple of the detection loss's, where it acts (dashed: asked for)",
         "gradient share", shares),
        ("What each term was multiplied by, before the schedule", "gain", history.group("gain")),
    ), strict=True):  # fmt: skip
        axes.set_title(title, loc="left", fontsize=11)
        axes.set_ylabel(label)
        _lines(axes, history.epochs, values)
        for epoch in marks.values():
            axes.axvline(epoch - 0.5, color="0.4", linestyle=":", linewidth=1)
    for index, key in enumerate(shares):
        if key in wanted:
            panels[1].axhline(wanted[key], color=f"C{index % 10}", linestyle="--", linewidth=0.8)
    for words, epoch in marks.items():
        panels[0].annotate(
            words, (epoch - 0.5, 1), xycoords=("data", "axes fraction"), xytext=(3, -10), textcoords="offset points",
            fontsize=8, color="0.3",
        )  # fmt: skip
    panels[-1].set_xlabel("epoch")
    return figure


def _lines(axes: Any, epochs: Sequence[float], values: Mapping[str, Sequence[float]]) -> None:
    """A line for each column on a logarithmic axis, because terms differ by powers of ten; its name at its end."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    x = np.asarray(epochs, float)
    axes.set_yscale("log")
    for index, (name, column) in enumerate(values.items()):
        y = np.asarray(column, float)
        y = np.where(np.isfinite(y) & (y > NEVER_ZERO), y, np.nan)
        axes.plot(x, y, color=f"C{index % 10}", marker="." if len(x) < 40 else "", linewidth=1.6, label=name)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True, which="major", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=9)
