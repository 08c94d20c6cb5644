"""One-stage instance segmentation: a backbone, an instance representation, one way to finish."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import Backbone, build_backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ...config import ConfigError
from ..instance_representations.base import (
    Features,
    InstanceRepresentation,
    Truth,
    build_representation,
)
from ..instance_representations.finishing import finish
from ..loss_terms import Losses
from ..test_time.regions import Look
from ..test_time.views import View, Views
from ..test_time.voting import MaskVote
from .mask_rcnn import MASK_FORMATS, keep_scores_in_float32, wanted_size
from .semantic_labels import source_of


class OneStageInstanceSegmentor(nn.Module):
    """Any backbone and any instance representation; Detectron2's inputs and outputs.

    In training the images of a batch are padded to a common size that the backbone's
    ``size_divisibility`` divides. At inference each is padded by itself, and those of equal padded
    size go together: what is found in an image does not depend on its batch.
    """

    tasks: ClassVar[tuple[str, ...]] = ("instances",)
    # The representation of a system that is named after one; "": what the configuration names.
    representation_name: ClassVar[str] = ""

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        representation: InstanceRepresentation,
        pixel_mean: list[float],
        pixel_std: list[float],
        mask_format: str = "bitmask",
    ) -> None:
        """Join the parts.

        Args:
            backbone: gives the features that the representation reads.
            representation: of the instances.
            pixel_mean: mean of each image channel, in the image's raw range.
            pixel_std: divisor of each image channel.
            mask_format: see :class:`~.mask_rcnn.MaskRCNNFPN`.

        Raises:
            ConfigError: an unknown `mask_format`.
        """
        super().__init__()
        if mask_format not in MASK_FORMATS:
            raise ConfigError(
                "MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT must be "
                f"{' or '.join(MASK_FORMATS)}, not {mask_format!r}"
            )
        keep_scores_in_float32(representation)
        self.backbone, self.representation = backbone, representation
        self.mask_format = mask_format
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL``.

        Raises:
            ConfigError: parts that do not fit.
        """
        named, own = cfg.MODEL.ONE_STAGE.REPRESENTATION, cls.representation_name
        if own and named not in ("", own):
            raise ConfigError(
                f"MODEL.META_ARCHITECTURE {cls.__name__} has the representation {own}, not "
                f"{named}: leave MODEL.ONE_STAGE.REPRESENTATION empty, or set META_ARCHITECTURE "
                "OneStageInstanceSegmentor"
            )
        if not cfg.MODEL.MASK_ON:
            raise ConfigError(f"{cls.__name__} finds masks: set MODEL.MASK_ON True")
        backbone = build_backbone(cfg)
        return {
            "backbone": backbone,
            "representation": build_representation(cfg, backbone.output_shape(), own),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "mask_format": cfg.MODEL.ROI_MASK_HEAD.OUTPUT_FORMAT,
        }

    @property
    def device(self) -> torch.device:
        """Where the inputs are brought."""
        return self.pixel_mean.device

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Losses in training, predictions in inference.

        Args:
            batched_inputs: one dict per image: ``image`` (C, H, W) in raw range; in training
                ``instances`` with ``gt_boxes``, ``gt_classes`` and ``gt_masks``; ``height`` and
                ``width`` of the wanted output (default: the image's).

        Returns:
            Training: name -> scalar loss. Inference: one dict per image with ``instances``:
            ``pred_boxes``, ``scores``, ``pred_classes`` and ``pred_masks``.

        Raises:
            ValueError: a sample without masks in training.
        """
        if self.training:
            return self._losses(batched_inputs)
        return self.inference(batched_inputs)

    def _losses(self, samples: list[dict[str, Any]]) -> Losses:
        images = self.preprocess_image(samples)
        return self.instance_losses(images, self.backbone(images.tensor), samples)

    def inference(self, samples: list[dict[str, Any]], do_postprocess: bool = True) -> Any:
        """What is found in each image.

        Args:
            samples: see :meth:`forward`.
            do_postprocess: bring the results to the wanted size and format; False: the Instances
                that the representation finds.
        """
        found: list[Any] = [None] * len(samples)
        for images, places in self.batches(samples):
            results = self.find(images, self.backbone(images.tensor))
            for place, result in zip(places, results, strict=True):
                found[place] = result
        if not do_postprocess:
            return found
        return [
            {"instances": self.finish(instances, *wanted_size(sample, instances.image_size))}
            for instances, sample in zip(found, samples, strict=True)
        ]

    def predict_views(self, views: Views) -> dict[str, Any]:
        """``instances`` of an image by its views: see :mod:`~..test_time.voting`."""

        def look(view: View) -> Instances:
            return self.inference([view.sample], do_postprocess=False)[0]

        return {"instances": self.find_in_views(views, look)}

    @property
    def num_things(self) -> int:
        """Classes of instances."""
        return self.representation.num_classes

    def preprocess_image(self, samples: list[dict[str, Any]]) -> ImageList:
        """The images, normalised and padded to a common size."""
        return ImageList.from_tensors(self._normalized(samples), self.backbone.size_divisibility)

    def batches(self, samples: list[dict[str, Any]]) -> list[tuple[ImageList, list[int]]]:
        """Batches of the images that are equally large once each is padded, and their places."""
        return equal_sizes(self._normalized(samples), self.backbone.size_divisibility)

    def instance_losses(
        self,
        images: ImageList,
        features: Features,
        samples: list[dict[str, Any]],
        weight: float = 1.0,
    ) -> Losses:
        """Losses of the representation, times `weight`."""
        truths = [truth_of(sample, self.device) for sample in samples]
        size = (images.tensor.shape[-2], images.tensor.shape[-1])
        losses = self.representation.losses(self.representation(features), truths, size)
        if weight != 1:
            losses = Losses({name: losses.loss(name).times(weight) for name in losses})
        # A representation may leave features unread: their layers get a gradient of zero, as
        # parallel training wants it. One cell of each will do.
        cells = [f[:1, :, :1, :1].float().sum() for f in features.values() if f.is_floating_point()]
        name = next(iter(losses))
        return losses | {name: losses.loss(name).plus(torch.stack(cells).sum() * 0.0)}

    def find(self, images: ImageList, features: Features) -> list[Instances]:
        """The instances of each image, of its size in the network."""
        size = (images.tensor.shape[-2], images.tensor.shape[-1])
        return self.representation.find(self.representation(features), size, images.image_sizes)

    def finish(self, instances: Instances, height: int, width: int) -> Instances:
        """The instances at another size, with masks in this system's format."""
        return finish(instances, height, width, self.mask_format)

    def find_in_views(self, views: Views, look: Look) -> Instances:
        """The instances at the size of the output, by what `look` gives of each view."""
        size = (views.height, views.width)
        vote = MaskVote(
            *size, overlap_threshold=views.overlap_threshold, detections=views.detections
        )
        for view in views:
            vote.add(finish(look(view), *size, "rle", mirrored=view.mirrored))
        return vote.result(self.mask_format)

    def _normalized(self, samples: list[dict[str, Any]]) -> list[Tensor]:
        images = [s["image"].to(self.device, non_blocking=True) for s in samples]
        return [(image - self.pixel_mean) / self.pixel_std for image in images]


def equal_sizes(images: list[Tensor], divisor: int) -> list[tuple[ImageList, list[int]]]:
    """Batches of the images that are equally large once each is padded, and their places.

    Args:
        images: (C, H, W) each.
        divisor: of the padded sizes.
    """
    step = max(divisor, 1)
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        size = tuple(-(-side // step) * step for side in image.shape[-2:])
        groups.setdefault(size, []).append(place)
    return [
        (ImageList.from_tensors([images[i] for i in places], divisor), places)
        for places in groups.values()
    ]


def truth_of(sample: dict[str, Any], device: torch.device) -> Truth:
    """The objects of a sample.

    Raises:
        ValueError: it has no masks.
    """
    if "instances" not in sample or not sample["instances"].has("gt_masks"):
        raise ValueError(
            f"{source_of(sample)} has no 'instances' with masks, which training needs: set "
            "INPUT.MAPPER to InstanceMapper, INPUT.MASK_FORMAT to bitmask and DATASETS.TRAIN to a "
            "dataset whose objects have masks"
        )
    return Truth(sample["instances"], device)


class SOLO(OneStageInstanceSegmentor):
    """SOLO (Wang et al. 2020): a category and a mask for each cell of a grid."""

    representation_name = "SOLO"


class SOLOv2(OneStageInstanceSegmentor):
    """SOLOv2 (Wang et al. 2020): each cell predicts the kernel that finds its mask."""

    representation_name = "SOLOv2"


class CondInst(OneStageInstanceSegmentor):
    """CondInst (Tian et al. 2020): each point predicts the small network that finds its mask."""

    representation_name = "CondInst"


class PolarMask(OneStageInstanceSegmentor):
    """PolarMask (Xie et al. 2020): each point predicts the rays to the outline of its mask."""

    representation_name = "PolarMask"


class YOLACT(OneStageInstanceSegmentor):
    """YOLACT (Bolya et al. 2019): each anchor predicts how prototypes add up to its mask."""

    representation_name = "YOLACT"


class InstanceFCN(OneStageInstanceSegmentor):
    """InstanceFCN (Dai et al. 2016): sliding windows over maps of an object's parts."""

    representation_name = "InstanceFCN"

    def inference(self, samples: list[dict[str, Any]], do_postprocess: bool = True) -> Any:
        """See :class:`OneStageInstanceSegmentor`; at MODEL.INSTANCE_FCN.TEST_SCALES of the image.

        The windows of all scales are suppressed together.
        """
        representation: Any = self.representation
        if representation.test_scales == [1.0]:
            return super().inference(samples, do_postprocess)
        found = []
        for image, sample in zip(self._normalized(samples), samples, strict=True):
            parts = []
            for scale in representation.test_scales:
                batch, zoom = _scaled(image, scale, self.backbone.size_divisibility)
                outputs = representation(self.backbone(batch))
                parts.append(representation.candidates(outputs, 0, zoom))
            instances = representation.suppress(parts, (image.shape[-2], image.shape[-1]))
            if do_postprocess:
                size = wanted_size(sample, instances.image_size)
                found.append({"instances": self.finish(instances, *size)})
            else:
                found.append(instances)
        return found


def _scaled(image: Tensor, scale: float, divisor: int) -> tuple[Tensor, tuple[float, float]]:
    """An image as a padded batch at another scale, and its exact factors down and across."""
    height, width = image.shape[-2:]
    size = (max(round(height * scale), 1), max(round(width * scale), 1))
    smooth = scale < 1
    resized = F.interpolate(
        image[None], size, mode="bilinear", align_corners=False, antialias=smooth
    )[0]
    batch = ImageList.from_tensors([resized], divisor).tensor
    return batch, (size[0] / height, size[1] / width)


ONE_STAGE_SYSTEMS = (
    OneStageInstanceSegmentor,
    SOLO,
    SOLOv2,
    CondInst,
    PolarMask,
    YOLACT,
    InstanceFCN,
)
