"""What cannot work with this teacher, student, recipe and data, found before a run folder is made for it.

The trainer builds the same once more from its own objects; here everything is built from the files, and thrown away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from yolo_kd.cfg.settings import DistillSettings
from yolo_kd.engine import classes as class_lists
from yolo_kd.engine import ultra
from yolo_kd.engine.heads import common_levels, cut_spec
from yolo_kd.engine.rng import preserved_rng
from yolo_kd.engine.terms import build_methods, refuse_idle


def check_pair(
    settings: DistillSettings,
    student: str,
    teacher: nn.Module,
    names: Mapping[int, str] | None,
    wanted: Iterable[int] | int | None = None,
) -> None:
    """Match classes and levels, and build the distillers with their arguments.

    Args:
        settings: With a recipe and a teacher.
        student: A .yaml or .pt that is known to be a detection model.
        teacher: The loaded checkpoint.
        names: Classes of the data; None where they are not known yet, as of an archive.
        wanted: Class ids to train on; all if None.

    Raises:
        MisuseError: No shared class or level, an argument of a method that it does not take, or no term that can apply.
        GateError: Every gain is 0, and there is no `force`.
    """
    spec, known = ultra.head_spec(teacher), ultra.class_names(teacher)
    names = known if names is None else names
    shared = class_lists.match(names, known, wanted)
    class_lists.require_shared(names, known, shared, settings.teacher)
    with preserved_rng(0):
        if student.endswith(".pt"):
            net = ultra.load_detector(student, "student", settings.trust)
        else:
            net = ultra.DetectionModel(student, nc=len(names), verbose=False)
    own = ultra.head_spec(net)
    strides = common_levels(own, spec, settings.teacher)
    methods = build_methods(settings.recipe, cut_spec(own, strides), cut_spec(spec, strides), shared, _nowhere)
    refuse_idle(methods, settings.force, _nowhere)


def _nowhere(line: str) -> None:
    """The trainer says it where it counts."""
