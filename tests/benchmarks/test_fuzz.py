"""The benchmark of wrong inputs: an interrupted run goes on behind the last answer, and only with the same inputs."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fuzz
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
