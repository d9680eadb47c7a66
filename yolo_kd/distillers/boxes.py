"""Boxes of a YOLO head: where its cells are, distances from distributions, and overlaps.

Distances are left, top, right, bottom from the centre of the cell, in strides. Two boxes of the same cell can therefore
be compared without anchor points: GIoU does not depend on a common shift or scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

EPS = 1e-6  # lower bound of a union or hull in strides^2, as in BCKD's GIoU


@dataclass(frozen=True)
class Grid:
    """The cells of all levels, finest first, row-major.

    Args:
        points_net: (A, 2) centres x, y in network pixels.
        strides: (A,) pixels per cell.
        size_wh: (2,) width and height of the network's input in pixels.
    """

    points_net: Tensor
    strides: Tensor
    size_wh: Tensor

    def scale(self, xyn: Tensor) -> Tensor:
        """Shares of the picture (..., 2) in pixels."""
        return xyn * self.size_wh


def cell_grid(sizes_hw: Sequence[tuple[int, int]], strides: Sequence[int], like: Tensor) -> Grid:
    """The cells of a head.

    Args:
        sizes_hw: Height and width of each level in cells.
        strides: Pixels per cell of each level.
        like: Gives device and dtype.
    """
    points, sizes = [], []
    for (height, width), stride in zip(sizes_hw, strides):
        y = torch.arange(height, device=like.device, dtype=like.dtype) + 0.5
        x = torch.arange(width, device=like.device, dtype=like.dtype) + 0.5
        yy, xx = torch.meshgrid(y, x, indexing="ij")
        points.append(torch.stack((xx, yy), -1).view(-1, 2) * stride)
        sizes.append(x.new_full((height * width,), stride))
    (height, width), stride = sizes_hw[0], strides[0]
    return Grid(torch.cat(points), torch.cat(sizes), like.new_tensor([width * stride, height * stride]))


def bins_last(boxes: Tensor, bins: int) -> Tensor:
    """(B, 4 * bins, P) as (B, P, 4, bins)."""
    return boxes.unflatten(1, (4, bins)).permute(0, 3, 1, 2)


def distances(boxes: Tensor, bins: int) -> Tensor:
    """Expected distances of raw box outputs.

    Args:
        boxes: (B, 4 * bins, P) logits; distances themselves when bins is 1.
        bins: DFL bins per side.

    Returns:
        (B, 4, P) left, top, right, bottom in strides.
    """
    if bins == 1:
        return boxes
    probability = boxes.unflatten(1, (4, bins)).softmax(2)
    ramp = torch.arange(bins, device=boxes.device, dtype=boxes.dtype)
    return (probability * ramp[:, None]).sum(2)


def decode(distance: Tensor, points_net: Tensor, strides: Tensor) -> Tensor:
    """Boxes in pixels.

    Args:
        distance: (B, 4, P) in strides.
        points_net: (P, 2) or (B, P, 2) centres of the cells.
        strides: (P,) or (B, P).

    Returns:
        (B, P, 4) x1, y1, x2, y2.
    """
    sides = distance.mT * strides[..., None]
    return torch.cat((points_net - sides[..., :2], points_net + sides[..., 2:]), -1)


def giou_of_cells(a: Tensor, b: Tensor) -> Tensor:
    """GIoU of two boxes around the same cell.

    Args:
        a: (B, 4, P) distances left, top, right, bottom.
        b: (B, 4, P).

    Returns:
        (B, P) in [-1, 1]; boxes turned inside out count as empty.
    """
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    inter, hull = _area(low), _area(high).clamp_min(EPS)
    union = (_area(a) + _area(b) - inter).clamp_min(EPS)
    return inter / union - (hull - union) / hull


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """IoU of all pairs.

    Args:
        a: (N, 4) x1, y1, x2, y2.
        b: (M, 4).

    Returns:
        (N, M).
    """
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])
    inter = (high - low).clamp_min(0).prod(-1)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clamp_min(0).prod(-1) for x in (a, b))
    return inter / (area_a[:, None] + area_b - inter).clamp_min(EPS)


def _area(ltrb: Tensor) -> Tensor:
    return (ltrb[:, 0] + ltrb[:, 2]).clamp_min(0) * (ltrb[:, 1] + ltrb[:, 3]).clamp_min(0)
