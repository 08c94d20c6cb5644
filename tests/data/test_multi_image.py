"""Samples made of several images stay consistent and reproducible."""

from __future__ import annotations

import seg_plugins
from seg_plugins.data import InstanceMapper, SemanticMapper, build_mapper
from seg_plugins.data.augmentations import Crop
from seg_plugins.data.multi_image import CopyPaste, Mosaic

import pytest
import torch
from detectron2.data import DatasetCatalog
from mapper_draws import rng


def test_copy_paste_masks_are_disjoint_and_show_their_pixels():
    records = DatasetCatalog.get("shapes_instance_val")
    mapper = InstanceMapper(is_train=True, augmentations=[Crop((100, 90))], mask_format="bitmask")
    paste = CopyPaste(mapper, records, probability=1.0)
    grown = 0
    for seed in range(15):
        sample, again = paste(records[seed], rng(seed)), paste(records[seed], rng(seed))
        found = sample["instances"]
        assert torch.equal(sample["image"], again["image"])
        assert torch.equal(found.gt_masks.tensor, again["instances"].gt_masks.tensor)
        assert found.gt_masks.tensor.sum(dim=0).max() <= 1
        assert torch.equal(found.gt_boxes.tensor, found.gt_masks.get_bounding_boxes().tensor)
        # Where the image changed, the pixels belong to a pasted instance, and nowhere else.
        plain = mapper(records[seed], rng(seed))
        changed = (sample["image"] != plain["image"]).any(dim=0)
        assert not (changed & ~found.gt_masks.tensor.any(dim=0)).any()
        grown += len(found) - len(plain["instances"])
    assert grown > 5


def test_mosaic_quarters_keep_image_and_label_together():
    """With images that are their own label, every pixel still is."""
    constants = [10, 20, 30, 40]

    def mapper(record, rng):
        value = constants[record["number"]]
        side = 40 if value == 40 else 60  # one image is smaller
        return {
            "image": torch.full((3, side, side), value, dtype=torch.uint8),
            "sem_seg": torch.full((side, side), value),
        }

    records = [{"number": i} for i in range(4)]
    seen = set()
    for seed in range(20):
        sample = Mosaic(mapper, records, probability=1.0)(records[0], rng(seed))
        image, label = sample["image"][0].long(), sample["sem_seg"]
        assert image.shape == label.shape == (60, 60)
        assert torch.equal(torch.where(label == 255, 0, label), image)
        assert (label == 10).any()
        seen |= set(label.unique().tolist())
    assert seen == {10, 20, 30, 40, 255}


def test_the_configuration_wraps_the_mapper_in_training_only():
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = ("shapes_train",)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MOSAIC = (128,), 0.5
    mapper = build_mapper(cfg, True)
    assert isinstance(mapper, Mosaic)
    sample = mapper(DatasetCatalog.get("shapes_train")[0], rng())
    assert sample["sem_seg"].shape == sample["image"].shape[1:]
    assert isinstance(build_mapper(cfg, False), SemanticMapper)
    cfg.INPUT.MOSAIC, cfg.INPUT.COPY_PASTE = 0.0, 0.5
    with pytest.raises(ValueError, match=r"INPUT\.COPY_PASTE needs InstanceMapper"):
        build_mapper(cfg, True)
