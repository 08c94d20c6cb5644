"""CondInst: by hand, and against plain loops over points and pixels."""

from __future__ import annotations

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.instance_representations import CondInst
from seg_plugins.modeling.instance_representations.dynamic_masks import dynamic_masks, network_size
from seg_plugins.modeling.instance_representations.finishing import finish
from seg_plugins.modeling.instance_representations.points import centerness
from seg_plugins.testing import check_instance_system

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from point_scenes import iou, random_truth, rectangles, shapes_truths, truth
from point_systems import (
    binary_cross_entropy,
    check_batch_independence,
    check_extremes,
    check_no_objects,
    check_parts,
    focal_in_loops,
    inputs_of,
    iou_of_boxes,
    logits_at,
    parameters,
    perfect_logits,
    positives_in_loops,
    small_system,
)

LAYERS = [(8, 10), (8, 8), (1, 8)]
SIZE = (64, 96)


def build(**options):
    defaults = {
        **{"num_classes": 3, "in_channels": 8, "in_features": ["p3", "p4"], "strides": [8, 16]},
        **{"sizes": [24], "mask_in_features": ["p2", "p3"], "channels": 16, "num_convs": 1},
        **{"mask_channels": 16, "mask_num_convs": 1, "mask_stride": 4, "mask_out_stride": 2},
        **{"box_loss": "giou", "nms_threshold": 0.6},
    }
    return CondInst(**{**defaults, **options})


@pytest.mark.parametrize(
    ("name", "count"), [("cond_inst_r50_1x", 34_111_179), ("cond_inst_r101_1x", 53_051_083)]
)
def test_parameters(name, count):
    assert parameters(name) == count


def test_the_numbers_of_a_network():
    assert network_size(LAYERS) == (10 * 8 + 8) + (8 * 8 + 8) + (8 + 1) == 169
    assert build().controller.out_channels == 169


def network_in_loops(shared, code, xy, unit, stride):
    """The network of one point, cell by cell, as the paper draws it."""
    w1, w2, w3, b1, b2, b3 = np.split(code, np.cumsum([80, 64, 8, 8, 8]))
    _, height, width = shared.shape
    found = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            ways = (xy - (np.array([column, row]) + 0.5) * stride) / unit
            x = np.concatenate([ways, shared[:, row, column]])
            x = np.maximum(w1.reshape(8, 10) @ x + b1, 0)
            x = np.maximum(w2.reshape(8, 8) @ x + b2, 0)
            found[row, column] = (w3 @ x + b3)[0]
    return found


def test_dynamic_masks_equal_plain_loops():
    shared, codes = torch.randn(8, 6, 9), torch.randn(5, 169)
    xy, units = torch.rand(5, 2) * 60, torch.tensor([64.0, 64, 128, 8, 256])
    found = dynamic_masks(shared, codes, xy, units, 8.0, LAYERS)
    for i in range(5):
        expected = network_in_loops(
            shared.double().numpy(), codes[i].double().numpy(), xy[i].numpy(), units[i].item(), 8
        )
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-4, atol=1e-4)


def test_dynamic_masks_equal_convolutions_in_groups():
    # 1,000 px away from the first cell; the ways of the paper's reference are explicit channels.
    shared, codes = torch.randn(8, 30, 150), torch.randn(4, 169) * 0.3
    xy, units = torch.tensor([[1100.0, 200], [4, 4], [600, 100], [900, 20]]), torch.full((4,), 64.0)
    y, x = torch.meshgrid(torch.arange(30) * 8.0 + 4, torch.arange(150) * 8.0 + 4, indexing="ij")
    cells = torch.stack([x, y])
    ways = (xy[:, :, None, None] - cells) / units[:, None, None, None]
    x = torch.cat([ways, shared.expand(4, -1, -1, -1)], dim=1).reshape(1, 40, 30, 150)
    w1, w2, w3, b1, b2, b3 = codes.split([80, 64, 8, 8, 8, 1], dim=1)
    x = F.conv2d(x, w1.reshape(32, 10, 1, 1), b1.flatten(), groups=4).relu()
    x = F.conv2d(x, w2.reshape(32, 8, 1, 1), b2.flatten(), groups=4).relu()
    expected = F.conv2d(x, w3.reshape(4, 8, 1, 1), b3.flatten(), groups=4)[0]
    found = dynamic_masks(shared, codes, xy, units, 8.0, LAYERS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_masks_keep_their_place_when_they_grow():
    # A network that gives on the way along x: still the way, at the finer cells' own centres.
    model, size = build(mask_upsampling=1), (64, 96)
    outputs = model(inputs_of(model))
    code = torch.zeros(169)
    code[0] = code[80] = code[144] = 1  # way x -> channel 0 -> channel 0 -> the mask
    for level in outputs.codes:
        level.data[:] = code[:, None, None]
    points = model.points(outputs)
    place = torch.tensor([11])  # the last of the first row, (92, 4): ways to the left are positive
    logits = model.mask_logits(outputs, 0, points, place, size)
    assert logits.shape == (1, 32, 48)
    expected = (92 - (torch.arange(46) * 2 + 1)) / 24
    # At the border there is no cell farther out.
    torch.testing.assert_close(logits[0, 5, 1:44], expected[1:44])


def test_the_way_is_measured_by_the_level():
    assert build().units == [24, 48]
    three = build(in_features=["p3", "p4", "p5"], strides=[8, 16, 32], sizes=[64, 128])
    assert three.units == [64, 128, 256]
    assert build(in_features=["p3"], strides=[8], sizes=[]).units == [64]


def test_losses_equal_plain_loops():
    torch.manual_seed(1)
    model = build(max_proposals=-1)
    outputs = model(inputs_of(model))
    outputs = outputs._replace(sides=[torch.rand_like(level) * 30 for level in outputs.sides])
    truths = [random_truth(0), random_truth(3)]
    losses = model.losses(outputs, truths, SIZE)
    positives = positives_in_loops(model, outputs, truths)
    count = len(positives)
    assert count > 10
    focal = focal_in_loops(outputs, positives, truths) / (count + len(truths))
    assert losses["loss_category"].item() == pytest.approx(focal, rel=1e-5)

    targets = [centerness(sides[None])[0].item() for *_, sides in positives]
    quality = sum(
        binary_cross_entropy(logits_at(outputs.centerness, p)[0], t).item()
        for p, t in zip(positives, targets, strict=True)
    )
    assert losses["loss_centerness"].item() == pytest.approx(quality / count, rel=1e-5)

    boxes = 0.0
    for p, t in zip(positives, targets, strict=True):
        overlap, outside = iou_of_boxes(logits_at(outputs.sides, p), p[-1])
        boxes += t * (1 - overlap + outside)
    assert losses["loss_box"].item() == pytest.approx(boxes / sum(targets), rel=1e-4)

    dice = 0.0
    for level, y, x, image, own, _ in positives:
        stride = (8, 16)[level]
        xy = np.array([x + 0.5, y + 0.5]) * stride
        code = outputs.codes[level][image, :, y, x].detach().double().numpy()
        coarse = network_in_loops(
            outputs.shared[image].detach().double().numpy(), code, xy, (24, 48)[level], 4
        )
        fine = F.interpolate(torch.tensor(coarse)[None, None], scale_factor=2, mode="bilinear")
        p, t = fine[0, 0].sigmoid(), truths[image].masks_at(2, SIZE)[own]
        dice += (1 - 2 * (p * t).sum() / ((p * p).sum() + (t * t).sum() + 0.002)).item()
    assert losses["loss_mask"].item() == pytest.approx(dice / count, rel=1e-4)


def test_parts_of_a_batch_make_the_losses_of_the_whole():
    model = build(max_proposals=-1)
    outputs = model(inputs_of(model))
    check_parts(model, outputs, [random_truth(0), truth(np.zeros((0, *SIZE)))], SIZE)
    check_parts(model, outputs, [random_truth(0), random_truth(5, count=2)], SIZE)


def test_no_objects():
    model = build()
    check_no_objects(model, model(inputs_of(model)), [truth(np.zeros((0, *SIZE)))] * 2, SIZE)


def test_only_so_many_masks_are_looked_at(monkeypatch):
    model = build(max_proposals=5)
    outputs = model(inputs_of(model))
    seen, logits = [], model.mask_logits

    def counted(outputs, index, points, places, size):
        seen.append(len(places))
        return logits(outputs, index, points, places, size)

    monkeypatch.setattr(model, "mask_logits", counted)
    losses = model.losses(outputs, [random_truth(0), random_truth(3)], SIZE)
    assert sum(seen) == 5
    assert losses.loss("loss_mask")[0].count == 5
    assert losses.loss("loss_category")[0].count > 5


def test_extremes():
    check_extremes(small_system("cond_inst"))


def test_each_image_alone_gives_the_same():
    check_batch_independence(small_system("cond_inst"))


def test_contract():
    check_instance_system(load_config("shapes/cond_inst_r18.yaml"))


def test_half_precision_decides_nothing():
    model = build()
    features = inputs_of(model)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(features)
        losses = model.losses(outputs, [random_truth(0), random_truth(3)], SIZE)
        (found, _) = model.find(outputs, SIZE, [SIZE, SIZE])
    assert all(loss.dtype == torch.float32 for loss in losses.values())
    assert found.pred_masks.maps.dtype == found.scores.dtype == torch.float32


def encoded(model, truths):
    """Outputs that say the truth: a shared map for each object, and networks that choose one."""
    outputs = model(inputs_of(model, truths[0].image_size))
    outputs = outputs._replace(
        **{name: [level.detach() for level in getattr(outputs, name)]
           for name in ("categories", "centerness", "sides", "codes")}
    )  # fmt: skip
    size = truths[0].image_size
    shared = torch.zeros(len(truths), 8, size[0] // 2, size[1] // 2)
    for image, found in enumerate(truths):
        shared[image, : len(found)] = found.masks_at(2, size)
    for level, y, x, image, own, _ in perfect_logits(model, outputs, truths):
        code = torch.zeros(169)
        code[2 + own] = code[80] = 1  # map `own` -> channel 0 -> channel 0
        code[144], code[168] = 20, -10
        outputs.codes[level][image, :, y, x] = code
    return outputs._replace(shared=shared)


def test_decodes_the_encoded_truth():
    model = build(num_classes=6, sizes=[40], mask_stride=2)
    overlaps = []
    for found in shapes_truths(8, seed=3):
        (instances,) = model.find(encoded(model, [found]), found.image_size, [found.image_size])
        instances = finish(instances, *found.image_size, "bitmask")
        assert sorted(instances.pred_classes.tolist()) == sorted(found.classes.tolist())
        for mask, label in zip(found.bitmasks, found.classes, strict=True):
            own = instances.pred_masks[instances.pred_classes == label]
            overlaps.append(max(iou(mask, one) for one in own))
    # What masks at stride 2 can reach at most.
    assert np.mean(overlaps) == pytest.approx(0.92, abs=0.02)


def test_a_wrong_box_cuts_no_mask_and_boxes_come_from_masks():
    model = build(mask_stride=2)
    found = truth(rectangles([(16, 16, 60, 50)]), [1])
    outputs = encoded(model, [found])
    for level in outputs.sides:
        level.zero_()
    (instances,) = model.find(outputs, SIZE, [SIZE])
    instances = finish(instances, *SIZE, "bitmask")
    assert len(instances) > 1  # boxes without area suppress nothing
    for box, mask in zip(instances.pred_boxes.tensor, instances.pred_masks, strict=True):
        assert box.tolist() == [16, 16, 60, 50]
        assert torch.equal(mask, found.bitmasks[0])


def test_scores_are_roots_of_category_times_centerness():
    model = build(score_threshold=0.1)
    outputs = model(inputs_of(model))
    for level, fill in ((outputs.categories, -20), (outputs.sides, 4), (outputs.centerness, 0)):
        for maps in level:
            maps.data.fill_(fill)
    for place, probability in enumerate([0.9, 0.5, 0.21, 0.19]):
        outputs.categories[0].data[0, 2, 0, 3 * place] = torch.tensor(probability).logit()
    (found, nothing) = model.find(outputs, SIZE, [SIZE, SIZE])
    # The centerness is 0.5: the last product is below the threshold.
    assert found.scores.tolist() == pytest.approx([0.45**0.5, 0.5, 0.105**0.5])
    assert found.pred_classes.tolist() == [2, 2, 2]
    assert len(nothing) == 0
    assert nothing.pred_masks.maps.shape == (0, 32, 48)


class Traced(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *maps):
        names = sorted({*self.model.in_features, *self.model.mask_in_features})
        outputs = self.model(dict(zip(names, maps, strict=True)))
        (found,) = self.model.find(outputs, SIZE, [SIZE])
        return found.scores, found.pred_classes, found.pred_masks.maps


@pytest.mark.filterwarnings("ignore")
def test_what_it_finds_can_be_traced():
    model = build(score_threshold=0.001).eval()
    maps = [[f[:1] * (i + 1) for _, f in sorted(inputs_of(model).items())] for i in range(3)]
    with torch.no_grad():
        traced = torch.jit.trace(Traced(model), maps[0], check_trace=False)
        for one in maps:
            for found, expected in zip(traced(*one), Traced(model)(*one), strict=True):
                torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        (["MODEL.CONDINST.MASK_OUT_STRIDE", 3], "MASK_OUT_STRIDE"),
        (["MODEL.CONDINST.MASK_HEAD.NUM_LAYERS", 1], "NUM_LAYERS"),
        (["MODEL.CONDINST.SIZES_OF_INTEREST", [10, 20]], "SIZES_OF_INTEREST"),
        (["MODEL.CONDINST.LOC_LOSS_TYPE", "diou"], "LOC_LOSS_TYPE"),
        (["MODEL.CONDINST.IN_FEATURES", ["p3", "p7"]], "TOP_BLOCK p6p7"),
        (["MODEL.CONDINST.MASK_BRANCH.IN_FEATURES", ["p1"]], "MASK_BRANCH.IN_FEATURES"),
    ],
)
def test_settings_that_cannot_be(opts, key):
    with pytest.raises(ConfigError, match=key):
        build_model(load_config("shapes/cond_inst_r18.yaml", ["MODEL.DEVICE", "cpu", *opts]))
