"""Acceptance on the device: the decision by hand, the load with a clock of our own, the whole with a real net."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.data.split import read_split
from yolo_kd.deploy import acceptance, archive, bundle, open_detector
from yolo_kd.deploy.acceptance import Limits, Load, accept, decide, put_under_load
from yolo_kd.deploy.artifact import Verdict, read_artifact, sha256, write_manifest
from yolo_kd.deploy.quantize.agreement import Agreement

from yolo_kd.cli import main
from yolo_kd.errors import YoloKDError
from yolo_kd.evidence.evaluation import read_frame

SAME = Agreement(parent=40, candidate=41, matched=40, iou=0.97, score_error=0.01)
STEADY = Load(1000, (20.0, 22.0, 25.0), (21.0, 23.0, 26.0), growth_mb=1.0, resident_mb=180.0)


def test_a_sound_device_is_accepted():
    assert decide(SAME, STEADY, Limits(max_ms=25)) == []


@pytest.mark.parametrize(
    ("same", "load", "said"),
    [
        (
            replace(SAME, candidate=0, matched=0),
            STEADY,
            "detects nothing on the reference pictures, the float parent 40",
        ),
        (replace(SAME, matched=30), STEADY, "F1 0.741, expected 0.9"),
        (replace(SAME, iou=0.8), STEADY, "boxes are off: mean IoU 0.800"),
        (replace(SAME, score_error=0.1), STEADY, "confidences off by 0.100"),
        (SAME, replace(STEADY, end_ms=(26.0, 30.0, 31.0)), r"slows down under load: 20.0 ms .* 26.0 ms .* \(1.30 x"),
        (replace(SAME, parent=0, candidate=0, matched=0), STEADY, "they prove nothing"),
        (replace(SAME, iou=float("nan")), STEADY, "boxes are off: mean IoU nan"),
        (SAME, replace(STEADY, end_ms=(float("nan"),) * 3), "slows down under load"),
        (SAME, replace(STEADY, growth_mb=31.0), "memory grows under load by 31 MB"),
        (SAME, replace(STEADY, start_ms=(30.0, 31.0, 32.0), end_ms=(31.0, 32.0, 33.0)), "too slow: 31.0 ms"),
    ],
)
def test_each_fault_is_its_own_reason(same, load, said):
    reasons = decide(same, load, Limits(max_ms=25) if "too slow" in said else Limits())
    assert len(reasons) == 1 and re.search(said, reasons[0])


def test_load_compares_the_end_with_the_start():
    """5 min by a clock of our own: 10 ms per frame in the first 100 s, 20 ms after; 1 MB more every 100 frames."""
    now, frames = [0.0], [0]

    def detect(frame: np.ndarray) -> None:
        now[0] += 0.010 if now[0] < 100 else 0.020
        frames[0] += 1

    load = put_under_load(detect, [np.zeros(1)], 300.0, lambda: now[0], lambda: 100 + frames[0] / 100)  # type: ignore[arg-type]
    assert load.start_ms == pytest.approx((10, 10, 10), abs=0.02)
    assert load.end_ms == pytest.approx((20, 20, 20), abs=0.04)
    assert 19_900 < load.frames < 20_100 and load.growth_mb == pytest.approx(load.frames / 100)


def test_the_record_of_a_long_load_is_no_leak():
    """300,000 frames that allocate nothing."""
    now = [0.0]

    def detect(frame: np.ndarray) -> None:
        now[0] += 0.001

    load = put_under_load(detect, [np.zeros(1)], 300.0, lambda: now[0])  # type: ignore[arg-type]
    assert load.frames > 250_000 and load.growth_mb < 3


@pytest.fixture(scope="module")
def student(float_export: Path, pictures: Path, tmp_path_factory) -> Path:
    """A bundle of a real net with its own boxes on four pictures as references."""
    root = tmp_path_factory.mktemp("bundle")
    folder = root / "best_openvino_model"
    shutil.copytree(float_export, folder)
    write_manifest(replace(read_artifact(folder), verdict=Verdict(True)))
    frames = [read_frame(p) for p in read_split(pictures, "train").images[:4]]
    with open_detector(folder, precision="f32", cache=False) as detector:
        references = [(f, detector(f)) for f in frames]
    assert sum(len(d) for _, d in references) >= 6
    bundle.create(folder, references, "# Card\n", root / "student.zip")
    return root / "student.zip"


def test_a_bundle_is_accepted_where_torch_and_ultralytics_do_not_exist(student, tmp_path):
    out = tmp_path / "report.json"
    words = ["accept", f"bundle={student}", "minutes=0.02", "threads=1", "max_slowing=50", f"out={out}"]
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'ultralytics', 'pycocotools'): sys.modules[name] = None\n"
        f"from yolo_kd.cli import main; sys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "student.zip: ACCEPTED on " in done.stdout and "4 reference pictures: F1 1.000" in done.stdout
    report = json.loads(out.read_text())
    assert report["passed"] and report["load"]["frames"] > 5 and report["parity"]["iou"] > 0.95


def test_another_net_in_the_bundle_is_rejected(student, pictures, tmp_path, capsys):
    """The hashes fit, the boxes do not: references of another size of picture."""
    folder = tmp_path / "unpacked"
    bundle.unpack(student, folder)
    frames = [read_frame(p) for p in read_split(pictures, "train").images[:4]]
    with open_detector(folder / "artifact", precision="f32", cache=False) as detector:
        wrong = [(f, detector(np.roll(f, 16, axis=1))) for f in frames]
    bundle.create(folder / "artifact", wrong, "# Card\n", tmp_path / "wrong.zip")
    assert main(["accept", f"bundle={tmp_path / 'wrong.zip'}", "minutes=0.01", "threads=1", "max_slowing=50"]) == 3
    assert "REJECTED" in (printed := capsys.readouterr().out) and "boxes disagree with the float parent" in printed


def spoilt(student: Path, folder: Path, fault: str) -> Path:
    """A bundle with one fault."""
    path = folder / "spoilt.zip"
    if fault == "cut":
        path.write_bytes(student.read_bytes()[:-100])
        return path
    if fault in ("changed", "extra"):
        with zipfile.ZipFile(student) as old, zipfile.ZipFile(path, "w") as new:
            for name in old.namelist():
                new.writestr(name, b"<net" if fault == "changed" and name.endswith(".xml") else old.read(name))
            if fault == "extra":
                new.writestr("evil.txt", b"x")
        return path
    unpacked = folder / "unpacked"
    artifact = bundle.unpack(student, unpacked)
    references = bundle.read_references(unpacked, artifact.names)
    if fault == "rejected":
        write_manifest(replace(artifact, verdict=Verdict(False, ("AP drops by 0.3", "slower than float"))))
    elif fault == "no net":
        artifact.model_path.write_text("<net></net>")
        write_manifest(artifact)
    elif fault == "no artifact":
        plain = json.loads((artifact.folder / "artifact.json").read_text())
        (artifact.folder / "artifact.json").write_text(json.dumps({**plain, "version": 7}))
    if fault == "no artifact":
        plain = json.loads((unpacked / "bundle.json").read_text())
        plain["files"]["artifact/artifact.json"] = sha256(artifact.folder / "artifact.json")
        (unpacked / "bundle.json").write_text(json.dumps(plain))
        archive.pack(unpacked, path)
    else:
        references = [] if fault == "no references" else references
        bundle.create(artifact.folder, references, "# Card\n", path, allow_rejected=True)
    return path


@pytest.mark.parametrize(
    ("fault", "keys", "said", "hashes"),
    [
        ("cut", (), "no readable zip", False),
        ("changed", (), "artifact/best.xml has sha256 .* it was changed", False),
        ("extra", (), "evil.txt is not listed in bundle.json", False),
        ("no artifact", (), "version 7, expected 1", False),
        ("rejected", (), "the gate rejected the artifact: AP drops by 0.3; slower than float", True),
        ("no references", (), "holds no reference pictures", True),
        ("no net", (), "does not run on this device: .*best.xml", True),
        (None, ("require_signature=key.pem",), "is not signed, and require_signature=key.pem was given", False),
        (None, ("device=NPU",), "does not run on this device: device=NPU", True),
    ],
)
def test_whatever_is_refused_has_one_verdict_and_one_json(
    student, tmp_path, monkeypatch, capsys, fault, keys, said, hashes
):
    monkeypatch.chdir(tmp_path)
    path = student if fault is None else spoilt(student, tmp_path, fault)
    (tmp_path / "key.pem").write_text("")
    assert main(["accept", str(path), "minutes=0.01", "threads=1", "out=report.json", *keys]) == 3
    printed, report = capsys.readouterr(), json.loads((tmp_path / "report.json").read_text())
    assert printed.out.startswith(f"{path.name}: REJECTED on ") and not printed.err
    assert not report["passed"] and len(report["reasons"]) == 1 and re.search(said, report["reasons"][0])
    assert f"  because {report['reasons'][0]}" in printed.out and "allow_rejected" not in printed.out
    assert report["hashes"] is hashes and ("hashes fine" in printed.out) is hashes
    assert report["parity"] is None and report["load"] is None and report["device"]["cpu"]
    assert (report["verdict"] or {}).get("passed") == ({"rejected": False}.get(fault, True) if hashes else None)


def test_a_net_that_fails_on_the_way_is_rejected_too(student, tmp_path, monkeypatch):
    """The reference pictures go well, then the device gives up."""

    def fail(*_: object) -> None:
        raise YoloKDError("OpenVINO failed on CPU: the device was lost")

    monkeypatch.setattr(acceptance, "put_under_load", fail)
    report = accept(student, 0.01, threads=1)
    assert report["reasons"] == ["does not run on this device: OpenVINO failed on CPU: the device was lost"]
    assert report["parity"]["f1"] == 1.0 and report["load"] is None and not report["passed"]


def test_verify_prints_and_refuses(student, tmp_path, capsys):
    assert main(["verify", f"bundle={student}"]) == 0
    assert "every hash fine, signature not asked for" in capsys.readouterr().out
    cut = tmp_path / "cut.zip"
    cut.write_bytes(student.read_bytes()[:-100])
    assert main(["verify", str(cut)]) == 3
    assert "truncated or damaged" in capsys.readouterr().err
    assert main(["verify", str(student), f"out={cut / 'student'}"]) == 2
    assert (
        "student: cannot be written (" in (said := capsys.readouterr().err) and "choose another place with out=" in said
    )


def test_what_was_verified_runs_on_a_video_where_torch_and_ultralytics_do_not_exist(student, pictures, tmp_path):
    import cv2

    video, folder = tmp_path / "today.avi", tmp_path / "student"
    frames = [read_frame(p) for p in read_split(pictures, "train").images[:4]]
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"MJPG"), 10, frames[0].shape[1::-1])
    for frame in frames:
        writer.write(frame)
    writer.release()
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'ultralytics', 'pycocotools', 'nncf'): sys.modules[name] = None\n"
        "import cv2\n"
        "from yolo_kd.cli import main\n"
        "from yolo_kd.deploy import open_detector\n"
        f"assert main(['verify', {str(student)!r}, 'out={folder}']) == 0\n"
        f"reader = cv2.VideoCapture({str(video)!r})\n"
        f"with open_detector({str(folder / 'artifact')!r}, cache=False) as detector:\n"
        "    while (read := reader.read())[0]: print('boxes', len(detector(read[1])))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert f"unpacked: open_detector('{folder / 'artifact'}')" in done.stdout
    boxes = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("boxes")]
    assert len(boxes) == 4 and sum(boxes) >= 6


@pytest.mark.parametrize("fault", ["changed", "no artifact"])
def test_what_does_not_hold_is_not_unpacked(student, tmp_path, capsys, fault):
    path = spoilt(student, tmp_path, fault)
    assert main(["verify", str(path), f"out={tmp_path / 'device'}"]) == 3
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "device").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["accept"], "which bundle?"),
        (["accept", "bundle=none.zip"], "none.zip: no such file"),
        (["accept", "bundle=none.zip", "minuts=2"], "unknown key (did you mean 'minutes'?)"),
        (["accept", "bundle=none.zip", "minutes=-1"], "minutes=-1: expected a number of 0 or more"),
        (["accept", "bundle=none.zip", "minutes=0"], "minutes=0: expected a load of more than 0 minutes"),
        (["accept", "bundle=none.zip", "threads=0"], "threads=0: expected a whole number of at least 1"),
        (["accept", "bundle=none.zip", "max_ms=fast"], "max_ms=fast: expected milliseconds above 0, e.g. max_ms=33"),
        (["accept", "bundle=none.zip", "max_ms=0"], "max_ms=0: expected milliseconds above 0"),
        (["accept", "bundle=none.zip", "max_ms=inf"], "max_ms=inf: expected milliseconds above 0"),
        (["accept", "bundle=none.zip", "out=none/r.json"], "out=none/r.json: no such folder"),
        (["verify", "bundel=x.zip"], "unknown key (did you mean 'bundle'?)"),
        (["verify"], "which bundle?"),
    ],
)
def test_mistakes_are_one_line(capsys, words, said):
    assert main(words) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0]


def test_the_report_lies_beside_the_bundle_and_on_nothing_that_is_not_one(tmp_path, monkeypatch, capsys):
    path, out = tmp_path / "student.zip", tmp_path / "student_acceptance.json"
    path.write_bytes(b"no zip")
    for _ in range(2):  # a report of its own is replaced
        assert main(["accept", str(path)]) == 3
        assert json.loads(out.read_text())["passed"] is False and f"report: {out}" in capsys.readouterr().out
    out.write_text("precious")
    assert main(["accept", str(path)]) == 2
    assert "was not written by this command" in capsys.readouterr().err and out.read_text() == "precious"
