"""A head of pyramid pooling (PSPNet, Zhao et al. 2017), written to Detectron2's contract."""

from seg_plugins.config import add_keys
from seg_plugins.modeling import Losses, SemanticLoss

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn


@add_keys
def add_pyramid_keys(cfg):
    """The head's own keys; those of MODEL.SEM_SEG_HEAD are there anyway."""
    cfg.MODEL.PYRAMID_POOLING = CfgNode({"BINS": [1, 2, 3, 6], "CHANNELS": 32})


@SEM_SEG_HEADS_REGISTRY.register()
class PyramidPoolingHead(nn.Module):
    """Averages of the deepest feature over grids of several sizes, beside the feature itself."""

    @configurable
    def __init__(self, input_shape, *, feature, num_classes, loss, bins, channels):
        super().__init__()
        self.in_features = [feature]
        self.num_classes, self.loss, self.bins = num_classes, loss, bins
        depth, self.stride = input_shape[feature].channels, input_shape[feature].stride
        self.reduce = nn.ModuleList(nn.Conv2d(depth, channels, 1) for _ in bins)
        self.score = nn.Conv2d(depth + channels * len(bins), num_classes, 3, padding=1)

    @classmethod
    def from_config(cls, cfg, input_shape):
        """Arguments of the constructor."""
        return {
            "input_shape": input_shape,
            "feature": cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES[-1],
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "loss": SemanticLoss.from_config(cfg),  # LOSS_TYPE and CLASS_WEIGHTS
            "bins": cfg.MODEL.PYRAMID_POOLING.BINS,
            "channels": cfg.MODEL.PYRAMID_POOLING.CHANNELS,
        }

    def forward(self, features, targets=None):
        """(None, losses) in training, (logits at the input's stride, {}) at inference."""
        x = features[self.in_features[0]]
        parts = [x]
        for bins, reduce in zip(self.bins, self.reduce, strict=True):
            pooled = F.relu(reduce(F.adaptive_avg_pool2d(x, bins)))
            parts.append(F.interpolate(pooled, x.shape[-2:], mode="bilinear"))
        logits = F.interpolate(
            self.score(torch.cat(parts, dim=1)), scale_factor=self.stride, mode="bilinear"
        )
        if not self.training:
            return logits, {}
        return None, Losses({"loss_sem_seg": self.loss(logits, targets)})
