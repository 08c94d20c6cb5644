"""What holds of RoIAlign for all boxes: shifts, scales, order, linearity."""

from __future__ import annotations

from seg_plugins.ops import roi_align

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytestmark = pytest.mark.usefixtures("device")
floats = st.floats(0, 30, width=32)
box = st.tuples(floats, floats, st.floats(1, 40, width=32), st.floats(1, 40, width=32))


def boxes_of(corners_and_sizes):
    rows = [[0, x, y, x + w, y + h] for x, y, w, h in corners_and_sizes]
    return torch.tensor(rows, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(st.lists(box, min_size=1, max_size=4), st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_moves_with_whole_pixels(boxes, down, right, aligned):
    feature = torch.randn(1, 3, 90, 90, dtype=torch.float64)
    moved = torch.roll(feature, (down, right), (2, 3))
    # Keep 8 pixels off the border, where rolled and clamped pixels differ.
    rows = boxes_of(boxes) + torch.tensor([0.0, 8, 8, 8, 8])
    shift = torch.tensor([0.0, right, down, right, down])
    before = roi_align(feature, rows, 3, 1.0, 2, aligned)
    torch.testing.assert_close(roi_align(moved, rows + shift, 3, 1.0, 2, aligned), before)


@settings(max_examples=25, deadline=None)
@given(st.lists(box, min_size=1, max_size=4), st.integers(1, 4))
def test_scaled_boxes_and_scale_cancel(boxes, power):
    feature = torch.randn(1, 3, 60, 60, dtype=torch.float64)
    rows = boxes_of(boxes)
    larger = torch.cat([rows[:, :1], rows[:, 1:] * 2**power], dim=1)
    torch.testing.assert_close(
        roi_align(feature, larger, 3, 0.5**power), roi_align(feature, rows, 3, 1.0)
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(box, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_of_boxes_does_not_matter(boxes, random):
    order = list(range(len(boxes)))
    random.shuffle(order)
    feature = torch.randn(1, 3, 60, 60)
    rows = boxes_of(boxes)
    straight = roi_align(feature, rows, 3, 1.0)
    torch.testing.assert_close(
        roi_align(feature, rows[order], 3, 1.0), straight[order], rtol=0, atol=0
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(box, min_size=1, max_size=4), st.floats(-3, 3), st.floats(-3, 3))
def test_is_linear_in_the_features(boxes, a, b):
    first, second = torch.randn(2, 1, 3, 60, 60, dtype=torch.float64)
    rows = boxes_of(boxes)
    combined = roi_align(a * first + b * second, rows, 3, 1.0)
    parts = a * roi_align(first, rows, 3, 1.0) + b * roi_align(second, rows, 3, 1.0)
    torch.testing.assert_close(combined, parts)
