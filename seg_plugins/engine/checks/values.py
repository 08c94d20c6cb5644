"""Values that cannot work, whatever the other settings are: refused by name before a run."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import BACKBONE_REGISTRY, SEM_SEG_HEADS_REGISTRY

from ...config import ConfigError, get_cfg, get_value
from ...data import MAPPER_REGISTRY
from ..solver import OPTIMIZERS, SCHEDULES

_INF, _BELOW_1 = math.inf, math.nextafter(1, 0)
_ABOVE_0 = math.nextafter(0, 1)
_NORMS = ("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "LN")

# Least and largest value of keys; of a list, of each member.
RANGES: dict[tuple[float, float], tuple[str, ...]] = {
    (0, _INF): (
        "SOLVER.BASE_LR", "SOLVER.WEIGHT_DECAY", "SOLVER.WARMUP_ITERS", "SOLVER.GAMMA",
        "SOLVER.POLY_LR_POWER", "SOLVER.REFERENCE_BATCH", "SOLVER.CHECKPOINT_PERIOD",
        "SOLVER.KEEP_CHECKPOINTS", "SOLVER.MAX_SKIPPED_BATCHES", "SOLVER.EARLY_STOPPING.PATIENCE",
        "SOLVER.EARLY_STOPPING.MIN_GAIN", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", "SOLVER.EPOCHS",
        "TEST.EVAL_PERIOD", "TEST.BOOTSTRAP",
        "TEST.PICTURES", "TEST.REPORT_IMAGES", "DATALOADER.NUM_WORKERS", "DATASETS.CHECK_SAMPLES",
        "DATALOADER.REPEAT_THRESHOLD",
        "INPUT.MIN_SIZE_TRAIN", "INPUT.MIN_SIZE_TEST", "INPUT.BLUR_SIGMA", "INPUT.NOISE_SIGMA",
        "INPUT.ELASTIC.SIGMA", "INPUT.BORDER_WEIGHTS.W0", "MODEL.INFERENCE.CONTEXT",
        "MODEL.PANOPTIC_DEEPLAB.STUFF_AREA", "MODEL.PANOPTIC_DEEPLAB.SMALL_INSTANCE_AREA",
        "MODEL.PANOPTIC_DEEPLAB.SMALL_INSTANCE_WEIGHT", "MODEL.INS_EMBED_HEAD.CENTER_LOSS_WEIGHT",
        "MODEL.INS_EMBED_HEAD.OFFSET_LOSS_WEIGHT",
    ),
    (_ABOVE_0, _INF): (
        "INPUT.MIN_SCALE", "INPUT.MAX_SCALE", "INPUT.BORDER_WEIGHTS.SIGMA",
        "INPUT.DECODED_CACHE.MAX_GIB", "MODEL.INFERENCE.SCALES", "MODEL.PIXEL_STD",
        "MODEL.PANOPTIC_DEEPLAB.GAUSSIAN_SIGMA",
    ),
    (1, _INF): (
        "SOLVER.MAX_ITER", "SOLVER.IMS_PER_BATCH", "LOG_PERIOD", "TEST.DETECTIONS_PER_IMAGE",
        "INPUT.IMAGE_SIZE", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "MODEL.SEM_SEG_HEAD.CONVS_DIM",
        "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS",
        "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS", "MODEL.ROI_HEADS.NUM_CLASSES",
        "MODEL.INS_EMBED_HEAD.ASPP_CHANNELS", "MODEL.INS_EMBED_HEAD.ASPP_DILATIONS",
        "MODEL.INS_EMBED_HEAD.CONVS_DIM", "MODEL.INS_EMBED_HEAD.HEAD_CHANNELS",
        "MODEL.UNET.WIDTH", "MODEL.VGG.WIDTH", "MODEL.VGG.FC_CHANNELS", "MODEL.SEGNET.CONVS",
        "MODEL.SEGNET.BASIC_WIDTH", "MODEL.PATCH.CHANNELS", "MODEL.PATCH.HIDDEN",
        "MODEL.PATCH.SAMPLES_PER_IMAGE", "MODEL.INFERENCE.WINDOW", "MODEL.INFERENCE.STRIDE",
        "MODEL.PANOPTIC_DEEPLAB.TOP_K_INSTANCE",
    ),
    (2, _INF): ("INPUT.ELASTIC.POINTS",),
    (0, 1): (
        "SOLVER.WARMUP_FACTOR", "SOLVER.POLY_LR_CONSTANT_ENDING", "INPUT.COPY_PASTE",
        "INPUT.MOSAIC", "INPUT.CROP.RARE_CLASS_CHANCE",
    ),
    (_ABOVE_0, 1): ("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", "DATALOADER.RANDOM_SUBSET_RATIO"),
    (0, _BELOW_1): (
        "SOLVER.MOMENTUM", "MODEL_EMA.DECAY", "DATALOADER.MAX_DAMAGED", "MODEL.UNET.DROPOUT",
        "MODEL.VGG.DROPOUT", "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "MODEL.INS_EMBED_HEAD.ASPP_DROPOUT",
    ),
}  # fmt: skip
CHOICES: dict[str, tuple[str, ...]] = {
    "SOLVER.OPTIMIZER": tuple(OPTIMIZERS),
    "SOLVER.LR_SCHEDULER_NAME": SCHEDULES,
    "SOLVER.WARMUP_METHOD": ("linear", "constant"),
    "INPUT.RESIZE": ("shortest_edge", "scale_jitter", "fixed"),
    "INPUT.RANDOM_FLIP": ("horizontal", "vertical", "both", "none"),
    "INPUT.MASK_FORMAT": ("polygon", "bitmask", "none"),
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": ("choice", "range"),
    "INPUT.CROP.TYPE": ("absolute", "relative", "relative_range", "absolute_range"),
    "MODEL.RESNETS.NORM": _NORMS,
    "MODEL.FPN.NORM": _NORMS,
    "MODEL.UNET.NORM": _NORMS,
    "MODEL.VGG.NORM": _NORMS,
    "MODEL.SEM_SEG_HEAD.NORM": _NORMS,
    "MODEL.INS_EMBED_HEAD.NORM": _NORMS,
    "MODEL.ROI_BOX_HEAD.NORM": _NORMS,
    "MODEL.ROI_MASK_HEAD.NORM": _NORMS,
}
_REGISTRIES = {
    "MODEL.BACKBONE.NAME": BACKBONE_REGISTRY,
    "MODEL.SEM_SEG_HEAD.NAME": SEM_SEG_HEADS_REGISTRY,
    "INPUT.MAPPER": MAPPER_REGISTRY,
}
_LENGTHS = {
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": (3,),
    "MODEL.INS_EMBED_HEAD.ASPP_DILATIONS": (3,),
    "MODEL.INFERENCE.WINDOW": (2,),
    "MODEL.INFERENCE.STRIDE": (2,),
    "INPUT.VALUE_RANGE": (0, 2),
}
_NOT_EMPTY = ("INPUT.MIN_SIZE_TRAIN", "MODEL.INFERENCE.SCALES")
_ODD = ("MODEL.SEGNET.KERNEL", "MODEL.PANOPTIC_DEEPLAB.NMS_KERNEL")
# Low and high, which may stand in two keys.
_RISING = (("INPUT.VALUE_RANGE",), ("INPUT.MIN_SCALE", "INPUT.MAX_SCALE"))


def check_values(cfg: CfgNode) -> None:
    """Check each value for itself.

    Raises:
        ConfigError: one that cannot work, with those that can.
    """
    for (least, most), keys in RANGES.items():
        for key in keys:
            if not all(least <= value <= most and value < _INF for value in _members(cfg, key)):
                low = "above 0" if least == _ABOVE_0 else f"at least {least:g}"
                high = {_INF: "", _BELOW_1: " and below 1"}.get(most, f" and at most {most:g}")
                raise _refusal(cfg, key, low + high)
    for key, registry in _REGISTRIES.items():
        if get_value(cfg, key):
            _check_name(key, get_value(cfg, key), [name for name, _ in registry])
    for key, known in CHOICES.items():
        if not _is_a_strangers(cfg, key):
            _check_name(key, get_value(cfg, key), known)
    for key, lengths in _LENGTHS.items():
        if len(get_value(cfg, key)) not in lengths and not _is_a_strangers(cfg, key):
            raise _refusal(cfg, key, f"{' or '.join(map(str, lengths))} numbers")
    for key in _NOT_EMPTY:
        if not len(_members(cfg, key)):
            raise _refusal(cfg, key, "one number or more")
    for key in _ODD:
        if get_value(cfg, key) < 1 or get_value(cfg, key) % 2 == 0:
            raise _refusal(cfg, key, "an odd number of at least 1")
    for pair in _RISING:
        values = [value for key in pair for value in _members(cfg, key)]
        if values != sorted(values) or (len(pair) == 1 and len(set(values)) < len(values)):
            raise ConfigError(f"{', '.join(pair)} {values} should rise: the low end, then the high")
    if len(cfg.MODEL.PIXEL_MEAN) != len(cfg.MODEL.PIXEL_STD):
        raise ConfigError(
            f"MODEL.PIXEL_MEAN has {len(cfg.MODEL.PIXEL_MEAN)} numbers and MODEL.PIXEL_STD "
            f"{len(cfg.MODEL.PIXEL_STD)}: give one of each for every channel"
        )
    try:
        torch.device(cfg.MODEL.DEVICE)
    except RuntimeError:
        raise ConfigError(
            f"MODEL.DEVICE {cfg.MODEL.DEVICE} should be cpu, cuda or cuda:0"
        ) from None


def _is_a_strangers(cfg: CfgNode, key: str) -> bool:
    """Whether a key is read by a head of somebody else's, who may take other values."""
    name = cfg.MODEL.SEM_SEG_HEAD.NAME
    if not key.startswith("MODEL.SEM_SEG_HEAD.") or name not in SEM_SEG_HEADS_REGISTRY:
        return False
    maker = SEM_SEG_HEADS_REGISTRY.get(name).__module__.partition(".")[0]
    return maker not in ("seg_plugins", "detectron2")


def _members(cfg: CfgNode, key: str) -> list[Any]:
    value = get_value(cfg, key)
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _refusal(cfg: CfgNode, key: str, wanted: str) -> ConfigError:
    usual = get_value(get_cfg(), key)
    spelled = f'"{usual}"' if isinstance(usual, (list, tuple)) else usual
    return ConfigError(f"{key} {get_value(cfg, key)} should be {wanted}, e.g. {key} {spelled}")


def _check_name(key: str, name: str, known: Iterable[str]) -> None:
    known = list(known)
    if name in known:
        return
    shown = known if len(known) < 10 else difflib.get_close_matches(name, known, 5, 0.0)
    listed = ", ".join(each or '""' for each in shown)
    raise ConfigError(f"{key} {name} is not one of {listed}")
