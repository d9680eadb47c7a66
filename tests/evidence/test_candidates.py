"""What a search came to in words: the right float, what was lost, and nothing claimed that was not measured."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from yolo_kd.evidence.candidates import Report, Row, drop, fastest_float, parent_of, ranked, speed_up, summarise

BF16 = Row("float", "openvino", "bf16", "", 0.3752, {}, 31.0, 33.0, 12.0, "float")
F32 = Row("float32", "openvino", "f32", "", 0.3760, {}, 52.0, 55.0, 12.0, "float")
ONNX = Row("onnx float", "onnx", "f32", "", 0.3764, {}, 62.0, 66.0, 12.0, "float")
BEST = Row("mixed", "openvino", "int8+bf16", "", 0.3731, {}, 20.0, 22.0, 3.4, "passed", (), True)
SLOW = Row("qdq", "onnx", "int8", "", 0.3700, {}, 40.0, 44.0, 3.5, "rejected", ("slower than float", "and more"))
BROKEN = Row("entropy", "onnx", "int8", "", None, {}, None, None, 0.0, "failed", ("out of memory",))
ALL = [F32, BROKEN, SLOW, ONNX, BEST, BF16]


def report(*rows: Row, **more: object) -> Report:
    return Report("t", {}, rows, **more)  # type: ignore[arg-type]


def test_the_fastest_comes_first_and_what_was_not_timed_last():
    assert [r.name for r in ranked(ALL)] == ["mixed", "float", "qdq", "float32", "onnx float", "entropy"]


def test_speed_is_against_the_fastest_float_of_any_back_end_and_precision():
    assert fastest_float(ALL) is BF16 and fastest_float([SLOW, ONNX, F32]) is F32 and fastest_float([SLOW]) is None
    assert speed_up(BEST, ALL) == pytest.approx(1.55) and speed_up(SLOW, ALL) == pytest.approx(31 / 40)
    assert speed_up(BROKEN, ALL) is None and speed_up(BEST, [BEST]) is None


def test_ap_is_compared_with_the_float_of_the_same_back_end():
    assert parent_of(BEST, ALL) is BF16 and parent_of(SLOW, ALL) is ONNX
    assert drop(BEST, ALL) == pytest.approx(0.0021) and drop(SLOW, ALL) == pytest.approx(0.0064)
    assert parent_of(SLOW, [BF16, SLOW]) is BF16, "another back end's float is better than none"
    assert drop(BROKEN, ALL) is None and drop(replace(BEST, ap=math.nan), ALL) is None


def test_a_chosen_one_names_every_float_that_ran():
    found = summarise(report(*ALL, max_drop=0.01))
    assert found.good and found.heading == "mixed passed and was chosen"
    assert found.lines == (
        "20.00 ms per frame (median, in int8+bf16): 1.55 × the speed of the fastest float on this device, float in bf16 "
        "(31.00 ms); 2.60 × float32 in f32 (52.00 ms); 3.10 × onnx float in f32 (62.00 ms).",
        "AP 0.3731 against 0.3752 of float in bf16: 0.0021 lost, 0.01 may be lost.",
    )
    assert [number for number, _ in found.figures] == ["1.55 ×", "20.0 ms", "−0.0021", "3.4 MB"]
    assert found.figures[1][1] == "per frame, median; 95 % within 22.0 ms" and "float 12.0 MB" in found.figures[3][1]


def test_a_slower_one_is_called_slower():
    found = summarise(report(BF16, replace(BEST, p50_ms=40.0)))
    assert "slower (0.78 ×) than the fastest float" in found.lines[0] and found.figures[0][0] == "0.78 ×"


def test_throughput_speaks_of_frames_a_second():
    found = summarise(report(BF16, replace(BEST, p95_ms=None), throughput=True))
    assert "ms per frame (several under way, in int8+bf16)" in found.lines[0]
    assert found.figures[1] == ("20.0 ms", "per frame, 50 frames a second")


def test_a_gain_and_a_tie_are_no_loss():
    assert "0.0048 gained" in summarise(report(BF16, replace(BEST, ap=0.38))).lines[1]
    assert "equal" in summarise(report(BF16, replace(BEST, ap=0.3752))).lines[1]


def test_what_it_was_chosen_on_does_not_speak_for_it():
    """On the pictures of the search it gains, on others it loses: the latter is said."""
    lucky = replace(BEST, ap=0.3768, held_out=(0.3529, 0.3590))
    found = summarise(report(BF16, lucky, max_drop=0.01))
    assert found.lines[1] == (
        "AP 0.3529 against 0.3590 of its float, on pictures that it was not chosen on: 0.0061 lost, 0.01 may be lost."
    )
    assert ("−0.0061", "AP against float (0.3529), held out") in found.figures
    assert "0.3768" not in " ".join(found.lines)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([BF16, replace(BEST, ap=None)], "Its AP was not measured."),
        ([BF16, replace(BEST, ap=math.nan)], "Its AP was not measured."),
        ([BEST], "AP 0.3731; that of no float was measured."),
        ([BF16, replace(BEST, p50_ms=None)], "It was not timed on this device."),
        ([BEST], "20.00 ms per frame (median, in int8+bf16); no float was timed, so there is no speed-up to quote."),
        ([BF16, replace(BEST, p50_ms=math.nan)], "It was not timed on this device."),
    ],
)
def test_what_was_not_measured_is_not_claimed(rows, line):
    found = summarise(report(*rows))
    assert line in found.lines
    said = " ".join([found.heading, *found.lines, *(f"{a} {b}" for a, b in found.figures)])
    assert "nan" not in said and "None" not in said


def test_all_rejected_keeps_the_float_and_says_why_nearest_first():
    found = summarise(report(BF16, ONNX, SLOW, BROKEN))
    assert not found.good and found.heading == "None of the 2 candidates passed: keep the float model"
    assert found.lines == ("qdq was rejected: slower than float", "entropy failed: out of memory") and not found.figures


def test_what_nobody_judged_did_not_pass():
    waited = replace(SLOW, name="fp", verdict="not judged", reasons=("only 3 of a back end may try the gate",), ap=0.1)
    found = summarise(report(BF16, SLOW, waited))
    assert not found.good
    assert found.heading == "None of the 2 candidates passed, 1 was not judged: keep the float model"
    assert found.lines[1] == "fp was not judged: only 3 of a back end may try the gate"


def test_one_candidate_zero_candidates_and_no_rows_at_all():
    assert summarise(report(BF16, SLOW)).heading == "The one candidate did not pass: keep the float model"
    assert summarise(report(BF16)).heading == "No INT8 candidate was tried"
    assert not summarise(report()).good


def test_a_rejected_one_that_was_chosen_is_not_called_good():
    found = summarise(report(BF16, replace(SLOW, chosen=True)))
    assert not found.good and found.heading == "qdq was chosen although it was rejected"
    assert "slower than float" in found.lines and "and more" in found.lines


def test_passed_but_none_chosen_is_said():
    found = summarise(report(BF16, replace(BEST, chosen=False), SLOW))
    assert not found.good and found.heading == "1 of the 2 candidates passed, and none was chosen"


def test_a_float_that_was_chosen_claims_no_speed_up():
    found = summarise(report(replace(BF16, chosen=True), SLOW))
    assert not found.good and found.heading.startswith(
        "The float model float was chosen: 0 of the one candidate passed"
    )
    assert "the fastest float on this device." in found.lines[0] and all("×" not in n for n, _ in found.figures)
