"""AdaptIS: semantic labels say what is where, points which object; panoptic by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from ...config import ConfigError
from ..instance_representations.base import Features, Truth
from ..loss_terms import Losses
from ..sem_seg_heads.base import build_semantic_head, cut_to_image, semantic_losses
from ..task_weighting import build_weighting
from .mask_rcnn import keep_scores_in_float32
from .one_stage import OneStageInstanceSegmentor, truth_of
from .panoptic_output import PanopticOutput
from .semantic_labels import batch_labels, label_range, source_of


class AdaptIS(PanopticOutput, OneStageInstanceSegmentor):
    """AdaptIS (Sofiiuk et al. 2019) with any semantic head.

    Data without semantic labels will do: then they are made of the objects. In that case
    ``MODEL.PANOPTIC_FPN.THING_IDS`` is empty, labels are the K classes of the objects and label K
    is the background, so that the head has K + 1.
    """

    tasks: ClassVar[tuple[str, ...]] = ("sem_seg", "instances")
    #: Semantic labels are made of the objects where a dataset has none.
    makes_semantic_labels: ClassVar[bool] = True
    representation_name = "AdaptIS"
    #: Sure points all score 1: exported files keep the order in which they were found.
    first_of_equals: ClassVar[bool] = True

    @configurable
    def __init__(
        self,
        *,
        sem_seg_head: nn.Module,
        num_classes: int | None = None,
        ignore_value: int | None = None,
        thing_ids: Sequence[int] = (),
        loss_weighting: str = "fixed",
        stuff_area_thresh: float = 4096,
        instances_score_thresh: float = 0.5,
        **parts: Any,
    ) -> None:
        """Join the parts.

        Args:
            sem_seg_head: see :class:`~.semantic.SemanticSystem`; with at least two labels.
            num_classes: of the labels; default: the head's ``num_classes``.
            ignore_value: the label that is left out; default: the head's, else 255.
            thing_ids: semantic label of each instance class; empty: labels are made as said above.
            loss_weighting: ``fixed`` or ``uncertainty``, with the tasks semantic labels and
                instances.
            stuff_area_thresh: stuff of fewer pixels becomes void.
            instances_score_thresh: least score of an instance in the panoptic output.
            **parts: of :class:`~.one_stage.OneStageInstanceSegmentor`.

        Raises:
            ConfigError: parts that do not fit.
        """
        super().__init__(**parts)
        if getattr(sem_seg_head, "border", 0):
            raise ConfigError(
                "AdaptIS's backbone pads its images, so its semantic head must pad too: set "
                "MODEL.UNET.PADDING same"
            )
        keep_scores_in_float32(sem_seg_head)
        self.sem_seg_head = sem_seg_head
        self.num_classes, self.ignore_value = label_range(sem_seg_head, num_classes, ignore_value)
        things = self.representation.num_classes
        _check_labels(thing_ids, self.num_classes, things)
        #: The label of what is no object, where labels are made; else None.
        self.background = None if thing_ids else things
        self.thing_ids = list(thing_ids) or list(range(things))
        self.stuff_area_thresh = stuff_area_thresh
        self.instances_score_thresh = instances_score_thresh
        self.weighting = build_weighting(
            loss_weighting, {"loss_sem_seg": "semantic"}, default="instances"
        )
        self.stage: str = getattr(self.representation, "stage", "joint")
        if self.stage != "joint":
            head = self.representation.proposal_head
            trained = {id(parameter) for parameter in head.parameters()}
            for parameter in self.parameters():
                of_head = id(parameter) in trained
                if of_head != (self.stage == "proposals"):
                    parameter.requires_grad_(False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Arguments from ``MODEL``.

        Raises:
            ConfigError: parts that do not fit.
        """
        parts = super().from_config(cfg)
        panoptic, head = cfg.MODEL.PANOPTIC_FPN, cfg.MODEL.SEM_SEG_HEAD
        return {
            **parts,
            "sem_seg_head": build_semantic_head(cfg, parts["backbone"].output_shape()),
            "num_classes": head.NUM_CLASSES,
            "ignore_value": head.IGNORE_VALUE,
            "thing_ids": panoptic.THING_IDS,
            "loss_weighting": panoptic.LOSS_WEIGHTING,
            "stuff_area_thresh": panoptic.COMBINE.STUFF_AREA_LIMIT,
            "instances_score_thresh": panoptic.COMBINE.INSTANCES_CONFIDENCE_THRESH,
        }

    def train(self, mode: bool = True) -> AdaptIS:
        """In the stage of the proposals what is frozen stays as at inference."""
        super().train(mode)
        if self.stage == "proposals":
            for child in (self.backbone, self.sem_seg_head, self.representation):
                child.eval()
            self.representation.proposal_head.train(mode)
        return self

    def _losses(self, samples: list[dict[str, Any]]) -> Losses:
        images = self.preprocess_image(samples)
        learns_labels = self.stage != "proposals"
        if learns_labels:
            labels, weights = batch_labels(
                [self._with_labels(sample) for sample in samples],
                (images.tensor.shape[-2], images.tensor.shape[-1]),
                num_classes=self.num_classes,
                ignore_value=self.ignore_value,
                device=self.device,
            )
        features = self.backbone(images.tensor)
        losses = self.instance_losses(images, features, samples)
        if learns_labels:
            semantic = semantic_losses(self.sem_seg_head, features, labels, weights)
            losses = semantic.joined(losses)
        return losses if self.weighting is None else self.weighting(losses)

    def _with_labels(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The sample with ``sem_seg``: its own, or made of its objects."""
        if "sem_seg" in sample:
            return sample
        if self.background is None:
            raise ValueError(
                f"{source_of(sample)} has no 'sem_seg' label map, and where there is stuff none "
                "can be made of the objects: set INPUT.MAPPER to PanopticMapper and DATASETS.TRAIN "
                "to a panoptic dataset; or for objects alone MODEL.PANOPTIC_FPN.THING_IDS [] and "
                f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {len(self.thing_ids) + 1}"
            )
        return {
            **sample,
            "sem_seg": labels_of_objects(truth_of(sample, self.device), self.background),
        }

    def find_both(
        self, images: ImageList, features: Features
    ) -> tuple[list[Instances], list[Tensor]]:
        """See :class:`~.panoptic_output.PanopticOutput`.

        Where labels are made these are the classes, and what is no object becomes void.
        """
        logits = self.labels_of(images, features)
        return self.find(images, features, logits), list(logits)

    def labels_of(self, images: ImageList, features: Features) -> Tensor:
        """(N, L, rows, columns) logits of the semantic labels of a padded batch."""
        height, width = images.tensor.shape[-2:]
        return cut_to_image(self.sem_seg_head(features, None)[0], height, width)

    def find(
        self, images: ImageList, features: Features, logits: Tensor | None = None
    ) -> list[Instances]:
        """See :class:`~.one_stage.OneStageInstanceSegmentor`; `logits`: of :meth:`labels_of`."""
        logits = self.labels_of(images, features) if logits is None else logits
        outputs = self.representation(features)._replace(semantic=logits)
        size = (images.tensor.shape[-2], images.tensor.shape[-1])
        return self.representation.find(outputs, size, images.image_sizes)

    def merging(self) -> dict[str, Any]:
        """See :class:`~.panoptic_output.PanopticOutput`."""
        no_stuff = [] if self.background is None else [self.background]
        return {
            "thing_ids": [*self.thing_ids, *no_stuff],
            # Suppression has settled who claims what: all but what is taken whole is shown.
            "overlap_threshold": 1.0,
            "stuff_area_threshold": self.stuff_area_thresh,
            "score_threshold": self.instances_score_thresh,
        }


def labels_of_objects(truth: Truth, background: int) -> Tensor:
    """A label map (H, W) int64: the class of each object, the smaller ones in front."""
    labels = torch.full(truth.image_size, background, device=truth.classes.device)
    order = truth.areas.argsort(descending=True, stable=True)
    for mask, kind in zip(truth.bitmasks[order], truth.classes[order], strict=True):
        labels = torch.where(mask, kind, labels)
    return labels


def _check_labels(thing_ids: Sequence[int], labels: int, things: int) -> None:
    distinct = set(thing_ids)
    if thing_ids and not (
        len(thing_ids) == len(distinct) == things and distinct <= set(range(labels))
    ):
        raise ConfigError(
            f"MODEL.PANOPTIC_FPN.THING_IDS {list(thing_ids)} must be {things} different labels "
            f"below MODEL.SEM_SEG_HEAD.NUM_CLASSES {labels}: the semantic label of each class of "
            "things"
        )
    if not thing_ids and labels != things + 1:
        raise ConfigError(
            "AdaptIS with MODEL.PANOPTIC_FPN.THING_IDS [] makes its semantic labels of the "
            f"objects, one for each of {things} classes and one for the rest: set "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES {things + 1}, not {labels}; or give THING_IDS, the "
            "semantic label of each class of things, for a panoptic dataset"
        )
