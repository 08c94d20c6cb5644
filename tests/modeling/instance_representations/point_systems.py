"""What CondInst and PolarMask are both held to."""

from __future__ import annotations

import copy
import math
from collections import Counter

from seg_plugins import load_config
from seg_plugins.modeling.instance_representations.points import assign, boxes_of, sides_of
from seg_plugins.testing import instance_sample

import torch
import torch.nn.functional as F
from detectron2.modeling import build_model


def parameters(name):
    """Of the shipped configuration of that name, on the meta device."""
    cfg = load_config(f"coco/{name}.yaml", ["MODEL.DEVICE", "meta"])
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(cfg).parameters())


def small_system(name, opts=()):
    """The system of the embedded dataset with fewer channels, and a model that finds something."""
    key = {"cond_inst": "CONDINST", "polar_mask": "POLARMASK"}[name]
    opts = ["MODEL.FPN.OUT_CHANNELS", 16, f"MODEL.{key}.CHANNELS", 16, *opts]
    opts += ["MODEL.DEVICE", "cpu", "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"]
    return build_model(load_config(f"shapes/{name}_r18.yaml", opts))


def inputs_of(representation, size=(64, 96)):
    """Noise as features of an image of that size, two images."""
    names = {*representation.in_features, *getattr(representation, "mask_in_features", ())}
    strides = {name: 2 ** int(name[1:]) for name in names}
    return {n: torch.rand(2, 8, -(-size[0] // s), -(-size[1] // s)) for n, s in strides.items()}


def positives_in_loops(representation, outputs, truths):
    """(level, y, x, image, object, sides) of every point that has to find one."""
    points = representation.points(outputs)
    found = []
    for image, truth in enumerate(truths):
        owners = assign(points, truth, representation.ranges, representation.radius).tolist()
        place = 0
        for level, maps in enumerate(outputs.categories):
            for y in range(maps.shape[2]):
                for x in range(maps.shape[3]):
                    if (own := owners[place]) >= 0:
                        sides = sides_of(points.xy[place], truth.boxes[own])
                        found.append((level, y, x, image, own, sides))
                    place += 1
    return found


def focal_in_loops(outputs, positives, truths):
    """The sum over all points and classes, from the formula."""
    total = 0.0
    wanted = {(lv, y, x, i): int(truths[i].classes[own]) for lv, y, x, i, own, _ in positives}
    for level, maps in enumerate(outputs.categories):
        for (i, k, y, x), logit in zip(
            torch.cartesian_prod(*(torch.arange(n) for n in maps.shape)).tolist(),
            maps.flatten().tolist(),
            strict=True,
        ):
            p = 1 / (1 + math.exp(-logit))
            if wanted.get((level, y, x, i)) == k:
                total += -0.25 * (1 - p) ** 2 * math.log(p)
            else:
                total += -0.75 * p**2 * math.log(1 - p)
    return total


def check_no_objects(representation, outputs, truths, size):
    """Losses of images without objects: the focal one alone, and a gradient of 0 for the rest."""
    losses = representation.losses(outputs, truths, size)
    rest = [loss.item() for name, loss in losses.items() if name != "loss_category"]
    assert rest == [0, 0, 0]
    assert losses["loss_category"] > 0
    sum(losses.values()).backward()
    grads = {name: p.grad for name, p in representation.named_parameters()}
    assert [name for name, grad in grads.items() if grad is None] == []
    assert all(grad.isfinite().all() for grad in grads.values())
    assert any(grad.any() for grad in grads.values())


def check_parts(representation, outputs, truths, size):
    """Two images' losses are those of each, weighed by what they are means of."""
    whole = representation.losses(outputs, truths, size)
    totals, counts = Counter(), Counter()
    for i, truth in enumerate(truths):
        one = copy.copy(outputs)._replace(
            shared=None if outputs.shared is None else outputs.shared[i : i + 1],
            **{
                name: [level[i : i + 1] for level in getattr(outputs, name)]
                for name in ("categories", "centerness", "sides", "codes")
            },
        )
        losses = representation.losses(one, [truth], size)
        for name in losses:
            (mean,) = losses.loss(name)
            totals[name] += float(mean.value.detach() * mean.count)
            counts[name] += float(mean.count)
    for name, loss in whole.items():
        torch.testing.assert_close(
            loss.detach(), torch.tensor(totals[name] / counts[name]), msg=name, rtol=1e-5, atol=1e-6
        )


def check_extremes(model):
    """One-pixel objects, 600 objects and odd sizes have finite losses and gradients."""
    model.train()
    many = instance_sample(40, 60, 6, count=600)
    pixel = instance_sample(37, 53, 6, count=1)
    tiny = torch.zeros(1, 37, 53, dtype=torch.bool)
    tiny[0, 11, 12] = True
    pixel["instances"].gt_masks.tensor = tiny
    pixel["instances"].gt_boxes.tensor = torch.tensor([[12.0, 11, 13, 12]])
    for batch in ([many], [pixel], [many, pixel]):
        losses = model(batch)
        assert all(loss.isfinite() for loss in losses.values()), losses
        sum(losses.values()).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())


def check_batch_independence(model):
    """Images of equal and of other sizes: each alone gives the same."""
    model.eval()
    for module in model.modules():  # more than the prior, so that much is found
        if isinstance(module, torch.nn.Conv2d) and module.out_channels == 6:
            torch.nn.init.normal_(module.weight, std=0.2)
            torch.nn.init.constant_(module.bias, -1.0)
    sizes = [(64, 96), (61, 90), (70, 33), (64, 96)]
    samples = [{"image": torch.randint(256, (3, *size)).float()} for size in sizes]
    with torch.no_grad():
        together = [output["instances"] for output in model(samples)]
        alone = [model([sample])[0]["instances"] for sample in samples]
    assert min(len(found) for found in together) > 5
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one.scores, other.scores, rtol=0, atol=1e-4)
        assert torch.equal(one.pred_classes, other.pred_classes)
        assert (one.pred_masks != other.pred_masks).float().mean() <= 1e-4


def perfect_logits(representation, outputs, truths):
    """Write the truth's categories, boxes and full centerness into outputs, in place."""
    positives = positives_in_loops(representation, outputs, truths)
    for maps in outputs.categories:
        maps.fill_(-20)
    for maps in outputs.centerness:
        maps.fill_(20)
    for level, y, x, image, own, sides in positives:
        outputs.categories[level][image, truths[image].classes[own], y, x] = 10
        outputs.sides[level][image, :, y, x] = sides
    return positives


def logits_at(levels, positive):
    level, y, x, image = positive[:4]
    return levels[level][image, :, y, x]


def binary_cross_entropy(logit, target):
    return F.binary_cross_entropy_with_logits(logit, torch.as_tensor(target, dtype=logit.dtype))


def iou_of_boxes(one, two):
    """Of sides from one point."""
    a, b = (boxes_of(torch.zeros(2), sides).tolist() for sides in (one, two))
    wide = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    union = sum(areas) - wide * high
    return wide * high / union, (hull - union) / hull
