"""The benchmark of the data check: it runs, says what it found, and its bar is the ratio of its rows."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import data_check
from benchmarks.result import write


def test_the_bar_is_the_ratio_of_two_rows(pictures: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["data_check", f"data={pictures}", "rounds=1"])
    monkeypatch.setattr(data_check, "write", partial(write, folder=tmp_path))
    assert data_check.main() == 0
    found = json.loads((tmp_path / "data_check.json").read_text())
    speed = {row["arm"]: row["images/s"] for row in found["rows"]}
    assert speed.keys() == {"decode once", "check", "quick check"} and {row["images"] for row in found["rows"]} == {12}
    assert found["bars"][0]["value"] == pytest.approx(speed["check"] / speed["decode once"])
    assert found["bars"][0]["limit"] == 0.5 and found["bars"][0]["sense"] == ">="
    assert any("look like a training picture: val" in note for note in found["notes"])


@pytest.mark.parametrize(("known", "holds"), [("0", True), ("0.36", False)])
def test_a_leak_that_is_known_must_be_found(
    pictures: Path, tmp_path: Path, monkeypatch, known: str, holds: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["data_check", f"data={pictures}", "rounds=1", f"leaks={known}"])
    monkeypatch.setattr(data_check, "write", partial(write, folder=tmp_path))
    assert data_check.main() == 0
    _, leak = json.loads((tmp_path / "data_check.json").read_text())["bars"]
    assert leak["value"] == pytest.approx(float(known)) and leak["limit"] == 0.005 and leak["holds"] is holds


def test_without_data_it_says_so(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["data_check"])
    assert data_check.main() == 2 and "data= is missing" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["data_check", "data=a.yaml", "leaks=.3,.4"])
    assert data_check.main() == 2 and "leaks= has 2 shares, data= 1 data sets" in capsys.readouterr().err
