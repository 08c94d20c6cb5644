"""The semantic branch of Panoptic FPN (Kirillov et al. 2019), with this package's losses."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.meta_arch.semantic_seg import SemSegFPNHead
from torch import Tensor

from ..loss_terms import Losses
from ..semantic_loss import SemanticLoss
from .base import SemSegHead, select_features


class SemSegPyramidHead(SemSegFPNHead):
    """Detectron2's ``SemSegFPNHead``, parameter for parameter.

    Its loss is chosen by ``LOSS_TYPE`` and ``CLASS_WEIGHTS`` and is 0, not NaN, where all pixels
    are ignored.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        num_classes: int,
        loss: SemanticLoss,
        **rest: Any,
    ) -> None:
        """Build it.

        Args:
            input_shape: features to use.
            num_classes: number of classes K.
            loss: maps (logits, targets) to a loss.
            **rest: see :class:`detectron2.modeling.SemSegFPNHead`.
        """
        super().__init__(input_shape, num_classes=num_classes, **rest)
        self.num_classes = num_classes
        self.loss = loss

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SEM_SEG_HEAD``.

        Raises:
            ConfigError: the backbone does not give a feature that the head is to take.
        """
        select_features(input_shape, cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, cls.__name__)
        loss = SemSegHead.config_arguments(cfg)["loss"]
        return {**super().from_config(cfg, input_shape), "loss": loss}

    def losses(self, predictions: Tensor, targets: Tensor) -> Losses:
        """The weighted loss of scores (N, K, h, w), brought to the targets' (N, H, W)."""
        logits = F.interpolate(
            predictions.float(),
            scale_factor=self.common_stride,
            mode="bilinear",
            align_corners=False,
        )
        return Losses({"loss_sem_seg": self.loss(logits, targets).times(self.loss_weight)})
