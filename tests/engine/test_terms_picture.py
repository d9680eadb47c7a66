"""distill_terms.png: what is drawn, line by line, and that odd runs have a picture too."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from yolo_kd.engine.history import History
from yolo_kd.engine.terms_picture import draw_terms, terms_figure

RUN = History(
    {
        "epoch": [1.0, 2.0, 3.0],
        "train/box_loss": [3.0, 2.0, 1.0],
        "val/box_loss": [3.0, 2.0, 1.0],
        "train/cs_loss": [0.8, 0.4, 0.0],
        "train/kdcls_loss": [5.0, float("nan"), 4.0],
        "gain/csgr.cs": [2.0, 2.0, 2.0],
        "share/csgr.cs": [0.2, 0.3, 0.0],
        "gain/pcd.cls": [1.0, 1.5, 1.5],
        "share/pcd.cls": [0.5, 0.6, 0.4],
    }
)


def lines(axes) -> dict[str, list[float]]:
    return {
        line.get_label(): np.asarray(line.get_ydata(), float).tolist()
        for line in axes.lines
        if line.get_marker() == "."
    }


def test_the_three_panels_hold_terms_shares_and_gains():
    top, middle, bottom = terms_figure(RUN, {"csgr.cs": 0.25}, {}).axes
    assert list(lines(top)) == ["cs", "kdcls"], "no detection loss among the terms"
    assert lines(top)["cs"][:2] == [0.8, 0.4] and np.isnan(lines(top)["cs"][2]), "a term that is off is no line at 0"
    assert lines(middle)["pcd.cls"] == [0.5, 0.6, 0.4] and lines(bottom)["csgr.cs"] == [2.0, 2.0, 2.0]
    assert {axes.get_yscale() for axes in (top, middle, bottom)} == {"log"}
    same = [axes.lines[0].get_color() for axes in (top, middle, bottom)]
    assert len(set(same)) == 1 != len({line.get_color() for line in top.lines})


def test_wanted_shares_are_dashed_in_their_terms_colour():
    middle = terms_figure(RUN, {"csgr.cs": 0.25, "unknown.term": 0.9}, {}).axes[1]
    dashed = [line for line in middle.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata()[0] for line in dashed] == [0.25] and dashed[0].get_color() == middle.lines[0].get_color()


def test_what_changes_is_marked_before_its_epoch_in_every_panel():
    panels = terms_figure(RUN, {}, {"teacher stops": 3}).axes
    for axes in panels:
        assert [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"] == [2.5]
    assert [text.get_text() for text in panels[0].texts] == ["teacher stops"]


@pytest.mark.parametrize(
    "columns",
    [
        {"epoch": [1.0], "train/cs_loss": [0.0], "share/csgr.cs": [float("nan")], "gain/csgr.cs": [0.0]},
        {"epoch": [], "train/cs_loss": [], "share/csgr.cs": [], "gain/csgr.cs": []},
        {"epoch": [1.0, 2.0]},
    ],
)
def test_a_run_without_anything_to_draw_still_has_a_picture(tmp_path, columns):
    draw_terms(History(columns), {"csgr.cs": 0.25}, {}, tmp_path / "a.png")
    assert cv2.imread(str(tmp_path / "a.png")).shape == (1200, 1200, 3)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_lines_are_on_the_paper(tmp_path):
    draw_terms(RUN, {}, {}, tmp_path / "a.png")
    picture = cv2.imread(str(tmp_path / "a.png")).astype(int)
    coloured = (picture.max(2) - picture.min(2)) > 60
    assert all(coloured[part * 400 : (part + 1) * 400].sum() > 500 for part in range(3))
