"""PolarMask: by hand, against plain loops, and what its rays can represent."""

from __future__ import annotations

import math

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.instance_representations import OutlineMasks, PolarMask
from seg_plugins.modeling.instance_representations.finishing import finish
from seg_plugins.modeling.instance_representations.polar import (
    directions,
    outlines,
    polar_centerness,
    polar_iou_losses,
    rays_of,
)
from seg_plugins.testing import check_instance_system

import numpy as np
import pytest
import torch
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

SIZE = (64, 96)


def build(**options):
    defaults = {
        **{"num_classes": 3, "in_channels": 8, "in_features": ["p3", "p4"], "strides": [8, 16]},
        **{"sizes": [24], "channels": 16, "num_convs": 1},
        **{"box_loss": "iou", "nms_threshold": 0.5},
    }
    return PolarMask(**{**defaults, **options})


def rays(found, xy, owners=None, count=36):
    owners = torch.arange(len(xy)) if owners is None else torch.as_tensor(owners)
    return rays_of(found.bitmasks, found.boxes, owners, torch.as_tensor(xy), count)


@pytest.mark.parametrize(
    ("name", "count"), [("polar_mask_r50_1x", 34_686_531), ("polar_mask_r101_1x", 53_626_435)]
)
def test_parameters(name, count):
    assert parameters(name) == count


def test_polar_iou_loss_by_hand():
    ones = torch.ones(2, 36)
    assert polar_iou_losses(ones, 2 * ones).tolist() == pytest.approx([math.log(2)] * 2)
    assert polar_iou_losses(2 * ones, ones).tolist() == pytest.approx([math.log(2)] * 2)
    assert polar_iou_losses(ones, ones).tolist() == [0, 0]


def test_polar_centerness_by_hand():
    assert polar_centerness(torch.tensor([[1.0, 4.0, 2.0]])).item() == 0.5
    square = truth(rectangles([(20, 10, 60, 50)]))
    # From its centre with its diagonals: the root of 1 / sqrt(2).
    found = polar_centerness(rays(square, [[40.0, 30.0]], count=8))
    assert found.item() == pytest.approx(2**-0.25, abs=1e-3)


def test_a_missing_ray_takes_its_share_of_the_centerness():
    assert polar_centerness(torch.tensor([[0.0, 1, 4, 2]])).item() == pytest.approx(0.5 * 3 / 4)
    assert polar_centerness(torch.zeros(1, 3)).item() == 0
    # A point beside a bar: half of the rays, and more, do not meet it.
    bar = truth(rectangles([(30, 10, 40, 50)]))
    beside, inside = rays(bar, [[26.0, 30.0], [35.0, 30.0]], [0, 0])
    assert (beside == 0).sum() >= 18
    assert (inside > 0).all()
    assert 0 < polar_centerness(beside[None]) < polar_centerness(inside[None])


def test_rays_start_downwards_and_turn_to_the_right():
    ways = directions(36, torch.zeros(()))
    expected = torch.tensor([[0.0, 1], [1, 0], [0, -1], [-1, 0]])
    torch.testing.assert_close(ways[::9], expected, rtol=0, atol=1e-6)
    found = rays(truth(rectangles([(20, 10, 60, 50)])), [[30.0, 25.0]])[0]
    # Down, right, up, left.
    assert found[::9].tolist() == pytest.approx([25, 30, 15, 10], abs=0.1)
    ends = outlines(torch.tensor([[30.0, 25.0]]), found[None])[0, ::9]
    expected = torch.tensor([[30.0, 50], [60, 25], [30, 10], [20, 25]])
    torch.testing.assert_close(ends, expected, rtol=0, atol=0.1)


def rays_in_loops(mask, xy, count):
    """Along each ray in steps of 1/100 px: where it is last in the mask."""
    found = []
    for k in range(count):
        angle, last = 2 * math.pi * k / count, 0.0
        for step in range(1, 14000):
            x = xy[0] + step / 100 * math.sin(angle)
            y = xy[1] + step / 100 * math.cos(angle)
            row, column = math.floor(y), math.floor(x)
            if 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1] and mask[row, column]:
                last = step / 100
        found.append(last)
    return found


def test_rays_equal_plain_loops():
    scenes = shapes_truths(2, seed=5)
    for found in scenes:
        own = len(found) - 1
        expected = rays_in_loops(found.bitmasks[own].numpy(), found.centers[own].tolist(), 12)
        lengths = rays(found, found.centers[own:], [own], 12)[0]
        reach = (found.boxes[own, 2:] - found.boxes[own, :2]).norm().item()
        np.testing.assert_allclose(lengths.numpy(), expected, rtol=0, atol=reach / 500)


def test_36_rays_cover_99493_of_a_disc():
    ends = outlines(torch.zeros(1, 2), torch.ones(1, 36))[0].double()
    x, y = ends[:, 0], ends[:, 1]
    area = ((x * y.roll(-1) - y * x.roll(-1)).sum() / 2).abs() / math.pi
    assert area.item() == pytest.approx(0.99493, abs=1e-5)


@pytest.mark.parametrize(
    ("place", "lengths"),
    [((11, 11, 12, 12), (0.5, 0.5)), ((11, 11, 13, 12), (0.5, 1.0)), ((11, 11, 11, 11), (0, 0))],
    ids=["one pixel", "two pixels", "none"],
)
def test_tiny_masks_have_rays(place, lengths):
    tiny = truth(rectangles([place]))
    found = rays(tiny, tiny.centers)[0]
    assert found[[0, 9]].tolist() == pytest.approx(lengths, abs=0.01)
    assert found.isfinite().all()
    painted = OutlineMasks(outlines(tiny.centers, found[None])).paint(0, SIZE, *SIZE)
    assert painted.sum() <= tiny.areas[0] + 1


def round_trip(truths):
    overlaps, classes = [], []
    for found in truths:
        form = OutlineMasks(outlines(found.centers, rays(found, found.centers)))
        for i, mask in enumerate(found.bitmasks):
            overlaps.append(iou(mask, form.paint(i, found.image_size, *found.image_size)))
            classes.append(found.classes[i].item())
    return np.array(overlaps), np.array(classes)


def test_what_36_rays_can_represent():
    overlaps, classes = round_trip(shapes_truths(30))
    # Discs and triangles well, crosses nearly, thin lines less; of a ring the whole disc.
    assert overlaps.mean() > 0.87
    assert overlaps[np.isin(classes, [0, 2])].mean() > 0.94
    assert 0.55 < overlaps[classes == 4].mean() < 0.7


def test_a_hole_is_filled():
    mask = rectangles([(20, 10, 60, 50)])
    mask[0, 25:35, 35:45] = False
    overlaps, _ = round_trip([truth(mask)])
    assert overlaps[0] == pytest.approx(1500 / 1600, abs=0.02)


def test_losses_equal_plain_loops():
    torch.manual_seed(1)
    model = build()
    outputs = model(inputs_of(model))
    drawn = [torch.rand_like(level) * 30 for level in [*outputs.sides, *outputs.codes]]
    outputs = outputs._replace(sides=drawn[:2], codes=drawn[2:])
    truths = [random_truth(0), random_truth(3, count=3)]
    losses = model.losses(outputs, truths, SIZE)
    positives = positives_in_loops(model, outputs, truths)
    count = len(positives)
    assert count > 10
    focal = focal_in_loops(outputs, positives, truths) / (count + 2)
    assert losses["loss_category"].item() == pytest.approx(focal, rel=1e-5)

    weights, quality, boxes, masks = [], 0.0, 0.0, 0.0
    for p in positives:
        level, y, x, image, own, sides = p
        stride = (8, 16)[level]
        xy = [[(x + 0.5) * stride, (y + 0.5) * stride]]
        wanted = rays(truths[image], xy, [own])[0]
        met = [length for length in wanted.tolist() if length > 0]
        weight = math.sqrt(min(met) / max(met)) * len(met) / 36 if met else 0.0
        weights.append(weight)
        quality += binary_cross_entropy(logits_at(outputs.centerness, p)[0], weight).item()
        boxes -= weight * math.log(iou_of_boxes(logits_at(outputs.sides, p), sides)[0])
        pairs = list(zip(logits_at(outputs.codes, p).tolist(), wanted.tolist(), strict=True))
        masks += weight * math.log(sum(map(max, pairs)) / max(sum(map(min, pairs)), 1e-6))
    assert losses["loss_centerness"].item() == pytest.approx(quality / count, rel=1e-4)
    assert losses["loss_box"].item() == pytest.approx(boxes / sum(weights), rel=1e-4)
    assert losses["loss_mask"].item() == pytest.approx(masks / sum(weights), rel=1e-4)


def test_parts_of_a_batch_make_the_losses_of_the_whole():
    model = build()
    outputs = model(inputs_of(model))
    check_parts(model, outputs, [random_truth(0), truth(np.zeros((0, *SIZE)))], SIZE)
    check_parts(model, outputs, [random_truth(0), random_truth(5, count=2)], SIZE)


def test_no_objects():
    model = build()
    check_no_objects(model, model(inputs_of(model)), [truth(np.zeros((0, *SIZE)))] * 2, SIZE)


def test_extremes():
    check_extremes(small_system("polar_mask"))


def test_each_image_alone_gives_the_same():
    check_batch_independence(small_system("polar_mask"))


def test_contract():
    check_instance_system(load_config("shapes/polar_mask_r18.yaml"))


def test_lengths_are_exponentials_that_stay_finite():
    model = build(by_stride=True)
    for layer in (model.sides, model.rays):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, 0.5)
    model.side_scales[1].scale.data.fill_(2)
    model.ray_scales[0].scale.data.fill_(200)
    outputs = model(inputs_of(model))
    assert outputs.sides[0].unique().item() == pytest.approx(8 * math.exp(0.5))
    assert outputs.sides[1].unique().item() == pytest.approx(16 * math.exp(1))
    assert outputs.codes[0].unique().item() == pytest.approx(8 * math.exp(10))
    model.units = build().units
    assert model(inputs_of(model)).sides[1].unique().item() == pytest.approx(math.exp(1))


def encoded(model, found):
    """Outputs that say the truth."""
    outputs = model(inputs_of(model, found.image_size))
    for part in (outputs.categories, outputs.centerness, outputs.sides, outputs.codes):
        part[:] = [level.detach() for level in part]
    positives = perfect_logits(model, outputs, [found])
    xy = [[(x + 0.5) * (8, 16)[level], (y + 0.5) * (8, 16)[level]] for level, y, x, *_ in positives]
    lengths = rays(found, xy, [p[4] for p in positives])
    # Suppression keeps the best centred point.
    quality = polar_centerness(lengths).logit()
    for (level, y, x, *_), length, logit in zip(positives, lengths, quality, strict=True):
        outputs.codes[level][0, :, y, x] = length
        outputs.centerness[level][0, 0, y, x] = logit
    return outputs


def test_decodes_the_encoded_truth():
    model = build(num_classes=6, sizes=[40])
    overlaps, truths = [], shapes_truths(8, seed=3)
    for found in truths:
        (instances,) = model.find(encoded(model, found), found.image_size, [found.image_size])
        instances = finish(instances, *found.image_size, "bitmask")
        assert sorted(instances.pred_classes.tolist()) == sorted(found.classes.tolist())
        for mask, label in zip(found.bitmasks, found.classes, strict=True):
            own = instances.pred_masks[instances.pred_classes == label]
            overlaps.append(max(iou(mask, one) for one in own))
    # From points of the grid about as well as from the centres of mass.
    assert np.mean(overlaps) == pytest.approx(round_trip(truths)[0].mean(), abs=0.02)


def test_scores_are_category_times_centerness_and_a_half_from_0_to_1():
    model = build()
    outputs = model(inputs_of(model))
    for level, fill in ((outputs.categories, -20), (outputs.sides, 4), (outputs.centerness, 0)):
        for maps in level:
            maps.data.fill_(fill)
    for place, probability in enumerate([0.9, 0.5, 0.06, 0.04]):
        outputs.categories[0].data[0, 2, 0, 3 * place] = torch.tensor(probability).logit()
    outputs.centerness[0].data[0, 0, 0, 0] = 30
    (found, nothing) = model.find(outputs, SIZE, [SIZE, SIZE])
    # The threshold of 0.05 is the category's.
    assert found.scores.tolist() == pytest.approx([0.9, 0.5 / 1.5, 0.06 / 1.5])
    assert found.pred_classes.tolist() == [2, 2, 2]
    assert nothing.pred_masks.points.shape == (0, 36, 2)


class Traced(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, *maps):
        outputs = self.model(dict(zip(("p3", "p4"), maps, strict=True)))
        (found,) = self.model.find(outputs, SIZE, [SIZE])
        return found.scores, found.pred_classes, found.pred_masks.points


@pytest.mark.filterwarnings("ignore")
def test_what_it_finds_can_be_traced():
    model = build(score_threshold=0.005).eval()
    maps = [[level[:1] * (i + 1) for level in inputs_of(model).values()] for i in range(3)]
    with torch.no_grad():
        traced = torch.jit.trace(Traced(model), maps[0], check_trace=False)
        for one in maps:
            for found, expected in zip(traced(*one), Traced(model)(*one), strict=True):
                torch.testing.assert_close(found, expected)
        assert len(found) > 0


@pytest.mark.parametrize(
    ("opts", "key"),
    [
        (["MODEL.POLARMASK.NUM_RAYS", 2], "NUM_RAYS"),
        (["MODEL.POLARMASK.SIZES_OF_INTEREST", [60, 40]], "SIZES_OF_INTEREST"),
        (["MODEL.POLARMASK.IN_FEATURES", []], "POLARMASK.IN_FEATURES"),
    ],
)
def test_settings_that_cannot_be(opts, key):
    with pytest.raises(ConfigError, match=key):
        build_model(load_config("shapes/polar_mask_r18.yaml", ["MODEL.DEVICE", "cpu", *opts]))
