"""The benchmark of killed trainings: what it calls a difference, and that it takes no unknown words."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks import kill


@pytest.fixture
def run(tmp_path: Path, make_checkpoint):
    """Writes a run folder as a training leaves it."""

    def write(name: str, shift: float = 0.0, seed: int = 1, rows: str = "1,3.5,0.2\n") -> Path:
        weights = tmp_path / name / "weights"
        weights.mkdir(parents=True)
        torch.save({"model": {"w": torch.ones(2)}, "ema": {"w": torch.ones(2) + shift}}, weights / "last.kd.pt")
        for file, origin in (("last.pt", 1), ("best.pt", seed)):
            (weights / file).write_bytes(make_checkpoint("yolov8n.yaml", seed=origin).read_bytes())
        (weights.parent / "results.csv").write_text("epoch,time,loss\n" + rows)
        return weights.parent

    return write


def test_what_a_difference_is(run) -> None:
    whole = run("whole")
    assert kill.differences(whole, run("same", rows="1,9.9,0.2\n")) == []
    assert kill.differences(whole, run("one bit", shift=2.0**-23)) == ["ema: w"]
    assert kill.differences(whole, run("numbers", rows="1,3.5,0.3\n")) == ["results.csv: loss of epoch 1"]
    assert kill.differences(whole, run("twice", rows="1,3.5,0.2\n" * 2)) == ["results.csv: number of rows"]
    other = kill.differences(whole, run("best", seed=2))
    assert other and all(found.startswith("best.pt: ") for found in other)


def test_unknown_words_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["kill", "arms=none"])
    assert kill.main() == 2 and "expected 1 or more, and plain,distilled" in capsys.readouterr().err
