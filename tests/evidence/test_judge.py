"""The gate on real nets: a sound artifact passes, each deliberately ruined one is rejected for its own reason."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from yolo_kd.data.split import read_split
from yolo_kd.deploy import open_detector
from yolo_kd.deploy.quantize.gate import Limits, decide

from yolo_kd.evidence.judge import measure

LIMITS = Limits(max_slowdown=100.0)  # nets of 64 pixels: their time says nothing


def ruined(float_export: Path, folder: Path, change: Callable[[Any, Any], Any]) -> Path:
    """A copy whose output (1, 4 + classes, cells) goes through `change(ops, output)`."""
    import openvino as ov
    from openvino import opset13 as ops

    target = folder / "ruined_openvino_model"
    shutil.copytree(float_export, target)
    model = ov.Core().read_model(target / "best.xml")
    output = model.outputs[0].get_node().input(0).get_source_output()
    changed = ov.Model([ops.result(change(ops, output))], model.get_parameters(), "ruined")
    (target / "best.xml").unlink()
    ov.save_model(changed, target / "other.xml", compress_to_fp16=False)
    (target / "best.bin").unlink()
    return target


def rows(ops: Any, output: Any, scale: list[float]) -> Any:
    """Every row of the output times a factor."""
    return ops.multiply(output, ops.constant(np.array(scale, np.float32).reshape(1, -1, 1)))


def shared_scale(ops: Any, output: Any) -> Any:
    """Boxes up to 255 pixels and scores up to 1 quantized with one scale: scores below .5 become 0, all others 1."""
    step = ops.constant(np.float32(255 / 255))
    return ops.multiply(ops.round(ops.divide(output, step), "HALF_TO_EVEN"), step)


RUINS: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "scores zeroed": (lambda ops, y: rows(ops, y, [1, 1, 1, 1, 0, 0, 0]), "detects nothing on 8 images"),
    "a box scale off": (lambda ops, y: rows(ops, y, [1, 1, 1.4, 1, 1, 1, 1]), "boxes are off|boxes disagree"),
    "a class swapped": (
        lambda ops, y: ops.gather(y, ops.constant(np.array([0, 1, 2, 3, 5, 4, 6])), ops.constant(np.int32(1))),
        "boxes disagree with the float parent",
    ),
    "one scale for boxes and scores": (shared_scale, "AP drops"),
    "scores beyond one": (lambda ops, y: rows(ops, y, [1, 1, 1, 1, 2, 2, 2]), "expected 0 to 1"),
    "not a number": (
        lambda ops, y: ops.divide(y, ops.constant(np.array([1, 1, 1, 1, 0, 0, 0], np.float32).reshape(1, -1, 1))),
        "not finite",
    ),
}


def judged(artifact: Path, float_export: Path, pictures: Path, **options: Any):
    keys = {"confidence": 0.001, "multi_label": True, "precision": "f32", "cache": False, "threads": 1}
    with open_detector(float_export, **keys) as parent:
        try:
            detector = open_detector(artifact, **keys)
        except Exception as error:  # a net that gives NaN does not even open
            return error
        with detector:
            return measure(detector, parent, read_split(pictures, "train"), timed=2, **options)


def test_a_faithful_copy_passes(float_export, pictures, tmp_path):
    copy = ruined(float_export, tmp_path, lambda ops, y: ops.multiply(y, ops.constant(np.float32(1.0))))
    seen = judged(copy, float_export, pictures)
    verdict = decide(seen, LIMITS)
    assert verdict.passed, verdict
    assert seen.f1 == 1.0 and seen.iou == pytest.approx(1.0, abs=1e-4) and seen.score_error < 1e-4
    assert seen.ap[0] == pytest.approx(seen.ap[1]) and seen.ap[1] > 0.5 and seen.drop_interval == (0.0, 0.0)
    assert seen.labelled["car"] + seen.labelled["truck"] + seen.labelled["person"] == 24 and seen.boxes >= 12
    assert sum(v for k, v in seen.labelled.items() if k.endswith("boxes")) == 24
    assert seen.ms > 0 and seen.parent_ms > 0 and 0 <= seen.score_range[0] < 0.1 < seen.score_range[1] <= 1


@pytest.mark.parametrize("name", RUINS)
def test_a_ruined_artifact_is_rejected(float_export, pictures, tmp_path, name):
    change, said = RUINS[name]
    seen = judged(ruined(float_export, tmp_path, change), float_export, pictures)
    if isinstance(seen, Exception):
        assert name == "not a number" and "NaN" in str(seen)
        return
    verdict = decide(seen, LIMITS)
    assert not verdict.passed
    assert re.search(said, verdict.reasons[0]), verdict.reasons


def test_a_net_that_fails_on_some_pictures_only_is_not_finite(float_export, pictures):
    """It opens, and gives NaN later: the gate says so instead of stopping with an error."""
    keys = {"confidence": 0.001, "multi_label": True, "precision": "f32", "cache": False}
    with open_detector(float_export, **keys) as parent, open_detector(float_export, **keys) as broken:
        run, calls = broken.backend.run, iter(range(100))
        broken.backend.run = lambda canvas: run(canvas) * (np.nan if next(calls) == 5 else 1)  # type: ignore[method-assign]
        seen = measure(broken, parent, read_split(pictures, "train"), timed=0)
    assert not seen.finite and decide(replace(seen, ms=None), LIMITS).reasons[0].startswith(
        "outputs that are not finite"
    )
