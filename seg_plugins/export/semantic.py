"""Semantic systems as functions of one tensor, in the two forms that the exporters understand.

Both take (N, C, H, W) float32 images in raw range and give (N, K, H, W) logits, as the system
itself gives them for images of one size. :class:`Graph` is followed symbolically by
``torch.export`` (ONNX); of :class:`Script` the network alone is traced, and what depends on the
image's size, padding, mirroring, the loop over windows, is compiled as it stands (TorchScript).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from ..config import ConfigError
from ..modeling.inference import OverlapTile, SlidingWindow, WholeImage, gaussian_weight
from ..modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor
from ..modeling.meta_arch.patch_classifier import PatchClassifier
from ..modeling.meta_arch.semantic import SemanticSystem
from ..modeling.sem_seg_heads.segnet import SemSegSegNetHead

# Odd on every level of stride up to 32: where two maps of unlike size are joined, tracing then
# records the cut to the smaller one, which is right for even sizes too.
_TRACED_SIZE = (32 * 3 + 1, 32 * 4 + 1)


def window_of(model: SemanticSystem) -> SlidingWindow | None:
    """The sliding window that an export contains; None for one pass over the image.

    Raises:
        ConfigError: inference in a way that no single graph can follow.
    """
    cover = model.cover
    if isinstance(cover, WholeImage):
        return None
    if isinstance(cover, SlidingWindow):
        return cover
    if isinstance(cover, OverlapTile) and model.border:
        return None  # tiles of a network without padding give what one pass gives
    raise ConfigError(
        "An export holds one pass or a sliding window; test-time augmentation and tiles with "
        "context do not fit into it. Add MODEL.INFERENCE.MODE whole (or slide) "
        "MODEL.INFERENCE.SCALES [1.0] MODEL.INFERENCE.FLIP False."
    )


def prepare(model: SemanticSystem) -> SemanticSystem:
    """Set a system up for export: evaluation, and all windows of a patch classifier at once."""
    if isinstance(model, PatchClassifier):
        model.naive = False
    return model.eval().cpu().requires_grad_(False)


class Graph(nn.Module):
    """For ``torch.export``: sizes stay symbols."""

    def __init__(self, model: SemanticSystem, window: SlidingWindow | None) -> None:
        super().__init__()
        self.model, self.window = model, window
        self.divisor = max(model.backbone.size_divisibility, 1)
        if window is not None:
            self.register_buffer("weight", _blending(window).flatten(), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw images to (N, K, H, W) logits."""
        images = (images - self.model.pixel_mean) / self.model.pixel_std
        return self._whole(images) if self.window is None else self._slide(images)

    def _whole(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        if self.divisor > 1:
            images = F.pad(images, (0, -width % self.divisor, 0, -height % self.divisor))
        logits = self.model.inner_logits(self.model.extended(images))
        return logits[..., :height, :width].float()

    def _slide(self, images: Tensor) -> Tensor:
        assert self.window is not None
        (rows, columns), (down, right) = self.window.window, self.window.stride
        height, width = images.shape[-2:]
        ys, xs = _window_starts(height, rows, down), _window_starts(width, columns, right)
        tops = ys[:, None].expand(-1, xs.shape[0]).flatten()
        lefts = xs[None].expand(ys.shape[0], -1).flatten()
        count = torch.ones((), dtype=torch.int64) * tops.shape[0]
        weight: Tensor = self.weight

        def more(i: Tensor, total: Tensor, weights: Tensor) -> Tensor:
            return i < count

        def add(i: Tensor, total: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            place = i.reshape(1)
            # Made in here, so that the exporter knows the window's size.
            y = tops.index_select(0, place) + torch.arange(rows)
            x = lefts.index_select(0, place) + torch.arange(columns)
            logits = self._whole(images.index_select(2, y).index_select(3, x)).flatten(2)
            index = (y[:, None] * width + x[None]).flatten()
            total = total.index_add(2, index, logits * weight)
            return i + 1, total, weights.index_add(0, index, weight)

        classes = self.model.num_classes
        total = torch.zeros(images.shape[0], classes, height * width)
        weights = torch.zeros(height * width)
        start = torch.zeros((), dtype=torch.int64)
        _, total, weights = while_loop(more, add, (start, total, weights))
        return (total / weights).unflatten(2, (height, width))


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


def _blending(window: SlidingWindow) -> Tensor:
    """(h, w) weights of a window's logits."""
    height, width = window.window
    if not window.gaussian:
        return torch.ones(height, width)
    return gaussian_weight(height)[:, None] * gaussian_weight(width)[None]


def _window_starts(size: int, window: int, stride: int) -> Tensor:
    """As the sliding window's own; for an image below the window they point outside of it."""
    last = torch.sym_max(size - window, 0)
    starts = torch.arange((last + stride - 1) // stride + 1) * stride
    return torch.minimum(starts, torch.ones_like(starts) * last)


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
        period = max(2 * (size - 1), 1)
        index = torch.arange(-self.border, length - self.border, device=self.mean.device)
        index = index.remainder(period)
        return torch.where(index < size, index, period - index)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw images to (N, K, H, W) logits."""
        return self.scores(self.normalized(images))


class ScriptSlide(nn.Module):
    """For ``torch.jit.script``: the loop over windows around :class:`ScriptWhole`."""

    __constants__ = ("height", "width", "step_y", "step_x")

    def __init__(self, model: SemanticSystem, window: SlidingWindow) -> None:
        super().__init__()
        self.whole = ScriptWhole(model)
        self.height, self.width = window.window
        self.step_y, self.step_x = window.stride
        self.register_buffer("weight", _blending(window))

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw images to (N, K, H, W) logits, blended as the windows overlap."""
        x = self.whole.normalized(images)
        height, width = x.shape[2], x.shape[3]
        if height < self.height or width < self.width:
            raise ValueError("the image is smaller than the window of this export")
        total = torch.zeros([0])
        weights = torch.zeros([height, width], device=x.device)
        bottom, right = height - self.height, width - self.width
        for i in range((bottom + self.step_y - 1) // self.step_y + 1):
            for j in range((right + self.step_x - 1) // self.step_x + 1):
                top, left = min(i * self.step_y, bottom), min(j * self.step_x, right)
                end, side = top + self.height, left + self.width
                logits = self.whole.scores(x[:, :, top:end, left:side])
                if total.numel() == 0:
                    total = logits.new_zeros([x.shape[0], logits.shape[1], height, width])
                total[:, :, top:end, left:side] += logits * self.weight
                weights[top:end, left:side] += self.weight
        return total / weights


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
