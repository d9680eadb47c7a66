"""The float parent of an artifact is found by every byte of its net, among students of one kind and whatever else lies there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from yolo_kd.deploy.artifact import Artifact, net_files, read_artifact, sha256, write_manifest

from tests.deploy.tiny_nets import onnx_net, openvino_net
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.verdict import find_parent

pytest.importorskip("openvino")


def student(folder: Path, kind: int, weights: str | None = None) -> Artifact:
    """A float artifact; the description of the net is the same for all kinds, the weights are not."""
    source = folder.parent / "net"
    if not source.is_dir():
        openvino_net(source)
    shutil.copytree(source, folder)
    stored = bytearray((source / "best.bin").read_bytes())
    stored[0] ^= kind
    (folder / "best.bin").write_bytes(stored)
    return write_manifest(replace(read_artifact(folder), facts={"parent": {"sha256": weights}} if weights else {}))


def quantized(parent: Artifact, **made_from: Any) -> Artifact:
    """What passes for its INT8 artifact, as `Producer` describes it."""
    folder = parent.folder.parent / f"{parent.folder.name.removesuffix('_openvino_model')}_int8_openvino_model"
    shutil.copytree(parent.folder, folder)
    facts = {**parent.facts, "float_model": made_from or {"file": parent.model, "files": net_files(parent)}}
    return write_manifest(replace(read_artifact(folder), precision="int8", facts=facts))


def test_each_of_two_students_finds_its_own_parent(tmp_path: Path) -> None:
    parents = [student(tmp_path / f"{name}_openvino_model", kind) for name, kind in (("a", 1), ("b", 2))]
    xml, weights = ({p.files[name] for p in parents} for name in ("best.xml", "best.bin"))
    assert len(xml) == 1 and len(weights) == 2, "the description of a net holds none of its weights"
    assert [find_parent(quantized(p)).folder.name for p in parents] == ["a_openvino_model", "b_openvino_model"]


def test_a_manifest_that_names_the_net_alone_is_helped_by_the_checkpoint(tmp_path: Path) -> None:
    parents = [student(tmp_path / f"{n}_openvino_model", kind, n * 64) for n, kind in (("a", 1), ("b", 2))]
    made = quantized(parents[1], file="best.xml", sha256=parents[1].files["best.xml"])
    assert find_parent(made).folder.name == "b_openvino_model"


def test_neighbours_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    for name, damage in (("0", "{"), ("1", '{"version": 1}')):
        student(tmp_path / f"{name}_openvino_model", 1)
        (tmp_path / f"{name}_openvino_model" / "artifact.json").write_text(damage)
    student(tmp_path / "b_openvino_model", 1)
    (tmp_path / "2_openvino_model").mkdir()
    (tmp_path / "2_openvino_model" / "best.xml").write_text("no weights beside it")
    assert find_parent(quantized(read_artifact(tmp_path / "b_openvino_model"))).folder.name == "b_openvino_model"


def test_what_is_there_instead_is_said(tmp_path: Path) -> None:
    made = quantized(parent := student(tmp_path / "b_openvino_model", 1))
    student(tmp_path / "c_openvino_model", 2)
    (parent.folder / "artifact.json").write_text("{")
    with pytest.raises(MisuseError) as caught:
        find_parent(made)
    said = str(caught.value)
    assert "c_openvino_model has another best.bin" in said and "b_openvino_model: " in said and "not readable" in said
    assert said.endswith("name it with parent=<float folder>")


def test_a_float_net_has_no_parent_to_lie_beside_it(tmp_path: Path) -> None:
    with pytest.raises(MisuseError, match="is fp32 itself, and its manifest names no float model"):
        find_parent(student(tmp_path / "b_openvino_model", 1))


def test_a_parent_of_ultralytics_without_a_manifest_is_found(tmp_path: Path) -> None:
    made = quantized(openvino_net(tmp_path / "b_openvino_model"))
    student(tmp_path / "a_openvino_model", 2)
    assert find_parent(made).folder.name == "b_openvino_model"


def test_a_bare_file_beside_the_artifact_is_found(tmp_path: Path) -> None:
    parent = onnx_net(tmp_path)
    folder = tmp_path / "best_int8_onnx_model"
    folder.mkdir()
    shutil.copy(parent.model_path, folder)
    facts = {"float_model": {"file": "best.onnx", "files": net_files(parent)}}
    made = write_manifest(replace(read_artifact(folder), precision="int8", facts=facts))
    found = find_parent(made)
    assert (found.folder, found.model) == (tmp_path, "best.onnx") and sha256(found.model_path) == made.files[
        "best.onnx"
    ]


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: {},
        lambda facts: {"float_model": {}},
        lambda facts: {"float_model": {"file": "best.xml"}},
        lambda facts: {"float_model": {"file": "../b_openvino_model/best.xml", "files": facts["float_model"]["files"]}},
        lambda facts: {"float_model": {"file": "best.xml", "files": {"../best.xml": "ab", "best.xml": "cd"}}},
    ],
)
def test_a_manifest_that_says_nothing_of_use(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    made = quantized(student(tmp_path / "b_openvino_model", 1))
    with pytest.raises(MisuseError, match="does not lie beside it"):
        find_parent(replace(made, facts=change(made.facts)))
