"""FCN: class scores at several strides, summed and upsampled in network (Long et al. 2015)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ...config import ConfigError
from ..feature_geometry import cell_offset, origin_of, overlap, transposed_origin
from .base import ScoreConv2d, SemSegHead, full_precision, select_features


class BilinearUpsampling(nn.ConvTranspose2d):
    """Transposed convolution that starts as bilinear interpolation by an integer factor.

    Runs in float32 under autocast, as the score layers do. Learnable, it mixes classes: a full
    (K, K, 2 factor, 2 factor) kernel, as in the paper. Fixed, it is one kernel per channel.
    """

    def __init__(self, channels: int, factor: int, learnable: bool) -> None:
        """Build it for (N, channels, h, w) scores; output ((h + 1) factor, (w + 1) factor)."""
        kernel = 2 * factor - factor % 2
        groups = 1 if learnable else channels
        super().__init__(channels, channels, kernel, stride=factor, groups=groups, bias=False)
        with torch.no_grad():
            self.weight.zero_()
            diagonal = torch.arange(channels)
            columns = diagonal if learnable else torch.zeros_like(diagonal)
            self.weight[diagonal, columns] = bilinear_kernel(kernel)
        self.weight.requires_grad_(learnable)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Upsample in float32."""
        with full_precision(x):
            return super().forward(x.float(), output_size)


def bilinear_kernel(size: int) -> Tensor:
    """(size, size) weights of bilinear interpolation by (size + 1) // 2."""
    factor = (size + 1) // 2
    distance = (torch.arange(size) - (size - 1) / 2).abs()
    line = 1 - distance / factor
    return line[:, None] * line[None, :]


class SemSegFCNHead(SemSegHead):
    """FCN-32s, -16s and -8s by the features given: the deepest alone, or with skips.

    On VGG-16 padded by 100 pixels the crops are those of the reference release (19, or 5 and 27,
    or 5, 9 and 31 cells); on any other backbone they follow from the features' places.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        learn_upsampling: bool = True,
        skip_scales: Sequence[float] = (),
        **head_arguments: Any,
    ) -> None:
        """Build score and upsampling layers.

        Args:
            input_shape: features from fine to coarse; the first one's stride names the variant.
            learn_upsampling: train the transposed convolutions; False keeps them bilinear.
            skip_scales: factor of each skip feature, from fine to coarse, before its score layer
                (0.0001 for pool3 and 0.01 for pool4 when all are trained at once); default 1.
            **head_arguments: see :class:`~.base.SemSegHead`.

        Raises:
            ConfigError: strides or scales that do not fit, or scores that would not cover the
                image.
        """
        super().__init__(**head_arguments)
        self.in_features = list(input_shape)
        scales = list(skip_scales) or [1.0] * (len(input_shape) - 1)
        if len(scales) != len(input_shape) - 1:
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.SKIP_SCALES needs one factor for each of the skips "
                f"{self.in_features[:-1]}, got {scales}"
            )
        self.scales = dict(zip(self.in_features, [*scales, 1.0], strict=True))
        self.score = nn.ModuleDict()
        for name, shape in input_shape.items():
            self.score[name] = ScoreConv2d(shape.channels, self.num_classes, 1)
            nn.init.zeros_(self.score[name].weight)  # as the release: the net starts undecided
            nn.init.zeros_(self.score[name].bias)

        self.upscore = nn.ModuleDict()
        self._steps: list[tuple[str, str, int]] = []  # (upsampling, skip feature, cell offset)
        origin = origin_of(input_shape[self.in_features[-1]])
        for name, finer in pairwise(reversed(self.in_features)):
            stride, skip = input_shape[name].stride, input_shape[finer]
            if stride % skip.stride:
                raise ConfigError(
                    "MODEL.SEM_SEG_HEAD.IN_FEATURES must go from the smallest stride to the "
                    f"largest, got {finer} ({skip.stride}) before {name} ({stride})"
                )
            key, origin = self._upsampling(
                name, stride, stride // skip.stride, origin, learn_upsampling
            )
            self._steps.append((key, finer, cell_offset(origin, origin_of(skip), skip.stride)))
            origin = max(origin, origin_of(skip))
        stride = input_shape[self.in_features[0]].stride
        self._last, origin = self._upsampling(
            self.in_features[0], stride, stride, origin, learn_upsampling
        )
        self._crop = -cell_offset(origin, 0, 1)
        if self._crop < 0:
            raise ConfigError(
                f"The scores would begin {-self._crop} pixels inside the image. Pad the input: "
                "MODEL.VGG.INPUT_PAD 100"
            )

    def _upsampling(
        self, name: str, stride: int, factor: int, origin: float, learnable: bool
    ) -> tuple[str, float]:
        """Add the layer under a name that no other variant uses for another shape."""
        if factor == 1:
            return "", origin
        layer = BilinearUpsampling(self.num_classes, factor, learnable)
        self.upscore[f"{name}_x{factor}"] = layer
        return f"{name}_x{factor}", transposed_origin(origin, stride, factor, layer.kernel_size[0])

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SEM_SEG_HEAD``: ``COMMON_STRIDE`` 32, 16 or 8 names the variant.

        Of ``IN_FEATURES`` those with a stride of at least ``COMMON_STRIDE`` take part.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        shapes = select_features(input_shape, head.IN_FEATURES, cls.__name__)
        used = {name: shape for name, shape in shapes.items() if shape.stride >= head.COMMON_STRIDE}
        if not used or min(shape.stride for shape in used.values()) != head.COMMON_STRIDE:
            strides = sorted({shape.stride for shape in shapes.values()})
            raise ConfigError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE {head.COMMON_STRIDE} is not the stride of one "
                f"of IN_FEATURES {list(shapes)}: choose among {strides}"
            )
        return {
            "input_shape": used,
            "learn_upsampling": head.LEARN_UPSAMPLING,
            "skip_scales": head.SKIP_SCALES[len(head.SKIP_SCALES) - len(used) + 1 :],
            **cls.config_arguments(cfg),
        }

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Scores (N, K, H', W') at stride 1, cut at the image's top-left corner."""
        deepest = self.in_features[-1]
        x = self.score[deepest](features[deepest])
        for key, name, offset in self._steps:
            x = self.upscore[key](x) if key else x
            x, skip = overlap(x, self.score[name](features[name] * self.scales[name]), offset)
            x = x + skip
        x = self.upscore[self._last](x) if self._last else x
        return x[..., self._crop :, self._crop :]
