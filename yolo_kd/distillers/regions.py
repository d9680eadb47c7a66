"""Where to look: the teacher's weight of each cell, the cells with the highest weight, and masks from the labels.

Cells of all levels are concatenated, finest level first, row-major: A in all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from yolo_kd.distillers.base import Targets
from yolo_kd.distillers.boxes import Grid, pairwise_iou


def cell_weights(scores: Tensor) -> Tensor:
    """w_a: the teacher's highest probability of a shared class in each cell.

    Args:
        scores: (B, K, A) class logits of the teacher, shared classes only.

    Returns:
        (B, A).
    """
    return scores.amax(1).sigmoid()


def normaliser(weights: Tensor) -> Tensor:
    """N_w of each image: the sum of all its weights (B, A), but at least 1; (B,)."""
    return weights.sum(1).clamp_min(1.0)


def top_cells(weights: Tensor, top: int) -> Tensor | None:
    """Indices (B, top) of the cells with the highest weight (B, A) in each image; None if that is all of them."""
    return None if top <= 0 or top >= weights.shape[1] else weights.topk(top, 1, sorted=False).indices


def take(x: Tensor, cells: Tensor | None) -> Tensor:
    """The given cells.

    Args:
        x: (B, C, A) or (B, A).
        cells: (B, P), or None for all.

    Returns:
        (B, C, P) or (B, P).
    """
    if cells is None:
        return x
    return x.gather(-1, cells if x.ndim == 2 else cells[:, None].expand(-1, x.shape[1], -1))


def gaussian_mask(targets: Targets, grid: Grid, images: int, rho: float = 0.5, cut: float = 0.05) -> Tensor:
    """1 at the centre of an object, falling off beyond its box; the maximum over the objects of an image.

    exp(-d^2 / 2) with d in units of sx = max(rho * width, half a cell) and sy alike. Without the bound of half a cell
    an 8 px box would be 1e-14 everywhere on a level of stride 32. At rho 0.5 the edge of the box has 0.61.

    Args:
        targets: The labels.
        grid: Where the cells are.
        images: Number of images B.
        rho: Standard deviation as a share of the box.
        cut: Smaller values become 0.

    Returns:
        (B, A) in [0, 1].
    """
    mask = grid.points_net.new_zeros(images, len(grid.points_net))
    half_cell = grid.strides / 2  # (A,)
    for image, boxes, _ in objects_by_image(targets, images):
        centre, size = grid.scale(boxes[:, :2]), grid.scale(boxes[:, 2:]) * rho
        nearest = mask.new_full((len(grid.points_net),), float("inf"))
        for part in torch.arange(len(boxes), device=boxes.device).split(64):  # (64, 8400) floats are 2 MB
            offset = grid.points_net - centre[part, None]  # (m, A, 2)
            spread = torch.maximum(size[part, None], half_cell[:, None])
            nearest = torch.minimum(nearest, (offset / spread).square().sum(-1).amin(0))
        mask[image] = (-0.5 * nearest).exp()
    return mask * (mask >= cut)


def ring_mask(targets: Targets, grid: Grid, images: int) -> Tensor:
    """1 inside a box, 0.5 inside the box scaled by 1.5, 0.1 inside the box scaled by 2, else 0.

    The cell that holds the centre of an object counts as inside, however small the object.

    Args:
        targets: The labels.
        grid: Where the cells are.
        images: Number of images B.

    Returns:
        (B, A).
    """
    mask = grid.points_net.new_zeros(images, len(grid.points_net))
    for image, boxes, _ in objects_by_image(targets, images):
        for part in boxes.split(64):
            for factor, value in ((2.0, 0.1), (1.5, 0.5), (1.0, 1.0)):
                inside = cells_in_boxes(part, grid, factor).any(0)
                mask[image] = torch.maximum(mask[image], inside * value)
    return mask


def cells_in_boxes(boxes_xywhn: Tensor, grid: Grid, factor: float = 1.0) -> Tensor:
    """Which cell centres lie in which box.

    Args:
        boxes_xywhn: (M, 4).
        grid: Where the cells are.
        factor: Scales the boxes about their centres.

    Returns:
        (M, A) bool; on every level at least the cell that holds the centre of the box.
    """
    offset = (grid.points_net - grid.scale(boxes_xywhn[:, None, :2])).abs()
    reach = torch.maximum(grid.scale(boxes_xywhn[:, None, 2:]) * factor, grid.strides[:, None]) / 2
    return (offset <= reach).all(-1)


def best_iou(boxes_net: Tensor, targets: Targets, grid: Grid, classes: Tensor | None = None) -> Tensor:
    """Highest overlap of each box with an object of its image.

    Args:
        boxes_net: (B, P, 4) x1, y1, x2, y2 in network pixels.
        targets: The labels.
        grid: Knows the size of the network's input.
        classes: (B, P) student class ids; only objects of the same class count.

    Returns:
        (B, P); 0 without such an object.
    """
    best = boxes_net.new_zeros(boxes_net.shape[:2])
    for image, boxes, names in objects_by_image(targets, len(boxes_net)):
        centre, half = grid.scale(boxes[:, :2]), grid.scale(boxes[:, 2:]) / 2
        iou = pairwise_iou(boxes_net[image], torch.cat((centre - half, centre + half), 1))
        if classes is not None:
            iou = iou * (classes[image][:, None] == names)
        best[image] = iou.amax(1)
    return best


def objects_by_image(targets: Targets, images: int) -> list[tuple[int, Tensor, Tensor]]:
    """(image, boxes_xywhn, classes) of every image that has objects."""
    order = targets.image.long().argsort(stable=True)
    counts = torch.bincount(targets.image.long(), minlength=images).tolist()
    boxes, classes = targets.boxes_xywhn.float()[order].split(counts), targets.classes[order].long().split(counts)
    return [(i, b, c.view(-1)) for i, (b, c) in enumerate(zip(boxes, classes)) if len(b)]
