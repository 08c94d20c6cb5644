"""Semantic systems that cover an image window by window or tile by tile: the loop in the file."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop

from ..config import ConfigError
from ..modeling.feature_geometry import mirror_pad, mirrored_places
from ..modeling.inference import OverlapTile, SlidingWindow, WholeImage, gaussian_weight
from ..modeling.meta_arch.semantic import SemanticSystem
from .semantic import Graph, ScriptWhole

_Forms = tuple[Callable[..., Graph], Callable[..., nn.Module]]


def graph_of(model: SemanticSystem) -> Graph:
    """The system for ``torch.export``, covering images as ``MODEL.INFERENCE`` says.

    Raises:
        ConfigError: inference in a way that no single graph can follow.
    """
    return _forms(model)[0](model)


def script_of(model: SemanticSystem) -> nn.Module:
    """The system for ``torch.jit.script``; see :func:`graph_of`."""
    return _forms(model)[1](model)


def size_of(model: SemanticSystem) -> tuple[int, int]:
    """Height and width of what the file predicts at once; 64 x 64 where that is the whole image.

    Raises:
        ConfigError: see :func:`graph_of`.
    """
    graph = graph_of(model)
    if isinstance(graph, SlideGraph):
        return graph.rows, graph.columns
    return (graph.down, graph.right) if isinstance(graph, TileGraph) else (64, 64)


def _forms(model: SemanticSystem) -> _Forms:
    cover = model.cover
    if isinstance(cover, SlidingWindow):
        return SlideGraph, ScriptSlide
    if isinstance(cover, OverlapTile):
        # Tiles of a network without padding give what one pass gives.
        return (Graph, ScriptWhole) if model.border else (TileGraph, ScriptTile)
    if isinstance(cover, WholeImage):
        return Graph, ScriptWhole
    raise ConfigError(
        "An export holds one pass, a sliding window or tiles; test-time augmentation does not fit "
        "into it. Add MODEL.INFERENCE.SCALES [1.0] MODEL.INFERENCE.FLIP False."
    )


class SlideGraph(Graph):
    """For ``torch.export``: a loop over overlapping windows."""

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__(model)
        assert isinstance(model.cover, SlidingWindow)
        (self.rows, self.columns), (self.down, self.right) = model.cover.window, model.cover.stride
        self.register_buffer("weight", _blending(model.cover).flatten(), persistent=False)

    def covered(self, images: Tensor) -> Tensor:
        """Logits, blended where the windows overlap."""
        height, width = images.shape[-2:]
        ys = _window_starts(height, self.rows, self.down)
        xs = _window_starts(width, self.columns, self.right)
        tops, lefts = _corners(ys, xs)
        count = torch.ones((), dtype=torch.int64) * tops.shape[0]
        weight: Tensor = self.weight

        def more(i: Tensor, total: Tensor, weights: Tensor) -> Tensor:
            return i < count

        def add(i: Tensor, total: Tensor, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            place = i.reshape(1)
            # Made in here, so that the exporter knows the window's size.
            y = tops.index_select(0, place) + torch.arange(self.rows)
            x = lefts.index_select(0, place) + torch.arange(self.columns)
            logits = self.whole(images.index_select(2, y).index_select(3, x)).flatten(2)
            index = (y[:, None] * width + x[None]).flatten()
            total = total.index_add(2, index, logits * weight)
            return i + 1, total, weights.index_add(0, index, weight)

        classes = self.model.num_classes
        total = torch.zeros(images.shape[0], classes, height * width)
        weights = torch.zeros(height * width)
        start = torch.zeros((), dtype=torch.int64)
        _, total, weights = while_loop(more, add, (start, total, weights))
        return (total / weights).unflatten(2, (height, width))


class TileGraph(Graph):
    """For ``torch.export``: a loop over tiles side by side, each seen with context around it."""

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__(model)
        assert isinstance(model.cover, OverlapTile)
        layout = model.cover.layout(model)
        self.context, (self.rows, self.columns), (self.down, self.right) = layout

    def covered(self, images: Tensor) -> Tensor:
        """Logits, put together of the tiles."""
        height, width = images.shape[-2:]
        # Of the tiles together: they reach over the image's end.
        full_height = (height + self.down - 1) // self.down * self.down
        full_width = (width + self.right - 1) // self.right * self.right
        seen = (full_height - self.down + self.rows, full_width - self.right + self.columns)
        images = mirror_pad(images, self.context, seen)
        ys = torch.arange(full_height // self.down) * self.down
        tops, lefts = _corners(ys, torch.arange(full_width // self.right) * self.right)
        count = torch.ones((), dtype=torch.int64) * tops.shape[0]

        def more(i: Tensor, total: Tensor) -> Tensor:
            return i < count

        def put(i: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            place = i.reshape(1)
            top, left = tops.index_select(0, place), lefts.index_select(0, place)
            y, x = top + torch.arange(self.rows), left + torch.arange(self.columns)
            logits = self.whole(images.index_select(2, y).index_select(3, x))
            inside = logits[..., self.context :, self.context :][..., : self.down, : self.right]
            y, x = top + torch.arange(self.down), left + torch.arange(self.right)
            index = (y[:, None] * full_width + x[None]).flatten()
            return i + 1, total.index_add(2, index, inside.flatten(2))

        start = torch.zeros((), dtype=torch.int64)
        total = torch.zeros(images.shape[0], self.model.num_classes, full_height * full_width)
        _, total = while_loop(more, put, (start, total))
        return total.unflatten(2, (full_height, full_width))[..., :height, :width]


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


def _corners(ys: Tensor, xs: Tensor) -> tuple[Tensor, Tensor]:
    """First row and first column of each window, line by line."""
    return ys[:, None].expand(-1, xs.shape[0]).flatten(), xs[None].expand(ys.shape[0], -1).flatten()


class ScriptSlide(nn.Module):
    """For ``torch.jit.script``: the loop over windows around :class:`~.semantic.ScriptWhole`."""

    __constants__ = ("height", "width", "step_y", "step_x")

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__()
        assert isinstance(model.cover, SlidingWindow)
        self.whole = ScriptWhole(model)
        (self.height, self.width), (self.step_y, self.step_x) = (
            model.cover.window, model.cover.stride
        )  # fmt: skip
        self.register_buffer("weight", _blending(model.cover))

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


class ScriptTile(nn.Module):
    """For ``torch.jit.script``: the loop over tiles around :class:`~.semantic.ScriptWhole`."""

    __constants__ = ("columns", "context", "down", "right", "rows")

    def __init__(self, model: SemanticSystem) -> None:
        super().__init__()
        assert isinstance(model.cover, OverlapTile)
        self.whole = ScriptWhole(model)
        layout = model.cover.layout(model)
        self.context, (self.rows, self.columns), (self.down, self.right) = layout

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) raw images to (N, K, H, W) logits, put together of the tiles."""
        x = self.whole.normalized(images)
        height, width, context = x.shape[2], x.shape[3], self.context
        lines, across = (height - 1) // self.down + 1, (width - 1) // self.right + 1
        y = mirrored_places(height, context, (lines - 1) * self.down + self.rows).to(x.device)
        z = mirrored_places(width, context, (across - 1) * self.right + self.columns).to(x.device)
        x = x[:, :, y][:, :, :, z]
        parts: list[Tensor] = []
        for i in range(lines):
            line: list[Tensor] = []
            for j in range(across):
                top, left = i * self.down, j * self.right
                logits = self.whole.scores(
                    x[:, :, top : top + self.rows, left : left + self.columns]
                )
                inside = logits[:, :, context : context + self.down]
                line.append(inside[:, :, :, context : context + self.right])
            parts.append(torch.cat(line, dim=3))
        return torch.cat(parts, dim=2)[:, :, :height, :width]
