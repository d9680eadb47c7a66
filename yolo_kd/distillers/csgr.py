"""CSGR: what a class looks like and how cells relate, on the neck maps.

Paper: Liang, Ma, Wang, Li, "Category semantic and global relation distillation for object detection", Chinese Journal
of Engineering, 2025, https://doi.org/10.13374/j.issn2095-9389.2024.04.25.001. Only the abstract was to be had. The
criss-cross attention is CCNet's, https://arxiv.org/abs/1811.11721. Published gain, from the abstract: RetinaNet R50
+4.67 mAP on SODA10M and +2.64 AP50 on PASCAL VOC.

In words, per level, with N(x) the maps at zero mean and unit variance per channel:

* `cs`: for every class that the teacher sees in an image, average N(student) and N(teacher) over the cells of that
  class (weights: teacher probability squared, normalised) and compare the two class vectors: mean squared difference,
  weighted with how sure the teacher is that the class is there.
* `gr`: let every cell gather from its row and column those cells that look like it (softmax of cosine / tau), add the
  cell itself, and compare student and teacher by mean squared difference. With gamma 0 that is twice PKD.

What is ours (`form=yolo`), and why:

* The attention comes from the teacher's own class scores, or with `attention=gt_boxes` from the labels, not from a
  trained 1x1 convolution: that one learns to make the loss small, and is no class attention before it is trained.
* Images without labels: nothing changes, as the attention is the teacher's; with `attention=gt_boxes` the teacher's
  confident detections stand in for the labels.
* The criss-cross has no parameters. The released, trainable one lowered its loss by shrinking both maps, with the
  student unchanged.
* Means instead of sums, and the mean over levels: as released, level P3 alone was ten times the detection loss.
* For speed: `gr` works on a fixed random projection of both maps to `width` channels that keeps mean squares, and on
  the finest level pooled by `pool`. The map of teacher width is never built for the student (adapters.py).
* Left out: the term between class maps, the KL between affinities (weight 0 in our specification) and fixed random q,
  k, v.

`form=paper` is in csgr_released.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_kd.distillers.adapters import (
    NO_ADAPTER,
    NORMS,
    Feature,
    adapters,
    generator,
    none_drawn,
    normalised,
    semi_orthogonal,
)
from yolo_kd.distillers.base import (
    ONE2MANY,
    ClassMap,
    Distiller,
    HeadOutput,
    HeadSpec,
    Targets,
    at_least,
    choose,
    pair_levels,
)
from yolo_kd.distillers.boxes import Grid, cell_grid
from yolo_kd.distillers.criss_cross import affinity_attention
from yolo_kd.distillers.csgr_released import ReleasedLevel
from yolo_kd.distillers.readers import Not, Reader, read_by
from yolo_kd.distillers.regions import cells_in_boxes, objects_by_image


def score_attention(
    scores: Tensor, power: float = 2.0, presence: float = 0.05, eps: float = 1e-6
) -> tuple[Tensor, Tensor]:
    """Where the teacher sees which class, for the classes that it sees at all.

    With a background score of 0.01 an object of 16 cells on P3 has 17 % of the attention at power 1, 94 % at power 2.

    Args:
        scores: (B, nc, N) class logits of one level.
        power: Of the probabilities.
        presence: A class whose best cell is below this is not there.
        eps: Added to the sum over the cells.

    Returns:
        Attention (B, K, N) whose rows sum to 1 and presence (B, K) in [0, 1]; K is the largest number of classes
        present in one image, images with fewer are filled up with presence 0.
    """
    best = scores.amax(2).sigmoid()
    best = best * (best >= presence)
    present = max(int((best > 0).sum(1).max()), 1)
    best, classes = best.topk(present, 1)
    weights = scores.gather(1, classes[:, :, None].expand(-1, -1, scores.shape[2])).sigmoid().pow(power)
    return weights / (weights.sum(2, keepdim=True) + eps), best


def box_attention(targets: Targets, grid: Grid, images: int) -> tuple[Tensor, Tensor]:
    """Where the labels put which class: uniform over the cells in its boxes.

    Args:
        targets: The labels.
        grid: Cells of one level.
        images: Number of images B.

    Returns:
        Attention (B, K, N) and presence (B, K), 1 or 0, as of `score_attention`; without any object K is 1.
    """
    masks = []
    for _ in range(images):
        masks.append(grid.points_net.new_zeros(0, len(grid.points_net)))
    for image, boxes, classes in objects_by_image(targets, images):
        inside = cells_in_boxes(boxes, grid).to(grid.points_net.dtype)
        names, row = classes.unique(return_inverse=True)
        masks[image] = inside.new_zeros(len(names), inside.shape[1]).index_add_(0, row, inside).clamp_max_(1)
    attention = nn.utils.rnn.pad_sequence(masks, batch_first=True)
    if attention.shape[1] == 0:
        attention = grid.points_net.new_zeros(images, 1, len(grid.points_net))
    total = attention.sum(2, keepdim=True)
    return attention / total.clamp_min(1), (total[..., 0] > 0).to(attention.dtype)


def category_semantic_loss(student: Feature, teacher: Feature, attention: Tensor, presence: Tensor) -> Tensor:
    """Mean squared difference of the class vectors, weighted with the presence of the classes.

    Args:
        student: (B, C, H, W).
        teacher: (B, C, H, W) without gradient.
        attention: (B, K, H * W), rows sum to 1.
        presence: (B, K).

    Returns:
        A scalar; 0 if no class is present.
    """
    distance = (student.pool(attention) - teacher.pool(attention)).square().mean(2)
    return (presence * distance).sum() / presence.sum().clamp_min(1e-6)


def global_relation(x: Tensor, tau: float = 0.1, passes: int = 1, gamma: float = 1.0, residual: bool = True) -> Tensor:
    """What the cells see of their rows and columns.

    Args:
        x: (B, C, H, W).
        tau: Temperature of the cosine similarities.
        passes: 1 reaches row and column, 2 every cell, 0 is the map alone.
        gamma: Factor of the attention.
        residual: Add the map itself.

    Returns:
        (B, C, H, W).
    """
    for _ in range(passes):
        seen = gamma * affinity_attention(x, tau)
        x = seen + x if residual else seen
    return x


class CSGR(Distiller):
    """Terms `cs` (category semantics) and `gr` (global relation), each the mean over the levels.

    Args:
        form: "yolo", or "paper" for the released formulas.
        attention: "teacher_head" or "gt_boxes".
        norm: "pkd" (statistics over the batch), "instance" (per image) or "none".
        power: Exponent of the teacher's probabilities in the attention.
        presence: Lowest best probability of a class that counts as present.
        width: Channels in which `gr` compares.
        pool: Pooling of the finest level before `gr`.
        tau: Temperature of the similarities.
        passes: Criss-cross passes.
        gamma: Factor of the attention.
        residual: Add the map itself to what it sees.
        released_weights: With form "paper": sums with factors 5e-4 and 1e-5 instead of means.
        seed: Of adapters and projection.
    """

    terms = ("cs", "gr")
    acts_on: ClassVar[Mapping[str, str]] = {"cs": "neck", "gr": "neck"}
    readers: ClassVar[Mapping[str, Reader]] = {
        "form": read_by("cs", "gr"),
        "attention": read_by("cs", form="yolo"),
        "norm": read_by("cs", "gr", form="yolo"),
        "power": read_by("cs", form="yolo", attention="teacher_head"),
        "presence": read_by("cs", form="yolo", attention="teacher_head"),
        "width": read_by("gr", form="yolo"),
        "pool": read_by("gr", form="yolo"),
        "tau": read_by("gr", form="yolo", passes=Not(0), gamma=Not(0)),
        "passes": read_by("gr", form="yolo", gamma=Not(0)),
        "gamma": read_by("gr", form="yolo", passes=Not(0)),
        "residual": read_by("gr", form="yolo", passes=Not(0)),
        "released_weights": read_by("cs", "gr", form="paper"),
        "seed": read_by("cs", "gr"),
    }

    def __init__(
        self,
        student: HeadSpec,
        teacher: HeadSpec,
        classes: ClassMap,
        *,
        form: str = "yolo",
        attention: str = "teacher_head",
        norm: str = "pkd",
        power: float = 2.0,
        presence: float = 0.05,
        width: int = 64,
        pool: int = 2,
        tau: float = 0.1,
        passes: int = 1,
        gamma: float = 1.0,
        residual: bool = True,
        released_weights: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(student, teacher, classes)
        self.form = choose("csgr.form", form, ("yolo", "paper"))
        self.attention = choose("csgr.attention", attention, ("teacher_head", "gt_boxes"))
        self.norm = choose("csgr.norm", norm, NORMS)
        self.power = at_least("csgr.power", power, 0, open_end=True)
        self.presence = at_least("csgr.presence", presence, 0)
        self.pool = int(at_least("csgr.pool", pool, 1))
        self.tau = at_least("csgr.tau", tau, 0, open_end=True)
        self.passes, self.gamma, self.residual = int(at_least("csgr.passes", passes, 0)), gamma, residual
        random = generator(seed)
        self.released = nn.ModuleList()
        self.adapters = nn.ModuleList()
        if form == "paper":
            self.released.extend(
                ReleasedLevel(s, t, teacher.nc, random, released_weights)
                for s, t in zip(student.channels, teacher.channels)
            )
            return
        self.adapters = adapters(student.channels, teacher.channels, random, bias=norm == "none")
        self.matrices = [f"matrix{level}" for level in range(len(teacher.channels))]
        for name, channels in zip(self.matrices, teacher.channels):
            self.register_buffer(name, semi_orthogonal(int(at_least("csgr.width", width, 1)), channels, random))

    def notes(self) -> tuple[str, ...]:
        """A warning of the released formulas."""
        if self.form == "yolo":
            return ()
        return (
            "WARNING csgr.form=paper: the released formulas, to reproduce them; until their own layers have learnt, gr is PKD "
            "and cs compares random projections, no classes; csgr.form=yolo is what we advise",
        )

    def unread(self) -> dict[str, str]:
        """The seed, where there is nothing to draw."""
        drawn = self.form == "paper" or "gr" in self.active() or not none_drawn(self.adapters)
        return {} if drawn else {"seed": NO_ADAPTER}

    @property
    def uses_boxes(self) -> bool:
        """Only where the attention is that of the labels."""
        return self.attention == "gt_boxes" and self.form == "yolo" and "cs" in self.active()

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """The terms `cs` and `gr`."""
        active = self.active()
        pairs = pair_levels(student.feats, teacher.feats)
        if self.form == "paper":
            levels = [level(s, t, active) for level, (s, t) in zip(self.released, pairs)]
        else:
            attentions = self._attentions(teacher, targets) if "cs" in active else [None] * len(teacher.feats)
            levels = [self._level(i, s, t, a, active) for i, ((s, t), a) in enumerate(zip(pairs, attentions))]
        return {term: torch.stack([level[term] for level in levels]).mean() for term in active}

    def _level(
        self,
        level: int,
        student: Tensor,
        teacher: Tensor,
        attention: tuple[Tensor, Tensor] | None,
        active: tuple[str, ...],
    ) -> dict[str, Tensor]:
        s = normalised(student, self.adapters[level], self.norm)
        t = normalised(teacher, None, self.norm)
        losses = {}
        if attention is not None:
            losses["cs"] = category_semantic_loss(s, t, *attention)
        if "gr" in active:
            matrix, pool = getattr(self, self.matrices[level]), self.pool if level == 0 else 1
            maps = (x.project(matrix, pool) for x in (s, t))
            seen_s, seen_t = (global_relation(x, self.tau, self.passes, self.gamma, self.residual) for x in maps)
            losses["gr"] = F.mse_loss(seen_s, seen_t)
        return losses

    def _attentions(self, teacher: HeadOutput, targets: Targets) -> list[tuple[Tensor, Tensor]]:
        sizes = teacher.sizes_hw
        if self.attention == "gt_boxes":
            like, images = teacher.feats[0], len(teacher.feats[0])
            grids = [cell_grid([size], [stride], like) for size, stride in zip(sizes, self.teacher.strides)]
            return [box_attention(targets, grid, images) for grid in grids]
        scores = teacher.branch(ONE2MANY).scores.split([h * w for h, w in sizes], dim=2)
        return [score_attention(s, self.power, self.presence) for s in scores]
