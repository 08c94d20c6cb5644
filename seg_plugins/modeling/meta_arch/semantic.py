"""The semantic segmentor, and the systems named after papers as thin subclasses of it."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone, SemanticSegmentor
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn

from ...config import ConfigError
from ..feature_geometry import mirror_pad
from ..inference import Strategy, WholeImage, build_inference
from ..sem_seg_heads.base import cut_to_image


class SemanticSystem(SemanticSegmentor):
    """Backbone, semantic head and inference strategy; Detectron2's input and output format.

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
        inference: Strategy | None = None,
        mirror_border: bool = True,
    ) -> None:
        """Join the parts.

        Args:
            backbone: gives the features that the head needs.
            sem_seg_head: a :class:`~seg_plugins.modeling.sem_seg_heads.base.SemSegHead`.
            pixel_mean: mean of each image channel, in the image's raw range.
            pixel_std: divisor of each image channel.
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
        return {
            **super().from_config(cfg),
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
        images = [sample["image"].to(self.device) for sample in batched_inputs]
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

    def _losses(self, images: list[Tensor], samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        crop = self.border if not self.mirror_border else 0
        # A network without padding takes particular sizes only: leave them as they come.
        batch = ImageList.from_tensors(images, 0 if crop else self.backbone.size_divisibility)
        size = (batch.tensor.shape[-2], batch.tensor.shape[-1])
        targets, weights = self._targets(samples, size)
        if crop:
            inner = (..., slice(crop, size[0] - crop), slice(crop, size[1] - crop))
            targets, weights = targets[inner], weights[inner] if weights is not None else None
        return self.training_losses(batch.tensor, targets, weights)

    def training_losses(
        self, images: Tensor, targets: Tensor, weights: Tensor | None
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            images: (N, C, H, W), normalised and padded.
            targets: (N, H, W) labels; of the inner part where the border is not mirrored.
            weights: factors of the same size, or None.
        """
        inputs = self.extended(images) if self.mirror_border else images
        return self.sem_seg_head(self.backbone(inputs), targets, weights)[1]

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

    def _targets(
        self, samples: list[dict[str, Any]], size: tuple[int, int]
    ) -> tuple[Tensor, Tensor | None]:
        """Labels (N, H, W), padded with the ignore label, and weights by pixel if there are."""
        head = self.sem_seg_head
        targets = torch.full((len(samples), *size), head.ignore_value, dtype=torch.int64)
        weighted = any("sem_seg_weights" in sample for sample in samples)
        weights = torch.ones(len(samples), *size) if weighted else None
        for i, sample in enumerate(samples):
            if "sem_seg" not in sample:
                raise ValueError(
                    f"{source_of(sample)} has no 'sem_seg' label map, which training needs: set "
                    "INPUT.MAPPER to a semantic mapper, or DATASETS.TRAIN to a labelled dataset"
                )
            labels = sample["sem_seg"].to("cpu", torch.int64)
            check_labels(labels, head.num_classes, head.ignore_value, source_of(sample))
            height, width = labels.shape
            targets[i, :height, :width] = labels
            if weights is not None and "sem_seg_weights" in sample:
                weights[i, :height, :width] = sample["sem_seg_weights"]
        if weights is not None:
            weights = weights.to(self.device, non_blocking=True)
        return targets.to(self.device, non_blocking=True), weights


def check_labels(labels: Tensor, num_classes: int, ignore_value: int, source: str) -> None:
    """Refuse a label map (H, W) with values outside the classes, before a kernel crashes on them.

    With one class, labels are 1 (the class) and 0 (everything else).

    Raises:
        ValueError: names the source, the value and the fix.
    """
    highest = max(num_classes - 1, 1)
    wrong = labels[((labels < 0) | (labels > highest)) & (labels != ignore_value)]
    if wrong.numel():
        raise ValueError(
            f"{source}: label {int(wrong[0])} in {wrong.numel()} pixels, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {num_classes} allows 0 to {highest} and the ignore "
            f"label {ignore_value}. Correct the label file, NUM_CLASSES or IGNORE_VALUE."
        )


def source_of(sample: dict[str, Any]) -> str:
    """What to call a sample in an error: the file of its labels, or of its image."""
    return str(sample.get("sem_seg_file_name") or sample.get("file_name") or "A sample")


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
