"""Instances after augmentation: masks and boxes stay those of their pixels."""

from __future__ import annotations

from seg_plugins.data import DatasetError, InstanceMapper
from seg_plugins.data.augmentations import Crop, Flip, Turn
from seg_plugins.data.elastic import ElasticDeformation

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from mapper_draws import GEOMETRY, rng


def test_boxes_enclose_their_masks_after_any_augmentation(instances):
    mapper = InstanceMapper(is_train=True, augmentations=GEOMETRY, mask_format="bitmask")
    polygons = InstanceMapper(is_train=True, augmentations=GEOMETRY, mask_format="polygon")
    seen = 0
    for seed, record in enumerate(instances):
        found = mapper(record, rng(seed))["instances"]
        assert torch.equal(found.gt_boxes.tensor, found.gt_masks.get_bounding_boxes().tensor)
        exact = polygons(record, rng(seed))["instances"]
        height, width = exact.image_size
        boxes = exact.gt_boxes.tensor
        assert (boxes >= 0).all()
        assert (boxes[:, 2] <= width).all()
        assert (boxes[:, 3] <= height).all()
        seen += len(found)
    assert seen > 100


def test_run_lengths_and_polygons_give_the_same_masks(instances):
    """Without scaling, a polygon and the run lengths of its mask are the same instance."""
    import pycocotools.mask as coco_mask

    mapper = InstanceMapper(
        is_train=True, augmentations=[Crop((90, 70)), Turn(), Flip()], mask_format="bitmask"
    )
    for seed, record in enumerate(instances[:20]):
        encoded = []
        for annotation in record["annotations"]:
            segmentation = annotation["segmentation"]
            if isinstance(segmentation, list):
                rles = coco_mask.frPyObjects(segmentation, 128, 128)
                segmentation = coco_mask.merge(rles)
            encoded.append({**annotation, "segmentation": segmentation})
        a = mapper(record, rng(seed))["instances"]
        b = mapper({**record, "annotations": encoded}, rng(seed))["instances"]
        assert torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
        assert torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)


def test_masks_are_deformed_as_the_pixels_are(tmp_path):
    """A white square on black: its mask after the deformation is where the image is white."""
    picture = np.zeros((60, 80, 3), np.uint8)
    picture[20:45, 25:60] = 255
    assert cv2.imwrite(str(tmp_path / "a.png"), picture)
    corners = [25, 20, 60, 20, 60, 45, 25, 45]
    annotation = {"bbox": [25, 20, 60, 45], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    mapper = InstanceMapper(
        is_train=True, elastic=ElasticDeformation(6.0), mask_format="bitmask",
        augmentations=[Flip()],
    )  # fmt: skip
    record = {"file_name": str(tmp_path / "a.png")}
    for seed in range(10):
        sample = mapper({**record, "annotations": [annotation | {"segmentation": [corners]}]},
                        rng(seed))  # fmt: skip
        (mask,) = sample["instances"].gt_masks.tensor
        assert (mask == (sample["image"][0] > 127)).float().mean() > 0.99
        assert mask.sum() > 300


def test_exact_bounds_of_a_clipped_polygon():
    """A triangle that leaves the image: its box is that of the part inside, by hand."""
    record = {
        "file_name": DatasetCatalog.get("shapes_val")[0]["file_name"],
        "annotations": [
            {
                "bbox": [100, 20, 28, 40],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": 2,
                "segmentation": [[100, 20, 128, 20, 100, 48]],
            }
        ],
    }
    mapper = InstanceMapper(is_train=True, augmentations=[_Window(0, 0, 128, 110)])
    (box,) = mapper(record, rng())["instances"].gt_boxes.tensor.tolist()
    assert box == [100, 20, 110, 48]
    mapper = InstanceMapper(is_train=True, augmentations=[_Window(30, 0, 98, 110)])
    (box,) = mapper(record, rng())["instances"].gt_boxes.tensor.tolist()
    assert box == [100, 0, 110, 18]
    mapper = InstanceMapper(is_train=True, augmentations=[_Window(0, 0, 128, 100)])
    assert len(mapper(record, rng())["instances"]) == 0


class _Window:
    """Always the same crop."""

    def __init__(self, *window):
        self.window = window

    def __call__(self, rng, geometry, content):
        return geometry.crop(*self.window)


def test_boxes_alone(instances):
    record = {**instances[0], "annotations": [dict(a) for a in instances[0]["annotations"]]}
    for annotation in record["annotations"]:
        del annotation["segmentation"]
    found = InstanceMapper(is_train=True, mask_format="none")(record, rng())["instances"]
    assert not found.has("gt_masks")
    assert len(found) == sum(not a["iscrowd"] for a in record["annotations"])
    number = next(a["id"] for a in record["annotations"] if not a["iscrowd"])
    message = rf"0000\.png: annotation {number} has no mask .*; MODEL\.MASK_ON False"
    with pytest.raises(DatasetError, match=message):
        InstanceMapper(is_train=True)(record)
    same = InstanceMapper(is_train=True, needs_masks=False)(record, rng())["instances"]
    assert not same.has("gt_masks")
    assert torch.equal(same.gt_boxes.tensor, found.gt_boxes.tensor)
    bending = InstanceMapper(
        is_train=True, needs_masks=False, mask_format="bitmask", elastic=ElasticDeformation(3.0)
    )
    with pytest.raises(DatasetError, match=r"set INPUT\.ELASTIC\.SIGMA 0\.0"):
        bending(record, rng())


def test_boxes_without_a_mask_are_cut_at_the_crop(instances):
    """One object has a mask and one a box alone, on a crop that cuts both at x = 110."""
    square = [100, 20, 120, 20, 120, 40, 100, 40]
    shared = {"bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}
    record = {
        "file_name": instances[0]["file_name"],
        "annotations": [
            {"bbox": [100, 20, 120, 40], "segmentation": [square], **shared},
            {"bbox": [90, 50, 125, 60], **shared},
            {"bbox": [112, 50, 125, 60], **shared},
        ],
    }
    mapper = InstanceMapper(
        is_train=True, needs_masks=False, augmentations=[_Window(0, 0, 128, 110)]
    )
    found = mapper(record, rng())["instances"]
    assert found.gt_boxes.tensor.tolist() == [[100, 20, 110, 40], [90, 50, 110, 60]]
    assert not found.has("gt_masks")


def test_run_lengths_need_bitmasks(instances):
    crowd = next(
        a for r in instances for a in r["annotations"] if isinstance(a["segmentation"], dict)
    )
    record = {**instances[0], "annotations": [{**crowd, "iscrowd": 0}]}
    with pytest.raises(DatasetError, match=r"0000\.png.*MASK_FORMAT.*'bitmask'"):
        InstanceMapper(is_train=True, mask_format="polygon")(record)
