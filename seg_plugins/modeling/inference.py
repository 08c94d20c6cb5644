"""How a semantic system covers an image at inference: ``MODEL.INFERENCE.MODE``."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

# (N, C, H, W) normalised images to (N, K, H, W) logits.
Predict = Callable[[Tensor], Tensor]


class WholeImage:
    """One forward pass over the whole padded batch."""

    def __call__(self, predict: Predict, images: Tensor) -> Tensor:
        """Logits (N, K, H, W) of images (N, C, H, W)."""
        return predict(images)
