"""A finished or interrupted training, read from its folder: settings, epochs, teacher, pictures, artifacts, and what to
make of them in words.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolo_kd.cfg.documents import misfit, parse_json, parse_yaml
from yolo_kd.cfg.runs_folder import elsewhere
from yolo_kd.deploy.artifact import MANIFEST, Artifact, read_artifact
from yolo_kd.engine.history import RESULTS, History, read_history, wanted_shares
from yolo_kd.errors import MisuseError
from yolo_kd.evidence.summary import Summary

FINE, COARSE = "metrics/mAP50-95(B)", "metrics/mAP50(B)"
IDLE = 0.01  # gradient share below which a term hardly moves the student
ASTRAY = 3.0  # times the share asked for, or a third of it
PICTURE = "distill_maps.jpg"


@dataclass(frozen=True)
class Run:
    """What a run folder holds; what is not there is empty.

    Args:
        folder: The folder.
        history: Its epochs.
        settings: kd.yaml.
        args: args.yaml, Ultralytics' own.
        preflight: preflight.json: the teacher, its mAP and its engines.
        maps: distill_maps.jpg.
        artifacts: Exported and quantized models beside the weights.
        unreadable: A line for each artifact that cannot be read.
    """

    folder: Path
    history: History
    settings: Mapping[str, Any]
    args: Mapping[str, Any]
    preflight: Mapping[str, Any]
    maps: bytes
    artifacts: Sequence[Artifact] = ()
    unreadable: Sequence[str] = ()

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The recipe as it was resolved; without methods for a plain training."""
        return self.settings.get("recipe") or {"name": "none", "methods": {}}

    @property
    def planned(self) -> int:
        """Number of epochs that were asked for."""
        value = self.args.get("epochs")
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        return len(self.history.epochs)

    @property
    def best(self) -> int | None:
        """Index of the epoch with the highest mAP50-95; None if none was validated."""
        values = [(v, i) for i, v in enumerate(self.history.columns.get(FINE, ())) if math.isfinite(v)]
        return max(values, key=lambda pair: (pair[0], -pair[1]))[1] if values else None

    def teacher_map(self, key: str = "mAP50-95") -> float | None:
        """mAP of the teacher on the val split, as the pre-flight measured it."""
        value: Any = self.preflight
        for name in ("maps", "teacher", key):
            value = value.get(name) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        MisuseError: It is no folder of a training, or one of its files cannot be read.
    """
    if there := elsewhere(folder):
        raise MisuseError(f"run={folder}: no such folder{there}")
    if not (folder / RESULTS).is_file():
        raise MisuseError(
            f"run={folder}: no {RESULTS} there; expected the folder of a training, e.g. runs/detect/train"
        )
    artifacts, unreadable = [], []
    for manifest in sorted((folder / "weights").glob(f"*/{MANIFEST}")):
        try:
            artifacts.append(read_artifact(manifest.parent))
        except MisuseError as error:
            unreadable.append(str(error))
    picture = folder / PICTURE
    return Run(
        folder, read_history(folder / RESULTS), _mapping(folder / "kd.yaml", _KD), _mapping(folder / "args.yaml", {}),
        _mapping(folder / "preflight.json", _PREFLIGHT), picture.read_bytes() if picture.is_file() else b"", artifacts, unreadable,
    )  # fmt: skip


def summarise(run: Run) -> Summary:
    """What the run came to."""
    best, done = run.best, len(run.history.epochs)
    if best is None or done == 0:
        return Summary(False, "No epoch was validated: there is no mAP to report", _artifact_lines(run))
    fine, coarse = run.history.columns[FINE][best], run.history.columns.get(COARSE, [math.nan] * done)[best]
    epoch = run.history.epochs[best]
    heading = f"mAP50-95 {fine:.4f}, at epoch {epoch:.0f} of {run.planned}"
    figures = [(f"{fine:.4f}", "mAP50-95, best epoch"), (f"{coarse:.4f}", "mAP50, same epoch")]
    lines = []
    teacher = run.teacher_map()
    if run.recipe.get("methods"):
        name = Path(str(run.settings.get("teacher"))).name
        ran = f", which ran on {run.preflight['engine']}" if run.preflight.get("engine") else ""
        lines.append(f"Distilled with {run.recipe.get('name')} from {name}{ran}.")
        if teacher:
            lines.append(f"The teacher's mAP50-95 on the same pictures is {teacher:.4f}: {_against(fine, teacher)}.")
            figures.append((f"{100 * fine / teacher:.0f} %", f"of the teacher's {teacher:.4f}"))
        lines.append(
            "Whether distillation helped is not to be seen from one run: train with distill=none at the same budget, and "
            "with more than one seed."
        )
    else:
        lines.append("Trained without a teacher.")
    times = [t for t in run.history.columns.get("time", ()) if math.isfinite(t)]
    if times:
        figures.append((_duration(times[-1]), f"for {done} epoch{'s' if done > 1 else ''}"))
    rejected = any(a.verdict is not None and not a.verdict.passed for a in run.artifacts)
    good = fine > 0 and not _not_finite(run) and not rejected
    return Summary(good, heading, (*lines, *_artifact_lines(run)), tuple(figures))


def remarks(run: Run) -> list[str]:
    """What a reader must not miss."""
    found = []
    done, best = len(run.history.epochs), run.best
    if run.history.broken:
        found.append(f"{run.history.broken} lines of {RESULTS} could not be read and are left out.")
    if done < run.planned:
        found.append(f"{RESULTS} ends after {done} of {run.planned} epochs: stopped early, or not finished.")
    elif best is not None and best == done - 1 and done > 1:
        found.append("The best epoch is the last one: a longer training may go on improving.")
    found += [f"{name} was not finite in {count} of {done} epochs." for name, count in _not_finite(run).items()]
    fine, teacher = run.history.columns.get(FINE, []), run.teacher_map()
    if best is not None and teacher and fine[best] >= teacher:
        found.append("The student is as good as its teacher: there is little left to distil.")
    found += _idle_terms(run)
    if run.recipe.get("methods") and not run.maps:
        found.append(f"There is no {PICTURE}: it is drawn at the end of a training with plots=true.")
    return [*found, *run.unreadable]


def _idle_terms(run: Run) -> list[str]:
    """Terms whose gradient is next to nothing, or far from what was asked for, while the teacher ran."""
    wanted, found = wanted_shares(run.recipe.get("methods") or {}), []
    for key, values in run.history.group("share").items():
        on = [v for v in values if math.isfinite(v) and v > 0]
        if not on:
            found.append(f"{key} never acted: its gain is 0, or no gradient of it was seen.")
            continue
        middle = statistics.median(on)
        if middle < IDLE:
            found.append(f"{key} hardly acts: its gradient is {middle:.2g} of the detection loss's in the median.")
        elif key in wanted and not wanted[key] / ASTRAY <= middle <= wanted[key] * ASTRAY:
            found.append(f"{key} was asked for a gradient share of {wanted[key]:g} and had {middle:.2g} in the median.")
    return found


def _not_finite(run: Run) -> dict[str, int]:
    """Training losses and terms with epochs that are not finite, and in how many."""
    losses = {f"train/{name}": values for name, values in run.history.group("train").items()}
    counts = {name: sum(not math.isfinite(v) for v in values) for name, values in losses.items()}
    return {name: count for name, count in counts.items() if count}


def _artifact_lines(run: Run) -> tuple[str, ...]:
    lines = []
    for artifact in run.artifacts:
        verdict = artifact.verdict
        if verdict is None:
            lines.append(f"{artifact.folder.name} ({artifact.precision}) has not been judged by the gate.")
        elif verdict.passed:
            lines.append(f"{artifact.folder.name} ({artifact.precision}) passed the gate.")
        else:
            reason = verdict.reasons[0] if verdict.reasons else "no reason given"
            lines.append(f"{artifact.folder.name} ({artifact.precision}) was rejected by the gate: {reason}.")
    return tuple(lines)


def _against(student: float, teacher: float) -> str:
    return (
        f"the student reaches {100 * student / teacher:.0f} % of it" if student < teacher else "the student passes it"
    )


def _duration(seconds: float) -> str:
    """
    >>> _duration(59.6), _duration(754), _duration(36600)
    ('60 s', '13 min', '10 h 10 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


# What is looked at in these files: a type, the values by name ("*": all), or a list of such.
_KD = {"recipe": {"name": str, "schedule": str, "until": float, "methods": {"*": dict}}}
_PREFLIGHT = {"maps": {"*": dict}, "engines": [{"agreement": {"features": [object]}}]}


def _mapping(path: Path, shape: Mapping[str, Any]) -> dict[str, Any]:
    """A YAML or JSON file that holds names and values of a shape; empty where there is none."""
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8")
        found = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except (OSError, ValueError) as error:
        raise MisuseError(f"{path}: not readable ({' '.join(str(error).split())[:100]})") from None
    if not isinstance(found, dict):
        raise MisuseError(f"{path}: expected names and values, found {type(found).__name__}")
    found = {str(name): value for name, value in found.items()}
    wrong = misfit(found, shape)
    if wrong:
        raise MisuseError(
            f"{path}: {wrong} is not of the kind that a training writes; it was changed by hand or damaged"
        )
    return found
