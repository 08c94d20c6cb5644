"""The semantic segmentor, and the systems named after papers as thin subclasses of it."""

from __future__ import annotations

from typing import Any, ClassVar

from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone, SemanticSegmentor, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ...config import ConfigError
from ..feature_geometry import mirror_pad
from ..inference import Strategy, WholeImage, build_inference
from ..loss_terms import Losses
from ..postprocessing import sem_seg_postprocess
from ..sem_seg_heads.base import build_semantic_head, cut_to_image, semantic_losses
from ..test_time.probabilities import predict_classes
from ..test_time.views import Views
from .mask_rcnn import keep_scores_in_float32
from .semantic_labels import batch_labels, label_range


class SemanticSystem(SemanticSegmentor):
    """Any backbone, any semantic head and an inference strategy; Detectron2's inputs and outputs.

    Images of a batch are normalised, padded at the right and bottom to a common size that the
    backbone's ``size_divisibility`` divides, and padded pixels carry the ignore label.
    """

    tasks: ClassVar[tuple[str, ...]] = ("sem_seg",)
    # The heads a system accepts; empty: every head.
    heads: ClassVar[tuple[str, ...]] = ()

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        sem_seg_head: nn.Module,
        pixel_mean: list[float],
        pixel_std: list[float],
        num_classes: int | None = None,
        ignore_value: int | None = None,
        inference: Strategy | None = None,
        mirror_border: bool = True,
    ) -> None:
        """Join the parts.

        Args:
            backbone: gives the features that the head needs.
            sem_seg_head: a :class:`~seg_plugins.modeling.sem_seg_heads.base.SemSegHead`, or any
                other of Detectron2's contract: see
                :func:`~seg_plugins.modeling.sem_seg_heads.base.semantic_losses`.
            pixel_mean: mean of each image channel, in the image's raw range.
            pixel_std: divisor of each image channel.
            num_classes: of the labels; default: the head's ``num_classes``.
            ignore_value: the label that is left out; default: the head's, else 255.
            inference: how an image is covered at inference; default: at once.
            mirror_border: for heads that lose a border (U-Net without padding): mirror images in
                training, so that every label counts; False trains on the part that the scores
                cover. Inference always mirrors.
        """
        super().__init__(
            backbone=backbone,
            sem_seg_head=sem_seg_head,
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
        )
        keep_scores_in_float32(sem_seg_head)
        self.num_classes, self.ignore_value = label_range(sem_seg_head, num_classes, ignore_value)
        self.cover = inference or WholeImage()
        self.mirror_border = mirror_border
        self.border: int = getattr(sem_seg_head, "border", 0)
        self.alignment = max(shape.stride for shape in backbone.output_shape().values())

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL``.

        Raises:
            ConfigError: the head does not belong to this system.
        """
        head = cfg.MODEL.SEM_SEG_HEAD.NAME
        if cls.heads and head not in cls.heads:
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE {cls.__name__} goes with MODEL.SEM_SEG_HEAD.NAME "
                f"{' or '.join(cls.heads)}, not {head}. Set it, or choose the meta-architecture "
                "that is named after the head."
            )
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "sem_seg_head": build_semantic_head(cfg, backbone.output_shape()),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "inference": build_inference(cfg),
            "mirror_border": cfg.MODEL.SEM_SEG_HEAD.MIRROR_BORDER,
        }

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, predictions in inference.

        Args:
            batched_inputs: one dict per image: ``image`` (C, H, W) in raw range; in training
                ``sem_seg`` (H, W) labels and optionally ``sem_seg_weights`` (H, W) float32
                factors; ``height`` and ``width`` of the wanted output (default: the image's).

        Returns:
            Training: name -> scalar loss. Inference: one dict per image with ``sem_seg``
            (K, height, width) float32 logits.

        Raises:
            ValueError: a label outside the classes, with the file's name.
        """
        images = [s["image"].to(self.device, non_blocking=True) for s in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        if self.training:
            return self._losses(images, batched_inputs)
        results: list[dict[str, Tensor]] = []
        for image, logits in zip(images, self._cover(images), strict=True):
            sample = batched_inputs[len(results)]
            size = (image.shape[-2], image.shape[-1])
            height, width = sample.get("height", size[0]), sample.get("width", size[1])
            results.append({"sem_seg": sem_seg_postprocess(logits, size, height, width)})
        return results

    def predict_views(self, views: Views) -> dict[str, Any]:
        """``sem_seg`` of an image by its views: the logarithm of the mean probability."""
        return predict_classes(self, views)

    def _losses(self, images: list[Tensor], samples: list[dict[str, Any]]) -> Losses:
        crop = self.border if not self.mirror_border else 0
        # A network without padding takes particular sizes only: leave them as they come.
        batch = ImageList.from_tensors(images, 0 if crop else self.backbone.size_divisibility)
        size = (batch.tensor.shape[-2], batch.tensor.shape[-1])
        targets, weights = self.batch_labels(samples, size)
        if crop:
            inner = (..., slice(crop, size[0] - crop), slice(crop, size[1] - crop))
            targets, weights = targets[inner], weights[inner] if weights is not None else None
        return self.training_losses(batch.tensor, targets, weights)

    def batch_labels(
        self, samples: list[dict[str, Any]], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """See :func:`.semantic_labels.batch_labels`."""
        return batch_labels(
            samples,
            size,
            num_classes=self.num_classes,
            ignore_value=self.ignore_value,
            device=self.device,
        )

    def training_losses(self, images: Tensor, targets: Tensor, weights: Tensor | None) -> Losses:
        """Losses of a batch.

        Args:
            images: (N, C, H, W), normalised and padded.
            targets: (N, H, W) labels; of the inner part where the border is not mirrored.
            weights: factors of the same size, or None.
        """
        inputs = self.extended(images) if self.mirror_border else images
        return semantic_losses(self.sem_seg_head, self.backbone(inputs), targets, weights)

    def _cover(self, images: list[Tensor]) -> list[Tensor]:
        """Logits (K, H', W') of each image, which they cover."""
        divisor = self.backbone.size_divisibility
        if self.cover.batched:
            return list(self.cover(self, ImageList.from_tensors(images, divisor).tensor))
        return [self.cover(self, image[None])[0] for image in images]

    def logits(self, images: Tensor) -> Tensor:
        """(N, C, H, W) normalised images to (N, K, H, W) logits."""
        height, width = images.shape[-2:]
        padded = ImageList.from_tensors(list(images), self.backbone.size_divisibility).tensor
        return cut_to_image(self.inner_logits(self.extended(padded)), height, width)

    def inner_logits(self, images: Tensor) -> Tensor:
        """Logits of what backbone and head cover of (N, C, H, W) images by themselves."""
        return self.sem_seg_head(self.backbone(images))[0]

    def valid_size(self, size: int) -> int:
        """The smallest height or width >= ``size`` that the backbone takes."""
        own = getattr(self.backbone, "valid_size", None)
        step = max(self.backbone.size_divisibility, 1)
        return own(size) if own else -(-size // step) * step

    def extended(self, images: Tensor) -> Tensor:
        """Images with a mirrored border, of a size that the backbone takes."""
        if not self.border:
            return images
        height, width = (self.valid_size(n + 2 * self.border) for n in images.shape[-2:])
        return mirror_pad(images, self.border, (height, width))


class DeepLabV3Plus(SemanticSystem):
    """DeepLabv3+ (Chen et al. 2018): dilated backbone, ASPP, decoder on the stride-4 feature."""

    heads = ("SemSegDeepLabV3PlusHead",)


class FCN(SemanticSystem):
    """FCN (Long et al. 2015): class scores at one to three strides, upsampled in network."""

    heads = ("SemSegFCNHead",)


class UNet(SemanticSystem):
    """U-Net (Ronneberger et al. 2015): contracting and expanding path with concatenated skips."""

    heads = ("SemSegUNetHead",)


class SegNet(SemanticSystem):
    """SegNet and SegNet-Basic (Badrinarayanan et al. 2017): unpooling by the encoder's indices."""

    heads = ("SemSegSegNetHead",)
