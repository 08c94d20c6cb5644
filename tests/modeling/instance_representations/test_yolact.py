"""YOLACT: parameters, losses, and the way from codes and prototypes to instances."""

from __future__ import annotations

import math

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.modeling.backbones.pyramid import LinearP6P7
from seg_plugins.modeling.instance_representations import YOLACT
from seg_plugins.modeling.instance_representations.anchors import (
    BACKGROUND,
    LEFT_OUT,
    encode_boxes,
    match_anchors,
)
from seg_plugins.modeling.instance_representations.finishing import finish
from seg_plugins.modeling.instance_representations.yolact import YOLACTOutputs
from seg_plugins.modeling.instance_representations.yolact_losses import (
    anchor_classes,
    cropped_mask_losses,
    inside_boxes,
    mined_cross_entropy,
    semantic_loss,
)
from seg_plugins.ops.suppression import box_iou_matrix, fast_nms, fast_nms_of_classes
from seg_plugins.testing import check_instance_system

import pytest
import torch
import torch.nn.functional as F
from detectron2.modeling import build_model
from truth_of_rectangles import rectangles, truth_with

CPU = torch.device("cpu")


@pytest.mark.parametrize(("depth", "expected"), [(50, 31_164_943), (101, 50_157_071)])
def test_parameters(depth, expected):
    cfg = load_config(f"coco/yolact_r{depth}.yaml", ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        model = build_model(cfg)
    assert sum(p.numel() for p in model.parameters()) == expected


def small(**options):
    """Two levels of strides 8 and 16, prototypes at stride 4, three classes."""
    settings = {
        "in_channels": 8,
        "num_classes": 3,
        "in_features": ["p3", "p4"],
        "anchor_sizes": [[16], [32]],
        "channels": 8,
        "prototypes": 4,
        "proto_channels": 8,
        "num_proto_convs": 1,
    }
    return YOLACT(**{**settings, **options})


def features_of(height, width, count=1):
    return {
        "p3": torch.randn(count, 8, height // 8, width // 8, requires_grad=True),
        "p4": torch.randn(count, 8, -(-height // 16), -(-width // 16), requires_grad=True),
    }


# --- losses


def test_mask_loss_by_hand():
    """A box of 10 x 10 cells, probability 1/2 everywhere: the crop has 12 x 12 cells."""
    boxes = torch.tensor([[20.0, 30, 30, 40]])
    found = cropped_mask_losses(torch.zeros(1, 64, 64), torch.ones(1, 64, 64), boxes)
    assert 6.125 * found.item() == pytest.approx(6.11356, abs=1e-5)
    assert 6.125 * found.item() == pytest.approx(6.125 * math.log(2) * 144 / 100)


def test_mask_losses_equal_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 9, 11, generator=generator)
    targets = (torch.rand(6, 9, 11, generator=generator) > 0.5).float()
    low = torch.rand(6, 2, generator=generator) * 6
    boxes = torch.cat([low, low + torch.rand(6, 2, generator=generator) * 5 + 1], dim=1)
    for i, found in enumerate(cropped_mask_losses(logits, targets, boxes)):
        x0, y0, x1, y1 = boxes[i].tolist()
        total = 0.0
        for y in range(9):
            for x in range(11):
                if max(x0 - 1, 0) <= x < min(x1 + 1, 11) and max(y0 - 1, 0) <= y < min(y1 + 1, 9):
                    p = 1 / (1 + math.exp(-logits[i, y, x].item()))
                    total -= math.log(p if targets[i, y, x] else 1 - p)
        assert found.item() == pytest.approx(total / ((x1 - x0) * (y1 - y0)), rel=1e-5)


def test_a_box_below_a_cell_counts_as_one():
    tiny = torch.tensor([[5.0, 5, 5.25, 5.25]])
    (found,) = cropped_mask_losses(torch.zeros(1, 12, 12), torch.zeros(1, 12, 12), tiny)
    cells = inside_boxes(tiny, (12, 12)).sum()
    assert found.item() == pytest.approx(math.log(2) * cells.item())


def test_mining_equals_loops():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 40, 5, generator=generator)
    classes = torch.randint(-1, 1, (3, 40), generator=generator)
    classes[0, :3], classes[1, :11] = 2, 4  # 3, 11 (33 negatives at most) and no objects
    total = 0.0
    for image, wanted in zip(logits, classes, strict=True):
        losses = F.cross_entropy(image, wanted.clamp(min=0), reduction="none")
        negatives = sorted(-losses[i].item() for i in range(40) if wanted[i] == 0)
        positives = [losses[i].item() for i in range(40) if wanted[i] > 0]
        total += sum(positives) - sum(negatives[: 3 * len(positives)])
    assert mined_cross_entropy(logits, classes, 3).item() == pytest.approx(total, rel=1e-5)


def test_classes_of_anchors():
    owners = torch.tensor([1, BACKGROUND, LEFT_OUT, 0])
    assert anchor_classes(owners, torch.tensor([7, 0])).tolist() == [1, 0, -1, 8]
    assert anchor_classes(owners[1:3], torch.zeros(0).long()).tolist() == [0, -1]


def test_semantic_loss_joins_the_masks_of_a_class():
    masks = torch.zeros(3, 2, 3)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[2, 1, 1] = 1
    logits = torch.zeros(2, 2, 3)
    logits[1, 0, 0] = logits[0, 1, 1] = 50  # both right
    found = semantic_loss(logits, masks, torch.tensor([1, 1, 0]), (2, 2))
    # Of the four cells of the image two classes each: 6 are undecided.
    assert found.item() == pytest.approx(6 * math.log(2) / 4)


def test_losses_equal_their_parts():
    """All four, put together from the definitions, for a batch with and without objects."""
    torch.manual_seed(0)
    representation = small().train()
    masks = rectangles((64, 96), (8, 8, 24, 24), (40, 16, 72, 48))
    truths = [truth_with(masks, [2, 0]), truth_with(masks[:0])]
    outputs = representation.layers(features_of(64, 96, 2))
    losses = representation.losses(outputs, truths, (64, 96))
    anchors = representation.anchors(outputs.grids, (64, 96), CPU)
    owners = match_anchors(anchors, truths[0].boxes)
    places = (owners >= 0).nonzero()[:, 0]
    count = len(places)
    codes = encode_boxes(truths[0].boxes[owners[places]], anchors[places])
    box = 1.5 * F.smooth_l1_loss(outputs.boxes[0, places], codes, reduction="sum") / count
    assert losses["loss_box"].item() == pytest.approx(box.item(), rel=1e-5)
    total = 0.0
    for place in places:
        logits = torch.einsum("k,khw->hw", outputs.codes[0, place], outputs.prototypes[0])
        target = truths[0].masks_at(4, (64, 96))[owners[place]]
        part = cropped_mask_losses(
            logits[None], target[None], truths[0].boxes[owners[place]][None] / 4
        )
        total += 6.125 * part.item() / count
    assert losses["loss_mask"].item() == pytest.approx(total, rel=1e-4)
    classes = torch.stack([anchor_classes(owners, truths[0].classes), torch.zeros_like(owners)])
    mined = mined_cross_entropy(outputs.classes, classes, 3) / count
    assert losses["loss_class"].item() == pytest.approx(mined.item(), rel=1e-5)
    semantic = sum(
        semantic_loss(image, truth.masks_at(8, (64, 96)), truth.classes, (8, 12))
        for image, truth in zip(outputs.semantic, truths, strict=True)
    )
    assert losses["loss_semantic"].item() == pytest.approx(semantic.item() / 2, rel=1e-5)


def test_a_sample_of_masks_stands_for_all():
    """With equal codes each mask of an object has the same loss, whichever are drawn."""
    representation = small().train()
    truth = truth_with(rectangles((64, 96), (8, 8, 40, 40)))
    outputs = representation.layers(features_of(64, 96))
    outputs = outputs._replace(codes=torch.full_like(outputs.codes, 0.3))
    whole = representation.losses(outputs, [truth], (64, 96))["loss_mask"]
    representation.masks_to_train = 2
    sampled = representation.losses(outputs, [truth], (64, 96))["loss_mask"]
    assert sampled.item() == pytest.approx(whole.item(), rel=1e-5)


def test_no_objects_give_zero_and_a_gradient_to_everything():
    """Division by the number of anchors with an object is one by zero in the reference."""
    representation = small().train()
    outputs = representation.layers({**features_of(64, 96), "p5": torch.randn(1, 8, 2, 3)})
    losses = representation.losses(outputs, [truth_with(torch.zeros(0, 64, 96).bool())], (64, 96))
    for name in ("loss_class", "loss_box", "loss_mask"):
        assert losses[name].item() == 0
    assert losses["loss_semantic"] > 0  # nothing is nowhere
    sum(losses.values()).backward()
    for name, parameter in representation.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("count", [1, 600])
def test_tiny_and_many_objects(count):
    """One pixel each, in one image more of them than there are anchors."""
    representation = small().train()
    masks = torch.zeros(count, 64, 64, dtype=torch.bool)
    cells = torch.randperm(64 * 64, generator=torch.Generator().manual_seed(0))[:count]
    masks.flatten(1)[torch.arange(count), cells] = True
    outputs = representation.layers(features_of(64, 64))
    losses = representation.losses(outputs, [truth_with(masks, [1] * count)], (64, 64))
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["loss_mask"] < 6.125 * 20  # not sixteen times as much, at stride 4
    sum(losses.values()).backward()


# --- finding


def written_down(truth, representation, size):
    """What the network would say if it knew: each object by the anchor of the greatest IoU."""
    grids = [(size[0] // 8, size[1] // 8), (-(-size[0] // 16), -(-size[1] // 16))]
    anchors = representation.anchors(grids, size, CPU)
    owners = match_anchors(anchors, truth.boxes, foreground=2.0, background=2.0)
    places = (owners >= 0).nonzero()[:, 0]
    assert len(places) == len(truth)
    count = len(truth)
    classes = torch.zeros(1, len(anchors), 4)
    classes[0, :, 0] = 9
    classes[0, places] = F.one_hot(truth.classes[owners[places]] + 1, 4) * 9.0
    boxes = torch.zeros(1, len(anchors), 4)
    boxes[0, places] = encode_boxes(truth.boxes[owners[places]], anchors[places])
    # A prototype for each object, and one that is everywhere.
    prototypes = torch.cat(
        [truth.masks_at(2, size) * 40, torch.full((1, size[0] // 2, size[1] // 2), 20.0)]
    )
    codes = torch.zeros(1, len(anchors), count + 1)
    codes[0, places, owners[places]] = 1
    codes[0, places, -1] = -1
    return YOLACTOutputs(classes, boxes, codes, prototypes[None], None, grids)


def test_the_truth_comes_back():
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    disc = (x - 30) ** 2 + (y - 25) ** 2 < 18**2
    ring = ((x - 70) ** 2 + (y - 40) ** 2 < 20**2) & ((x - 70) ** 2 + (y - 40) ** 2 > 11**2)
    masks = torch.stack([disc, ring, *rectangles((64, 96), (2, 50, 40, 62))])
    truth = truth_with(masks, [2, 0, 1])
    representation = small(class_score_threshold=0.05, proto_upsampling=4)
    outputs = written_down(truth, representation, (64, 96))
    (found,) = representation.find(outputs, (64, 96), [(64, 96)])
    assert sorted(found.pred_classes.tolist()) == [0, 1, 2]
    done = finish(found, 64, 96, "bitmask")
    for mask, label in zip(done.pred_masks, done.pred_classes, strict=True):
        wanted = masks[[2, 0, 1].index(label)]
        overlap = (mask & wanted).sum() / (mask | wanted).sum()
        assert overlap > 0.9, label  # the best that stride 2 gives: the ring .916


def test_a_wrong_box_cuts_its_mask():
    """As in the paper: the crop leaves one cell around the predicted box, whatever is outside."""
    truth = truth_with(rectangles((64, 96), (16, 16, 48, 48)), [1])
    representation = small(class_score_threshold=0.05, proto_upsampling=4)
    outputs = written_down(truth, representation, (64, 96))
    anchors = representation.anchors(outputs.grids, (64, 96), CPU)
    place = outputs.codes[0].abs().sum(1).argmax()
    half = torch.tensor([[16.0, 16, 32, 48]])
    outputs.boxes[0, place] = encode_boxes(half, anchors[place][None])[0]
    (found,) = representation.find(outputs, (64, 96), [(64, 96)])
    done = finish(found, 64, 96, "bitmask")
    # One cell is two pixels; interpolation ends between the last cell and the next.
    assert done.pred_boxes.tensor.tolist() == [[16, 16, 34, 48]]


def test_fast_nms_of_classes():
    """By hand: pixels 0-5, 2-7 and 4-9; the second goes and still takes the third with it."""
    rows = torch.tensor([[0.0, 0, 6, 1], [2, 0, 8, 1], [4, 0, 10, 1]])
    assert fast_nms_of_classes(rows[None], 0.4).tolist() == [[True, False, False]]
    assert fast_nms_of_classes(rows[None], 0.5).all()
    low = torch.rand(5, 12, 2, generator=torch.Generator().manual_seed(0)) * 20
    boxes = torch.cat([low, low + 15], dim=2)
    found = fast_nms_of_classes(boxes, 0.3)
    scores = torch.linspace(1, 0, 12)
    for one, kept in zip(boxes, found, strict=True):
        assert torch.equal(fast_nms(one, scores, torch.zeros(12).long(), 0.3), kept)
    assert torch.equal(box_iou_matrix(boxes)[3], box_iou_matrix(boxes[3]))
    assert fast_nms_of_classes(torch.zeros(3, 0, 4), 0.5).shape == (3, 0)


def test_nothing_is_found_where_nothing_is():
    representation = small(proto_upsampling=4)
    truth = truth_with(rectangles((64, 96), (16, 16, 48, 48)))
    outputs = written_down(truth, representation, (64, 96))
    outputs.classes[0] = torch.tensor([9.0, 0, 0, 0])
    (found,) = representation.find(outputs, (64, 96), [(60, 90)])
    assert len(found) == 0
    assert len(finish(found, 30, 45, "rle")) == 0


def test_scores_and_thresholds():
    """An anchor counts by its best class; its others count above a threshold of their own."""
    truth = truth_with(rectangles((64, 96), (16, 16, 48, 48)), [1])
    for least, expected in ((0.0, 3), (0.01, 1)):
        representation = small(class_score_threshold=least, proto_upsampling=4)
        outputs = written_down(truth, representation, (64, 96))
        (found,) = representation.find(outputs, (64, 96), [(64, 96)])
        assert len(found) == expected
        assert found.pred_classes[0] == 1
        assert (found.scores.diff() <= 0).all()
    representation = small(class_score_threshold=0.0, proto_upsampling=4, max_instances=2)
    (found,) = representation.find(outputs, (64, 96), [(64, 96)])
    assert len(found) == 2


# --- parts and settings


def test_p7_comes_from_p6_without_a_relu():
    top = LinearP6P7(4, 4, "p5")
    p5 = torch.randn(1, 4, 9, 7)
    p6, p7 = top(p5)
    assert (p6 < 0).any()
    torch.testing.assert_close(p6, F.conv2d(p5, top.p6.weight, top.p6.bias, 2, 1))
    torch.testing.assert_close(p7, F.conv2d(p6, top.p7.weight, top.p7.bias, 2, 1))
    assert p7.shape[-2:] == (3, 2)


def test_anchors_that_grow_with_the_image():
    fixed, growing = small(), small(anchor_image_size=96)
    grids = [(8, 12), (4, 6)]
    for size, factor in (((64, 96), 1), ((192, 128), 2)):
        wanted = fixed.anchors(grids, size, CPU)
        wanted[:, 2:] *= factor
        torch.testing.assert_close(growing.anchors(grids, size, CPU), wanted)


@pytest.mark.parametrize(
    "sizes", [[[16]], [[16], [32], [64]], [[16], [32, 48]]], ids=["few", "many", "uneven"]
)
def test_sizes_for_other_levels_are_refused(sizes):
    with pytest.raises(ConfigError, match="ANCHOR_SIZES"):
        small(anchor_sizes=sizes)


def test_the_semantic_branch_is_for_training():
    representation = small()
    assert representation.train().layers(features_of(64, 96)).semantic.shape == (1, 3, 8, 12)
    assert representation.eval().layers(features_of(64, 96)).semantic is None


# Untrained, a system finds as much as it may.
FEW = ("TEST.DETECTIONS_PER_IMAGE", "10")


@pytest.fixture(scope="module")
def shapes_model():
    torch.manual_seed(0)
    cfg = load_config("shapes/yolact_r18.yaml", ["MODEL.DEVICE", "cpu", *FEW])
    model = build_model(cfg).eval()
    # Scores and masks that say something without training.
    torch.nn.init.normal_(model.representation.prediction_layers[0].conf_layer.weight, std=0.3)
    torch.nn.init.normal_(model.representation.prediction_layers[0].mask_layer.weight, std=0.3)
    return model


def test_contract_of_instance_systems():
    check_instance_system(load_config("shapes/yolact_r18.yaml", [*FEW]))


def test_a_pyramid_on_timm():
    options = ["MODEL.BACKBONE.NAME", "build_timm_fpn_backbone", "MODEL.TIMM.NAME", "test_resnet"]
    check_instance_system(load_config("shapes/yolact_r18.yaml", [*options, *FEW]), size=(60, 75))


def test_odd_sizes_and_independence_of_the_batch(shapes_model):
    generator = torch.Generator().manual_seed(0)
    sizes = [(97, 64), (61, 75), (97, 64), (1, 1), (90, 60)]
    samples = [{"image": torch.randint(256, (3, *size), generator=generator)} for size in sizes]
    with torch.no_grad():
        together = shapes_model.inference(samples, do_postprocess=False)
        for sample, found in zip(samples, together, strict=True):
            (alone,) = shapes_model.inference([sample], do_postprocess=False)
            assert len(alone) == len(found) > 0
            torch.testing.assert_close(alone.scores, found.scores, rtol=0, atol=1e-4)
            assert torch.equal(alone.pred_classes, found.pred_classes)
            maps, other = alone.pred_masks.maps, found.pred_masks.maps
            torch.testing.assert_close(maps, other, rtol=0, atol=1e-4)
