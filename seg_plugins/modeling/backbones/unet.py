"""The contracting path of U-Net (Ronneberger et al. 2015)."""

from __future__ import annotations

import torch.nn.functional as F
from detectron2.config import CfgNode
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...config import ConfigError
from ..feature_geometry import placed_shape
from ..norms import norm_of

PADDINGS = {"same": 1, "valid": 0}


def double_conv(in_channels: int, out_channels: int, padding: int, norm: str) -> nn.Sequential:
    """Two 3x3 convolutions, each followed by the norm (if any) and ReLU; He initialisation."""
    layers = []
    for channels in (in_channels, out_channels):
        conv = Conv2d(
            channels,
            out_channels,
            3,
            padding=padding,
            bias=not norm,
            norm=get_norm(norm_of(norm), out_channels),
            activation=F.relu,
        )
        nn.init.kaiming_normal_(conv.weight, mode="fan_in", nonlinearity="relu")
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
        layers.append(conv)
    return nn.Sequential(*layers)


class UNetBackbone(Backbone):
    """Levels of two 3x3 convolutions with 2x2 max pooling between them.

    Features ``enc1`` (stride 1) to ``enc{depth}`` (stride 2^(depth - 1)), with ``width`` times 1,
    2, 4, ... channels. With ``valid`` padding each convolution cuts one pixel off every border and
    the poolings must come out even: see :meth:`valid_size`.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        depth: int = 5,
        width: int = 64,
        padding: str = "valid",
        norm: str = "",
        dropout: float = 0.5,
        freeze_at: int = 0,
    ) -> None:
        """Build the levels.

        Args:
            in_channels: image channels: any number.
            depth: number of levels, poolings plus one.
            width: channels of the first level.
            padding: ``valid`` as in the paper, or ``same`` (zeros).
            norm: normalisation after each convolution (``BN``, ``GN``, ...) or "".
            dropout: after the two deepest levels, the end of the contracting path.
            freeze_at: freeze this many levels.
        """
        super().__init__()
        if padding not in PADDINGS or depth < 2:
            raise ConfigError(
                f"MODEL.UNET: PADDING is 'valid' or 'same' and DEPTH >= 2, got '{padding}', {depth}"
            )
        self.depth, self.valid = depth, padding == "valid"
        self.levels = nn.ModuleList()
        self._shapes: dict[str, ShapeSpec] = {}
        channels, stride, origin = in_channels, 1, 0.0
        for level in range(depth):
            out_channels = width * 2**level
            self.levels.append(double_conv(channels, out_channels, PADDINGS[padding], norm))
            origin += 2 * stride if self.valid else 0
            self._shapes[f"enc{level + 1}"] = placed_shape(out_channels, stride, origin)
            channels, origin, stride = out_channels, origin + stride / 2, stride * 2
        self.dropout = nn.Dropout(dropout)
        self._out_features = list(self._shapes)
        self.levels[:freeze_at].requires_grad_(False)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images to ``enc1`` ... ``enc{depth}``.

        Raises:
            ValueError: ``valid`` padding and a size whose poolings are not even; the next valid
                size is named.
        """
        if self.valid:
            self._check(x.shape[-2], x.shape[-1])
        outputs: dict[str, Tensor] = {}
        for i, level in enumerate(self.levels):
            if i:
                x = F.max_pool2d(x, 2, ceil_mode=True)
            x = level(x)
            if i >= self.depth - 2:
                x = self.dropout(x)
            outputs[f"enc{i + 1}"] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels, stride and origin of each level."""
        return dict(self._shapes)

    def valid_size(self, size: int) -> int:
        """The smallest height or width >= ``size`` that ``valid`` padding can take (572, ...).

        On the deepest level and at every step up again at least two cells remain.
        """
        if not self.valid:
            return size
        smallest = 2  # cells at the end of the expanding path
        for _ in range(self.depth - 1):
            smallest = (smallest + 4 + 1) // 2
        smallest += 4
        for _ in range(self.depth - 1):
            smallest = 2 * smallest + 4
        step = 2 ** (self.depth - 1)
        return smallest + max(0, -(-(size - smallest) // step)) * step

    def _check(self, height: int, width: int) -> None:
        for name, size in (("height", height), ("width", width)):
            if self.valid_size(size) != size:
                raise ValueError(
                    f"U-Net with valid padding and {self.depth} levels cannot take the {name} "
                    f"{size}: the next valid one is {self.valid_size(size)}. Change INPUT.CROP.SIZE"
                    ", set MODEL.SEM_SEG_HEAD.MIRROR_BORDER True, or use MODEL.UNET.PADDING same."
                )


def build_unet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> UNetBackbone:
    """Build ``MODEL.UNET`` for images with ``input_shape.channels`` channels."""
    unet = cfg.MODEL.UNET
    return UNetBackbone(
        in_channels=input_shape.channels,
        depth=unet.DEPTH,
        width=unet.WIDTH,
        padding=unet.PADDING,
        norm=unet.NORM,
        dropout=unet.DROPOUT,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
