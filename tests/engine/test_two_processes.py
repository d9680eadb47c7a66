"""A whole distilled training in two real processes, which Ultralytics would only start on two GPUs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.launching import run_together
from yolo_kd.engine.unlabeled import RECORD

TERMS = ("csgr.cs", "pcd.cls", "pcd.loc", "lqe.lqe")
WORKER = """
import json
import sys

import torch
from torch import distributed as dist
from torch import nn

from yolo_kd import DistillationTrainer
from yolo_kd.distillers.lqe import LQE
from yolo_kd.engine import ultra

keys, store, out = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
rank, terms = ultra.RANK, []
LQE.fit.__kwdefaults__["steps"] = 60
parallel = nn.parallel.DistributedDataParallel


class OnCPU(parallel):
    def __init__(self, module, device_ids, **kwargs):
        super().__init__(module, **kwargs)


class Rank(DistillationTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.world_size = 2  # none on a CPU

    def _setup_ddp(self):
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)  # needs no port

    def _setup_train(self):
        super()._setup_train()
        self.add_callback("on_train_batch_end", lambda t: terms.append({k: float(v) for k, v in t.loss_items.items()}))

    def final_eval(self):
        pass  # which looks for the rank's GPU


nn.parallel.DistributedDataParallel = OnCPU
trainer = Rank(overrides=keys)
trainer.train()
distillers = trainer.distillation.methods
torch.save({
    "student": {k: p.detach() for k, p in ultra.unwrap_model(trainer.model).named_parameters()},
    "distillers": {f"{m.name}.{k}": v for m in distillers for k, v in m.distiller.state_dict().items()},
    "adapters": [p.detach() for p in trainer._adapters()],
    "gains": {t.key: t.gain for t in trainer.criterion.terms},
    "items": terms,
}, f"{out}.{rank}")
dist.destroy_process_group()
"""


def told(tmp_path: Path, keys: dict[str, Any]) -> list[dict[str, Any]]:
    """What each of two ranks leaves behind that train with these keys."""
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    words = [sys.executable, str(worker), json.dumps(keys), str(tmp_path / "store"), str(tmp_path / "told")]
    ranks = [{**os.environ, "RANK": str(r), "LOCAL_RANK": str(r), "WORLD_SIZE": "2"} for r in (0, 1)]
    assert run_together([words, words], ranks, seconds=120) == [0, 0]
    return [torch.load(tmp_path / f"told.{rank}", weights_only=True) for rank in (0, 1)]


def test_a_rank_that_waits_for_one_that_failed_is_killed():
    code = "import sys, time; time.sleep(float(sys.argv[1])); sys.exit(3)"
    assert run_together([[sys.executable, "-c", code, seconds] for seconds in ("0", "60")], seconds=30) == [3, None]


@pytest.mark.slow
@pytest.mark.parametrize("unlabeled", [False, True], ids=["labelled", "unlabeled"])
def test_ranks_end_with_one_student_adapters_and_gains(tmp_path, pictures, tiny, make_checkpoint, unlabeled):
    run = tmp_path / "run"
    keys = {
        "model": str(make_checkpoint(str(tiny))), "teacher": str(make_checkpoint(seed=1)), "data": str(pictures), "imgsz": 64,
        "epochs": 2, "batch": 4, "nbs": 4, "optimizer": "AdamW", "lr0": 0.001, "warmup_epochs": 0, "device": "cpu", "seed": 1,
        "save_dir": str(run), "exist_ok": True, "plots": False, "cpu_threads": 1, "teacher_engine": "torch", "force": True,
        "calibrate_batches": 1,
    }  # fmt: skip
    if unlabeled:  # the list that the process writes which starts the ranks
        run.mkdir()
        images = sorted(str(path) for path in (pictures.parent / "images" / "val").glob("*.png"))
        (run / RECORD).write_text(json.dumps({"videos": [], "images": images}))
        keys["unlabeled"] = str(pictures.parent / "images" / "val")
    one, two = told(tmp_path, keys)
    assert tuple(one["gains"]) == TERMS and one["gains"] == two["gains"] and all(one["gains"].values())
    assert one["adapters"] and len(one["items"]) == len(two["items"]) > 2
    for found in (one, two):
        assert all(items[f"{name}_loss"] > 0 for items in found["items"] for name in ("cs", "kdcls", "kdloc", "lqe"))
    assert one["items"] != two["items"], "the ranks saw the same pictures, so this shows nothing"
    for part in ("student", "distillers"):
        assert one[part].keys() == two[part].keys()
        unlike = [name for name, value in one[part].items() if not torch.equal(value, two[part][name])]
        assert unlike == [], part
