"""InstanceFCN (Dai et al. 2016): a window's mask is put together from maps of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.sampling import subsample_labels
from detectron2.structures import Instances
from torch import Tensor, nn
from torchvision.ops import nms

from ...config import ConfigError
from ...ops.suppression import falling
from ..loss_terms import Losses, Sum
from ..sem_seg_heads.base import full_precision
from .base import Features, InstanceRepresentation, Size, Truth, features_of
from .layers import prediction, tower
from .mask_forms import WindowMasks
from .windows import BACKGROUND, Windows, assemble, match_windows, parts_of, window_targets


class InstanceFCNOutputs(NamedTuple):
    """What InstanceFCN's network says; P are the cells of all levels.

    Attributes:
        scores: (N, P, C) logits: is the window around this cell an object (of this class)?
        maps: (N, k * k, P) logits: is this cell the object's, if it is this part of a window?
        grids: rows and columns of each level.
    """

    scores: Tensor
    maps: Tensor
    grids: list[Size]


class Candidates(NamedTuple):
    """Windows of an image before suppression: ``scores`` (N,), ``classes`` (N,), ``masks``."""

    scores: Tensor
    classes: Tensor
    masks: WindowMasks


class InstanceFCN(InstanceRepresentation):
    """Windows slide over instance-sensitive score maps.

    Of k * k maps each answers for one part of an object: upper left, above, and so on. The mask of
    a window takes each of its parts from that part's map. Beside them a branch says whether the
    window around a cell has an object: the paper's, for any class, or one of K classes.

    A window sees objects of about one size. The paper resizes the image, in training to a random
    scale and at inference to several; levels of a pyramid that share the branches do the same in
    one pass.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        in_features: Sequence[str],
        strides: Sequence[int],
        channels: int = 512,
        norm: str = "",
        window: int = 21,
        parts: int = 5,
        class_agnostic: bool = False,
        positive_offset: float = 16 / 224,
        positive_sizes: tuple[float, float] = (0.4805, 0.6796),
        negative_offset: float = 32 / 224,
        negative_sizes: tuple[float, float] = (0.2857, 1.1429),
        windows_per_image: int = 256,
        positive_fraction: float = 0.5,
        score_weight: float = 1.0,
        mask_weight: float = 1.0,
        test_scales: Sequence[float] = (1.0,),
        score_threshold: float = 0.05,
        pre_nms: int = 1000,
        nms_threshold: float = 0.8,
        mask_threshold: float = 0.5,
        max_instances: int = 100,
    ) -> None:
        """Build both branches.

        Args:
            in_channels: of the features.
            num_classes: K.
            in_features: the levels.
            strides: of each.
            channels: of the hidden convolution of each branch.
            norm: of those.
            window: cells along its side, m.
            parts: along its side, k.
            class_agnostic: one score for objects of any class; they are found as class 0.
            positive_offset: see :func:`~.windows.match_windows`.
            positive_sizes: the same.
            negative_offset: the same.
            negative_sizes: the same.
            windows_per_image: that have a loss.
            positive_fraction: of those at most; where there are fewer with an object, more without
                take their places.
            score_weight: factor of the scores' loss.
            mask_weight: of the masks' loss.
            test_scales: of the image at inference.
            score_threshold: least score before masks are looked at.
            pre_nms: windows at most that suppression compares.
            nms_threshold: IoU of the masks' boxes above which the worse one goes.
            mask_threshold: of a pixel's probability.
            max_instances: of an image.

        Raises:
            ConfigError: more parts than cells, or sizes of windows with an object that are taken
                for windows without.
        """
        super().__init__()
        if not 1 <= parts <= window:
            raise ConfigError(
                f"MODEL.INSTANCE_FCN.PARTS {parts} must be from 1 to WINDOW, {window} cells"
            )
        (low, high), (least, greatest) = positive_sizes, negative_sizes
        if not least <= low <= high <= greatest or positive_offset > negative_offset:
            raise ConfigError(
                f"MODEL.INSTANCE_FCN: POSITIVE_SIZES {list(positive_sizes)} must lie in "
                f"NEGATIVE_SIZES {list(negative_sizes)}, and POSITIVE_OFFSET {positive_offset:g} "
                f"below NEGATIVE_OFFSET {negative_offset:g}: windows between them are left out"
            )
        self.num_classes, self.in_features = num_classes, list(in_features)
        self.strides, self.window, self.class_agnostic = list(strides), window, class_agnostic
        self.rules: dict[str, Any] = {
            "positive_offset": positive_offset,
            "positive_sizes": positive_sizes,
            "negative_offset": negative_offset,
            "negative_sizes": negative_sizes,
        }
        self.windows_per_image, self.positive_fraction = windows_per_image, positive_fraction
        self.score_weight, self.mask_weight = score_weight, mask_weight
        self.test_scales = list(test_scales)
        self.score_threshold, self.pre_nms = score_threshold, pre_nms
        self.nms_threshold, self.mask_threshold = nms_threshold, mask_threshold
        self.max_instances = max_instances

        self.map_tower = tower(in_channels, channels, 1, norm, kernel=1)
        self.maps = prediction(channels, parts**2)
        self.score_tower = tower(in_channels, channels, 1, norm)
        self.scores = prediction(channels, 1 if class_agnostic else num_classes, kernel=1)
        for branch in (self.map_tower, self.score_tower):
            # Without a norm the small weights of towers would let little through.
            nn.init.kaiming_normal_(branch[0].weight, nonlinearity="relu")
        self.register_buffer("parts", parts_of(window, parts), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Arguments from ``MODEL.INSTANCE_FCN``."""
        node = cfg.MODEL.INSTANCE_FCN
        shapes = features_of(input_shape, node.IN_FEATURES, "MODEL.INSTANCE_FCN.IN_FEATURES")
        return {
            "in_channels": shapes[0].channels,
            "num_classes": cfg.MODEL.ROI_HEADS.NUM_CLASSES,
            "in_features": node.IN_FEATURES,
            "strides": [shape.stride for shape in shapes],
            "channels": node.CHANNELS,
            "norm": node.NORM,
            "window": node.WINDOW,
            "parts": node.PARTS,
            "class_agnostic": node.CLASS_AGNOSTIC,
            "positive_offset": node.POSITIVE_OFFSET,
            "positive_sizes": tuple(node.POSITIVE_SIZES),
            "negative_offset": node.NEGATIVE_OFFSET,
            "negative_sizes": tuple(node.NEGATIVE_SIZES),
            "windows_per_image": node.WINDOWS_PER_IMAGE,
            "positive_fraction": node.POSITIVE_FRACTION,
            "score_weight": node.LOSS.SCORE_WEIGHT,
            "mask_weight": node.LOSS.MASK_WEIGHT,
            "test_scales": node.TEST_SCALES,
            "score_threshold": node.SCORE_THR,
            "pre_nms": node.NMS_PRE,
            "nms_threshold": node.NMS_THR,
            "mask_threshold": node.MASK_THR,
            "max_instances": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    def layers(self, features: Features) -> InstanceFCNOutputs:
        """See :class:`InstanceFCNOutputs`."""
        levels = [features[name] for name in self.in_features]
        maps = [self.maps(self.map_tower(level)).flatten(2) for level in levels]
        scores = [self.scores(self.score_tower(level)).flatten(2) for level in levels]
        grids = [(level.shape[-2], level.shape[-1]) for level in levels]
        joined = torch.cat(maps, 2)
        return InstanceFCNOutputs(torch.cat(scores, 2).transpose(1, 2), joined, grids)

    def losses(self, outputs: InstanceFCNOutputs, truths: Sequence[Truth], size: Size) -> Losses:
        """``loss_score``, a mean over sampled windows; ``loss_mask``, over those with an object.

        The loss of a mask is a mean over the cells of its window that the image touches.
        """
        windows = Windows.of(self.window, outputs.grids, self.strides, outputs.maps.device)
        score, mask = outputs.scores.float().sum() * 0.0, outputs.maps.float().sum() * 0.0
        sampled = shown = 0
        for i, truth in enumerate(truths):
            owners = match_windows(windows, truth.boxes, **self.rules)
            # Detectron2's labels: -1 is left out; any number below it could be the background's.
            labels = torch.where(owners == BACKGROUND, BACKGROUND - 2, owners.clamp(min=-1))
            positive, negative = subsample_labels(
                labels, self.windows_per_image, self.positive_fraction, BACKGROUND - 2
            )
            chosen = torch.cat([positive, negative])
            wanted = self._wanted_scores(owners[positive], len(negative), truth)
            with full_precision(outputs.scores):
                score = score + F.binary_cross_entropy_with_logits(
                    outputs.scores[i, chosen].float(), wanted, reduction="sum"
                )
                if len(positive):
                    mask = mask + self._mask_loss(outputs.maps[i], windows, positive, owners, truth)
            sampled, shown = sampled + len(chosen), shown + len(positive)
        return Losses(
            {
                "loss_score": Sum(score * self.score_weight, torch.tensor(sampled)),
                "loss_mask": Sum(mask * self.mask_weight, torch.tensor(shown)),
            }
        )

    def _wanted_scores(self, owners: Tensor, negatives: int, truth: Truth) -> Tensor:
        """(windows, C) of the sampled windows, those with an object first."""
        classes = torch.zeros_like(owners) if self.class_agnostic else truth.classes[owners]
        count = 1 if self.class_agnostic else self.num_classes
        wanted = F.one_hot(classes, count).float()
        return torch.cat([wanted, wanted.new_zeros(negatives, count)])

    def _mask_loss(
        self, maps: Tensor, windows: Windows, chosen: Tensor, owners: Tensor, truth: Truth
    ) -> Tensor:
        """The sum over the chosen windows, level by level, as each has its own truth."""
        total = maps.new_zeros((), dtype=torch.float32)
        for stride in sorted(set(self.strides)):
            members = chosen[windows.stride[chosen] == stride]
            if len(members):
                logits = assemble(maps, windows[members], self.parts).float()
                target, seen = window_targets(windows[members], owners[members], truth, stride)
                plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
                total = total + ((plain * seen).sum((1, 2)) / seen.sum((1, 2)).clamp(min=1)).sum()
        return total

    def find(
        self, outputs: InstanceFCNOutputs, size: Size, image_sizes: Sequence[Size]
    ) -> list[Instances]:
        """See :class:`~.base.InstanceRepresentation`."""
        return [
            self.suppress([self.candidates(outputs, i)], image)
            for i, image in enumerate(image_sizes)
        ]

    def candidates(
        self, outputs: InstanceFCNOutputs, index: int, zoom: tuple[float, float] = (1.0, 1.0)
    ) -> Candidates:
        """The best windows of one image of a batch, with their masks.

        Args:
            outputs: of :meth:`layers`.
            index: of the image.
            zoom: rows and columns of the network's image by those of the image that masks are for.
        """
        windows = Windows.of(self.window, outputs.grids, self.strides, outputs.maps.device)
        scores = outputs.scores[index].float().sigmoid()
        hits = (scores > self.score_threshold).nonzero()
        places, classes = hits[:, 0], hits[:, 1]
        scores = scores[places, classes]
        order = falling(scores)[: self.pre_nms]
        chosen = windows[places[order]]
        masks = assemble(outputs.maps[index], chosen, self.parts).float().sigmoid()
        strides = chosen.stride[:, None] / torch.tensor(zoom, device=masks.device)
        form = WindowMasks(masks, chosen.corners, strides, self.mask_threshold)
        return Candidates(scores[order], classes[order], form)

    def suppress(self, parts: Sequence[Candidates], image_size: Size) -> Instances:
        """What stays of an image's windows, of all its scales, by greedy NMS on masks' boxes."""
        scores, classes = (torch.cat([part[i] for part in parts]) for i in (0, 1))
        form = WindowMasks(
            torch.cat([part.masks.windows for part in parts]),
            torch.cat([part.masks.corners for part in parts]),
            torch.cat([part.masks.strides for part in parts]),
            self.mask_threshold,
        )
        height, width = image_size
        x, y = form.boxes[:, 0::2].clamp(0, width), form.boxes[:, 1::2].clamp(0, height)
        seen = ((x[:, 1] > x[:, 0]) & (y[:, 1] > y[:, 0])).nonzero()[:, 0]
        # Classes do not touch each other: each has a place of its own, as large as the image.
        x = x + (classes * width)[:, None]
        boxes = torch.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], dim=1)
        kept = nms(boxes[seen], scores[seen], self.nms_threshold)
        best = seen[kept[: self.max_instances]]
        found = Instances(image_size)
        found.scores, found.pred_classes, found.pred_masks = scores[best], classes[best], form[best]
        return found
