"""Building mappers and augmentations from a configuration."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from fvcore.common.registry import Registry

from .augmentations import Augmentation, Crop, Flip, ResizeShortestEdge
from .photometric import ColorJitter, Photometric

__all__ = ["MAPPER_REGISTRY", "build_augmentations", "build_mapper", "build_photometric"]

MAPPER_REGISTRY = Registry("MAPPER")
MAPPER_REGISTRY.__doc__ = "Dataset mappers by name: called with a dict and a generator."

# What a dataset's evaluator_type says of its task.
_MAPPER_OF_EVALUATOR = {
    "sem_seg": "SemanticMapper",
    "cityscapes_sem_seg": "SemanticMapper",
    "coco": "InstanceMapper",
    "cityscapes_instance": "InstanceMapper",
    "coco_panoptic_seg": "PanopticMapper",
    "cityscapes_panoptic_seg": "PanopticMapper",
    "ade20k_panoptic_seg": "PanopticMapper",
}


def build_mapper(cfg: CfgNode, is_train: bool) -> Any:
    """The mapper named in ``INPUT.MAPPER``; empty takes the one of the dataset's task.

    Raises:
        KeyError: there is no mapper of that name.
    """
    name = cfg.INPUT.MAPPER
    if not name:
        names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
        evaluator = MetadataCatalog.get(names[0]).get("evaluator_type", "") if names else ""
        name = _MAPPER_OF_EVALUATOR.get(evaluator, "SemanticMapper")
    return MAPPER_REGISTRY.get(name)(cfg, is_train=is_train)


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[Augmentation]:
    """Resize, crop and flips in this order; only the resize when testing."""
    inputs = cfg.INPUT
    if not is_train:
        return [ResizeShortestEdge((inputs.MIN_SIZE_TEST,), inputs.MAX_SIZE_TEST)]
    as_range = inputs.MIN_SIZE_TRAIN_SAMPLING == "range"
    steps: list[Augmentation] = [
        ResizeShortestEdge(tuple(inputs.MIN_SIZE_TRAIN), inputs.MAX_SIZE_TRAIN, as_range)
    ]
    if inputs.CROP.ENABLED:
        steps.append(
            Crop(
                tuple(inputs.CROP.SIZE),
                relative=inputs.CROP.TYPE == "relative",
                max_class_share=inputs.CROP.SINGLE_CATEGORY_MAX_AREA,
                ignore_label=cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            )
        )
    if inputs.RANDOM_FLIP != "none":
        steps.append(Flip(horizontal=inputs.RANDOM_FLIP == "horizontal"))
    return steps


def build_photometric(cfg: CfgNode, is_train: bool) -> list[Photometric]:
    """Changes of colour, in training only."""
    if is_train and cfg.INPUT.COLOR_AUG_SSD:
        return [ColorJitter(image_format=cfg.INPUT.FORMAT)]
    return []
