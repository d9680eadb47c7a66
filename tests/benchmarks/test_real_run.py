"""The table and the bars of the main job on real data; nothing is trained here, the numbers are made up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from benchmarks import real_run
from benchmarks.inputs import private_copy
from benchmarks.result import write

ARMS = ["plain", "csgr_lqe", "native"]


def finished(out: Path, scores: dict[str, float]) -> None:
    """A folder for the teacher and for each arm's one seed, as the trainings leave them."""
    for arm, score in scores.items():
        run = out / "teacher" if arm == "teacher" else out / f"{arm}-s0"
        run.mkdir(parents=True)
        (run / "val.json").write_text(json.dumps({"mAP50-95": score}))
        (run / "done.json").write_text(json.dumps({"epochs": 2, "seconds": 10.0, "wall": 20.0}))
        (run / "results.csv").write_text(f"epoch,time,{real_run.METRIC}\n1,7.0,0.1\n2,15.0,{score}\n")
    (out / "csgr_lqe-s0" / "preflight.json").write_text('{"engine": "openvino-bf16"}')


def report(out: Path, monkeypatch: pytest.MonkeyPatch, teacher: float, seeds: Sequence[int] = (0,)) -> dict:
    if not out.joinpath("teacher").exists():
        finished(out, {"teacher": teacher, "plain": 0.2, "csgr_lqe": 0.3, "native": 0.22})
    data = out / "data.yaml"
    data.write_text("val: images/val\n")
    monkeypatch.setattr(real_run, "RESULTS", out)
    monkeypatch.setattr(real_run, "write", partial(write, folder=out))
    weights = out / "teacher" / "weights" / "best.pt"
    keys = {**real_run.DEFAULTS, "imgsz": 64, "name": "made_up", "epochs": 2, "seeds": (0, 1)}
    assert real_run._report(keys, out, data, weights, ARMS, list(seeds), [real_run.PRECISION]) == 0
    return json.loads((out / "real_run_made_up.json").read_text())


def test_every_arm_has_the_same_budget_and_a_pinned_optimizer(tmp_path, monkeypatch):
    """But for what makes it that arm: the teacher and the recipe, or Ultralytics' own key."""
    commands: list[list[str]] = []
    monkeypatch.setattr(real_run, "_run", lambda run, command, facts, share: commands.append(command))
    keys = {**real_run.DEFAULTS, "imgsz": 64}
    for arm in (*ARMS, real_run.EQUAL_TIME):
        real_run._train(arm, 1, 5, keys, tmp_path / "d.yaml", tmp_path / "t.pt", tmp_path, {0})
    given = {"epochs": 5, "seed": 1, "lr0": 0.002, "optimizer": "AdamW", "nbs": 16, "batch": 16, "imgsz": 64}
    given |= {
        "warmup_epochs": 1,
        "close_mosaic": real_run.CLOSE_MOSAIC,
        "cache": "ram",
        "data": str(tmp_path / "d.yaml"),
    }
    plain, taught, native, longer = commands
    for words in (plain, taught, longer):
        assert {f"{key}={value}" for key, value in {**given, "student": "yolov8n.yaml"}.items()} <= set(words)
    assert set(plain[3:]) ^ set(taught[3:]) == {
        "distill=none", "distill=csgr_lqe", f"teacher={tmp_path / 't.pt'}", "name=plain-s1", "name=csgr_lqe-s1",
    }  # fmt: skip
    assert "YOLO('yolov8n.yaml')" in native[2] and f"distill_model={str(tmp_path / 't.pt')!r}" in native[2]
    assert all(f"{key!r}: {value!r}" in native[2] for key, value in given.items())


@pytest.mark.parametrize(
    ("equal_time", "last"),
    [(True, {"plain": 5, "csgr_lqe": 5, "plain_equal_time": 9}), (False, {"plain": 5, "csgr_lqe": 5})],
)
def test_plain_is_trained_for_as_long_as_the_default_took_unless_it_is_left_out(
    tmp_path, monkeypatch, equal_time, last
):
    """Plain: 2 s once and 1.6 s for each of 5 epochs; 16 s are those 2 and 8.75 epochs, of which the last is a whole one."""
    trained = {}
    monkeypatch.setattr(
        real_run, "_run", lambda run, command, facts, share: trained.update({facts["arm"]: facts["epochs"]})
    )
    facts = {"epochs": 5, "wall": 30.0, "in epochs": 24.0}
    monkeypatch.setattr(
        real_run, "_read", lambda run: {**facts, "seconds": 16.0 if run.name == "csgr_lqe-s1" else 10.0}
    )
    keys = {**real_run.DEFAULTS, "epochs": 5, "equal_time": equal_time}
    real_run._lane(["plain", "csgr_lqe"], 1, keys, tmp_path / "d.yaml", tmp_path / "t.pt", tmp_path, {0})
    assert trained == last


def test_rows_name_the_engine_and_the_share_of_the_gap(tmp_path, monkeypatch):
    found = report(tmp_path, monkeypatch, 0.4)
    rows = {row["arm"]: row for row in found["rows"]}
    assert {arm: rows[arm]["teacher on"] for arm in ARMS} == {
        "plain": None,
        "csgr_lqe": "openvino-bf16",
        "native": None,
    }
    assert rows["csgr_lqe"]["val gap recovered"] == pytest.approx(0.5)
    assert len(found["bars"]) == 3 and "float32" in found["notes"][0]
    assert "64 px" in found["notes"][1] and "lr0=0.002" in found["notes"][1] and "seeds 0,1" in found["notes"][1]


def test_a_note_says_which_gains_an_arm_ran_with(tmp_path, monkeypatch):
    finished(tmp_path, {"teacher": 0.4, "plain": 0.2, "csgr_lqe": 0.3, "native": 0.22})
    methods = {"csgr": {"cs": "auto:0.25"}, "pcd": {"cls": "auto:0.5", "top": 500}}
    for arm, of_arm in (("csgr_lqe", methods), ("plain", {})):
        (tmp_path / f"{arm}-s0" / "kd.yaml").write_text(json.dumps({"recipe": {"name": arm, "methods": of_arm}}))
    notes = report(tmp_path, monkeypatch, 0.4)["notes"]
    assert notes[2:] == ["csgr_lqe distilled csgr.cs=auto:0.25, pcd.cls=auto:0.5, pcd.top=500"]


def test_the_teachers_row_shows_that_val_had_stopped_rising(tmp_path, monkeypatch):
    teacher = report(tmp_path, monkeypatch, 0.4)["rows"][0]
    assert teacher["arm"] == "teacher" and teacher["epochs"] == "2" and teacher["val by epoch"] == "0.100 0.400"


def test_seeds_that_had_unlike_numbers_of_epochs_are_told_apart(tmp_path, monkeypatch):
    finished(tmp_path, dict.fromkeys(("teacher", "plain", "csgr_lqe", "native"), 0.2))
    for arm in ARMS:
        shutil.copytree(tmp_path / f"{arm}-s0", tmp_path / f"{arm}-s1")
    (tmp_path / "plain-s1" / "done.json").write_text(json.dumps({"epochs": 3, "seconds": 10.0, "wall": 20.0}))
    (tmp_path / "plain-s1" / "results.csv").write_text(f"epoch,time,{real_run.METRIC}\n1,4,0.9\n2,8,0.4\n3,12,0.6\n")
    found = {row["arm"]: row for row in report(tmp_path, monkeypatch, 0.4, seeds=[0, 1])["rows"]}
    assert found["plain"]["epochs"] == "2 and 3" and found["native"]["epochs"] == "2"
    assert found["plain"]["val, second half"] == pytest.approx((0.2 + (0.4 + 0.6) / 2) / 2)


def test_a_teacher_that_is_as_good_as_plain_does_not_lose_the_result(tmp_path, monkeypatch):
    found = report(tmp_path, monkeypatch, 0.2)
    assert all(row.get("val gap recovered") is None for row in found["rows"])
    assert not any("of the gap" in bar["name"] for bar in found["bars"])


@pytest.mark.parametrize(
    ("native", "ours", "value"),
    [(0.22, 0.3, 0.06), (0.15, 0.3, 0.1), (0.15, 0.19, -0.01)],
    ids=["gains", "loses", "both"],
)
def test_twice_what_ultralytics_gains_is_at_least_plain(tmp_path, monkeypatch, native, ours, value):
    """Where Ultralytics' own distillation loses precision, losing half as much is no bar held."""
    finished(tmp_path, {"teacher": 0.4, "plain": 0.2, "csgr_lqe": ours, "native": native})
    (found,) = (bar for bar in report(tmp_path, monkeypatch, 0.4)["bars"] if "twice" in bar["name"])
    assert found["value"] == pytest.approx(value)


def test_what_is_kept_was_made_of_the_same_data_teacher_and_recipe(tmp_path, monkeypatch):
    """A finished run under a name is not shown for other inputs, even where its command is the same."""
    source = tmp_path / "source" / "data.yaml"
    source.parent.mkdir()
    source.write_text("val: images/val\n")
    copied = private_copy(source, tmp_path / "copy")
    copied.with_name("val.cache").write_text("Ultralytics'")
    assert private_copy(source, tmp_path / "copy") == copied and copied.read_text() == source.read_text()
    source.with_name("more.jpg").write_bytes(b"x")
    with pytest.raises(SystemExit, match="is not a copy of .*choose another out= or name="):
        private_copy(source, tmp_path / "copy")

    teacher = tmp_path / "teacher.pt"
    teacher.write_bytes(b"one")
    kept = real_run._given(teacher, tmp_path / "out")
    assert real_run._given(teacher, tmp_path / "out") == kept
    teacher.write_bytes(b"two")
    with pytest.raises(SystemExit, match="choose another out= or name="):
        real_run._given(teacher, tmp_path / "out")
    assert kept.read_bytes() == b"one"

    recipe = tmp_path / "mine.yaml"
    recipe.write_text("methods: {pkd: {pkd: 1.0}}\n")
    monkeypatch.setattr(real_run.subprocess, "Popen", lambda *_, **__: pytest.fail("it is done, so nothing is started"))
    run = tmp_path / f"{recipe}-s0"
    monkeypatch.setattr(real_run, "_folder", lambda *_: run)
    again = partial(
        real_run._train, str(recipe), 0, 2, real_run.DEFAULTS, source, teacher, tmp_path, {0}
    )  # fmt: skip
    facts: dict = {}
    with monkeypatch.context() as inner:
        inner.setattr(real_run, "_run", lambda run, command, found, share: facts.update(found, command=command))
        again()
    run.mkdir(parents=True)
    (run / "done.json").write_text(json.dumps(facts))
    again()
    recipe.write_text("methods: {pkd: {pkd: 2.0}}\n")
    with pytest.raises(SystemExit, match="another command or recipe"):
        again()


def test_arms_that_differ_in_a_capital_and_seeds_have_folders_and_logs_of_their_own(tmp_path, monkeypatch):
    logs: list[Path] = []

    def started(*_, stdout, env, **__):
        logs.append(Path(stdout.name))
        Path(
            env["YOLO_KD_HOME"]
        ).mkdir()  # which an earlier try must not have left: its seconds are those of a first run
        raise InterruptedError

    monkeypatch.setattr(real_run.subprocess, "Popen", started)
    runs = [
        real_run._folder(tmp_path, arm, seed)
        for arm in ("a+b=auto:1.5", "a+b=auto:1.5T", "a+b=auto:1.5F")
        for seed in (0, 1)
    ]
    for run in [*runs, *runs]:
        with pytest.raises(InterruptedError):
            real_run._run(run, ["train"], {}, {0})
    assert len(set(runs)) == len(set(logs)) == 6
