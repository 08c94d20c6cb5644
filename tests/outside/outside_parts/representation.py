"""An instance representation: each cell says what it sees, and the disc that covers it."""

import math

from seg_plugins.modeling import Losses, Sum
from seg_plugins.modeling.instance_representations import (
    INSTANCE_REPRESENTATION_REGISTRY,
    InstanceRepresentation,
    OutlineMasks,
)
from seg_plugins.ops.suppression import falling, fast_nms

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.structures import Instances
from torch import nn


@INSTANCE_REPRESENTATION_REGISTRY.register()
class Discs(InstanceRepresentation):
    """A class, an offset to the centre of mass and a radius, all at one stride."""

    @configurable
    def __init__(self, *, feature, stride, channels, num_classes, most):
        super().__init__()
        self.feature, self.stride, self.num_classes, self.most = feature, stride, num_classes, most
        self.score = nn.Conv2d(channels, num_classes, 1)
        self.disc = nn.Conv2d(channels, 3, 1)  # x, y and the logarithm of r, in strides

    @classmethod
    def from_config(cls, cfg, input_shape):
        """Arguments of the constructor."""
        shape = input_shape["p3"]
        return {"feature": "p3", "stride": shape.stride, "channels": shape.channels,
                "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
                "most": cfg.TEST.DETECTIONS_PER_IMAGE}  # fmt: skip

    def layers(self, features):
        """Scores (N, K, h, w) and discs (N, 3, h, w)."""
        return self.score(features[self.feature]), self.disc(features[self.feature])

    def losses(self, outputs, truths, size):
        """Cross-entropy of the classes; the discs' error in cells with an object's centre."""
        scores, discs = outputs
        target, error, count = torch.zeros_like(scores), discs.sum() * 0, 0
        for image, truth in enumerate(truths):
            x, y = (truth.centers.float() / self.stride).unbind(1)
            column, row = x.long(), y.long()
            target[image, truth.classes, row, column] = 1
            radii = (truth.areas / math.pi).sqrt().clamp(min=1) / self.stride
            wanted = torch.stack([x - column, y - row, radii.log()], dim=1)
            error = error + F.l1_loss(discs[image][:, row, column].T, wanted, reduction="sum")
            count += len(truth)
        class_error = F.binary_cross_entropy_with_logits(scores, target, reduction="sum")
        return Losses({"loss_class": Sum(class_error, torch.tensor(count + 1)),
                       "loss_disc": Sum(error, torch.tensor(count))})  # fmt: skip

    def find(self, outputs, size, image_sizes):
        """Discs of the best classes as outlines, by Fast NMS on their boxes."""
        angles = torch.arange(32, device=outputs[0].device) * (2 * math.pi / 32)
        circle = torch.stack([angles.cos(), angles.sin()], dim=1)
        results = []
        for image_size, score, disc in zip(image_sizes, *outputs, strict=True):
            best, classes = score.float().sigmoid().flatten(1).max(dim=0)
            order = falling(best)[: 4 * self.most]
            row, column = order // score.shape[2], order % score.shape[2]
            x, y, log_radius = disc.float().flatten(1)[:, order]
            center = torch.stack([column + x, row + y], dim=1) * self.stride
            radius = log_radius.clamp(max=5).exp()[:, None] * self.stride
            boxes = torch.cat([center - radius, center + radius], dim=1)
            kept = fast_nms(boxes, best[order], classes[order], 0.5).nonzero()[: self.most, 0]
            found = Instances(image_size)
            found.scores, found.pred_classes = best[order[kept]], classes[order[kept]]
            found.pred_masks = OutlineMasks(center[kept, None] + radius[kept, None] * circle)
            results.append(found)
        return results
