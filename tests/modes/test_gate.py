"""`yolo-kd gate`: the verdict is printed, written into the manifest, and obeyed by the runtime."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from yolo_kd.deploy import open_detector
from yolo_kd.deploy.artifact import Verdict, read_artifact, write_manifest

from yolo_kd.cli import main
from yolo_kd.errors import GateError


@pytest.fixture
def artifact(float_export: Path, tmp_path: Path) -> Path:
    """A copy of the float export with a manifest: as good as its parent, because it is the same net."""
    folder = tmp_path / "best_int8_openvino_model"
    shutil.copytree(float_export, folder)
    write_manifest(replace(read_artifact(folder), precision="int8"))
    return folder


def words(artifact: Path, float_export: Path, pictures: Path, *more: str) -> list[str]:
    return [
        "gate",
        f"artifact={artifact}",
        f"parent={float_export}",
        f"data={pictures}",
        "split=train",
        "threads=1",
        *more,
    ]


def test_a_passed_artifact_carries_verdict_numbers_and_device(artifact, float_export, pictures, capsys):
    assert main(words(artifact, float_export, pictures, "max_slowdown=50")) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("best_int8_openvino_model: PASSED") and "drop 0.0000" in printed
    plain = json.loads((artifact / "artifact.json").read_text())
    assert plain["verdict"] == {"passed": True, "reasons": [], "remarks": plain["verdict"]["remarks"]}
    assert plain["metrics"]["f1"] == 1.0 and plain["limits"]["max_slowdown"] == 50.0
    assert plain["device"]["name"] == "CPU" and set(plain["device"]["runs in"]) == {"artifact", "parent"}
    with open_detector(artifact) as detector:
        assert detector.artifact.verdict.passed


def test_a_rejected_artifact_exits_three_and_does_not_open(artifact, float_export, pictures, capsys):
    assert main(words(artifact, float_export, pictures, "max_slowdown=0.001")) == 3
    assert "REJECTED\n  because slower than float on this device" in capsys.readouterr().out
    with pytest.raises(GateError, match="rejected by the gate"):
        open_detector(artifact)
    open_detector(artifact, allow_rejected=True).close()
    assert main(words(artifact, float_export, pictures, "max_slowdown=50")) == 0  # it may be judged again


def test_a_net_that_gives_nan_is_rejected_though_it_was_passed_before(artifact, float_export, pictures, capsys):
    import openvino as ov
    from openvino import opset13 as ops

    model = ov.Core().read_model(float_export / "best.xml")
    output = model.outputs[0].get_node().input(0).get_source_output()
    zero = ops.constant(np.float32(0))
    broken = ov.Model([ops.result(ops.divide(ops.multiply(output, zero), zero))], model.get_parameters(), "broken")
    ov.save_model(broken, artifact / "best.xml", compress_to_fp16=False)
    write_manifest(replace(read_artifact(artifact), verdict=Verdict(True)))
    assert main(words(artifact, float_export, pictures)) == 3
    assert "because does not run on every image" in capsys.readouterr().out
    assert not read_artifact(artifact).verdict.passed


def test_a_file_changed_after_the_judgement_is_refused(artifact, float_export, pictures, capsys):
    with (artifact / "best.bin").open("ab") as file:
        file.write(b"x")
    assert main(words(artifact, float_export, pictures)) == 3
    assert "best.bin has sha256" in capsys.readouterr().err


def test_without_pycocotools_it_says_so_before_it_measures(artifact, float_export, pictures):
    code = (
        "import sys\nfor name in ('torch', 'ultralytics', 'pycocotools'): sys.modules[name] = None\n"
        f"from yolo_kd.cli import main; sys.exit(main({words(artifact, float_export, pictures)!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "run: pip install pycocotools" in done.stderr
    assert " images, " not in done.stderr, "a line of progress: it was measured before"
    assert read_artifact(artifact).verdict is None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"artifact": None}, "artifact= is missing"),
        ({"parent": None}, "does not lie beside it; name it with parent=<float folder>"),
        ({"max_dorp": ".1"}, "unknown key (did you mean 'max_drop'?)"),
        ({"max_drop": "none"}, "max_drop=None: expected a number of 0 or more, e.g. max_drop=0.01"),
        ({"device": "NPU"}, "NPU"),
        ({"max_slowdown": "inf"}, "max_slowdown=inf: expected a number of 0 or more"),
        ({"parent": "ITSELF"}, "is INT8 itself"),
        ({"artifact": "EXPORTED"}, "no artifact.json beside it"),
    ],
)
def test_mistakes_are_one_line(artifact, float_export, pictures, capsys, change, said):
    keys = {"artifact": artifact, "parent": float_export, "data": pictures, **change}
    special = {"EXPORTED": float_export, "ITSELF": artifact}
    filled = [f"{k}={special.get(v, v)}" for k, v in keys.items() if v is not None]
    assert main(["gate", *filled]) in (1, 2)
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1 and said in printed[0]
