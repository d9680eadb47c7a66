"""Weights of cells and masks from labels, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from yolo_kd.distillers.base import Targets
from yolo_kd.distillers.boxes import cell_grid
from yolo_kd.distillers.regions import (
    best_iou,
    cell_weights,
    cells_in_boxes,
    gaussian_mask,
    normaliser,
    ring_mask,
    take,
    top_cells,
)

ONE_LEVEL = cell_grid([(4, 4)], [8], torch.zeros(1))  # 32 x 32 pixels, centres at 4, 12, 20, 28


def labels(*boxes_net: tuple[float, ...], image: tuple[int, ...] = (), classes: tuple[int, ...] = ()) -> Targets:
    """Targets from centre x, centre y, width, height in pixels of a 32 x 32 picture."""
    count = len(boxes_net)
    return Targets(
        torch.tensor(boxes_net).view(-1, 4) / 32,
        torch.tensor(classes or (0,) * count),
        torch.tensor(image or (0,) * count),
    )


def test_the_weight_of_a_cell_is_the_best_probability():
    scores = torch.tensor([[0.0, -9.0], [math.log(3), -60.0], [-2.0, -9.0]])[None]  # three classes, two cells
    assert cell_weights(scores)[0].tolist() == pytest.approx([0.75, 1 / (1 + math.exp(9))])


def test_the_normaliser_sums_per_image_and_is_at_least_one():
    weights = torch.tensor([[0.5, 0.75, 1.0, 0.25], [0.1, 0.2, 0.0, 0.3]])
    assert normaliser(weights).tolist() == pytest.approx([2.5, 1.0])


def test_the_cells_with_the_highest_weight_in_each_image():
    weights = torch.tensor([[0.1, 0.9, 0.3, 0.8], [0.7, 0.0, 0.6, 0.1]])
    cells = top_cells(weights, 2)
    assert [set(row) for row in cells.tolist()] == [{1, 3}, {0, 2}]
    assert top_cells(weights, 0) is None and top_cells(weights, 4) is None
    values = torch.arange(16.0).view(2, 2, 4)
    cells = torch.tensor([[1, 3], [2, 0]])
    assert take(values, cells).tolist() == [[[1, 3], [5, 7]], [[10, 8], [14, 12]]]
    assert take(weights, cells).flatten().tolist() == pytest.approx([0.9, 0.8, 0.6, 0.7])
    assert take(values, None) is values


def test_the_gaussian_by_hand():
    # Centre on the cell (12, 12), 16 x 8 pixels: sx = .5 * 16 = 8, sy = max(.5 * 8, half a cell = 4) = 4.
    mask = gaussian_mask(labels((12, 12, 16, 8)), ONE_LEVEL, 2)
    one, two = math.exp(-0.5), math.exp(-2)  # one cell aside is one sx, one cell below two sy; beyond, .01 is cut
    assert mask[0].view(4, 4).flatten().tolist() == pytest.approx(
        [one * two, two, one * two, 0, one, 1, one, two, one * two, two, one * two, 0, 0, 0, 0, 0]
    )
    assert not mask[1].any()  # the other image has no object


def test_the_edge_of_the_box_has_the_value_that_rho_sets():
    # Box of 16 pixels, its edge 8 from the centre: rho .5 is one standard deviation, .25 two.
    box = labels((12, 12, 16, 16))
    edge = {rho: gaussian_mask(box, ONE_LEVEL, 1, rho)[0, 6].item() for rho in (0.25, 0.5, 1.0)}
    assert edge == pytest.approx({0.25: math.exp(-2), 0.5: 0.6065, 1.0: math.exp(-1 / 8)}, abs=1e-4)


def test_a_small_object_is_seen_on_the_coarsest_level():
    # 8 pixels, 12 from the centre of the only cell of stride 32: spread 16, not 4, where the mask would be .011.
    grid = cell_grid([(4, 4), (1, 1)], [8, 32], torch.zeros(1))
    mask = gaussian_mask(labels((28, 16, 8, 8)), grid, 1)
    assert mask[0, 16].item() == pytest.approx(math.exp(-0.5 * (12 / 16) ** 2))
    # On the fine level 4 is half a cell: the cells above and below are a standard deviation away.
    assert mask[0, [7, 11]].tolist() == pytest.approx([math.exp(-0.5)] * 2)


def test_overlapping_objects_take_the_maximum_and_small_values_become_zero():
    both = gaussian_mask(labels((4, 4, 8, 8), (12, 4, 8, 8)), ONE_LEVEL, 1)[0]
    each = [gaussian_mask(labels(box), ONE_LEVEL, 1)[0] for box in ((4.0, 4, 8, 8), (12.0, 4, 8, 8))]
    assert torch.equal(both, torch.maximum(*each)) and both[:2].tolist() == [1, 1]
    # Three cells away from the right one is exp(-.5 * 4^2), far below the cut of .05; two standard deviations, .135, stay.
    assert both[3] == 0 and both[2].item() == pytest.approx(math.exp(-2))
    assert both[(both > 0)].min() >= 0.05


def test_more_objects_than_are_taken_at_once():
    random = torch.Generator().manual_seed(0)
    boxes = torch.rand(150, 4, generator=random) * 0.3 + 0.1
    many = Targets(boxes, torch.zeros(150), torch.zeros(150))
    for masks in (gaussian_mask, ring_mask):
        parts = [masks(Targets(b[None], torch.zeros(1), torch.zeros(1)), ONE_LEVEL, 1) for b in boxes]
        torch.testing.assert_close(masks(many, ONE_LEVEL, 1), torch.stack(parts).amax(0))


def test_the_rings_by_hand():
    # Centre (16, 16) of 12 x 12: cells at 12 and 20 are 4 from it, those at 4 and 28 are 12; the box reaches 6, scaled
    # by 1.5 to 9 and by 2 to 12.
    mask = ring_mask(labels((16, 16, 12, 12)), ONE_LEVEL, 1)[0].view(4, 4)
    assert mask.flatten().tolist() == pytest.approx(
        [0.1, 0.1, 0.1, 0.1, 0.1, 1, 1, 0.1, 0.1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.1]
    )
    # 16 wide reaches 8, 12, 16: cells at 12 from the centre are in the middle ring; 4 high is inside by the cell's height.
    mask = ring_mask(labels((16, 12, 16, 4)), ONE_LEVEL, 1)[0].view(4, 4)
    assert mask[1].tolist() == pytest.approx([0.5, 1, 1, 0.5])
    assert not mask[[0, 2, 3]].any()


def test_a_tiny_object_is_inside_one_cell():
    inside = cells_in_boxes(torch.tensor([[13 / 32, 11 / 32, 1e-3, 1e-3]]), ONE_LEVEL)
    assert inside.nonzero().tolist() == [[0, 5]]


def test_the_best_overlap_by_hand():
    boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 16, 8], [20, 20, 30, 30]]).repeat(2, 1, 1)
    objects = labels((4, 4, 8, 8), (8, 4, 16, 8), (4, 4, 8, 8), image=(0, 0, 1), classes=(0, 1, 0))
    # Image 0: the first two boxes are objects; the second object covers the first by half and vice versa.
    best = best_iou(boxes, objects, ONE_LEVEL)
    assert best.flatten().tolist() == pytest.approx([1, 1, 0, 1, 0.5, 0])
    # Of class 1 there is the wide object in image 0 only; of class 0 the small one in both.
    classes = torch.tensor([[1, 0, 0], [1, 0, 0]])
    assert best_iou(boxes, objects, ONE_LEVEL, classes).flatten().tolist() == pytest.approx([0.5, 0.5, 0, 0, 0.5, 0])
