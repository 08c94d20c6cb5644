"""The functions that merge what a panoptic file gives: by hand, and against the system's own."""

from __future__ import annotations

import inspect
import re

from seg_plugins.export import panoptic_centers, panoptic_outlines, panoptic_regions
from seg_plugins.export.panoptic import differing_share
from seg_plugins.io.masks import to_bitmask
from seg_plugins.modeling.instance_centers import segments_from_centers
from seg_plugins.modeling.panoptic_merging import merge_panoptic

import numpy as np
import pytest
import torch
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances

SETTINGS = {
    "masks": "image",
    "mask_threshold": 0.5,
    "categories": [0, 2],
    "stuff": [1, 3],
    "overlap_threshold": 0.5,
    "stuff_area_threshold": 3,
    "score_threshold": 0.4,
}


def logits_of(labels: np.ndarray, classes: int) -> np.ndarray:
    return (np.arange(classes)[:, None, None] == labels).astype(np.float32)


def test_regions_by_hand():
    masks = np.zeros((3, 2, 4), np.float32)
    masks[0, :, :2] = 0.9  # a square of four pixels
    masks[1, :, 1:3] = 0.9  # half of it is taken: 2 of 4 is not more than half
    masks[2, :, 3] = 0.9  # scores too little
    outputs = {
        "logits": logits_of(np.array([[1, 1, 1, 1], [1, 1, 1, 3]]), 4),
        "scores": np.array([0.6, 0.5, 0.3], np.float32),
        "classes": np.array([1, 0, 0]),
        "boxes": np.zeros((3, 4), np.float32),
        "masks": masks,
    }
    ids, segments = panoptic_regions.panoptic(outputs, SETTINGS)
    # Of label 1 one pixel is left, of label 3 one: fewer than three are void.
    assert ids.tolist() == [[1, 1, 2, 0], [1, 1, 2, 0]]
    assert [s["category_id"] for s in segments] == [2, 0]
    assert [s["instance_id"] for s in segments] == [0, 1]
    ids, segments = panoptic_regions.panoptic(outputs, SETTINGS | {"stuff_area_threshold": 1})
    assert ids.tolist() == [[1, 1, 2, 3], [1, 1, 2, 4]]
    assert segments[3] == {"id": 4, "isthing": False, "category_id": 3, "area": 1}
    ids, _ = panoptic_regions.panoptic(outputs, SETTINGS | {"overlap_threshold": 0.49})
    # Without the second object label 1 has three pixels.
    assert ids.tolist() == [[1, 1, 2, 2], [1, 1, 2, 0]]


@pytest.mark.parametrize("inside_boxes", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_regions_as_the_system_merges_them(seed, inside_boxes):
    rng = np.random.default_rng(seed)
    count, height, width = 12, 47, 61
    low = rng.uniform(0, [50, 36], (count, 2))
    boxes = np.concatenate([low, low + rng.uniform(3, 20, (count, 2))], axis=1)
    boxes = np.minimum(boxes, [width, height, width, height]).astype(np.float32)
    outputs = {
        "logits": rng.normal(size=(5, height, width)).astype(np.float32),
        "scores": rng.uniform(0.2, 1, count).astype(np.float32),
        "classes": rng.integers(0, 2, count),
        "boxes": boxes,
        "masks": rng.uniform(0.2, 1, (count, 28, 28)).astype(np.float32),
    }
    instances = Instances((height, width))
    instances.pred_boxes = Boxes(torch.from_numpy(boxes))
    instances.scores = torch.from_numpy(outputs["scores"])
    instances.pred_classes = torch.from_numpy(outputs["classes"])
    instances.pred_masks = torch.from_numpy(outputs["masks"])[:, None]
    instances = detector_postprocess(instances, height, width)
    if not inside_boxes:
        outputs["masks"] = instances.pred_masks.numpy().astype(np.float32)
    expected = merge_panoptic(
        instances,
        torch.from_numpy(outputs["logits"]).argmax(0),
        5,
        thing_ids=[0, 2],
        stuff_area_threshold=200,
        score_threshold=0.4,
    )
    settings = SETTINGS | {
        "masks": "boxes" if inside_boxes else "image",
        "stuff": [1, 3, 4],
        "stuff_area_threshold": 200,
    }
    ids, segments = panoptic_regions.panoptic(outputs, settings)
    assert (ids == expected[0].numpy()).mean() > 0.999
    assert len(segments) == len(expected[1]) > 5
    for mine, other in zip(segments, expected[1], strict=True):
        # A pixel whose probability is 0.5 but for rounding may go either way.
        assert mine == pytest.approx(other, abs=1 if "area" in mine else 0)


def outlines_of(kind: str, rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(12, R, 2) corners in an image: some cross themselves, some have sides of no length."""
    count = int(rng.integers(3, 37))
    if kind == "polar":
        angles = np.arange(count) * (2 * np.pi / count)
        rays = np.stack([np.sin(angles), np.cos(angles)], axis=1)
        corners = rng.uniform(0, 50, (12, 1, 2)) + rays * rng.uniform(0, 25, (12, count, 1))
    else:
        corners = rng.uniform(-5, 60, (12, count, 2))
        corners = {"any": corners, "halves": np.round(corners * 2) / 2}[kind]
    return corners.clip(0, [width, height]).astype(np.float32)


@pytest.mark.parametrize("kind", ["polar", "any", "halves"])
@pytest.mark.parametrize("size", [(47, 61), (1, 1), (2, 55)])
def test_outlines_are_filled_as_the_coco_api_fills_them(size, kind):
    corners = outlines_of(kind, np.random.default_rng(0), *size)
    outputs = {
        "logits": np.zeros((4, *size), np.float32),
        "scores": np.array([0.9], np.float32),
        "classes": np.zeros(1, int),
    }
    for outline in corners:
        ids, _ = panoptic_outlines.panoptic(outputs | {"outlines": outline[None]}, SETTINGS)
        expected = to_bitmask([outline.astype(float).ravel()], *size)
        assert (ids == 1).tolist() == expected.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_outlines_as_the_system_merges_them(seed):
    rng, (height, width) = np.random.default_rng(seed), (47, 61)
    corners = outlines_of("polar", rng, height, width)
    outputs = {
        "logits": rng.normal(size=(5, height, width)).astype(np.float32),
        "scores": rng.uniform(0.2, 1, 12).astype(np.float32),
        "classes": rng.integers(0, 2, 12),
        "outlines": corners,
    }
    masks = [to_bitmask([outline.astype(float).ravel()], height, width) for outline in corners]
    instances = Instances((height, width))
    instances.scores = torch.from_numpy(outputs["scores"])
    instances.pred_classes = torch.from_numpy(outputs["classes"])
    instances.pred_masks = torch.from_numpy(np.stack(masks))
    expected = merge_panoptic(
        instances,
        torch.from_numpy(outputs["logits"]).argmax(0),
        5,
        thing_ids=[0, 2],
        stuff_area_threshold=100,
        score_threshold=0.4,
    )
    settings = SETTINGS | {"stuff": [1, 3, 4], "stuff_area_threshold": 100}
    ids, segments = panoptic_outlines.panoptic(outputs, settings)
    assert ids.tolist() == expected[0].tolist()
    assert segments == expected[1]
    assert len({s["isthing"] for s in segments}) == 2


@pytest.mark.parametrize("module", [panoptic_regions, panoptic_centers, panoptic_outlines])
def test_what_is_handed_out_is_short_and_needs_numpy_alone(module):
    assert len(inspect.getsource(module.panoptic).splitlines()) <= 60
    source = inspect.getsource(module)
    assert re.findall(r"^(?:import|from) .*$", source, re.MULTILINE) == ["import numpy as np"]


@pytest.mark.parametrize("seed", range(5))
def test_centers_as_the_system_groups_them(seed):
    rng = np.random.default_rng(seed)
    outputs = {
        "logits": rng.normal(size=(5, 40, 53)).astype(np.float32),
        "heatmaps": rng.uniform(0, 1, (1, 40, 53)).astype(np.float32),
        "offsets": rng.normal(0, 9, (2, 40, 53)).astype(np.float32),
    }
    grouping = {"stuff_area": 400, "threshold": 0.3, "nms_kernel": 7, "top_k": 20}
    expected = segments_from_centers(
        torch.from_numpy(outputs["logits"]).argmax(0),
        torch.from_numpy(outputs["heatmaps"][0]),
        torch.from_numpy(outputs["offsets"]),
        5,
        [1, 4],
        **grouping,
    )
    ids, segments = panoptic_centers.panoptic(outputs, {"thing_ids": [1, 4], **grouping})
    assert expected.num_things > 3
    assert (ids == expected.ids.numpy()).mean() > 0.999
    assert [s["category_id"] for s in segments] == expected.labels.tolist()
    assert sum(s["isthing"] for s in segments) == expected.num_things


def test_no_object_and_one_pixel():
    outputs = {
        "logits": np.ones((4, 1, 1), np.float32),
        "scores": np.zeros(0, np.float32),
        "classes": np.zeros(0, int),
        "boxes": np.zeros((0, 4), np.float32),
        "masks": np.zeros((0, 28, 28), np.float32),
    }
    ids, segments = panoptic_regions.panoptic(outputs, SETTINGS)
    assert (ids.tolist(), segments) == ([[0]], [])


def test_share_of_pixels_in_other_segments():
    thing = {"isthing": True, "category_id": 0}
    first = np.array([[1, 1, 2, 0]]), [{"id": 1, **thing}, {"id": 2, **thing}]
    renumbered = np.array([[2, 2, 1, 0]]), [{"id": 1, **thing}, {"id": 2, **thing}]
    joined = np.array([[1, 1, 1, 0]]), [{"id": 1, **thing}]
    other = first[0], [{"id": 1, "isthing": True, "category_id": 1}, {"id": 2, **thing}]
    assert differing_share(first, renumbered) == 0
    assert differing_share(first, joined) == 0.25
    assert differing_share(first, other) == 0.5
