"""CSGR as a public file by what seem to be its authors has it, to reproduce; csgr.py is what we advise.

In words, per level: a 1x1 convolution without bias gives one map per class, softmax over the cells, class vectors by
pooling the normalised maps with it; loss = sum of squared differences / images, weight 5e-4. One pass of CCNet's block
(gamma starts at 0) on the normalised maps; loss = sum of squared differences / images, weight 1e-5.

Where we differ: there, teacher and student share trainable modules, so the loss can fall without the student moving.
Here the teacher goes through a slow average (0.999) of those modules, without gradient. The width there is 256
throughout; here it is the teacher's. Levels are averaged in csgr.py, where the source presumably sums them.
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_kd.distillers.adapters import draw, pointwise
from yolo_kd.distillers.criss_cross import CrissCrossBlock

MOMENTUM = 0.999
WEIGHTS = {"cs": 5e-4, "gr": 1e-5}  # the released file's


def class_vectors(x: Tensor, logits: Tensor) -> Tensor:
    """Averages of the map over the cells, one per class.

    Args:
        x: (B, C, H, W).
        logits: (B, K, H, W); their softmax over the cells is the weight.

    Returns:
        (B, K, C).
    """
    return logits.flatten(2).softmax(2) @ x.flatten(2).mT


class ReleasedLevel(nn.Module):
    """Both terms of one level.

    Args:
        student: Width of the student's map.
        teacher: Width of the teacher's map.
        classes: Number of class maps.
        random: Source of the initial weights.
        weighted: Sums over everything with the released weights; otherwise means with weight 1.
    """

    def __init__(self, student: int, teacher: int, classes: int, random: torch.Generator, weighted: bool) -> None:
        super().__init__()
        self.weighted = weighted
        self.align: nn.Module = pointwise(student, teacher, random) if student != teacher else nn.Identity()
        self.online = nn.ModuleDict(
            {"classify": pointwise(teacher, classes, random, bias=False), "relate": CrissCrossBlock(teacher)}
        )
        for layer in self.online["relate"].children():
            draw(layer, random)
        self.slow = copy.deepcopy(self.online).requires_grad_(False)

    def forward(self, student: Tensor, teacher: Tensor, active: tuple[str, ...]) -> dict[str, Tensor]:
        """The active terms of "cs" and "gr".

        Args:
            student: (B, C_s, H, W).
            teacher: (B, C_t, H, W).
            active: Which terms.
        """
        if self.training:
            self._follow()
        s, t = _unit(self.align(student)), _unit(teacher)
        losses = {}
        if "cs" in active:
            losses["cs"] = self._distance(
                "cs",
                class_vectors(s, self.online["classify"](s)),
                class_vectors(t, self.slow["classify"](t)).detach(),
            )
        if "gr" in active:
            losses["gr"] = self._distance("gr", self.online["relate"](s), self.slow["relate"](t).detach())
        return losses

    def _distance(self, term: str, student: Tensor, teacher: Tensor) -> Tensor:
        if self.weighted:
            return WEIGHTS[term] * F.mse_loss(student, teacher, reduction="sum") / len(student)
        return F.mse_loss(student, teacher)

    @torch.no_grad()
    def _follow(self) -> None:
        for slow, online in zip(self.slow.parameters(), self.online.parameters()):
            slow.lerp_(online, 1 - MOMENTUM)


def _unit(x: Tensor, eps: float = 1e-6) -> Tensor:
    if x.numel() == x.shape[1]:  # one number per channel: no deviation, no NaN
        return x - x
    deviation, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    return (x - mean) / (deviation + eps)
