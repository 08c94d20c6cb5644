"""SegNet's decoder: upsampling by the encoder's pooling indices (Badrinarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from torch import Tensor, nn

from ...config import ConfigError
from ...ops.max_unpool import max_unpool_indexed
from ..norms import norm_of
from .base import ScoreConv2d, SemSegHead


class SemSegSegNetHead(SemSegHead):
    """Per stage: put values back where their maxima were, then convolve the sparse map.

    Takes ``pool{n}`` and ``pool1_indices`` ... ``pool{n}_indices`` (uint8: see
    :mod:`seg_plugins.ops.max_unpool`) from ``build_vgg_backbone`` with
    ``MODEL.VGG.POOLING_INDICES``, or from ``build_segnet_basic_backbone``.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        convs: Sequence[int] = (2, 2, 3, 3, 3),
        kernel_size: int = 3,
        relu: bool = True,
        extra_classifier: bool = False,
        norm: str = "BN",
        **head_arguments: Any,
    ) -> None:
        """Build the stages.

        Args:
            input_shape: the last pooled map and all pooling indices.
            convs: convolutions of each stage, from fine to coarse: those of the encoder.
            kernel_size: of all convolutions: 3, SegNet-Basic 7.
            relu: ReLU after each convolution (SegNet-Basic: none).
            extra_classifier: classify by a 1x1 convolution on top (SegNet-Basic); otherwise the
                last convolution of the finest stage gives the scores.
            norm: normalisation after each convolution.
            **head_arguments: see :class:`~.base.SemSegHead`.
        """
        super().__init__(**head_arguments)
        deepest = f"pool{len(convs)}"
        names = [deepest, *(f"pool{i + 1}_indices" for i in range(len(convs)))]
        missing = [name for name in names if name not in input_shape]
        if missing:
            raise ConfigError(
                f"SemSegSegNetHead with {len(convs)} stages needs {', '.join(missing)}, which the "
                f"backbone does not give (it gives {', '.join(input_shape)}). Use "
                "build_vgg_backbone with MODEL.VGG.POOLING_INDICES True and OUT_FEATURES "
                f"[{deepest}], or build_segnet_basic_backbone, and MODEL.SEGNET.CONVS for its "
                "number of poolings."
            )
        self.in_features = names
        widths = [input_shape[f"pool{i + 1}_indices"].channels for i in range(len(convs))]
        self.stages = nn.ModuleList()  # from coarse to fine
        for stage in reversed(range(len(convs))):
            layers: list[nn.Module] = []
            for i in range(convs[stage]):
                last = i == convs[stage] - 1
                out_channels = widths[max(stage - 1, 0)] if last else widths[stage]
                if stage == 0 and last and not extra_classifier:
                    layers.append(self._score(widths[0], kernel_size))
                    continue
                layers += self._conv(widths[stage], out_channels, kernel_size, norm, relu)
            self.stages.append(nn.Sequential(*layers))
        self.classifier = self._score(widths[0], 1) if extra_classifier else nn.Identity()

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.SEM_SEG_HEAD`` and ``MODEL.SEGNET``."""
        segnet = cfg.MODEL.SEGNET
        return {
            "input_shape": input_shape,
            "convs": segnet.CONVS,
            "kernel_size": segnet.KERNEL,
            "relu": segnet.DECODER_RELU,
            "extra_classifier": segnet.EXTRA_CLASSIFIER,
            "norm": cfg.MODEL.SEM_SEG_HEAD.NORM,
            **cls.config_arguments(cfg),
        }

    def _score(self, in_channels: int, kernel_size: int) -> ScoreConv2d:
        layer = ScoreConv2d(in_channels, self.num_classes, kernel_size, padding=kernel_size // 2)
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)
        return layer

    @staticmethod
    def _conv(
        in_channels: int, out_channels: int, kernel_size: int, norm: str, relu: bool
    ) -> list[nn.Module]:
        conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.zeros_(conv.bias)
        norm_layer = get_norm(norm_of(norm), out_channels)
        layers = [conv, norm_layer, nn.ReLU(inplace=True) if relu else None]
        return [layer for layer in layers if layer is not None]

    def layers(self, features: dict[str, Tensor]) -> Tensor:
        """Scores (N, K, H', W') at the input's resolution."""
        x = features[self.in_features[0]]
        indices = [features[name] for name in self.in_features[1:]]
        for i, stage in zip(reversed(range(len(indices))), self.stages, strict=True):
            height, width = indices[i].shape[-2:]
            # Poolings round up: the finer map's own size tells whether a last cell was cut.
            size = indices[i - 1].shape[-2:] if i else (2 * height, 2 * width)
            x = stage(max_unpool_indexed(x, indices[i], (size[0], size[1])))
        return self.classifier(x)
