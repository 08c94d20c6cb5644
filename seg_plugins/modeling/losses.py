"""Losses of the semantic systems, chosen by ``MODEL.SEM_SEG_HEAD.LOSS_TYPE``."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from detectron2.utils import comm
from torch import Tensor, nn


def global_mean(total: Tensor, count: Tensor) -> Tensor:
    """Mean over the pixels of all processes, from this process's sum.

    Data-parallel training averages gradients over processes; this sum is scaled by the number
    of processes and divided by the count of all of them, so that N processes take the same step
    as one process with the whole batch, however unevenly valid pixels are spread.

    Args:
        total: scalar, the sum over this process's pixels.
        count: integer scalar, the number of this process's pixels.

    Returns:
        Scalar; 0 with a zero gradient where no process has a pixel.
    """
    world_size = comm.get_world_size()
    if world_size > 1:
        count = count.clone()
        dist.all_reduce(count)
    return total * world_size / count.clamp(min=1)


def pixel_cross_entropy(
    logits: Tensor, targets: Tensor, ignore_value: int, class_weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of each pixel; sigmoid cross-entropy where there is one class.

    Args:
        logits: (N, K, H, W) float32.
        targets: (N, H, W) int64; K = 1: label 1 is the class, 0 is everything else.
        ignore_value: the label that is left out.
        class_weights: (K,) factors by class; (2,) for background and class where K = 1.

    Returns:
        (N, H, W), in nats; 0 at ignored pixels.
    """
    if logits.shape[1] > 1:
        return F.cross_entropy(
            logits, targets, class_weights, ignore_index=ignore_value, reduction="none"
        )
    positive = targets == 1
    loss = F.binary_cross_entropy_with_logits(
        logits[:, 0], positive.to(logits.dtype), reduction="none"
    )
    if class_weights is not None:
        loss = loss * class_weights[positive.long()]
    return loss.masked_fill(targets == ignore_value, 0.0)


class SemanticLoss(nn.Module):
    """The loss of a semantic head.

    Cross-entropy is the mean over the valid pixels of the global batch; class weights and pixel
    weights multiply a pixel's loss and do not enter the divisor. It is 0, with a zero gradient,
    where every pixel is ignored.
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        loss_type: str = "cross_entropy",
        num_classes: int,
        ignore_value: int = 255,
        class_weights: list[float] | None = None,
    ) -> None:
        """Build the loss.

        Args:
            loss_type: ``cross_entropy``.
            num_classes: number of score channels K.
            ignore_value: the label of pixels that contribute nothing.
            class_weights: one factor per class.
        """
        super().__init__()
        if loss_type != "cross_entropy":
            raise ValueError(f"Unknown MODEL.SEM_SEG_HEAD.LOSS_TYPE '{loss_type}'")
        self.ignore_value = ignore_value
        weights = torch.tensor(class_weights, dtype=torch.float32) if class_weights else None
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            logits: (N, K, H, W), any float type; computed in float32.
            targets: (N, H, W) int64 labels.
            weights: optional (N, H, W) float32 factors by pixel, e.g. U-Net's border weights.

        Returns:
            Scalar float32.
        """
        loss = pixel_cross_entropy(logits.float(), targets, self.ignore_value, self.class_weights)
        if weights is not None:
            loss = loss * weights
        return global_mean(loss.sum(), (targets != self.ignore_value).sum())
