"""VGG networks (Simonyan and Zisserman 2015), also with fc6 and fc7 as convolutions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec, get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...config import ConfigError
from ...ops.max_unpool import IndexedMaxPool2d
from ..feature_geometry import placed_shape
from ..norms import norm_of

# Convolutions of each of the five stages.
STAGES = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
FEATURES = ("pool1", "pool2", "pool3", "pool4", "conv5", "pool5", "fc7")
# The stage that makes each.
_STAGE_OF = dict(zip(FEATURES, (1, 2, 3, 4, 5, 5, 5), strict=True))


class VGGBackbone(Backbone):
    """VGG with features ``pool1`` to ``pool5`` (strides 2 to 32) and ``fc7`` (stride 32).

    ``conv5``, before the last pooling, has stride 16, or 8 with `dilate_conv5`.
    Layers carry torchvision's names (``features.N``). Poolings round up, as in Caffe: any size
    works, and no border pixel is lost.
    """

    def __init__(
        self,
        *,
        depth: int = 16,
        norm: str = "",
        in_channels: int = 3,
        width: int = 64,
        fc_channels: int = 4096,
        dropout: float = 0.5,
        input_pad: int = 1,
        pooling_indices: bool = False,
        dilate_conv5: bool = False,
        out_features: Sequence[str] = ("pool5",),
        freeze_at: int = 0,
    ) -> None:
        """Build the layers up to the deepest feature wanted.

        Args:
            depth: 11, 13, 16 or 19.
            norm: normalisation after each convolution (``BN``, ...) or "".
            in_channels: image channels.
            width: channels of the first stage; the others have 2, 4, 8 and 8 times as many.
            fc_channels: channels of fc6 (7x7, no padding) and fc7 (1x1).
            dropout: after fc6 and after fc7.
            input_pad: padding of the first convolution; 100 in FCN, so that fc6 covers the image.
            pooling_indices: also return ``pool{i}_indices``, (N, C, h, w) uint8: see
                :mod:`seg_plugins.ops.max_unpool`.
            dilate_conv5: pool4 takes the greatest of 3x3 cells with stride 1, and the convolutions
                after it have dilation 2, so that weights trained without it fit (DeepLab,
                InstanceFCN). Three cells rather than two: so the map stays where it is.
            out_features: names among ``pool1`` ... ``pool4``, ``conv5``, ``pool5``, ``fc7``.
            freeze_at: freeze the stages up to ``pool{freeze_at}``.
        """
        super().__init__()
        unknown = [name for name in out_features if name not in FEATURES]
        if depth not in STAGES or unknown or not out_features:
            raise ConfigError(
                f"MODEL.VGG: DEPTH is one of {', '.join(map(str, STAGES))} and OUT_FEATURES are "
                f"among {', '.join(FEATURES)}; got {depth} and {list(out_features)}"
            )
        self._out_features = [name for name in FEATURES if name in out_features]
        if dilate_conv5 and (pooling_indices or {"pool5", "fc7"} & set(out_features)):
            raise ConfigError(
                "MODEL.VGG.DILATE_CONV5 goes with OUT_FEATURES up to conv5 and without "
                f"POOLING_INDICES; got {list(out_features)} and {pooling_indices}"
            )
        self.pooling_indices = pooling_indices
        num_stages = _STAGE_OF[self._out_features[-1]]
        self.features = nn.Sequential()
        self._ends: list[int] = []  # number of layers up to and including each pooling
        channels, stride = in_channels, 1
        origin = 1.0 - input_pad
        self._shapes: dict[str, ShapeSpec] = {}
        for stage in range(num_stages):
            out_channels = width * min(2**stage, 8)
            for i in range(STAGES[depth][stage]):
                pad = input_pad if stage == i == 0 else 1
                dilation = 2 if dilate_conv5 and stage == 4 else 1
                self._append_conv(channels, out_channels, pad * dilation, norm, dilation)
                channels = out_channels
            if stage == 4:
                self._shapes["conv5"] = placed_shape(channels, stride, origin)
            dense = dilate_conv5 and stage == 3
            pool = nn.MaxPool2d(3, 1, padding=1) if dense else nn.MaxPool2d(2, 2, ceil_mode=True)
            self.features.append(IndexedMaxPool2d(2) if pooling_indices else pool)
            self._ends.append(len(self.features))
            origin += 0 if dense else stride / 2
            stride *= 1 if dense else 2
            self._shapes[f"pool{stage + 1}"] = placed_shape(channels, stride, origin)
        self.fc: nn.Sequential | None = None
        if "fc7" in self._out_features:
            self.fc = _fully_convolutional(channels, fc_channels, dropout)
            self._shapes["fc7"] = placed_shape(fc_channels, stride, origin + 3 * stride)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        self._freeze(min(freeze_at, num_stages))

    def _append_conv(
        self, in_channels: int, out_channels: int, pad: int, norm: str, dilation: int
    ) -> None:
        conv = nn.Conv2d(in_channels, out_channels, 3, padding=pad, dilation=dilation)
        self.features.append(conv)
        if norm:
            self.features.append(get_norm(norm_of(norm), out_channels))
        self.features.append(nn.ReLU(inplace=True))

    def _freeze(self, stages: int) -> None:
        layers = self._ends[stages - 1] if stages > 0 else 0
        for i in range(layers):
            self.features[i].requires_grad_(False)
            self.features[i] = FrozenBatchNorm2d.convert_frozen_batchnorm(self.features[i])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) normalised images to name -> features, and pooling indices if asked for."""
        outputs: dict[str, Tensor] = {}
        begin = 0
        for i, end in enumerate(self._ends, start=1):
            for layer in self.features[begin : end - 1]:
                x = layer(x)
            if i == len(STAGES[16]) and "conv5" in self._out_features:
                outputs["conv5"] = x
            x = self.features[end - 1](x)
            if self.pooling_indices:
                x, outputs[f"pool{i}_indices"] = x
            if f"pool{i}" in self._out_features:
                outputs[f"pool{i}"] = x
            begin = end
        if self.fc is not None:
            outputs["fc7"] = self.fc(x)
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels, stride and origin of each feature; indices have those of what was pooled."""
        shapes = {name: self._shapes[name] for name in self._out_features}
        if self.pooling_indices:
            pooled = [f"pool{i + 1}" for i in range(len(self._ends))]
            shapes |= {f"{name}_indices": self._shapes[name] for name in pooled}
        return shapes


def _fully_convolutional(in_channels: int, channels: int, dropout: float) -> nn.Sequential:
    """Fc6 and fc7 as convolutions (FCN, section 3.1)."""
    return nn.Sequential(
        OrderedDict(
            fc6=nn.Conv2d(in_channels, channels, 7),
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(dropout),
            fc7=nn.Conv2d(channels, channels, 1),
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(dropout),
        )
    )


def build_vgg_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> VGGBackbone:
    """Build ``MODEL.VGG`` for images with ``input_shape.channels`` channels."""
    vgg = cfg.MODEL.VGG
    return VGGBackbone(
        depth=vgg.DEPTH,
        norm=vgg.NORM,
        in_channels=input_shape.channels,
        width=vgg.WIDTH,
        fc_channels=vgg.FC_CHANNELS,
        dropout=vgg.DROPOUT,
        input_pad=vgg.INPUT_PAD,
        pooling_indices=vgg.POOLING_INDICES,
        dilate_conv5=vgg.DILATE_CONV5,
        out_features=vgg.OUT_FEATURES,
        freeze_at=cfg.MODEL.BACKBONE.FREEZE_AT,
    )
