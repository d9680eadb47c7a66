"""Native: the formula that Ultralytics uses for its own `distill_model=`, as a term of ours. The baseline to beat.

Source: Ultralytics 8.4.190, `ultralytics/nn/distill_model.py` (AGPL-3.0); no paper, no published gain. Written afresh
from the formula.

In words: project each neck map of the student with conv 1x1 - ReLU - conv 1x1, take the squared difference to the
teacher's, weight every cell with the teacher's highest class probability there, and divide by the sum of the weights
times the number of channels. Levels are summed.

Where we differ: Ultralytics' factor `dis` (6.0) is our gain, and its factor of the batch size comes from the engine.
Surprises that stay: the weights are summed over the whole batch, so crowded images dominate; every teacher class
counts, whether the student knows it or not; the levels are summed, whatever their size; the two branches of a dual head
are averaged as logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn

from yolo_kd.distillers.adapters import generator, pointwise
from yolo_kd.distillers.base import ClassMap, Distiller, HeadOutput, HeadSpec, Targets, at_least, pair_levels
from yolo_kd.distillers.readers import Reader, read_by


def weighted_l2(student: Tensor, teacher: Tensor, weights: Tensor, eps: float = 1e-9) -> Tensor:
    """Sum of w (s - t)^2 over C times sum of w.

    Args:
        student: (B, C, H, W), already projected.
        teacher: (B, C, H, W).
        weights: (B, 1, H * W) or (B, 1, H, W), not negative.
        eps: Added to the denominator; all weights 0 gives 0.
    """
    weights = weights.reshape(len(weights), 1, *student.shape[2:])
    distance = (student - teacher).square().sum(1, keepdim=True)
    return (weights * distance).sum() / (weights.sum() * student.shape[1] + eps)


def score_weights(logits: Iterable[Tensor]) -> Tensor:
    """Highest class probability per cell, the branches averaged as logits.

    Args:
        logits: (B, nc, A) of each branch.

    Returns:
        (B, 1, A).
    """
    logits = list(logits)
    total = logits[0] if len(logits) == 1 else torch.stack(logits).mean(0)
    return total.amax(1, keepdim=True).sigmoid()


class Native(Distiller):
    """Term `native`: the sum over the levels; use gain 6 for Ultralytics' default.

    Args:
        eps: Added to the denominator.
        seed: Of the projectors' initial weights.
    """

    terms = ("native",)
    acts_on: ClassVar[Mapping[str, str]] = {"native": "neck"}
    readers: ClassVar[Mapping[str, Reader]] = dict.fromkeys(("eps", "seed"), read_by("native"))

    def __init__(
        self, student: HeadSpec, teacher: HeadSpec, classes: ClassMap, *, eps: float = 1e-9, seed: int = 0
    ) -> None:
        super().__init__(student, teacher, classes)
        self.eps = at_least("native.eps", eps, 0, open_end=True)
        random = generator(seed)
        self.projectors = nn.ModuleList(
            nn.Sequential(pointwise(s, t, random), nn.ReLU(), pointwise(t, t, random))
            for s, t in zip(student.channels, teacher.channels)
        )

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """The term `native`."""
        if not self.active():
            return {}
        weights = score_weights(b.scores for b in teacher.branches.values())
        weights_l = weights.split([h * w for h, w in teacher.sizes_hw], dim=2)
        pairs = pair_levels(student.feats, teacher.feats)
        losses = [
            weighted_l2(project(s), t, w, self.eps) for project, (s, t), w in zip(self.projectors, pairs, weights_l)
        ]
        return {"native": torch.stack(losses).sum()}
