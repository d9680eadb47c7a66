"""The settings of a run: from the keys that a user mixed, from those that travelled to a worker, or from the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from yolo_kd.cfg.documents import read_mapping
from yolo_kd.cfg.settings import DistillSettings, changed_on_resume, is_ours, resolve
from yolo_kd.engine import ultra
from yolo_kd.errors import MisuseError

SETTINGS_FILE = "kd.yaml"
FOR_METHODS = (
    "schedule", "until", "teacher_every", "teacher_engine", "teacher_compile", "max_feature_error", "max_score_error",
    "calibration_images", "calibrate_batches",
)  # fmt: skip
FOR_TEACHER = ("teacher", "teacher_floor")  # read where it only makes pseudo-labels, too
GIVEN = "teacher_given"  # beside the settings that travel: whether the user named the teacher, and may mean another one


def split_keys(overrides: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ultralytics' keys and ours; `kd` is our settings as they travel to multi-GPU workers."""
    ours = {k: v for k, v in overrides.items() if k == "kd" or is_ours(k, v)}
    return ultra.current_keys({k: v for k, v in overrides.items() if k not in ours}), ours


def resolve_travelled(ours: dict[str, Any]) -> DistillSettings:
    """Settings from user keys, or from the dict that a worker was handed."""
    return _travelled(ours) if "kd" in ours else resolve(ours)


def resumed_settings(run: Path, ours: dict[str, Any]) -> DistillSettings:
    """The settings of the run that is resumed; `teacher=` and switches given now win.

    Trust is not among what they hold: it is for whoever resumes to give, and a run folder may come from elsewhere.

    Raises:
        MisuseError: The run folder has no kd.yaml, or one that is damaged, or a key may not change on resume.
    """
    if "kd" in ours:
        return _travelled(ours)
    path = run / SETTINGS_FILE
    if not path.exists():
        raise MisuseError(
            f"resume={run}: no {SETTINGS_FILE} there, so it is no run of yolo-kd; resume it with yolo train resume"
        )
    return changed_on_resume(replace(DistillSettings.from_dict(read_mapping("resume", path)), trust=False), ours)


def travelling(settings: DistillSettings, given: bool) -> dict[str, Any]:
    """What a worker is handed: the settings, and whether the user named the teacher."""
    return {**settings.to_dict(), GIVEN: given}


def teacher_given(ours: Mapping[str, Any]) -> bool:
    """Whether the user named the teacher, in this process or in the one that started it."""
    return "teacher" in ours or bool(ours.get("kd", {}).get(GIVEN))


def idle(settings: DistillSettings, given: Mapping[str, Any]) -> str:
    """A line on the keys that were given and that nothing reads where nothing is distilled; empty if there are none.

    They are no misuse: whoever compares recipes gives all of them the same keys, that of plain training too.
    """
    if settings.recipe.methods:
        return ""
    unread = FOR_METHODS if settings.pseudo_labels is not None else FOR_METHODS + FOR_TEACHER
    named = [f"{key}={given[key]}" for key in sorted(unread) if given.get(key) is not None]
    these = "this changes" if len(named) == 1 else "these change"
    return f"{', '.join(named)}: nothing is distilled (distill=none), so {these} nothing" if named else ""


def _travelled(ours: Mapping[str, Any]) -> DistillSettings:
    return DistillSettings.from_dict({k: v for k, v in ours["kd"].items() if k != GIVEN})


def require_teacher(settings: DistillSettings) -> None:
    """Refuse to go on without the teacher that taught so far.

    Raises:
        MisuseError: It is not where it was.
    """
    path = Path(settings.teacher or "")
    if settings.recipe.methods and path.is_absolute() and not path.exists():
        raise MisuseError(
            f"teacher={path}: this is the teacher of the resumed run, and no such file is there any more; put it back, or "
            f"name where it lies now: teacher=/new/place/{path.name}"
        )
