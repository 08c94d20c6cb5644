"""Objects put together across the borders of windows: the rule by hand."""

from __future__ import annotations

from seg_plugins.prediction import runs as mask_runs
from seg_plugins.prediction.errors import PredictionError
from seg_plugins.prediction.seams import Found, Seams
from seg_plugins.prediction.windows import WindowGrid

import numpy as np
import pycocotools.mask as coco_mask
import pytest

# Windows of 0..40, 24..64, ... of which 0..36, 28..60, ... count: strips of 8 pixels.
GRID = WindowGrid(size=40, overlap=16, margin=4)


def rectangle(y0, x0, y1, x1, class_id=0, score=0.5):
    return Found(class_id, score, mask_runs.from_bitmap(np.ones((y1 - y0, x1 - x0), bool), y0, x0))


def put_together(*windows, height=40, width=64):
    """The objects of windows in one row, as (class, score, box)."""
    seams = Seams(GRID, height, width)
    for column, found in enumerate(windows):
        seams.add(0, column, list(found))
    found = list(seams.finished(len(seams.rows)))
    return sorted((one.class_id, one.score, mask_runs.bounds(one.runs)) for one in found)


def test_what_counts_of_the_windows():
    seams = Seams(GRID, 40, 88)
    assert seams.columns == [(0, 36), (28, 60), (52, 88)]
    assert seams.rows == [(0, 40)]


def test_an_object_of_two_windows_is_one():
    left, right = rectangle(10, 5, 14, 40, score=0.9), rectangle(10, 24, 14, 64, score=0.8)
    assert put_together([left], [right]) == [(0, 0.9, (10, 5, 14, 64))]


def test_a_whole_object_counts_before_what_is_cut_of_it():
    """The strip is 28..36: the left window sees the object to 36, the right one all of it."""
    left, right = rectangle(10, 30, 14, 40, score=0.9), rectangle(10, 30, 14, 45, score=0.6)
    assert put_together([left], [right]) == [(0, 0.6, (10, 30, 14, 45))]


def test_of_two_whole_ones_that_far_from_the_border_is_taken():
    left, right = rectangle(10, 30, 14, 34, score=0.9), rectangle(10, 29, 14, 34, score=0.6)
    assert put_together([left], [right]) == [(0, 0.9, (10, 30, 14, 34))]


def test_half_of_the_union_decides_between_whole_ones():
    one = rectangle(10, 29, 18, 35)
    assert len(put_together([one], [rectangle(14, 29, 18, 35)])) == 1  # 24 of 48
    assert len(put_together([one], [rectangle(15, 29, 18, 35)])) == 2  # 18 of 48


def test_half_of_the_cut_one_decides_beside_a_whole_one():
    """A small whole object does not stand for a large cut one that it lies in."""
    large, small = rectangle(0, 0, 40, 40, score=0.9), rectangle(20, 30, 24, 34)
    rest = rectangle(0, 24, 40, 64, score=0.8)
    assert put_together([large], [small, rest]) == [
        (0, 0.5, (20, 30, 24, 34)),
        (0, 0.9, (0, 0, 40, 64)),
    ]
    assert len(put_together([rectangle(10, 20, 20, 40)], [rectangle(14, 29, 30, 40)])) == 1
    # 35 of the cut one's 80 pixels: no partner, and what one window alone has seen in part goes.
    assert put_together([rectangle(10, 20, 20, 40)], [rectangle(15, 29, 30, 40)]) == [
        (0, 0.5, (15, 29, 30, 40))
    ]


def test_a_cut_piece_that_covers_two_objects_does_not_join_them():
    """A bad piece goes to its best partner, and the two objects stay two."""
    one, two = rectangle(10, 29, 14, 50), rectangle(15, 29, 19, 48)
    bad = rectangle(10, 26, 19, 40, score=0.1)
    ends = [rectangle(10, 29, 14, 40), rectangle(15, 29, 19, 40)]
    found = put_together([*ends, bad], [one, two])
    assert [box for *_, box in found] == [(10, 29, 14, 50), (15, 29, 19, 48)]


def test_the_class_is_that_of_the_larger_part():
    left = rectangle(10, 0, 14, 40, class_id=1, score=0.7)
    # Both are cut: 4 x 36 x 0.7 = 100.8 against 4 x 17 x 0.9 = 61.2, or 4 x 32 x 0.9 = 115.2.
    short = rectangle(10, 24, 14, 45, class_id=2, score=0.9)
    assert put_together([left], [short]) == [(1, 0.7, (10, 0, 14, 45))]
    long = rectangle(10, 24, 14, 64, class_id=2, score=0.9)
    assert put_together([left], [long], width=88) == [(2, 0.9, (10, 0, 14, 60))]


def test_two_classes_on_one_object_stay_two():
    both = [rectangle(10, 5, 14, 40, class_id=i, score=0.5 + i / 10) for i in (0, 1)]
    more = [rectangle(10, 24, 14, 64, class_id=i, score=0.5 + i / 10) for i in (1, 0)]
    box = (10, 5, 14, 64)
    assert put_together(both, more) == [(0, 0.5, box), (1, 0.6, box)]


def test_neighbours_that_touch_the_same_border_stay_apart():
    left = [rectangle(10, 20, 14, 40), rectangle(15, 20, 19, 40)]
    right = [rectangle(10, 24, 14, 50), rectangle(15, 24, 19, 50)]
    assert [box for *_, box in put_together(left, right)] == [(10, 20, 14, 50), (15, 20, 19, 50)]


def test_a_fork_is_one_object():
    prongs = [rectangle(10, 5, 14, 40), rectangle(20, 5, 24, 40)]
    handle = mask_runs.union([rectangle(10, 24, 14, 50).runs, rectangle(20, 24, 24, 50).runs,
                              rectangle(10, 50, 24, 64).runs])  # fmt: skip
    assert put_together(prongs, [Found(0, 0.5, handle)]) == [(0, 0.5, (10, 5, 24, 64))]


def test_what_lies_in_a_margin_only_is_the_neighbours():
    assert put_together([rectangle(10, 37, 14, 40)], [rectangle(10, 37, 14, 41)]) == [
        (0, 0.5, (10, 37, 14, 41))
    ]


def test_objects_are_given_as_soon_as_they_are_whole():
    seams = Seams(GRID, 88, 40)
    seams.add(0, 0, [rectangle(2, 2, 5, 5), rectangle(10, 10, 40, 14)])
    assert list(seams.finished(0)) == []
    seams.add(1, 0, [rectangle(24, 10, 50, 14)])
    assert [mask_runs.bounds(one.runs) for one in seams.finished(1)] == [(2, 2, 5, 5)]
    seams.add(2, 0, [])
    assert [mask_runs.bounds(one.runs) for one in seams.finished(3)] == [(10, 10, 50, 14)]
    assert list(seams.finished(3)) == []


def test_pieces_that_one_window_alone_saw_are_counted():
    seams = Seams(GRID, 40, 64)
    seams.add(0, 0, [rectangle(10, 20, 14, 40), rectangle(20, 2, 24, 8)])
    seams.add(0, 1, [])
    assert [mask_runs.bounds(one.runs) for one in seams.finished(1)] == [(20, 2, 24, 8)]
    assert seams.dropped == 1


def test_runs_against_bitmaps():
    """Area, overlap, union, painting and COCO's lengths of random masks anywhere in a raster."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        height, width, y, x = rng.integers(1, 15, 4)
        masks = rng.random((2, height, width)) < rng.random((2, 1, 1))
        full = np.zeros((2, y + height + 2, x + width + 1), bool)
        full[:, y : y + height, x : x + width] = masks
        one, two = (mask_runs.from_bitmap(mask, y, x) for mask in masks)
        assert mask_runs.area(one) == masks[0].sum()
        assert mask_runs.overlap(one, two) == (masks[0] & masks[1]).sum()
        painted = np.zeros((4, 6), int)
        mask_runs.paint(painted, one, y + 1, x - 2, 7)
        around = np.pad(full[0], 20)  # the raster's first pixel lies at 20, 20
        assert np.array_equal(painted == 7, around[y + 21 : y + 25, x + 18 : x + 24])
        if not masks.any():
            continue
        both = np.zeros(full.shape[1:], np.uint8)
        mask_runs.paint(both, mask_runs.union([one, two]), 0, 0, 1)
        assert np.array_equal(both.astype(bool), full.any(axis=0))
        if masks[0].any():
            packed = mask_runs.to_coco(one, *full.shape[1:])
            truth = coco_mask.encode(np.asfortranarray(full[0].astype(np.uint8)))
            assert packed["counts"] == truth["counts"].decode()


def test_a_raster_that_is_too_large_for_cocos_lengths_is_said():
    with pytest.raises(PredictionError, match=r"65536x65536 pixels.*leave json out"):
        mask_runs.check_coco_size(65536, 65536)
