"""Several processes: equal gradients, and workers that are rebuilt with our trainer and settings."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from ultralytics.utils.patches import torch_load

from tests.engine.launching import run_together

WORKER = """
import sys
import torch
from torch import distributed as dist
from ultralytics.nn.tasks import DetectionModel
from ultralytics.cfg import get_cfg
from yolo_kd.cfg.settings import Recipe
from yolo_kd.engine import ultra
from yolo_kd.engine.classes import match
from yolo_kd.engine.criterion import DistillationCriterion
from yolo_kd.engine.teacher import Teacher
from yolo_kd.engine.terms import adapter_parameters, build_methods
from yolo_kd.engine.trainer import average_gradients

rank, world, port, teacher_path, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
torch.set_num_threads(1)
if world > 1:
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
torch.manual_seed(0)
student = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
student.args = get_cfg()
student.names = {0: "car", 1: "truck", 2: "person"}
teacher = Teacher(teacher_path, torch.device("cpu"))
recipe = Recipe("test", {"csgr": {"cs": 1.0, "gr": 1.0}, "pcd": {"cls": 1.0, "loc": 1.0}})
methods = build_methods(recipe, ultra.head_spec(student), teacher.spec, match(student.names, teacher.names), print)
criterion = DistillationCriterion(student.init_criterion(), student, teacher, methods, force=True)
student.train()
wrapped = torch.nn.parallel.DistributedDataParallel(student, find_unused_parameters=True) if world > 1 else student
student.criterion = criterion
generator = torch.Generator().manual_seed(1)
img = torch.rand(2, 3, 64, 64, generator=generator)
# Boxes as large as the picture: the target scores then sum to more than 1, below which Ultralytics' loss is clamped
# and does not scale with the batch.
cls, index = torch.tensor([[0.0], [1.0], [2.0]] * 2), torch.tensor([0.0] * 3 + [1.0] * 3)
box = torch.tensor([[0.5, 0.5, 0.98, 0.98], [0.48, 0.5, 0.9, 0.96], [0.5, 0.52, 0.96, 0.9]] * 2)
copies = 1 if world > 1 else int(sys.argv[6])
batch = {
    "img": img.repeat(copies, 1, 1, 1), "cls": cls.repeat(copies, 1), "bboxes": box.repeat(copies, 1),
    "batch_idx": torch.cat([index + 2 * i for i in range(copies)]),
}
loss, items = wrapped(batch)
(loss.sum() * world).backward()
adapters = adapter_parameters(methods)
average_gradients(adapters)
named = {k: p.grad for k, p in student.named_parameters() if p.grad is not None}
if rank == 0:
    torch.save({"model": named, "adapters": [p.grad for p in adapters], "items": items}, out)
if world > 1:
    dist.destroy_process_group()
"""


def run_ranks(path: Path, teacher: Path, world: int, copies: int, out: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = [str(world), str(port), str(teacher), str(out), str(copies)]
    assert run_together([[sys.executable, str(path), str(rank), *args] for rank in range(world)]) == [0] * world


@pytest.mark.slow
def test_two_ranks_give_the_gradients_of_the_joined_batch(tmp_path, make_checkpoint):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    teacher = make_checkpoint(seed=1)
    run_ranks(path, teacher, 1, 2, tmp_path / "one.pt")
    run_ranks(path, teacher, 2, 1, tmp_path / "two.pt")
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert one["items"].keys() == two["items"].keys() >= {"cs_loss", "gr_loss", "kdcls_loss", "kdloc_loss"}
    assert all(float(v) == pytest.approx(float(one["items"][k]), rel=1e-3) for k, v in two["items"].items())
    assert one["model"].keys() == two["model"].keys() and one["adapters"]
    for name, wanted in [*one["model"].items(), *((f"adapter {i}", g) for i, g in enumerate(one["adapters"]))]:
        found = two["model"][name] if name in two["model"] else two["adapters"][int(name.split()[1])]
        scale = float(wanted.abs().max())
        assert torch.allclose(found, wanted, atol=2e-3 * scale + 1e-6, rtol=1e-2), (name, scale)


AVERAGE = """
rank, world, port, teacher_path, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(2)]
weights[0].grad = torch.tensor([[1.0, -2.0], [5.0, 4.0]][rank])
if rank == 0:
    weights[1].grad = torch.ones(2)  # the other rank's pictures gave it none
average_gradients(weights)
torch.save([w.grad for w in weights], f"{out}.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_adapters_learn_from_the_pictures_of_all_ranks(tmp_path):
    """Above, where the ranks see equal pictures, a rank that goes its own way has the same gradients."""
    for found in told_by_ranks(AVERAGE, tmp_path, tmp_path / "no.pt"):
        assert [grad.tolist() for grad in found] == [[3.0, 1.0], [0.5, 0.5]]


CALIBRATION = """
rank, world, port, teacher_path, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
torch.manual_seed(0)
student = DetectionModel("yolov8n.yaml", nc=3, verbose=False)
student.args = get_cfg()
student.names = {0: "car", 1: "truck", 2: "person"}
teacher = Teacher(teacher_path, torch.device("cpu"))
recipe = Recipe("test", {"csgr": {"gr": "auto:0.5"}, "pcd": {"cls": "auto:0.25"}})
methods = build_methods(recipe, ultra.head_spec(student), teacher.spec, match(student.names, teacher.names), print)
criterion = DistillationCriterion(student.init_criterion(), student, teacher, methods, calibrate_batches=2)
student.train()
student.criterion = criterion
criterion.start_epoch(0.0, False, warm=True)
for step in range(3):
    img = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(10 * rank + step))
    boxes = torch.tensor([[0.5, 0.5, 0.8 - 0.2 * rank, 0.8]] * (2 - rank))  # the ranks see unlike pictures
    batch = {"img": img, "cls": torch.zeros(len(boxes), 1), "bboxes": boxes, "batch_idx": torch.arange(len(boxes)).float()}
    student(batch)
gains = {t.key: t.gain for t in criterion.terms}
torch.save({"gains": gains, "fixed": [t.fixed for t in criterion.terms], "local": step}, f"{out}.{rank}")
dist.destroy_process_group()
"""


def told_by_ranks(code: str, folder: Path, teacher: Path) -> Iterator[Any]:
    """What each of two ranks leaves behind that runs the code after the worker's imports."""
    path = folder / "worker.py"
    path.write_text(WORKER.partition("rank, world")[0] + code)
    run_ranks(path, teacher, 2, 1, folder / "told")
    return (torch.load(folder / f"told.{rank}", weights_only=True) for rank in (0, 1))


@pytest.mark.slow
def test_ranks_calibrate_one_gain_though_they_see_unlike_pictures(tmp_path, make_checkpoint):
    one, two = told_by_ranks(CALIBRATION, tmp_path, make_checkpoint(seed=1))
    assert one["gains"] == two["gains"] and all(g > 0 for g in one["gains"].values())
    assert all(one["fixed"]) and all(two["fixed"])


DEAD_ON_ONE = """
rank, world, port, teacher_path, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
from yolo_kd.engine.terms import Term
from yolo_kd.engine.criterion import MAX_BAD_STEPS
from yolo_kd.errors import YoloKDError
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
criterion = DistillationCriterion(None, DetectionModel("yolov8n.yaml", nc=3, verbose=False))
criterion.terms = [Term("x", name, f"{name}_loss", "neck") for name in ("a", "b")]
found = []
bad = float("inf") if rank else 1.0
for value, bad_steps in ((float(rank), 0), (bad, 0), (bad, MAX_BAD_STEPS - 1)):
    criterion.bad_steps = bad_steps
    try:
        found.append(criterion._usable({"a_loss": torch.tensor(1.0), "b_loss": torch.tensor(value)}))
    except YoloKDError as error:
        found.append(str(error))
    criterion.checked = True
torch.save(found, f"{out}.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_a_term_that_is_dead_on_one_rank_stops_them_all(tmp_path, make_checkpoint):
    one, two = told_by_ranks(DEAD_ON_ONE, tmp_path, make_checkpoint(seed=1))
    assert "x.b=0 on the first batch" in one[0] and "with x.b=none" in one[0]
    assert "a term of another rank is 0 or not finite" in two[0] and "with METHOD.TERM=none" in two[0]
    assert one[1] is False and two[1] is False, "what one rank leaves out of a step the other took"
    assert "10 steps in a row: a term of another rank is 0 or not finite" in one[2] and "METHOD.TERM=none" in one[2]
    assert "10 steps in a row: x.a=1, x.b=inf" in two[2] and two[2].endswith("x.b=none")


AGREEMENT = """
from types import SimpleNamespace
rank, world, port, teacher_path, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
from yolo_kd.distillers.base import HeadSpec
from yolo_kd.engine import ranks, selection, setup
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
ultra.RANK = rank
narrow, wide = (HeadSpec((width, width), (8, 16), 16, 3, (8, 8)) for width in (4, 6))
shared = match({0: "car"}, {0: "car"})
gains = {"csgr": {"cs": 1.0}, "lqe": {"lqe": 1.0}, "mar": {"mask": 1.0}}
recipe = Recipe("test", {name: {**terms, "seed": rank} for name, terms in gains.items()})
methods = build_methods(recipe, narrow, wide, shared, print)
used = []
distillation = setup.Distillation(SimpleNamespace(use=lambda name, engine: used.append(name)), methods, shared)
for method in methods:
    if method.name == "lqe" and rank == 0:
        method.distiller.load_fit_state(method.distiller.fit_state())
state = lambda: {f"{m.name}.{k}": v.clone() for m in methods for k, v in m.distiller.state_dict().items()}
told = {"before": state(), "first": ranks.from_first_rank(rank), "built": []}
distillation._agree_over_ranks()
told["after"] = state()
setup.sample_batches = lambda *_: []
selection.batches_needed = lambda *_: 0
selection.choose = lambda *_: SimpleNamespace(name=f"the choice of rank {rank}", engine=len, rows=[])
selection.build = lambda name, *_: told["built"].append(name) or len
keys = {"resume": False, "batch_size": 2, "world_size": world, "device": torch.device("cpu"), "log": print}
args, kd = SimpleNamespace(multi_scale=0.0), SimpleNamespace(teacher_engine="auto")
distillation._choose_engine(SimpleNamespace(args=args, kd=kd, **keys), {})
told["used"] = used
torch.save(told, f"{out}.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_ranks_agree_on_distillers_and_engine(tmp_path):
    """Built from unlike seeds, fitted on the first rank alone, and with unlike timings."""
    one, two = told_by_ranks(AGREEMENT, tmp_path, tmp_path / "no.pt")
    unlike = {name for name, value in one["before"].items() if not torch.equal(value, two["before"][name])}
    assert {name.partition(".")[0] for name in unlike} == {"csgr", "lqe", "mar"} and "lqe.fitted" in unlike
    for name, value in one["before"].items():
        assert torch.equal(one["after"][name], value) and torch.equal(two["after"][name], value), name
    assert one["first"] == two["first"] == 0
    assert one["used"] == two["used"] == ["the choice of rank 0"]
    assert (one["built"], two["built"]) == ([], ["the choice of rank 0"]), "the first rank has what it measured"


@pytest.mark.parametrize("given", [True, False])
def test_workers_are_rebuilt_with_our_trainer_and_settings(monkeypatch, tmp_path, pictures, make_checkpoint, given):
    from ultralytics.engine import trainer as ultralytics_trainer

    from yolo_kd import DistillationTrainer

    teacher = str(make_checkpoint(seed=1))
    parent = DistillationTrainer(
        overrides={
            "model": "yolov8n.yaml", "data": str(pictures), "imgsz": 64, "project": str(tmp_path), "teacher": teacher,
            "csgr.tau": 0.2, "device": "cpu",
        }
    )  # fmt: skip
    parent.ddp, parent.world_size, parent.teacher_given = True, 2, given  # not given: of the run that is resumed
    seen: dict = {}

    def launch(command, check):
        script = Path(command[-1])
        seen["text"], seen["state"] = script.read_text(), torch_load(script.with_suffix(".pt"), map_location="cpu")

    monkeypatch.setattr(ultralytics_trainer.subprocess, "run", launch)
    parent.train()
    assert "torch_load" in seen["text"]
    state = seen["state"]
    assert state["trainer"] is DistillationTrainer
    worker = state["trainer"](overrides={**state["args"]}, _callbacks=state["callbacks"])
    assert worker.kd == parent.kd and worker.teacher_given is given
    assert worker.kd.recipe.methods["csgr"]["tau"] == 0.2 and worker.kd.teacher == teacher
    assert not hasattr(parent.args, "kd") and not hasattr(worker.args, "kd")


@pytest.mark.parametrize("labelled", [True, False])
def test_workers_find_what_the_parent_wrote_into_the_run_folder(
    monkeypatch, tmp_path, pictures, make_checkpoint, labelled
):
    """Ultralytics empties it before they start, and they do not look for the unlabeled pictures again."""
    from yolo_kd import DistillationTrainer
    from yolo_kd.engine import ultra, unlabeled

    bare, data = tmp_path / "bare", pictures
    bare.mkdir()
    cv2.imwrite(str(bare / "0.png"), np.full((64, 64, 3), 90, np.uint8))
    if not labelled:
        raw = yaml.safe_load(pictures.read_text())
        del raw["train"]
        data = tmp_path / "without.yaml"
        data.write_text(yaml.safe_dump({**raw, "path": str(pictures.parent)}))
    parent = DistillationTrainer(
        overrides={
            "model": "yolov8n.yaml", "data": str(data), "imgsz": 64, "project": str(tmp_path), "device": "cpu",
            "teacher": str(make_checkpoint(seed=1)), "unlabeled": str(bare),
        }
    )  # fmt: skip
    parent.ddp, parent.world_size = True, 2
    (parent.save_dir / "results.png").touch()  # of an earlier run
    workers: list[Any] = []

    def launch(command, check):
        state = torch_load(Path(command[-1]).with_suffix(".pt"), map_location="cpu")
        workers.append(state["trainer"](overrides={**state["args"]}, _callbacks=state["callbacks"]))

    monkeypatch.setattr(ultra.training_loop.subprocess, "run", launch)
    parent.train()
    worker = workers[0]
    assert worker.save_dir == parent.save_dir and not (worker.save_dir / "results.png").exists()
    assert [path.name for path in unlabeled._pictures(worker).images] == ["0.png"]
    assert bool(worker.data["train"]) is labelled
