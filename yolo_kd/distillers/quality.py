"""Predictors of localisation quality from the shape of the box distributions.

A sharp distribution means a sure box. DGQP (Li, Wang, Hu, Li, Tang, Yang, "Generalized Focal Loss V2", CVPR 2021,
https://arxiv.org/abs/2011.12885) takes the four highest bins of each side and their mean to a small network. SDGQP
("soft", https://doi.org/10.1016/j.displa.2023.102587) "dynamically selects" the statistics; its inside is not public.
Ours lets the sorted distribution itself choose how many bins count: a small network gives a size k in 1..bins, bin j of
the sorted ones counts with sigmoid((k - j + 0.5) / 0.5), and the statistics are those gated bins and their weighted
mean.

Both see only sorted probabilities: they know how sure a box is, and nothing about where it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from yolo_kd.distillers.adapters import draw

SOFTNESS = 0.5  # of the gate; towards 0 it is a hard top-k. At 0.5 a size of 4 lets 4.0 bins through


def dgqp_statistics(probability: Tensor, topk: int = 4, mean: bool = True) -> Tensor:
    """The highest bins of each side in descending order, then their mean.

    Args:
        probability: (..., 4, bins).
        topk: How many.
        mean: Add their mean.

    Returns:
        (..., 4 * (topk + mean)), side by side.
    """
    top = probability.topk(topk, -1).values
    return (torch.cat((top, top.mean(-1, keepdim=True)), -1) if mean else top).flatten(-2)


def sdgqp_statistics(ordered: Tensor, size: Tensor) -> Tensor:
    """The bins of each side behind a soft gate, then their weighted mean.

    Args:
        ordered: (..., 4, bins) probabilities in descending order.
        size: (..., 4, 1) how many bins count, 1..bins.

    Returns:
        (..., 4 * (bins + 1)), side by side.
    """
    rank = torch.arange(1, ordered.shape[-1] + 1, device=ordered.device, dtype=ordered.dtype)
    gate = torch.sigmoid((size - rank + 0.5) / SOFTNESS)
    kept = gate * ordered
    return torch.cat((kept, kept.sum(-1, keepdim=True) / gate.sum(-1, keepdim=True)), -1).flatten(-2)


class DGQP(nn.Module):
    """Hard top-k statistics, linear, ReLU, linear.

    Args:
        bins: DFL bins per side.
        random: Source of the initial weights.
        topk: Bins per side.
        mean: Add their mean.
        hidden: Hidden units.
    """

    def __init__(self, bins: int, random: torch.Generator, topk: int = 4, mean: bool = True, hidden: int = 64) -> None:
        super().__init__()
        self.topk, self.mean = min(topk, bins), mean
        self.reg_conf = _mlp(4 * (self.topk + mean), hidden, random)

    def forward(self, logits: Tensor) -> Tensor:
        """Box logits (..., 4, bins) to the logit (...) of the quality."""
        return self.reg_conf(dgqp_statistics(logits.softmax(-1), self.topk, self.mean)).squeeze(-1)


class SDGQP(nn.Module):
    """Statistics behind a gate that the distribution sets itself, linear, ReLU, linear.

    Args:
        bins: DFL bins per side.
        random: Source of the initial weights.
        hidden: Hidden units.
    """

    def __init__(self, bins: int, random: torch.Generator, hidden: int = 64) -> None:
        super().__init__()
        self.bins = bins
        self.size = _mlp(bins, 8, random)
        self.reg_conf = _mlp(4 * (bins + 1), hidden, random)

    def forward(self, logits: Tensor) -> Tensor:
        """Box logits (..., 4, bins) to the logit (...) of the quality."""
        ordered = logits.softmax(-1).sort(-1, descending=True).values
        size = 1 + (self.bins - 1) * self.size(ordered).sigmoid()
        return self.reg_conf(sdgqp_statistics(ordered, size)).squeeze(-1)


PREDICTORS: dict[str, type[DGQP] | type[SDGQP]] = {"soft": SDGQP, "hard": DGQP}


def _mlp(inputs: int, hidden: int, random: torch.Generator) -> nn.Sequential:
    layers = nn.Sequential(
        nn.utils.skip_init(nn.Linear, inputs, hidden), nn.ReLU(), nn.utils.skip_init(nn.Linear, hidden, 1)
    )
    draw(layers[0], random)
    draw(layers[2], random)
    return layers
