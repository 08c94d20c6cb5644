"""The vote of several views on the masks of an object, by hand."""

from __future__ import annotations

import tracemalloc

from seg_plugins.modeling.test_time.voting import MaskVote
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances


def found(*objects: tuple[float, int, tuple[int, int]], height: int = 4) -> Instances:
    """Objects of a view: score, class, and first and last column (exclusive) of 20."""
    masks = torch.zeros(len(objects), height, 20, dtype=torch.bool)
    for mask, (_, _, (first, last)) in zip(masks, objects, strict=True):
        mask[:, first:last] = True
    instances = Instances((height, 20))
    spans = [[first, 0, last, height] for _, _, (first, last) in objects]
    instances.pred_boxes = Boxes(torch.tensor(spans).float().reshape(-1, 4))
    instances.scores = torch.tensor([score for score, _, _ in objects])
    instances.pred_classes = torch.tensor([kind for _, kind, _ in objects], dtype=torch.int64)
    instances.pred_masks = RunLengthMasks.from_bitmasks(masks)
    return instances


def vote(*views: Instances, mask_format: str = "bitmask", detections: int = 100) -> Instances:
    together = MaskVote(4, 20, overlap_threshold=0.5, detections=detections)
    for view in views:
        together.add(view)
    return together.result(mask_format)


def columns(instances: Instances) -> list[list[int]]:
    """The columns of each mask."""
    masks = torch.from_numpy(np.asarray(instances.pred_masks))
    return [mask[0].nonzero()[:, 0].tolist() for mask in masks]


def test_pixels_with_more_than_half_of_the_scores_stay() -> None:
    # Scores 0.5, 0.4 and 0.3: half of them is 0.6, so any two agree, and none alone.
    result = vote(found((0.5, 1, (2, 10))), found((0.4, 1, (3, 11))), found((0.3, 1, (0, 9))))
    assert result.scores.tolist() == [0.5]
    assert result.pred_classes.tolist() == [1]
    assert columns(result) == [list(range(2, 10))]
    assert result.pred_boxes.tensor.tolist() == [[2, 0, 10, 4]]
    # With 0.9 the first decides alone, whatever the others hold.
    result = vote(found((0.9, 1, (2, 10))), found((0.4, 1, (3, 11))), found((0.3, 1, (3, 11))))
    assert columns(result) == [list(range(2, 10))]
    # Two that agree outweigh the best one.
    result = vote(found((0.5, 1, (2, 10))), found((0.4, 1, (3, 11))), found((0.3, 1, (3, 11))))
    assert columns(result) == [list(range(3, 11))]
    assert result.pred_boxes.tensor.tolist() == [[3, 0, 11, 4]]


def test_other_classes_and_places_stay_apart() -> None:
    result = vote(
        found((0.9, 0, (0, 8)), (0.6, 0, (12, 20))),
        found((0.8, 1, (0, 8)), (0.7, 0, (4, 12))),  # another class; an IoU of 4 / 12
    )
    assert result.scores.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6])
    assert result.pred_classes.tolist() == [0, 1, 0, 0]


def test_one_view_stays_as_it_is_however_its_objects_overlap() -> None:
    view = found((0.5, 0, (0, 10)), (0.9, 0, (0, 10)), (0.7, 0, (1, 10)))
    result = vote(view)
    assert result.scores.tolist() == pytest.approx([0.9, 0.7, 0.5])
    assert columns(result) == [list(range(10)), list(range(1, 10)), list(range(10))]


def test_an_object_joins_the_nearest_group() -> None:
    result = vote(
        found((0.9, 0, (0, 10)), (0.8, 0, (2, 12))), found((0.7, 0, (2, 12)), (0.6, 0, (0, 10)))
    )
    assert columns(result) == [list(range(10)), list(range(2, 12))]


def test_the_best_are_kept() -> None:
    views = found((0.5, 0, (0, 5)), (0.9, 0, (10, 15))), found((0.7, 0, (15, 20)))
    assert vote(*views, detections=2).scores.tolist() == pytest.approx([0.9, 0.7])


@pytest.mark.parametrize("mask_format", ["bitmask", "rle"])
def test_formats_and_nothing_found(mask_format: str) -> None:
    views = found((0.5, 1, (2, 10))), found((0.4, 1, (3, 11)))
    result = vote(*views, mask_format=mask_format)
    assert isinstance(result.pred_masks, RunLengthMasks) == (mask_format == "rle")
    assert columns(result) == [list(range(2, 10))]
    nothing = vote(found(), found(), mask_format=mask_format)
    assert len(nothing) == len(nothing.pred_masks) == 0
    assert nothing.image_size == (4, 20)


def test_memory_is_that_of_one_mask() -> None:
    size, objects, views = 1000, 12, 4  # as bitmasks 48 MB
    masks = torch.zeros(objects, size, size, dtype=torch.bool)
    for i, mask in enumerate(masks):
        mask[80 * i : 80 * i + 60, 50:900] = True
    view = Instances((size, size))
    view.pred_masks = RunLengthMasks.from_bitmasks(masks)
    view.pred_boxes = Boxes(torch.zeros(objects, 4))
    view.scores = torch.linspace(0.9, 0.5, objects)
    view.pred_classes = torch.zeros(objects, dtype=torch.int64)
    del masks
    together = MaskVote(size, size, overlap_threshold=0.5, detections=100)
    for _ in range(views):
        together.add(view)
    tracemalloc.start()
    result = together.result("rle")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(result) == objects
    assert result.pred_masks.string(3) == view.pred_masks.string(3)
    assert peak < 16e6  # float32 sums of one object, a product, a bitmask
