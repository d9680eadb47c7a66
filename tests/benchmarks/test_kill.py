"""The benchmark of killed trainings: what it calls a difference, and that it takes no unknown words."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from benchmarks import kill
from benchmarks.result import write
from yolo_kd.cli import parse
from yolo_kd.engine import ultra


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


@pytest.mark.slow
def test_what_a_difference_is(run) -> None:
    whole = run("whole")
    assert kill.differences(whole, run("same", rows="1,9.9,0.2\n")) == []
    assert kill.differences(whole, run("one bit", shift=2.0**-23)) == ["ema: w"]
    assert kill.differences(whole, run("numbers", rows="1,3.5,0.3\n")) == ["results.csv: loss of epoch 1"]
    assert kill.differences(whole, run("twice", rows="1,3.5,0.2\n" * 2)) == ["results.csv: number of rows"]
    other = kill.differences(whole, run("best", seed=2))
    assert other and all(found.startswith("best.pt: ") for found in other)


class Stopped(BaseException):
    """As if the benchmark were killed."""


def test_a_stopped_benchmark_goes_on_with_the_next_run(tmp_path: Path, monkeypatch) -> None:
    started: list[str] = []
    moments: list[float] = []

    def one_run(training, whole, kills, tally, chance) -> None:
        started.append(training.folder.name)
        training.folder.mkdir()
        moments.append(chance.random())
        tally.deaths["save"] += 2
        tally.different += training.folder.name == "2"
        if started == ["1", "2", "3"]:
            raise Stopped

    monkeypatch.setattr(kill, "to_the_end", lambda training: started.append("whole") or started.clear() or (1.0, 2.0))
    monkeypatch.setattr(kill, "one_run", one_run)
    with pytest.raises(Stopped):
        kill.killed(tmp_path / "arm", [], 8, seed=1)
    monkeypatch.setattr(kill, "to_the_end", lambda training: pytest.fail("it was there already"))
    row = kill.killed(tmp_path / "arm", [], 8, seed=1).row()
    assert started == ["1", "2", "3", "3", "4"] and len(set(moments)) == 4 and moments[2] == moments[3]
    assert row == {
        "kills anywhere": 0, "kills training": 0, "kills save": 8, "runs": 4, "resumed": 0, "different": 1, "unusable": 0
    }  # fmt: skip
    assert kill.killed(tmp_path / "arm", [], 8, seed=1).row() == row and len(started) == 5, "nothing is left to do"


@pytest.mark.parametrize("left", [False, True], ids=["clean", "killed in a save before"])
def test_a_kill_during_a_save_waits_for_a_save_of_this_process(tmp_path: Path, left: bool) -> None:
    training = kill.Training(tmp_path, [])
    weights = training.run / "weights"
    weights.mkdir(parents=True)
    if left:
        (weights / kill.STAGING).mkdir()
    training.log.write_text(kill.UNDER_WAY)
    saving = (
        "import shutil, sys, time; from pathlib import Path\n"
        "folder = Path(sys.argv[1]); time.sleep(1); shutil.rmtree(folder, ignore_errors=True); folder.mkdir()\n"
        "(folder / 'last.pt').touch(); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", saving, str(weights / kill.STAGING)])
    assert kill.die(process, training, "save", random.Random(1), ready=0, end=0)
    assert (weights / kill.STAGING / "last.pt").exists()


def test_kills_are_told_apart_by_what_followed_them(tmp_path: Path, monkeypatch) -> None:
    """Killed before its first checkpoint, then with one, and let live; then killed after its end."""
    tally = kill.Tally(ready=1.0, seconds=2.0)
    starts: list[bool] = []

    def start(training: kill.Training) -> SimpleNamespace:
        starts.append((training.run / "weights" / kill.LAST).exists())
        return SimpleNamespace(wait=lambda: (training.run / "over").touch())

    def die(process, training, moment, chance, ready, end) -> bool:
        (training.run / "weights").mkdir(parents=True, exist_ok=True)
        if len(starts) == 2:
            (training.run / "weights" / kill.LAST).touch()
        if training.folder.name == "2":
            (training.run / "over").touch()
        return True

    monkeypatch.setattr(kill.Training, "start", start)
    monkeypatch.setattr(kill, "die", die)
    monkeypatch.setattr(kill, "over", lambda run: (run / "over").exists())
    monkeypatch.setattr(kill, "differences", lambda one, other: [])
    for name, kills in (("1", 2), ("2", 3)):
        kill.one_run(kill.Training(tmp_path / name, []), kill.Training(tmp_path, []), kills, tally, random.Random(1))
    assert starts == [False, False, True, False] and sum(tally.deaths.values()) == 3
    assert tally.followed("plain").startswith("plain: 1 of 3 kills were followed by a resume from a checkpoint, ")


def test_the_result_says_how_many_kills_were_followed_by_a_resume(tmp_path: Path, monkeypatch) -> None:
    tallies = {
        "plain": kill.Tally(1, 2, {"anywhere": 30, "training": 12, "save": 8}, 39, 27),
        "distilled": kill.Tally(
            1, 2, {"anywhere": 10, "training": 20, "save": 20}, 34, 50, 1, notes=["run 3: a difference"]
        ),
    }
    monkeypatch.setattr(kill, "quiet", lambda: [])
    monkeypatch.setattr(kill, "write_dataset", lambda folder, **_: folder / "data.yaml")
    monkeypatch.setattr(kill, "teacher", lambda out, data: out / "best.pt")
    monkeypatch.setattr(kill, "killed", lambda folder, words, kills, seed: tallies[folder.name])
    monkeypatch.setattr(kill, "write", partial(write, folder=tmp_path))
    monkeypatch.setattr(sys, "argv", ["kill", f"out={tmp_path}"])
    assert kill.main() == 0
    result = json.loads((tmp_path / "kill.json").read_text())
    first, second, third = result["notes"]
    assert first.startswith("plain: 27 of 50 kills were followed by a resume")
    assert second.startswith("distilled: 50 of 50 kills were followed") and third == "run 3: a difference"
    assert [bar["holds"] for bar in result["bars"]] == [False, True]


def test_the_teacher_is_wider_than_the_student(tmp_path: Path, monkeypatch) -> None:
    """Between equal widths there is no adapter, and none of the kills would tell whether adapters go on as they were."""
    asked: list[kill.Training] = []
    monkeypatch.setattr(kill, "to_the_end", asked.append)
    kill.teacher(tmp_path, tmp_path / "data.yaml")
    names = [parse(words)["student"] for words in (kill.TRAINING, asked[0].words)]
    student, teacher = (ultra.head_spec(DetectionModel(str(name), verbose=False)).channels for name in names)
    assert all(narrow < wide for narrow, wide in zip(student, teacher, strict=True))


def test_unknown_words_are_refused(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["kill", "arms=none"])
    assert kill.main() == 2 and "expected 1 or more, and plain,distilled" in capsys.readouterr().err
