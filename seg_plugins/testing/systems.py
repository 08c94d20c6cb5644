"""What systems of semantic and instance segmentation must do, built from a configuration."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from .samples import instance_sample, semantic_sample

_TOLERANCE = 1e-4


def check_semantic_head(cfg: CfgNode, *, size: tuple[int, int] = (64, 96)) -> None:
    """Hold the semantic head of a configuration against the contract, in its system.

    Losses are finite scalars, also where all pixels are ignored; a gradient reaches every
    parameter of the head; ignored pixels have no part in the losses; at inference any size of
    image gets (K, height, width) logits, in a batch the same as alone; and the weights survive
    saving.

    Args:
        cfg: with ``MODEL.SEM_SEG_HEAD``; its weights and device are not used.
        size: rows and columns of the samples: what the network takes at least.

    Raises:
        AssertionError: names what does not hold.
    """
    cfg = _on_cpu(cfg)
    head = cfg.MODEL.SEM_SEG_HEAD
    name, classes = head.NAME, head.NUM_CLASSES
    model = build_model(cfg)
    assert hasattr(model, "sem_seg_head"), f"{cfg.MODEL.META_ARCHITECTURE} has no sem_seg_head"
    _let_gradients_through(model)
    channels, odd = len(cfg.MODEL.PIXEL_MEAN), (size[0] + 5, size[1] - 3)

    def sample(shape: tuple[int, int]) -> dict[str, Any]:
        options = {"channels": channels, "ignore_value": head.IGNORE_VALUE}
        found = semantic_sample(*shape, classes, **options)
        if "instances" in model.tasks:
            things = len(cfg.MODEL.PANOPTIC_FPN.THING_IDS) or cfg.MODEL.ROI_HEADS.NUM_CLASSES
            found["instances"] = instance_sample(*shape, things)["instances"]
        return found

    batch = [sample(size), sample(size)]
    losses = _train(model, batch)
    _check_losses(losses, name)
    torch.stack(list(losses.values())).sum().backward()
    _check_gradients(model.sem_seg_head, name, every=True)

    ignored = [{**item, "sem_seg": torch.full(size, head.IGNORE_VALUE)} for item in batch]
    semantic = [key for key in losses if "sem_seg" in key]
    assert semantic, f"{name}: none of its losses {list(losses)} has 'sem_seg' in its name"
    nothing = _train(model, ignored)
    for key in semantic:
        assert nothing[key].isfinite(), (
            f"{name}: {key} is {nothing[key].item()} where all pixels are ignored: divide by the "
            "number of valid pixels, and by 1 where there is none"
        )
    other_image = {**ignored[1], "image": sample(size)["image"]}
    found, again = (_train(model, [batch[0], item], True) for item in (ignored[1], other_image))
    for key in semantic:
        assert torch.allclose(found[key], again[key], rtol=1e-4, atol=1e-6), (
            f"{name}: {key} is {found[key].item()}, and with another image of which all pixels "
            f"are ignored {again[key].item()}: labels of {head.IGNORE_VALUE} have no part in it"
        )

    outputs = _predict(model, [sample(size), {**sample(odd), "height": 50, "width": 70}])
    shapes = [tuple(output["sem_seg"].shape) for output in outputs]
    assert shapes == [(classes, *size), (classes, 50, 70)], f"{name}: logits of shapes {shapes}"
    together = _predict(model, batch)
    for item, output in zip(batch, together, strict=True):
        _same(_predict(model, [item])[0]["sem_seg"], output["sem_seg"], f"{name}: in a batch")
    other = build_model(cfg)
    other.load_state_dict(model.state_dict())
    _same(
        _predict(other, batch[:1])[0]["sem_seg"],
        _predict(model, batch[:1])[0]["sem_seg"],
        f"{name}: with loaded weights",
    )


def check_instance_system(cfg: CfgNode, *, size: tuple[int, int] = (64, 96)) -> None:
    """Hold a system of instance segmentation against the contract.

    Losses are finite scalars, also for images without objects; a gradient reaches every parameter
    that is trained; at inference an image gets ``instances`` in Detectron2's format, of its own
    size, with boxes, scores and classes in their ranges and a mask for each.

    Args:
        cfg: with ``MODEL.META_ARCHITECTURE``; its weights and device are not used.
        size: rows and columns of the samples.

    Raises:
        AssertionError: names what does not hold.
    """
    cfg = _on_cpu(cfg)
    name = cfg.MODEL.META_ARCHITECTURE
    model = build_model(cfg)
    _let_gradients_through(model)
    things = len(cfg.MODEL.PANOPTIC_FPN.THING_IDS) or cfg.MODEL.ROI_HEADS.NUM_CLASSES
    labels = cfg.MODEL.SEM_SEG_HEAD

    def sample(count: int = 3) -> dict[str, Any]:
        polygons = cfg.INPUT.MASK_FORMAT == "polygon" and "sem_seg" not in model.tasks
        channels = len(cfg.MODEL.PIXEL_MEAN)
        found = instance_sample(*size, things, count=count, channels=channels, polygons=polygons)
        semantic = semantic_sample(*size, labels.NUM_CLASSES, ignore_value=labels.IGNORE_VALUE)
        return {**found, "sem_seg": semantic["sem_seg"]}

    losses = _train(model, [sample(), sample()])
    _check_losses(losses, name)
    torch.stack(list(losses.values())).sum().backward()
    _check_gradients(model, name)
    empty = _train(model, [sample(0), sample(0)])
    for key, loss in empty.items():
        assert loss.isfinite(), f"{name}: {key} is {loss.item()} for images without objects"

    height, width = 50, 70
    (output,) = _predict(model, [{**sample(), "height": height, "width": width}])
    found = output["instances"]
    assert found.image_size == (height, width), f"{name}: instances of size {found.image_size}"
    boxes = found.pred_boxes.tensor
    assert boxes.shape == (len(found), 4), f"{name}: pred_boxes of shape {tuple(boxes.shape)}"
    limit = boxes.new_tensor([width, height, width, height])
    assert ((boxes >= 0) & (boxes <= limit)).all(), f"{name}: boxes outside the image"
    assert ((found.scores >= 0) & (found.scores <= 1)).all(), f"{name}: scores outside 0 to 1"
    if cfg.MODEL.MASK_ON:
        shape = np.asarray(found.pred_masks).shape
        assert shape == (len(found), height, width), f"{name}: pred_masks of shape {shape}"


def _on_cpu(cfg: CfgNode) -> CfgNode:
    cfg = copy.deepcopy(cfg)
    cfg.defrost()
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = "cpu", ""
    return cfg


def _let_gradients_through(model: nn.Module) -> None:
    """Score layers and last norms of residual blocks that begin at zero would let none through."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and not weight.detach().any():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(weight, std=0.1)
            elif weight.dim() == 1:
                nn.init.ones_(weight)


def _train(
    model: nn.Module, batch: list[dict[str, Any]], apart: bool = False
) -> dict[str, torch.Tensor]:
    """Losses in training; `apart`: without statistics of the batch, which join its images."""
    torch.manual_seed(0)
    model.train()
    for module in model.modules() if apart else ():
        # timm's batch norms have an activation below them.
        last = isinstance(module, nn.modules.batchnorm._BatchNorm) or not any(
            True for _ in module.children()
        )
        if last and module is not model.sem_seg_head:
            module.eval()
    with EventStorage():
        return model(copy.deepcopy(batch))


@torch.no_grad()
def _predict(model: nn.Module, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return model.eval()(copy.deepcopy(batch))


def _check_losses(losses: Any, name: str) -> None:
    assert isinstance(losses, dict), f"{name}: losses are a dict, not {type(losses).__name__}"
    assert losses, f"{name}: no losses"
    for key, loss in losses.items():
        assert torch.is_tensor(loss), f"{name}: {key} is no tensor"
        assert loss.numel() == 1, f"{name}: {key} is not a scalar but {tuple(loss.shape)}"
        assert loss.isfinite(), f"{name}: {key} is {loss.item()}"


def _check_gradients(module: nn.Module, name: str, *, every: bool = False) -> None:
    """`every`: gradients of 0 throughout, as of a level without boxes, count as none."""
    trained = [(key, p) for key, p in module.named_parameters() if p.requires_grad]
    without = [
        key
        for key, p in trained
        # Of a bias before a norm the gradient is 0, as it should be.
        if p.grad is None or (every and p.dim() > 1 and not p.grad.any())
    ]
    assert not without, f"{name}: no gradient reaches {', '.join(without[:5])}"
    wrong = [key for key, p in trained if p.grad is not None and not p.grad.isfinite().all()]
    assert not wrong, f"{name}: the gradient is not finite in {', '.join(wrong[:5])}"


def _same(found: torch.Tensor, expected: torch.Tensor, where: str) -> None:
    difference = (found - expected).abs().max().item() if found.numel() else 0.0
    scale = max(1.0, expected.abs().max().item())
    assert difference <= _TOLERANCE * scale, f"{where} the logits differ by {difference:g}"
