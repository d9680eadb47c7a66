"""Choosing an engine: the decision on made-up rows, then building and measuring with engines that are off by design."""

from __future__ import annotations

import importlib.util
import math

import pytest
import torch
from yolo_kd.cfg.settings import DistillSettings, Recipe
from yolo_kd.deploy import machine

from yolo_kd.distillers.base import Branch, HeadOutput
from yolo_kd.engine import selection
from yolo_kd.engine.agreement import Agreement, compare, relative_error, score_errors
from yolo_kd.engine.engine_rows import Limits, Row, decide, least_off, objection, table
from yolo_kd.engine.ir_cache import FOLDER
from yolo_kd.engine.teacher import Teacher
from yolo_kd.errors import GateError, MisuseError, YoloKDError

LIMITS = Limits(0.05, 0.1)
STRIDES = (8, 16, 32)
CPU = torch.device("cpu")


def row(name: str, ms: float, feature: float = 0.01, score: float = 0.01) -> Row:
    return Row(name, Agreement((feature / 3, feature, feature / 2), score), ms)


def test_fastest_that_passes_is_chosen():
    rows = [row("exact", 9), row("half", 4), row("int8", 2, feature=0.2), row("slow", 12)]
    assert decide(rows, LIMITS, STRIDES) == "half"


@pytest.mark.parametrize("bad", [row("x", 1, feature=0.051), row("x", 1, score=0.101), Row("x", trouble="no package")])
def test_each_limit_and_each_trouble_excludes(bad):
    assert decide([bad], LIMITS, STRIDES) is None
    assert decide([bad, row("y", 50)], LIMITS, STRIDES) == "y"
    assert decide([row("y", 1, feature=0.05, score=0.1)], LIMITS, STRIDES) == "y"  # a limit itself is allowed


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_never_passes(value):
    for found in (Agreement((0.0, value, 0.0), 0.0), Agreement((0.0,) * 3, 0.0, 0.0, value)):
        assert objection(Row("x", found, 1.0), LIMITS, STRIDES) == "outputs are not finite"


def test_objection_names_level_number_limit_and_key():
    found = objection(row("x", 1, feature=0.2, score=0.3), LIMITS, STRIDES)
    assert found == "P4 .200 > max_feature_error .050, score .300 > max_score_error .100"


def test_least_off_looks_at_both_limits():
    rows = [
        row("a", 1, feature=0.1),
        row("b", 5, score=0.15),
        Row("c", trouble="broken"),
        row("d", 1, feature=math.nan),
    ]
    assert least_off(rows, LIMITS) == "b"
    assert least_off(rows[2:3], LIMITS) is None
    assert least_off(rows[:1], Limits(0.0, 0.0)) == "a"


def test_table_is_aligned_and_says_why():
    rows = [row("torch-fp32", 100.04), row("openvino-int8-all", 3, feature=0.2), Row("x", trouble="nncf not installed")]
    head, *lines = table(rows, LIMITS, STRIDES, "torch-fp32")
    assert lines[0] == "torch-fp32         .003  .010  .005  .010    100.0  chosen"
    assert lines[1].endswith("P4 .200 > max_feature_error .050") and lines[2].endswith("nncf not installed")
    assert {line.index(word) for line, word in zip(lines, ("chosen", "P4", "nncf"))} == {head.index("(errors")}


def test_relative_error_by_hand():
    assert relative_error([torch.tensor([3.0]), torch.tensor([4.0])], [torch.tensor([3.0]), torch.tensor([3.0])]) == 0.2
    assert relative_error([torch.zeros(2)], [torch.zeros(2)]) == 0.0
    assert math.isnan(relative_error([torch.ones(2)], [torch.tensor([1.0, math.nan])]))


def test_score_error_counts_confident_cells_only():
    wanted = torch.full((1, 2, 1000), -8.0)
    wanted[0, 0, :200] = 2.0
    unsure, sure = wanted.clone(), wanted.clone()
    unsure[0, 1, 500:] = 0.0  # half of all cells, but the teacher has nothing there
    sure[0, 0, :3] = 0.0  # 1.5 % of the confident cells
    assert score_errors([wanted], [unsure])[0] == 0.0
    assert score_errors([wanted], [sure])[0] == pytest.approx(torch.tensor(2.0).sigmoid().item() - 0.5)
    score, mean, largest = score_errors([wanted, wanted], [wanted, wanted])
    assert score == mean == largest == 0.0


def test_each_level_has_its_error_and_of_two_branches_the_worse_counts():
    """Over two batches; level 0 is exact, of level 1 and of each branch's scores something is off."""
    clear = torch.full((1, 1, 200), 2.0)

    def head(level: float, many: float, one: float) -> HeadOutput:
        scores = {"one2many": clear + many, "one2one": clear + one}
        maps = (torch.ones(1, 1, 2, 2), torch.full((1, 1, 1, 1), level))
        return HeadOutput(maps, {name: Branch(clear, found) for name, found in scores.items()})

    exact = [head(1.0, 0.0, 0.0)] * 2
    found = compare(exact, [head(1.0, 0.0, -0.5), head(1.5, 0.1, -0.5)])
    assert found.features == (0.0, pytest.approx(math.sqrt(0.25 / 2)))
    assert found.score == pytest.approx(
        torch.sigmoid(torch.tensor(2.0)).item() - torch.sigmoid(torch.tensor(1.5)).item()
    )
    turned = compare(exact, [head(1.0, -0.5, 0.0)] * 2)
    assert turned.score == found.score == found.score_max


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny nets: a second thread costs more than it saves, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def teacher(make_checkpoint) -> Teacher:
    return Teacher(str(make_checkpoint(seed=1)), CPU)


def settings(engine: str = "auto", **keys) -> DistillSettings:
    return DistillSettings(
        Recipe("x", {}), teacher="t.pt", **{"teacher_engine": engine, "calibration_images": 4, **keys}
    )


def batches() -> list[torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    return [torch.rand(2, 3, 64, 64, generator=made) for _ in range(4)]


class Off:
    """An engine whose outputs are a factor off."""

    def __init__(self, net, factor: float) -> None:
        self.net, self.factor = net, factor

    def __call__(self, img):
        return [t * self.factor for t in self.net(img)]


@pytest.fixture
def fake(monkeypatch, teacher):
    """Engines by name: their factor, or what building raises; and the order in which they were built."""
    made: list[str] = []
    factors = {"openvino-bf16": 1.001, "openvino-fp32": 1.0, "openvino-int8": 1.2, "openvino-int8-all": 1.5}

    def build(name, *_rest):
        made.append(name)
        factor = factors.get(name, 1.0)
        if isinstance(factor, Exception):
            raise factor
        return Off(teacher.net, factor)

    monkeypatch.setattr(selection, "_build", build)
    monkeypatch.setattr(selection, "require_packages", lambda *a, **k: None)
    monkeypatch.setattr(selection, "TIMED_RUNS", 1)
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    return made, factors


def test_candidates_follow_the_device(monkeypatch):
    monkeypatch.setattr(selection, "half_precision", lambda d: torch.float16 if d.type == "cuda" else torch.bfloat16)
    monkeypatch.setattr(machine, "has_bf16", lambda: True)
    gpu = torch.device("cuda:0")
    assert selection.candidates("auto", gpu) == ["torch-fp32", "torch-fp16"]
    assert selection.candidates("auto", CPU)[:3] == ["torch-fp32", "torch-bf16", "openvino-bf16"]
    assert selection.candidates("torch", CPU) == ["torch-fp32", "torch-bf16"]
    assert selection.candidates("openvino-int8", CPU) == ["openvino-int8", "openvino-int8-all"]
    with pytest.raises(MisuseError, match="OpenVINO runs on the CPU"):
        selection.candidates("openvino-bf16", gpu)


def test_without_bf16_the_engine_is_called_fp32_and_forcing_bf16_is_refused(monkeypatch):
    monkeypatch.setattr(selection, "half_precision", lambda d: torch.float32)
    monkeypatch.setattr(machine, "has_bf16", lambda: False)
    assert selection.candidates("auto", CPU)[:2] == ["torch-fp32", "openvino-fp32"]
    with pytest.raises(MisuseError, match="has no bf16"):
        selection.candidates("openvino-bf16", CPU)


def test_auto_goes_on_when_a_candidate_fails(fake, teacher, tmp_path):
    made, factors = fake
    factors["openvino-bf16"] = RuntimeError("unsupported\ninstruction")
    lines: list[str] = []
    choice = selection.choose(teacher, settings(), batches(), tmp_path, lines.append)
    assert choice.name.startswith("torch-") and choice.engine(batches()[0])
    rows = {r.engine: r for r in choice.rows}
    assert rows["openvino-bf16"].trouble == "RuntimeError: unsupported instruction"
    assert any("openvino-bf16" in line and "unsupported instruction" in line for line in lines)
    assert rows["openvino-int8-all"].trouble == selection.NOT_TRIED and "openvino-int8-all" not in made
    assert not (tmp_path / FOLDER).exists()  # what failed may work next time


def test_what_failed_does_not_teach(fake, teacher, tmp_path):
    """The last resort, float32 in torch, is taken although it is not the fastest, but not if it has just failed."""
    fake[1].update(dict.fromkeys(("torch-fp32", "torch-bf16"), RuntimeError("no compiler")))
    with pytest.raises(
        YoloKDError, match="torch-fp32 does not run here: .*no compiler; leave out teacher_compile=true"
    ):
        selection.choose(teacher, settings("torch", teacher_compile=True), batches(), tmp_path, print)


def test_rows_of_a_device_without_a_name_of_its_own_have_a_key(teacher):
    teacher.device = torch.device("mps")
    assert selection._key(teacher, settings(), batches())["device"] == "mps"


def test_measurements_are_reused_for_the_same_key(fake, teacher, tmp_path):
    made, _ = fake
    lines: list[str] = []
    first = selection.choose(teacher, settings(), batches(), tmp_path, lines.append)
    made.clear()
    again = selection.choose(teacher, settings(), batches(), tmp_path, lines.append)
    assert again.reused and not first.reused and again.rows == first.rows
    assert made == [first.name] == [again.name]
    assert any("as measured before" in line for line in lines)
    for other in (settings(max_feature_error=0.3), settings(calibration_images=3)):
        assert not selection.choose(teacher, other, batches(), tmp_path, lines.append).reused


def test_measurements_that_cannot_be_kept_are_a_line(fake, teacher, tmp_path):
    (tmp_path / FOLDER).write_text("a file in its place")
    lines: list[str] = []
    assert selection.choose(teacher, settings(), batches(), tmp_path, lines.append).name
    assert [line.endswith("; it is measured again next time") for line in lines].count(True) == 1


def test_damaged_measurements_are_taken_again(fake, teacher, tmp_path):
    lines: list[str] = []
    selection.choose(teacher, settings(), batches(), tmp_path, lines.append)
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_text(path.read_text()[:-20])
    assert not selection.choose(teacher, settings(), batches(), tmp_path, lines.append).reused
    assert any("is damaged" in line for line in lines)


def test_forced_engine_that_is_off_is_refused(fake, teacher, tmp_path):
    lines: list[str] = []
    for _ in range(2):  # measured, then from the file
        with pytest.raises(GateError, match=r"openvino-int8: too far .* > max_feature_error \.060.*force=true"):
            selection.choose(teacher, settings("openvino-int8"), batches(), tmp_path, lines.append)
    assert any(line.startswith("openvino-int8 ") for line in lines)


def test_force_runs_it_and_says_so(fake, teacher, tmp_path):
    lines: list[str] = []
    choice = selection.choose(teacher, settings("openvino-int8", force=True), batches(), tmp_path, lines.append)
    assert choice.name == "openvino-int8" and "because force=true" in lines[-1]


def test_forced_engine_that_agrees_runs(fake, teacher, tmp_path):
    choice = selection.choose(teacher, settings("openvino-bf16"), batches(), tmp_path, lambda _line: None)
    assert choice.name == "openvino-bf16" and teacher.engine_name == "torch-fp32"


@pytest.mark.parametrize("wanted", ["auto", "openvino-int8"])
@pytest.mark.parametrize(
    ("alone_ms", "all_ms", "faster"), [(3.0, 2.0, "openvino-int8-all"), (2.0, 3.0, "openvino-int8")]
)
def test_of_two_int8_engines_that_agree_the_faster_runs(
    fake, teacher, tmp_path, monkeypatch, wanted, alone_ms, all_ms, faster
):
    made, factors = fake
    factors.update({"openvino-int8": 1.001, "openvino-int8-all": 1.002})
    timed = {"openvino-int8": alone_ms, "openvino-int8-all": all_ms}
    monkeypatch.setattr(selection, "time_runs", lambda runs, img: {name: timed.get(name, 9.0) for name in runs})
    kd = settings(wanted)
    choice = selection.choose(teacher, kd, batches(), tmp_path, lambda _line: None)
    rows, limits = {row.engine: row for row in choice.rows}, Limits(kd.max_feature_error, kd.max_score_error)
    assert [objection(rows[name], limits, STRIDES) for name in timed] == ["", ""]
    assert choice.name == faster and choice.engine.factor == factors[faster]
    assert made.count("openvino-int8") == made.count("openvino-int8-all") == 1


def test_forced_engine_that_cannot_be_built(fake, teacher, tmp_path):
    fake[1]["openvino-bf16"] = YoloKDError("teacher_engine=openvino-bf16: broken")
    with pytest.raises(YoloKDError, match="broken; use teacher_engine=auto"):
        selection.choose(teacher, settings("openvino-bf16", force=True), batches(), tmp_path, lambda _line: None)


def test_without_openvino_auto_says_so_and_forcing_is_refused(monkeypatch, teacher, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n in ("openvino", "nncf") else find(n, *a))
    lines: list[str] = []
    choice = selection.choose(teacher, settings(), batches(), tmp_path, lines.append)
    assert choice.name.startswith("torch-")
    assert sum("pip install yolo-kd[openvino]" in line for line in lines) >= 3
    with pytest.raises(MisuseError, match="openvino and nncf not installed"):
        selection.choose(teacher, settings("openvino-int8"), batches(), tmp_path, lines.append)


@pytest.mark.slow
def test_all_for_real(teacher, tmp_path):
    pytest.importorskip("openvino", reason="the extra [openvino] is optional")
    pytest.importorskip("nncf", reason="the extra [openvino] is optional")
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    lines: list[str] = []
    wide = settings(max_feature_error=5.0, max_score_error=1.0)  # random weights: every engine ought to run
    choice = selection.choose(teacher, wide, batches(), tmp_path, lines.append)
    assert all(r.agreement and r.ms for r in choice.rows) and len(choice.rows) >= 4
    assert torch.get_num_threads() == threads and torch.equal(torch.get_rng_state(), state)
    built = selection.build(choice.name, teacher, wide, batches(), tmp_path, lines.append)
    assert all(torch.equal(a, b) for a, b in zip(built(batches()[0]), choice.engine(batches()[0]), strict=True))
    assert selection.batches_needed(wide, 2, torch.device("cpu")) == 4
