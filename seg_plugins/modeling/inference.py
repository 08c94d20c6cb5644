"""How a semantic system covers an image at inference: ``MODEL.INFERENCE``."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode
from torch import Tensor

from ..config import ConfigError
from .feature_geometry import mirror_pad
from .test_time.probabilities import MeanProbability


class Scorer(Protocol):
    """What the strategies need from a model.

    Attributes:
        border: pixels that :meth:`inner_logits` loses at each side of its input.
        alignment: the largest stride: windows that begin at multiples of it see equal grids.
    """

    border: int
    alignment: int

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, H, W) normalised images to (N, K, H, W) logits."""

    def inner_logits(self, images: Tensor) -> Tensor:
        """The same without padding the images: the first score is ``border`` pixels inside."""

    def valid_size(self, size: int) -> int:
        """The smallest height or width >= ``size`` that :meth:`inner_logits` takes."""


class Strategy(Protocol):
    """Covers a batch of images with predictions.

    Attributes:
        batched: takes padded batches; otherwise one image at a time, unpadded.
    """

    batched: bool

    def __call__(self, model: Scorer, images: Tensor) -> Tensor:
        """(N, C, H, W) normalised images to (N, K, H, W) float32 logits."""


class WholeImage:
    """One forward pass over the whole padded batch."""

    batched = True

    def __call__(self, model: Scorer, images: Tensor) -> Tensor:
        """Logits of the images."""
        return model.logits(images)


class SlidingWindow:
    """Overlapping windows, blended by weights that fall off from each window's centre.

    The network sees one window at a time: its memory does not grow with the image; only the
    image, the result and one weight per pixel do.
    """

    batched = False

    def __init__(
        self, window: Sequence[int], stride: Sequence[int], *, gaussian: bool = True
    ) -> None:
        """Set up the windows.

        Args:
            window: height and width; cut to the image where that is smaller.
            stride: step down and to the right, at most the window.
            gaussian: weight logits by a Gaussian (sigma an eighth of the window), else equally.
        """
        if any(s < 1 or s > w for s, w in zip(stride, window, strict=True)):
            raise ConfigError(
                f"MODEL.INFERENCE.STRIDE {list(stride)} must be between 1 and WINDOW {list(window)}"
            )
        self.window, self.stride, self.gaussian = tuple(window), tuple(stride), gaussian

    def __call__(self, model: Scorer, images: Tensor) -> Tensor:
        """Blended logits of the images."""
        size = (images.shape[-2], images.shape[-1])
        window = [min(w, s) for w, s in zip(self.window, size, strict=True)]
        weight = self._weight(window).to(images.device)
        total: Tensor | None = None
        weights = torch.zeros(size, device=images.device)
        starts = (_starts(*axis) for axis in zip(size, window, self.stride, strict=True))
        for y, x in itertools.product(*starts):
            area = (..., slice(y, y + window[0]), slice(x, x + window[1]))
            logits = model.logits(images[area]).float()
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], *size)
            total[area] += logits * weight
            weights[area] += weight
        assert total is not None  # there is at least one window
        return total / weights

    def _weight(self, window: Sequence[int]) -> Tensor:
        if not self.gaussian:
            return torch.ones(*window)
        return gaussian_weight(window[0])[:, None] * gaussian_weight(window[1])[None, :]


def gaussian_weight(size: int) -> Tensor:
    """(size,) weights along one side of a window: sigma is an eighth of it."""
    distance = (torch.arange(size) - (size - 1) / 2) / (size / 8)
    # Never zero: a corner that only one window sees still has its own prediction.
    return torch.exp(-0.5 * distance**2).clamp(min=1e-3)


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Window starts that cover the axis; the last one is moved back to end at the border."""
    last = size - window
    return [*range(0, last, stride), last]


class OverlapTile:
    """Tiles side by side, each predicted with the context around it (U-Net, figure 2).

    Context beyond the image is mirrored. Tiles are exact: for a network without padding the
    result equals one pass over the whole mirrored image.
    """

    batched = False

    def __init__(self, tile: Sequence[int], context: int = 0) -> None:
        """Set up the tiles.

        Args:
            tile: height and width of the area each pass predicts; rounded to what the network
                can take.
            context: pixels of context at each side for a network that loses none by itself.
        """
        self.tile, self.context = tuple(tile), context

    def __call__(self, model: Scorer, images: Tensor) -> Tensor:
        """Logits of the images."""
        size = (images.shape[-2], images.shape[-1])
        border, inputs, steps = self.layout(model)
        counts = [-(-n // step) for n, step in zip(size, steps, strict=True)]
        padded = (
            (counts[0] - 1) * steps[0] + inputs[0],
            (counts[1] - 1) * steps[1] + inputs[1],
        )
        images = mirror_pad(images, border, padded)
        out: Tensor | None = None
        for i, j in itertools.product(range(counts[0]), range(counts[1])):
            y, x = i * steps[0], j * steps[1]
            logits = model.inner_logits(images[..., y : y + inputs[0], x : x + inputs[1]]).float()
            inside = border - model.border
            logits = logits[..., inside : inside + steps[0], inside : inside + steps[1]]
            if out is None:
                out = logits.new_zeros(*logits.shape[:2], *size)
            target = out[..., y : y + steps[0], x : x + steps[1]]
            target.copy_(logits[..., : target.shape[-2], : target.shape[-1]])
        assert out is not None  # there is at least one tile
        return out

    def layout(self, model: Scorer) -> tuple[int, list[int], list[int]]:
        """Pixels around a tile; height and width of what a pass sees, and of what it predicts."""
        border = model.border or self.context
        inputs = [model.valid_size(tile + 2 * border) for tile in self.tile]
        steps = [
            max((n - 2 * border) // model.alignment * model.alignment, model.alignment)
            for n in inputs
        ]
        return border, inputs, steps


class MultiScaleFlip:
    """Test-time augmentation: probabilities averaged over scales and mirror images.

    Returns what :class:`~.test_time.probabilities.MeanProbability` makes of them.
    """

    def __init__(self, inner: Strategy, scales: Sequence[float], *, flip: bool) -> None:
        """Wrap a strategy.

        Args:
            inner: covers each version of the image.
            scales: factors of the image size; sizes are rounded up to the model's alignment.
            flip: add the left-right mirror image of each.
        """
        if not scales or min(scales) <= 0:
            raise ConfigError(f"MODEL.INFERENCE.SCALES must be positive factors, got {scales}")
        self.inner, self.scales, self.flip = inner, list(scales), flip
        self.batched = inner.batched

    def __call__(self, model: Scorer, images: Tensor) -> Tensor:
        """Averaged logits of the images."""
        size = images.shape[-2:]
        mean = MeanProbability()
        flips = (False, True) if self.flip else (False,)
        for scale, flipped in itertools.product(self.scales, flips):
            version = images.flip(-1) if flipped else images
            if scale != 1:
                new = [-(-round(n * scale) // model.alignment) * model.alignment for n in size]
                version = F.interpolate(version, new, mode="bilinear", align_corners=False)
            logits = self.inner(model, version).float()
            if logits.shape[-2:] != size:
                logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)
            mean.add(logits.flip(-1) if flipped else logits)
        return mean.logits()


def build_inference(cfg: CfgNode) -> Strategy:
    """The strategy of ``MODEL.INFERENCE``.

    Raises:
        ConfigError: an unknown mode.
    """
    inference = cfg.MODEL.INFERENCE
    modes = ("whole", "slide", "overlap_tile")
    if inference.MODE not in modes:
        raise ConfigError(f"MODEL.INFERENCE.MODE '{inference.MODE}' is not one of {modes}")
    strategy: Strategy = WholeImage()
    if inference.MODE == "slide":
        strategy = SlidingWindow(inference.WINDOW, inference.STRIDE, gaussian=inference.GAUSSIAN)
    elif inference.MODE == "overlap_tile":
        strategy = OverlapTile(inference.WINDOW, inference.CONTEXT)
    if list(inference.SCALES) != [1.0] or inference.FLIP:
        strategy = MultiScaleFlip(strategy, inference.SCALES, flip=inference.FLIP)
    return strategy
