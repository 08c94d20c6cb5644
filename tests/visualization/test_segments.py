from __future__ import annotations

from seg_plugins.visualization.overlays import OPACITY, instance_color
from seg_plugins.visualization.segments import panoptic

import numpy as np

COLORS = np.array([[0, 0, 0], [10, 200, 30]], np.uint8)


def scene():
    ids = np.full((40, 60), 7)
    ids[5:35, 5:25] = 300
    ids[:, 55:] = 0
    segments = [
        {"id": 300, "isthing": True, "category_id": 4},
        {"id": 7, "isthing": False, "category_id": 1},
    ]
    return ids, segments


def test_colors_of_things_stuff_and_void():
    ids, segments = scene()
    image = np.full((40, 60, 3), 100, np.uint8)
    picture = panoptic(image, ids, segments, COLORS, numbers=False)
    blend = [int((1 - OPACITY) * 100 + OPACITY * c) for c in instance_color(0)]
    assert picture[10, 10].tolist() == blend
    blend = [int((1 - OPACITY) * 100 + OPACITY * c) for c in COLORS[1].tolist()]
    assert picture[2, 40].tolist() == blend
    assert picture[2, 58].tolist() == [100] * 3  # void keeps the image
    assert picture[10, 24].tolist() == [255] * 3  # outline
    assert (image == 100).all()


def test_the_number_stands_in_its_segment():
    ids, segments = scene()
    image = np.zeros((40, 60, 3), np.uint8)
    bare = panoptic(image, ids, segments, COLORS, numbers=False)
    changed = (panoptic(image, ids, segments, COLORS) != bare).any(axis=2)
    assert changed[5:35, 5:25].any()
    ys, xs = np.nonzero(changed & (ids == 300))
    assert abs(ys.mean() - 19.5) < 4
    assert abs(xs.mean() - 14.5) < 4


def test_a_sliver_gets_no_number():
    ids = np.zeros((20, 20), int)
    ids[:, 3:6] = 5
    segments = [{"id": 5, "isthing": True, "category_id": 0}]
    image = np.zeros((20, 20, 3), np.uint8)
    pictures = [panoptic(image, ids, segments, COLORS, numbers=n) for n in (True, False)]
    assert np.array_equal(*pictures)
