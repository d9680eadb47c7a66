"""The main job on real data: a fine-tuned teacher, a student from scratch, plain and distilled under the same budget.

    python -m benchmarks.real_run data=hituav/data_scene.yaml weights=yolov8n.pt out=runs/real name=hituav

Every training is a process of its own, under `out`; finished ones are kept, so that a stopped benchmark goes on. The
teacher is `weights` fine-tuned on the training split, on all cores and for so long that val has stopped rising: its row
shows it. The seeds train side by side, each on its own share of the cores, so that every arm of every seed has the same
machine. The arm `native` is Ultralytics' own distill_model= as it ships, that is in float32: it refuses bf16 on a CPU.
`plain_equal_time` is plain trained for as many epochs as take the time of `csgr_lqe`, set-up and pre-flight included: the
last one is a whole one, so it has rather more time than less. `equal_time=false` leaves it out.
Time is the processor time of the whole process divided by its cores: what the run takes on a machine that does nothing
else. Checkpoints are chosen on val; test is looked at once, at the end. An arm is a recipe, with overrides after `+`:
`csgr_lqe+csgr.gr=auto:0.5`.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from yolo_kd.cfg.settings import load_recipe
from yolo_kd.deploy.artifact import sha256

from benchmarks.inputs import listed, private_copy
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
    "epochs": 20,
    "teacher_epochs": 12,
    "imgsz": 320,
    "batch": 16,
    "lr0": 0.002,
    "teacher": None,
    "equal_time": True,
}
CLOSE_MOSAIC = 3  # Ultralytics' 10 would leave hardly an epoch of a short run with mosaic
METRIC = "metrics/mAP50-95(B)"
PRECISION = (
    "native runs in float32, as Ultralytics' own distillation does on a CPU; every other arm in bf16 where the CPU has it: "
    "its seconds are not those of equal precision"
)
EQUAL_TIME = "plain_equal_time"


def main() -> int:
    """Train what is missing, then write the table, the bars and the plot."""
    keys: dict[str, Any] = {**DEFAULTS, **parse(sys.argv[1:])}
    if not keys["data"] or not (keys["weights"] or keys["teacher"]):
        print(
            "real_run: expected data=<yaml> and weights=<pretrained .pt> (or teacher=<fine-tuned .pt>)", file=sys.stderr
        )
        return 2
    notes = [*quiet(), *([PRECISION] if "native" in str(keys["arms"]).split(",") else [])]
    out = Path(keys["out"]).resolve() / keys["name"]
    out.mkdir(parents=True, exist_ok=True)
    source = Path(keys["data"]).resolve()
    data = private_copy(source, out / "data")
    seeds = [int(s) for s in listed(keys["seeds"])]
    arms = listed(keys["arms"])
    shares = _shares(len(seeds))
    teacher = _given(Path(keys["teacher"]), out) if keys["teacher"] else _train_teacher(keys, data, out, _shares(1)[0])
    copies = [private_copy(source, out / f"data-s{seed}") for seed in seeds]
    with ThreadPoolExecutor(len(shares)) as lanes:
        jobs = [
            lanes.submit(_lane, arms, seed, keys, copies[i], teacher, out, shares[i % len(shares)])
            for i, seed in enumerate(seeds)
        ]
    for job in jobs:
        job.result()
    if _equal_time(keys, arms):
        arms.append(EQUAL_TIME)
    return _report(keys, out, data, teacher, arms, seeds, notes)


def _shares(seeds: int) -> list[set[int]]:
    """The cores of each training: all for one, an equal part each for several side by side."""
    mine = sorted(os.sched_getaffinity(0))
    lanes = min(seeds, len(mine))
    size = len(mine) // lanes
    return [set(mine[i * size : (i + 1) * size]) for i in range(lanes)]


def _lane(
    arms: list[str], seed: int, keys: dict[str, Any], data: Path, teacher: Path, out: Path, share: set[int]
) -> None:
    """All arms of one seed, one after the other."""
    budget = int(keys["epochs"])
    for index, arm in enumerate(arms):
        print(f"seed {seed}: {arm} ({index + 1}/{len(arms)})", flush=True)
        _train(arm, seed, budget, keys, data, teacher, out, share)
    if _equal_time(keys, arms):
        epochs = _as_long(*(_read(_folder(out, arm, seed)) for arm in ("plain", "csgr_lqe")))
        print(f"seed {seed}: plain for {epochs} epochs, as long as csgr_lqe took", flush=True)
        _train(EQUAL_TIME, seed, epochs, keys, data, teacher, out, share)


def _as_long(plain: dict[str, Any], taught: dict[str, Any]) -> int:
    """Epochs of plain that take the time of `taught`: what comes before the first and after the last is there only once."""
    once = plain["seconds"] * (1.0 - plain["in epochs"] / plain["wall"])
    each = (plain["seconds"] - once) / plain["epochs"]
    return max(math.ceil((taught["seconds"] - once) / each), plain["epochs"])


def _equal_time(keys: dict[str, Any], arms: list[str]) -> bool:
    return bool(keys["equal_time"]) and {"plain", "csgr_lqe"} <= set(arms)


def _given(teacher: Path, out: Path) -> Path:
    """A copy of a teacher that is there already, so that nothing is written beside the original."""
    copied = out / "teacher" / "weights" / "best.pt"
    if copied.exists() and sha256(copied) != sha256(teacher):
        raise SystemExit(f"{copied} is not {teacher}; choose another out= or name=, or delete it")
    if not copied.exists():
        copied.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(teacher, copied)
    return copied


def _train_teacher(keys: dict[str, Any], data: Path, out: Path, share: set[int]) -> Path:
    run = out / "teacher"
    args = [
        "distill=none",
        f"student={Path(keys['weights']).resolve()}",
        "cos_lr=True",
        "lrf=0.02",
    ]
    args += [f"epochs={keys['teacher_epochs']}", "seed=0", "lr0=0.0002"]
    _run(run, _ours(args, keys, data, run), {"arm": "teacher", "seed": 0}, share)
    return run / "weights" / "best.pt"


def _train(
    arm: str, seed: int, epochs: int, keys: dict[str, Any], data: Path, teacher: Path, out: Path, share: set[int]
) -> None:
    run, facts = _folder(out, arm, seed), {"arm": arm, "seed": seed, "epochs": epochs}
    args = [f"student={keys['student']}", f"epochs={epochs}", f"seed={seed}", f"lr0={keys['lr0']}"]
    if arm == "native":
        common = _common(keys, data, run)
        code = f"from ultralytics import YOLO; YOLO({keys['student']!r}).train(**{parse([*args[1:], *common])!r}, distill_model={str(teacher)!r})"
        command = [sys.executable, "-c", code]
    elif arm in {"plain", EQUAL_TIME}:
        command = _ours(["distill=none", *args], keys, data, run)
    else:
        recipe, *overrides = arm.split("+")
        command = _ours([f"distill={recipe}", *overrides, f"teacher={teacher}", *args], keys, data, run)
        facts["recipe"] = asdict(load_recipe(recipe))
    _run(run, command, facts, share)


def _folder(out: Path, arm: str, seed: int) -> Path:
    return out / f"{re.sub(r'[^A-Za-z0-9_.+-]', '_', arm)}-s{seed}"


def _common(keys: dict[str, Any], data: Path, run: Path) -> list[str]:
    return [
        f"data={data}", f"imgsz={keys['imgsz']}", f"batch={keys['batch']}", f"nbs={keys['batch']}", "optimizer=AdamW",
        "cache=ram", f"project={run.parent}", f"name={run.name}", "exist_ok=True", "plots=False", f"close_mosaic={CLOSE_MOSAIC}",
        "warmup_epochs=1",
    ]  # fmt: skip


def _ours(args: list[str], keys: dict[str, Any], data: Path, run: Path) -> list[str]:
    return [sys.executable, "-m", "yolo_kd.cli", "train", *args, *_common(keys, data, run)]


def _run(run: Path, command: list[str], facts: dict[str, Any], share: set[int]) -> None:
    """Train on these cores unless it is done; `done.json` is written last, so a half-finished run starts anew."""
    if (run / "done.json").exists():
        kept = json.loads((run / "done.json").read_text())
        if kept["command"] != command or kept.get("recipe") != facts.get("recipe"):
            raise SystemExit(f"{run} was made by another command or recipe; choose another out= or name=, or delete it")
        return
    home = run.parent / f"home-{run.name}"
    for left in (run, home):  # caches are this run's own, and its seconds those of a first run
        shutil.rmtree(left, ignore_errors=True)
    environment = {**os.environ, "YOLO_KD_HOME": str(home)}
    start = time.time()
    log = run.with_name(f"{run.name}.log")  # with_suffix would give auto:1.5-s0 and auto:1.5-s1 one log
    with log.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)
        os.sched_setaffinity(process.pid, share)
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{run.name} failed with exit code {process.returncode}; see {log}")
    facts = {**facts, "seconds": (used.ru_utime + used.ru_stime) / len(share), "wall": time.time() - start}
    (run / "done.json").write_text(json.dumps({**facts, "command": command}, indent=1))


def _read(run: Path) -> dict[str, Any]:
    """Facts, curve and time of a finished run."""
    facts = json.loads((run / "done.json").read_text())
    with (run / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    facts["curve"] = [float(r[METRIC]) for r in rows]
    facts["in epochs"] = float(rows[-1]["time"])  # of the wall time
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
        runs = [_folder(out, arm, s) for s in seeds]
        scores[arm] = {split: [_test(r, data, int(keys["imgsz"]), split) for r in runs] for split in splits}
    own = {split: _test(teacher.parents[1], data, int(keys["imgsz"]), split) for split in splits}
    mean = {arm: {s: statistics.mean(v) for s, v in found.items()} for arm, found in scores.items()}
    rows: list[dict[str, Any]] = [{"arm": "teacher", **{f"{s} mAP50-95": own[s] for s in splits}, **_taught(teacher)}]
    for arm in arms:
        facts = [_read(_folder(out, arm, s)) for s in seeds]
        row: dict[str, Any] = {
            "arm": arm,
            "epochs": " and ".join(dict.fromkeys(str(f["epochs"]) for f in facts)),
            "seconds": statistics.mean(f["seconds"] for f in facts),
            "wall seconds": statistics.mean(f["wall"] for f in facts),
        }
        for split in splits:
            row[f"{split} mAP50-95"] = mean[arm][split]
            row[f"{split} by seed"] = ", ".join(f"{v:.4f}" for v in scores[arm][split])
            row[f"{split} gap recovered"] = _recovered(arm, split, mean, own)
        row["val, second half"] = statistics.mean(statistics.mean(f["curve"][len(f["curve"]) // 2 :]) for f in facts)
        row["teacher on"] = _engine(_folder(out, arm, seeds[0]))
        row["val by epoch"] = _written([statistics.mean(c) for c in zip(*(f["curve"] for f in facts))])
        rows.append(row)
    _plot(keys["name"], out, arms, seeds, own["val"])
    write(
        f"real_run_{keys['name']}",
        command_line(),
        rows,
        _bars(mean, own, splits),
        notes=[*notes, _budget(keys), *_recipes(out, arms, seeds)],
    )
    return 0


def _taught(teacher: Path) -> dict[str, Any]:
    """How the teacher came about; nothing where it was given."""
    if not (teacher.parents[1] / "done.json").exists():
        return {}
    facts = _read(teacher.parents[1])
    return {"epochs": str(len(facts["curve"])), "seconds": facts["seconds"], "val by epoch": _written(facts["curve"])}


def _written(curve: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in curve)


def _budget(keys: dict[str, Any]) -> str:
    seeds = ",".join(listed(keys["seeds"]))
    return (
        f"every arm: {keys['student']} from scratch, {keys['imgsz']} px, batch=nbs={keys['batch']}, AdamW, lr0={keys['lr0']}, "
        f"warmup_epochs=1, close_mosaic={CLOSE_MOSAIC}, seeds {seeds}; seconds are processor time by cores; "
        "checkpoints are chosen on val; means over the seeds; 'second half' is the mean over those epochs, in which the luck of "
        "a best epoch is not"
    )


def _recovered(arm: str, split: str, mean: dict[str, dict[str, float]], own: dict[str, float]) -> float | None:
    """Share of the distance between plain and teacher; None where there is none, or no plain arm."""
    if "plain" not in mean or own[split] == mean["plain"][split]:
        return None
    return (mean[arm][split] - mean["plain"][split]) / (own[split] - mean["plain"][split])


def _engine(run: Path) -> str | None:
    """What ran the teacher of a run; None where none of ours did."""
    report = run / "preflight.json"
    return json.loads(report.read_text()).get("engine") if report.exists() else None


def _recipes(out: Path, arms: list[str], seeds: list[int]) -> list[str]:
    """A note on each distilled arm: gains and arguments that it ran with, which its recipe may not have for ever."""
    notes = []
    for arm in arms:
        path = _folder(out, arm, seeds[0]) / "kd.yaml"
        methods = yaml.safe_load(path.read_text())["recipe"]["methods"] if path.exists() else {}
        keys = [f"{method}.{key}={value}" for method, found in methods.items() for key, value in found.items()]
        if keys:
            notes.append(f"{arm} distilled {', '.join(keys)}")
    return notes


def _bars(mean: dict[str, dict[str, float]], own: dict[str, float], splits: list[str]) -> list[Any]:
    if not {"plain", "csgr_lqe"} <= set(mean):
        return []
    bars = []
    for split in splits:
        plain, ours = mean["plain"][split], mean["csgr_lqe"][split]
        share = _recovered("csgr_lqe", split, mean, own)
        if share is not None:
            bars.append(bar(f"csgr_lqe recovers of the gap to the teacher ({split})", share, 0.25, ">="))
        if "native" in mean:
            gained = max(mean["native"][split] - plain, 0.0)  # twice a loss would be a bar that ours passes by losing
            bars.append(
                bar(
                    f"csgr_lqe gains over twice what Ultralytics' gains ({split})", ours - plain - 2 * gained, 0.0, ">="
                )
            )
        if EQUAL_TIME in mean:
            bars.append(bar(f"csgr_lqe minus plain at equal time ({split})", ours - mean[EQUAL_TIME][split], 0.0, ">="))
    if own["val"]:
        half = mean["plain"]["val"] / own["val"]
        bars.append(bar("plain reaches of its teacher (val), so that the budget says something", half, 0.5, ">="))
    return bars


def _plot(name: str, out: Path, arms: list[str], seeds: list[int], teacher: float) -> None:
    """mAP50-95 on val over epochs and over wall time."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (by_epoch, by_time) = plt.subplots(1, 2, figsize=(11, 4.6), sharey=True, layout="constrained")
    for index, arm in enumerate(arms):
        for seed in seeds:
            run = _read(_folder(out, arm, seed))
            epochs = range(1, len(run["curve"]) + 1)
            style = {"color": f"C{index}", "label": arm if seed == seeds[0] else None, "alpha": 0.8}
            by_epoch.plot(epochs, run["curve"], **style)
            by_time.plot([e * run["seconds"] / len(run["curve"]) / 60 for e in epochs], run["curve"], **style)
    for axis, label in ((by_epoch, "epoch"), (by_time, "minutes of training")):
        axis.axhline(teacher, color="grey", linestyle=":", label="teacher")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    by_epoch.set_ylabel("mAP50-95 on val")
    figure.legend(*by_epoch.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8)
    figure.savefig(RESULTS / f"real_run_{name}.png", dpi=110)


if __name__ == "__main__":
    sys.exit(main())
