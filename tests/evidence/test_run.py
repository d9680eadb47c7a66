"""A run folder in words: what was reached, what must not be missed, and nothing that one run cannot show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.evidence.sample_run import ARGS, HEADS, PREFLIGHT, ROWS, SETTINGS, write_artifact, write_run
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.run import read_run, remarks, summarise


def test_the_best_epoch_its_teacher_and_its_time(tmp_path):
    found = summarise(read_run(write_run(tmp_path)))
    assert found.good and found.heading == "mAP50-95 0.2000, at epoch 2 of 3"
    assert found.lines[0] == "Distilled with <script> from yolov8l.pt, which ran on openvino-bf16."
    assert found.lines[1] == "The teacher's mAP50-95 on the same pictures is 0.2500: the student reaches 80 % of it."
    assert "not to be seen from one run" in found.lines[2]
    assert found.figures == (
        ("0.2000", "mAP50-95, best epoch"), ("0.3000", "mAP50, same epoch"), ("80 %", "of the teacher's 0.2500"),
        ("3 min", "for 3 epochs"),
    )  # fmt: skip
    assert remarks(read_run(tmp_path)) == []


def test_of_equal_epochs_the_first_is_the_best(tmp_path):
    rows = [ROWS[0], ROWS[1], ROWS[1].replace("2,120", "3,180")]
    assert read_run(write_run(tmp_path, rows)).best == 1


def test_a_plain_training_claims_no_teacher(tmp_path):
    plain = {
        **SETTINGS,
        "recipe": {"name": "none", "methods": {}, "schedule": "constant", "until": 1.0},
        "teacher": None,
    }
    found = summarise(read_run(write_run(tmp_path, settings=plain, preflight=None, maps=False)))
    assert found.lines == ("Trained without a teacher.",) and len(found.figures) == 3
    assert remarks(read_run(tmp_path)) == [], "and misses no maps"
    assert summarise(read_run(write_run(tmp_path / "b", settings=None, args=None, preflight=None, maps=False))).good


def share(row: str, value: str, column: int) -> str:
    cells = row.split(",")
    cells[column] = value
    return ",".join(cells)


CS, CLS, KDCLS = 13, 15, 5


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        (CS, "0.001", "csgr.cs hardly acts: its gradient is 0.001 of the detection loss's in the median."),
        (CS, "0.9", "csgr.cs was asked for a gradient share of 0.25 and had 0.9 in the median."),
        (CLS, "0.1", "pcd.cls was asked for a gradient share of 0.5 and had 0.1 in the median."),
        (CS, "nan", "csgr.cs never acted: its gain is 0, or no gradient of it was seen."),
        (KDCLS, "nan", "train/kdcls_loss was not finite in 3 of 3 epochs."),
    ],
)
def test_a_term_that_does_not_do_what_it_should(tmp_path, column, value, said):
    run = read_run(write_run(tmp_path, [share(row, value, column) for row in ROWS]))
    assert remarks(run) == [said]
    assert summarise(run).good == (column != KDCLS)


def test_a_share_that_is_only_somewhat_off_is_no_remark_and_epochs_without_a_teacher_do_not_count(tmp_path):
    rows = [share(ROWS[0], "0.12", CS), share(ROWS[1], "0", CS), share(ROWS[2], "0", CS)]
    assert remarks(read_run(write_run(tmp_path, rows))) == []


def test_a_run_that_is_short_broken_or_still_rising_says_so(tmp_path):
    run = read_run(write_run(tmp_path / "a", [*ROWS[:2], "3,180,2"]))
    assert remarks(run) == [
        "1 lines of results.csv could not be read and are left out.",
        "results.csv ends after 2 of 3 epochs: stopped early, or not finished.",
    ]
    rising = read_run(write_run(tmp_path / "b", [ROWS[0], ROWS[2], ROWS[1].replace("2,120", "3,180")]))
    assert remarks(rising) == ["The best epoch is the last one: a longer training may go on improving."]


def test_a_student_beyond_its_teacher(tmp_path):
    weak = {**PREFLIGHT, "maps": {"teacher": {"mAP50-95": 0.2}}}
    run = read_run(write_run(tmp_path, preflight=weak))
    assert remarks(run) == ["The student is as good as its teacher: there is little left to distil."]
    assert "the student passes it" in summarise(run).lines[1]


def test_missing_maps_of_a_distilled_run(tmp_path):
    run = read_run(write_run(tmp_path, maps=False))
    assert remarks(run) == ["There is no distill_maps.jpg: it is drawn at the end of a training with plots=true."]


@pytest.mark.parametrize("rows", [[], ["1,60,4,3,0.8,2.0,0.1,0.1,nan,nan,4,3,0.1,0.25,0.4,0.5"]])
def test_a_run_without_a_validated_epoch(tmp_path, rows):
    run = read_run(write_run(tmp_path, rows))
    found = summarise(run)
    assert not found.good and found.heading.startswith("No epoch was validated") and not found.figures
    remarks(run)


def test_an_map_of_zero_is_not_good(tmp_path):
    rows = [share(share(row, "0", 8), "0", 9) for row in ROWS]
    assert not summarise(read_run(write_run(tmp_path, rows))).good


def test_verdicts_of_the_gate_are_told(tmp_path):
    folder = write_run(tmp_path)
    write_artifact(folder / "weights" / "best_int8_openvino_model", True)
    write_artifact(folder / "weights" / "best_openvino_model", None)
    run = read_run(folder)
    assert summarise(run).good
    assert summarise(run).lines[-2:] == (
        "best_int8_openvino_model (int8) passed the gate.",
        "best_openvino_model (int8) has not been judged by the gate.",
    )
    write_artifact(folder / "weights" / "bad_openvino_model", False, ["detects nothing"])
    found = summarise(read_run(folder))
    assert not found.good and "bad_openvino_model (int8) was rejected by the gate: detects nothing." in found.lines


def test_an_artifact_that_cannot_be_read_is_named_and_does_not_stop_the_report(tmp_path):
    folder = write_run(tmp_path)
    (folder / "weights" / "broken").mkdir(parents=True)
    (folder / "weights" / "broken" / "artifact.json").write_text("{")
    (line,) = remarks(read_run(folder))
    assert "broken" in line and "not readable" in line


@pytest.mark.parametrize("name", ["kd.yaml", "args.yaml", "preflight.json"])
@pytest.mark.parametrize("text", ["[1, 2]", "{", "\x00"])
def test_a_damaged_file_is_one_line(tmp_path, name, text):
    (write_run(tmp_path) / name).write_text(text)
    with pytest.raises(MisuseError, match=name):
        read_run(tmp_path)


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(MisuseError, match=r"no results\.csv there; expected the folder of a training"):
        read_run(tmp_path)
    with pytest.raises(MisuseError, match="no results"):
        read_run(tmp_path / "nothing")


def test_columns_that_another_task_has_are_no_mistake(tmp_path):
    heads = HEADS.replace("metrics/mAP50(B),", "").replace("metrics/mAP50-95(B)", "metrics/accuracy")
    rows = [",".join(row.split(",")[:8] + row.split(",")[9:]) for row in ROWS]
    run = read_run(write_run(tmp_path, rows, heads=heads))
    assert run.best is None and not summarise(run).good
    assert replace(run, args={**ARGS, "epochs": True}).planned == 3


def test_the_folder_is_only_read(tmp_path):
    folder = write_run(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")}
    read_run(folder)
    assert {p: p.stat().st_mtime_ns for p in Path(folder).rglob("*")} == before
