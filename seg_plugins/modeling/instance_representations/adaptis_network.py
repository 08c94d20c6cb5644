"""The networks of AdaptIS: a point's code, the mask network that it adapts, the proposal head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from detectron2.layers import get_norm
from torch import Tensor, nn

from ..norms import norm_of
from ..sem_seg_heads.base import full_precision

#: Channels of :func:`relative_coordinates`.
COORDINATES = 3


def relative_coordinates(
    points: Tensor, size: tuple[int, int], stride: int, radius: float
) -> Tensor:
    """Where the cells of a grid lie as seen from points: y, x and distance, from -1 to 1.

    Args:
        points: (M, 2) x, y in pixels from the image's top-left corner.
        size: rows and columns of the grid.
        stride: pixels by cell.
        radius: pixels that count as 1; what is farther away is 1, too.

    Returns:
        (M, 3, rows, columns) float32.
    """
    y, x = (
        (torch.arange(cells, device=points.device) + 0.5) * stride - points[:, axis, None].float()
        for cells, axis in zip(size, (1, 0), strict=True)
    )
    plane = torch.stack(
        [y[:, :, None].expand(-1, -1, size[1]), x[:, None].expand(-1, size[0], -1)], dim=1
    )
    plane = plane / radius
    distance = plane.square().sum(dim=1, keepdim=True).sqrt()
    return torch.cat([plane, distance], dim=1).clamp(-1, 1)


def features_at(features: Tensor, points: Tensor, size: tuple[int, int]) -> Tensor:
    """Features at points, interpolated between the four nearest cell centres.

    Args:
        features: (N, C, h, w) of a padded batch.
        points: (N, P, 2) x, y in pixels of the padded images.
        size: rows and columns of the padded images.

    Returns:
        (N, P, C) float32.
    """
    with full_precision(features):
        # Each by its own size: a tensor of the sizes would be a constant where tracing follows.
        places = torch.stack([points[..., 0] / size[1], points[..., 1] / size[0]], dim=2)
        places = (places * 2 - 1)[:, :, None].float()
        found = F.grid_sample(features.float(), places, padding_mode="border", align_corners=False)
    return found[..., 0].transpose(1, 2)


def adaptive_instance_norm(x: Tensor, scale: Tensor, shift: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each map, then scale and shift it (Huang and Belongie 2017).

    Args:
        x: (M, C, h, w).
        scale: (M, C).
        shift: (M, C).
        eps: added to the variance.
    """
    # All channels of all maps as those of one image, whose norm scales and shifts each its own way.
    joined = x.reshape(1, -1, x.shape[-2], x.shape[-1])
    found = F.instance_norm(joined, weight=scale.flatten(), bias=shift.flatten(), eps=eps)
    return found.reshape(x.shape)


class AdaIN(nn.Module):
    """Adaptive instance normalisation by a code; at first it scales by about 1."""

    def __init__(self, code_size: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(code_size, channels)
        self.shift = nn.Linear(code_size, channels)
        for layer, value in ((self.scale, 1.0), (self.shift, 0.0)):
            nn.init.xavier_normal_(layer.weight)
            nn.init.constant_(layer.bias, value)

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """(M, C, h, w) maps under (M, D) codes, in float32."""
        with full_precision(x):
            codes = codes.float()
            return adaptive_instance_norm(x.float(), self.scale(codes), self.shift(codes))


class PointController(nn.Sequential):
    """From the feature at a point to its code: fully connected layers, each ReLU and norm.

    They are 1x1 convolutions of one cell, so that any norm of Detectron2's fits.
    """

    def __init__(self, in_channels: int, code_size: int, norm: str, layers: int = 3) -> None:
        steps: list[nn.Module] = []
        for i in range(layers):
            conv = nn.Conv2d(in_channels if i == 0 else code_size, code_size, 1)
            steps += [_drawn(conv), nn.ReLU(), get_norm(norm_of(norm), code_size)]
        super().__init__(*steps)

    def forward(self, features: Tensor) -> Tensor:
        """(M, C) features to (M, D) codes."""
        return super().forward(features[..., None, None])[..., 0, 0]


class MaskNetwork(nn.Module):
    """From the features of an image to the mask of the object at a point.

    Its first convolution reads the features and the point's :func:`relative_coordinates`. It is
    linear, so its part on the features is computed once for all points of an image. AdaIN in the
    middle brings in the point's code; a few more layers draw the mask.
    """

    def __init__(
        self, in_channels: int, channels: int, code_size: int, norm: str, separable: bool
    ) -> None:
        """Build it.

        Args:
            in_channels: of the features.
            channels: of the maps up to AdaIN.
            code_size: numbers of a code.
            norm: of the convolutions.
            separable: the network of the paper's Cityscapes models, with separable convolutions
                and three of them after AdaIN; False: the smaller one of its toy data.
        """
        super().__init__()
        self.first = _drawn(nn.Conv2d(COORDINATES + in_channels, channels, 3, padding=1))
        start: list[nn.Module] = [nn.ReLU(), get_norm(norm_of(norm), channels)]
        if separable:
            last = _drawn(nn.Conv2d(channels, channels, 1))
            start += [*_separable(channels, channels, norm), last, nn.LeakyReLU(0.2)]
            widths = [channels, channels // 2, channels // 4]
        else:
            start += [*_plain(channels, channels, norm), *_plain(channels, channels, norm)]
            widths = [channels // 2]
        end: list[nn.Module] = []
        given = channels
        for width in widths:
            end += (_separable if separable else _plain)(given, width, norm)
            given = width
        self.start = nn.Sequential(*start)
        self.adain = AdaIN(code_size, channels)
        self.end = nn.Sequential(*end, nn.Conv2d(given, 1, 1))

    def shared(self, features: Tensor) -> Tensor:
        """What all points of an image share: the first convolution's part on its features."""
        return F.conv2d(features, self.first.weight[:, COORDINATES:], self.first.bias, padding=1)

    def forward(self, shared: Tensor, images: Tensor, codes: Tensor, places: Tensor) -> Tensor:
        """Logits (M, h, w) of the masks.

        Args:
            shared: (N, C, h, w) of :meth:`shared`.
            images: (M,) the image of each point.
            codes: (M, D) of :class:`PointController`.
            places: (M, 3, h, w) of :func:`relative_coordinates`.
        """
        seen = F.conv2d(places.to(shared.dtype), self.first.weight[:, :COORDINATES], padding=1)
        x = self.start(shared[images] + seen)
        return self.end(self.adain(x, codes))[:, 0]


class ProposalHead(nn.Sequential):
    """How good each cell is as the point of a mask: convolutions, then one logit."""

    def __init__(
        self, in_channels: int, channels: int, norm: str, separable: bool, layers: int = 2
    ) -> None:
        steps: list[nn.Module] = []
        for i in range(layers):
            given = in_channels if i == 0 else channels
            steps += (_separable if separable else _plain)(given, channels, norm)
        super().__init__(*steps, nn.Conv2d(channels, 1, 1))


def enlarged(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(M, h, w) at the size of the padded image."""
    with full_precision(maps):
        return F.interpolate(
            maps.float()[:, None], size=size, mode="bilinear", align_corners=False
        )[:, 0]


@contextmanager
def as_at_inference(*modules: nn.Module) -> Iterator[None]:
    """Norms use, and leave, their running statistics."""
    before = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.train(training)


def _plain(in_channels: int, channels: int, norm: str) -> list[nn.Module]:
    """The reference's order: the norm comes after the ReLU."""
    conv = _drawn(nn.Conv2d(in_channels, channels, 3, padding=1))
    return [conv, nn.ReLU(), get_norm(norm_of(norm), channels)]


def _separable(in_channels: int, channels: int, norm: str) -> list[nn.Module]:
    by_channel = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
    mixed = nn.Conv2d(in_channels, channels, 1, bias=False)
    return [_drawn(by_channel), _drawn(mixed), get_norm(norm_of(norm), channels), nn.ReLU()]


def _drawn(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
    return conv
