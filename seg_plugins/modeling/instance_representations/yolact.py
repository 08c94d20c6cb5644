"""YOLACT (Bolya et al. 2019): an anchor predicts how prototypes add up to its mask."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec, get_norm
from detectron2.structures import Instances
from torch import Tensor, nn

from ...config import ConfigError
from ...ops.suppression import falling, fast_nms_of_classes
from ..loss_terms import Losses, Sum
from ..norms import norm_of
from ..sem_seg_heads.base import full_precision
from .anchors import anchor_sides, decode_boxes, encode_boxes, match_anchors, place_anchors
from .base import Features, InstanceRepresentation, Size, Truth, features_of, finer_stride
from .mask_forms import DenseMasks
from .yolact_losses import (
    anchor_classes,
    cropped_mask_losses,
    inside_boxes,
    mined_cross_entropy,
    semantic_loss,
)


class YOLACTOutputs(NamedTuple):
    """What YOLACT's network says; P are the anchors of all levels.

    Attributes:
        classes: (N, P, 1 + K) logits, the background first.
        boxes: (N, P, 4) codes: see :func:`~.anchors.encode_boxes`.
        codes: (N, P, k) factors of the prototypes, from -1 to 1.
        prototypes: (N, k, h, w), at least 0.
        semantic: (N, K, h', w') logits in training.
        grids: rows and columns of each level.
    """

    classes: Tensor
    boxes: Tensor
    codes: Tensor
    prototypes: Tensor
    semantic: Tensor | None
    grids: list[Size]


class _Head(nn.Module):
    """One convolution that all predictions share, then one for each; for every level the same."""

    def __init__(
        self, in_channels: int, channels: int, anchors: int, outputs: Sequence[int], norm: str
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.upfeature = nn.Sequential(*_conv(in_channels, channels, norm))
        self.conf_layer, self.bbox_layer, self.mask_layer = (
            nn.Conv2d(channels, anchors * count, 3, padding=1) for count in outputs
        )

    def forward(self, level: Tensor) -> list[Tensor]:
        """Classes, boxes and codes, (N, anchors of the level, ...) each."""
        shared = self.upfeature(level)
        layers = (self.conf_layer, self.bbox_layer, self.mask_layer)
        return [
            layer(shared).permute(0, 2, 3, 1).reshape(level.shape[0], -1, count)
            for layer, count in zip(layers, self.outputs, strict=True)
        ]


class YOLACT(InstanceRepresentation):
    """Prototypes that the whole image shares, and for each anchor the factors of their sum.

    The parameters have the reference implementation's names below ``prediction_layers.0``,
    ``proto_net`` and ``semantic_seg_conv``.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        in_features: Sequence[str],
        proto_feature: str = "p3",
        proto_stride: int = 8,
        anchor_sizes: Sequence[Sequence[float]] = ((24,), (48,), (96,), (192,), (384,)),
        aspect_ratios: Sequence[float] = (1.0, 0.5, 2.0),
        square_anchors: bool = True,
        anchor_image_size: int = 0,
        channels: int = 256,
        prototypes: int = 32,
        proto_channels: int = 256,
        num_proto_convs: int = 3,
        proto_upsampling: int = 2,
        norm: str = "",
        positive_iou: float = 0.5,
        negative_iou: float = 0.4,
        negative_ratio: int = 3,
        masks_to_train: int = 100,
        weights: dict[str, float] | None = None,
        score_threshold: float = 0.05,
        class_score_threshold: float = 0.0,
        nms_top_k: int = 200,
        nms_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        max_instances: int = 100,
    ) -> None:
        """Build the head, the prototypes' network and the semantic branch.

        Args:
            in_channels: of the features.
            num_classes: K.
            in_features: the levels with anchors.
            proto_feature: what prototypes and semantic branch are made from.
            proto_stride: of that.
            anchor_sizes: of each level, in pixels.
            aspect_ratios: width by height.
            square_anchors: see :func:`~.anchors.anchor_sides`.
            anchor_image_size: longer side of the padded image that the sizes are meant for; 0:
                they are the same for every image.
            channels: of the convolution that all predictions share.
            prototypes: k.
            proto_channels: of the convolutions before them.
            num_proto_convs: before the upsampling; one more comes behind it.
            proto_upsampling: prototypes are so many times finer than their feature.
            norm: of the convolutions that are no predictions.
            positive_iou: see :func:`~.anchors.match_anchors`.
            negative_iou: the same.
            negative_ratio: see :func:`~.yolact_losses.mined_cross_entropy`.
            masks_to_train: of an image at most; the loss of those stands for all.
            weights: of the losses ``class``, ``box``, ``mask`` and ``semantic``.
            score_threshold: an anchor is looked at if the score of one class is above it.
            class_score_threshold: its other classes count if theirs is above this.
            nms_top_k: the best of each class that suppression compares.
            nms_threshold: IoU of two boxes of a class above which the worse one goes.
            mask_threshold: of a pixel's probability.
            max_instances: of an image.

        Raises:
            ConfigError: sizes for another number of levels, or prototypes finer than pixels.
        """
        super().__init__()
        if len(anchor_sizes) != len(in_features) or len({len(s) for s in anchor_sizes}) > 1:
            raise ConfigError(
                f"MODEL.YOLACT.ANCHOR_SIZES {list(anchor_sizes)} needs a list of sizes for each of "
                f"IN_FEATURES {list(in_features)}, all of the same length: they share one head"
            )
        self.num_classes, self.in_features = num_classes, list(in_features)
        self.proto_feature, self.prototypes = proto_feature, prototypes
        self.proto_stride = proto_stride
        key = "MODEL.YOLACT.PROTO_UPSAMPLING"
        self.mask_stride = finer_stride(proto_stride, proto_upsampling, key)
        self.anchor_image_size = anchor_image_size
        self.sides = [
            anchor_sides(sizes, aspect_ratios, square=square_anchors) for sizes in anchor_sizes
        ]
        self.positive_iou, self.negative_iou = positive_iou, negative_iou
        self.negative_ratio, self.masks_to_train = negative_ratio, masks_to_train
        self.weights = {"class": 1.0, "box": 1.5, "mask": 6.125, "semantic": 1.0, **(weights or {})}
        self.score_threshold, self.nms_threshold = score_threshold, nms_threshold
        self.class_score_threshold, self.nms_top_k = class_score_threshold, nms_top_k
        self.mask_threshold, self.max_instances = mask_threshold, max_instances

        counts = (1 + num_classes, 4, prototypes)
        head = _Head(in_channels, channels, len(self.sides[0]), counts, norm)
        self.prediction_layers = nn.ModuleList([head])
        steps: list[nn.Module] = []
        for i in range(num_proto_convs):
            steps += _conv(proto_channels if i else in_channels, proto_channels, norm)
        given = proto_channels if num_proto_convs else in_channels
        if proto_upsampling > 1:
            up = nn.Upsample(scale_factor=proto_upsampling, mode="bilinear", align_corners=False)
            # The reference has a ReLU there, which changes nothing: so the numbers agree.
            steps += [up, nn.Identity()]
        steps += [*_conv(given, proto_channels, norm), nn.Conv2d(proto_channels, prototypes, 1)]
        self.proto_net = nn.Sequential(*steps)
        self.semantic_seg_conv = nn.Conv2d(in_channels, num_classes, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.YOLACT``."""
        node = cfg.MODEL.YOLACT
        names = [*node.IN_FEATURES, node.PROTO_FEATURE]
        shapes = features_of(input_shape, names, "MODEL.YOLACT.IN_FEATURES and PROTO_FEATURE")
        return {
            "in_channels": shapes[0].channels,
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "in_features": node.IN_FEATURES,
            "proto_feature": node.PROTO_FEATURE,
            "proto_stride": input_shape[node.PROTO_FEATURE].stride,
            "anchor_sizes": node.ANCHOR_SIZES,
            "aspect_ratios": node.ASPECT_RATIOS,
            "square_anchors": node.SQUARE_ANCHORS,
            "anchor_image_size": node.ANCHOR_IMAGE_SIZE,
            "channels": node.HEAD_CHANNELS,
            "prototypes": node.PROTOTYPES,
            "proto_channels": node.PROTO_CHANNELS,
            "num_proto_convs": node.NUM_PROTO_CONVS,
            "proto_upsampling": node.PROTO_UPSAMPLING,
            "norm": node.NORM,
            "positive_iou": node.POSITIVE_IOU,
            "negative_iou": node.NEGATIVE_IOU,
            "negative_ratio": node.NEGATIVE_RATIO,
            "masks_to_train": node.MASKS_TO_TRAIN,
            "weights": {
                "class": node.LOSS.CLASS_WEIGHT,
                "box": node.LOSS.BOX_WEIGHT,
                "mask": node.LOSS.MASK_WEIGHT,
                "semantic": node.LOSS.SEMANTIC_WEIGHT,
            },
            "score_threshold": node.SCORE_THR,
            "class_score_threshold": node.CLASS_SCORE_THR,
            "nms_top_k": node.NMS_TOP_K,
            "nms_threshold": node.NMS_THR,
            "mask_threshold": node.MASK_THR,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def layers(self, features: Features) -> YOLACTOutputs:
        """See :class:`YOLACTOutputs`."""
        levels = [features[name] for name in self.in_features]
        classes, boxes, codes = (
            torch.cat(parts, dim=1)
            for parts in zip(*(self.prediction_layers[0](level) for level in levels), strict=True)
        )
        source, semantic = features[self.proto_feature], None
        if self.training:
            semantic = self.semantic_seg_conv(source)
        prototypes = self.proto_net(source).relu()
        grids = [(level.shape[-2], level.shape[-1]) for level in levels]
        return YOLACTOutputs(classes, boxes, codes.tanh(), prototypes, semantic, grids)

    def anchors(self, grids: Sequence[Size], size: Size, device: torch.device) -> Tensor:
        """(P, 4) centres and sides: see :func:`~.anchors.place_anchors`."""
        anchors = place_anchors(self.sides, grids, size, device)
        if self.anchor_image_size:
            # The longer side, in operations that tracing follows.
            longer = (size[0] + size[1] + abs(size[0] - size[1])) / 2
            anchors = torch.cat(
                [anchors[:, :2], anchors[:, 2:] * (longer / self.anchor_image_size)], dim=1
            )
        return anchors

    def losses(self, outputs: YOLACTOutputs, truths: Sequence[Truth], size: Size) -> Losses:
        """``loss_class``, ``loss_box``, ``loss_mask`` and, a mean over images, ``loss_semantic``.

        The first three are divided by the anchors with an object.
        """
        anchors = self.anchors(outputs.grids, size, outputs.classes.device)
        iou = {"foreground": self.positive_iou, "background": self.negative_iou}
        owners = [match_anchors(anchors, truth.boxes, **iou) for truth in truths]
        targets = torch.stack(
            [anchor_classes(own, truth.classes) for own, truth in zip(owners, truths, strict=True)]
        )
        box = outputs.boxes.float().sum() * 0.0
        mask = (outputs.codes.float().sum() + outputs.prototypes.float().sum()) * 0.0
        for i, (own, truth) in enumerate(zip(owners, truths, strict=True)):
            places = (own >= 0).nonzero()[:, 0]
            if len(places):
                wanted = encode_boxes(truth.boxes[own[places]], anchors[places])
                box = box + F.smooth_l1_loss(
                    outputs.boxes[i, places].float(), wanted, reduction="sum"
                )
                mask = mask + self._mask_loss(outputs, i, places, own, truth, size)
        count = (targets > 0).sum()
        sums = {
            "class": Sum(mined_cross_entropy(outputs.classes, targets, self.negative_ratio), count),
            "box": Sum(box, count),
            "mask": Sum(mask, count),
            "semantic": self._semantic_loss(outputs.semantic, truths, size),
        }
        return Losses(
            {
                f"loss_{name}": Sum(total * self.weights[name], count)
                for name, (total, count) in sums.items()
            }
        )

    def _mask_loss(
        self,
        outputs: YOLACTOutputs,
        index: int,
        places: Tensor,
        owners: Tensor,
        truth: Truth,
        size: Size,
    ) -> Tensor:
        """The sum over the anchors at some places of an image, from at most `masks_to_train`."""
        all_of_them = len(places)
        if all_of_them > self.masks_to_train:
            chosen = torch.randperm(all_of_them, device=places.device)[: self.masks_to_train]
            places = places[chosen]
        logits = _assemble(outputs.codes[index, places], outputs.prototypes[index])
        target = truth.masks_at(self.mask_stride, size)[owners[places]]
        cells = truth.boxes[owners[places]] / self.mask_stride
        losses = cropped_mask_losses(logits, target, cells)
        return losses.sum() * (all_of_them / len(places))

    def _semantic_loss(self, logits: Tensor | None, truths: Sequence[Truth], size: Size) -> Sum:
        assert logits is not None, "the semantic branch has logits in training alone"
        total, stride = logits.float().sum() * 0.0, self.proto_stride
        for image, truth in zip(logits, truths, strict=True):
            height, width = (-(-side // stride) for side in truth.image_size)
            masks = truth.masks_at(stride, size)
            total = total + semantic_loss(image, masks, truth.classes, (height, width))
        return Sum(total, torch.tensor(len(truths)))

    def find(
        self, outputs: YOLACTOutputs, size: Size, image_sizes: Sequence[Size]
    ) -> list[Instances]:
        """See :class:`~.base.InstanceRepresentation`."""
        anchors = self.anchors(outputs.grids, size, outputs.classes.device)
        return [self._find(outputs, i, anchors, size, image) for i, image in enumerate(image_sizes)]

    def _find(
        self, outputs: YOLACTOutputs, index: int, anchors: Tensor, size: Size, image_size: Size
    ) -> Instances:
        with full_precision(outputs.classes):
            scores = outputs.classes[index].float().softmax(dim=1)[:, 1:]
        places = (scores.amax(dim=1) > self.score_threshold).nonzero()[:, 0]
        boxes = decode_boxes(outputs.boxes[index, places].float(), anchors[places])
        # (K, T): of each class the best anchors.
        scores = scores[places].transpose(0, 1)
        order = falling(scores)[:, : self.nms_top_k]
        scores = scores.gather(1, order)
        kept = fast_nms_of_classes(boxes[order], self.nms_threshold)
        hits = (kept & (scores > self.class_score_threshold)).nonzero()
        classes, ranks = hits[:, 0], hits[:, 1]
        scores, members = scores[classes, ranks], order[classes, ranks]
        best = falling(scores)[: self.max_instances]
        members = members[best]
        prototypes = outputs.prototypes[index]
        maps = _assemble(outputs.codes[index, places[members]], prototypes).sigmoid()
        # Cropped before it is enlarged, as in the paper; a wrong box cuts its mask.
        cells = boxes[members] / self.mask_stride
        inside = inside_boxes(cells, (maps.shape[-2], maps.shape[-1]))
        found = Instances(image_size)
        found.scores, found.pred_classes = scores[best], classes[best]
        found.pred_masks = DenseMasks(maps * inside, self.mask_stride, self.mask_threshold)
        return found


def _conv(in_channels: int, channels: int, norm: str) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, channels, 3, padding=1, bias=not norm)
    return [conv, *([get_norm(norm_of(norm), channels)] if norm else []), nn.ReLU()]


def _assemble(codes: Tensor, prototypes: Tensor) -> Tensor:
    """(M, k) factors of (k, h, w) prototypes: (M, h, w) logits in float32."""
    with full_precision(prototypes):
        sums = codes.float() @ prototypes.float().flatten(1)
    return sums.reshape(-1, *prototypes.shape[1:])
