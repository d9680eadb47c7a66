"""The benchmark of wrong inputs: an interrupted run goes on behind the last answer, and only with the same inputs."""

from __future__ import annotations

import os
import re
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from benchmarks import fuzz
from tests.conftest import write_pictures
from yolo_kd.errors import MisuseError

PLAN = fuzz.planned(["labels", "pictures"], 5, None)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was tried; the answers are made up."""
    found: list[tuple[str, int]] = []

    def answers(plan, seed, work, limit_s):
        for kind, number in plan:
            found.append((kind, number))
            yield kind, number, ("slot", "line", f"{kind} {number}\u2028")

    monkeypatch.setattr(fuzz, "answers", answers)
    return found


def test_a_log_is_gone_on_with(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    log = tmp_path / "sub" / "log.jsonl"
    begun = fuzz.logged(PLAN, 0, tmp_path, 60, log)
    first = [next(begun) for _ in range(2)]
    begun.close()
    with log.open("a") as file:
        file.write('[0, "labels", 1, ["slo')  # where the process was killed
    whole = list(fuzz.logged(PLAN, 0, tmp_path, 60, log))
    assert whole[:2] == first and [entry[:2] for entry in whole] == PLAN
    assert tried == PLAN
    assert list(fuzz.logged(PLAN, 0, tmp_path, 60, log)) == whole and tried == PLAN
    for plan, seed in ((PLAN, 1), (PLAN[1:], 0), (PLAN[:3], 0)):
        with pytest.raises(MisuseError, match="begun with another seed, number or kind"):
            list(fuzz.logged(plan, seed, tmp_path, 60, log))


def test_without_a_log_nothing_is_written(tmp_path: Path, tried: list[tuple[str, int]]) -> None:
    assert [entry[:2] for entry in fuzz.logged(PLAN, 0, tmp_path, 60, None)] == PLAN
    assert list(tmp_path.iterdir()) == []


def fragile(pipe: Connection, plan: list[tuple[str, int]], seed: int, work: str, limit_s: float) -> None:
    """In place of `fuzz.work_off`: dies at number 1 once, at number 3 always, and says its process in each answer."""
    for _, number in plan:
        died = Path(work) / f"died-{number}"
        if number == 3 or (number == 1 and not died.exists()):
            died.touch()
            os._exit(7)
        pipe.send((str(os.getpid()), "line", ""))


def test_a_worker_that_dies_is_replaced_and_counts_if_it_dies_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(fuzz, "work_off", fragile)
    plan = [("labels", number) for number in range(5)]
    found = list(fuzz.answers(plan, 0, tmp_path, 60))
    assert [entry[:2] for entry in found] == plan
    assert [answer[1] for *_, answer in found] == ["line", "line", "line", "escape", "line"]
    assert "ended its process, code 7" in found[3][2][2]
    processes = [answer[0] for *_, answer in found]
    assert len({*processes[:3], processes[4]}) == 3 and processes[1] == processes[2]


@pytest.mark.slow
def test_an_input_that_takes_too_long_is_an_escape_after_a_second_try(tmp_path: Path) -> None:
    """The true worker, whose watchdog ends the process in the middle of an input."""
    write_pictures(tmp_path / "seeds", train=4, val=2, size=48)
    ((kind, number, (way, word, what)),) = fuzz.answers([("labels", 0)], 0, tmp_path, 0.001)
    assert (kind, number, way, word) == ("labels", 0, "?", "escape")
    # the watchdog reads the stack of a thread that runs on: code 1, or a signal's where that went wrong
    assert re.fullmatch(r"ended its process, code (1|-\d+), or took 0.001 s", what)
    assert len(list(tmp_path.glob("*/in/here"))) == 2
