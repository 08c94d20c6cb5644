from __future__ import annotations

from seg_plugins.modeling.panoptic_merging import merge_panoptic
from seg_plugins.ops.run_length import RunLengthMasks

import pytest
import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances
from devices import host_waits, on_each_device


def scene(seed, count=12, size=(60, 90), num_labels=6):
    """Discs with scores (some equal) over blocks of labels."""
    generator = torch.Generator().manual_seed(seed)
    height, width = size
    ys, xs = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([height, width])
    radius = torch.rand(count, generator=generator) * 20
    far = (ys - centre[:, :1, None]) ** 2 + (xs - centre[:, 1:, None]) ** 2
    instances = Instances(size)
    instances.pred_masks = far < radius[:, None, None] ** 2
    instances.scores = (torch.rand(count, generator=generator) * 20).round() / 20
    instances.pred_classes = torch.randint(0, 4, (count,), generator=generator)
    blocks = torch.randint(0, num_labels, (1, 1, 5, 7), generator=generator).float()
    return instances, torch.nn.functional.interpolate(blocks, size)[0, 0].long()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("masks", ["bitmasks", "run_lengths"])
def test_equals_detectron2s(seed, masks):
    instances, labels = scene(seed)
    thresholds = (0.3 + 0.05 * seed, 40.0 * seed, 0.35)
    ids, segments = combine_semantic_and_instance_outputs(instances, labels, *thresholds)
    if masks == "run_lengths":
        instances.pred_masks = RunLengthMasks.from_bitmasks(instances.pred_masks)
    overlap, area, score = thresholds
    found = merge_panoptic(
        instances, labels, 6,
        overlap_threshold=overlap, stuff_area_threshold=area, score_threshold=score,
    )  # fmt: skip
    assert torch.equal(found[0], ids)
    assert found[0].dtype == ids.dtype
    assert found[1] == segments
    assert any(s["isthing"] for s in segments)


@pytest.mark.parametrize("scores", [[], [0.2, 0.1]])
def test_no_instance(scores):
    labels = torch.tensor([[0, 1, 1], [2, 2, 2]])
    instances = Instances((2, 3))
    instances.pred_masks = torch.ones(len(scores), 2, 3, dtype=torch.bool)
    instances.scores, instances.pred_classes = torch.tensor(scores), torch.zeros(len(scores)).long()
    ids, segments = merge_panoptic(instances, labels, 3, stuff_area_threshold=3)
    assert ids.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert segments == [{"id": 1, "isthing": False, "category_id": 2, "area": 3}]


def test_thing_labels_are_no_stuff():
    """Labels 1 and 3 are things: instance classes 0 and 1."""
    labels = torch.tensor([[1, 1, 0, 0, 3]])
    instances = Instances((1, 5))
    instances.pred_masks = torch.tensor([[[True, False, False, False, False]]])
    instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([1])
    ids, segments = merge_panoptic(instances, labels, 4, thing_ids=[1, 3], stuff_area_threshold=1)
    assert ids.tolist() == [[1, 0, 2, 2, 0]]
    assert [(s["category_id"], s["isthing"]) for s in segments] == [(3, True), (0, False)]


@on_each_device
@pytest.mark.parametrize("run_lengths", [False, True])
def test_the_host_waits_as_often_for_many_instances_as_for_few(device, run_lengths):
    counts = []
    for count in (4, 30):
        masks = torch.rand(count, 12, 10) < 0.1
        instances = Instances(
            (12, 10),
            pred_masks=RunLengthMasks.from_bitmasks(masks) if run_lengths else masks.to(device),
            scores=torch.rand(count).to(device),
            pred_classes=(torch.arange(count) % 2).to(device),
        )
        labels = (torch.arange(120).reshape(12, 10) % 4).to(device)
        with host_waits(device) as found:
            merge_panoptic(instances, labels, 4, score_threshold=0.0, stuff_area_threshold=1)
        counts.append(len(found))
    assert counts[0] == counts[1] <= 20
