"""A tenth of the labels and every picture: how much of what the missing labels cost do unlabeled pictures bring back?

    python -m benchmarks.unlabeled data=hituav/data_scene.yaml weights=yolov8n.pt out=runs/unlabeled
    python -m benchmarks.unlabeled data=hituav/data_scene.yaml teacher=best.pt teacher_labels="all labels" out=runs/unlabeled2

Arms: `few` is plain training on `share` of the labelled pictures (drawn from the whole list by `subset_seed`, blind to
scenes), `few_distilled` adds the teacher, `unlabeled` adds the other training pictures without their labels, `all` is
plain training on every label. What counts is (unlabeled - few) / (all - few); where `all` is hardly ahead of `few` there is
nothing to recover, the question has not been answered, and that is a missed bar too. An arm takes overrides after `+`, as
`unlabeled+pseudo_labels=.5`, and each unlabeled arm has its bar.

Every arm has the same number of epochs, batches an epoch, pictures a batch and optimizer steps: a list of few pictures
names each so often that an epoch is as long as that of `all`. So `few` sees its pictures `1 / share` times as often, and
no arm is ahead by steps; the teacher's time comes on top, in the column of seconds.

With `weights=` the teacher is fine-tuned on the few labels alone, so that no other label is used anywhere: that is the
case of somebody who has no more. With `teacher=` it is given, and `teacher_labels=` says what it has seen. One that was
trained on all labels hands on what it knows from the missing ones: a different question, and the table says which.

Seeds train side by side on their own shares of the cores; what is finished is kept. Time is processor time by cores, as
in real_run.py. Checkpoints are chosen on val; test is looked at once, at the end.
"""

from __future__ import annotations

import math
import random
import re
import statistics
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from yolo_kd.data.split import read_split

from benchmarks.inputs import listed, private_copy
from benchmarks.machine import quiet
from benchmarks.real_run import _given, _read, _run, _shares, _test
from benchmarks.result import RESULTS, Bar, bar, command_line, write
from yolo_kd.cli import parse

DEFAULTS: dict[str, Any] = {
    "data": None,
    "weights": None,
    "teacher": None,
    "teacher_labels": "unknown labels",
    "out": "runs/unlabeled",
    "results": str(RESULTS),
    "name": "hituav",
    "student": "yolov8n.yaml",
    "arms": "few,unlabeled,unlabeled+pseudo_labels=.5,all",
    "distill": "csgr_lqe",
    "share": 0.1,
    "ratio": 0.5,
    "subset_seed": 0,
    "seeds": "0,1",
    "epochs": 14,
    "teacher_epochs": 12,
    "imgsz": 320,
    "batch": 16,
    "lr0": 0.002,
    "force": False,
}
KINDS = ("few", "few_distilled", "unlabeled", "all")
CLOSE_MOSAIC = 3
HALF = 0.5
GAP = 0.01  # mAP50-95 that all labels must be ahead: seeds differ by as much, and half of noise is no recovery


def main() -> int:
    """Train what is missing, then write table, bars and plot."""
    keys: dict[str, Any] = {**DEFAULTS, **parse(sys.argv[1:])}
    if not keys["data"] or not (keys["weights"] or keys["teacher"]):
        print("unlabeled: expected data=<yaml>, and weights=<pretrained .pt> or teacher=<trained .pt>", file=sys.stderr)
        return 2
    arms = listed(keys["arms"])
    strange = [arm for arm in arms if arm.split("+")[0] not in KINDS]
    if strange:
        print(f"unlabeled: no arm {strange[0]}; expected {', '.join(KINDS)}, with overrides after +", file=sys.stderr)
        return 2
    notes = quiet()
    out, source = Path(keys["out"]).resolve() / keys["name"], Path(keys["data"]).resolve()
    out.mkdir(parents=True, exist_ok=True)
    seeds = [int(s) for s in listed(keys["seeds"])]
    shares = _shares(len(seeds))
    data = private_copy(source, out / "data")
    teacher = _given(Path(keys["teacher"]), out) if keys["teacher"] else _teacher(keys, data, out, _shares(1)[0])
    copies = [private_copy(source, out / f"data-s{seed}") for seed in seeds]  # Ultralytics writes caches into them
    with ThreadPoolExecutor(len(shares)) as lanes:
        jobs = [
            lanes.submit(_lane, arms, seed, keys, copies[i], teacher, out, shares[i % len(shares)])
            for i, seed in enumerate(seeds)
        ]
    for job in jobs:
        job.result()
    return _report(keys, out, data, teacher, arms, seeds, notes)


def parts(images: list[Path], share: float, seed: int) -> tuple[list[Path], list[Path]]:
    """The pictures that keep their labels, and the others; scenes and order play no part.

    >>> few, rest = parts([Path(f"{i}.jpg") for i in range(10)], 0.2, 0)
    >>> len(few), len(rest), set(few) & set(rest)
    (2, 8, set())
    """
    kept = set(random.Random(seed).sample(sorted(images), max(round(share * len(images)), 1)))  # noqa: S311
    return [image for image in images if image in kept], [image for image in images if image not in kept]


def repeated(few: list[Path], batches: int, labelled: int) -> list[Path]:
    """The few pictures named so often that they fill so many batches of so many.

    >>> [path.name for path in repeated([Path("a"), Path("b")], batches=2, labelled=2)]
    ['a', 'b', 'a', 'b']
    """
    return [few[i % len(few)] for i in range(batches * labelled)]


def _lists(data: Path, keys: dict[str, Any], ratio: float | None) -> tuple[Path, Path, dict[str, int]]:
    """A data.yaml of the few pictures and a list of the others, in the private copy, and how many there are.

    Args:
        data: The data.yaml of all labels.
        keys: The benchmark's.
        ratio: Share of a batch that is unlabeled; None where none is.
    """
    images, batch = list(read_split(data, "train").images), int(keys["batch"])
    few, rest = parts(images, float(keys["share"]), int(keys["subset_seed"]))
    labelled = batch - (0 if ratio is None else min(max(round(ratio * batch), 1), batch - 1))
    name = f"few{labelled}"
    texts = {f"{name}.txt": repeated(few, math.ceil(len(images) / batch), labelled), "rest.txt": rest}
    for file, named in texts.items():
        data.with_name(file).write_text("".join(f"{path.absolute()}\n" for path in named), encoding="utf-8")
    described = yaml.safe_load(data.read_text(encoding="utf-8")) | {"train": str(data.with_name(f"{name}.txt"))}
    data.with_name(f"{name}.yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    counts = {
        "labelled": len(few),
        "unlabeled": len(rest),
        "all": len(images),
        "batches": math.ceil(len(images) / batch),
    }
    return data.with_name(f"{name}.yaml"), data.with_name("rest.txt"), counts


def _teacher(keys: dict[str, Any], data: Path, out: Path, share: set[int]) -> Path:
    """The weights fine-tuned on the few labels."""
    few, _, _ = _lists(data, keys, None)
    run = out / "teacher"
    words = ["distill=none", f"student={Path(keys['weights']).resolve()}", "cos_lr=True", "lrf=0.02", "lr0=0.0002"]
    words += [f"epochs={keys['teacher_epochs']}", "seed=0", f"data={few}"]
    _run(run, _command(words, keys, run), {"arm": "teacher", "seed": 0}, share)
    return run / "weights" / "best.pt"


def _lane(
    arms: list[str], seed: int, keys: dict[str, Any], data: Path, teacher: Path, out: Path, share: set[int]
) -> None:
    """All arms of one seed, one after the other."""
    for index, arm in enumerate(arms):
        print(f"seed {seed}: {arm} ({index + 1}/{len(arms)})", flush=True)
        run = _folder(out, arm, seed)
        words = [*_words(arm, keys, data, teacher), f"seed={seed}"]
        _run(run, _command(words, keys, run), {"arm": arm, "seed": seed, "epochs": int(keys["epochs"])}, share)


def _words(arm: str, keys: dict[str, Any], data: Path, teacher: Path) -> list[str]:
    """What sets an arm apart."""
    kind, *overrides = arm.split("+")
    common = [f"student={keys['student']}", f"epochs={keys['epochs']}", f"lr0={keys['lr0']}"]
    taught = [f"distill={keys['distill']}", f"teacher={teacher}", *(["force=true"] if keys["force"] else [])]
    if kind == "all":
        return ["distill=none", f"data={data}", *common, *overrides]
    if kind == "few":
        return ["distill=none", f"data={_lists(data, keys, None)[0]}", *common, *overrides]
    if kind == "few_distilled":
        return [*taught, f"data={_lists(data, keys, None)[0]}", *common, *overrides]
    given = parse([f"unlabeled_ratio={keys['ratio']}", *overrides])
    few, rest, _ = _lists(data, keys, float(str(given["unlabeled_ratio"])))
    return [*taught, f"data={few}", f"unlabeled={rest}", f"unlabeled_ratio={keys['ratio']}", *common, *overrides]


def _command(words: list[str], keys: dict[str, Any], run: Path) -> list[str]:
    return [
        sys.executable, "-m", "yolo_kd.cli", "train", *words, f"imgsz={keys['imgsz']}", f"batch={keys['batch']}",
        f"nbs={keys['batch']}", "optimizer=AdamW", "cache=ram", f"close_mosaic={CLOSE_MOSAIC}", "warmup_epochs=1",
        "plots=False", f"project={run.parent}", f"name={run.name}", "exist_ok=True",
    ]  # fmt: skip


def _folder(out: Path, arm: str, seed: int) -> Path:
    return out / f"{re.sub(r'[^a-z0-9_+-]', '_', arm)}-s{seed}"


def _report(
    keys: dict[str, Any], out: Path, data: Path, teacher: Path, arms: list[str], seeds: list[int], notes: list[str]
) -> int:
    size, splits = int(keys["imgsz"]), ["val", "test"] if "test:" in data.read_text(encoding="utf-8") else ["val"]
    _, _, counts = _lists(data, keys, None)
    scores = {a: {s: [_test(_folder(out, a, n), data, size, s) for n in seeds] for s in splits} for a in arms}
    mean = {arm: {split: statistics.mean(found) for split, found in by.items()} for arm, by in scores.items()}
    own = {f"{split} mAP50-95": _test(teacher.parents[1], data, size, split) for split in splits}
    rows: list[dict[str, Any]] = [{"arm": f"teacher ({_taught(keys)})", **own}]
    for arm in arms:
        facts = [_read(_folder(out, arm, seed)) for seed in seeds]
        row: dict[str, Any] = {
            "arm": arm,
            "labelled": counts["all" if arm.startswith("all") else "labelled"],
            "unlabeled": counts["unlabeled"] if arm.startswith("unlabeled") else 0,
            "epochs": facts[0]["epochs"],
            "steps": facts[0]["epochs"] * counts["batches"],
            "seconds": statistics.mean(f["seconds"] for f in facts),
        }
        for split in splits:
            row[f"{split} mAP50-95"] = mean[arm][split]
            row[f"{split} by seed"] = ", ".join(f"{value:.4f}" for value in scores[arm][split])
            recovered = _recovered(mean, arm, split)
            if recovered is not None:
                row[f"{split} gap recovered"] = recovered
        row["val by epoch"] = " ".join(f"{statistics.mean(c):.3f}" for c in zip(*(f["curve"] for f in facts)))
        rows.append(row)
    results, name = Path(keys["results"]), f"unlabeled_{keys['name']}"
    said = [
        f"labels of {counts['labelled']} of {counts['all']} training pictures (subset_seed={keys['subset_seed']}); the teacher "
        f"was trained on {_taught(keys)}",
        "equal epochs, batches an epoch, pictures a batch and optimizer steps in every arm; few pictures are named repeatedly",
    ]
    write(name, command_line(), rows, _bars(mean, splits), notes=[*notes, *said], folder=results)
    _plot(results / f"{name}.png", out, arms, seeds)
    return 0


def _taught(keys: dict[str, Any]) -> str:
    return str(keys["teacher_labels"]) if keys["teacher"] else "the same few labels"


def _recovered(mean: dict[str, dict[str, float]], arm: str, split: str) -> float | None:
    """Share of the distance from `few` to `all`; None where there is none."""
    if not {"few", "all"} <= set(mean):
        return None
    few, everything = mean["few"][split], mean["all"][split]
    return (mean[arm][split] - few) / (everything - few) if everything > few else None


def _bars(mean: dict[str, dict[str, float]], splits: list[str]) -> list[Bar]:
    """Of each split what each unlabeled arm recovered, or that there was too small a gap to tell."""
    bars = []
    unlabeled = [arm for arm in mean if arm.split("+")[0] == "unlabeled"]
    for split in splits if unlabeled and {"few", "all"} <= set(mean) else []:
        gap = mean["all"][split] - mean["few"][split]
        if gap < GAP:
            bars.append(bar(f"all labels ahead of the few, else there is no gap to recover ({split})", gap, GAP, ">="))
            continue
        for arm in unlabeled:
            recovered = (mean[arm][split] - mean["few"][split]) / gap
            bars.append(bar(f"{arm} recovers of the gap from few to all labels ({split})", recovered, HALF, ">="))
    return bars


def _plot(path: Path, out: Path, arms: list[str], seeds: list[int]) -> None:
    """mAP50-95 on val over the epochs, which are equally long for all."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4))
    for index, arm in enumerate(arms):
        for seed in seeds:
            curve = _read(_folder(out, arm, seed))["curve"]
            label = arm if seed == seeds[0] else None
            axis.plot(range(1, len(curve) + 1), curve, color=f"C{index}", label=label, alpha=0.8)
    axis.set_xlabel("epoch")
    axis.set_ylabel("mAP50-95 on val")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
