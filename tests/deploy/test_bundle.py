"""Bundles: what goes in comes out, and each way of tampering is named and refused."""

from __future__ import annotations

import json
import resource
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy import bundle
from yolo_kd.deploy.artifact import Artifact, Verdict, read_artifact, write_manifest
from yolo_kd.deploy.detections import Detections

from yolo_kd.cli import main
from yolo_kd.errors import GateError, MisuseError, YoloKDError

NAMES = {0: "car", 1: "bus"}
FRAME = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
SEEN = Detections(np.array([[0, 0, 2, 3]], np.float32), np.array([0.5], np.float32), np.array([1]), NAMES, (4, 4))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An artifact that the gate passed; its net is not a net, and nothing here loads it."""
    path = tmp_path / "best_int8_openvino_model"
    path.mkdir()
    for name in ("best.xml", "best.bin", "metadata.yaml"):
        (path / name).write_text(f"content of {name}")
    write_manifest(Artifact(path, "best.xml", "openvino", "int8", (64, 96), NAMES, verdict=Verdict(True)))
    return path


def made(folder: Path, **keys) -> Path:
    out = folder.parent / "student.zip"
    bundle.create(folder, [(FRAME, SEEN), (FRAME, SEEN)], "# A student\n", out, **keys)
    return out


def rewrite(path: Path, **changes: bytes | None) -> Path:
    """A copy with files replaced, left out (None) or added."""
    out = path.with_name("changed.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(out, "w") as new:
        for name in [*old.namelist(), *(c for c in changes if c not in old.namelist())]:
            raw = changes.get(name, old.read(name) if name in old.namelist() else None)
            if raw is not None:
                new.writestr(name, raw)
    return out


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The limit on file sizes raises where a full disk does, inside the same write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_goes_in_comes_out(folder, tmp_path):
    path = made(folder)
    seen = bundle.verify(path)
    assert set(seen.files) == {
        "MODEL_CARD.md", "artifact/artifact.json", "artifact/best.bin", "artifact/best.xml", "artifact/metadata.yaml",
        "references/00.png", "references/01.png",
    }  # fmt: skip
    assert seen.references[0] == {"image": "references/00.png", "size_hw": [4, 4], "detections": [[0, 0, 2, 3, 0.5, 1]]}
    artifact = bundle.unpack(path, tmp_path / "device")
    assert artifact.verdict == Verdict(True) and artifact.input_hw == (64, 96)
    assert artifact.model_path.read_text() == "content of best.xml"
    import cv2

    assert (cv2.imread(str(tmp_path / "device" / "references" / "01.png")) == FRAME).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best_int8_openvino_model", "device", "student.zip"]


def test_equal_artifacts_make_equal_bundles(folder):
    first = made(folder).read_bytes()
    assert made(folder).read_bytes() == first


@pytest.mark.parametrize(
    ("name", "raw", "said"),
    [
        ("artifact/best.bin", b"content of best.bon", "artifact/best.bin has sha256 .* it was changed"),
        ("artifact/best.bin", None, "artifact/best.bin is missing"),
        ("extra.txt", b"x", "extra.txt is not listed"),
        ("bundle.json", b"{}", "bundle.json is not readable"),
        ("bundle.json", b'{"version": 9, "files": {}, "references": []}', "is of version 9, expected 1"),
        ("bundle.json", b"[" * 100_000, "bundle.json is not readable"),
        ("bundle.json", None, "bundle.json is missing"),
    ],
)
def test_tampering_is_named(folder, name, raw, said):
    path = rewrite(made(folder), **{name: raw})
    with pytest.raises(GateError, match=said):
        bundle.verify(path)
    with pytest.raises(GateError, match=said):
        bundle.unpack(path, folder.parent / "device")
    assert not (folder.parent / "device").exists()


def test_a_zip_exchanged_after_the_look_is_not_trusted(folder, keys, monkeypatch):
    """Between verifying and unpacking somebody puts another zip there: what was verified is what is unpacked."""
    path, other = made(folder, sign=keys["ours"]), folder.parent / "other.zip"
    bundle.create(folder, [], "# Evil\n", other)
    opened = bundle.archive.opened

    def exchanging(found: Path):
        context = opened(found)
        if found == path:
            path.write_bytes(other.read_bytes())
        return context

    with pytest.raises(GateError, match="is not signed"):
        monkeypatch.setattr(bundle.archive, "opened", exchanging)
        bundle.unpack(path, folder.parent / "device", keys["ours.pub"])
    assert not (folder.parent / "device").exists()


def test_a_zip_without_an_artifact_is_no_bundle(folder):
    path = folder.parent / "empty.zip"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("bundle.json", json.dumps({"version": 1, "files": {}, "references": []}))
    with pytest.raises(GateError, match="it is no bundle of ours"):
        bundle.verify(path)


def test_truncated_file_is_refused(folder):
    path = made(folder)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(GateError, match="truncated or damaged"):
        bundle.verify(path)


@pytest.mark.parametrize("content", ["names: {0: car}", "zip"])
def test_only_a_bundle_is_replaced(folder, content):
    """`out=data.yaml` for `data=data.yaml` was a data set lost."""
    path = folder.parent / "student.zip"
    if content == "zip":
        with zipfile.ZipFile(path, "w") as other:
            other.writestr("holiday.jpg", "precious")
    else:
        path.write_text(content)
    before = path.read_bytes()
    with pytest.raises(MisuseError, match="student.zip: exists and is no bundle"):
        made(folder)
    assert path.read_bytes() == before
    path.unlink()
    with zipfile.ZipFile(made(folder)) as first:
        assert "bundle.json" in first.namelist()
    made(folder)  # one of ours


def test_a_place_that_cannot_be_written_is_refused_before_the_parent_runs(folder, capsys):
    (folder.parent / "file").write_text("")
    out = folder.parent / "file" / "student.zip"
    assert main(["bundle", f"artifact={folder}", "data=data.yaml", f"out={out}"]) == 2
    assert "student.zip: cannot be written (file is a file); choose another place with out=" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["student.zip", "new/student.zip"])
@pytest.mark.parametrize("by", ["create", "command"])
def test_a_bundle_does_not_lie_among_the_files_that_it_holds(folder, capsys, place, by):
    """The next verdict hashed it with them, and what is hashed goes into the next bundle."""
    out = folder / place
    if by == "create":
        with pytest.raises(MisuseError, match="student.zip: is in the artifact's own folder"):
            bundle.create(folder, [(FRAME, SEEN)], "# A student\n", out)
    else:
        assert main(["bundle", f"artifact={folder}", "data=data.yaml", f"out={out}"]) == 2
        assert "student.zip: is in the artifact's own folder" in capsys.readouterr().err
    assert sorted(p.name for p in folder.iterdir()) == ["artifact.json", "best.bin", "best.xml", "metadata.yaml"]


@pytest.mark.parametrize("part", ["first file", "manifest", "zip"])
def test_a_full_disk_ends_in_a_line_and_leaves_what_was_there(folder, part):
    path = made(folder)
    with zipfile.ZipFile(path) as packed:
        largest = max(info.file_size for info in packed.infolist())
    assert 20 < largest < path.stat().st_size
    before = path.read_bytes()
    room = {"first file": 20, "manifest": largest - 1, "zip": path.stat().st_size - 1}[part]
    with no_file_above(room), pytest.raises(YoloKDError, match="student.zip: no room left on the disk") as caught:
        made(folder)
    assert caught.value.exit_code == 1 and path.read_bytes() == before
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name, "student.zip"]


def test_a_full_disk_on_the_device_ends_in_a_line(folder, keys):
    path = made(folder, sign=keys["ours"])
    with no_file_above(20), pytest.raises(YoloKDError, match="no room left on the disk"):
        bundle.unpack(path, folder.parent / "device")
    with no_file_above(20), pytest.raises(YoloKDError, match="no room left on the disk"):
        bundle.verify(path, keys["ours.pub"])
    assert sorted(p.name for p in folder.parent.iterdir()) == [folder.name, "student.zip"]
    (folder.parent / "file").write_text("in the way")
    with pytest.raises(MisuseError, match="cannot be written"):
        bundle.unpack(path, folder.parent / "file" / "device")
    with pytest.raises(MisuseError, match="out=.*cannot be written"):
        bundle.create(folder, [], "", folder.parent / "file" / "student.zip")


def test_no_pickle_gets_in_or_out(folder):
    path = made(folder)
    with zipfile.ZipFile(path) as old:
        plain = json.loads(old.read("bundle.json"))
    plain["files"]["artifact/best.PT"] = "0" * 64
    changed = rewrite(path, **{"bundle.json": json.dumps(plain).encode(), "artifact/best.PT": b"x"})
    with pytest.raises(GateError, match="best.PT is none of"):
        bundle.verify(changed)
    (folder / "best.pt").write_bytes(b"x")
    write_manifest(Artifact(folder, "best.xml", "openvino", "int8", (64, 96), NAMES, verdict=Verdict(True)))
    with pytest.raises(GateError, match="best.pt is none of"):
        made(folder)


@pytest.mark.parametrize(
    ("verdict", "said"), [(None, "was never judged"), (Verdict(False, ("slow",)), "was rejected: slow")]
)
def test_only_what_passed_is_bundled(folder, verdict, said):
    write_manifest(Artifact(folder, "best.xml", "openvino", "int8", (64, 96), NAMES, verdict=verdict))
    with pytest.raises(GateError, match=said):
        made(folder)
    assert bundle.verify(made(folder, allow_rejected=True)).files


def test_an_artifact_changed_after_it_was_judged_is_not_bundled(folder):
    (folder / "best.bin").write_text("other weights")
    with pytest.raises(GateError, match="was changed or damaged after it was judged"):
        made(folder)
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


@pytest.fixture(scope="module")
def keys(tmp_path_factory) -> dict[str, Path]:
    """Two key pairs."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root, found = tmp_path_factory.mktemp("keys"), {}
    for who in ("ours", "other"):
        key = ec.generate_private_key(ec.SECP256R1())
        found[who], found[f"{who}.pub"] = root / f"{who}.pem", root / f"{who}.pub.pem"
        found[who].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        found[f"{who}.pub"].write_bytes(
            key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    return found


def test_signature_holds_for_its_key_and_these_files_only(folder, keys):
    path = made(folder, sign=keys["ours"])
    assert bundle.verify(path, keys["ours.pub"]).signed
    assert not bundle.verify(path).signed
    with pytest.raises(GateError, match="the signature is not of other.pub.pem"):
        bundle.verify(path, keys["other.pub"])
    # A bundle that was changed and whose hashes were made to fit again: only the signature sees it.
    with zipfile.ZipFile(path) as old:
        plain, signature = json.loads(old.read("bundle.json")), old.read("bundle.sig")
    import hashlib

    plain["files"]["MODEL_CARD.md"] = hashlib.sha256(b"# Better\n").hexdigest()
    changed = rewrite(path, **{"MODEL_CARD.md": b"# Better\n", "bundle.json": json.dumps(plain).encode()})
    assert bundle.verify(changed)
    with pytest.raises(GateError, match="the signature is not of ours.pub.pem"):
        bundle.verify(changed, keys["ours.pub"])
    damaged = rewrite(path, **{"bundle.sig": signature[: len(signature) // 2]})
    with pytest.raises(GateError, match="the signature is not of"):
        bundle.verify(damaged, keys["ours.pub"])


def test_unsigned_bundle_and_wrong_keys(folder, keys, tmp_path):
    path = made(folder)
    with pytest.raises(GateError, match="is not signed, and require_signature=ours.pub.pem"):
        bundle.verify(path, keys["ours.pub"])
    with pytest.raises(MisuseError, match="no usable private key"):
        made(folder, sign=keys["ours.pub"])
    with pytest.raises(MisuseError, match="no such file; expected a private key"):
        made(folder, sign=tmp_path / "none.pem")
    signed = made(folder, sign=keys["ours"])
    with pytest.raises(MisuseError, match="no usable public key"):
        bundle.verify(signed, keys["ours"])


def test_the_command_line_signs_and_asks_for_a_signature(exported, tiny, pictures, keys, tmp_path, capsys):
    artifact, out = tmp_path / "best_openvino_model", tmp_path / "student.zip"
    shutil.copytree(exported(str(tiny), "openvino", 64), artifact)
    write_manifest(replace(read_artifact(artifact), verdict=Verdict(True)))
    words = [f"artifact={artifact}", f"parent={artifact}", f"data={pictures}", "references=2"]
    assert main(["bundle", *words, f"sign={keys['ours']}", f"out={out}"]) == 0
    assert " boxes of the float parent, signed\n" in capsys.readouterr().out
    limits = ["min_f1=0", "min_iou=0", "max_score_error=1", "max_slowing=1000", "max_growth_mb=1000"]  # not the point
    for who, code in (("ours", 0), ("other", 3)):
        asked = f"require_signature={keys[f'{who}.pub']}"
        for mode in (["verify"], ["accept", "minutes=0.01", "threads=1", *limits]):
            assert main([*mode, f"bundle={out}", asked]) == code
            printed = "".join(capsys.readouterr())
            assert ("signature fine" in printed) is (who == "ours")
            assert ("the signature is not of other.pub.pem" in printed) is (who == "other")
