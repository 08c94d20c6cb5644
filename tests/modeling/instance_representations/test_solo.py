"""SOLO and SOLOv2: parameters, targets, losses and the way from maps to instances."""

from __future__ import annotations

import math

from seg_plugins import load_config
from seg_plugins.config import ConfigError
from seg_plugins.engine.checkpoint import Checkpointer
from seg_plugins.modeling.instance_representations import base
from seg_plugins.modeling.instance_representations.base import Truth
from seg_plugins.modeling.instance_representations.grid import SOLOOutputs, point_nms
from seg_plugins.modeling.instance_representations.layers import dice_losses, focal_sum
from seg_plugins.modeling.instance_representations.solo import SOLO
from seg_plugins.modeling.instance_representations.solo_grid import grid_targets
from seg_plugins.modeling.instance_representations.solo_v2 import SOLOv2

import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

GRIDS = [40, 36, 24, 16, 12]
RANGES = [(1, 96), (48, 192), (96, 384), (192, 768), (384, 2048)]


@pytest.mark.parametrize(
    ("system", "depth", "expected"),
    [
        ("solo", 50, 36_248_112),
        ("solo", 101, 55_188_016),
        ("solo_v2", 50, 46_539_792),
        ("solo_v2", 101, 65_479_696),
    ],
)
def test_parameters(system, depth, expected):
    opts = ["MODEL.DEVICE", "meta", "MODEL.RESNETS.DEPTH", str(depth)]
    with torch.device("meta"):
        model = build_model(load_config(f"_base_/{system}.yaml", opts))
    assert sum(p.numel() for p in model.parameters()) == expected


def truth_with(masks, classes=None):
    masks = torch.stack(masks) if isinstance(masks, list) else masks.bool()
    instances = Instances(tuple(masks.shape[-2:]))
    instances.gt_masks = BitMasks(masks)
    boxes = instances.gt_masks.get_bounding_boxes() if len(masks) else Boxes(torch.zeros(0, 4))
    instances.gt_boxes = boxes
    instances.gt_classes = torch.as_tensor(classes if classes else [0] * len(masks)).long()
    return Truth(instances, torch.device("cpu"))


def rectangle(size, x0, y0, x1, y1):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_targets_by_hand():
    truth = truth_with([rectangle(640, 96, 64, 224, 128)], [3])
    levels = grid_targets(truth, GRIDS, RANGES, 0.2, (640, 640), 80)
    assert [level.cells.tolist() for level in levels] == [
        [209, 210, 249, 250],
        [188, 189],
        [],
        [],
        [],
    ]
    assert levels[0].classes[[209, 210, 249, 250]].tolist() == [3] * 4
    assert (levels[0].classes == 80).sum() == 40 * 40 - 4


def test_a_centre_on_a_border_belongs_to_the_cell_behind_it():
    """Division by 1 / S puts 30 of the 40 borders one cell low."""
    for cell in range(40):
        mask = rectangle(640, max(cell * 16 - 1, 0), 0, cell * 16 + 1, 2)
        (level,) = grid_targets(truth_with([mask]), [40], [(0, 640)], 0.0, (640, 640), 1)
        assert level.cells.tolist() == [cell]


def test_a_cell_of_two_objects_goes_to_the_smaller():
    large, small = rectangle(64, 0, 0, 64, 64), rectangle(64, 24, 24, 40, 40)
    for masks, classes, owner in ([large, small], [1, 2], 1), ([small, large], [2, 1], 0):
        (level,) = grid_targets(truth_with(masks, classes), [4], [(1, 100)], 0.2, (64, 64), 5)
        center = level.cells.tolist().index(5)
        assert level.owners[center] == owner
        assert level.classes[5] == 2
        assert len(set(level.cells.tolist())) == len(level.cells)


def slow_targets(truth, grid, low, high, sigma, size, background):
    """Object by object and cell by cell, from the largest mask to the smallest."""
    classes, owners = {}, {}
    for index in sorted(range(len(truth)), key=lambda i: (-truth.areas[i].item(), -i)):
        x0, y0, x1, y1 = truth.boxes[index].double().tolist()
        scale = math.sqrt((x1 - x0) * (y1 - y0))
        if not low <= scale <= high or not truth.areas[index]:
            continue
        rows, columns = truth.bitmasks[index].nonzero().double().unbind(1)
        center = (columns.mean().item() + 0.5, rows.mean().item() + 0.5)
        half = ((x1 - x0) * sigma / 2, (y1 - y0) * sigma / 2)
        for i in range(grid):
            for j in range(grid):
                inside = True
                for axis, cell in ((0, j), (1, i)):
                    own = [math.floor((center[axis] + sign * half[axis]) * grid / size[1 - axis])
                           for sign in (-1, 0, 1)]  # fmt: skip
                    first, middle, last = (min(max(v, 0), grid - 1) for v in own)
                    inside &= max(first, middle - 1) <= cell <= min(last, middle + 1)
                if inside:
                    classes[i * grid + j] = truth.classes[index].item()
                    owners[i * grid + j] = index
    return [classes.get(i, background) for i in range(grid**2)], owners


@pytest.mark.parametrize("seed", range(4))
def test_targets_against_loops(seed):
    generator = torch.Generator().manual_seed(seed)
    count, size = 14, (72, 104)
    low = (torch.rand(count, 2, generator=generator) * torch.tensor([80.0, 50.0])).int()
    side = (torch.rand(count, 2, generator=generator) * 40).int() + 1
    masks = torch.zeros(count, 66, 97, dtype=torch.bool)
    for mask, (x, y), (w, h) in zip(masks, low.tolist(), side.tolist(), strict=True):
        mask[y : y + h, x : x + w] = (
            torch.rand(66, 97, generator=generator)[y : y + h, x : x + w] > 0.3
        )
    truth = truth_with(masks, torch.randint(0, 5, (count,), generator=generator).tolist())
    ranges = [(1, 20), (10, 30), (25, 200)]
    levels = grid_targets(truth, [12, 9, 5], ranges, 0.4, size, 5)
    for level, grid, (least, most) in zip(levels, [12, 9, 5], ranges, strict=True):
        classes, owners = slow_targets(truth, grid, least, most, 0.4, size, 5)
        assert level.classes.tolist() == classes
        assert dict(zip(level.cells.tolist(), level.owners.tolist(), strict=True)) == owners


def test_dice_by_hand():
    found = dice_losses(torch.full((1, 4), 0.5), torch.ones(1, 4))
    assert found.item() == pytest.approx(1 - 4 / 5.002)
    assert found.item() == pytest.approx(0.20032, abs=1e-5)
    nothing = dice_losses(torch.zeros(1, 4), torch.zeros(1, 4))
    assert nothing.item() == 1


def test_focal_loss_by_hand():
    """p = 0.5: 0.25 ln 2 of each term, times alpha or 1 - alpha."""
    logits = torch.zeros(3, 2)
    found = focal_sum(logits, torch.tensor([1, 2, -1]), alpha=0.25, gamma=2.0)
    # One positive and three negative terms; the third location is left out.
    assert found.item() == pytest.approx(0.25 * math.log(2) * (0.25 + 3 * 0.75))
    assert focal_sum(torch.tensor([[-90.0], [90.0]]), torch.tensor([1, 0])).item() == 0


def test_point_nms_compares_with_the_cells_above_and_to_the_left():
    scores = torch.tensor([[[[0.3, 0.9, 0.1], [0.8, 0.2, 0.4], [0.5, 0.6, 0.7]]]])
    kept = point_nms(scores)[0, 0]
    assert kept.tolist() == [
        [pytest.approx(0.3), pytest.approx(0.9), 0],
        [pytest.approx(0.8), 0, 0],
        [0, 0, pytest.approx(0.7)],
    ]


def small(kind, **more):
    torch.manual_seed(0)
    arguments = {
        "num_classes": 3,
        "grids": [6, 4, 3],
        "strides": [1, 1, 1],
        "scale_ranges": [(1, 24), (12, 48), (24, 200)],
        "in_features": ["p2", "p3", "p4"],
        "in_channels": 16,
        "channels": 16,
        "num_convs": 1,
    } | more
    if kind is SOLO:
        return SOLO(in_strides=[4, 8, 16], **arguments)
    return SOLOv2(
        mask_in_features=["p2", "p3"], mask_in_stride=4, kernel_size=16, mask_channels=16,
        **arguments,
    )  # fmt: skip


def features_of_size(height, width, count=1):
    generator = torch.Generator().manual_seed(1)
    return {
        f"p{i}": torch.randn(count, 16, height // 2**i, width // 2**i, generator=generator)
        for i in (2, 3, 4)
    }


def perfect(truth, size, grids=(6, 4, 3), num_classes=3):
    """The outputs of a SOLO that has learned its targets."""
    ranges = [(1, 24), (12, 48), (24, 200)]
    categories, masks = [], []
    for level, (grid, stride) in enumerate(zip(grids, (4, 4, 4), strict=True)):
        target = grid_targets(truth, grids, ranges, 0.2, size, num_classes)[level]
        hot = F.one_hot(target.classes, num_classes + 1)[:, :-1].float() * 20 - 10
        categories.append(hot.T.reshape(1, num_classes, grid, grid))
        found = torch.full((1, grid**2, size[0] // stride, size[1] // stride), -10.0)
        found[0, target.cells] = truth.masks_at(stride, size)[target.owners] * 20 - 10
        masks.append(found)
    return SOLOOutputs(categories, masks)


def test_what_was_encoded_is_found_again():
    """Once each, though several cells and levels have it: matrix NMS lowers the others."""
    masks = [
        rectangle(64, 4, 4, 20, 24),
        rectangle(64, 36, 8, 60, 52),
        rectangle(64, 4, 40, 16, 60),
    ]
    truth = truth_with(masks, [2, 0, 1])
    model = small(SOLO, update_threshold=0.5)
    model.mask_stride = 4
    (found,) = model.find(perfect(truth, (64, 64)), (64, 64), [(64, 64)])
    assert sorted(found.pred_classes.tolist()) == [0, 1, 2]
    assert (found.scores > 0.99).all()
    for mask, kind in zip(found.pred_masks.maps > 0.5, found.pred_classes.tolist(), strict=True):
        owner = [2, 0, 1].index(kind)
        assert mask.equal(truth.masks_at(4, (64, 64))[owner].bool())


@pytest.mark.parametrize("kind", [SOLO, SOLOv2])
class TestBoth:
    """What both systems must do."""

    def outputs(self, model, height=64, width=96, count=1):
        return model.layers(features_of_size(height, width, count))

    def test_losses_without_objects(self, kind):
        """No mask: that loss is 0 with a gradient of 0; every cell is background."""
        model = small(kind).train()
        truths = [truth_with(torch.zeros(0, 64, 96))] * 2
        outputs = self.outputs(model, count=2)
        losses = model.losses(outputs, truths, (64, 96))
        assert losses["loss_mask"].item() == 0
        expected = sum(
            focal_sum(c.permute(0, 2, 3, 1).reshape(-1, 3), torch.full((c[:, 0].numel(),), 3))
            for c in outputs.categories
        )
        torch.testing.assert_close(losses["loss_category"], expected / 2)
        torch.stack(list(losses.values())).sum().backward()
        without = [n for n, p in model.named_parameters() if p.grad is None]
        assert not without
        assert all(p.grad.isfinite().all() for p in model.parameters())

    def test_losses_are_those_of_the_formulas(self, kind):
        """Category: focal sum / (cells with an object + images); masks: mean dice of the cells."""
        model = small(kind).train()
        masks = torch.stack([rectangle(96, 8, 8, 40, 40), rectangle(96, 50, 30, 90, 60)])
        truth = truth_with(masks[:, :64], [1, 2])
        outputs = self.outputs(model)
        losses = model.losses(outputs, [truth], (64, 96))
        levels = grid_targets(truth, model.grids, model.scale_ranges, 0.2, (64, 96), 3)
        count, focal, dice = 0, 0.0, []
        for index, (level, category) in enumerate(zip(levels, outputs.categories, strict=True)):
            grid = category.shape[-1]
            for cell in range(grid**2):
                for k in range(3):
                    p = category[0, k, cell // grid, cell % grid].sigmoid().item()
                    positive = level.classes[cell].item() == k
                    right = p if positive else 1 - p
                    alpha = 0.25 if positive else 0.75
                    focal -= alpha * (1 - right) ** 2 * math.log(right)
            for cell, owner in zip(level.cells.tolist(), level.owners.tolist(), strict=True):
                count += 1
                if kind is SOLO:
                    p = outputs.masks[index][0, cell].sigmoid()
                    stride = 64 // p.shape[0]
                else:
                    kernels, shared = outputs.masks
                    kernel = kernels[index][0].flatten(1)[:, cell]
                    p, stride = (kernel[:, None, None] * shared[0]).sum(0).sigmoid(), 4
                t = truth.masks_at(stride, (64, 96))[owner]
                dice.append(1 - 2 * (p * t).sum() / ((p * p).sum() + (t * t).sum() + 0.002))
        assert count > 4
        assert losses["loss_category"].item() == pytest.approx(focal / (count + 1), rel=1e-4)
        assert losses["loss_mask"].item() == pytest.approx(
            3 * torch.stack(dice).mean().item(), rel=1e-4
        )

    def test_six_hundred_objects_and_single_pixels(self, kind):
        """More than cv2 can resize; each of one pixel."""
        masks = torch.zeros(600, 64, 96, dtype=torch.bool)
        places = torch.randperm(64 * 96, generator=torch.Generator().manual_seed(2))[:600]
        masks.flatten(1)[torch.arange(600), places] = True
        truth = truth_with(masks, [i % 3 for i in range(600)])
        model = small(kind).train()
        losses = model.losses(self.outputs(model), [truth], (64, 96))
        assert all(loss.isfinite() for loss in losses.values())
        assert losses.loss("loss_mask")[0].count > 30

    def test_greedy_mask_nms_by_key(self, kind):
        model = small(kind, nms="mask", score_threshold=0.0).eval()
        with torch.no_grad():
            (found,) = model.find(self.outputs(model), (64, 96), [(60, 90)])
        assert found.image_size == (60, 90)
        assert len(found) <= 100

    def test_masks_of_the_likeliest_cells_only(self, kind):
        """A network that has not learned finds something everywhere: memory has a limit."""
        model = small(kind, score_threshold=0.0, pre_nms=5).eval()
        seen = []
        original = model.masks_of

        def masks_of(masks, index, cells):
            seen.append(len(cells))
            return original(masks, index, cells)

        model.masks_of = masks_of
        with torch.no_grad():
            outputs = self.outputs(model)
            model.find(outputs, (64, 96), [(64, 96)])
        assert seen == [10]
        assert sum(c.numel() for c in outputs.categories) > 100

    def test_wrong_settings_are_named(self, kind):
        with pytest.raises(ConfigError, match=r"NMS_TYPE is matrix or mask, not 'soft'"):
            small(kind, nms="soft")
        with pytest.raises(ConfigError, match="have 2, 3, 3 and 3 entries"):
            small(kind, grids=[6, 4])


@pytest.mark.parametrize(
    ("config", "key"),
    [
        ("solo", "MODEL.SOLO.MASK_UPSAMPLING"),
        ("solo_v2", "MODEL.SOLOV2.MASK_UPSAMPLING"),
        ("cond_inst", "MODEL.CONDINST.MASK_BRANCH.UPSAMPLING"),
        ("yolact", "MODEL.YOLACT.PROTO_UPSAMPLING"),
    ],
)
def test_a_grid_of_parts_of_pixels_is_refused(config, key):
    cfg = load_config(f"shapes/{config}_r18.yaml", ["MODEL.DEVICE", "meta", key, 3])
    with pytest.raises(ConfigError, match=f"{key} 3 must divide"), torch.device("meta"):
        build_model(cfg)


def test_features_that_the_backbone_lacks_are_named():
    cfg = load_config("_base_/solo_v2.yaml", ["MODEL.SOLOV2.INSTANCE_IN_FEATURES", "['p3', 'p7']"])
    shapes = {"p3": ShapeSpec(channels=256, stride=8), "p2": ShapeSpec(channels=256, stride=4)}
    with pytest.raises(ConfigError, match=r"p7.*TOP_BLOCK p6p7"):
        SOLOv2(cfg, shapes)


def test_masks_on_a_grid_keep_what_is_smaller_than_half_a_cell():
    masks = torch.zeros(3, 8, 10, dtype=torch.bool)
    masks[0, 0, 0] = True
    masks[1, 0:4, 0:2] = True  # half of a cell
    masks[1, 4, 4] = True
    masks[2, 4:8, 4:8] = True
    found = truth_with(masks).masks_at(4, (8, 12))
    assert found.nonzero().tolist() == [[0, 0, 0], [1, 0, 0], [2, 1, 1]]


def test_a_file_with_adelaidets_names_is_the_whole_model(tmp_path):
    opts = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""]
    torch.manual_seed(0)
    trained = build_model(load_config("shapes/solo_v2_r18.yaml", opts))
    state = {n.removeprefix("representation."): v for n, v in trained.state_dict().items()}
    assert {n.split(".")[0] for n in state} == {"backbone", "ins_head", "mask_head"}
    torch.save({"model": state}, tmp_path / "SOLOv2.pth")
    other = build_model(load_config("shapes/solo_v2_r18.yaml", opts))
    Checkpointer(other, save_to_disk=False).load(str(tmp_path / "SOLOv2.pth"), complete=True)
    for name, value in trained.state_dict().items():
        assert other.state_dict()[name].equal(value), name


def test_masks_on_a_grid_in_parts_and_once(monkeypatch):
    """Of hundreds of objects not all are numbers at once; levels of one stride share the result."""
    masks = torch.rand(7, 24, 40, generator=torch.Generator().manual_seed(0)) > 0.6
    whole = truth_with(masks).masks_at(4, (32, 64))
    monkeypatch.setattr(base, "_PIXELS_AT_ONCE", 2 * 24 * 40)
    truth = truth_with(masks)
    assert truth.masks_at(4, (32, 64)).equal(whole)
    assert truth.masks_at(4, (32, 64)) is truth.masks_at(4, (32, 64))
    assert truth.masks_at(8, (32, 64)).shape == (7, 4, 8)
