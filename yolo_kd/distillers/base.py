"""What a distiller receives and what it returns.

A distiller is one published method: it turns the raw head outputs of student and teacher into one scalar per *term*.
It never calls a model, reads a config or imports Ultralytics; the engine hands everything in, and multiplies the
scalars by gain, schedule and batch size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from yolo_kd.distillers.readers import Reader
from yolo_kd.errors import MisuseError, YoloKDError, did_you_mean

ONE2MANY = "one2many"
ONE2ONE = "one2one"


@dataclass(frozen=True)
class HeadSpec:
    """The static facts of a detection head, student and teacher already cut to the levels that they share.

    Args:
        channels: Width of each neck map that enters the head, finest level first.
        strides: Pixels per cell of each level.
        reg_max: DFL bins per box side; 1 means that the head regresses distances directly.
        nc: Number of classes.
        towers: Width of each classification tower before its last 1x1 convolution.
        dual: Whether the head has a one-to-one branch beside the one-to-many branch (v10, 26).
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    reg_max: int
    nc: int
    towers: tuple[int, ...]
    dual: bool = False


@dataclass(frozen=True)
class Branch:
    """Raw outputs of one head branch; A cells of all levels concatenated, finest level first, row-major.

    Args:
        boxes: (B, 4 * reg_max, A) DFL logits in the order left, top, right, bottom, bins contiguous per side;
            distances in stride units when reg_max is 1.
        scores: (B, nc, A) class logits.
    """

    boxes: Tensor
    scores: Tensor


@dataclass(frozen=True)
class HeadOutput:
    """One view on the outputs of every family.

    Args:
        feats: Neck maps (B, C_l, H_l, W_l), finest level first.
        branches: "one2many" always, "one2one" for dual heads.
        towers: Classification tower maps (B, C, H_l, W_l), empty unless a distiller asked for them.
        branch_weights: Share of each branch in the student's own detection loss; sums to 1.
    """

    feats: tuple[Tensor, ...]
    branches: Mapping[str, Branch]
    towers: tuple[Tensor, ...] = ()
    branch_weights: Mapping[str, float] = field(default_factory=lambda: {ONE2MANY: 1.0})

    def branch(self, name: str) -> Branch:
        """The branch of that name or, for a head with one branch only, that one."""
        return self.branches.get(name) or next(iter(self.branches.values()))

    @property
    def sizes_hw(self) -> tuple[tuple[int, int], ...]:
        """Height and width in cells of each level."""
        return tuple((f.shape[2], f.shape[3]) for f in self.feats)


@dataclass(frozen=True)
class ClassMap:
    """Which student class is which teacher class; both index tensors have one entry per shared name.

    >>> import torch
    >>> ClassMap(torch.tensor([0, 2]), torch.tensor([5, 1])).shared
    2
    """

    student: Tensor
    teacher: Tensor

    @property
    def shared(self) -> int:
        """Number of shared classes."""
        return int(self.student.numel())


@dataclass(frozen=True)
class Targets:
    """Labels of the batch after augmentation; M objects in all.

    Args:
        boxes_xywhn: (M, 4) centre x, centre y, width, height as shares of the picture.
        classes: (M,) student class ids.
        image: (M,) index of the image in the batch.
        labelled: Images that have labels, the first ones; all if None. Boxes of others are the teacher's detections.
    """

    boxes_xywhn: Tensor
    classes: Tensor
    image: Tensor
    labelled: int | None = None


def pair_branches(student: HeadOutput, teacher: HeadOutput) -> Iterator[tuple[Branch, Branch, float]]:
    """Each student branch with the teacher's same branch (or its only one) and its share in the student's loss."""
    for name, branch in student.branches.items():
        if name not in student.branch_weights:
            raise YoloKDError(
                f"expected a weight for every branch of the student, got {dict(student.branch_weights)} for "
                f"{list(student.branches)}; set HeadOutput.branch_weights"
            )
        yield branch, teacher.branch(name), float(student.branch_weights[name])


def pair_levels(student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Iterator[tuple[Tensor, Tensor]]:
    """Maps of equal size, level by level; the check is here so that the losses need not repeat it."""
    sizes = [[tuple(f.shape[-2:]) for f in maps] for maps in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise YoloKDError(f"expected maps of equal height and width, got student {sizes[0]} and teacher {sizes[1]}")
    return zip(student, teacher)


def choose(key: str, value: str, options: Iterable[str]) -> str:
    """The value, if it is one of the options; otherwise a MisuseError that names them."""
    options = tuple(options)
    if value not in options:
        raise MisuseError(f"{key} is one of {', '.join(options)}, not {value!r}{did_you_mean(value, options)}")
    return value


def at_least(key: str, value: float, low: float, *, open_end: bool = False) -> float:
    """The value, if it is a number not below (with `open_end`: above) the bound; otherwise a MisuseError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < low or (open_end and value == low):
        raise MisuseError(f"{key} is a number {'above' if open_end else 'of at least'} {low:g}, not {value!r}")
    return value


class Distiller(nn.Module):
    """Base of all methods.

    `terms` names the scalars that `forward` returns, `acts_on` the student tensors that each term's gradient enters
    first: "neck", "scores", "boxes" or "towers" (gains are calibrated there); `where` is of the given heads. `readers` says
    of every argument which terms read it. `forward` runs outside autocast on float32 tensors; the teacher's tensors carry no
    gradient. Each scalar is a per-image mean: doubling the batch by repeating it leaves the scalar as it is. A distiller with
    `needs_fit` must be fitted (or given a stored fit) first.
    Where `uses_boxes`, the targets of images without labels are the teacher's detections; elsewhere they have none.
    Whatever it draws comes from a generator of its own (`seed`), so that building one leaves torch's global one alone.
    """

    terms: ClassVar[tuple[str, ...]] = ()
    acts_on: ClassVar[Mapping[str, str]] = {}
    columns: ClassVar[Mapping[str, str]] = {}
    readers: ClassVar[Mapping[str, Reader]] = {}
    needs_towers: ClassVar[bool] = False

    student_classes: Tensor
    teacher_classes: Tensor

    def __init__(self, student: HeadSpec, teacher: HeadSpec, classes: ClassMap) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.shared = classes.shared
        self._same_student = classes.student.tolist() == list(range(student.nc))
        self._same_teacher = classes.teacher.tolist() == list(range(teacher.nc))
        self.register_buffer("student_classes", classes.student.long(), persistent=False)
        self.register_buffer("teacher_classes", classes.teacher.long(), persistent=False)
        self._selected = frozenset(self.terms)

    def off(self) -> dict[str, str]:
        """Terms that cannot apply to this pair of heads, each with the reason in a few words."""
        return {}

    def unread(self) -> dict[str, str]:
        """Arguments that the active terms do not read with these heads, each with the reason in a few words."""
        return {}

    def where(self, term: str) -> str:
        """The student tensors that this term's gradient enters first."""
        return self.acts_on[term]

    def notes(self) -> tuple[str, ...]:
        """What is to be known of the active terms with these heads before the run, a line each."""
        return ()

    def select(self, terms: Iterable[str]) -> None:
        """Compute these terms only, for instance because the gain of the others is 0."""
        terms = tuple(terms)
        for term in terms:
            choose(f"a term of {type(self).__name__}", term, self.terms)
        self._selected = frozenset(terms)

    def active(self) -> tuple[str, ...]:
        """The terms that `forward` returns: selected and not off."""
        off = self.off()
        return tuple(t for t in self.terms if t in self._selected and t not in off)

    def shared_student(self, scores: Tensor) -> Tensor:
        """The student's columns (B, nc, ...) of the shared classes; no copy where that is all of them in order."""
        return scores if self._same_student else scores.index_select(1, self.student_classes)

    def shared_teacher(self, scores: Tensor) -> Tensor:
        """The teacher's columns (B, nc, ...) of the shared classes, in the order of `shared_student`."""
        return scores if self._same_teacher else scores.index_select(1, self.teacher_classes)

    @property
    def uses_boxes(self) -> bool:
        """Whether the terms look at the targets to know where objects are."""
        return False

    @property
    def needs_fit(self) -> bool:
        """Whether `fit` has something to learn."""
        return False

    def fit(self, batches: Iterable[tuple[HeadOutput, Targets]]) -> dict[str, float]:
        """Learn from the teacher before the first step, if `needs_fit`; returns numbers that say how well."""
        return {}

    def fit_state(self) -> dict[str, Tensor]:
        """What `fit` learnt."""
        return {}

    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        """Take over what an earlier `fit` learnt."""

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """One scalar per active term."""
        raise NotImplementedError
