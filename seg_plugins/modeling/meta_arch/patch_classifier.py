"""The sliding-window network of Ciresan et al. (2012), the baseline that FCN and U-Net replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...config import ConfigError
from ..feature_geometry import placed_shape
from ..inference import build_inference
from ..loss_terms import Losses
from ..sem_seg_heads.base import ScoreConv2d, SemSegHead, semantic_losses
from .semantic import SemanticSystem

# Side of the map that the fully connected layer sees (table 1 of the paper, network N4).
FINAL_SIZE = 3


class PatchNetwork(Backbone):
    """Convolutions without padding and 2x2 max pooling down to a 3x3 map, then one hidden layer.

    It maps a square window to a vector that describes the window's centre. :meth:`forward`
    computes the vectors of all windows of an image at once: where the window network steps over
    two pixels in a pooling, here every later layer looks at every second pixel instead, so that
    each position keeps its own result.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        channels: int = 48,
        kernels: Sequence[int] = (4, 5, 4, 4),
        hidden: int = 200,
    ) -> None:
        """Build the layers.

        Args:
            in_channels: image channels.
            channels: of every convolution.
            kernels: sizes of the convolutions, each followed by a pooling; the default is N4,
                whose window has 95x95 pixels.
            hidden: width of the fully connected layer.
        """
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels if i else in_channels, channels, kernel)
            for i, kernel in enumerate(kernels)
        )
        self.hidden = nn.Conv2d(channels, hidden, FINAL_SIZE)
        for layer in (*self.convs, self.hidden):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.window = FINAL_SIZE
        for kernel in reversed(kernels):
            self.window = 2 * self.window + kernel - 1
        if self.window % 2 == 0:
            raise ConfigError(
                f"MODEL.PATCH.KERNELS {list(kernels)} give windows of {self.window} pixels, which "
                "have no centre: make the first kernel one larger or smaller"
            )
        self._shape = placed_shape(hidden, 1, origin=self.window // 2)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """``window``: one vector per position of the window."""
        return {"window": self._shape}

    def valid_size(self, size: int) -> int:
        """Sizes from the window's on."""
        return max(size, self.window)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images to vectors (N, hidden, H - window + 1, W - window + 1)."""
        dilation = 1
        for conv in self.convs:
            x = F.relu(F.conv2d(x, conv.weight, conv.bias, dilation=dilation))
            x = F.max_pool2d(x, 2, stride=1, dilation=dilation)
            dilation *= 2
        x = F.conv2d(x, self.hidden.weight, self.hidden.bias, dilation=dilation)
        return {"window": F.relu(x)}

    def classify_windows(self, windows: Tensor) -> dict[str, Tensor]:
        """(P, C, window, window) windows to vectors (P, hidden, 1, 1), by the network as it is."""
        for conv in self.convs:
            windows = F.max_pool2d(F.relu(conv(windows)), 2)
        return {"window": F.relu(self.hidden(windows))}


class PatchHead(SemSegHead):
    """A linear classifier on the vectors of :class:`PatchNetwork`."""

    def __init__(self, input_shape: dict[str, ShapeSpec], **head_arguments: Any) -> None:
        """Build it.

        Args:
            input_shape: of the network.
            **head_arguments: see :class:`~..sem_seg_heads.base.SemSegHead`.
        """
        super().__init__(**head_arguments)
        shape = input_shape["window"]
        self.border = int(shape.origin)
        self.predictor = ScoreConv2d(shape.channels, self.num_classes, 1)

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Scores (N, K, h, w) of vectors (N, hidden, h, w)."""
        return self.predictor(features["window"])


class PatchClassifier(SemanticSystem):
    """Classifies each pixel from the window around it; borders are mirrored.

    Training takes windows at random pixels, with every class of an image equally likely.
    Evaluation is ``naive`` (one forward pass per pixel) or ``dense`` (all windows at once); both
    give the same scores.
    """

    @configurable
    def __init__(
        self, *, samples_per_image: int = 256, naive: bool = False, chunk: int = 1024, **parts: Any
    ) -> None:
        """Join network and classifier.

        Args:
            samples_per_image: windows drawn from each training image.
            naive: evaluate window by window.
            chunk: windows per forward pass in naive evaluation.
            **parts: see :class:`~.semantic.SemanticSystem`; ``backbone`` is a
                :class:`PatchNetwork`.
        """
        super().__init__(**parts)
        self.samples_per_image, self.naive, self.chunk = samples_per_image, naive, chunk

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL.PATCH``; backbone and head are fixed."""
        patch = cfg.MODEL.PATCH
        if patch.EVALUATION not in ("dense", "naive"):
            raise ConfigError(
                f"MODEL.PATCH.EVALUATION is 'dense' or 'naive', got '{patch.EVALUATION}'"
            )
        network = PatchNetwork(
            in_channels=len(cfg.MODEL.PIXEL_MEAN),
            channels=patch.CHANNELS,
            kernels=patch.KERNELS,
            hidden=patch.HIDDEN,
        )
        return {
            "backbone": network,
            "sem_seg_head": PatchHead(network.output_shape(), **PatchHead.config_arguments(cfg)),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "inference": build_inference(cfg),
            "samples_per_image": patch.SAMPLES_PER_IMAGE,
            "naive": patch.EVALUATION == "naive",
        }

    def training_losses(self, images: Tensor, targets: Tensor, weights: Tensor | None) -> Losses:
        """Loss of windows drawn from a padded batch; see :meth:`SemanticSystem.training_losses`."""
        padded = self.extended(images)
        windows, labels, factors = [], [], []
        for i, target in enumerate(targets):
            rows, columns = self._draw(target)
            views = _windows(padded[i], self.backbone.window)
            windows.append(views[rows, columns])
            labels.append(target[rows, columns])
            if weights is not None:
                factors.append(weights[i][rows, columns])
        features = self.backbone.classify_windows(torch.cat(windows))
        column = (-1, 1, 1)  # each window is an image of one pixel
        factor = torch.cat(factors).view(column) if factors else None
        return semantic_losses(self.sem_seg_head, features, torch.cat(labels).view(column), factor)

    def _draw(self, target: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns of random labelled pixels of (H, W) labels, balanced by class."""
        flat = target.flatten()
        valid = (flat != self.ignore_value).nonzero().squeeze(1)
        if not len(valid):  # an image without labels: its pixels count as ignored
            valid = torch.arange(len(flat), device=flat.device)
        labels, counts = flat[valid].unique(return_counts=True)
        classes = torch.randint(len(labels), (self.samples_per_image,), device=flat.device)
        place = torch.rand(self.samples_per_image, device=flat.device)
        # Sorted by label, the pixels of a class stand together: pick a class, then one of them.
        ordered = valid[flat[valid].argsort(stable=True)]
        begins = counts.cumsum(0) - counts
        chosen = ordered[begins[classes] + (place * counts[classes]).long()]
        return chosen // target.shape[1], chosen % target.shape[1]

    def inner_logits(self, images: Tensor) -> Tensor:
        """Scores at every position of the window: (N, K, H - window + 1, W - window + 1)."""
        if not self.naive:
            return super().inner_logits(images)
        scores = []
        for image in images:
            views = _windows(image, self.backbone.window)
            rows, columns = views.shape[:2]
            places = torch.arange(rows * columns, device=image.device)
            parts = [
                self.sem_seg_head.layers(
                    self.backbone.classify_windows(views[part // columns, part % columns])
                )
                for part in places.split(self.chunk)
            ]
            scores.append(torch.cat(parts).view(rows, columns, -1).permute(2, 0, 1))
        return torch.stack(scores)


def _windows(image: Tensor, size: int) -> Tensor:
    """All windows of (C, H, W) as a view (H - size + 1, W - size + 1, C, size, size)."""
    return image.unfold(1, size, 1).unfold(2, size, 1).permute(1, 2, 0, 3, 4)
