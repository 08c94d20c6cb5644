"""Panoptic samples: semantic label and instances are one picture, whatever is done to it."""

from __future__ import annotations

from seg_plugins.data import DatasetError, InstanceMapper, PanopticMapper, SemanticMapper
from seg_plugins.data.elastic import ElasticDeformation

import pytest
import torch
from mapper_draws import GEOMETRY, rng


def test_panoptic_label_and_instances_are_one_picture(panoptic):
    """Every thing pixel of the label belongs to one instance of its class, crowds excepted."""
    mapper = PanopticMapper(is_train=True, thing_ids=range(6), augmentations=GEOMETRY)
    semantic = SemanticMapper(is_train=True, augmentations=GEOMETRY)
    for seed, record in enumerate(panoptic[:30]):
        sample = mapper(record, rng(seed))
        label, found = sample["sem_seg"], sample["instances"]
        assert torch.equal(label, semantic(record, rng(seed))["sem_seg"])
        drawn = torch.full_like(label, -1)
        for mask, class_id in zip(found.gt_masks.tensor, found.gt_classes, strict=True):
            assert (drawn[mask] == -1).all()
            drawn[mask] = class_id
        crowd = any(s["iscrowd"] for s in record["segments_info"])
        agree = (drawn == label) | (drawn == -1)
        assert agree.all()
        if not crowd:
            assert torch.equal(drawn >= 0, label < 6)


def test_panoptic_fpn_label_collapses_the_things(panoptic):
    plain = PanopticMapper(is_train=True, thing_ids=range(6))
    merged = PanopticMapper(is_train=True, thing_ids=range(6), stuff_ids=(6, 7))
    a, b = plain(panoptic[0], rng())["sem_seg"], merged(panoptic[0], rng())["sem_seg"]
    assert torch.equal(b == 0, a < 6)
    assert torch.equal(b == 1, a == 6)
    assert torch.equal(b == 2, a == 7)
    assert torch.equal(b == 255, a == 255)


def test_elastic_deformation_moves_instances_with_their_pixels(instances, panoptic):
    """Masks and boxes of all three tasks are those of the deformed label."""
    shared = {"is_train": True, "augmentations": GEOMETRY, "elastic": ElasticDeformation(5.0)}
    separate = InstanceMapper(mask_format="bitmask", **shared)
    together = PanopticMapper(thing_ids=range(6), **shared)
    semantic = SemanticMapper(**shared)
    stiff = InstanceMapper(is_train=True, augmentations=GEOMETRY, mask_format="bitmask")
    bent = 0
    for seed, (a, b) in enumerate(zip(instances[:30], panoptic[:30], strict=True)):
        one, other = separate(a, rng(seed)), together(b, rng(seed))
        label = semantic(b, rng(seed))["sem_seg"]
        assert torch.equal(other["sem_seg"], label)
        for sample in (one, other):
            found = sample["instances"]
            assert found.gt_masks.tensor.flatten(1).any(dim=1).all()
            assert torch.equal(found.gt_boxes.tensor, found.gt_masks.get_bounding_boxes().tensor)
        for mask, class_id in zip(
            other["instances"].gt_masks.tensor, other["instances"].gt_classes, strict=True
        ):
            assert (label[mask] == class_id).all()
        plain = stiff(a, rng(seed))["instances"]
        if len(plain) == len(one["instances"]):
            bent += not torch.equal(plain.gt_masks.tensor, one["instances"].gt_masks.tensor)
    assert bent > 10


def test_an_ignore_label_of_16_bits(panoptic):
    mapper = PanopticMapper(is_train=True, thing_ids=range(6), ignore_label=65535)
    plain = PanopticMapper(is_train=True, thing_ids=range(6))
    wide, narrow = (m(panoptic[0], rng())["sem_seg"] for m in (mapper, plain))
    assert torch.equal(torch.where(narrow == 255, 65535, narrow), wide)
    assert (wide == 65535).any()


def test_panoptic_refuses_segments_that_are_not_listed(panoptic):
    record = {**panoptic[0], "segments_info": panoptic[0]["segments_info"][1:]}
    with pytest.raises(DatasetError, match=r"0000\.png: segments .* are not in segments_info"):
        PanopticMapper(is_train=True, thing_ids=range(6))(record, rng())
