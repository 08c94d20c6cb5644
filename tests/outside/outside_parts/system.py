"""A system of instance segmentation: connected components of a mask (for things that lie apart)."""

from seg_plugins.modeling import Losses, Sum

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, build_backbone
from detectron2.structures import BitMasks, ImageList, Instances
from torch import nn


@META_ARCH_REGISTRY.register()
class ConnectedComponents(nn.Module):
    """Scores each pixel for each class; what hangs together is an instance."""

    tasks = ("instances",)  # keys of the output that it is trained for

    @configurable
    def __init__(self, *, backbone, num_classes, pixel_mean, pixel_std):
        super().__init__()
        self.backbone = backbone
        name, shape = min(backbone.output_shape().items(), key=lambda item: item[1].stride)
        self.in_features, self.stride = [name], shape.stride
        self.score = nn.Conv2d(shape.channels, num_classes, 1)
        self.register_buffer("mean", torch.tensor(pixel_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(pixel_std).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg):
        """Arguments of the constructor."""
        return {
            "backbone": build_backbone(cfg),
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self):
        """Where the inputs are brought."""
        return self.mean.device

    def forward(self, batched_inputs):
        """Losses in training; at inference a dict with ``instances`` for each image."""
        images = [(s["image"].to(self.device) - self.mean) / self.std for s in batched_inputs]
        images = ImageList.from_tensors(images, self.backbone.size_divisibility)
        scores = self.score(self.backbone(images.tensor)[self.in_features[0]])
        logits = F.interpolate(scores, scale_factor=self.stride, mode="bilinear")
        parts = list(zip(batched_inputs, images.image_sizes, logits, strict=True))
        if not self.training:
            return [{"instances": self.instances(*part)} for part in parts]
        total, count = logits.sum() * 0, logits.new_zeros((), dtype=torch.int64)
        for sample, (height, width), score in parts:
            truth = torch.zeros_like(score[:, :height, :width])
            for mask, kind in zip(*self.masks(sample, (height, width)), strict=True):
                truth[kind] = torch.maximum(truth[kind], mask.to(truth))
            own = score[:, :height, :width]
            total = total + F.binary_cross_entropy_with_logits(own, truth, reduction="sum")
            count += own.numel()
        return Losses({"loss_mask": Sum(total, count)})

    def masks(self, sample, size):
        """(N, H, W) masks and N classes of a sample's instances."""
        instances = sample["instances"]
        masks = instances.gt_masks
        if not isinstance(masks, BitMasks):
            masks = BitMasks.from_polygon_masks(masks, *size)
        return masks.tensor, instances.gt_classes.tolist()

    def instances(self, sample, size, logits):
        """Components of each class, in the frame of the wanted output."""
        height, width = sample.get("height", size[0]), sample.get("width", size[1])
        inside = logits[None, :, : size[0], : size[1]].sigmoid()
        inside = F.interpolate(inside, (height, width), mode="bilinear")[0].cpu().numpy()
        masks, scores, classes = [], [], []
        for kind, probability in enumerate(inside):
            count, ids = cv2.connectedComponents((probability > 0.5).astype(np.uint8))
            for number in range(1, count):
                masks.append(ids == number)
                scores.append(probability[masks[-1]].mean())
                classes.append(kind)
        found = Instances((height, width))
        found.pred_masks = torch.from_numpy(np.array(masks, bool).reshape(-1, height, width))
        found.pred_boxes = BitMasks(found.pred_masks).get_bounding_boxes()
        found.scores = torch.tensor(np.array(scores, np.float32))
        found.pred_classes = torch.tensor(classes, dtype=torch.int64)
        return found
