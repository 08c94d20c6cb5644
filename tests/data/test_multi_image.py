"""Samples made of several images stay consistent and reproducible."""

from __future__ import annotations

import seg_plugins
from seg_plugins.data import DatasetError, InstanceMapper, SemanticMapper, build_mapper
from seg_plugins.data.augmentations import Crop
from seg_plugins.data.multi_image import CopyPaste, Mosaic

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import BitMasks, Boxes, Instances
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


def _sample(name: str, value: int, objects: list[tuple[int, int, int, int]]):
    """A 30x40 sample of one value whose objects, (y0, x0, y1, x1), are the label's class 1."""
    masks = torch.zeros((len(objects), 30, 40), dtype=torch.bool)
    for mask, (y0, x0, y1, x1) in zip(masks, objects, strict=True):
        mask[y0:y1, x0:x1] = True
    found = Instances((30, 40))
    found.gt_boxes = Boxes(torch.tensor([[x0, y0, x1, y1] for y0, x0, y1, x1 in objects]).float())
    found.gt_classes = torch.arange(len(objects)) + value
    found.gt_masks = BitMasks(masks)
    label = torch.where(masks.any(dim=0), value + 1, value)
    image = torch.full((3, 30, 40), value, dtype=torch.uint8)
    return {"file_name": name, "image": image, "sem_seg": label, "instances": found}


def test_pasting_leaves_untouched_objects_as_they_are_and_pastes_the_label_too():
    """By hand: a 2x2 object stays, one of which a 3x1 strip is left goes, one is cut."""
    own = [(1, 1, 3, 3), (10, 10, 13, 21), (10, 16, 20, 30), (25, 30, 29, 39)]
    pasted = [(8, 8, 16, 20)]

    def mapper(record, rng):
        return _sample("a", 0, own) if record["number"] == 0 else _sample("b", 50, pasted)

    paste = CopyPaste(mapper, [{"number": 1}], probability=1.0)
    samples = [paste({"number": 0}, rng(seed)) for seed in range(8)]
    plain = _sample("a", 0, own)
    chosen = [50 in sample["instances"].gt_classes.tolist() for sample in samples]
    assert set(chosen) == {True, False}
    cover = torch.zeros((30, 40), dtype=torch.bool)
    cover[8:16, 8:20] = True
    for sample in samples:
        found = sample["instances"]
        classes = found.gt_classes.tolist()
        if classes == [0, 1, 2, 3]:
            assert torch.equal(sample["sem_seg"], plain["sem_seg"])
            assert torch.equal(found.gt_masks.tensor, plain["instances"].gt_masks.tensor)
            continue
        assert classes == [0, 2, 3, 50]
        assert torch.equal(found.gt_masks.tensor[0], plain["instances"].gt_masks.tensor[0])
        assert torch.equal(found.gt_masks.tensor[2], plain["instances"].gt_masks.tensor[3])
        assert torch.equal(found.gt_masks.tensor[3], cover)
        cut = plain["instances"].gt_masks.tensor[2] & ~cover
        assert torch.equal(found.gt_masks.tensor[1], cut)
        assert found.gt_boxes.tensor.tolist() == [
            [1, 1, 3, 3], [16, 10, 30, 20], [30, 25, 39, 29], [8, 8, 20, 16]
        ]  # fmt: skip
        assert torch.equal(sample["sem_seg"], torch.where(cover, 51, plain["sem_seg"]))
        assert torch.equal(sample["image"][0] == 50, cover)


def test_pasting_needs_masks():
    def mapper(record, rng):
        sample = _sample("boxes.png", 0, [(1, 1, 9, 9)])
        sample["instances"].remove("gt_masks")
        return sample

    with pytest.raises(DatasetError, match=r"boxes\.png.*INPUT\.COPY_PASTE needs a mask"):
        CopyPaste(mapper, [{}], probability=1.0)({}, rng())
