"""InstanceFCN: parameters, losses, and the way back to instances."""

from __future__ import annotations

import math

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.instance_representations import (
    InstanceFCN,
)
from seg_plugins.modeling.instance_representations.finishing import finish
from seg_plugins.modeling.instance_representations.instance_fcn import InstanceFCNOutputs
from seg_plugins.modeling.instance_representations.windows import (
    LEFT_OUT,
    Windows,
    assemble,
    match_windows,
    parts_of,
)
from seg_plugins.testing import check_instance_system

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from truth_of_rectangles import CPU, rectangles, truth_with


@pytest.mark.parametrize(("agnostic", "expected"), [(True, 17_452_890), (False, 17_493_417)])
def test_parameters(agnostic, expected):
    """The paper's form, and ours: one score of 512 weights and a bias for each of 80 classes."""
    options = ["MODEL.DEVICE", "meta", "MODEL.INSTANCE_FCN.CLASS_AGNOSTIC", str(agnostic)]
    with torch.device("meta"):
        model = build_model(load_config("coco/instance_fcn_vgg16.yaml", options))
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.backbone.output_shape()["conv5"].stride == 8


def small(**options):
    """Windows of 6 cells with 3 x 3 parts at stride 4, three classes."""
    settings = {
        "in_channels": 8,
        "num_classes": 3,
        "in_features": ["p2"],
        "strides": [4],
        "channels": 8,
        "window": 6,
        "parts": 3,
        "positive_offset": 0.2,
        "negative_offset": 0.3,
        "positive_sizes": (0.4, 1.0),
        "negative_sizes": (0.2, 1.2),
    }
    return InstanceFCN(**{**settings, **options})


# --- losses


def outputs_of(representation, height, width, count=1):
    features = {"p2": torch.randn(count, 8, height // 4, width // 4)}
    return representation.layers(features)


def test_losses_equal_their_definition():
    """All windows are taken: nothing is left to chance."""
    torch.manual_seed(0)
    representation = small(windows_per_image=10_000).train()
    masks = rectangles((48, 64), (8, 8, 26, 28), (36, 20, 56, 40))
    truths = [truth_with(masks, [2, 0]), truth_with(masks[:0])]
    outputs = outputs_of(representation, 48, 64, 2)
    losses = representation.losses(outputs, truths, (48, 64))
    windows = Windows.of(6, [(12, 16)], [4], CPU)
    owners = match_windows(windows, truths[0].boxes, **representation.rules).tolist()
    assembled = assemble(outputs.maps[0], windows, parts_of(6, 3))
    cells = truths[0].masks_at(4, (48, 64))
    scores, shown = [], []
    for k, owner in enumerate(owners):
        if owner == LEFT_OUT:
            continue
        wanted = torch.zeros(3)
        if owner >= 0:
            wanted[[2, 0][owner]] = 1
            pixels = []
            for i in range(6):
                for j in range(6):
                    row, column = k // 16 - 3 + i, k % 16 - 3 + j
                    if 0 <= row < 12 and 0 <= column < 16:
                        p = assembled[k, i, j].sigmoid().item()
                        pixels.append(-math.log(p if cells[owner, row, column] else 1 - p))
            shown.append(sum(pixels) / len(pixels))
        scores.append(
            F.binary_cross_entropy_with_logits(outputs.scores[0, k], wanted, reduction="sum").item()
        )
    scores += F.softplus(outputs.scores[1]).sum(1).tolist()  # the image without objects
    assert len(shown) > 4
    assert losses["loss_mask"].item() == pytest.approx(sum(shown) / len(shown), rel=1e-4)
    assert losses["loss_score"].item() == pytest.approx(sum(scores) / len(scores), rel=1e-4)
    assert losses.loss("loss_mask")[0].count == len(shown)
    assert losses.loss("loss_score")[0].count == len(scores)


def test_windows_are_drawn_one_to_one():
    """Half of the windows have an object where there are as many; else others take their places."""
    representation = small(windows_per_image=20, positive_offset=0.3, negative_offset=0.4).train()
    outputs = outputs_of(representation, 48, 64)
    many = truth_with(rectangles((48, 64), (8, 8, 26, 28), (36, 20, 56, 40)))
    for truth, shown in ((many, 10), (truth_with(torch.zeros(0, 48, 64).bool()), 0)):
        losses = representation.losses(outputs, [truth], (48, 64))
        assert losses.loss("loss_score")[0].count == 20
        assert losses.loss("loss_mask")[0].count == shown


@pytest.mark.parametrize("agnostic", [True, False])
def test_no_objects_give_a_gradient_to_everything(agnostic):
    representation = small(class_agnostic=agnostic).train()
    outputs = representation.layers(
        {"p2": torch.randn(1, 8, 12, 16), "p3": torch.randn(1, 8, 6, 8)}
    )
    losses = representation.losses(outputs, [truth_with(torch.zeros(0, 48, 64).bool())], (48, 64))
    assert losses["loss_mask"].item() == 0
    sum(losses.values()).backward()
    for name, parameter in representation.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("count", [1, 600])
def test_tiny_and_many_objects(count):
    representation = small(window=3, parts=3, positive_sizes=(0.05, 1), negative_sizes=(0.01, 2))
    masks = torch.zeros(count, 64, 64, dtype=torch.bool)
    cells = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0))[:count]
    masks.flatten(1)[torch.arange(count), cells] = True
    outputs = outputs_of(representation.train(), 64, 64)
    losses = representation.losses(outputs, [truth_with(masks, [1] * count)], (64, 64))
    assert losses.loss("loss_mask")[0].count > 0
    assert all(loss.isfinite() for loss in losses.values())


# --- finding


def written_down(representation, truth, size, stride=4):
    """What the network would say if it knew: each object by the window nearest to its centre.

    Score maps have one value for each part in each cell, so that two objects may want two values
    of the same one; here they are far apart.
    """
    grid = (size[0] // stride, size[1] // stride)
    windows = Windows.of(representation.window, [grid], [stride], CPU)
    scores = torch.full((1, grid[0] * grid[1], representation.num_classes), -9.0)
    maps = torch.full((1, len(representation.parts.unique()), grid[0] * grid[1]), -9.0)
    middles = (truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2
    cells = truth.masks_at(stride, (grid[0] * stride, grid[1] * stride))
    for j, middle in enumerate(middles):
        place = (windows.centers - middle).abs().amax(1).argmin()
        scores[0, place, truth.classes[j]] = 9
        row, column = (part[0] for part in windows[place[None]].places())
        for i, y in enumerate(row.tolist()):
            for k, x in enumerate(column.tolist()):
                if 0 <= y < grid[0] and 0 <= x < grid[1]:
                    part = representation.parts[i, k]
                    maps[0, part, y * grid[1] + x] = 18.0 * cells[j, y, x] - 9
    return InstanceFCNOutputs(scores, maps, [grid])


def test_the_truth_comes_back():
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(128) + 0.5, indexing="ij")
    disc = (x - 30) ** 2 + (y - 25) ** 2 < 18**2
    ring = ((x - 92) ** 2 + (y - 60) ** 2 < 21**2) & ((x - 92) ** 2 + (y - 60) ** 2 > 10**2)
    masks = torch.stack([disc, ring])
    truth = truth_with(masks, [2, 0])
    representation = small(window=12, parts=5, nms_threshold=0.5)
    outputs = written_down(representation, truth, (96, 128))
    (found,) = representation.find(outputs, (96, 128), [(96, 128)])
    assert sorted(found.pred_classes.tolist()) == [0, 2]
    done = finish(found, 96, 128, "bitmask")
    for mask, label in zip(done.pred_masks, done.pred_classes, strict=True):
        wanted = masks[[2, 0].index(label)]
        overlap = (mask & wanted).sum() / (mask | wanted).sum()
        assert overlap > 0.83, label  # the best that stride 4 gives: the ring .85


def test_what_is_found_twice_goes_by_the_boxes_of_the_masks():
    """Two windows show the same object; of another class it stays."""
    representation = small(window=12, parts=5)
    truth = truth_with(rectangles((96, 128), (16, 20, 52, 56)), [1])
    outputs = written_down(representation, truth, (96, 128))
    place = outputs.scores[0, :, 1].argmax()
    outputs.maps[:] = outputs.maps.amax(dim=1, keepdim=True)  # every part says the same
    outputs.scores[0, place + 1, 1] = 2
    for classes, expected in (([1], 1), ([1, 2], 2)):
        for label in classes[1:]:
            outputs.scores[0, place + 1, label] = 1
        (found,) = representation.find(outputs, (96, 128), [(96, 128)])
        assert found.pred_classes.tolist() == classes
        assert len(found) == expected
    boxes = found.pred_masks.boxes
    assert torch.equal(boxes[0], torch.tensor([16.0, 20, 52, 56]))


def test_windows_without_a_pixel_of_the_image_are_nothing():
    representation = small(window=12, parts=5)
    truth = truth_with(rectangles((96, 128), (96, 64, 128, 96)), [1])
    outputs = written_down(representation, truth, (96, 128))
    (found,) = representation.find(outputs, (96, 128), [(60, 90)])  # the rest is padding
    assert len(found) == 0


def test_a_score_for_any_class():
    representation = small(class_agnostic=True)
    assert representation.scores.out_channels == 1
    truth = truth_with(rectangles((48, 64), (8, 8, 26, 28)), [2])
    outputs = outputs_of(representation.train(), 48, 64)
    assert outputs.scores.shape == (1, 192, 1)
    assert representation.losses(outputs, [truth], (48, 64))["loss_mask"] > 0
    (found,) = representation.find(outputs, (48, 64), [(48, 64)])
    assert not found.pred_classes.any()


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"parts": 7}, "PARTS"),
        ({"positive_sizes": (0.1, 0.5)}, "POSITIVE_SIZES"),
        ({"positive_offset": 0.5}, "POSITIVE_OFFSET"),
    ],
)
def test_settings_that_do_not_fit(options, key):
    with pytest.raises(ConfigError, match=key):
        small(**options)


# --- the system


# Untrained, a system finds as much as it may.
FEW = ("TEST.DETECTIONS_PER_IMAGE", "10", "MODEL.INSTANCE_FCN.NMS_PRE", "50")


@pytest.fixture(scope="module")
def shapes_model():
    torch.manual_seed(0)
    cfg = load_config("shapes/instance_fcn_r18.yaml", ["MODEL.DEVICE", "cpu", *FEW])
    model = build_model(cfg).eval()
    for layer in (model.representation.scores, model.representation.maps):
        torch.nn.init.normal_(layer.weight, std=0.2)
    return model


def test_contract_of_instance_systems():
    check_instance_system(load_config("shapes/instance_fcn_r18.yaml", [*FEW]))


def test_one_feature_of_timm_and_of_vgg():
    timm = ["MODEL.BACKBONE.NAME", "build_timm_backbone", "MODEL.TIMM.NAME", "test_resnet"]
    options = ["MODEL.INSTANCE_FCN.IN_FEATURES", "['res3']", "MODEL.TIMM.OUT_FEATURES", "['res3']"]
    check_instance_system(load_config("shapes/instance_fcn_r18.yaml", [*timm, *options, *FEW]))
    vgg = ["MODEL.VGG.WIDTH", "4", "MODEL.INSTANCE_FCN.CHANNELS", "16"]
    check_instance_system(load_config("_base_/instance_fcn.yaml", [*vgg, *FEW]), size=(61, 75))


def test_odd_sizes_and_independence_of_the_batch(shapes_model):
    generator = torch.Generator().manual_seed(0)
    sizes = [(97, 64), (61, 75), (97, 64), (1, 1)]
    samples = [{"image": torch.randint(256, (3, *size), generator=generator)} for size in sizes]
    with torch.no_grad():
        together = shapes_model.inference(samples, do_postprocess=False)
        for sample, found in zip(samples, together, strict=True):
            (alone,) = shapes_model.inference([sample], do_postprocess=False)
            assert len(alone) == len(found) > 0
            torch.testing.assert_close(alone.scores, found.scores, rtol=0, atol=1e-4)
            masks, other = alone.pred_masks.windows, found.pred_masks.windows
            torch.testing.assert_close(masks, other, rtol=0, atol=1e-4)


def test_scales_of_the_image(shapes_model):
    """At twice its size the image gives what the doubled image gives, at half the size."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(3, 48, 64, generator=generator) * 255
    double = F.interpolate(image[None], scale_factor=2, mode="bilinear")[0]
    representation = shapes_model.representation
    try:
        with torch.no_grad():
            (large,) = shapes_model.inference([{"image": double}], do_postprocess=False)
            representation.test_scales = [2.0]
            (small_one,) = shapes_model.inference([{"image": image}], do_postprocess=False)
            representation.test_scales = [1.0, 2.0]
            (both,) = shapes_model.inference([{"image": image}])
    finally:
        representation.test_scales = [1.0]
    torch.testing.assert_close(large.scores, small_one.scores, rtol=0, atol=1e-4)
    assert torch.equal(small_one.pred_masks.strides, large.pred_masks.strides / 2)
    assert both["instances"].image_size == (48, 64)
    assert len(both["instances"]) > 0
