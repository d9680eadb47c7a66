"""HeadOutput for every family: cutting to shared levels, and a teacher as a net with a flat list of raw outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from yolo_kd.distillers.base import ONE2MANY, ONE2ONE, Branch, HeadOutput, HeadSpec
from yolo_kd.engine import ultra
from yolo_kd.errors import MisuseError

LEAST_PADDING = 32  # of a side, to a multiple of it, by Ultralytics: whatever strides the student has


def common_levels(student: HeadSpec, teacher: HeadSpec, source: object = "") -> tuple[int, ...]:
    """Strides that both heads have, finest first; `source` is the teacher's file.

    Raises:
        MisuseError: None is shared, or the teacher's coarsest wants other sides of pictures.
    """
    shared = tuple(s for s in student.strides if s in teacher.strides)
    if not shared:
        raise MisuseError(
            f"teacher={source}: its strides {teacher.strides} and the student's {student.strides} have no level in common; "
            "choose a teacher with the student's levels (P3 to P5 are 8, 16, 32)"
        )
    require_padding(student, teacher, source)
    return shared


def require_padding(student: HeadSpec, teacher: HeadSpec, source: object = "") -> None:
    """Refuse a teacher with a coarser level than the pictures are padded to, also where no term uses that level.

    Its neck joins each level with the one below, scaled to twice its size: with other sides these do not match.

    Raises:
        MisuseError: It has one; `source` is its file.
    """
    side, wanted = max(*student.strides, LEAST_PADDING), max(teacher.strides)
    if wanted > side:
        raise MisuseError(
            f"teacher={source}: has a level of stride {wanted}, which wants pictures whose sides are multiples of {wanted}, but "
            f"the student's are padded to multiples of {side}; choose a teacher without that level, or a student with it"
        )


def cut_spec(spec: HeadSpec, strides: Sequence[int]) -> HeadSpec:
    """The spec of the levels in `strides` only."""
    kept = [spec.strides.index(s) for s in strides]
    return replace(
        spec,
        strides=tuple(strides),
        channels=tuple(spec.channels[i] for i in kept),
        towers=tuple(spec.towers[i] for i in kept),
    )


def cut_output(output: HeadOutput, spec: HeadSpec, strides: Sequence[int]) -> HeadOutput:
    """The outputs of the levels in `strides` only; the same object when these are all."""
    if tuple(strides) == spec.strides:
        return output
    kept = [spec.strides.index(s) for s in strides]
    cells = partial(_cells, output.sizes_hw, kept)
    return replace(
        output,
        feats=tuple(output.feats[i] for i in kept),
        branches={name: Branch(cells(b.boxes), cells(b.scores)) for name, b in output.branches.items()},
        towers=tuple(output.towers[i] for i in kept) if output.towers else (),
    )


@dataclass(frozen=True)
class Acting:
    """What terms of one kind act on: tensors that every loss depends on, and of a gradient at one the part that counts."""

    tensors: tuple[Tensor, ...]
    cut: Callable[[Tensor], Tensor] = lambda gradient: gradient


def acting_levels(
    output: HeadOutput, towers: Sequence[Tensor], spec: HeadSpec, strides: Sequence[int]
) -> dict[str, Acting]:
    """What the terms act on by `Term.acts_on`, only of the levels in `strides`.

    On a level that the teacher lacks there is a detection loss but no term: its gradient says nothing about a term's share.

    Args:
        output: The student's whole raw output.
        towers: Its classification tower maps, or none.
        spec: Its head's spec.
        strides: Those of the levels that teacher and student share.
    """
    kept = [spec.strides.index(s) for s in strides]
    cells = partial(_cells, output.sizes_hw, kept)
    branches = output.branches.values()
    return {
        "neck": Acting(tuple(output.feats[i] for i in kept)),
        "towers": Acting(tuple(towers[i] for i in kept) if towers else ()),
        "scores": Acting(tuple(b.scores for b in branches), cells),
        "boxes": Acting(tuple(b.boxes for b in branches), cells),
    }


def _cells(sizes_hw: Sequence[tuple[int, int]], levels: Sequence[int], x: Tensor) -> Tensor:
    """The cells (B, C, A') of some levels out of those (B, C, A) of all."""
    parts = x.split([height * width for height, width in sizes_hw], dim=2)
    return torch.cat([parts[i] for i in levels], dim=2)


class TeacherNet(nn.Module):
    """A frozen detector whose forward gives raw outputs only, as a flat list that any runtime can produce.

    Order: neck maps finest first; boxes and scores of the one-to-many branch, then of the one-to-one branch if there is
    one; classification tower maps if asked for.
    """

    def __init__(self, model: nn.Module, towers: bool = False) -> None:
        super().__init__()
        self.spec = ultra.head_spec(model)
        self.towers = towers
        self.model = ultra.fuse_for_teaching(model).requires_grad_(False)
        self.tap = ultra.TowerTap(self.model)
        self.eval()

    def train(self, mode: bool = True) -> TeacherNet:
        """Stay in eval mode whatever is asked: BN statistics of a teacher never move."""
        return super().train(False)

    def forward(self, img: Tensor) -> list[Tensor]:
        """Raw outputs for (B, C, H, W) images in [0, 1]."""
        if self.towers:
            self.tap.arm()
        output = ultra.read_outputs(self.model(img))
        towers = self.tap.take()
        return [*output.feats, *(t for b in self._branches() for t in _pair(output.branches[b])), *towers]

    def unflatten(self, flat: Sequence[Tensor]) -> HeadOutput:
        """The HeadOutput of a flat list in the order of `forward`."""
        levels = len(self.spec.strides)
        names = self._branches()
        pairs = flat[levels : levels + 2 * len(names)]
        branches = {name: Branch(pairs[2 * i], pairs[2 * i + 1]) for i, name in enumerate(names)}
        return HeadOutput(tuple(flat[:levels]), branches, tuple(flat[levels + 2 * len(names) :]))

    def output_names(self) -> list[str]:
        """A name for each tensor of the flat list."""
        levels = range(len(self.spec.strides))
        names = [f"neck{i}" for i in levels] + [f"{b}_{t}" for b in self._branches() for t in ("boxes", "scores")]
        return names + ([f"tower{i}" for i in levels] if self.towers else [])

    def _branches(self) -> tuple[str, ...]:
        return (ONE2MANY, ONE2ONE) if self.spec.dual else (ONE2MANY,)


def _pair(branch: Branch) -> tuple[Tensor, Tensor]:
    return branch.boxes, branch.scores


def student_view(preds: Any, towers: Sequence[Tensor], weights: dict[str, float]) -> HeadOutput:
    """The student's training outputs as float32; the towers of the one-to-many branch only."""
    output = ultra.read_outputs(preds)
    return HeadOutput(
        feats=tuple(f.float() for f in output.feats),
        branches={k: Branch(b.boxes.float(), b.scores.float()) for k, b in output.branches.items()},
        towers=tuple(t.float() for t in towers[: len(output.feats)]),
        branch_weights=weights,
    )
