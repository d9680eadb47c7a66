"""Result files: what is written is what is read, claims are computed, and nothing of the machine's paths gets in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.result import Bar, bar, load, portable, write
from yolo_kd.errors import MisuseError

ROWS = [{"engine": "torch bf16", "seconds": 2.02}, {"engine": "openvino bf16", "seconds": 1.59, "images": 16}]


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    bars = [bar("openvino over torch", 1.59 / 2.02, 1.0, "<="), bar("images a second", 10.1, 12, ">=")]
    path = write("teacher", "python -m benchmarks.teacher", ROWS, bars, notes=["cold start"], folder=tmp_path)
    result = load(path)
    assert (result.benchmark, result.rows, result.bars, result.notes) == ("teacher", ROWS, bars, ["cold start"])
    assert result.to_json() == path.read_text(encoding="utf-8")
    assert [file.name for file in tmp_path.iterdir()] == ["teacher.json"]


def test_the_file_has_exactly_the_agreed_keys(tmp_path: Path) -> None:
    keys = {"benchmark", "command", "machine", "versions", "date", "rows", "bars"}
    raw = json.loads(write("plain", "python x.py", ROWS, [bar("a", 1, 2, "<=")], folder=tmp_path).read_text())
    assert raw.keys() == keys
    assert raw["machine"].keys() == {"cpu", "isa", "cores", "gpu"}
    assert raw["bars"] == [{"name": "a", "value": 1.0, "limit": 2.0, "sense": "<=", "holds": True}]
    noted = json.loads(write("noted", "python x.py", ROWS, [], ["n"], folder=tmp_path).read_text())
    assert noted.keys() == keys | {"notes"}


@pytest.mark.parametrize(
    ("value", "sense", "holds"),
    [
        (1, "<=", True),
        (1, ">=", True),
        (1.01, "<=", False),
        (1.01, ">=", True),
        (0.99, ">=", False),
        (0.99, "<=", True),
    ],
)
def test_a_bar_holds_at_its_limit_and_on_its_side(value: float, sense: str, holds: bool) -> None:
    assert bar("x", value, 1, sense).holds is holds


def test_what_is_printed_says_which_bar_falls_short_and_by_how_much(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = [bar("fast", 0.5, 1, "<="), bar("accurate", 0.6, 0.8, ">=")]
    write("x", "python x.py", ROWS, bars, notes=["busy machine"], folder=tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "engine         seconds  images",
        "torch bf16        2.02       -",
        "openvino bf16     1.59      16",
        "fast      0.5 <= 1  HOLDS by 0.5 (50 %)",
        "accurate  0.6 >= 0.8  FALLS SHORT by 0.2 (25 %)",
        "note: busy machine",
    ]


def test_numpy_numbers_are_written_as_numbers(tmp_path: Path) -> None:
    path = write("x", "python x.py", [{"a": np.float32(0.5), "n": np.int64(3)}], [], folder=tmp_path)
    assert load(path).rows == [{"a": 0.5, "n": 3}]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["python", "x.py", "/a/b/c/d.pt", "runs/a/b/c"], "python x.py c/d.pt runs/a/b/c"),
        (["python", "x.py", "data=/a/b/c.yaml", "/c"], "python x.py data=b/c.yaml c"),
        (["python", "x.py", "data=[/a/b/c,/d/e/f]"], "python x.py 'data=[b/c,e/f]'"),
        (["python", "/my disk/a b/x.py"], "python 'a b/x.py'"),
        ("python x.py '/my disk/a b/x.pt' 4/5 https://a.b/c/d/e", "python x.py 'a b/x.pt' 4/5 https://a.b/c/d/e"),
    ],
)
def test_absolute_paths_in_the_command_keep_two_parts(command: Any, expected: str) -> None:
    assert portable(command) == expected


def test_absolute_paths_in_rows_and_notes_keep_two_parts(tmp_path: Path) -> None:
    rows = [{"model": "/a/b/c/best.pt", "unit": "images / s"}]
    result = load(write("x", "python x.py", rows, [], ["weights (/a/b/c/best.pt), and/or"], folder=tmp_path))
    assert result.rows == [{"model": "c/best.pt", "unit": "images / s"}]
    assert result.notes == ["weights (c/best.pt), and/or"]


@pytest.mark.parametrize("name", ["Teacher", "a b", "../x", "", "-x"])
def test_a_name_that_is_no_plain_file_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="a benchmark is named"):
        write(name, "python x.py", ROWS, [], folder=tmp_path)


def test_a_failed_write_leaves_the_old_result(tmp_path: Path) -> None:
    path = write("x", "python x.py", ROWS, [], folder=tmp_path)
    before = path.read_bytes()
    with pytest.raises(MisuseError, match="row value 'seconds' is nan"):
        write("x", "python x.py", [{"seconds": float("nan")}], [], folder=tmp_path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("value", "sense"), [(float("nan"), "<="), (float("inf"), ">="), (1.0, "<")])
def test_a_bar_without_a_meaning_is_refused(value: float, sense: str) -> None:
    with pytest.raises(MisuseError, match="bar 'x'"):
        bar("x", value, 1.0, sense)


def damaged(**changes: Any) -> dict[str, Any]:
    good = {
        "benchmark": "x",
        "command": "python x.py",
        "machine": {"cpu": "c", "isa": [], "cores": 2, "gpu": None},
        "versions": {"python": "3.11.7"},
        "date": "2026-01-02",
        "rows": [{"a": 1}],
        "bars": [{"name": "n", "value": 1, "limit": 2, "sense": "<=", "holds": True}],
    }
    return {key: value for key, value in (good | changes).items() if value is not ...}


def test_the_undamaged_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps(damaged()), encoding="utf-8")
    assert load(path).bars == [Bar("n", 1, 2, "<=")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "x.json is not a result file"),
        ("[]", "one JSON object, not list"),
        (damaged(rows=...), r"missing keys \['rows'\]"),
        (damaged(extra=1), r"unknown keys \['extra'\]"),
        (damaged(rows="a"), "'rows' is a list, not 'a'"),
        (damaged(rows=[1]), "a row is a flat dictionary"),
        (damaged(rows=[{"a": [1]}]), "row value 'a' is a number, a text or None"),
        (damaged(benchmark="y"), "names its benchmark 'y'"),
        (damaged(machine={"cpu": "c"}), "'machine' holds"),
        (damaged(notes=[1]), "notes are texts"),
        (damaged(bars=[{"name": "n"}]), "a bar has name, value"),
        (damaged(bars=[{"name": "n", "value": 3, "limit": 2, "sense": "<=", "holds": True}]), "its numbers say False"),
        (damaged(bars=[{"name": "n", "value": "3", "limit": 2, "sense": "<=", "holds": True}]), "is a finite number"),
    ],
)
def test_a_malformed_file_is_explained(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    with pytest.raises(MisuseError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value) and "x.json" in str(caught.value)
