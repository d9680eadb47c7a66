"""How far an engine's outputs are from the float32 teacher's, in numbers that the student would notice."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from yolo_kd.distillers.base import HeadOutput

# A cell counts where the teacher says something. Over all cells and classes the largest difference of any probability
# is an extreme value of millions: bf16 shows .17, .12 and .55 on YOLOv8-n, 11-n and 26-n (16 pictures and 16 mosaics at
# 384 px), so a limit on it refuses bf16 before it tells a noisy engine. The 99th percentile of these cells is .04, .03,
# .06 for bf16 and .26, .23, .30 for plain INT8.
CONFIDENT = 0.05
MIN_CELLS = 100
QUANTILE = 0.99


@dataclass(frozen=True)
class Agreement:
    """Errors of an engine against float32.

    Args:
        features: ||a - b|| / ||b|| of each neck map, finest level first.
        score: 99th percentile, over the cells where the teacher is confident, of the largest class difference.
        score_mean: Mean difference of all class probabilities, weighted by the float32 probability.
        score_max: Largest difference of any class probability.
    """

    features: tuple[float, ...]
    score: float
    score_mean: float = 0.0
    score_max: float = 0.0


def compare(reference: Sequence[HeadOutput], found: Sequence[HeadOutput]) -> Agreement:
    """Agreement over several batches; of a head with two branches the worse one counts.

    Args:
        reference: Outputs of the float32 net, one per batch.
        found: Outputs of the engine for the same batches.
    """
    levels = range(len(reference[0].feats))
    features = tuple(relative_error([r.feats[i] for r in reference], [f.feats[i] for f in found]) for i in levels)
    branches = [
        score_errors([r.branches[b].scores for r in reference], [f.branches[b].scores for f in found])
        for b in reference[0].branches
    ]
    worst = [max(column, key=lambda x: math.inf if math.isnan(x) else x) for column in zip(*branches, strict=True)]
    return Agreement(features, *worst)


def relative_error(reference: Sequence[Tensor], found: Sequence[Tensor]) -> float:
    """||found - reference|| / ||reference|| over all tensors; not a number if either is not finite.

    >>> relative_error([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 3.0])])
    0.2
    """
    off = sum(float((f - r).cpu().double().square().sum()) for r, f in zip(reference, found, strict=True))
    size = sum(float(r.cpu().double().square().sum()) for r in reference)
    return math.sqrt(off / size) if size else (math.inf if off else 0.0)


def score_errors(reference: Sequence[Tensor], found: Sequence[Tensor]) -> tuple[float, float, float]:
    """`score`, `score_mean` and `score_max` of an Agreement.

    Args:
        reference: Class logits (B, nc, A) of the float32 net, one per batch.
        found: The engine's.
    """
    best, worst, weighted, weights = [], [], 0.0, 0.0
    for r, f in zip(reference, found, strict=True):
        p, off = r.sigmoid(), (f.sigmoid() - r.sigmoid()).abs()
        best.append(p.amax(1).flatten())
        worst.append(off.amax(1).flatten())
        weighted += float((p * off).cpu().double().sum())
        weights += float(p.cpu().double().sum())
    confidence, difference = torch.cat(best), torch.cat(worst)
    cells = max(MIN_CELLS, int((confidence >= CONFIDENT).sum()))
    counted = difference[confidence.topk(min(cells, len(confidence))).indices].sort().values
    at = min(math.ceil(QUANTILE * len(counted)), len(counted)) - 1
    return float(counted[at]), weighted / weights, float(difference.max())
