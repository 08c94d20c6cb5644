"""The encoder of SegNet-Basic (Badrinarayanan et al. 2017, section 3.1)."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec, get_norm
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ...ops.max_unpool import IndexedMaxPool2d
from ..norms import norm_of


class SegNetBasicBackbone(Backbone):
    """Four stages of one 7x7 convolution, batch norm, ReLU and 2x2 max pooling with indices.

    Gives ``pool4`` (stride 16) and the pooling indices of all stages; as in the release, the image
    goes through a local response normalisation first.
    """

    def __init__(
        self, *, in_channels: int = 3, width: int = 64, norm: str = "BN", num_stages: int = 4
    ) -> None:
        """Build the stages.

        Args:
            in_channels: image channels.
            width: channels of every stage.
            norm: normalisation after each convolution.
            num_stages: poolings.
        """
        super().__init__()
        self.input_norm = nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75)
        self.convs, self.pool = nn.ModuleList(), IndexedMaxPool2d(2)
        self._shapes: dict[str, ShapeSpec] = {}
        for stage in range(num_stages):
            conv = nn.Conv2d(width if stage else in_channels, width, 7, padding=3)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            nn.init.zeros_(conv.bias)
            self.convs.append(
                nn.Sequential(conv, get_norm(norm_of(norm), width), nn.ReLU(inplace=True))
            )
            shape = ShapeSpec(channels=width, stride=2 ** (stage + 1))
            self._shapes[f"pool{stage + 1}_indices"] = shape
        self._shapes[f"pool{num_stages}"] = shape
        self._out_features = list(self._shapes)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """(N, C, H, W) images to the last pooled map and the indices of all stages."""
        outputs: dict[str, Tensor] = {}
        x = self.input_norm(x)
        for i, conv in enumerate(self.convs, start=1):
            x, outputs[f"pool{i}_indices"] = self.pool(conv(x))
        outputs[f"pool{len(self.convs)}"] = x
        return outputs

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and stride of each feature; indices have the shape of what was pooled."""
        return dict(self._shapes)


def build_segnet_basic_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> SegNetBasicBackbone:
    """Build the encoder for images with ``input_shape.channels`` channels."""
    return SegNetBasicBackbone(
        in_channels=input_shape.channels,
        width=cfg.MODEL.SEGNET.BASIC_WIDTH,
        norm=cfg.MODEL.SEM_SEG_HEAD.NORM,
        num_stages=len(cfg.MODEL.SEGNET.CONVS),
    )
