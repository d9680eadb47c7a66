"""The checks before the first step: is there something to learn, and does it arrive?

Three times over a distillation can silently do nothing: the teacher knows nothing about this data, the student already
knows as much, or the terms are 0. The first two are measured here, the third by the criterion on the first batch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from yolo_kd.cfg.atomic import write_text
from yolo_kd.cfg.documents import misfit, parse_json
from yolo_kd.deploy.artifact import sha256
from yolo_kd.distillers.base import ClassMap, HeadOutput
from yolo_kd.engine import classes as class_lists
from yolo_kd.engine import ultra
from yolo_kd.engine.evaluation import evaluate
from yolo_kd.engine.ranks import from_first_rank
from yolo_kd.engine.teacher import Teacher
from yolo_kd.errors import GateError, MisuseError

REPORT = "preflight.json"
READ = {"teacher_sha256": str, "engine": str}  # what a resumed run goes by
MARGIN = 0.002  # mAP50-95 that half precision may move; a smaller lead is none


def check_channels(teacher: Teacher, channels: int) -> None:
    """Refuse a teacher for other images.

    Raises:
        MisuseError: The teacher takes images of another number of channels than the data has.
    """
    if teacher.channels != channels:
        raise MisuseError(
            f"teacher={teacher.path.name}: takes {teacher.channels}-channel images, the data has {channels}; "
            "choose a teacher trained on such images, or set 'channels' in data.yaml"
        )


def describe(teacher: Teacher, student: Any, names: dict[int, str], shared: ClassMap) -> list[str]:
    """Lines on the pair: size, strides, reg_max, classes."""
    spec, own = teacher.full_spec, ultra.head_spec(student)
    params = sum(p.numel() for p in student.parameters())
    return [
        f"teacher {teacher.path.name} ({teacher.parameters / 1e6:.1f} M parameters, sha256 {teacher.sha256[:12]}) "
        f"-> student ({params / 1e6:.1f} M)",
        f"strides {spec.strides} -> {own.strides}, shared {teacher.strides}; reg_max {spec.reg_max} -> {own.reg_max}; "
        f"neck {spec.channels} -> {own.channels}",
        class_lists.describe(names, teacher.names, shared),
    ]


def measure(trainer: Any, teacher: Teacher, shared: ClassMap, pretrained: bool) -> dict[str, dict[str, float]]:
    """mAP of the teacher, and of a pretrained student as it starts, on the val split.

    Returns:
        {"teacher": {"mAP50", "mAP50-95"}} and, if pretrained, "student"; the same on every rank.
    """
    teacher_map = evaluate(trainer, _full_output(teacher), teacher.full_spec, shared, "teacher on val")
    found: dict[str, Any] = {"teacher": teacher_map}
    if pretrained:
        student = ultra.unwrap_model(trainer.ema.ema).eval()
        own = ClassMap(shared.student, shared.student)
        found["student"] = evaluate(
            trainer, lambda img: ultra.read_outputs(student(img)), ultra.head_spec(student), own, "student on val"
        )
    return from_first_rank(found)


def decide(maps: dict[str, dict[str, float]], floor: float) -> str | None:
    """Why this teacher should not teach, or None. A pure function of the measured numbers.

    >>> decide({"teacher": {"mAP50": 0.5, "mAP50-95": 0.3}}, 0.05) is None
    True
    """
    teacher = maps["teacher"]
    if teacher["mAP50"] < floor:
        return (
            f"its mAP50 on the val split is {teacher['mAP50']:.4f}, below teacher_floor={floor:g}: it knows too little about "
            "this data. Fine-tune it here first (yolo-kd train student=<teacher>.pt distill=none data=...)"
        )
    student = maps.get("student")
    if student and teacher["mAP50-95"] <= student["mAP50-95"] + MARGIN:
        return (
            f"its mAP50-95 on the val split is {teacher['mAP50-95']:.4f}, the pretrained student starts at "
            f"{student['mAP50-95']:.4f}: there is nothing to learn from it. Choose a better teacher or fine-tune this one"
        )
    return None


def refuse_or_go_on(teacher: Teacher, reason: str | None, force: bool, log: Callable[[str], None]) -> None:
    """Raise for a refused teacher, or log that it was forced.

    Raises:
        GateError: There is a reason and no `force`.
    """
    if reason is None:
        return
    if not force:
        raise GateError(f"teacher={teacher.path.name}: {reason}; or force=true")
    log(f"WARNING forced past the pre-flight: teacher={teacher.path.name}: {reason}")


def same_file(student: Any, teacher: Teacher) -> bool:
    """Whether the student starts from the teacher's own checkpoint."""
    path = Path(str(student))
    return path.suffix == ".pt" and path.exists() and sha256(path) == teacher.sha256


def save_report(folder: Path, report: dict[str, Any]) -> None:
    """Write preflight.json into the run folder, atomically."""
    write_text(folder / REPORT, json.dumps(report, indent=2) + "\n", "project")


def load_report(folder: Path, sha256: str) -> dict[str, Any] | None:
    """The report of the run that is resumed, if it is about the same teacher.

    Raises:
        MisuseError: It is damaged: measured anew, another engine may win, and the run would end otherwise.
    """
    path = folder / REPORT
    if not path.exists():
        return None
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
        wrong = "" if isinstance(report, dict) else f"a {type(report).__name__} for names and values"
        wrong = wrong or misfit(report, READ)
    except (OSError, ValueError) as error:
        report, wrong = {}, " ".join(str(error).split())[:100]
    if wrong:
        raise MisuseError(
            f"{path}: no report as a run writes it ({wrong}); put it back, or delete it to have the teacher measured anew"
        )
    return report if report.get("teacher_sha256") == sha256 else None


def _full_output(teacher: Teacher) -> Callable[[Any], HeadOutput]:
    return lambda img: teacher.net.unflatten(list(teacher.engine(img)))
