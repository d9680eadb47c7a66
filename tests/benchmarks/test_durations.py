"""The benchmark of durations: it times each command alone, installs nothing, and writes only what is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import durations
from benchmarks.durations import Command
from benchmarks.result import write

SAYS = """
import os, sys, time
with open(sys.argv[1], "a") as file:
    print(os.getcwd(), os.environ.get("YOLO_KD_HOME"), file=file)
"""


@pytest.fixture
def told(tmp_path: Path, monkeypatch) -> Path:
    """Three tiny commands in place of the real ones; what they say of themselves goes here, the result beside it."""
    monkeypatch.delenv("YOLO_KD_HOME", raising=False)
    said = tmp_path / "said"
    run = [sys.executable, "-c"]
    tiny = {
        "check": Command("make check", [*run, SAYS + "time.sleep(.6)", str(said)], 0.009, tmp_path),
        "test": Command("make test", [*run, SAYS + "sum(range(10**7))", str(said)], 10.0, tmp_path),
        "demo": Command("yolo-kd demo", [*run, SAYS, str(said)], 12.0),
    }
    monkeypatch.setattr(durations, "commands", lambda _environment: tiny)
    monkeypatch.setattr(durations, "write", partial(write, folder=tmp_path))
    return said


def run(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["durations", *words])
    return durations.main()


def test_each_has_its_minutes_beside_its_bar(told: Path, monkeypatch) -> None:
    assert run(monkeypatch) == 0
    found = json.loads((told.parent / "durations.json").read_text())
    check, test, demo = found["rows"]
    assert [row["command"] for row in found["rows"]] == ["make check", "make test", "yolo-kd demo"]
    assert check["minutes"] >= 0.01 and check["CPU minutes"] < check["minutes"], "it slept"
    assert test["CPU minutes"] > 0.02 / 60 and demo["exit code"] == 0
    assert [(b["value"], b["limit"], b["sense"]) for b in found["bars"]] == [
        (row["minutes"], limit, "<=") for row, limit in zip(found["rows"], (0.009, 10.0, 12.0), strict=True)
    ]
    assert not found["bars"][0]["holds"] and found["bars"][2]["holds"]
    places = [line.split() for line in told.read_text().splitlines()]
    assert places[:2] == [[str(told.parent), "None"]] * 2
    folder, home = map(Path, places[2])
    assert home.parent == folder and not folder.exists(), "the demo finds nothing, and leaves nothing"


@pytest.mark.parametrize("words", [["only=check,demo"], ["only=demo"], ["write=false"]])
def test_a_part_is_not_written(told: Path, monkeypatch, capsys, words: list[str]) -> None:
    assert run(monkeypatch, *words) == 0
    assert not (told.parent / "durations.json").exists()
    assert "yolo-kd demo" in capsys.readouterr().out
    assert len(told.read_text().splitlines()) == {"only=check,demo": 2, "only=demo": 1}.get(words[0], 3)


@pytest.mark.parametrize("broken", [[sys.executable, "-c", "raise SystemExit(3)"], ["no-such-program"]])
def test_a_command_that_fails_is_said_and_not_written(told: Path, monkeypatch, capsys, broken: list[str]) -> None:
    tiny = durations.commands(told)
    monkeypatch.setitem(tiny, "test", Command("make test", broken, 10.0))
    assert run(monkeypatch) == 1
    assert "make test failed, so its time says nothing" in capsys.readouterr().err
    assert not (told.parent / "durations.json").exists()


@pytest.mark.parametrize("words", [["only=chek"], ["ony=check"]])
def test_unknown_words_are_refused(told: Path, monkeypatch, capsys, words: list[str]) -> None:
    assert run(monkeypatch, *words) == 2
    assert "did you mean" in capsys.readouterr().err and not told.exists()


def test_nothing_is_installed(tmp_path: Path) -> None:
    """Not even where the environment looks as if it had never been made."""
    known = durations.commands(tmp_path)
    assert [command.limit for command in known.values()] == [2, 10, 12]
    for name in ("check", "test"):
        words = [*known[name].words, "--dry-run"]
        told = subprocess.run(words, cwd=durations.ROOT, capture_output=True, text=True, check=True).stdout
        assert f"{tmp_path}/bin/python" in told and "-m pytest" in told
        assert not any(word in told for word in ("pip", "apt-get", "venv"))
    assert known["demo"].words == [f"{tmp_path}/bin/yolo-kd", "demo"] and known["demo"].folder is None
