"""What every arm of the benchmark trains on, and how the gap is counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from yolo_kd.data.split import read_split

from benchmarks import unlabeled
from benchmarks.real_run import METRIC
from tests.conftest import write_pictures

KEYS = {**unlabeled.DEFAULTS, "batch": 8, "share": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("data"), train=50, size=16)


def test_the_few_are_drawn_by_seed_and_the_rest_are_the_others(data: Path) -> None:
    images = list(read_split(data, "train").images)
    few, rest = unlabeled.parts(images, 0.1, 0)
    assert len(few) == 5 and len(rest) == 45 and sorted([*few, *rest]) == sorted(images)
    assert unlabeled.parts(images[::-1], 0.1, 0)[0] == few[::-1], "the order of the list plays no part"
    assert unlabeled.parts(images, 0.1, 1)[0] != few


@pytest.mark.parametrize(("ratio", "labelled"), [(None, 8), (0.5, 4), (0.75, 2)])
def test_an_epoch_of_the_few_is_as_long_as_one_of_all(data: Path, ratio: float | None, labelled: int) -> None:
    described, rest, counts = unlabeled._lists(data, KEYS, ratio)
    named = [line for line in Path(yaml.safe_load(described.read_text())["train"]).read_text().split("\n") if line]
    assert counts == {"labelled": 5, "unlabeled": 45, "all": 50, "batches": 7}
    assert len(named) == 7 * labelled and len(set(named)) == 5
    assert not set(named) & set(rest.read_text().split("\n")) and len(rest.read_text().split()) == 45
    assert read_split(described, "val").images == read_split(data, "val").images


def test_each_arm_is_told_what_sets_it_apart(data: Path) -> None:
    def words(arm: str) -> dict[str, Any]:
        return dict(word.split("=", 1) for word in unlabeled._words(arm, KEYS, data, Path("t.pt")))

    assert words("all")["distill"] == words("few")["distill"] == "none"
    assert words("all")["data"] == str(data) and words("few")["data"] == words("few_distilled")["data"] != str(data)
    assert "unlabeled" not in words("few_distilled") and words("few_distilled")["teacher"] == "t.pt"
    assert words("unlabeled")["unlabeled"].endswith("rest.txt") and words("unlabeled")["data"].endswith("few4.yaml")
    more = words("unlabeled+unlabeled_ratio=.75+pseudo_labels=.6")
    assert more["data"].endswith("few2.yaml") and more["unlabeled_ratio"] == ".75" and more["pseudo_labels"] == ".6"


def test_the_gap_is_from_the_few_to_all() -> None:
    mean = {"few": {"val": 0.1}, "unlabeled": {"val": 0.16}, "all": {"val": 0.2}}
    assert unlabeled._recovered(mean, "unlabeled", "val") == pytest.approx(0.6)
    (bar,) = unlabeled._bars(mean, ["val"])
    assert bar.holds and bar.limit == 0.5
    assert not unlabeled._bars({**mean, "unlabeled": {"val": 0.149}}, ["val"])[0].holds
    assert unlabeled._bars({arm: mean[arm] for arm in ("few", "all")}, ["val"]) == []
    first, second = unlabeled._bars({**mean, "unlabeled+pseudo_labels=.5": {"val": 0.12}}, ["val"])
    assert first.holds and not second.holds and second.name.startswith("unlabeled+pseudo_labels=.5 recovers")


@pytest.mark.parametrize("everything", [0.05, 0.1, 0.109])
def test_without_a_gap_the_bar_is_missed_and_says_so(everything: float) -> None:
    """Also where the unlabeled arm is far ahead, which of a gap of noise is a large share."""
    mean = {"few": {"val": 0.1}, "unlabeled": {"val": 0.3}, "all": {"val": everything}}
    (bar,) = unlabeled._bars(mean, ["val"])
    assert not bar.holds and bar.value == pytest.approx(everything - 0.1) and "no gap to recover (val)" in bar.name


SCORES = {"teacher": 0.15, "few": 0.10, "few_distilled": 0.12, "unlabeled": 0.16, "all": 0.20}


@pytest.fixture
def benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Runs the benchmark without its trainings: each leaves what a true one leaves. The result, and the commands by run."""
    commands: dict[str, dict[str, str]] = {}

    def run(folder: Path, command: list[str], facts: dict[str, Any], share: set[int]) -> None:
        words = dict(word.split("=", 1) for word in command if "=" in word)
        assert command[1:4] == ["-m", "yolo_kd.cli", "train"] and share
        assert (Path(words["project"]), words["name"]) == (folder.parent, folder.name)
        commands[folder.name] = words
        score = SCORES[facts["arm"]] + 0.01 * (facts["seed"] == 1)
        folder.mkdir(parents=True)
        (folder / "done.json").write_text(json.dumps({**facts, "seconds": 10.0 + facts["seed"]}))
        (folder / "results.csv").write_text(f"epoch,time,{METRIC}\n1,4,{score / 2}\n2,8,{score}\n")

    def test(folder: Path, data: Path, imgsz: int, split: str) -> float:
        assert data.is_file() and imgsz == 64
        found = json.loads((folder / "done.json").read_text())
        score = SCORES[found["arm"]] + 0.01 * (found["seed"] == 1) - 0.05 * (split == "test")
        (folder / f"{split}.json").write_text(json.dumps({"mAP50-95": score}))
        return score

    monkeypatch.setattr(unlabeled, "_run", run)
    monkeypatch.setattr(unlabeled, "_test", test)
    data = write_pictures(tmp_path / "mine", train=50, size=16)
    data.write_text(data.read_text() + "test: images/val\n")
    fixed = {
        "data": data,
        "weights": data,
        "out": tmp_path / "out",
        "results": tmp_path,
        "name": "made_up",
        "imgsz": 64,
        "arms": "few,few_distilled,unlabeled,all",
    }

    def measure(**words: Any) -> tuple[dict[str, Any], dict[str, dict[str, str]]]:
        given = {**fixed, "batch": 8, "epochs": 2, **words}
        monkeypatch.setattr(sys, "argv", ["unlabeled", *(f"{key}={value}" for key, value in given.items())])
        assert unlabeled.main() == 0
        return json.loads((tmp_path / "unlabeled_made_up.json").read_text()), commands

    return measure


def test_rows_bars_and_plot(benchmark, tmp_path: Path) -> None:
    result, commands = benchmark()
    rows = {row["arm"]: row for row in result["rows"]}
    assert list(rows) == ["teacher (the same few labels)", "few", "few_distilled", "unlabeled", "all"]
    assert set(commands) == {"teacher", *(f"{arm}-s{seed}" for arm in list(rows)[1:] for seed in (0, 1))}
    assert rows["teacher (the same few labels)"]["val mAP50-95"] == 0.15
    expected = {
        "labelled": 5,
        "unlabeled": 45,
        "epochs": 2,
        "steps": 14,
        "seconds": 10.5,
        "val by seed": "0.1600, 0.1700",
    }
    assert {name: rows["unlabeled"][name] for name in expected} == expected
    assert rows["unlabeled"]["val mAP50-95"] == pytest.approx(0.165)
    assert rows["unlabeled"]["test mAP50-95"] == pytest.approx(0.115)
    assert rows["unlabeled"]["val by epoch"] == "0.083 0.165"
    assert (rows["all"]["labelled"], rows["few"]["labelled"], rows["few_distilled"]["unlabeled"]) == (50, 5, 0)
    assert [rows[arm]["val gap recovered"] for arm in ("few", "few_distilled", "unlabeled", "all")] == pytest.approx(
        [0, 0.2, 0.6, 1]
    )
    assert [bar["name"].rpartition("(")[2] for bar in result["bars"]] == ["val)", "test)"]
    assert all(bar["holds"] and bar["value"] == pytest.approx(0.6) for bar in result["bars"])
    assert "labels of 5 of 50 training pictures" in result["notes"][-2]
    picture = cv2.imread(str(tmp_path / "unlabeled_made_up.png"))
    assert picture is not None and len(np.unique(picture.reshape(-1, 3), axis=0)) > 4, (
        "a curve of its own colour an arm"
    )


def test_every_arm_and_seed_trains_on_a_copy_of_its_own(benchmark, tmp_path: Path) -> None:
    _, commands = benchmark()
    for seed in (0, 1):
        folders = {Path(commands[f"{arm}-s{seed}"]["data"]).parent.name for arm in ("few", "unlabeled", "all")}
        assert folders == {f"data-s{seed}"} and commands[f"few-s{seed}"]["seed"] == str(seed)
    assert commands["unlabeled-s1"]["teacher"].endswith("teacher/weights/best.pt")
    assert Path(commands["teacher"]["data"]).name == "few8.yaml", "the teacher sees the few labels alone"
    mine = sorted(path.name for path in (tmp_path / "mine").iterdir())
    assert mine == ["data.yaml", "images", "labels"], "nothing is written beside the user's pictures"


def test_a_given_teacher_is_not_trained_and_says_what_it_has_seen(benchmark, tmp_path: Path) -> None:
    given = tmp_path / "given.pt"
    given.write_bytes(b"weights")
    teacher = tmp_path / "out" / "made_up" / "teacher"
    teacher.mkdir(parents=True)
    (teacher / "done.json").write_text('{"arm": "teacher", "seed": 0}')
    result, commands = benchmark(teacher=given, teacher_labels="all labels", seeds=0)
    assert "teacher" not in commands and (teacher / "weights" / "best.pt").read_bytes() == b"weights"
    assert result["rows"][0]["arm"] == "teacher (all labels)" and "trained on all labels" in result["notes"][-2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["data=d.yaml"], "expected data=<yaml>, and weights="),
        (["weights=w.pt"], "expected data=<yaml>, and weights="),
        (["data=d.yaml", "weights=w.pt", "arms=few,fewer"], "no arm fewer; expected few, few_distilled"),
    ],
)
def test_unknown_words_are_refused(monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], said: str) -> None:
    monkeypatch.setattr(sys, "argv", ["unlabeled", *words])
    assert unlabeled.main() == 2 and said in capsys.readouterr().err
