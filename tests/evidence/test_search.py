"""The search: what is tried on which device, which candidates count, and that none is dropped."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import pytest
from yolo_kd.data.split import read_split
from yolo_kd.deploy.artifact import Artifact
from yolo_kd.deploy.quantize.onnx import ONNXSettings
from yolo_kd.deploy.quantize.openvino import OpenVINOSettings

from yolo_kd.evidence import search as module
from yolo_kd.evidence.identity import identify, overlap
from yolo_kd.evidence.search import Trial, Way, changed, ranked, ways
from yolo_kd.evidence.table import aligned

INT8 = OpenVINOSettings()


def trial(name: str, ap: float | None, p50: float | None, settings=INT8, backend="openvino", **more) -> Trial:
    return Trial(name, None, backend, more.pop("way", Way()), settings, ap=ap, p50=p50, **more)


def artifact(form: str) -> Artifact:
    return Artifact(Path("nowhere"), "none", form, "fp32", (64, 64), {0: "car"})


def test_the_fastest_within_the_loss_comes_first():
    trials = [
        trial("float", 0.40, 30.0, None),
        trial("float", 0.41, 60.0, None, way=Way("f32")),  # the loss is counted from what runs by default
        trial("slow", 0.40, 25.0),
        trial("blind", 0.10, 5.0),
        trial("fast", 0.39, 15.0),
        trial("just too much", 0.3899, 14.0),
        trial("broken", None, None, failure="does not compile"),
        trial("other", 0.40, 1.0, ONNXSettings(), "onnx"),
    ]
    assert [t.name for t in ranked(trials, "openvino", 0.0100001)] == ["fast", "slow"]
    assert ranked(trials, "openvino", -1.0) == []
    assert [t.name for t in ranked(trials, "onnx", 0.01)] == ["other"]  # no float of its own to compare with


def test_throughput_is_ranked_by_frames_per_second():
    trials = [trial("a", None, 1.0, fps=10.0), trial("b", None, 9.0, fps=90.0)]
    assert [t.name for t in ranked(trials, "openvino", 0.01)] == ["b", "a"]


def test_the_most_precise_comes_first_where_nobody_timed():
    trials = [
        trial("float", 0.40, None, None),
        trial("a", 0.392, None),
        trial("b", 0.396, None),
        trial("c", 0.38, None),
    ]
    assert [t.name for t in ranked(trials, "openvino", 0.01)] == ["b", "a"]


def test_recipes_for_an_npu_are_symmetric_without_an_island_of_float():
    for recipe in module.NPU_RECIPES.values():
        assert isinstance(recipe, OpenVINOSettings) and recipe.preset == "performance"
        assert recipe.stem == 0 and recipe.head == "int8" and not recipe.float_layers


def test_for_an_npu_candidates_are_compared_by_precision_alone(onnx_producer, labelled, tmp_path, monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("timed on this CPU, which is no NPU")

    for name in ("_turns", "_bursts", "ways"):
        monkeypatch.setattr(module, name, never)
    recipes = {"whole": ONNXSettings(), "coarse": ONNXSettings(ranges="percentile", percent=50.5)}
    monkeypatch.setattr(module, "NPU_RECIPES", recipes)
    told: list[str] = []
    found = module.search({"onnx": onnx_producer}, read_split(labelled), "npu", tmp_path, tell=told.append)
    assert [t.name for t in found] == ["float", "whole", "coarse"] and not any("timing" in line for line in told)
    assert all(t.p50 is None and t.fps is None and t.way == Way() and t.ap is not None for t in found)
    assert [t.name for t in ranked(found, "onnx", 1.0)] == ["whole", "coarse"]


def test_every_target_says_what_its_times_are():
    assert set(module.NOTES) == set(module.TARGETS)
    assert "no p50 and no p95" in module.NOTES["throughput"] and "Not timed" in module.NOTES["npu"]


@pytest.mark.parametrize(
    ("form", "bf16", "cores", "expected"),
    [
        ("openvino", True, 4, [Way(), Way(None, 2), Way("f32"), Way("f32", 2)]),
        ("openvino", False, 4, [Way(), Way(None, 2)]),
        ("openvino", True, 1, [Way(), Way("f32")]),
        ("onnx", True, 2, [Way(), Way(None, 1)]),
    ],
)
def test_ways_to_run(monkeypatch, form, bf16, cores, expected):
    monkeypatch.setattr(module.machine, "has_bf16", lambda: bf16)
    assert ways(artifact(form), cores) == expected


def test_a_row_names_what_differs_from_the_default_recipe():
    assert changed(OpenVINOSettings(preset="performance", stem=3)) == {"preset": "performance", "stem": 3}
    assert trial("x", 0.5, 2.0, OpenVINOSettings(stem=3)).row()["settings"] == "stem=3"


def test_every_candidate_stays_in_the_table(onnx_producer, labelled, tmp_path, monkeypatch):
    broken = ONNXSettings(float_layers=("no such layer",))
    recipes = {"onnx": MappingProxyType({"default": ONNXSettings(), "broken": broken})}
    monkeypatch.setattr(module, "RECIPES", recipes)
    monkeypatch.setattr(module.machine, "cores", lambda: 1)
    split = read_split(labelled, "val")
    found = module.search({"onnx": onnx_producer}, split, "latency", tmp_path, timed=2, tell=lambda line: None)
    assert [t.name for t in found] == ["float", "default", "broken"]
    float_, default, failed = found
    assert "the net has no such convolution" in failed.failure and failed.seconds == float("inf")
    assert float_.ap > 0.2 and abs(float_.ap - default.ap) < 0.1
    assert float_.runs_in == "f32" and default.runs_in == "int8+f32" and default.size_mb < 0.5 * float_.size_mb
    assert default.p50 > 0 and default.p95 >= default.p50 and default.fps is None
    assert "no such convolution" in aligned([t.row() for t in found])


def test_throughput_is_measured_in_frames_per_second(onnx_producer, labelled, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECIPES", {"onnx": {"default": ONNXSettings()}})
    monkeypatch.setattr(module, "BURSTS", 1)
    found = module.search({"onnx": onnx_producer}, read_split(labelled), "throughput", tmp_path, tell=lambda line: None)
    assert all(t.fps > 0 and t.p50 is None and t.seconds == 1 / t.fps for t in found)


def test_the_identity_of_a_split_covers_pictures_and_labels(labelled):
    split = read_split(labelled, "val")
    before = identify(split)
    labels = split.images[0].parents[2] / "labels" / "val" / f"{split.images[0].stem}.txt"
    text = labels.read_text()
    try:
        labels.write_text("0 0.5 0.5 0.1 0.1\n")
        after = identify(split)
    finally:
        labels.write_text(text)
    assert after.hash != before.hash and after.pictures == before.pictures
    assert identify(split) == before
    known = {"calibration": {"pictures": [before.pictures[1], "0" * 16]}}
    assert overlap(before, known) == 1 and overlap(before, {}) == 0 and overlap(before, {"calibration": None}) == 0
