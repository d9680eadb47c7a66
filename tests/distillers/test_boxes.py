"""Cells, distances, boxes and overlaps, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from yolo_kd.distillers.boxes import bins_last, cell_grid, decode, distances, giou_of_cells, pairwise_iou


def cell(*ltrb: float) -> torch.Tensor:
    return torch.tensor(ltrb).view(1, 4, 1)


def giou(a: torch.Tensor, b: torch.Tensor) -> float:
    return giou_of_cells(a, b).item()


def test_cells_are_row_major_finest_level_first_at_half_cells():
    grid = cell_grid([(2, 3), (1, 2)], [8, 16], torch.zeros(1))
    assert grid.points_net.tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]]
    assert grid.strides.tolist() == [8] * 6 + [16] * 2
    assert grid.size_wh.tolist() == [24, 16]
    assert grid.scale(torch.tensor([0.5, 0.25])).tolist() == [12, 4]


def test_bins_are_contiguous_per_side():
    boxes = torch.arange(12.0).view(1, 12, 1).repeat(1, 1, 2)  # 4 sides of 3 bins, two cells
    assert bins_last(boxes, 3)[0, 1].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_a_distance_is_the_mean_of_bins_that_count_from_zero():
    # Bins 0, 1, 2 of each side with probabilities 1/4 1/2 1/4, 1 0 0, 0 0 1, 1/8 1/8 3/4.
    p = torch.tensor([[1 / 4, 1 / 2, 1 / 4], [1, 0, 0], [0, 0, 1], [1 / 8, 1 / 8, 3 / 4]])
    logits = p.clamp_min(1e-30).log().view(1, 12, 1)
    assert distances(logits, 3).flatten().tolist() == pytest.approx([1, 0, 2, 13 / 8])
    assert torch.equal(distances(cell(1, 2, 3, 4), 1), cell(1, 2, 3, 4))


@pytest.mark.parametrize("name", ["dgqp_default", "dgqp_16bins", "dgqp_deg_sharp", "dgqp_deg_1x1"])
def test_distances_agree_with_the_authors_code(name, fake):
    case = fake.Golden(name)
    found = distances(case.tensor("in.reg_logits").flatten(2), int(case.number("reg_max")) + 1)
    case.compare("out.distance", found.mT)


def test_left_and_top_are_subtracted_right_and_bottom_added():
    distance = torch.tensor([[1.0, 2, 3, 4], [0.5, 0, 0, 0.25]]).T[None]  # two cells
    points, strides = torch.tensor([[20.0, 40], [16, 16]]), torch.tensor([8.0, 32])
    want = [[20 - 8, 40 - 16, 20 + 24, 40 + 32], [16 - 16, 16, 16, 16 + 8]]
    assert decode(distance, points, strides)[0].tolist() == want
    per_image = decode(distance.repeat(2, 1, 1), points.repeat(2, 1, 1), strides.repeat(2, 1))
    assert per_image[1].tolist() == want


def test_giou_by_hand():
    # 2 x 2 and 4 x 1 strides: 2 x 1 in common, union 4 + 4 - 2 = 6, hull 4 x 2 = 8.
    assert giou(cell(1, 1, 1, 1), cell(3, 0, 1, 1)) == pytest.approx(2 / 6 - (8 - 6) / 8)
    assert giou(cell(1, 2, 3, 4), cell(1, 2, 3, 4)) == pytest.approx(1)
    # Neither holds the centre of the cell: 1 x 2 to the left and to the right of it, hull 6 x 2.
    assert giou(cell(3, 1, -2, 1), cell(-2, 1, 3, 1)) == pytest.approx(0 - (12 - 4) / 12)
    # Turned inside out: empty; 2 x 2 is the union and the hull.
    assert giou(cell(1, 1, 1, 1), cell(-1, -1, -1, -1)) == pytest.approx(0)


def test_giou_ignores_order_scale_and_mirroring():
    random = torch.Generator().manual_seed(0)
    a, b = (torch.rand(3, 4, 5, generator=random) * 3 for _ in range(2))
    want = giou_of_cells(a, b)
    torch.testing.assert_close(giou_of_cells(b, a), want)
    torch.testing.assert_close(giou_of_cells(a * 7, b * 7), want)
    mirrored = [2, 1, 0, 3]
    torch.testing.assert_close(giou_of_cells(a[:, mirrored], b[:, mirrored]), want)
    assert (want >= -1).all() and (want <= 1).all()


def test_all_pairs_by_hand():
    a = torch.tensor([[0.0, 0, 4, 2], [10, 10, 12, 12]])
    b = torch.tensor([[2.0, 1, 6, 3], [0, 0, 4, 2], [11, 11, 11, 11]])
    # First pair: 2 x 1 in common, 8 + 8 - 2 in the union; the last box of b is empty.
    assert pairwise_iou(a, b).flatten().tolist() == pytest.approx([2 / 14, 1, 0, 0, 0, 0])
    assert math.isclose(pairwise_iou(a, a).trace().item(), 2)
