"""results.csv as the pictures and reports read it."""

from __future__ import annotations

import math

import pytest

from yolo_kd.engine.history import cut_history, events, read_history, wanted_shares
from yolo_kd.errors import MisuseError

TABLE = """epoch,time,train/box_loss,train/cls_loss,train/cs_loss,train/kdcls_loss,metrics/mAP50-95(B),val/box_loss,val/cls_loss,gain/csgr.cs,share/csgr.cs
1,3.5,2.5,1.5,0.8,0.4,0.1,2.6,1.6,0.07,0.25
2,7.0,2.4,1.4,0.7,nan,0.2,2.5,1.5,0.07,
"""


def test_columns_are_told_apart_by_what_validation_has(tmp_path):
    (tmp_path / "results.csv").write_text(TABLE)
    found = read_history(tmp_path / "results.csv")
    assert list(found.epochs) == [1, 2] and found.broken == 0
    assert list(found.terms()) == ["cs", "kdcls"] and found.terms()["cs"] == [0.8, 0.7]
    assert math.isnan(found.terms()["kdcls"][1])
    assert list(found.losses("train")) == ["box", "cls"] and found.losses("val")["box"] == [2.6, 2.5]
    assert found.group("share")["csgr.cs"][0] == 0.25 and math.isnan(found.group("share")["csgr.cs"][1])
    assert found.group("nothing") == {}


def test_a_row_that_was_cut_off_is_counted_and_left_out(tmp_path):
    (tmp_path / "results.csv").write_text(TABLE + "3,10.5,2.3\n\n")
    found = read_history(tmp_path / "results.csv")
    assert list(found.epochs) == [1, 2] and found.broken == 1


def test_heads_with_blanks_as_older_versions_wrote_them(tmp_path):
    (tmp_path / "results.csv").write_text("      epoch,   train/box_loss\n          1,      2.5\n")
    assert read_history(tmp_path / "results.csv").group("train") == {"box_loss": [2.5]}


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "epoch,epoch\n1,2\n", "\x00\x01\x02", "{}"])
def test_what_is_no_such_table_is_one_line(tmp_path, text):
    (tmp_path / "results.csv").write_text(text)
    with pytest.raises(MisuseError, match=r"results\.csv"):
        read_history(tmp_path / "results.csv")


def test_a_missing_or_binary_file_is_one_line(tmp_path):
    with pytest.raises(MisuseError, match="not readable as a table"):
        read_history(tmp_path / "results.csv")
    (tmp_path / "results.csv").write_bytes(b"\xff\xfe\x00epoch")
    with pytest.raises(MisuseError, match=r"results\.csv"):
        read_history(tmp_path / "results.csv")


def test_shares_asked_for():
    methods = {"csgr": {"cs": "auto:0.25", "tau": 0.1, "gr": None}, "pcd": {"cls": 2.0, "loc": "auto:x"}, "lqe": None}
    assert wanted_shares(methods) == {"csgr.cs": 0.25}


@pytest.mark.parametrize(
    ("epochs", "close", "schedule", "until", "expected"),
    [
        (100, 10, "constant", 1.0, {"mosaic closes": 91}),
        (100, 0, "constant", 1.0, {}),
        (3, 10, "constant", 0.7, {}),  # progress of the third epoch is 2 / 3: the teacher never stops
        (4, 0, "cosine", 0.5, {"teacher stops": 3}),
        (100, 10, "mosaic", 1.0, {"mosaic closes": 91, "teacher stops": 91}),
        (100, 10, "mosaic", 0.5, {"mosaic closes": 91, "teacher stops": 51}),
    ],
)
def test_what_changes_when(epochs, close, schedule, until, expected):
    """Counted from 1, as in results.csv; the same as Schedule says from 0 on."""
    assert events(epochs, close, schedule, until) == expected
    from yolo_kd.engine.schedule import Schedule

    factors = [Schedule(schedule, until).factor(e / epochs, close > 0 and e >= epochs - close) for e in range(epochs)]
    off = [e + 1 for e, factor in enumerate(factors) if factor == 0.0]
    assert off[:1] == ([expected["teacher stops"]] if "teacher stops" in expected else [])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (TABLE, TABLE.splitlines(keepends=True)[:2]),
        (TABLE.splitlines(keepends=True)[0] + "1,3.5,2.", TABLE.splitlines(keepends=True)[:1]),
        ("".join(TABLE.splitlines(keepends=True)[:2]), TABLE.splitlines(keepends=True)[:2]),
    ],
)
def test_rows_of_lost_epochs_are_cut_off(tmp_path, text, left):
    (path := tmp_path / "results.csv").write_text(text)
    cut_history(path, 1)
    assert path.read_text() == "".join(left)


def test_a_head_that_was_cut_off_is_begun_anew(tmp_path):
    (path := tmp_path / "results.csv").write_text("epoch,time,tra")
    cut_history(path, 1)
    assert not path.exists()
    cut_history(path, 1)
