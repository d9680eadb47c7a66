"""Which student class is which teacher class: by name, never by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from yolo_kd.data.split import normalise
from yolo_kd.distillers.base import ClassMap
from yolo_kd.errors import MisuseError

FEW = 8  # names in a message
MANY = 100  # names of each kind in the log, enough for COCO; preflight.json has them all


def match(
    student: Mapping[int, str], teacher: Mapping[int, str], wanted: Iterable[int] | int | None = None
) -> ClassMap:
    """Pair the classes that both lists name; the first of several equal names counts.

    Args:
        student: Student class id to name (the data set's list).
        teacher: Teacher class id to name.
        wanted: Student class ids to train on (Ultralytics' `classes=`); all if None.

    >>> m = match({0: "car", 1: "van", 2: "Person"}, {0: "person", 2: "car"})
    >>> m.student.tolist(), m.teacher.tolist()
    ([0, 2], [2, 0])
    """
    known: dict[str, int] = {}
    for index, name in teacher.items():
        known.setdefault(normalise(name), index)
    chosen = set(student) if wanted is None else {wanted} if isinstance(wanted, int) else set(wanted)
    pairs = [(i, known[normalise(name)]) for i, name in student.items() if i in chosen and normalise(name) in known]
    return ClassMap(
        torch.tensor([s for s, _ in pairs], dtype=torch.long), torch.tensor([t for _, t in pairs], dtype=torch.long)
    )


def check_ids(wanted: Any, names: Mapping[int, str] | None) -> None:
    """Refuse a `classes=` that would leave every box out, or some that were meant.

    Args:
        wanted: What was given; nothing is chosen if None.
        names: Class id to name; None where they are not known yet.

    Raises:
        MisuseError: No list of class ids, or one that there is not.
    """
    if wanted is None:
        return
    ids = wanted if isinstance(wanted, list | tuple) else [wanted]
    if not ids or any(type(i) is not int for i in ids):
        raise MisuseError(f"classes={wanted}: expected class ids, e.g. classes=0,2")
    if names is not None and (strange := [i for i in ids if i not in names]):
        known = _listed([f"{i} {name}" for i, name in names.items()], FEW)
        raise MisuseError(f"classes={','.join(map(str, strange))}: no such class; expected ids of {known}")


def compare(student: Mapping[int, str], teacher: Mapping[int, str], shared: ClassMap) -> dict[str, list[str]]:
    """Every name: those that are "shared", and those of "student" and "teacher" only."""
    known, knows = set(shared.student.tolist()), set(shared.teacher.tolist())
    return {
        "shared": [student[i] for i in shared.student.tolist()],
        "student": [n for i, n in student.items() if i not in known],
        "teacher": [n for i, n in teacher.items() if i not in knows],
    }


def describe(student: Mapping[int, str], teacher: Mapping[int, str], shared: ClassMap) -> str:
    """One line: what is shared, what only one of the two knows."""
    found = compare(student, teacher, shared)
    kinds = {"student": "only the student's, learnt from labels", "teacher": "only the teacher's, ignored"}
    parts = [f"{len(found['shared'])} shared ({_listed(found['shared'], MANY)})"]
    parts += [f"{len(found[k])} {what} ({_listed(found[k], MANY)})" for k, what in kinds.items() if found[k]]
    return "classes: " + "; ".join(parts)


def require_shared(
    student: Mapping[int, str], teacher: Mapping[int, str], shared: ClassMap, source: object = ""
) -> None:
    """Refuse a pair without a shared class; `source` is the teacher's file.

    Raises:
        MisuseError: Nothing is shared.
    """
    if shared.shared == 0:
        raise MisuseError(
            f"teacher={source}: none of its classes ({_listed(list(teacher.values()), FEW)}) is in the data "
            f"({_listed(list(student.values()), FEW)}); "
            "names are compared: rename them in data.yaml, or fine-tune the teacher on this data first"
        )


def _listed(names: list[str], limit: int) -> str:
    more = f", ... {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more
