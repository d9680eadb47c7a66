"""The manifest: what is written is read, what is damaged is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from yolo_kd.deploy.artifact import Artifact, Verdict, net_files, read_artifact, sha256, write_manifest

from tests.full_disk import files_end_at
from yolo_kd.errors import GateError, MisuseError, YoloKDError

METADATA = {
    "task": "detect", "imgsz": [96, 160], "names": {0: "car", 1: "bus"}, "channels": 3, "end2end": False,
    "args": {"quantize": None, "nms": None},
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as Ultralytics exports it, with a net that is none."""
    path = tmp_path / "best_openvino_model"
    path.mkdir()
    (path / "best.xml").write_text("<net/>")
    (path / "best.bin").write_bytes(bytes(range(256)))
    write_metadata(path)
    return path


def write_metadata(path: Path, **keys: object) -> None:
    (path / "metadata.yaml").write_text(yaml.safe_dump(METADATA | keys))


def edit(path: Path, **keys: object) -> None:
    """Change the manifest; a value of None takes the key out."""
    raw = json.loads((path / "artifact.json").read_text()) | keys
    (path / "artifact.json").write_text(json.dumps({k: v for k, v in raw.items() if v is not None}))


def test_what_is_written_is_read(folder: Path) -> None:
    facts = {"parent": {"sha256": "ab"}, "metrics": {"ap": [0.4, 0.41]}}
    verdict = Verdict(False, ("AP fell by .02",), ("AP of class 3 rose",))
    made = replace(read_artifact(folder), precision="int8", verdict=verdict, facts=facts)
    assert write_manifest(made) == read_artifact(folder)
    found = read_artifact(folder)
    assert found == replace(made, files=found.files)
    assert set(found.files) == {"best.xml", "best.bin", "metadata.yaml"}
    assert found.files["best.bin"] == sha256(folder / "best.bin")
    assert read_artifact(folder / "best.xml") == found


def test_a_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # the example of FIPS 180-2
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_of_ultralytics_has_no_verdict(folder: Path) -> None:
    found = read_artifact(folder)
    assert found == Artifact(folder, "best.xml", "openvino", "fp32", (96, 160), {0: "car", 1: "bus"})
    assert found.verdict is None and not found.files
    found.check_files()
    assert found.model_path == folder / "best.xml"


@pytest.mark.parametrize(
    ("keys", "field", "value"),
    [
        ({"args": {"quantize": 8}}, "precision", "int8"),
        ({"args": {"quantize": 16}}, "precision", "fp16"),
        ({"args": {"int8": True}}, "precision", "int8"),
        ({"args": {"half": True}}, "precision", "fp16"),
        ({"args": None}, "precision", "fp32"),
        ({"imgsz": 64}, "input_hw", (64, 64)),
        ({"end2end": True}, "end2end", True),
        ({"args": {"nms": True}}, "end2end", True),
        ({"args": {"nms": False}}, "end2end", False),
    ],
)
def test_metadata_of_ultralytics(folder: Path, keys: dict, field: str, value: object) -> None:
    write_metadata(folder, **keys)
    assert getattr(read_artifact(folder), field) == value


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"names": None}, "no usable metadata"),
        ({"names": {0: "a", 2: "b"}}, "no usable metadata"),
        ({"names": {}}, "no usable metadata"),
        ({"imgsz": "large"}, "no usable metadata"),
        ({"imgsz": []}, "no usable metadata"),
        ({"args": "none"}, "no usable metadata"),
        ({"task": "segment"}, "is a 'segment' model"),
        ({"channels": 4}, "of 4 channels"),
    ],
)
def test_metadata_that_is_no_detectors(folder: Path, keys: dict, message: str) -> None:
    write_metadata(folder, **keys)
    with pytest.raises(MisuseError, match=message):
        read_artifact(folder)


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "", "a: [", "\x00"])
def test_metadata_that_is_no_mapping(folder: Path, text: str) -> None:
    (folder / "metadata.yaml").write_text(text)
    with pytest.raises(MisuseError, match="metadata"):
        read_artifact(folder)


def test_the_metadata_inside_an_onnx_file_is_read(exported: Callable[..., Path]) -> None:
    found = read_artifact(exported(form="onnx"))
    assert (found.format, found.precision, found.input_hw) == ("onnx", "fp32", (96, 160))
    assert found.names == {0: "car", 1: "truck", 2: "person"} and found.end2end is False


def test_the_metadata_inside_an_onnx_file_beats_what_lies_beside_it(
    exported: Callable[..., Path], folder: Path
) -> None:
    (folder / "best.xml").unlink()
    shutil.copy(exported(form="onnx"), folder / "best.onnx")
    assert read_artifact(folder).names[2] == "person"


@pytest.mark.parametrize("name", ["best.xml", "best.bin", "metadata.yaml"])
def test_a_changed_byte_is_found_in_every_file(folder: Path, name: str) -> None:
    write_manifest(read_artifact(folder))
    raw = bytearray((folder / name).read_bytes())
    raw[0] ^= 1
    (folder / name).write_bytes(raw)
    with pytest.raises(GateError, match=f"{name} has sha256 .* changed or damaged"):
        read_artifact(folder).check_files()


def test_a_missing_file_is_named(folder: Path) -> None:
    write_manifest(read_artifact(folder))
    (folder / "best.bin").unlink()
    with pytest.raises(GateError, match=r"best\.bin is missing"):
        read_artifact(folder).check_files()


@pytest.mark.parametrize(
    "keys",
    [
        {"names": None}, {"files": None}, {"version": "1"}, {"version": 2}, {"input_hw": [96]}, {"input_hw": [96, -1]},
        {"input_hw": [96, 1 << 15]}, {"names": {"0": "a", "2": "b"}}, {"names": {"x": "a"}}, {"format": "engine"},
        {"precision": "int4"}, {"model": "../best.xml"}, {"model": "other.xml"}, {"files": {}},
        {"files": {"best.xml": "00"}}, {"files": {"best.xml": "00", "best.bin": 7}}, {"files": {"best.xml": "00", "best.bin": "00", "/etc/passwd": "00"}},
        {"verdict": {"passed": "no", "reasons": [], "remarks": []}}, {"verdict": {"passed": True}}, {"verdict": "passed"},
        {"verdict": {"passed": True, "reasons": "x", "remarks": []}},
    ],
)  # fmt: skip
def test_a_manifest_that_makes_no_sense(folder: Path, keys: dict) -> None:
    write_manifest(read_artifact(folder))
    edit(folder, **keys)
    with pytest.raises(MisuseError, match=r"artifact\.json") as caught:
        read_artifact(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00\xff"])
def test_a_manifest_that_is_no_json_object(folder: Path, text: str) -> None:
    (folder / "artifact.json").write_text(text)
    with pytest.raises(MisuseError, match=r"artifact\.json"):
        read_artifact(folder)


def test_no_file_of_two_is_guessed(folder: Path) -> None:
    (folder / "other.xml").write_text("<net/>")
    with pytest.raises(MisuseError, match=r"found best\.xml, other\.xml; name the file"):
        read_artifact(folder)
    assert read_artifact(folder / "best.xml").model == "best.xml"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best.pt", "got '.pt'; make one with yolo-kd export model=best.pt"),
        ("student.zip", "got '.zip'; unpack a bundle with yolo-kd verify student.zip out=<new folder>"),
        ("best.jpg", "got '.jpg'$"),
        ("nothing", "no such file"),
        ("", "found none"),
    ],
)
def test_what_is_no_artifact(tmp_path: Path, name: str, message: str) -> None:
    for there in ("best.pt", "student.zip", "best.jpg"):
        (tmp_path / there).write_bytes(b"x")
    with pytest.raises(MisuseError, match=message):
        read_artifact(tmp_path / name if name else tmp_path)


def test_of_an_unpacked_bundle_the_folder_in_it_is_named(folder: Path, tmp_path: Path) -> None:
    write_manifest(read_artifact(folder))
    (tmp_path / "student").mkdir()
    folder.rename(tmp_path / "student" / "artifact")
    with pytest.raises(MisuseError, match="student: expected .* found none; name .*student/artifact$"):
        read_artifact(tmp_path / "student")


def test_a_file_that_the_manifest_is_not_about(folder: Path) -> None:
    write_manifest(read_artifact(folder))
    (folder / "other.xml").write_text("<net/>")
    with pytest.raises(MisuseError, match=r"is about best\.xml"):
        read_artifact(folder / "other.xml")


def test_a_full_disk_is_one_line_that_names_the_manifest_and_leaves_the_old_one(folder: Path) -> None:
    first = write_manifest(read_artifact(folder))
    before = (folder / "artifact.json").read_bytes()
    said = r"best_openvino_model/artifact\.json: no room left on the disk"
    with pytest.raises(YoloKDError, match=said) as caught, files_end_at(100):
        write_manifest(replace(first, precision="int8"))
    assert not isinstance(caught.value, MisuseError)
    assert (folder / "artifact.json").read_bytes() == before
    assert sorted(p.name for p in folder.iterdir()) == ["artifact.json", "best.bin", "best.xml", "metadata.yaml"]


def test_the_files_of_a_net_are_hashed_as_they_are(folder: Path) -> None:
    made = write_manifest(read_artifact(folder))
    assert net_files(made) == {name: made.files[name] for name in ("best.xml", "best.bin")}
    (folder / "best.bin").write_bytes(b"other")
    assert net_files(made)["best.bin"] == sha256(folder / "best.bin") != made.files["best.bin"]


def test_numbers_that_json_cannot_hold_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(replace(read_artifact(folder), facts={"ap": float("nan")}))
    assert not (folder / "artifact.json").exists() and not list(folder.glob("*.part"))
