"""From what a search found to the rows of its report: whose numbers, whose verdict, and which one is shipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from yolo_kd.data.split import Split
from yolo_kd.deploy.artifact import Artifact, Verdict
from yolo_kd.deploy.quantize.gate import Limits, Measured
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings

from yolo_kd.errors import YoloKDError
from yolo_kd.evidence import quantization_report
from yolo_kd.evidence.candidates import Report, summarise
from yolo_kd.evidence.outcome import Outcome, Plan
from yolo_kd.evidence.search import NOTES, Trial, Way
from yolo_kd.evidence.verdict import Judged
from yolo_kd.modes import quantize


def artifact(folder: Path, precision: str, verdict: Verdict | None = None) -> Artifact:
    folder.mkdir()
    return Artifact(folder, "best.xml", "openvino", precision, (64, 64), {0: "car"}, False, verdict)


@pytest.fixture
def found(tmp_path, monkeypatch):
    """A float and three candidates: one that lucked out on the tuning pictures and passed, one rejected, one failed."""

    def refuse(*_: object, **__: object) -> None:
        raise YoloKDError("no net here")

    monkeypatch.setattr(quantization_report, "open_detector", refuse)
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    split = Split("val", (tmp_path / "a.png",), {0: "car"})
    parent = artifact(tmp_path / "best_openvino_model", "fp32")
    made = artifact(tmp_path / "best_int8_openvino_model", "int8", Verdict(True, (), ("a remark",)))
    made = replace(made, facts={"calibration": {"warnings": ["nothing was held out"]}})
    trials = [
        Trial("float", parent, "openvino", Way(), None, "bf16", 0.3842, {"small": 0.1}, 19.0, 20.0, size_mb=12.9),
        Trial(
            "stem", made, "openvino", Way(), OpenVINOSettings(stem=0), "int8+bf16", 0.3858, {}, 9.0, 10.0, size_mb=3.7
        ),
        Trial("coarse", made, "openvino", Way(), OpenVINOSettings(), "int8+bf16", 0.3500, {}, 8.0, 9.0, size_mb=3.7),
        Trial("broken", None, "openvino", Way(), OpenVINOSettings(), failure="out of memory"),
    ]
    seen = Measured(128, True, (0.0, 1.0), 550, 551, 0.95, 0.97, 0.01, ms=9.0, parent_ms=19.0, ap=(0.3529, 0.3590))
    outcome = Outcome(Judged(made, seen, {"artifact": "int8+bf16", "parent": "bf16"}), trials[1])
    plan = Plan(Limits(max_drop=0.01), split, split)
    return quantization_report.report([outcome], trials, [parent], plan)


def test_each_candidate_has_its_verdict(found):
    assert [(r.name, r.verdict, r.chosen) for r in found.rows] == [
        ("openvino float", "float", False), ("openvino stem", "passed", True), ("openvino coarse", "rejected", False),
        ("openvino broken", "failed", False),
    ]  # fmt: skip
    assert found.rows[3].reasons == ("out of memory",) and "tuning pictures" in found.rows[2].reasons[0]


@pytest.mark.parametrize("passes", [True, False])
def test_those_whose_turn_at_the_gate_never_came_are_not_judged(tmp_path, passes):
    """Three may try; a fourth of the same back end was not seen by the gate, whatever became of them."""
    made = artifact(tmp_path / "best_int8_openvino_model", "int8", Verdict(passes, () if passes else ("slow",), ()))
    tried = OpenVINOSettings(stem=3)
    trials = [Trial("float", made, "openvino", Way(), None, ap=0.40, p50=30.0)]
    trials += [
        Trial(f"c{i}", made, "openvino", Way(), tried, ap=0.40, p50=10.0 + i, rejected=("slow",) if i < 3 else ())
        for i in range(4)
    ]
    if passes:
        trials[3] = replace(trials[3], rejected=())
    outcome = Outcome(Judged(made, Measured(1, True, (0, 1), 1, 1, 1.0, 1.0, 0.0), {}), trials[3])
    split = Split("val", (), {0: "car"})
    plan = Plan(Limits(), split, split)
    rows = quantization_report._of_search(trials, [outcome], outcome if passes else None, plan)
    assert [r.verdict for r in rows] == [
        "float",
        "rejected",
        "rejected",
        "passed" if passes else "rejected",
        "not judged",
    ]
    assert rows[4].reasons == ("c2 passed the gate first" if passes else "only 3 of a back end may try the gate",)


def test_layers_put_back_that_passed_the_gate_passed_though_they_lost_on_the_tuning_pictures(tmp_path):
    made = artifact(tmp_path / "best_int8_openvino_model", "int8", Verdict(True, (), ()))
    trials = [
        Trial("float", made, "openvino", Way(), None, ap=0.40),
        Trial("mended", made, "openvino", Way(), OpenVINOSettings(), ap=0.30),
    ]
    outcome = Outcome(Judged(made, Measured(1, True, (0, 1), 1, 1, 1.0, 1.0, 0.0), {}), trials[1])
    split = Split("val", (), {0: "car"})
    [_, row] = quantization_report._of_search(trials, [outcome], outcome, Plan(Limits(), split, split))
    assert row.verdict == "passed" and row.chosen


def test_the_headline_is_of_the_pictures_that_nothing_was_chosen_on(found):
    """On the tuning pictures it gained .0016, on the gate's it lost .0061."""
    assert [r.held_out for r in found.rows] == [None, (0.3529, 0.3590), None, None]
    said = summarise(found)
    assert said.good and "0.0061 lost, 0.01 may be lost" in said.lines[1] and "gained" not in " ".join(said.lines)


def test_the_terminal_names_the_float_that_the_report_names(tmp_path, capsys):
    """The gate timed it beside its own parent, at twice its time; ONNX Runtime's float had been the faster one."""
    made = artifact(tmp_path / "best_int8_openvino_model", "int8", Verdict(True, (), ()))
    made = replace(made, facts={"layers": {"int8_convolutions": 1, "float_convolutions": 0}})
    trials = [
        Trial("float", made, "openvino", Way(), None, "f32", 0.40, p50=20.0),
        Trial("float", made, "onnx", Way(), None, "f32", 0.40, p50=15.0),
        Trial("stem", made, "openvino", Way(), OpenVINOSettings(stem=0), "int8+f32", 0.40, p50=10.0),
    ]
    seen = Measured(1, True, (0, 1), 1, 1, 1.0, 1.0, 0.0, ms=11.0, parent_ms=22.0)
    outcome = Outcome(Judged(made, seen, {"artifact": "int8+f32", "parent": "f32"}), trials[2])
    split = Split("val", (), {0: "car"})
    rows = quantization_report._of_search(trials, [outcome], outcome, Plan(Limits(), split, split))
    found = Report("t", {}, rows)
    quantize._tell_outcome(outcome, trials, found)
    line = "10.00 ms per frame (median, in int8+f32): 1.50 × the speed of the fastest float on this device, onnx float in f32"
    said = capsys.readouterr().out
    assert line in said and line in summarise(found).lines[0] and ": 2.00 x its speed" in said
    quantize._tell_outcome(replace(outcome, trial=None), [], found)
    assert "in the search" not in capsys.readouterr().out


def test_the_fastest_is_found_by_times_of_one_kind(tmp_path):
    """90 frames/s of several under way, 25 ms of one alone; the other, mended after the search, takes 20 ms alone."""
    made = artifact(tmp_path / "best_int8_openvino_model", "int8", Verdict(True, (), ()))
    seen = Measured(1, True, (0, 1), 1, 1, 1.0, 1.0, 0.0, ms=25.0, parent_ms=50.0)
    one = Outcome(Judged(made, seen, {}), Trial("a", made, "openvino", Way(), OpenVINOSettings(), fps=90.0))
    mended = Outcome(Judged(made, replace(seen, ms=20.0), {}), Trial("b", made, "onnx", Way(), OpenVINOSettings()))
    timed = replace(mended, trial=replace(mended.trial, fps=60.0))
    assert quantization_report.chosen([one, mended]) is mended
    assert quantization_report.chosen([one, timed]) is one and quantization_report.chosen([]) is None


def test_notes_name_the_artifact_and_a_net_that_does_not_open_has_no_pictures(found):
    assert "best_int8_openvino_model: a remark" in found.notes and found.pairs == []
    assert found.notes[-1] == "calibration: nothing was held out"


def test_what_the_times_are_is_noted(found):
    assert found.notes[0].startswith("Candidates were compared on") and found.notes[1] == NOTES["latency"]
