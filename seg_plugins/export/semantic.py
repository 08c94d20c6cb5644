"""Semantic systems as functions of one tensor, in the two forms that the exporters understand.

Both take (N, C, H, W) float32 images in raw range and give (N, K, H, W) logits, as the system
itself gives them for images of one size. :class:`Graph` is followed symbolically by
``torch.export`` (ONNX); of :class:`ScriptWhole` the network alone is traced, and what depends on
the image's size, padding and mirroring, is compiled as it stands (TorchScript). The loops over
parts of an image are in :mod:`.windows`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modeling.feature_geometry import mirrored_places
from ..modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor
from ..modeling.meta_arch.patch_classifier import PatchClassifier
from ..modeling.meta_arch.semantic import SemanticSystem
from ..modeling.sem_seg_heads.segnet import SemSegSegNetHead

# Odd on every level of stride up to 32: where two maps of unlike size are joined, tracing then
# records the cut to the smaller one, which is right for even sizes too.
_TRACED_SIZE = (32 * 3 + 1, 32 * 4 + 1)


def prepare(model: SemanticSystem) -> SemanticSystem:
    """Set a system up for export: evaluation, and all windows of a patch classifier at once."""
    if isinstance(model, PatchClassifier):
        model.naive = False
    return model.eval().cpu().requires_grad_(False)


class Graph(nn.Module):
    """For ``torch.export``: sizes stay symbols. One pass over the image."""

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__()
        self.model = model
        self.divisor = max(model.backbone.size_divisibility, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw images to (N, K, H, W) logits."""
        return self.covered((images - self.model.pixel_mean) / self.model.pixel_std)

    def covered(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        return self.whole(images)

    def whole(self, images: Tensor) -> Tensor:
        """Logits of normalised images, or of a part of them, by one pass."""
        height, width = images.shape[-2:]
        if self.divisor > 1:
            images = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        logits = self.model.inner_logits(self.model.extended(images))
        return logits[..., :height, :width].float()


class CenterGraph(nn.Module):
    """For ``torch.export``: the maps of a bottom-up panoptic system."""

    def __init__(self, model: BottomUpPanopticSegmentor) -> None:
        super().__init__()
        self.model = model
        self.divisor = max(model.backbone.size_divisibility, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(N, C, H, W) raw images to logits, heat maps and offsets of their size."""
        height, width = images.shape[-2:]
        images = (images - self.model.pixel_mean) / self.model.pixel_std
        if self.divisor > 1:
            images = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        features = self.model.backbone(images)
        heatmaps, offsets = self.model.center_head.predict(features)
        maps = (self.model.sem_seg_head(features)[0], heatmaps, offsets)
        return tuple(part[..., :height, :width].float() for part in maps)


class ScriptWhole(nn.Module):
    """For ``torch.jit.script``, around the traced network: one pass over the image."""

    __constants__ = ("border", "divisor", "smallest", "step")

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__()
        self.register_buffer("mean", model.pixel_mean.clone())
        self.register_buffer("std", model.pixel_std.clone())
        self.border = model.border
        self.divisor = max(model.backbone.size_divisibility, 1)
        self.smallest = model.valid_size(1)
        self.step = max(model.valid_size(self.smallest + 1) - self.smallest, 1)
        example = torch.zeros(2, len(model.pixel_mean), *_TRACED_SIZE)
        if self.divisor > 1:
            sizes = [-(-n // self.divisor) * self.divisor for n in _TRACED_SIZE]
            example = F.pad(
                example, (0, sizes[1] - example.shape[3], 0, sizes[0] - example.shape[2])
            )
        example = model.extended(example)
        self.network = torch.jit.trace(_Inner(model), example, check_trace=False)

    def normalized(self, images: Tensor) -> Tensor:
        """Raw images as the network takes them."""
        return (images - self.mean) / self.std

    def scores(self, images: Tensor) -> Tensor:
        """Logits of normalised images."""
        height, width = images.shape[2], images.shape[3]
        x = images
        if self.divisor > 1:
            bottom, right = (-height) % self.divisor, (-width) % self.divisor
            x = F.pad(x, [0, right, 0, bottom])
        if self.border > 0:
            x = x[:, :, self.mirrored(x.shape[2])][:, :, :, self.mirrored(x.shape[3])]
        return self.network(x)[0][:, :, :height, :width].float()

    def mirrored(self, size: int) -> Tensor:
        """Indices of an axis with its border mirrored, up to a size that the network takes."""
        wanted = size + 2 * self.border
        length = self.smallest + (max(wanted - self.smallest, 0) + self.step - 1) // self.step * (
            self.step
        )
        return mirrored_places(size, self.border, length).to(self.mean.device)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw images to (N, K, H, W) logits."""
        return self.scores(self.normalized(images))


class _Inner(nn.Module):
    """Logits, and of SegNet where the maxima were: the check of the file reads that."""

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        head = self.model.sem_seg_head
        if not isinstance(head, SemSegSegNetHead):
            return (self.model.inner_logits(images),)
        features = self.model.backbone(images)
        return (head(features)[0], *(features[name] for name in head.in_features[1:]))
