"""Anchors: where they lie, how boxes are coded, and which object each has to find."""

from __future__ import annotations

import math

from seg_plugins.modeling.instance_representations.anchors import (
    BACKGROUND,
    LEFT_OUT,
    anchor_sides,
    corners,
    decode_boxes,
    encode_boxes,
    match_anchors,
    place_anchors,
)

import pytest
import torch

CPU = torch.device("cpu")
PAPER = [[24], [48], [96], [192], [384]]


def test_the_papers_anchors():
    """19,248 at 550 pixels, whose levels have 69, 35, 18, 9 and 5 cells along a side."""
    sides = [anchor_sides(sizes, (1.0, 0.5, 2.0)) for sizes in PAPER]
    grids = [(n, n) for n in (69, 35, 18, 9, 5)]
    anchors = place_anchors(sides, grids, (550, 550), CPU)
    assert anchors.shape == (19_248, 4)
    # The first cell of the finest level: a square, a high and a wide box of equal areas.
    step = 550 / 69 / 2
    root = math.sqrt(2)
    wanted = [[step, step, 24, 24], [step, step, 24 / root, 24 * root]]
    torch.testing.assert_close(anchors[:2], torch.tensor(wanted))
    assert anchors[-1].tolist() == pytest.approx([495, 495, 384 * root, 384 / root])


def test_cells_go_row_by_row_and_fit_any_size():
    sides = [[(4.0, 2.0)], [(8.0, 8.0), (3.0, 5.0)]]
    anchors = place_anchors(sides, [(2, 3), (1, 1)], (16, 24), CPU)
    assert anchors[:6, :2].tolist() == [[4, 4], [12, 4], [20, 4], [4, 12], [12, 12], [20, 12]]
    assert anchors[6:].tolist() == [[12, 8, 8, 8], [12, 8, 3, 5]]


def test_squares_of_the_published_weights():
    """An oversight that the weights were trained with: the height is the width."""
    found = anchor_sides([10], (1.0, 0.25, 4.0), square=True)
    assert found == [(10, 10), (5, 5), (20, 20)]
    assert anchor_sides([10], (1.0, 0.25, 4.0)) == [(10, 10), (5, 20), (20, 5)]


def test_three_sizes_for_each_level():
    """YOLACT++: for each size one of each ratio."""
    assert anchor_sides([10, 20], (1.0, 4.0)) == [(10, 10), (20, 5), (20, 20), (40, 10)]


def test_code_by_hand():
    anchor = torch.tensor([[10.0, 20, 4, 8]])
    box = torch.tensor([[10.0, 16, 14, 32]])  # centre 12, 24; sides 4, 16
    code = encode_boxes(box, anchor)
    torch.testing.assert_close(code, torch.tensor([[5.0, 5.0, 0.0, math.log(2) / 0.2]]))
    torch.testing.assert_close(decode_boxes(code, anchor), box)


def test_codes_come_back():
    torch.manual_seed(0)
    low = torch.rand(200, 2) * 300
    boxes = torch.cat([low, low + 0.5 + torch.rand(200, 2) * 200], dim=1)
    anchors = torch.rand(200, 4) * 200 + 5
    torch.testing.assert_close(
        decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, rtol=1e-4, atol=1e-2
    )


def test_codes_without_bounds_and_boxes_without_sides_stay_finite():
    anchor = torch.tensor([[10.0, 10, 8, 8]])
    assert decode_boxes(torch.full((1, 4), 1e4), anchor).isfinite().all()
    assert encode_boxes(torch.tensor([[3.0, 3, 3, 3]]), anchor).isfinite().all()


def iou(a, b):
    across = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    down = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - across * down
    return across * down / union


def matched_by_loops(anchors, boxes, high, low):
    """The rule of the paper and of SSD, one anchor and one pair at a time."""
    overlaps = [[iou(box, anchor) for anchor in anchors] for box in boxes]
    found = []
    for i in range(len(anchors)):
        column = [row[i] for row in overlaps]
        best = max(column)
        found.append(
            column.index(best) if best >= high else LEFT_OUT if best >= low else BACKGROUND
        )
    free_anchors, free_boxes = set(range(len(anchors))), set(range(len(boxes)))
    while free_anchors and free_boxes:
        _, j, i = min((-overlaps[j][i], j, i) for j in free_boxes for i in free_anchors)
        if overlaps[j][i] == 0:
            break
        found[i] = j
        free_anchors.remove(i)
        free_boxes.remove(j)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_matching_equals_loops(seed):
    """Boxes and anchors on a coarse lattice, so that many pairs are equally good."""
    generator = torch.Generator().manual_seed(seed)
    count = [1, 3, 8, 20, 40, 70][seed]
    low = torch.randint(0, 12, (count, 2), generator=generator) * 4.0
    boxes = torch.cat([low, low + torch.randint(1, 6, (count, 2), generator=generator) * 4], dim=1)
    sides = [[(8.0, 8.0)], [(16.0, 8.0), (12.0, 12.0)]]
    anchors = place_anchors(sides, [(6, 6), (3, 3)], (48, 48), CPU)
    found = match_anchors(anchors, boxes, foreground=0.5, background=0.4)
    wanted = matched_by_loops(corners(anchors).tolist(), boxes.tolist(), 0.5, 0.4)
    assert found.tolist() == wanted


def test_each_object_gets_an_anchor_of_its_own():
    """Two equal boxes share their best anchor: one of them takes the next."""
    anchors = place_anchors([[(8.0, 8.0)]], [(4, 4)], (32, 32), CPU)
    boxes = torch.tensor([[9.0, 8, 17, 16], [9, 8, 17, 16], [0, 0, 1, 1]])
    owners = match_anchors(anchors, boxes)
    assert owners[5] == 0  # the cell at 8..16
    assert owners[6] == 1  # the one right of it, with an IoU of 1 / 15
    assert owners[0] == 2  # a pixel in the corner, with an IoU of 1 / 64


def test_more_objects_than_anchors():
    anchors = place_anchors([[(8.0, 8.0)]], [(2, 2)], (16, 16), CPU)
    boxes = torch.tensor([[0.0, 0, 8, 8]]).repeat(600, 1)
    owners = match_anchors(anchors, boxes)
    assert owners.tolist() == [0, BACKGROUND, BACKGROUND, BACKGROUND]  # the others touch no object
    spread = torch.tensor([[1.0, 1, 15, 15]]).repeat(600, 1)
    assert sorted(match_anchors(anchors, spread).tolist()) == [0, 1, 2, 3]


def test_no_object():
    anchors = place_anchors([[(8.0, 8.0)]], [(2, 2)], (16, 16), CPU)
    assert match_anchors(anchors, torch.zeros(0, 4)).tolist() == [BACKGROUND] * 4


def test_an_object_at_the_left_border_is_an_object():
    anchors = place_anchors([[(8.0, 8.0)]], [(2, 2)], (16, 16), CPU)
    assert match_anchors(anchors, torch.tensor([[-4.0, 0, 4, 8]]))[0] == 0
