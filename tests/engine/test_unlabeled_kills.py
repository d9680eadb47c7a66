"""A killed training with unlabeled pictures ends bit for bit like one that nothing stopped, as test_kills.py has it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from benchmarks.kill import differences
from tests.engine.test_kills import KEYS, went_on

DISTILLED = {
    "distill": "pkd", "pkd.pkd": "auto:0.5", "calibrate_batches": 4, "force": True, "teacher_engine": "torch",
    "optimizer": "AdamW", "augment": "field",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("labels", [True, False], ids=["mixed", "unlabeled only"])
def test_a_killed_run_ends_like_one_that_was_not(labels, tiny, pictures, make_checkpoint, tmp_path, killed):
    pool, data = tmp_path / "pool", tmp_path / "data.yaml"
    raw = {**yaml.safe_load(pictures.read_text()), "path": str(pictures.parent)}
    data.write_text(yaml.safe_dump(raw if labels else {k: v for k, v in raw.items() if k != "train"}))
    pool.mkdir()
    for i in range(7):  # neither a multiple of the share of a batch nor of an epoch
        picture = np.random.default_rng(i).integers(0, 255, (40 + i, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(pool / f"{i}.png"), picture)
    teacher = str(make_checkpoint(seed=1))
    keys = {**KEYS, **DISTILLED, "data": str(data), "student": str(tiny), "teacher": teacher, "unlabeled": str(pool)}
    kinds = [["batch", "save", "step"]] if labels else [["batch", "save"]]
    whole, *runs = killed({"root": str(tmp_path / "runs"), "keys": keys, "kinds": kinds, "seed": 3})
    assert len(runs) == len(kinds)
    for run in (whole, *runs):
        error = Path(run["root"]) / "error.txt"
        assert run["code"] == 0, (run, error.read_text() if error.exists() else "")
        assert set(run["deaths"]) <= {-9} and len(run["deaths"]) == len(run["kinds"]), run
        assert differences(Path(whole["root"]) / "run", Path(run["root"]) / "run") == [], run
    assert went_on(runs), "every run was begun anew, so nothing was resumed"
    assert (Path(whole["root"]) / "run" / "unlabeled.json").exists(), "nothing unlabeled was in it"
