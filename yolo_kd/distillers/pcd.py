"""PCD: both responses of a dense head in parallel, class scores and box distributions.

Paper: Song, Zhang, Huang, Zha, You, Zhang, "'Parallel-Circuitized' distillation for dense object detection", Displays
81, 2024, https://doi.org/10.1016/j.displa.2023.102587. Only the abstract was to be had; its quality predictor is
lqe.py. Published gain: none found. Nearest public stand-in: LD on GFLV2, 41.0 -> 42.7 on COCO.

In words, with w the teacher's highest probability of a shared class in a cell and N the sum of w in the image (at least
1), each averaged over the images:

* `cls`: sum over cells and shared classes of |student - teacher| x binary cross-entropy against the teacher's
  probability, / N. This is CrossKD's and BCKD's form; softmax over classes would ignore how sure the teacher is, and
  would be 0 with one class.
* `loc`: sum over cells of w x the mean over four sides of T^2 KL(teacher's bins || student's bins), / N. Where one head
  has no bins or another number of them: BCKD's form, sum of max over classes |student - teacher| (a constant) x (1 -
  GIoU of the two boxes), / N.

What is ours: the formulas are the nearest published ones, the abstract does not give its own. `form=yolo` looks at the
`top` cells with the highest w of each image only, `form=paper` at all of them; N is the sum over all cells in both.
LD's mean over bins and its missing normaliser are not taken over: they tie the weight to the number of bins and images.

Dual heads: each branch of the student learns from the same branch of the teacher, or from its only one, with the
branch's share in the student's own loss. Classes of one side only take no part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from yolo_kd.distillers.base import (
    Branch,
    ClassMap,
    Distiller,
    HeadOutput,
    HeadSpec,
    Targets,
    at_least,
    choose,
    pair_branches,
)
from yolo_kd.distillers.boxes import distances, giou_of_cells
from yolo_kd.distillers.readers import Reader, read_by
from yolo_kd.distillers.regions import cell_weights, normaliser, take, top_cells


def classification_loss(student: Tensor, teacher: Tensor, norm: Tensor) -> Tensor:
    """Binary cross-entropy against the teacher's probabilities, focal in the difference; minimal at equality.

    Args:
        student: (B, K, P) logits.
        teacher: (B, K, P) logits.
        norm: (B,).
    """
    target = teacher.sigmoid()
    difference = (student.sigmoid() - target).abs()
    loss = difference * F.binary_cross_entropy_with_logits(student, target, reduction="none")
    return (loss.sum((1, 2)) / norm).mean()


def localisation_loss(
    student: Tensor, teacher: Tensor, weights: Tensor, norm: Tensor, bins: int, temperature: float = 1.0
) -> Tensor:
    """Divergence of the box distributions, summed over bins, mean of the sides.

    Args:
        student: (B, 4 * bins, P) logits.
        teacher: (B, 4 * bins, P) logits.
        weights: (B, P).
        norm: (B,).
        bins: DFL bins per side.
        temperature: T; the factor T^2 keeps the gradient's size.
    """
    log_s, log_t = (
        (x if temperature == 1 else x / temperature).unflatten(1, (4, bins)).log_softmax(2) for x in (student, teacher)
    )
    sides = (log_t.exp() * (log_t - log_s)).sum((1, 2)) / 4  # (B, P)
    return temperature**2 * ((sides * weights).sum(1) / norm).mean()


def overlap_loss(student: Tensor, teacher: Tensor, weights: Tensor, norm: Tensor) -> Tensor:
    """1 - GIoU of student's and teacher's boxes of the same cell.

    Args:
        student: (B, 4, P) distances in strides.
        teacher: (B, 4, P).
        weights: (B, P).
        norm: (B,).
    """
    return ((weights * (1 - giou_of_cells(student, teacher))).sum(1) / norm).mean()


class PCD(Distiller):
    """Terms `cls` and `loc`.

    Args:
        form: "yolo" looks at the top cells, "paper" at all.
        top: Cells per image; 0 is all.
        temperature: Of the box distributions.
    """

    terms = ("cls", "loc")
    acts_on: ClassVar[Mapping[str, str]] = {"cls": "scores", "loc": "boxes"}
    columns: ClassVar[Mapping[str, str]] = {
        "cls": "kdcls_loss",
        "loc": "kdloc_loss",
    }  # cls_loss is the detection loss's
    readers: ClassVar[Mapping[str, Reader]] = {
        "form": read_by("cls", "loc"),
        "top": read_by("cls", "loc", form="yolo"),
        "temperature": read_by("loc"),
    }

    def __init__(
        self,
        student: HeadSpec,
        teacher: HeadSpec,
        classes: ClassMap,
        *,
        form: str = "yolo",
        top: int = 1000,
        temperature: float = 1.0,
    ) -> None:
        super().__init__(student, teacher, classes)
        self.top = int(at_least("pcd.top", top, 0)) if choose("pcd.form", form, ("yolo", "paper")) == "yolo" else 0
        self.temperature = at_least("pcd.temperature", temperature, 0, open_end=True)
        self.distributions = student.reg_max == teacher.reg_max > 1

    def off(self) -> dict[str, str]:
        """Both terms need a shared class: it decides which cells count."""
        return {} if self.shared else dict.fromkeys(self.terms, "student and teacher share no class name")

    def notes(self) -> tuple[str, ...]:
        """That `loc` is of boxes."""
        if not self._overlaps():
            return ()
        return (
            f"pcd.loc: no equal box distributions with reg_max {self.student.reg_max} (student) and {self.teacher.reg_max} "
            "(teacher), so boxes are compared by their overlap (GIoU)",
        )

    def unread(self) -> dict[str, str]:
        """The temperature, where there is nothing to soften."""
        return {"temperature": "without equal box distributions pcd.loc compares boxes"} if self._overlaps() else {}

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """The terms `cls` and `loc`."""
        active = self.active()
        total: dict[str, Tensor] = {}
        for s, t, share in pair_branches(student, teacher) if active else ():
            for term, loss in self._branch(s, t, active).items():
                total[term] = total[term] + share * loss if term in total else share * loss
        return total

    def _overlaps(self) -> bool:
        return "loc" in self.active() and not self.distributions

    def _branch(self, student: Branch, teacher: Branch, active: tuple[str, ...]) -> dict[str, Tensor]:
        teacher_scores = self.shared_teacher(teacher.scores)
        weights = cell_weights(teacher_scores)
        cells, norm = top_cells(weights, self.top), normaliser(weights)
        losses = {}
        if "cls" in active or not self.distributions:
            scores_s, scores_t = self.shared_student(take(student.scores, cells)), take(teacher_scores, cells)
        if "cls" in active:
            losses["cls"] = classification_loss(scores_s, scores_t, norm)
        if "loc" in active:
            boxes_s, boxes_t = take(student.boxes, cells), take(teacher.boxes, cells)
            if self.distributions:
                losses["loc"] = localisation_loss(
                    boxes_s, boxes_t, take(weights, cells), norm, self.student.reg_max, self.temperature
                )
            else:
                unlike = (scores_s.detach().sigmoid() - scores_t.sigmoid()).abs().amax(1)
                boxes_s, boxes_t = distances(boxes_s, self.student.reg_max), distances(boxes_t, self.teacher.reg_max)
                losses["loc"] = overlap_loss(boxes_s, boxes_t, unlike, norm)
        return losses
