"""LQE: localisation quality distillation, the third part of PCD.

Paper: Song, Zhang, Huang, Zha, You, Zhang, "'Parallel-Circuitized' distillation for dense object detection", Displays
81, 2024, https://doi.org/10.1016/j.displa.2023.102587 (abstract only); the predictors are in quality.py. Published
gain: none found; as a score at inference GFLV2's predictor is worth +0.8 AP on COCO.

In words: a predictor Q, fitted once to the teacher, says from the shape of the teacher's box distributions how well a
box will overlap its object. During training q_t = Q(teacher), q_s = Q(student), and the term is the sum over cells of w
x |q_s - q_t| x binary cross-entropy(q_s, q_t), / N, averaged over the images; w and N as in pcd.py. So the student
becomes as sure of a box as the teacher is. It says nothing about where the box is: an addition to `pcd.loc`, no
replacement.

What is ours: no YOLO teacher has a quality predictor, so we fit one (the teacher stays as it is); it is frozen
afterwards and shared by the student (`student_predictor=shared`), whose graph and size do not change.
`student_predictor=own` trains a predictor of the student's own beside it, which starts as a copy and is dropped after
training. The target of the fit is the best overlap of the teacher's box with an object of the cell's best class, as
there is no label assignment here. `form=yolo` looks at the `top` cells with the highest w of each image.

Heads without bins (reg_max 1, as YOLO26's) have no shape that a predictor could read. Where one of the two is such a
head q_t = w, and q_s is the student's highest probability of a shared class: the term then acts on the scores.

`form=paper` is the closest reading of the abstract: the student has a predictor of its own that learns beside it, as in
GFLV2, and all cells count. Left out in both forms: the quality as a factor of the score at inference (`product`), since
the student would be no plain model any more; and what would carry the quality into the class branch, as a factor of the
teacher's class targets (kappa) or as a target of its own, since no head here gives such a score. So what the abstract
calls the bridge between the two branches is w alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from yolo_kd.distillers.adapters import generator
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
from yolo_kd.distillers.boxes import Grid, bins_last, cell_grid, decode, distances
from yolo_kd.distillers.quality import PREDICTORS
from yolo_kd.distillers.readers import Reader, read_by
from yolo_kd.distillers.regions import best_iou, cell_weights, normaliser, take, top_cells
from yolo_kd.errors import YoloKDError


def quality_loss(student: Tensor, teacher: Tensor, weights: Tensor, norm: Tensor) -> Tensor:
    """Binary cross-entropy against the teacher's quality, focal in the difference; minimal at equality.

    Args:
        student: (B, P) logits of the quality.
        teacher: (B, P) qualities in (0, 1).
        weights: (B, P).
        norm: (B,).
    """
    loss = (student.sigmoid() - teacher).abs() * F.binary_cross_entropy_with_logits(student, teacher, reduction="none")
    return ((weights * loss).sum(1) / norm).mean()


def quality_focal_loss(logits: Tensor, overlap: Tensor) -> Tensor:
    """|u - q|^2 x binary cross-entropy(q, u), mean over all; how a predictor learns.

    Args:
        logits: (...) of the quality.
        overlap: (...) IoU u with the object.
    """
    bce = F.binary_cross_entropy_with_logits(logits, overlap, reduction="none")
    return ((overlap - logits.sigmoid()).square() * bce).mean()


class LQE(Distiller):
    """Term `lqe`. Call `fit`, or `load_fit_state` with a stored fit, before the first step.

    With `student_predictor="own"` the term's value is the distillation alone; the gradient also trains the student's
    predictor (not the student) on the overlap with the objects.

    Args:
        form: "yolo", or "paper" for a predictor of the student's own and all cells.
        kind: "soft" (SDGQP) or "hard" (DGQP).
        student_predictor: "shared" or "own".
        top: Cells per image; 0 is all.
        seed: Of the predictor's initial weights.
    """

    terms = ("lqe",)
    acts_on: ClassVar[Mapping[str, str]] = {"lqe": "boxes"}
    readers: ClassVar[Mapping[str, Reader]] = {
        "form": read_by("lqe"),
        "kind": read_by("lqe"),
        "student_predictor": read_by("lqe", form="yolo"),
        "top": read_by("lqe", form="yolo"),
        "seed": read_by("lqe"),
    }

    fitted: Tensor

    def __init__(
        self,
        student: HeadSpec,
        teacher: HeadSpec,
        classes: ClassMap,
        *,
        form: str = "yolo",
        kind: str = "soft",
        student_predictor: str = "shared",
        top: int = 500,
        seed: int = 0,
    ) -> None:
        super().__init__(student, teacher, classes)
        make = PREDICTORS[choose("lqe.kind", kind, PREDICTORS)]
        self.predictor = make(teacher.reg_max, generator(seed)).requires_grad_(False)
        paper = choose("lqe.form", form, ("yolo", "paper")) == "paper"
        own = choose("lqe.student_predictor", student_predictor, ("shared", "own")) == "own" or paper
        self.of_scores = min(student.reg_max, teacher.reg_max) == 1
        self.own = copy.deepcopy(self.predictor).requires_grad_(True) if own and not self.of_scores else None
        self.top = 0 if paper else int(at_least("lqe.top", top, 0))
        self.register_buffer("fitted", torch.tensor(False))

    @property
    def needs_fit(self) -> bool:
        """Whether there is a predictor."""
        return not self.of_scores

    def where(self, term: str) -> str:
        """The boxes, or where they have no distributions the scores."""
        return "scores" if self.of_scores else super().where(term)

    def notes(self) -> tuple[str, ...]:
        """That there is no predictor."""
        if not self.of_scores:
            return ()
        return ("lqe.lqe: no box distributions with reg_max=1, so the highest class probability counts as the quality",)

    def unread(self) -> dict[str, str]:
        """All that is of the predictor, where there is none."""
        reason = "there is no predictor with reg_max=1"
        return dict.fromkeys(("kind", "student_predictor", "seed"), reason) if self.of_scores else {}

    def off(self) -> dict[str, str]:
        """One predictor reads the distributions of both heads, so they must have the same bins, or one of them none."""
        if not self.shared:
            return {"lqe": "student and teacher share no class name"}
        s, t = self.student.reg_max, self.teacher.reg_max
        if s == t or self.of_scores:
            return {}
        return {"lqe": f"needs equal box distributions, but reg_max is {s} (student) and {t} (teacher)"}

    def fit_state(self) -> dict[str, Tensor]:
        """The fitted predictor, to be stored beside the teacher."""
        return {key: value.detach().clone() for key, value in self.predictor.state_dict().items()}

    def load_fit_state(self, state: dict[str, Tensor]) -> None:
        """Take over a stored predictor instead of `fit`."""
        self.predictor.load_state_dict(state)
        if self.own is not None:
            self.own.load_state_dict(state)
        self.fitted.fill_(True)

    def fit(
        self,
        batches: Iterable[tuple[HeadOutput, Targets]],
        *,
        steps: int = 600,
        seed: int = 0,
        lr: float = 3e-3,
        candidates: int = 200,
        max_rows: int = 60_000,
        batch_rows: int = 2048,
    ) -> dict[str, float]:
        """Fit the predictor to the teacher: gather cells once, then train on them.

        Of the `candidates` cells with the highest w of each image, those whose box overlaps an object of the cell's
        best class are kept with that IoU as target, and as many of the highest others with target 0.

        Args:
            batches: The teacher's output and the labels (student class ids); read only until there are enough cells.
            steps: Of Adam, the learning rate falling linearly.
            seed: Of the draws; the same batches and seed give the same predictor.
            lr: First learning rate.
            candidates: Cells per image.
            max_rows: Stop reading batches at this many cells.
            batch_rows: Cells per step.

        Returns:
            rows, positives (share), mean_iou (of the positives), loss, and the correlation of quality and IoU.
        """
        if self.off() or not self.needs_fit:
            return {}
        rows, overlaps, count = [], [], 0
        with torch.no_grad():
            for teacher, targets in batches:
                for branch in teacher.branches.values():
                    row, overlap = self._fit_rows(branch, teacher, targets, candidates)
                    rows.append(row)
                    overlaps.append(overlap)
                    count += len(row)
                if count >= max_rows:
                    break
        if count == 0:
            raise YoloKDError(
                "lqe found no box of the teacher on an object of its class; check classes and labels, or leave it out with "
                "lqe.lqe=none"
            )
        logits, target = torch.cat(rows), torch.cat(overlaps)
        with torch.inference_mode(False), torch.enable_grad():
            self._train(logits.clone(), target.clone(), steps, seed, lr, batch_rows)
        self.load_fit_state(self.fit_state())
        with torch.no_grad():
            out = self.predictor(logits)
            both = torch.stack((out.sigmoid(), target))
            found = target > 0
            return {
                "rows": float(count),
                "positives": float(found.float().mean()),
                "mean_iou": float(target[found].mean()),
                "loss": float(quality_focal_loss(out, target)),
                "correlation": float(torch.corrcoef(both)[0, 1]),
            }

    def forward(self, student: HeadOutput, teacher: HeadOutput, targets: Targets) -> dict[str, Tensor]:
        """The term `lqe`."""
        if not self.active():
            return {}
        if self.needs_fit and not self.fitted:
            raise YoloKDError("lqe has no quality predictor yet; call fit() or load_fit_state() before the first step")
        losses = [share * self._branch(s, t, student, targets) for s, t, share in pair_branches(student, teacher)]
        return {"lqe": torch.stack(losses).sum()}

    def _branch(self, student: Branch, teacher: Branch, output: HeadOutput, targets: Targets) -> Tensor:
        scores = self.shared_teacher(teacher.scores)
        all_weights = cell_weights(scores)
        cells = top_cells(all_weights, self.top)
        weights, norm = take(all_weights, cells), normaliser(all_weights)
        if self.of_scores:
            best = take(self.shared_student(student.scores).amax(1), cells)
            return quality_loss(best, weights, weights, norm)
        bins, boxes = self.student.reg_max, take(student.boxes, cells)
        with torch.no_grad():
            quality = self.predictor(bins_last(take(teacher.boxes, cells), bins)).sigmoid()
        if self.own is None:
            return quality_loss(self.predictor(bins_last(boxes, bins)), quality, weights, norm)
        loss = quality_loss(self.own(bins_last(boxes, bins)), quality, weights, norm)
        overlap = self._overlap(boxes.detach(), take(scores, cells), cells, output, targets, self.student)
        # a mean over no image is not a number, and every weight has to take part
        seen = targets.labelled if targets.labelled is not None else len(boxes)
        learning = quality_focal_loss(
            self.own(bins_last(boxes[: max(seen, 1)].detach(), bins)), overlap[: max(seen, 1)]
        )
        learning = learning * min(seen, 1)
        return loss + learning - learning.detach()

    @torch.no_grad()
    def _overlap(
        self,
        boxes: Tensor,
        scores: Tensor,
        cells: Tensor | None,
        output: HeadOutput,
        targets: Targets,
        spec: HeadSpec,
    ) -> Tensor:
        """IoU (B, P) of the boxes (B, 4 * bins, P) with the best object of the cell's best shared class."""
        grid: Grid = cell_grid(output.sizes_hw, spec.strides, boxes)
        points, strides = grid.points_net, grid.strides
        if cells is not None:
            points, strides = points[cells], strides[cells]
        classes = self.student_classes[scores.argmax(1)]
        return best_iou(decode(distances(boxes, spec.reg_max), points, strides), targets, grid, classes)

    def _fit_rows(
        self, branch: Branch, teacher: HeadOutput, targets: Targets, candidates: int
    ) -> tuple[Tensor, Tensor]:
        scores = self.shared_teacher(branch.scores).float()
        weights = cell_weights(scores)
        cells = weights.topk(min(candidates, weights.shape[1]), 1).indices
        boxes = take(branch.boxes.float(), cells)
        overlap = self._overlap(boxes, take(scores, cells), cells, teacher, targets, self.teacher)
        found = overlap > 0
        order = take(weights, cells).masked_fill(found, -1.0).argsort(dim=1, descending=True, stable=True)
        rank = order.argsort(1)  # of the others, by weight
        kept = found | (rank < found.sum(1, keepdim=True).clamp_max((~found).sum(1, keepdim=True)))
        return bins_last(boxes, self.teacher.reg_max)[kept], overlap[kept]

    def _train(self, logits: Tensor, target: Tensor, steps: int, seed: int, lr: float, batch_rows: int) -> None:
        random = generator(seed)
        self.predictor.requires_grad_(True)
        optimizer = torch.optim.Adam(self.predictor.parameters(), lr)
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
            drawn = torch.randint(len(logits), (min(batch_rows, len(logits)),), generator=random).to(logits.device)
            optimizer.zero_grad()
            quality_focal_loss(self.predictor(logits[drawn]), target[drawn]).backward()
            optimizer.step()
        self.predictor.zero_grad()
        self.predictor.requires_grad_(False)
