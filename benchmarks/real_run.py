"""The main job on real data: a fine-tuned teacher, a student from scratch, plain and distilled under the same budget.

    python -m benchmarks.real_run data=hituav/data_scene.yaml weights=yolov8n.pt out=runs/real name=hituav

Every training is a process of its own, under `out`; finished ones are kept, so that a stopped benchmark goes on. The
teacher is `weights` fine-tuned on the training split until val stops rising. The arm `native` is Ultralytics' own
distill_model= as it ships, that is in float32: it refuses bf16 on a CPU. `plain_equal_time` is plain trained for as many
epochs as fit into the wall time of `csgr_lqe`. Checkpoints are chosen on val; test is looked at once, at the end.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import quiet
from benchmarks.result import RESULTS, bar, command_line, write
from yolo_kd.cli import parse

DEFAULTS: dict[str, Any] = {
    "data": None,
    "weights": None,
    "out": "runs/real",
    "name": "real",
    "student": "yolov8n.yaml",
    "arms": "plain,pkd,csgr_lqe,native",
    "seeds": "0,1",
    "epochs": 14,
    "teacher_epochs": 12,
    "imgsz": 320,
    "batch": 16,
    "lr0": 0.002,
    "teacher": None,
}
CLOSE_MOSAIC = 3  # Ultralytics' 10 would leave hardly an epoch of a short run with mosaic
METRIC = "metrics/mAP50-95(B)"
EQUAL_TIME = "plain_equal_time"


def main() -> int:
    """Train what is missing, then write the table, the bars and the plot."""
    keys: dict[str, Any] = {**DEFAULTS, **parse(sys.argv[1:])}
    if not keys["data"] or not (keys["weights"] or keys["teacher"]):
        print(
            "real_run: expected data=<yaml> and weights=<pretrained .pt> (or teacher=<fine-tuned .pt>)", file=sys.stderr
        )
        return 2
    notes = quiet()
    out = Path(keys["out"]).resolve() / keys["name"]
    out.mkdir(parents=True, exist_ok=True)
    data = _private_copy(Path(keys["data"]).resolve(), out)
    teacher = Path(keys["teacher"]).resolve() if keys["teacher"] else _train_teacher(keys, data, out)
    seeds = [int(s) for s in str(keys["seeds"]).strip("()[]").split(",")]
    arms = [a.strip() for a in str(keys["arms"]).split(",")]
    jobs = [(arm, seed) for seed in seeds for arm in arms]
    for index, (arm, seed) in enumerate(jobs):
        print(f"[{index + 1}/{len(jobs)}] {arm}, seed {seed}", flush=True)
        _train(arm, seed, int(keys["epochs"]), keys, data, teacher, out)
    if {"plain", "csgr_lqe"} <= set(arms):
        for seed in seeds:
            wall = [_read(out / f"{arm}-s{seed}")["seconds"] for arm in ("plain", "csgr_lqe")]
            epochs = max(round(int(keys["epochs"]) * wall[1] / wall[0]), int(keys["epochs"]))
            print(f"plain for {epochs} epochs, seed {seed}: as long as csgr_lqe took", flush=True)
            _train(EQUAL_TIME, seed, epochs, keys, data, teacher, out)
        arms.append(EQUAL_TIME)
    return _report(keys, out, data, teacher, arms, seeds, notes)


def _private_copy(data: Path, out: Path) -> Path:
    """The data set copied beside the runs: Ultralytics writes caches next to labels."""
    target = out / "data"
    if not target.exists():
        part = out / "data.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(data.parent, part)
        part.rename(target)
    return target / data.name


def _train_teacher(keys: dict[str, Any], data: Path, out: Path) -> Path:
    run = out / "teacher"
    args = [
        "distill=none",
        f"student={Path(keys['weights']).resolve()}",
        "cos_lr=True",
        "lrf=0.02",
    ]
    args += [f"epochs={keys['teacher_epochs']}", "warmup_epochs=1", "seed=0", "lr0=0.0002"]
    _run(run, _ours(args, keys, data, run), {"arm": "teacher", "seed": 0})
    return run / "weights" / "best.pt"


def _train(arm: str, seed: int, epochs: int, keys: dict[str, Any], data: Path, teacher: Path, out: Path) -> None:
    run = out / f"{arm}-s{seed}"
    args = [f"student={keys['student']}", f"epochs={epochs}", f"seed={seed}", f"lr0={keys['lr0']}"]
    if arm == "native":
        common = _common(keys, data, run)
        code = f"from ultralytics import YOLO; YOLO({keys['student']!r}).train(**{_typed([*args[1:], *common])!r}, distill_model={str(teacher)!r})"
        command = [sys.executable, "-c", code]
    elif arm in {"plain", EQUAL_TIME}:
        command = _ours(["distill=none", *args], keys, data, run)
    else:
        command = _ours([f"distill={arm}", f"teacher={teacher}", *args], keys, data, run)
    _run(run, command, {"arm": arm, "seed": seed, "epochs": epochs})


def _common(keys: dict[str, Any], data: Path, run: Path) -> list[str]:
    return [
        f"data={data}", f"imgsz={keys['imgsz']}", f"batch={keys['batch']}", f"nbs={keys['batch']}", "optimizer=AdamW",
        "cache=ram", f"project={run.parent}", f"name={run.name}", "exist_ok=True", "plots=False", f"close_mosaic={CLOSE_MOSAIC}",
    ]  # fmt: skip


def _typed(words: list[str]) -> dict[str, Any]:
    return parse(words)


def _ours(args: list[str], keys: dict[str, Any], data: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "yolo_kd.cli", "train", *args, *_common(keys, data, run)]


def _run(run: Path, command: list[str], facts: dict[str, Any]) -> None:
    """Train unless it is done; `done.json` is written last, so a half-finished run starts anew."""
    if (run / "done.json").exists():
        if json.loads((run / "done.json").read_text())["command"] != command:
            raise SystemExit(f"{run} was made by another command; choose another out= or name=, or delete it")
        return
    shutil.rmtree(run, ignore_errors=True)
    start = time.time()
    log = run.with_suffix(".log")
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise SystemExit(f"{run.name} failed with exit code {done.returncode}; see {log}")
    (run / "done.json").write_text(json.dumps({**facts, "seconds": time.time() - start, "command": command}, indent=1))


def _read(run: Path) -> dict[str, Any]:
    """Facts, curve and training time of a finished run."""
    facts = json.loads((run / "done.json").read_text())
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    facts["curve"] = [float(r[METRIC]) for r in rows]
    return facts


def _test(run: Path, data: Path, imgsz: int, split: str) -> float:
    """mAP50-95 of a run's best.pt on a split; kept, so that test is looked at once."""
    path = run / f"{split}.json"
    if not path.exists():
        from ultralytics import YOLO

        metrics = YOLO(run / "weights" / "best.pt").val(
            data=str(data), split=split, imgsz=imgsz, plots=False, verbose=False
        )
        path.write_text(json.dumps({"mAP50-95": float(metrics.box.map), "mAP50": float(metrics.box.map50)}))
    return json.loads(path.read_text())["mAP50-95"]


def _report(
    keys: dict[str, Any], out: Path, data: Path, teacher: Path, arms: list[str], seeds: list[int], notes: list[str]
) -> int:
    splits = ["val", "test"] if "test:" in data.read_text() else ["val"]
    scores: dict[str, dict[str, list[float]]] = {}
    for arm in arms:
        runs = [out / f"{arm}-s{s}" for s in seeds]
        scores[arm] = {split: [_test(r, data, int(keys["imgsz"]), split) for r in runs] for split in splits}
    own = {split: _test(teacher.parents[1], data, int(keys["imgsz"]), split) for split in splits}
    mean = {arm: {s: statistics.mean(v) for s, v in found.items()} for arm, found in scores.items()}
    rows: list[dict[str, Any]] = [{"arm": "teacher", **{f"{s} mAP50-95": own[s] for s in splits}}]
    for arm in arms:
        facts = [_read(out / f"{arm}-s{s}") for s in seeds]
        row: dict[str, Any] = {
            "arm": arm,
            "epochs": facts[0]["epochs"],
            "seconds": statistics.mean(f["seconds"] for f in facts),
        }
        for split in splits:
            row[f"{split} mAP50-95"] = mean[arm][split]
            row[f"{split} by seed"] = ", ".join(f"{v:.4f}" for v in scores[arm][split])
            gap = own[split] - mean["plain"][split] if "plain" in mean else 0.0
            row[f"{split} gap recovered"] = (mean[arm][split] - mean["plain"][split]) / gap if gap else float("nan")
        row["val by epoch"] = " ".join(f"{statistics.mean(c):.3f}" for c in zip(*(f["curve"] for f in facts)))
        rows.append(row)
    _plot(keys["name"], out, arms, seeds, own["val"])
    write(f"real_run_{keys['name']}", command_line(), rows, _bars(mean, own, splits), notes=notes)
    return 0


def _bars(mean: dict[str, dict[str, float]], own: dict[str, float], splits: list[str]) -> list[Any]:
    if not {"plain", "csgr_lqe"} <= set(mean):
        return []
    bars = []
    for split in splits:
        plain, ours = mean["plain"][split], mean["csgr_lqe"][split]
        bars.append(
            bar(
                f"csgr_lqe recovers of the gap to the teacher ({split})",
                (ours - plain) / (own[split] - plain),
                0.25,
                ">=",
            )
        )
        if "native" in mean:
            gained = mean["native"][split] - plain
            bars.append(
                bar(
                    f"csgr_lqe gains over twice what Ultralytics' gains ({split})", ours - plain - 2 * gained, 0.0, ">="
                )
            )
        if EQUAL_TIME in mean:
            bars.append(
                bar(f"csgr_lqe minus plain at equal wall time ({split})", ours - mean[EQUAL_TIME][split], 0.0, ">=")
            )
    half = mean["plain"]["val"] / own["val"]
    bars.append(bar("plain reaches of its teacher (val), so that the budget says something", half, 0.5, ">="))
    return bars


def _plot(name: str, out: Path, arms: list[str], seeds: list[int], teacher: float) -> None:
    """mAP50-95 on val over epochs and over wall time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (by_epoch, by_time) = plt.subplots(1, 2, figsize=(11, 4), sharey=True)
    for index, arm in enumerate(arms):
        for seed in seeds:
            run = _read(out / f"{arm}-s{seed}")
            epochs = range(1, len(run["curve"]) + 1)
            style = {"color": f"C{index}", "label": arm if seed == seeds[0] else None, "alpha": 0.8}
            by_epoch.plot(epochs, run["curve"], **style)
            by_time.plot([e * run["seconds"] / len(run["curve"]) / 60 for e in epochs], run["curve"], **style)
    for axis, label in ((by_epoch, "epoch"), (by_time, "minutes of training")):
        axis.axhline(teacher, color="grey", linestyle=":", label="teacher")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    by_epoch.set_ylabel("mAP50-95 on val")
    by_epoch.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(RESULTS / f"real_run_{name}.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
