"""The loss of a semantic head from its configuration.

``MODEL.SEM_SEG_HEAD.LOSS_TYPE`` names one loss of :mod:`.losses` or a weighted sum such as
``"cross_entropy + 0.5 * dice"``; ``CLASS_WEIGHTS`` gives the factors of the classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ConfigError
from .losses import LOSSES, Pixels


def parse_loss_type(text: str) -> list[tuple[float, str]]:
    """Factors and names of ``"cross_entropy + 0.5 * dice"``.

    Raises:
        ConfigError: an unknown name or a sum that cannot be read.
    """
    terms = []
    for term in text.split("+"):
        match = re.fullmatch(r"\s*(?:([0-9.]+(?:e-?[0-9]+)?)\s*\*)?\s*(\w+)\s*", term)
        if match is None or match[2] not in LOSSES:
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.LOSS_TYPE '{text}': '{term.strip()}' is not one of "
                f"{', '.join(LOSSES)}. A sum is written 'cross_entropy + 0.5 * dice'."
            )
        terms.append((float(match[1] or 1), match[2]))
    return terms


def resolve_class_weights(
    value: str | Sequence[float] | None, num_classes: int
) -> list[float] | None:
    """Class weights from ``MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS``.

    Args:
        value: None or "none", or a factor per class.
        num_classes: K; a single class takes two factors, background first.

    Raises:
        ConfigError: a list of the wrong length, or the name of a scheme: it needs the training
            set, which a model does not see.
    """
    if value is None or value == "none":
        return None
    if isinstance(value, str):
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS '{value}': a model takes 'none' or a list of "
            "numbers. The named schemes are worked out from the training set by "
            "tools/train_net.py, which writes the list into config.yaml."
        )
    expected = max(num_classes, 2)
    if len(value) != expected:
        raise ConfigError(
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(value)} factors, but {expected} are needed "
            f"for NUM_CLASSES {num_classes}: one per class, in the order of the class ids"
        )
    return [float(factor) for factor in value]


class SemanticLoss(nn.Module):
    """The loss of a semantic head: a weighted sum of :mod:`.losses`."""

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        loss_type: str = "cross_entropy",
        num_classes: int,
        ignore_value: int = 255,
        class_weights: str | Sequence[float] | None = None,
    ) -> None:
        """Build the loss.

        Args:
            loss_type: one loss, or a weighted sum.
            num_classes: number of score channels K.
            ignore_value: the label of pixels that contribute nothing.
            class_weights: see :func:`resolve_class_weights`.
        """
        super().__init__()
        self.terms = parse_loss_type(loss_type)
        self.ignore_value = ignore_value
        factors = resolve_class_weights(class_weights, num_classes)
        weights = torch.tensor(factors, dtype=torch.float32) if factors else None
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
        with torch.autocast(logits.device.type, enabled=False):
            pixels = Pixels(logits.float(), targets, self.ignore_value, self.class_weights, weights)
            losses = [factor * LOSSES[name](pixels) for factor, name in self.terms]
            return torch.stack(losses).sum()
