"""`yolo-kd bundle`: from a judged artifact to the file that a device accepts."""

from __future__ import annotations

import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from yolo_kd.deploy.artifact import Artifact, Verdict, net_files, read_artifact, sha256, write_manifest
from yolo_kd.deploy.model_card import card

from tests.deploy.tiny_nets import openvino_net
from yolo_kd.cli import main


@pytest.fixture
def artifact(float_export: Path, learnt: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "best_int8_openvino_model"
    shutil.copytree(float_export, folder)
    write_manifest(replace(read_artifact(folder), facts={"parent": {"file": "best.pt", "sha256": sha256(learnt)}}))
    return folder


def test_from_the_gate_to_the_device(artifact, float_export, learnt, pictures, tmp_path, capsys):
    keys = [f"artifact={artifact}", f"parent={float_export}", f"data={pictures}", "split=train"]
    out = tmp_path / "student.zip"
    words = ["bundle", *keys, "references=4", f"run={learnt.parents[1]}", f"out={out}"]
    assert main(words) == 3 and "was never judged" in capsys.readouterr().err and not out.exists()
    assert main(["gate", *keys, "threads=1", "max_slowdown=50"]) == 0
    assert main(words) == 0
    assert "4 reference pictures" in capsys.readouterr().out
    with zipfile.ZipFile(out) as opened:
        text = opened.read("MODEL_CARD.md").decode()
    assert "Passed the gate." in text and "- trained without a teacher" in text and "- epochs: 200" in text
    assert (
        "| AP of car |" in text
        and "| milliseconds per image, median |" in text
        and "| AP of the dark third of the images |" in text
        and "AGPL-3.0" in text
    )
    assert f"sha256 {sha256(learnt)}" in text
    assert main(["accept", f"bundle={out}", "minutes=0.01", "threads=1", "max_slowing=50"]) == 0


def quantized(folder: Path, parent: Artifact, **changes: object) -> Artifact:
    """What passes for the INT8 artifact of a tiny net, with a manifest that names its parent."""
    shutil.copytree(parent.folder, folder)
    facts = {"float_model": {"file": parent.model, "files": net_files(parent)}, "parent": {"sha256": "ab" * 32}}
    return write_manifest(replace(read_artifact(folder), precision="int8", **{"facts": facts, **changes}))


def test_reference_outputs_are_of_the_parent_which_is_found_by_itself_and_of_nothing_else(pictures, tmp_path, capsys):
    """Compared with itself, or with another net's parent, an artifact would agree, or not, for no reason."""
    net = write_manifest(
        replace(openvino_net(tmp_path / "best_openvino_model"), facts={"parent": {"sha256": "ab" * 32}})
    )
    made, out = quantized(tmp_path / "best_int8_openvino_model", net), tmp_path / "student.zip"
    other = write_manifest(replace(openvino_net(tmp_path / "other"), facts={"parent": {"sha256": "cd" * 32}}))
    words = [
        "bundle",
        f"artifact={made.folder}",
        f"data={pictures}",
        "references=1",
        "allow_rejected=true",
        f"out={out}",
    ]
    for parent, said in ((made, "is INT8 itself"), (other, "weights cdcd")):
        assert main([*words, f"parent={parent.folder}"]) == 2
        assert said in capsys.readouterr().err and not out.exists()
    assert main(words) == 0 and out.is_file()
    shutil.rmtree(net.folder)
    assert main(words) == 2 and "name it with parent=<float folder>" in capsys.readouterr().err


def test_fewer_pictures_than_asked_for_are_said(artifact, float_export, pictures, tmp_path, capsys):
    keys = [f"artifact={artifact}", f"parent={float_export}", f"data={pictures}", "allow_rejected=true"]
    for split, count, said in (("val", 16, True), ("val", 4, False), ("train", 5, False)):
        out = tmp_path / f"{split}{count}.zip"
        assert main(["bundle", *keys, f"split={split}", f"references={count}", f"out={out}"]) == 0
        printed = capsys.readouterr().out
        assert (f"WARNING references={count}: {split} holds only 4 pictures" in printed) is said
        assert f"{min(count, 4 if split == 'val' else 8)} reference pictures" in printed


def test_the_card_names_evaluation_calibration_and_recipe(artifact):
    facts = {
        "metrics": {"images": 128, "ap": [0.41, 0.42], "boxes": 3, "parent_boxes": 4},
        "evaluation": {"split": "test", "images": 128, "hash": "e7" * 32},
        "calibration": {"hash": "ca" * 32, "images": 85, "pictures": ["00"], "warnings": ["one scene only"]},
        "recipe": {"backend": "openvino", "preset": "mixed", "outliers": 3e-05, "stem": 0, "equalize": False,
                   "float_layers": ["/model.0/conv", "/model.1/conv"]},
        "layers": {"int8_convolutions": 57, "float_convolutions": 7},
    }  # fmt: skip
    text = card(replace(read_artifact(artifact), precision="int8", facts=facts))
    assert f"On 128 held-out images (split test, sha256 of pictures and labels `{'e7' * 32}`)" in text
    assert f"- calibrated on: 85 pictures, sha256 of the list `{'ca' * 32}`" in text
    assert "- WARNING of the calibration: one scene only" in text
    assert (
        "- recipe: backend openvino, preset mixed, outliers 3e-05, stem 0, equalize false, float_layers /model.0"
        in text
    )
    assert "- layers: 57 convolutions on integers, 7 in float" in text


def test_the_card_says_what_is_not_known(artifact):
    text = card(read_artifact(artifact))
    assert "Never judged." in text and "Nothing." in text and "- run: not recorded" in text and "did not pass" in text
    assert "## Quantization\n\nNone, the net is in fp32." in text
    unknown = card(replace(read_artifact(artifact), precision="int8"))
    assert "- calibrated on: not recorded\n- recipe: not recorded" in unknown
    rejected = replace(read_artifact(artifact), verdict=Verdict(False, ("detects nothing",), ("odd",)))
    assert "Rejected by the gate:\n- detects nothing\n- note: odd" in card(rejected)


def test_the_card_names_teacher_recipe_and_gains(artifact):
    run = {
        "args": {"data": "/data/visdrone.yaml", "epochs": 100},
        "kd": {"teacher": "/w/yolov8l.pt", "recipe": {"name": "csgr_lqe", "methods": {"csgr": {}}}, "fixed_gains": {"csgr.cs": 0.12345}},
    }  # fmt: skip
    text = card(read_artifact(artifact), run)
    assert "- data: visdrone.yaml" in text and "- imgsz: not recorded" in text
    assert "- teacher: yolov8l.pt; recipe csgr_lqe (csgr.cs 0.1235)" in text


def test_the_card_knows_the_distillation_of_ultralytics(artifact):
    text = card(read_artifact(artifact), {"args": {"distill_model": "/w/yolo11x.pt"}})
    assert "- teacher: yolo11x.pt, by Ultralytics' own distill_model=" in text and "without a teacher" not in text


def test_a_run_that_trained_another_net_does_not_fill_the_card(
    artifact, float_export, learnt, pictures, tmp_path, capsys
):
    shutil.copyfile(learnt.parents[1] / "args.yaml", tmp_path / "args.yaml")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "best.pt").write_text("another net")
    words = [f"artifact={artifact}", f"parent={float_export}", f"data={pictures}", f"out={tmp_path / 'student.zip'}"]
    assert main(["bundle", *words, f"run={tmp_path}"]) == 2
    said = capsys.readouterr().err
    assert f"none of its weights is best.pt, sha256 {sha256(learnt)[:12]}, that the artifact was made from" in said
    assert not (tmp_path / "student.zip").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": None}, "data= is missing"),
        ({"references": "0"}, "references=0: expected a whole number from 1 on"),
        ({"run": "."}, "no args.yaml there"),
        ({"sing": "k.pem"}, "unknown key (did you mean 'sign'?)"),
    ],
)
def test_mistakes_are_one_line(artifact, float_export, pictures, capsys, change, said):
    keys = {"artifact": artifact, "parent": float_export, "data": pictures, **change}
    assert main(["bundle", *(f"{k}={v}" for k, v in keys.items() if v is not None)]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0]
