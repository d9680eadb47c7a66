"""Criss-cross attention: every cell looks along its row and its column.

Paper: Huang, Wang, Huang, Huang, Wei, Liu, "CCNet: Criss-Cross Attention for Semantic Segmentation", ICCV 2019,
https://arxiv.org/abs/1811.11721. Written afresh from the formula:

energies e(u, v) = q_u . k_v for the H + W - 1 cells v in the row or the column of u (the cell itself counts once, in
the row), a = softmax over those, out_u = sum_v a(u, v) v_v. There is no 1 / sqrt(d). Two passes reach every cell.

The row and the column half are never joined: each keeps its exponentials, and both share the maximum and the sum of one
softmax. So one (B, H, W, H + W) copy is kept for the backward pass instead of three.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def criss_cross_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention over row and column.

    Args:
        query: (B, D, H, W).
        key: (B, D, H, W).
        value: (B, C, H, W).

    Returns:
        (B, C, H, W).
    """
    q, k, v = (x.permute(0, 2, 3, 1) for x in (query, key, value))  # (B, H, W, channels)
    q_col, k_col, v_col = (x.transpose(1, 2) for x in (q, k, v))  # (B, W, H, channels)
    row = q @ k.mT  # (B, H, W, W): cell (h, w) with (h, j)
    col = q_col @ k_col.mT  # (B, W, H, H): cell (h, w) with (g, w)
    itself = torch.eye(col.shape[-1], dtype=torch.bool, device=col.device)
    col = col.masked_fill(itself, float("-inf"))
    top = torch.maximum(row.detach().amax(-1, keepdim=True), col.detach().amax(-1, keepdim=True).transpose(1, 2))
    row = (row - top).exp()
    col = (col - top.transpose(1, 2)).exp()
    total = row.sum(-1, keepdim=True) + col.sum(-1, keepdim=True).transpose(1, 2)
    out = (row @ v + (col @ v_col).transpose(1, 2)) / total
    return out.permute(0, 3, 1, 2)


def affinity_attention(x: Tensor, tau: float = 0.1, eps: float = 1e-6) -> Tensor:
    """Criss-cross attention without parameters: a cell gathers from the cells that look like it.

    Args:
        x: (B, C, H, W).
        tau: Temperature of the cosine similarities.
        eps: Lower bound of the norm of a cell's vector.

    Returns:
        (B, C, H, W).
    """
    unit = F.normalize(x, dim=1, eps=eps)
    return criss_cross_attention(unit / tau, unit, x)


class CrissCrossBlock(nn.Module):
    """CCNet's block: 1x1 convolutions to query, key (C / reduction) and value, then gamma * attention + x.

    The weights are left as they are made: the owner initialises them.
    """

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        inner = max(channels // reduction, 1)
        self.query_conv = nn.utils.skip_init(nn.Conv2d, channels, inner, 1)
        self.key_conv = nn.utils.skip_init(nn.Conv2d, channels, inner, 1)
        self.value_conv = nn.utils.skip_init(nn.Conv2d, channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        return self.gamma * criss_cross_attention(self.query_conv(x), self.key_conv(x), self.value_conv(x)) + x
