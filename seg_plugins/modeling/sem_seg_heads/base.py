"""What every semantic head shares: feature selection, score layer, loss, output contract."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_sem_seg_head
from torch import Tensor, nn

from ...config import ConfigError
from ..loss_terms import Loss, Losses
from ..semantic_loss import SemanticLoss


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Turn autocast off for the device of ``x``."""
    device = x.device.type
    available = torch.amp.is_autocast_available(device)  # not on the meta device
    return torch.autocast(device, enabled=False) if available else contextlib.nullcontext()


class ScoreConv2d(nn.Conv2d):
    """A convolution to class scores that runs in float32 under every autocast.

    Scores decide close calls, and they are few: half precision saves nothing here. (bfloat16
    1x1 convolutions to few channels also write out of bounds on the CPU of PyTorch 2.14.)
    """

    @classmethod
    def like(cls, conv: nn.Conv2d) -> ScoreConv2d:
        """One with the settings of another convolution, which shares its parameters."""
        new = cls(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
            conv.bias is not None,
            conv.padding_mode,
            device="meta",  # initial values would be drawn for nothing
        )
        new.weight, new.bias = conv.weight, conv.bias
        return new.train(conv.training)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) of any float type to (N, K, H', W') float32."""
        with full_precision(x):
            return super().forward(x.float())


class SemSegHead(nn.Module):
    """Base of the semantic heads; a subclass computes scores in :meth:`layers`.

    ``forward(features, targets)`` returns ``(None, losses)`` in training, the scalar
    ``loss_sem_seg`` with what it is a mean of, and ``(logits, {})`` in inference. Logits are
    (N, K, H', W') at the input's stride, aligned with its top-left corner, with H' >= H and
    W' >= W: callers cut the rest off. Only heads without padding lose a ``border`` on each side;
    targets belong to what remains.

    Attributes:
        border: pixels of the input before the first score.
    """

    border = 0

    def __init__(
        self,
        *,
        num_classes: int,
        ignore_value: int = 255,
        loss: Callable[..., Loss | Tensor] | None = None,
        loss_weight: float = 1.0,
        common_stride: int = 1,
    ) -> None:
        """Keep what all heads need.

        Args:
            num_classes: number of classes K; 1 means one sigmoid score.
            ignore_value: label of pixels that are not trained on.
            loss: maps (logits, targets, weights) to a :class:`~..loss_terms.Loss`, or to a scalar,
                the mean over the images; default: mean cross-entropy.
            loss_weight: factor of the loss.
            common_stride: stride of the scores that :meth:`layers` returns.
        """
        super().__init__()
        if num_classes < 1:
            raise ConfigError(f"MODEL.SEM_SEG_HEAD.NUM_CLASSES must be >= 1, got {num_classes}")
        self.num_classes = num_classes
        self.ignore_value = ignore_value
        self.loss = loss or SemanticLoss(num_classes=num_classes, ignore_value=ignore_value)
        self.loss_weight = loss_weight
        self.common_stride = common_stride

    @staticmethod
    def config_arguments(cfg: CfgNode) -> dict[str, Any]:
        """The arguments of this class from the configuration, for ``from_config``."""
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "num_classes": head.NUM_CLASSES,
            "ignore_value": head.IGNORE_VALUE,
            "loss_weight": head.LOSS_WEIGHT,
            "loss": SemanticLoss.from_config(cfg),
        }

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Scores (N, K, H / common_stride, W / common_stride), before upsampling."""
        raise NotImplementedError

    def upsample(self, scores: Tensor) -> Tensor:
        """Scores at the input's stride: bilinear, pixel areas aligned."""
        if self.common_stride == 1:
            return scores
        return F.interpolate(
            scores, scale_factor=self.common_stride, mode="bilinear", align_corners=False
        )

    def forward(
        self,
        features: dict[str, Tensor],
        targets: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Loss in training, scores in inference.

        Args:
            features: the backbone's output.
            targets: (N, H, W) int64 labels, in training.
            weights: optional (N, H, W) factors by pixel, in training.
        """
        logits = self.upsample(self.layers(features))
        if not self.training:
            return logits, {}
        if targets is None:
            raise ValueError("In training a semantic head needs targets: 'sem_seg' in each sample")
        return None, self.losses(logits, targets, weights)

    def losses(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Losses:
        """The weighted loss of logits at the input's stride, cut to the targets' size."""
        logits = cut_to_image(logits, targets.shape[-2], targets.shape[-1])
        loss = Loss.of(self.loss(logits, targets, weights))
        return Losses({"loss_sem_seg": loss.times(self.loss_weight)})


def semantic_losses(
    head: nn.Module, features: dict[str, Tensor], targets: Tensor, weights: Tensor | None = None
) -> Losses:
    """Losses of any semantic head, of this package or written to Detectron2's contract.

    That is ``forward(features, targets) -> (logits, losses)``; its losses are means over images
    unless it returns :class:`~..loss_terms.Losses`.

    Args:
        head: in training mode.
        features: the backbone's output.
        targets: (N, H, W) int64 labels.
        weights: optional (N, H, W) factors by pixel.

    Raises:
        ConfigError: there are weights, and the head takes none.
    """
    if weights is None:
        return Losses(head(features, targets)[1])
    if len(inspect.signature(head.forward).parameters) < 3:
        raise ConfigError(
            f"{type(head).__name__}.forward takes no factors of the pixels' losses. Give it a "
            "third argument, `weights` (N, H, W); or set INPUT.BORDER_WEIGHTS.ENABLED False and "
            "MODEL.PANOPTIC_DEEPLAB.SMALL_INSTANCE_WEIGHT 1.0."
        )
    return Losses(head(features, targets, weights)[1])


# Detectron2's own heads: the losses they have, and the head of this package that has all.
_ALL_LOSSES = "Set it to {}, which has all losses and options."
_OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "SemSegFPNHead": (
        ("cross_entropy",),
        "Set it to SemSegPyramidHead, which has the same parameters.",
    ),
    "DeepLabV3PlusHead": (
        ("cross_entropy", "hard_pixel_mining"),
        _ALL_LOSSES.format("SemSegDeepLabV3PlusHead"),
    ),
    "DeepLabV3Head": (
        ("cross_entropy", "hard_pixel_mining"),
        _ALL_LOSSES.format("SemSegDeepLabV3PlusHead"),
    ),
    "PointRendSemSegHead": (("cross_entropy",), _ALL_LOSSES.format("SemSegPyramidHead")),
}


def build_semantic_head(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> nn.Module:
    """The head that ``MODEL.SEM_SEG_HEAD`` names, on a backbone's features.

    Raises:
        ConfigError: settings that a head of Detectron2's would ignore, or stop at without a word:
            a loss, class weights or features that it does not have; the message names the fix.
    """
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.NAME in _OTHERS:
        _check_settings(head)
        select_features(input_shape, head.IN_FEATURES, head.NAME)
    return build_sem_seg_head(cfg, input_shape)


def _check_settings(head: CfgNode) -> None:
    losses, fix = _OTHERS[head.NAME]
    here = f"MODEL.SEM_SEG_HEAD.NAME {head.NAME} is Detectron2's, which"
    if head.LOSS_TYPE not in losses:
        raise ConfigError(
            f"{here} knows LOSS_TYPE {' and '.join(losses)}, not '{head.LOSS_TYPE}'. {fix}"
        )
    if head.CLASS_WEIGHTS not in (None, "none"):
        raise ConfigError(f"{here} does not know CLASS_WEIGHTS. {fix} Or leave them out: none.")
    if head.NAME == "DeepLabV3Head" and len(head.IN_FEATURES) != 1:
        raise ConfigError(
            f"{here} takes one feature: set MODEL.SEM_SEG_HEAD.IN_FEATURES to the last of "
            f"{list(head.IN_FEATURES)} alone, or NAME to SemSegDeepLabV3PlusHead."
        )


def cut_to_image(logits: Tensor, height: int, width: int) -> Tensor:
    """The part (N, K, height, width) of logits that begin at the image's top-left corner.

    Raises:
        ValueError: the scores do not cover the image.
    """
    if logits.shape[-2] < height or logits.shape[-1] < width:
        raise ValueError(
            f"The scores, {logits.shape[-2]} x {logits.shape[-1]}, do not cover the image, "
            f"{height} x {width}. A network without padding in its last layers needs it at the "
            "input (FCN: MODEL.VGG.INPUT_PAD 100), or must not lose it (U-Net: the same "
            "MODEL.UNET.PADDING in backbone and head). A head of your own brings its scores to "
            "the input's stride: F.interpolate(scores, scale_factor=stride, mode='bilinear')."
        )
    return logits[..., :height, :width]


def select_features(
    input_shape: dict[str, ShapeSpec], names: list[str], head: str
) -> dict[str, ShapeSpec]:
    """The features a head asked for, in the order of ``names``.

    Raises:
        ConfigError: the backbone does not give one of them; those it gives are listed.
    """
    missing = [name for name in names if name not in input_shape]
    if missing or not names:
        available = ", ".join(f"{k} (stride {v.stride})" for k, v in input_shape.items())
        raise ConfigError(
            f"{head} needs the feature(s) {missing or 'named in IN_FEATURES'}, which the backbone "
            f"does not give. Set MODEL.SEM_SEG_HEAD.IN_FEATURES to names among: {available}; or "
            "add the missing ones to the backbone's OUT_FEATURES."
        )
    return {name: input_shape[name] for name in names}
