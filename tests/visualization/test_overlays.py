"""Pictures of labels, pixel by pixel."""

from __future__ import annotations

from seg_plugins.visualization import overlays

import numpy as np
import pytest
from detectron2.structures import BoxMode

GREY = np.full((2, 3, 3), 100, np.uint8)
COLORS = np.array([[0, 0, 0], [200, 100, 0]], np.uint8)


def test_classes_are_blended_and_ignored_pixels_stay():
    labels = np.array([[0, 1, 255], [7, 1, 0]], np.uint8)  # 7: outside the classes
    picture = overlays.semantic(GREY, labels, COLORS)
    # 45% image and 55% colour.
    assert picture[0, 0].tolist() == [45, 45, 45]
    assert picture[0, 1].tolist() == [155, 100, 45]
    assert picture[0, 2].tolist() == picture[1, 0].tolist() == [100, 100, 100]


def test_instances_get_distinct_colors_and_boxes():
    image = np.zeros((20, 20, 3), np.uint8)
    masks = np.zeros((2, 20, 20), bool)
    masks[0, 2:8, 2:8] = masks[1, 10:18, 10:18] = True
    picture = overlays.instances(image, masks, np.array([[2, 2, 8, 8], [10, 10, 18, 18]]))
    assert picture[5, 5].any()
    assert picture[14, 14].any()
    assert (picture[5, 5] != picture[14, 14]).any()
    assert not picture[0, 0].any()
    assert len({overlays.instance_color(i) for i in range(30)}) == 30


def test_annotations_of_every_kind_become_masks():
    record = {
        "annotations": [
            {"segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]], "iscrowd": 0},
            {"segmentation": {"size": [6, 6], "counts": [0, 6, 30]}, "iscrowd": 0},
            {"segmentation": {"size": [6, 6], "counts": [36]}, "iscrowd": 1},
        ]
    }
    masks = overlays.annotation_masks(record, (6, 6))
    assert masks.shape == (2, 6, 6)
    assert masks[0].sum() == 9
    assert masks[1, :, 0].all()
    assert masks[1].sum() == 6
    assert overlays.annotation_masks({}, (6, 6)).shape == (0, 6, 6)
    box = {"bbox": [-1, 2, 4, 9], "bbox_mode": BoxMode.XYWH_ABS}
    (mask,) = overlays.annotation_masks({"annotations": [box]}, (6, 6))
    expected = np.zeros((6, 6), bool)
    expected[2:, :3] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("width", [2, 6])
def test_a_grid_holds_every_picture_at_the_same_width(width):
    tall = np.full((6, 3, 3), 50, np.uint8)
    picture = overlays.grid([[GREY, tall], [GREY]], width=width)
    cell = width + overlays.GAP
    first_row = 2 * width + overlays.GAP
    assert picture.shape == (first_row + round(width * 2 / 3) + overlays.GAP, 2 * cell, 3)
    assert (picture[0, 0] == 100).all()
    assert (picture[0, cell] == 50).all()
    assert (picture[first_row, cell] == 255).all()


def test_images_of_any_depth_are_displayable():
    assert overlays.displayable(np.array([[[-1000.0], [0.0], [1000.0]]]))[0].tolist() == [
        [0, 0, 0], [128, 128, 128], [255, 255, 255]
    ]  # fmt: skip
    bands = np.arange(10, dtype=np.uint8).reshape(1, 2, 5)
    assert overlays.displayable(bands)[0].tolist() == [[0, 1, 2], [5, 6, 7]]
    assert overlays.displayable(np.full((2, 2, 2), 7, np.uint16)).max() == 0
