"""What each engine costs the teacher: time, agreement, its mAP, and the student that it makes.

    python -m benchmarks.teacher_engine teacher=best.pt data=hituav/data_scene.yaml out=runs/engines \\
        coco_teacher=yolov8n.pt coco_data=coco128/data.yaml \\
        student_teacher=runs/demo/teacher/weights/best.pt student_data=runs/demo/scenes-416-256-0/data.yaml

mAP is Ultralytics' on the val split, with square letterboxed images so that every engine sees one shape. The students
are short runs with fixed seeds; they say whether an engine's noise hurts, not how good a student can be. They can have a
teacher and data of their own, because they say nothing where a short run learns nothing: a bar asks whether the teacher
brings more than the seeds differ, beside students that had none. Paths may lie outside; data sets are copied, because
Ultralytics writes caches next to labels.
"""

from __future__ import annotations

import csv
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from benchmarks.inputs import listed, private_copy
from benchmarks.machine import quiet
from benchmarks.real_run import CLOSE_MOSAIC
from benchmarks.result import Bar, bar, command_line, write
from yolo_kd.cli import parse
from yolo_kd.distillers.base import HeadOutput
from yolo_kd.engine.trainer import DistillationTrainer

ENGINES = ("torch-fp32", "torch-bf16", "openvino-bf16", "openvino-int8", "openvino-int8-all")
METRIC = "metrics/mAP50-95(B)"
DEFAULTS: dict[str, Any] = {
    "teacher": None,
    "data": None,
    "coco_teacher": None,
    "coco_data": None,
    "out": "runs/engines",
    "imgsz": 320,
    "coco_imgsz": 640,
    "batch": 16,
    "student": "yolov8n.yaml",
    "student_teacher": None,  # None: teacher= and data=
    "student_data": None,
    "student_imgsz": 256,
    "student_batch": 8,
    "epochs": 7,
    "seeds": "0,1,2",
}
PLAIN, BF16, INT8 = "plain", "openvino-bf16", "openvino-int8"


class SquareTrainer(DistillationTrainer):
    """Validates on square images: one static shape for every engine."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """As in Ultralytics, without rectangular batches."""
        from ultralytics.data import build_yolo_dataset

        return build_yolo_dataset(self.args, img_path, batch, self.data, mode=mode, rect=False, stride=self.stride)


def main() -> int:
    """Measure, print, write."""
    keys = {**DEFAULTS, **parse(sys.argv[1:])}
    pairs = [
        ("", keys["teacher"], keys["data"], keys["imgsz"]),
        ("coco ", keys["coco_teacher"], keys["coco_data"], keys["coco_imgsz"]),
    ]
    pairs = [p for p in pairs if p[1] and p[2]]
    if not pairs:
        print(
            "teacher_engine: expected teacher=<.pt> data=<yaml>, coco_teacher=<.pt> coco_data=<yaml>, or both",
            file=sys.stderr,
        )
        return 2
    if (keys["student_teacher"] is None) != (keys["student_data"] is None) or len(listed(keys["seeds"])) < 2:
        print(
            "teacher_engine: expected student_teacher= and student_data= together, and two seeds= or more",
            file=sys.stderr,
        )
        return 2
    notes = quiet()
    out = Path(keys["out"]).resolve()
    rows, bars = [], []
    for label, teacher, data, imgsz in pairs:
        local = private_copy(Path(data).resolve(), out / "data" / Path(data).parent.name)
        measured = _engines(Path(teacher).resolve(), local, int(imgsz), int(keys["batch"]), out)
        for row in measured:
            rows.append({"data": Path(data).parent.name, **row})
        exact = next(r for r in measured if r["engine"] == "torch-fp32")["mAP50-95"]
        for row in measured:
            if row["mAP50-95"] is not None and row["engine"] in ("torch-bf16", "openvino-bf16", "openvino-int8"):
                limit = 0.01 if "int8" in row["engine"] else 0.002
                bars.append(
                    bar(f"{label}{row['engine']} costs the teacher mAP50-95", exact - row["mAP50-95"], limit, "<=")
                )
    if not (keys["student_teacher"] and keys["student_data"]):
        keys |= {"student_teacher": keys["teacher"], "student_data": keys["data"], "student_imgsz": keys["imgsz"]}
    if keys["student_teacher"] and keys["student_data"]:
        students = _students(keys, out)
        name = f"students on {Path(keys['student_data']).parent.name}"
        for engine, found in students.items():
            by_seed = ", ".join(f"{v:.4f}" for v in found)
            rows.append({"data": name, "engine": engine, "mAP50-95": statistics.mean(found), "by seed": by_seed})
        bars += student_bars(students)
    write("teacher_engine", command_line(), rows, bars, notes=notes)
    return 0


def student_bars(students: Mapping[str, Sequence[float]]) -> list[Bar]:
    """Whether INT8's student is as good as bf16's within the spread of its seeds, and whether that says anything.

    Args:
        students: mAP50-95 by seed of the students without a teacher and of those of each engine.
    """
    mean = {name: statistics.mean(found) for name, found in students.items()}
    spread = max(students[BF16]) - min(students[BF16])
    gained, lost = mean[BF16] - mean[PLAIN], mean[BF16] - mean[INT8]
    return [
        bar("INT8's student behind bf16's, against the spread of bf16's seeds", lost, spread, "<="),
        bar("bf16's student ahead of plain's, against that spread, so that it says something", gained, spread, ">="),
    ]


def _engines(teacher: Path, data: Path, imgsz: int, batch: int, out: Path) -> list[dict[str, Any]]:
    from yolo_kd.cfg.home import cache_home

    from yolo_kd.engine import selection
    from yolo_kd.engine.agreement import compare
    from yolo_kd.engine.evaluation import evaluate
    from yolo_kd.engine.samples import sample_batches

    trainer = SquareTrainer(
        overrides={
            "model": "yolov8n.yaml", "data": str(data), "imgsz": imgsz, "batch": batch, "teacher": str(teacher), "distill": "pkd",
            "force": True, "teacher_engine": "torch", "project": str(out / "probe"), "exist_ok": True, "plots": False,
            "verbose": False,
        }
    )  # fmt: skip
    trainer._setup_train()
    assert trainer.distillation is not None
    found, shared, exact = trainer.distillation.teacher, trainer.distillation.shared, None

    def raw(img: Tensor) -> HeadOutput:
        return found.net.unflatten(list(found.engine(img)))

    batches = [
        b["img"]
        for b in sample_batches(
            trainer,
            selection.batches_needed(replace(trainer.kd, teacher_engine="openvino-int8"), batch, trainer.device),
        )
    ]
    rows = []
    for name in ENGINES:
        engine = selection.build(name, found, trainer.kd, batches, cache_home(), trainer.log)
        found.use(name, engine)
        outputs = [found(img) for img in batches[: selection.CHECK_BATCHES]]
        exact = exact or outputs
        agreement = compare(exact, outputs)
        ms = selection.time_runs({name: partial(engine, batches[0])}, batches[0])[name]
        maps = evaluate(trainer, raw, found.full_spec, shared, name)
        row: dict[str, Any] = {"engine": name, "ms/image": ms}
        row.update({f"P{3 + i} error": e for i, e in enumerate(agreement.features)})
        rows.append({**row, "score error": agreement.score, "mAP50-95": maps["mAP50-95"] if maps else None})
    return rows


def _students(keys: dict[str, Any], out: Path) -> dict[str, list[float]]:
    """Best val mAP50-95 of a short run per engine and seed; finished runs are kept."""
    source = Path(keys["student_data"]).resolve()
    data = private_copy(source, out / "data" / source.parent.name)
    found: dict[str, list[float]] = {}
    for seed in [int(s) for s in listed(keys["seeds"])]:
        for engine in (PLAIN, BF16, INT8):
            run = out / f"student-{engine}-{source.parent.name}-{keys['epochs']}-s{seed}"
            if not (run / "done").exists():
                shutil.rmtree(run, ignore_errors=True)
                print(f"student of {engine}, seed {seed}", flush=True)
                words = [
                    f"student={keys['student']}", f"data={data}", f"imgsz={keys['student_imgsz']}",
                    f"batch={keys['student_batch']}", f"nbs={keys['student_batch']}", f"epochs={keys['epochs']}",
                    "optimizer=AdamW", "lr0=0.002", f"seed={seed}", "cache=ram", "plots=False", "exist_ok=True",
                    f"close_mosaic={CLOSE_MOSAIC}", "warmup_epochs=1", f"project={out}", f"name={run.name}",
                ]  # fmt: skip
                taught = [
                    f"teacher={Path(keys['student_teacher']).resolve()}",
                    f"teacher_engine={engine}",
                    "force=true",
                ]
                words += ["distill=none"] if engine == PLAIN else taught
                with run.with_name(f"{run.name}.log").open("w") as log:
                    command = [sys.executable, "-m", "yolo_kd.cli", "train", *words]
                    subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
                (run / "done").touch()
            with (run / "results.csv").open() as file:
                found.setdefault(engine, []).append(max(float(r[METRIC]) for r in csv.DictReader(file)))
    return found


if __name__ == "__main__":
    sys.exit(main())
