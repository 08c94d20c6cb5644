"""From the keys below ``INPUT`` to augmentations: one builder for the mappers of all tasks."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ..config import ConfigError
from .augmentations import Augmentation, Crop, Flip, Resize, ResizeShortestEdge, ScaleJitter, Turn
from .decoded_cache import DecodedCache
from .elastic import ElasticDeformation
from .photometric import Blur, ColorJitter, Noise, Photometric, ValueRange

__all__ = [
    "build_augmentations",
    "build_border",
    "build_cache",
    "build_elastic",
    "build_photometric",
    "ignore_label_of",
]


def build_augmentations(cfg: CfgNode, is_train: bool) -> list[Augmentation]:
    """Resize, crop, flips and turns in this order; only the resize when testing."""
    inputs = cfg.INPUT
    if not is_train:
        return [ResizeShortestEdge((inputs.MIN_SIZE_TEST,), inputs.MAX_SIZE_TEST)]
    steps = [_build_resize(inputs)]
    if inputs.CROP.ENABLED:
        steps.append(
            Crop(
                tuple(inputs.CROP.SIZE),
                kind=inputs.CROP.TYPE,
                max_class_share=inputs.CROP.SINGLE_CATEGORY_MAX_AREA,
                rare_class_chance=inputs.CROP.RARE_CLASS_CHANCE,
                ignore_label=ignore_label_of(cfg),
            )
        )
    flips = {"none": (), "horizontal": (True,), "vertical": (False,), "both": (True, False)}
    if inputs.RANDOM_FLIP not in flips:
        raise ConfigError(f"INPUT.RANDOM_FLIP is {inputs.RANDOM_FLIP!r}; one of {sorted(flips)}")
    steps += [Flip(horizontal=horizontal) for horizontal in flips[inputs.RANDOM_FLIP]]
    if inputs.RANDOM_TURN:
        steps.append(Turn())
    return steps


def _build_resize(inputs: CfgNode) -> Augmentation:
    size = (inputs.IMAGE_SIZE, inputs.IMAGE_SIZE)
    if inputs.RESIZE == "shortest_edge":
        as_range = inputs.MIN_SIZE_TRAIN_SAMPLING == "range"
        return ResizeShortestEdge(tuple(inputs.MIN_SIZE_TRAIN), inputs.MAX_SIZE_TRAIN, as_range)
    if inputs.RESIZE == "scale_jitter":
        return ScaleJitter(size, (inputs.MIN_SCALE, inputs.MAX_SCALE))
    if inputs.RESIZE == "fixed":
        return Resize(size)
    raise ConfigError(
        f"INPUT.RESIZE is {inputs.RESIZE!r}; one of 'shortest_edge', 'scale_jitter', 'fixed'"
    )


def build_photometric(cfg: CfgNode, is_train: bool) -> list[Photometric]:
    """The value range and, in training only, colours, blur and noise in this order."""
    steps: list[Photometric] = []
    if cfg.INPUT.VALUE_RANGE:
        steps.append(ValueRange(*cfg.INPUT.VALUE_RANGE))
    if not is_train:
        return steps
    if cfg.INPUT.COLOR_AUG_SSD:
        steps.append(ColorJitter(image_format=cfg.INPUT.FORMAT))
    if cfg.INPUT.BLUR_SIGMA > 0:
        steps.append(Blur(cfg.INPUT.BLUR_SIGMA))
    if cfg.INPUT.NOISE_SIGMA > 0:
        steps.append(Noise(cfg.INPUT.NOISE_SIGMA))
    return steps


def build_elastic(cfg: CfgNode, is_train: bool) -> ElasticDeformation | None:
    """The elastic deformation, in training and if it is on."""
    if not is_train or cfg.INPUT.ELASTIC.SIGMA <= 0:
        return None
    return ElasticDeformation(cfg.INPUT.ELASTIC.SIGMA, cfg.INPUT.ELASTIC.POINTS)


def build_cache(cfg: CfgNode, is_train: bool) -> DecodedCache | None:
    """The cache of decoded images, in training and if it is on."""
    node = cfg.INPUT.DECODED_CACHE
    if not is_train or not node.FOLDER:
        return None
    return DecodedCache(node.FOLDER, max_bytes=int(node.MAX_GIB * 2**30))


def build_border(cfg: CfgNode, is_train: bool) -> dict[str, Any] | None:
    """Arguments of `border_weights`, in training and if they are on."""
    node = cfg.INPUT.BORDER_WEIGHTS
    if not is_train or not node.ENABLED:
        return None
    return {
        "foreground": tuple(node.FOREGROUND),
        "w0": node.W0,
        "sigma": node.SIGMA,
        "class_weights": tuple(node.CLASS_WEIGHTS),
    }


def ignore_label_of(cfg: CfgNode) -> int:
    """The id of pixels without a class in the configuration's first dataset."""
    names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
    return int(MetadataCatalog.get(names[0]).get("ignore_label", 255)) if names else 255
