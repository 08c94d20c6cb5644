"""Points, assignment and boxes of FCOS, by hand and against plain loops."""

from __future__ import annotations

import math

from seg_plugins.modeling.instance_representations.fcos import weighed
from seg_plugins.modeling.instance_representations.points import (
    assign,
    box_losses,
    box_nms,
    boxes_of,
    centerness,
    level_ranges,
    points_of,
    sides_of,
)
from seg_plugins.modeling.loss_terms import Loss

import numpy as np
import pytest
import torch
import torchvision
from point_scenes import random_truth, rectangles, truth

CPU = torch.device("cpu")
STRIDES = (8, 16, 32)
SIZES = [(8, 12), (4, 6), (2, 3)]
RANGES = level_ranges([16, 32])


def test_points_are_the_centres_of_the_cells():
    points = points_of([(2, 3), (1, 2)], [8, 16], CPU)
    assert points.xy.tolist() == [
        [4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12], [8, 8], [24, 8]
    ]  # fmt: skip
    assert points.levels.tolist() == [0] * 6 + [1] * 2
    assert points.strides.tolist() == [8] * 6 + [16] * 2


def test_ranges_of_levels_meet():
    assert [(0, 16), (16, 32), (32, math.inf)] == RANGES
    assert level_ranges([]) == [(0, math.inf)]


def assigned_in_loops(points, found, radius):
    """The rule of the paper, object by object and point by point."""
    owners = []
    for (x, y), level, stride in zip(
        points.xy.tolist(), points.levels.tolist(), points.strides.tolist(), strict=True
    ):
        best, least = -1, math.inf
        for i, (x0, y0, x1, y1) in enumerate(found.boxes.tolist()):
            rows, columns = np.nonzero(found.bitmasks[i].numpy())
            if not len(rows) or not (x0 < x < x1 and y0 < y < y1):
                continue
            cx, cy = columns.mean() + 0.5, rows.mean() + 0.5
            if abs(x - cx) >= radius * stride or abs(y - cy) >= radius * stride:
                continue
            low, high = RANGES[level]
            if not low <= max(x - x0, y - y0, x1 - x, y1 - y) <= high:
                continue
            area = (x1 - x0) * (y1 - y0)
            if area < least:
                best, least = i, area
        owners.append(best)
    return owners


@pytest.mark.parametrize("seed", range(6))
def test_assignment_equals_plain_loops(seed):
    points = points_of(SIZES, STRIDES, CPU)
    found = random_truth(seed)
    owners = assign(points, found, RANGES, 1.5)
    assert owners.tolist() == assigned_in_loops(points, found, 1.5)
    assert (owners >= 0).any()


def test_nine_points_around_the_centre_of_mass():
    points = points_of([(8, 12)], [8], CPU)
    found = truth(rectangles([(16, 8, 56, 48)]))  # its centre (36, 28) is a point
    owners = assign(points, found, level_ranges([]), 1.5).reshape(8, 12)
    rows, columns = (owners == 0).nonzero().unbind(1)
    assert sorted(set(rows.tolist())) == [2, 3, 4]
    assert sorted(set(columns.tolist())) == [3, 4, 5]


def test_of_two_objects_the_smaller_box_wins_and_of_equal_ones_the_first():
    points = points_of([(4, 4)], [8], CPU)
    places = [(0, 0, 30, 30), (8, 8, 24, 24), (8, 8, 24, 24)]
    owners = assign(points, truth(rectangles(places, (32, 32))), level_ranges([]), 1.5)
    assert owners.reshape(4, 4)[1:3, 1:3].tolist() == [[1, 1], [1, 1]]
    assert owners.reshape(4, 4)[0].tolist() == [0, 0, 0, -1]  # 13 of 12 px away


def test_an_object_in_the_first_column_takes_nothing_from_the_others():
    # Peers take a first object with its centre at x = 0 for an image without any.
    places = [(0, 0, 1, 60), (40, 16, 80, 56)]
    owners = assign(points_of(SIZES, STRIDES, CPU), truth(rectangles(places)), RANGES, 1.5)
    assert set(owners.tolist()) == {-1, 1}


@pytest.mark.parametrize(
    "masks",
    [np.zeros((0, 64, 96)), np.zeros((2, 64, 96)), rectangles([(11, 11, 12, 12)])],
    ids=["none", "empty masks", "one pixel"],
)
def test_nothing_to_find(masks):
    owners = assign(points_of(SIZES, STRIDES, CPU), truth(masks), RANGES, 1.5)
    assert (owners == -1).all()


def test_boxes_are_the_inverse_of_sides():
    xy, boxes = torch.tensor([[10.0, 20.0]]), torch.tensor([[4.0, 5.0, 30.0, 40.0]])
    assert sides_of(xy, boxes).tolist() == [[6, 15, 20, 20]]
    assert torch.equal(boxes_of(xy, sides_of(xy, boxes)), boxes)


def test_box_losses_by_hand():
    one, two = torch.ones(1, 4), torch.full((1, 4), 2.0)
    assert box_losses(one, two).item() == pytest.approx(math.log(4))
    assert box_losses(one, two, "giou").item() == pytest.approx(0.75)
    assert box_losses(two, two).item() == box_losses(two, two, "giou").item() == 0
    wide, high = torch.tensor([[1.0, 0, 1, 1]]), torch.tensor([[1.0, 2, 1, 0]])
    # They share a line alone: areas 2 and 4, hull 2 x 3.
    assert box_losses(wide, high, "giou").item() == pytest.approx(1.0)


def test_giou_equals_torchvisions():
    found, wanted = torch.rand(20, 4), torch.rand(20, 4)
    xy = torch.zeros(20, 2)
    expected = torchvision.ops.generalized_box_iou_loss(boxes_of(xy, found), boxes_of(xy, wanted))
    torch.testing.assert_close(box_losses(found, wanted, "giou"), expected)


@pytest.mark.parametrize("kind", ["iou", "giou"])
def test_a_box_without_area_has_a_finite_loss_and_gradient(kind):
    found = torch.zeros(3, 4, requires_grad=True)
    loss = box_losses(found, torch.rand(3, 4) + 0.1, kind).sum()
    loss.backward()
    assert loss.isfinite()
    assert found.grad.isfinite().all()


def test_centerness_by_hand():
    sides = torch.tensor([[1.0, 2, 4, 2], [3, 3, 3, 3], [0, 1, 4, 1]])
    assert centerness(sides).tolist() == [0.5, 1, 0]


def test_box_nms_equals_that_of_each_class():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(200, 2, generator=generator) * 80 - 10
    boxes = torch.cat([corner, corner + torch.rand(200, 2, generator=generator) * 60], dim=1)
    scores = torch.rand(200, generator=generator)
    classes = torch.randint(4, (200,), generator=generator)
    cut = torchvision.ops.clip_boxes_to_image(boxes, (64, 96))
    expected = set()
    for label in range(4):
        own = (classes == label).nonzero()[:, 0]
        expected |= set(own[torchvision.ops.nms(cut[own], scores[own], 0.5)].tolist())
    kept = box_nms(boxes, scores, classes, 0.5, (64, 96))
    assert set(kept.tolist()) == expected
    assert len(kept) < 200
    assert (scores[kept].diff() <= 0).all()
    nothing = torch.zeros(0, dtype=torch.int64)
    assert len(box_nms(torch.zeros(0, 4), torch.zeros(0), nothing, 0.5, (64, 96))) == 0


def test_boxes_without_area_stay():
    kept = box_nms(torch.zeros(3, 4), torch.rand(3), torch.zeros(3, dtype=torch.int64), 0.5, (8, 8))
    assert sorted(kept.tolist()) == [0, 1, 2]


def test_a_mean_by_weights_that_sum_to_less_than_one():
    loss = Loss.of(weighed(torch.tensor([2.0, 4.0]), torch.tensor([0.1, 0.3])))
    assert loss.value.item() == pytest.approx(3.5)
    assert Loss.of(weighed(torch.zeros(0), torch.zeros(0))).value.item() == 0


def test_nms_follows_the_size_of_the_image_where_it_is_traced():
    """An exported file is traced on one size, and used on all."""

    class OfImage(torch.nn.Module):
        def forward(self, image, boxes, scores, classes):
            size = (image.shape[-2], image.shape[-1])
            return box_nms(boxes, scores, classes, 0.5, size)

    def case(height, width):
        generator = torch.Generator().manual_seed(height)
        middles = torch.rand(60, 2, generator=generator) * torch.tensor([width, height])
        halves = torch.rand(60, 2, generator=generator) * 40 + 20
        boxes = torch.cat([middles - halves, middles + halves], dim=1)
        scores = torch.rand(60, generator=generator)
        classes = torch.randint(0, 6, (60,), generator=generator)
        return torch.zeros(3, height, width), boxes, scores, classes

    traced = torch.jit.trace(OfImage(), case(128, 128), check_trace=False)
    for size in ((97, 300), (400, 90)):
        assert traced(*case(*size)).equal(OfImage()(*case(*size)))
