"""What a distiller receives and what it returns.

A distiller is one published method: it turns the raw head outputs of student and teacher into one scalar per *term*.
It never calls a model, reads a config or imports Ultralytics; the engine hands everything in, and multiplies the
scalars by gain, schedule and batch size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

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
    """

    boxes_xywhn: Tensor
    classes: Tensor
    image: Tensor


class Distiller(nn.Module):
    """Base of all methods.

    `terms` names the scalars that `forward` returns, `acts_on` the student tensors that each term's gradient enters
    first: "neck", "scores", "boxes" or "towers" (gains are calibrated there). `forward` runs outside autocast on
    float32 tensors; the teacher's tensors carry no gradient. Each scalar is a per-image mean: doubling the batch by
    repeating it leaves the scalar as it is.
    """

    terms: ClassVar[tuple[str, ...]] = ()
    acts_on: ClassVar[Mapping[str, str]] = {}
    needs_towers: ClassVar[bool] = False

    def __init__(self, student: HeadSpec, teacher: HeadSpec, classes: ClassMap) -> None:
        super().__init__()
        self.student, self.teacher = student, teacher
        self.register_buffer("student_classes", classes.student.long(), persistent=False)
        self.register_buffer("teacher_classes", classes.teacher.long(), persistent=False)

    def off(self) -> dict[str, str]:
        """Terms that cannot apply to this pair of heads, each with the reason in a few words."""
        return {}

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """One scalar per term that is not `off`."""
        raise NotImplementedError
