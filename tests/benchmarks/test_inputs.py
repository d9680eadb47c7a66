"""How the inputs of a benchmark were made, as far as they say so; and what the floors of edge_latency say."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from yolo_kd.deploy.artifact import read_artifact, sha256, write_manifest

from benchmarks.edge_latency import _floors
from benchmarks.inputs import origin

PARENT = {"parent": {"file": "best.pt", "sha256": "ab" * 32}}


def test_a_trained_checkpoint_names_its_training(learnt: Path) -> None:
    said = origin("weights", learnt)
    assert said.startswith(f"weights=last.pt: checkpoint, sha256 {sha256(learnt)[:12]}, ")
    assert said.endswith("tiny.yaml after 200 epochs of data.yaml at 64 px, seed 1")


def test_a_checkpoint_that_says_nothing(make_checkpoint) -> None:
    assert origin("weights", make_checkpoint()).endswith("of which it does not say how it was trained")


@pytest.mark.parametrize(
    ("precision", "facts", "said"),
    [
        ("fp32", PARENT, "openvino in fp32, 64x64, as yolo-kd export leaves it, from best.pt, sha256 abababababab"),
        ("int8", {**PARENT, "calibration": {"images": 85, "hash": "cd" * 32},
                  "recipe": {"backend": "openvino", "preset": "mixed", "stem": 0, "float_layers": []}},
         "openvino in INT8, 64x64, as yolo-kd quantize leaves it, from best.pt, sha256 abababababab; recipe preset mixed, "
         "stem 0; calibrated on 85 pictures, list sha256 cdcdcdcdcdcd"),
        ("fp32", {}, "leaves it, from weights that it does not name"),
    ],
)  # fmt: skip
def test_an_artifact_names_what_it_was_made_from(float_export: Path, tmp_path: Path, precision, facts, said) -> None:
    folder = tmp_path / "best_int8_openvino_model"
    shutil.copytree(float_export, folder)
    write_manifest(replace(read_artifact(folder), precision=precision, facts=facts))
    assert origin("int8", folder).startswith("int8=best_int8_openvino_model: ") and said in origin("int8", folder)


def test_a_floor_says_what_it_is() -> None:
    rows = {
        "Ultralytics float 640x640": {"p50 ms": 20.0, "p99 ms": 50.0},
        "bare float 640x640": {"p50 ms": 15.0, "p99 ms": 30.0},
        "ours x": {"p50 ms": 16.0, "p99 ms": 80.0},
    }
    line, tail = _floors(rows)
    assert tail.startswith("p99 over p50 of the bare inference, worst: 2.000")
    assert line.startswith(
        "floor of ours over Ultralytics, float, 640x640: 0.750; the bare inference alone takes this share"
    )
