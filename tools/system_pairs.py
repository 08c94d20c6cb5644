"""The systems that benchmark_systems.py compares, and the peers that offer the same ones.

Peers: Detectron2's DeepLab project, Mask R-CNN and PanopticFPN, segmentation_models.pytorch and
torchvision. All have random weights and get the same random images.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import seg_plugins

import torch
import torch.nn.functional as F
import torchvision
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor, nn

CLASSES = 19


@dataclass
class Contestant:
    """A model and how it is fed: Detectron2's dictionaries, or tensors with a loss outside.

    ``infer`` is None where a comparison would say nothing: untrained weights, other proposals.
    """

    model: nn.Module
    train: Callable[[nn.Module], Tensor]
    infer: Callable[[nn.Module], object] | None


def samples(size: int, count: int, things: bool) -> list[dict[str, Any]]:
    """Random images with labels, and eight rectangles each for systems with instances."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(count):
        sample: dict[str, Any] = {
            "image": torch.randint(256, (3, size, size), dtype=torch.uint8, generator=generator),
            "sem_seg": torch.randint(CLASSES, (size, size), generator=generator),
            "height": size,
            "width": size,
        }
        if things:
            masks = torch.zeros(8, size, size, dtype=torch.bool)
            for mask in masks:
                corner = torch.rand(2, generator=generator) * size * 0.7
                extent = torch.rand(2, generator=generator) * size * 0.4 + 8
                (top, left), (bottom, right) = corner.int(), (corner + extent).int()
                mask[top:bottom, left:right] = True
            instances = Instances((size, size))
            instances.gt_masks = BitMasks(masks)
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
            instances.gt_classes = torch.randint(8, (8,), generator=generator)
            sample["instances"] = instances
        result.append(sample)
    return result


def own_config(name: str, opts: list[Any], size: int, things: bool = False) -> Contestant:
    """A Detectron2 model from one of our configurations with overrides."""
    torch.manual_seed(0)
    common = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.TIMM.PRETRAINED", False,
              "MODEL.SEM_SEG_HEAD.NUM_CLASSES", CLASSES, "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", None,
              "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 255]  # fmt: skip
    model = build_model(seg_plugins.load_config(name, [*common, *opts]))
    batch, one = samples(size, 2, things), samples(size, 1, things)
    return Contestant(model, lambda model: sum(model(batch).values()), lambda model: model(one))


def tensors(model: nn.Module, size: int) -> Contestant:
    """A peer that takes a tensor and gives full-size scores, alone or as ``out`` of a dict."""
    batch = samples(size, 2, False)
    labels = torch.stack([sample["sem_seg"] for sample in batch])
    images = torch.stack([sample["image"] for sample in batch]).float() / 255

    def scores(model: nn.Module, x: Tensor) -> Tensor:
        weight = next(p for p in model.parameters() if p.dim() == 4)
        last = weight.is_contiguous(memory_format=torch.channels_last)
        x = x.to(
            weight.device, memory_format=torch.channels_last if last else torch.contiguous_format
        )
        out = model(x)
        return out["out"] if isinstance(out, dict) else out

    def loss(model: nn.Module) -> Tensor:
        out = scores(model, images)
        return F.cross_entropy(out.float(), labels.to(out.device))

    return Contestant(model, loss, lambda model: scores(model, images[:1]).argmax(1))


def torchvision_mask_rcnn(size: int) -> Contestant:
    """torchvision's Mask R-CNN R50-FPN, which scales images itself."""
    torch.manual_seed(0)
    model = torchvision.models.detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=81, min_size=size, max_size=2 * size,
        trainable_backbone_layers=5,
    )  # fmt: skip
    batch = samples(size, 2, True)

    def inputs(model: nn.Module) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
        device = next(model.parameters()).device
        targets = [
            {"boxes": s["instances"].gt_boxes.tensor.to(device),
             "labels": s["instances"].gt_classes.to(device) + 1,
             "masks": s["instances"].gt_masks.tensor.to(device, torch.uint8)}
            for s in batch
        ]  # fmt: skip
        return [s["image"].to(device).float() / 255 for s in batch], targets

    return Contestant(model, lambda model: sum(model(*inputs(model)).values()), None)


def smp(name: str, size: int) -> Contestant | None:
    """A ResNet-50 model of segmentation_models.pytorch; None where it is not installed."""
    if importlib.util.find_spec("segmentation_models_pytorch") is None:
        return None
    import segmentation_models_pytorch

    torch.manual_seed(0)
    build = getattr(segmentation_models_pytorch, name)
    return tensors(build("resnet50", encoder_weights=None, classes=CLASSES), size)


def torchvision_semantic(name: str, size: int) -> Contestant:
    """A ResNet-50 model of torchvision.models.segmentation, without the auxiliary head."""
    torch.manual_seed(0)
    build = getattr(torchvision.models.segmentation, name)
    model = build(weights=None, weights_backbone=None, num_classes=CLASSES, aux_loss=False)
    return tensors(model, size)


DEEPLAB = ["MODEL.RESNETS.DEPTH", 50, "MODEL.RESNETS.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN"]
TIMM = ["MODEL.TIMM.NORM", "", "MODEL.SEM_SEG_HEAD.NORM", "BN"]
# Peers outside Detectron2 are trained on the mean cross-entropy of all pixels.
MEAN = ["MODEL.SEM_SEG_HEAD.LOSS_TYPE", "cross_entropy"]
STRIDE_8 = ["MODEL.RESNETS.RES4_DILATION", 2, "MODEL.RESNETS.RES5_DILATION", 4,
            "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS", [12, 24, 36]]  # fmt: skip
# Frozen batch norms without trained statistics let activations overflow, and no region is left.
INSTANCES = ["MODEL.RESNETS.NORM", "BN"]


def deeplab_project(size: int) -> Contestant:
    """Detectron2's DeepLabv3+, from the same configuration."""
    opts = ["MODEL.META_ARCHITECTURE", "SemanticSegmentor", "INPUT.CROP.ENABLED", True,
            "MODEL.SEM_SEG_HEAD.NAME", "DeepLabV3PlusHead", "INPUT.CROP.SIZE", [size, size],
            "INPUT.CROP.TYPE", "absolute"]  # fmt: skip
    return own_config("cityscapes/deeplabv3plus_r103.yaml", [*DEEPLAB, *opts], size)


# name -> (the peer's name, ours, the peer's); None stands for a peer that is not installed.
Build = Callable[[int], "Contestant | None"]
PAIRS: dict[str, tuple[str, Build, Build]] = {
    "DeepLabv3+ R50": (
        "Detectron2 DeepLab, same network",
        lambda size: own_config("cityscapes/deeplabv3plus_r103.yaml", DEEPLAB, size),
        deeplab_project,
    ),
    "DeepLabv3+ R50 separable": (
        "smp DeepLabV3Plus",
        lambda size: own_config(
            "cityscapes/deeplabv3plus_r103.yaml",
            [*DEEPLAB, *MEAN, "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV", True,
             "MODEL.RESNETS.STEM_TYPE", "basic", "MODEL.RESNETS.STEM_OUT_CHANNELS", 64],
            size,
        ),
        lambda size: smp("DeepLabV3Plus", size),
    ),
    "DeepLabv3+ R50 stride 8": (
        "torchvision deeplabv3_resnet50",
        lambda size: own_config(
            "cityscapes/deeplabv3plus_r103.yaml", [*DEEPLAB, *MEAN, *STRIDE_8], size
        ),
        lambda size: torchvision_semantic("deeplabv3_resnet50", size),
    ),
    "U-Net R50": (
        "smp Unet",
        lambda size: own_config("ade20k/unet_r50.yaml", [*TIMM, *MEAN], size),
        lambda size: smp("Unet", size),
    ),
    "U-Net R50, narrow": (
        "smp Unet, its widths to stride 2",
        lambda size: own_config(
            "ade20k/unet_r50.yaml",
            [*TIMM, *MEAN, "MODEL.UNET.DECODER_CHANNELS", [32, 64, 128, 256],
             "MODEL.UNET.UPSAMPLING", "bilinear"],
            size,
        ),
        lambda size: smp("Unet", size),
    ),
    "FCN-8s R50": (
        "torchvision fcn_resnet50",
        lambda size: own_config("cityscapes/fcn8s_r50.yaml", [*TIMM, *MEAN], size),
        lambda size: torchvision_semantic("fcn_resnet50", size),
    ),
    "Mask R-CNN R50-FPN": (
        "Detectron2, same network",
        lambda size: own_config("coco/mask_rcnn_r50_fpn_1x.yaml", INSTANCES, size, True),
        lambda size: own_config(
            "coco/mask_rcnn_r50_fpn_1x.yaml",
            [*INSTANCES, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN",
             "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"],
            size, True,
        ),
    ),
    "Mask R-CNN R50-C4": (
        "Detectron2, same network",
        lambda size: own_config("coco/mask_rcnn_r50_c4_1x.yaml", INSTANCES, size, True),
        lambda size: own_config(
            "coco/mask_rcnn_r50_c4_1x.yaml",
            [*INSTANCES, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN",
             "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"],
            size, True,
        ),
    ),
    "Mask R-CNN R50-FPN (torchvision)": (
        "torchvision maskrcnn_resnet50_fpn",
        lambda size: own_config("coco/mask_rcnn_r50_fpn_1x.yaml", INSTANCES, size, True),
        torchvision_mask_rcnn,
    ),
    "Panoptic FPN R50": (
        "Detectron2, same network",
        lambda size: own_config("coco/panoptic_fpn_r50_1x.yaml", INSTANCES, size, True),
        lambda size: own_config(
            "coco/panoptic_fpn_r50_1x.yaml",
            [*INSTANCES, "MODEL.META_ARCHITECTURE", "PanopticFPN",
             "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT", "bitmask"],
            size, True,
        ),
    ),
}  # fmt: skip
