"""What becomes of a recipe that the gate rejects: decided on numbers, said in a line, and the layers are named."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yolo_kd.data.split import Split
from yolo_kd.deploy.artifact import Artifact, read_artifact, write_manifest
from yolo_kd.deploy.quantize.gate import Limits, Measured, decide
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings
from yolo_kd.deploy.quantize.sensitivity import LayerError

from tests.deploy.tiny_nets import openvino_net
from yolo_kd.evidence import outcome, recovery
from yolo_kd.evidence.outcome import Plan, fastest, one_recipe
from yolo_kd.evidence.recovery import Recovered, recover
from yolo_kd.evidence.search import Trial, Way
from yolo_kd.evidence.verdict import Judged

pytest.importorskip("openvino")
GOOD = Measured(16, True, (0.0, 1.0), 90, 90, 0.99, 0.99, 0.01, ms=9.0, parent_ms=19.0, ap=(0.40, 0.40))
SLOW = replace(GOOD, ms=20.0)
UNSURE = replace(GOOD, score_error=0.3)  # AP and boxes as they were, confidences are not
SPLIT = Split("val", (), {0: "thing"})
RANKING = [LayerError("second", 0.5), LayerError("first", 0.25)]


class Maker:
    """In the place of a Producer: copies its parent, and notes what was asked of it."""

    def __init__(self, parent: Artifact) -> None:
        self.parent, self.asked = parent, []

    def write(self, settings: Any, target: Path, overwrite: bool = False, worst: Any = ()) -> Artifact:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.parent.folder, target)
        facts = {"sensitivity": [{"layer": w.layer, "error": w.error} for w in worst]} if worst else {}
        facts["recipe"] = {"float_layers": list(settings.float_layers)}
        return write_manifest(replace(self.parent, folder=target, precision="int8", facts=facts))

    def sensitivity(self, settings: Any, made: Artifact) -> list[LayerError]:
        assert made.model_path.is_file(), "there is no net to look at"
        self.asked.append(made.folder)
        return RANKING


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker(write_manifest(openvino_net(tmp_path / "best_openvino_model")))


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A gate that sees what it is told to, one after the other, and a recovery that is noted."""
    told: dict[str, Any] = {"sees": [], "timed": [], "recovered": []}

    def judge(artifact: Artifact, *rest: Any) -> Judged:
        seen = told["sees"].pop(0)
        told["timed"].append(rest[-1])
        verdict = decide(seen, rest[2])
        return Judged(write_manifest(replace(artifact, verdict=verdict)), seen, {})

    def recovered(producer: Maker, settings: Any, ranking: Any, tuning: Any, limits: Any, folder: Path, tell: Any):
        told["recovered"].append((settings, ranking))
        made = producer.write(replace(settings, float_layers=("second",)), folder / "float_1", worst=ranking)
        return Recovered(made, ("second",), GOOD)

    monkeypatch.setattr(outcome, "judge", judge)
    monkeypatch.setattr(outcome, "recover", recovered)
    yield told
    assert not told["sees"], "the gate was not asked as often as expected"


def plan(said: list[str], **keys: Any) -> Plan:
    return Plan(Limits(), SPLIT, **{"tuning": SPLIT, "tell": said.append, **keys})


def run(maker: Maker, tmp_path: Path, said: list[str], **keys: Any) -> Judged:
    target = tmp_path / "best_int8_openvino_model"
    return one_recipe(maker, OpenVINOSettings(), plan(said, **keys), target, tmp_path / "work").judged  # type: ignore[arg-type]


def layers(judged: Judged) -> list[str]:
    """As the manifest on the disk names them."""
    return [row["layer"] for row in read_artifact(judged.artifact.folder).facts.get("sensitivity", ())]


def test_the_layers_of_an_artifact_that_passed_are_named_unless_nobody_wants_them(maker, gate, tmp_path):
    gate["sees"] = [GOOD, GOOD]
    said: list[str] = []
    judged = run(maker, tmp_path, said)
    assert judged.passed and layers(judged) == ["second", "first"] and not said and not gate["recovered"]
    assert read_artifact(judged.artifact.folder).verdict.passed, "the verdict stays beside them"
    shutil.rmtree(judged.artifact.folder)
    assert layers(run(maker, tmp_path, said, sensitivity=False)) == [] and len(maker.asked) == 1


@pytest.mark.parametrize(
    "seen",
    [
        UNSURE,
        replace(GOOD, ap=(0.38, 0.40)),
        replace(GOOD, ap=None, f1=0.5),
        replace(GOOD, iou=0.5),
        replace(GOOD, by_part={"thing": (0.3, 0.4)}, labelled={"thing": 50}),
        replace(UNSURE, ms=99.0),
    ],
)
def test_whatever_was_lost_layers_go_back_into_float(maker, gate, tmp_path, seen):
    gate["sees"] = [seen, GOOD]
    said: list[str] = []
    judged = run(maker, tmp_path, said)
    assert said == ["best_int8_openvino_model: lost too much, so its most sensitive layers go back into float"]
    assert judged.passed and len(gate["recovered"]) == 1 and layers(judged) == ["second", "first"]
    assert judged.artifact.facts["recipe"]["float_layers"] == ["second"]


@pytest.mark.parametrize(
    ("seen", "keys", "why"),
    [
        (SLOW, {}, "boxes, confidences and AP are within the limits"),
        (replace(GOOD, score_range=(0.0, 2.0)), {}, "boxes, confidences and AP are within the limits"),
        (replace(GOOD, finite=False), {}, "it does not run on every picture"),
        (replace(GOOD, failure="x"), {}, "it does not run on every picture"),
        (UNSURE, {"accuracy_aware": False}, "accuracy_aware=false"),
        (UNSURE, {"tuning": None}, "too few pictures are neither calibrated on nor judged on"),
    ],
)
def test_why_no_layer_goes_back_is_said(maker, gate, tmp_path, seen, keys, why):
    gate["sees"] = [seen]
    said: list[str] = []
    judged = run(maker, tmp_path, said, sensitivity=False, **keys)
    assert not judged.passed and not gate["recovered"]
    assert len(said) == 1 and said[0].startswith("best_int8_openvino_model: no layer goes back into float: " + why)
    assert layers(judged) == ["second", "first"], "those of a rejected one are always named"


def trials(maker: Maker, tmp_path: Path, *precisions: float) -> list[Trial]:
    """A float of .40, and candidates that are slower the later they come."""
    found = [Trial("float", maker.parent, "openvino", Way(), None, "f32", 0.40, p50=30.0)]
    for i, ap in enumerate(precisions):
        made = maker.write(OpenVINOSettings(), tmp_path / "work" / f"openvino_{i}")
        found.append(Trial(f"c{i}", made, "openvino", Way(), OpenVINOSettings(), "int8", ap, p50=10.0 + i))
    return found


@pytest.fixture
def searched(maker, tmp_path, monkeypatch):
    """Runs `fastest` on candidates of these precisions."""

    def go(said: list[str], *precisions: float, **keys: Any):
        found = trials(maker, tmp_path, *precisions)
        monkeypatch.setattr(outcome, "search", lambda *_: found)
        where = tmp_path / "best_int8_openvino_model"
        return fastest({"openvino": maker}, plan(said, **keys), lambda _: where, tmp_path / "work")  # type: ignore[dict-item]

    return go


def test_the_chosen_one_of_a_search_has_its_layers_named(searched, maker, gate):
    gate["sees"] = [GOOD]
    [found], _ = searched([], 0.40, 0.40)
    assert found.trial.name == "c0" and layers(found.judged) == ["second", "first"]
    assert maker.asked == [found.judged.artifact.folder]


def test_a_search_names_no_layers_where_nobody_wants_them(searched, maker, gate):
    gate["sees"] = [GOOD]
    [found], _ = searched([], 0.40, sensitivity=False)
    assert layers(found.judged) == [] and not maker.asked


def test_the_last_candidate_that_was_rejected_has_its_layers_named(searched, gate):
    gate["sees"] = [SLOW, SLOW]
    said: list[str] = []
    [found], listed = searched(said, 0.40, 0.40, sensitivity=False)
    assert not found.judged.passed and layers(found.judged) == ["second", "first"]
    assert all("slower than float" in t.rejected[0] for t in listed[1:]) and "no layer goes back" in said[-1]


def test_candidates_that_only_the_gate_finds_unsure_are_mended(searched, gate):
    """On the tuning pictures their AP was good enough."""
    gate["sees"] = [UNSURE, UNSURE, GOOD]
    said: list[str] = []
    [found], listed = searched(said, 0.40, 0.398)
    assert found.judged.passed and found.trial.name == "c0, 1 layers in float" and listed[-1] == found.trial
    assert len(gate["recovered"]) == 1 and found.trial.ap == 0.40 and found.trial.p50 is None


@pytest.mark.parametrize("aware", [True, False])
def test_where_every_recipe_loses_too_much(searched, gate, aware):
    gate["sees"] = [GOOD] if aware else []
    said: list[str] = []
    outcomes, _ = searched(said, 0.30, 0.35, accuracy_aware=aware)
    assert "every recipe loses more than 0.01 AP" in said[0]
    assert [o.trial.name for o in outcomes] == (["c1, 1 layers in float"] if aware else [])


def test_an_artifact_for_an_npu_is_not_timed(maker, gate, monkeypatch, tmp_path):
    gate["sees"] = [GOOD, GOOD]
    made = maker.write(OpenVINOSettings(), tmp_path / "int8")
    monkeypatch.setattr(outcome, "npu_faults", lambda artifact: [])
    assert plan([], target="npu").judge(made, maker.parent).passed
    assert plan([], target="latency").judge(made, maker.parent).passed
    assert gate["timed"] == [0, outcome.TIMED] and outcome.TIMED > 0


def test_what_an_npu_would_stumble_over_rejects_it(maker, gate, tmp_path):
    """The net of the test has no quantized layer."""
    gate["sees"] = [GOOD, GOOD]
    made = maker.write(OpenVINOSettings(), tmp_path / "int8")
    judged = plan([], target="npu").judge(made, maker.parent)
    assert not judged.passed and judged.verdict.reasons[0].startswith("on an NPU: no quantized layer")
    assert read_artifact(tmp_path / "int8").verdict == judged.verdict
    assert plan([]).judge(made, maker.parent).passed


def test_layers_go_back_until_every_limit_holds_not_only_that_of_ap(maker, tmp_path, monkeypatch):
    """AP is as it was from the start; confidences are off by .3, .06 and .05."""
    errors = {1: 0.3, 2: 0.05}

    def compare(artifact: Artifact, *_: Any, **options: Any) -> tuple[Measured, dict[str, str]]:
        assert options == {"cache": False}
        return replace(GOOD, score_error=errors[int(artifact.folder.name[-1])]), {}

    monkeypatch.setattr(recovery, "compare", compare)
    said: list[str] = []
    found = recover(maker, OpenVINOSettings(), RANKING, SPLIT, Limits(), tmp_path / "work", said.append)  # type: ignore[arg-type]
    assert found.layers == ("second", "first") and found.artifact.folder.name == "float_2"
    rows = read_artifact(found.artifact.folder).facts["accuracy_aware"]
    assert [row["float_layers"] for row in rows] == [1, 2] and [row["AP"] for row in rows] == [0.40, 0.40]
    assert rows[0]["strain"] == pytest.approx(6) and rows[1]["strain"] == pytest.approx(1)
    assert "600% of what may be lost" in said[0] and "AP 0.4000, float 0.4000" in said[0]


def test_the_best_is_kept_where_nothing_is_enough(maker, tmp_path, monkeypatch):
    seen = {1: replace(GOOD, score_error=0.1), 2: replace(GOOD, failure="does not open")}
    monkeypatch.setattr(recovery, "compare", lambda artifact, *_, **__: (seen[int(artifact.folder.name[-1])], {}))
    found = recover(maker, OpenVINOSettings(), RANKING, SPLIT, Limits(), tmp_path / "work", lambda _: None)  # type: ignore[arg-type]
    assert found.layers == ("second",) and found.seen.score_error == 0.1
    rows = read_artifact(found.artifact.folder).facts["accuracy_aware"]
    assert rows[1]["strain"] is None and not any(
        isinstance(r["strain"], float) and math.isinf(r["strain"]) for r in rows
    )
