"""Runs that are killed by SIGKILL at random moments and resumed end bit for bit like the run that nothing stopped."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from yolo_kd.deploy.machine import has_bf16

from benchmarks.kill import differences
from yolo_kd.engine.resume import load_sidecar

KEYS = {
    "epochs": 4, "imgsz": 64, "batch": 3, "nbs": 6, "close_mosaic": 2, "warmup_epochs": 1, "mixup": 0.3, "plots": False,
    "seed": 1, "verbose": False, "cpu_threads": 1, "check_data": False, "save_steps": 2, "cos_lr": True,
}  # fmt: skip
TAUGHT = {
    "distill": "pkd", "pkd.pkd": "auto:0.5", "calibrate_batches": 4, "optimizer": "AdamW", "force": True,
    "schedule": "cosine",
}  # fmt: skip
ARMS: dict[str, dict[str, Any]] = {
    "plain": {"distill": "none", "augment": "field", "optimizer": "SGD", "save_period": 2},
    "distilled": {**TAUGHT, "teacher_engine": "torch"},
    "openvino": {
        **TAUGHT, "teacher_engine": "openvino-bf16" if has_bf16() else "openvino-int8", "calibration_images": 6,
        "cpu_threads": 2,
    },
}  # fmt: skip
KINDS = {
    "plain": [["row"], ["save", "batch", "step"]],
    "distilled": [["batch", "save"], ["step", "validation"], ["row", "save", "save"]],
    "openvino": [["batch", "save"]],
}


@pytest.mark.slow
@pytest.mark.parametrize("arm", ARMS)
def test_a_killed_run_ends_like_one_that_was_not(arm, tiny, pictures, make_checkpoint, tmp_path, killed):
    keys = {**KEYS, **ARMS[arm], "data": str(pictures), "student": str(tiny)}
    if arm != "plain":
        wider = arm == "distilled"  # so that there are adapters, with an optimizer group of their own
        keys["teacher"] = str(make_checkpoint(seed=1) if wider else make_checkpoint(str(tiny), seed=1))
    whole, *runs = killed({"root": str(tmp_path), "keys": keys, "kinds": KINDS[arm], "seed": 5})
    assert len(runs) == len(KINDS[arm])
    for run in (whole, *runs):
        error = Path(run["root"]) / "error.txt"
        assert run["code"] == 0, (run, error.read_text() if error.exists() else "")
        assert set(run["deaths"]) <= {-9} and len(run["deaths"]) == len(run["kinds"]), run
        assert not list((Path(run["root"]) / "run" / "weights").glob("previous*")), "the older pair of a finished run"
        assert differences(Path(whole["root"]) / "run", Path(run["root"]) / "run") == [], run
        if arm != "plain":
            report = json.loads((Path(run["root"]) / "run" / "preflight.json").read_text())
            assert report["engine"].startswith(keys["teacher_engine"])
        assert f"{keys['cpu_threads']} threads on" in (Path(run["root"]) / "log.txt").read_text()
    if arm == "distilled":
        assert load_sidecar(Path(whole["root"]) / "run" / "weights" / "last.kd.pt")["distillers"]["pkd"], "no adapter"
    assert went_on(runs), "every run was begun anew, so nothing was resumed"


def went_on(runs: list[dict[str, Any]]) -> bool:
    """Whether one of the runs went on in the middle of an epoch."""
    logs = [(Path(run["root"]) / "log.txt").read_text() for run in runs]
    return any(re.search(r"going on with epoch \d+ of \d+, batch", log) for log in logs)
