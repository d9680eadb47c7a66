"""From a recipe to distillers and their terms: which scalar, with which gain, acting where."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch

from yolo_kd import distillers
from yolo_kd.cfg.settings import Recipe
from yolo_kd.cfg.values import like_default
from yolo_kd.distillers.base import ClassMap, Distiller, HeadSpec
from yolo_kd.distillers.readers import unread
from yolo_kd.errors import GateError, MisuseError, did_you_mean

AUTO = "auto:"


@dataclass
class Term:
    """One scalar of one distiller, with its gain.

    Args:
        method: Name of the distiller.
        name: Name of the term in it.
        column: Name in results.csv and the progress line.
        acts_on: "neck", "scores", "boxes" or "towers".
        share: Wanted ratio of this term's gradient norm to the detection loss's at `acts_on`; None for a fixed gain.
        gain: What the term is multiplied by; for an auto gain, the value so far.
        fixed: Whether the gain no longer changes.
    """

    method: str
    name: str
    column: str
    acts_on: str
    share: float | None = None
    gain: float = 0.0
    fixed: bool = True
    ratios: list[float] = field(default_factory=list)
    epoch_ratios: list[float] = field(default_factory=list)

    @property
    def key(self) -> str:
        """`method.term`, as the user writes it."""
        return f"{self.method}.{self.name}"

    @property
    def watched(self) -> bool:
        """Whether the term is only measured: a gain of 0."""
        return self.fixed and self.gain == 0.0

    def share_at(self, factor: float) -> float:
        """This epoch's median ratio of the weighted term's gradient to the detection loss's; nan if none was seen."""
        if factor == 0.0:
            return 0.0
        return self.gain * factor / median(self.epoch_ratios) if self.epoch_ratios else float("nan")

    def observe(self, term_norm: float, detection_norm: float) -> None:
        """Note one batch's gradient norms at gain 1; a provisional auto gain follows their median."""
        ratio = detection_norm / term_norm if term_norm > 0 else 0.0
        if not 0.0 < ratio < math.inf:  # a batch without objects, or a half-precision overflow, says nothing
            return
        self.epoch_ratios.append(ratio)
        if self.fixed:
            return
        self.ratios.append(ratio)
        assert self.share is not None
        self.gain = self.share * median(self.ratios)


@dataclass(frozen=True)
class Method:
    """A distiller and those of its terms that the recipe wants and the heads allow."""

    name: str
    distiller: Distiller
    terms: tuple[Term, ...]


def check_arguments(recipe: Recipe) -> None:
    """Refuse methods, arguments and gains that do not exist or are of another type, before anything is loaded.

    Raises:
        MisuseError: One of them, with the nearest that does or what it should be.
    """
    for name, settings in recipe.methods.items():
        kind, known = distillers.load(name), distillers.arguments(name)
        for key, value in settings.items():
            if key in kind.terms:
                if value is not None:
                    make_term(kind, name, key, value)
            elif key not in known:
                near = did_you_mean(key, [*known, *kind.terms])
                listed = ", ".join([*kind.terms, *known])
                raise MisuseError(f"{name}.{key}={value}: {name} has no argument '{key}'{near}; it has {listed}")
            else:
                like_default(f"{name}.{key}", value, known[key])
        if not any(term in settings for term in kind.terms):
            raise MisuseError(
                f"distill={recipe.name}: {name} has no gain, so it would not run; expected one of "
                f"{', '.join(kind.terms)}, e.g. {kind.terms[0]}: auto:0.5, or {name} left out"
            )


def build_methods(
    recipe: Recipe,
    student: HeadSpec,
    teacher: HeadSpec,
    classes: ClassMap,
    log: Callable[[str], None],
    fixed_gains: Mapping[str, float] | None = None,
    seed: int = 0,
    labels: bool = True,
) -> list[Method]:
    """The distillers of a recipe. The global random states stay as they are.

    Args:
        recipe: Methods with gains and arguments mixed by key.
        student: The student's head, cut to the shared levels.
        teacher: The teacher's head, cut likewise.
        classes: Shared classes.
        log: Told about every term that is off and every argument that changes nothing, with the reason.
        fixed_gains: Calibrated gains by `method.term`, of the run that is resumed.
        seed: Of what a distiller draws (initial weights), unless the recipe gives it a `seed` of its own.
        labels: Whether there are labelled pictures to fit on.

    Raises:
        MisuseError: Unknown method or argument, a method without a gain, a gain that is no number and no auto:SHARE, or no
            term left.
    """
    check_arguments(recipe)
    methods = []
    for name, settings in recipe.methods.items():
        for line in unread(name, settings).values():
            log(f"WARNING {line}")
        kind = distillers.load(name)
        args = {"seed": seed} if "seed" in distillers.arguments(name) else {}
        args |= {k: v for k, v in settings.items() if k not in kind.terms}
        terms = [
            make_term(kind, name, term, settings[term], (fixed_gains or {}).get(f"{name}.{term}"))
            for term in kind.terms
            if settings.get(term) is not None
        ]
        distiller = kind(student, teacher, classes, **args)
        off = distiller.off()
        if distiller.needs_fit and not labels:
            off = dict.fromkeys(kind.terms, "it is fitted on labels, and there is no labelled training picture") | off
        for wanted in kind.terms:
            if wanted in settings and settings[wanted] is None:
                log(f"{name}.{wanted} is off: its gain is none")
        for term in terms:
            if term.name in off:
                log(f"{term.key} is off: {off[term.name]}")
        terms = [replace(t, acts_on=distiller.where(t.name)) for t in terms if t.name not in off]
        if terms:
            distiller.select(t.name for t in terms)
            for note in distiller.notes():
                log(note)
            for argument, reason in distiller.unread().items():
                if argument in settings:
                    log(f"WARNING {name}.{argument}={settings[argument]} changes nothing: {reason}")
            methods.append(Method(name, distiller, tuple(terms)))
    if recipe.methods and not methods:
        raise MisuseError(
            f"distill={recipe.name}: none of its terms can apply to this teacher and student; choose another"
        )
    return methods


def make_term(kind: type[Distiller], method: str, name: str, gain: Any, fixed_gain: float | None = None) -> Term:
    """A term from the gain that the user wrote: a number >= 0 or "auto:SHARE".

    Raises:
        MisuseError: Neither.
    """
    term = Term(method, name, kind.columns.get(name, f"{name}_loss"), kind.acts_on[name])
    if isinstance(gain, str) and gain.startswith(AUTO):
        try:
            share = float(gain[len(AUTO) :])
        except ValueError:
            share = -1.0
        if 0 < share < math.inf:
            term.share, term.fixed = share, False
            if fixed_gain is not None:
                term.gain, term.fixed = fixed_gain, True
            return term
    elif isinstance(gain, (int, float)) and not isinstance(gain, bool) and 0 <= gain < math.inf:
        term.gain = float(gain)
        return term
    raise MisuseError(
        f"{method}.{name}={gain}: expected a gain of 0 or more, or auto:SHARE, e.g. {method}.{name}=auto:0.5"
    )


def refuse_idle(methods: list[Method], force: bool, log: Callable[[str], None]) -> None:
    """Say which terms are only watched, and refuse a distillation that has no others.

    Raises:
        GateError: Every gain is 0, and there is no `force`.
    """
    terms = [t for m in methods for t in m.terms]
    watched = [t.key for t in terms if t.watched]
    for key in watched:
        log(f"{key} is only watched: its gain is 0, so it is measured and teaches nothing")
    if len(watched) < len(terms):
        return
    reason = f"{', '.join(watched)}: every gain is 0, so the teacher would run and teach nothing"
    if not force:
        raise GateError(
            f"{reason}; give one a gain above 0, e.g. {watched[0]}=auto:0.5, or use distill=none or force=true"
        )
    log(f"WARNING forced: {reason}")


def adapter_parameters(methods: list[Method]) -> list[torch.nn.Parameter]:
    """Every trainable parameter of the distillers, in a fixed order."""
    return [p for m in methods for p in m.distiller.parameters() if p.requires_grad]
