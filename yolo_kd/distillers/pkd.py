"""PKD: neck maps compared by their Pearson correlation.

Paper: Cao, Zhang, Gao, Cheng, Cheng, Cheng, "PKD: General Distillation Framework for Object Detectors via Pearson
Correlation Coefficient", NeurIPS 2022, https://arxiv.org/abs/2207.02039.

In words: bring every channel of student and teacher to zero mean and unit variance over batch and cells together, then
take half of the mean squared difference; that is 1 - r, averaged over the channels. Scale and offset of a channel do
not matter, so a large teacher with other magnitudes can teach a small student.

Published gain on COCO: with a Mask R-CNN Swin teacher RetinaNet R50 41.5 (+4.1) and FCOS R50 43.9 (+4.8), from the
abstract; Faster R-CNN R101 -> R50, 2x schedule, 38.4 -> 40.3.

Where we differ from the authors' code (open-mmlab/mmrazor, `pkd_loss.py`), and why:

* Adapters: theirs needs equal widths (FPN: always 256); here a 1x1 convolution without bias takes the student to the
  teacher's width where they differ. A bias would cancel in the normalisation.
* Levels: the mean of the levels instead of the sum, so that a gain means the same for heads with three and four levels;
  `reduce=sum` is theirs.
* One number per channel (one 1x1 map): theirs is NaN, ours is 0. A single number has no correlation.
* `pkd_projected_loss` is the same number as `pkd_loss` of the projected student, from second moments (adapters.py).

The statistics are joint over the batch: the loss of an image depends a little on its companions, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from yolo_kd.distillers.adapters import NO_ADAPTER, adapters, centre, covariance, generator, gram, none_drawn
from yolo_kd.distillers.base import ClassMap, Distiller, HeadOutput, HeadSpec, Targets, at_least, choose, pair_levels
from yolo_kd.distillers.readers import Reader, read_by


def pkd_loss(student: Tensor, teacher: Tensor, eps: float = 1e-6, resize_student: bool = True) -> Tensor:
    """Half of the mean squared difference of the normalised maps, in about 1 - r.

    Args:
        student: (B, C, H, W).
        teacher: (B, C, H', W'); if the sizes differ, one of the two is resized bilinearly.
        eps: Added to the (unbiased) standard deviation.
        resize_student: Resize the student to the teacher rather than the teacher to the student.

    Returns:
        A scalar; 0 for a single number per channel, which has no correlation.
    """
    if student.shape[-2:] != teacher.shape[-2:]:
        if resize_student:
            student = F.interpolate(student, teacher.shape[-2:], mode="bilinear")
        else:
            teacher = F.interpolate(teacher, student.shape[-2:], mode="bilinear")
    if _cells(student) < 2:
        return student.sum() * 0.0
    return 0.5 * F.mse_loss(_unit(student, eps), _unit(teacher, eps))


def pkd_projected_loss(student: Tensor, weight: Tensor, teacher: Tensor, eps: float = 1e-6) -> Tensor:
    """`pkd_loss(conv1x1(student, weight), teacher)` from second moments; the projected map is never built.

    With centred maps x and t the loss is (sum of the variances of the normalised maps) / 2 - (their covariance), and
    both follow from x x^T (C, C) and x t^T (C, C').

    Args:
        student: (B, C, H, W).
        weight: (C', C) of the 1x1 convolution.
        teacher: (B, C', H, W) without gradient.
        eps: Added to the standard deviations.
    """
    n = _cells(student)
    if n < 2:
        return student.sum() * 0.0 + weight.sum() * 0.0
    centred = centre(student)
    variance = ((weight @ covariance(centred)[0]) * weight).sum(1) / (n - 1)
    positive = variance > 0  # the derivative of the root at 0 is taken as 0, as torch.std does
    deviation = torch.where(positive, variance, 1.0).sqrt() * positive
    _, _, teacher_rstd = torch.native_batch_norm(teacher, None, None, None, None, True, 0.0, 0.0)
    rstd_finite = torch.where(torch.isfinite(teacher_rstd), teacher_rstd, 0.0)
    teacher_deviation = torch.where(rstd_finite > 0, 1.0 / rstd_finite, 0.0) * (n / (n - 1)) ** 0.5
    # A constant teacher channel has no covariance; its rounding error, divided by eps, would be one.
    common = (weight * gram(centred, teacher).T).sum(1) / (n - 1) * (teacher_deviation > 0)
    s, t = 1.0 / (deviation + eps), 1.0 / (teacher_deviation + eps)
    squares = (variance * s.square() + (teacher_deviation * t).square()) / 2
    return (squares - common * s * t).mean() * ((n - 1) / n)


class PKD(Distiller):
    """Term `pkd`: the loss above, for every level of the neck.

    Args:
        eps: Added to the standard deviations.
        reduce: "mean" or "sum" of the levels.
        seed: Of the adapters' initial weights.
    """

    terms = ("pkd",)
    acts_on: ClassVar[Mapping[str, str]] = {"pkd": "neck"}
    readers: ClassVar[Mapping[str, Reader]] = dict.fromkeys(("eps", "reduce", "seed"), read_by("pkd"))

    def __init__(
        self,
        student: HeadSpec,
        teacher: HeadSpec,
        classes: ClassMap,
        *,
        eps: float = 1e-6,
        reduce: str = "mean",
        seed: int = 0,
    ) -> None:
        super().__init__(student, teacher, classes)
        self.eps = at_least("pkd.eps", eps, 0, open_end=True)
        self.reduce = choose("pkd.reduce", reduce, ("mean", "sum"))
        self.adapters = adapters(student.channels, teacher.channels, generator(seed), bias=False)

    def unread(self) -> dict[str, str]:
        """The seed, where there is nothing to draw."""
        return {"seed": NO_ADAPTER} if none_drawn(self.adapters) else {}

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """The term `pkd`."""
        if not self.active():
            return {}
        losses = [
            pkd_projected_loss(s, a.weight.flatten(1), t, self.eps)
            if isinstance(a, nn.Conv2d)
            else pkd_loss(s, t, self.eps)
            for a, (s, t) in zip(self.adapters, pair_levels(student.feats, teacher.feats))
        ]
        total = torch.stack(losses).sum()
        return {"pkd": total / len(losses) if self.reduce == "mean" else total}


def _cells(x: Tensor) -> int:
    return x.numel() // x.shape[1]


def _unit(x: Tensor, eps: float) -> Tensor:
    deviation, mean = torch.std_mean(x, (0, 2, 3), keepdim=True)
    return (x - mean) / (deviation + eps)
