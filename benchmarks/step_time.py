"""Seconds per training step: Ultralytics as it ships, its own distillation, and ours per engine.

    python -m benchmarks.step_time imgsz=320,640 batch=16 rounds=5

YOLOv8-L teaches YOLOv8-n. Weights do not change what a step costs, so both start random (BN statistics settled, for
INT8 ranges that make sense). All arms live in one process and take turns step by step, so that they share whatever the
machine does meanwhile. "As it ships" includes that Ultralytics leaves one core idle; a row with all cores stands beside.
What the distillers add to the backward pass is the difference to our plain arm's, in the same rounds; it holds what
their gradients cost in the student, too. Peak memory is measured in a process of its own per arm. Which engines agree
with float32 is teacher_engine.py's matter, measured with trained teachers: `passing=` names them, and only they count
for the bars; INT8 is timed anyway. Where there is a GPU, training takes place there, as it does for a user: every clock
waits for it, peak memory is the GPU's, the teacher is torch's, and the one bar is the GPU's. The files in docs/results come
from machines without one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from yolo_kd.data import scenes

from benchmarks.inputs import listed
from benchmarks.machine import cores, machine, quiet
from benchmarks.result import bar, command_line, write
from yolo_kd.cli import parse

DEFAULTS = {
    "imgsz": "320,640",
    "batch": 16,
    "rounds": 5,
    "teacher": "yolov8l.yaml",
    "student": "yolov8n.yaml",
    "arms": "",
    "passing": "torch,openvino-bf16",
}
PLAIN = "ours plain"
PARTS = ("teacher", "student forward", "detection loss", "distillers", "backward", "optimizer")


class Arm:
    """One way to train; `step` does one optimizer step and returns seconds per part."""

    def __init__(self, name: str, trainer: Any, threads: int) -> None:
        self.name, self.trainer, self.threads = name, trainer, threads
        self.parts: dict[str, float] = {}
        torch.set_num_threads(threads)
        trainer._setup_train()
        trainer._model_train()
        trainer.epoch = 0  # as in the loop that calls optimizer_step
        self.batches = list(_take(trainer.train_loader, 2))
        self._instrument()

    def step(self, index: int) -> dict[str, float]:
        """Seconds of one step, whole and by part."""
        torch.set_num_threads(self.threads)
        self.parts = dict.fromkeys(PARTS, 0.0)
        trainer = self.trainer
        batch = {k: (v.clone() if torch.is_tensor(v) else v) for k, v in self.batches[index % 2].items()}
        start = self._clock()
        with torch.amp.autocast(trainer.device.type, enabled=bool(trainer.amp)):
            batch = trainer.preprocess_batch(batch)
            loss = trainer.model(batch)[0].sum()
        forward = self._clock()
        trainer.scaler.scale(loss).backward()
        backward = self._clock()
        trainer.optimizer_step()
        end = self._clock()
        inner = self.parts["teacher"] + self.parts["distillers"] + self.parts["detection loss"]
        self.parts["student forward"] = forward - start - inner
        self.parts["backward"], self.parts["optimizer"] = backward - forward, end - backward
        return {"step": end - start, **self.parts}

    def _clock(self) -> float:
        """Seconds, once a GPU has done what it was given so far."""
        if self.trainer.device.type != "cpu":
            torch.accelerator.synchronize(self.trainer.device)
        return time.perf_counter()

    def _instrument(self) -> None:
        criterion = getattr(self.trainer, "criterion", None)
        if criterion is not None:
            criterion.base = self._timed("detection loss", criterion.base)
            criterion.checked = True
            criterion.start_epoch(0.0, False, False)
            if criterion.teacher is not None:
                criterion.teacher.use(criterion.teacher.engine_name, self._timed("teacher", criterion.teacher.engine))
            for method in criterion.methods:
                method.distiller.forward = self._timed("distillers", method.distiller.forward)
        elif hasattr(self.trainer.model, "teacher_model"):
            self.trainer.model.teacher_model.forward = self._timed("teacher", self.trainer.model.teacher_model.forward)

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **keys: Any) -> Any:
            start = self._clock()
            try:
                return call(*args, **keys)
            finally:
                self.parts[part] = self.parts.get(part, 0.0) + self._clock() - start

        return timed


def arms_for(
    teacher: str, student: str, data: str, imgsz: int, batch: int, folder: Path
) -> dict[str, Callable[[], Arm]]:
    """Every arm by name, built on demand."""
    from ultralytics.models.yolo.detect import DetectionTrainer
    from ultralytics.utils import NUM_THREADS

    from yolo_kd.engine.trainer import DistillationTrainer

    common = {
        "model": student, "data": data, "imgsz": imgsz, "batch": batch, "nbs": batch, "optimizer": "AdamW", "epochs": 100,
        "project": str(folder), "plots": False, "val": False, "verbose": False, "cache": "ram", "warmup_epochs": 0,
    }  # fmt: skip

    def stock(name: str, threads: int, **keys: Any) -> Callable[[], Arm]:
        return lambda: Arm(name, DetectionTrainer(overrides={**common, **keys}), threads)

    def ours(name: str, **keys: Any) -> Callable[[], Arm]:
        return lambda: Arm(name, DistillationTrainer(overrides={**common, "force": True, **keys}), cores())

    native = "Ultralytics distill_model="
    makers = {
        "Ultralytics plain": stock("Ultralytics plain", NUM_THREADS),
        "Ultralytics plain, all cores": stock("Ultralytics plain, all cores", cores()),
        native: stock(native, NUM_THREADS, distill_model=teacher),
        f"{native}, all cores": stock(f"{native}, all cores", cores(), distill_model=teacher),
        PLAIN: ours(PLAIN, distill="none"),
    }
    for engine in ("torch",) if torch.cuda.is_available() else ("torch", "openvino-bf16", "openvino-int8"):
        makers[f"ours csgr_lqe, {engine}"] = ours(f"ours csgr_lqe, {engine}", teacher=teacher, teacher_engine=engine)
    return makers


def main() -> int:
    """Measure, print, write."""
    keys: dict[str, Any] = {**DEFAULTS, **parse(sys.argv[1:])}
    if "memory_of" in keys:
        return _memory_child(keys)
    notes = quiet()
    sizes = [int(s) for s in listed(keys["imgsz"])]
    rows: list[dict[str, Any]] = []
    by_name: dict[tuple[int, str], dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for size in sizes:
            teacher, data = _material(keys, size, folder)
            wanted = [a for a in str(keys["arms"]).split(";") if a]
            makers = arms_for(teacher, str(keys["student"]), data, size, int(keys["batch"]), folder / "runs")
            makers = {k: v for k, v in makers.items() if not wanted or k in wanted}
            arms = [make() for make in makers.values()]
            taught = {arm.name for arm in arms if getattr(getattr(arm.trainer, "criterion", None), "terms", None)}
            times: dict[str, list[dict[str, float]]] = {a.name: [] for a in arms}
            for index in range(int(keys["rounds"]) + 1):
                for arm in arms:
                    taken = arm.step(index)
                    if index:  # the first round warms up
                        times[arm.name].append(taken)
                    print(f"{size} px, round {index}: {arm.name} {taken['step']:.2f} s", flush=True)
            del arms
            plain = [step["backward"] for step in times.get(PLAIN, [])]
            for name, steps in times.items():
                median = {part: statistics.median(t[part] for t in steps) for part in ("step", *PARTS)}
                peak = _peak_memory(name, keys, size, teacher, data, folder)
                added = extra_backward([step["backward"] for step in steps], plain) if name in taught else None
                rows.append(
                    {
                        "imgsz": size, "arm": name, "s/step": median.pop("step"), **median, "distillers' backward": added,
                        "peak GiB": peak,
                    }
                )  # fmt: skip
                by_name[size, name] = rows[-1]
    write("step_time", command_line(), rows, _bars(by_name, sizes, str(keys["passing"]).split(",")), notes=notes)
    return 0


def extra_backward(distilled: list[float], plain: list[float]) -> float | None:
    """Median difference of two arms' backward passes, round by round; None without the plain arm.

    >>> extra_backward([1.5, 1.25, 3.0], [1.0, 1.0, 1.0])
    0.5
    """
    return statistics.median(a - b for a, b in zip(distilled, plain, strict=True)) if plain else None


def _bars(rows: dict[tuple[int, str], dict[str, Any]], sizes: list[int], passing: list[str]) -> list[Any]:
    plain, native = "Ultralytics plain", "Ultralytics distill_model="
    if machine()["gpu"]:
        engine = "ours csgr_lqe, torch"
        both = [size for size in sizes if (size, engine) in rows and (size, native) in rows]
        steps = {size: (rows[size, engine]["s/step"], rows[size, native]["s/step"]) for size in both}
        return [
            bar(f"{size} px: ours / Ultralytics' distillation", ours / theirs, 0.75, "<=")
            for size, (ours, theirs) in steps.items()
        ]
    amx = "amx_bf16" in str(machine()["isa"])
    bars = []
    for size in sizes:

        def ratio(a: str, b: str, column: str = "s/step", size: int = size) -> float:
            return rows[size, a][column] / rows[size, b][column]

        bf16 = [f"ours csgr_lqe, {e}" for e in ("torch", "openvino-bf16") if (size, f"ours csgr_lqe, {e}") in rows]
        every = [f"ours csgr_lqe, {e}" for e in passing if (size, f"ours csgr_lqe, {e}") in rows]
        if not bf16 or not every or (size, native) not in rows or (size, plain) not in rows:
            continue
        best_bf16 = min(bf16, key=lambda n: rows[size, n]["s/step"])
        best = min(every, key=lambda n: rows[size, n]["s/step"])
        share = (
            sum(rows[size, best][part] for part in ("distillers", "distillers' backward")) / rows[size, best]["s/step"]
        )
        bars += [
            bar(f"{size} px: bf16 engine / Ultralytics' distillation", ratio(best_bf16, native), 0.32, "<="),
            bar(
                f"{size} px: fastest passing engine ({best[15:]}) / Ultralytics' distillation",
                ratio(best, native),
                0.25,
                "<=",
            ),
            bar(
                f"{size} px: fastest passing engine / Ultralytics' plain", ratio(best, plain), 1.0 if amx else 1.3, "<="
            ),
            bar(f"{size} px: our plain / Ultralytics' plain", ratio(PLAIN, plain), 0.5, "<="),
            bar(f"{size} px: distillers, forward and backward, share of the step", share, 0.2, "<="),
            bar(f"{size} px: peak memory / Ultralytics' distillation", ratio(best, native, "peak GiB"), 1.2, "<="),
        ]
    return bars


def _material(keys: dict[str, Any], size: int, folder: Path) -> tuple[str, str]:
    """A teacher checkpoint with settled BN statistics, and rendered scenes."""
    data = scenes.write_dataset(folder / f"scenes{size}", train=2 * int(keys["batch"]), val=4, size=size)
    return random_teacher(str(keys["teacher"]), dict(enumerate(scenes.CLASSES)), folder), str(data)


def random_teacher(source: str, names: Mapping[int, str], folder: Path) -> str:
    """A checkpoint with random weights and settled BN statistics; `source` itself where it is a checkpoint.

    Args:
        source: A model YAML or a .pt.
        names: The classes it knows.
        folder: Where it is written, once.
    """
    from ultralytics.nn.tasks import DetectionModel

    if source.endswith(".pt"):
        return source
    path = folder / (Path(source).stem + ".pt")
    if not path.exists():
        torch.manual_seed(0)
        model = DetectionModel(source, nc=len(names), verbose=False)
        model.names = dict(names)
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(torch.rand(2, 3, 320, 320))
        torch.save({"model": model.eval(), "train_args": {"task": "detect"}, "epoch": -1}, path)
    return str(path)


def _peak_memory(name: str, keys: dict[str, Any], size: int, teacher: str, data: str, folder: Path) -> float:
    words = [f"memory_of={name}", f"imgsz={size}", f"batch={keys['batch']}", f"student={keys['student']}"]
    command = [
        sys.executable,
        "-m",
        "benchmarks.step_time",
        *words,
        f"teacher={teacher}",
        f"data={data}",
        f"folder={folder}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])["peak_gib"]


def _memory_child(keys: dict[str, Any]) -> int:
    folder = Path(str(keys["folder"])) / "memory"
    makers = arms_for(
        str(keys["teacher"]), str(keys["student"]), str(keys["data"]), int(keys["imgsz"]), int(keys["batch"]), folder
    )
    arm = makers[str(keys["memory_of"])]()
    for index in range(2):
        arm.step(index)
    if torch.cuda.is_available():
        print(json.dumps({"peak_gib": torch.cuda.max_memory_allocated() / 2**30}))
        return 0
    # Not ru_maxrss: it is handed down from the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak_kib = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"peak_gib": peak_kib / 2**20}))
    return 0


def _take(loader: Any, count: int) -> Any:
    iterator = iter(loader)
    for _ in range(count):
        yield next(iterator)


if __name__ == "__main__":
    sys.exit(main())
