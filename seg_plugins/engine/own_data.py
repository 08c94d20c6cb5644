"""Training on data of the user's own: ``seg-plugins train --data FILE``."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ..config import ConfigError, Origin, get_value
from ..data import Dataset, DatasetError
from ..data.datasets.custom import described_task
from ..io.images import read_image

logger = logging.getLogger(__name__)

# Images that are read for sizes and channels, evenly spread over the training set.
SAMPLES = 32
# Shorter side of images in training: that of the data, between these.
SMALLEST, LARGEST = 128, 512
# Crops, so that a batch fits into the memory of a small machine.
CROP = 320
# Evaluations in a run: the best weights are kept.
EVALUATIONS = 5


@dataclass(frozen=True)
class ImageFacts:
    """What a training has to know of images.

    Attributes:
        images: that were read.
        height, width: medians.
        format: ``INPUT.FORMAT`` that reads all of them: RGB (grey, too), else raw.
        mean, std: of each channel, in the unit of the files; empty for RGB.
    """

    images: int
    height: int
    width: int
    format: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


def own_config(file: str) -> str:
    """The shipped configuration for the task of a description.

    Raises:
        DatasetError: the file is missing or names no task.
    """
    return f"own/{described_task(file).removesuffix('_separated')}.yaml"


def measure_images(records: list[dict[str, Any]]) -> ImageFacts:
    """Read some of the images.

    Raises:
        DatasetError: there is none, one is unreadable or has no finite pixel, or they have
            different numbers of channels.
    """
    if not records:
        raise DatasetError("there is no image to train on")
    chosen = np.linspace(0, len(records) - 1, min(SAMPLES, len(records))).round().astype(int)
    names = [records[i]["file_name"] for i in chosen]
    try:
        sizes, form = [read_image(name, "RGB").shape[:2] for name in names], "RGB"
    except DatasetError:  # more bits or bands; a damaged file fails again below, by its name
        sizes, form = [], "raw"
    channels = []
    for name in names if form == "raw" else ():
        image = read_image(name, form)
        sizes.append(image.shape[:2])
        pixels = np.atleast_3d(image).reshape(-1, 1 if image.ndim == 2 else image.shape[2])
        pixels = pixels[np.isfinite(pixels).all(axis=1)].astype(np.float64)
        if not len(pixels):
            raise DatasetError(f"{name}: no pixel is a finite number; leave the image out")
        channels.append((name, pixels.mean(axis=0), (pixels**2).mean(axis=0)))
    height, width = (int(value) for value in np.median(sizes, axis=0))
    if form == "RGB":
        return ImageFacts(len(names), height, width, form)
    for name, first, _ in channels:
        if len(first) != len(channels[0][1]):
            raise DatasetError(
                f"{name} has {len(first)} channels, {channels[0][0]} has {len(channels[0][1])}: "
                "a network takes one number of them"
            )
    mean = np.mean([first for _, first, _ in channels], axis=0)
    square = np.mean([second for _, _, second in channels], axis=0)
    std = np.sqrt(np.maximum(square - mean**2, 0))
    std[std == 0] = 1.0  # a channel that is the same everywhere
    values = (tuple(float(f"{value:.6g}") for value in part) for part in (mean, std))
    return ImageFacts(len(names), height, width, form, *values)


def fit_to_data(cfg: CfgNode, origin: Origin) -> None:
    """Set sizes and channels by the training images, but for the user's own keys.

    ``INPUT.FIT_TO_DATA`` becomes False: config.yaml tells the sizes, whatever the data become.

    Raises:
        ConfigError: no training set is named.
        DatasetError: see :func:`measure_images`.
        WeightsError: the weights to start from are not installed.
    """
    if not cfg.DATASETS.TRAIN:
        raise ConfigError(
            "INPUT.FIT_TO_DATA reads training images, and no dataset is named: give --data FILE "
            "(datasets/custom.example.yaml shows how) or DATASETS.TRAIN"
        )
    cfg.INPUT.FIT_TO_DATA = False
    facts = measure_images(Dataset.get(cfg.DATASETS.TRAIN[0]).records)
    side = _multiple(min(max(min(facts.height, facts.width), SMALLEST), LARGEST))
    crop = min(side, CROP)
    values: dict[str, Any] = {
        "INPUT.MIN_SIZE_TRAIN": tuple(_multiple(part * side) for part in (0.75, 1, 1.25)),
        "INPUT.MAX_SIZE_TRAIN": 5 * side,
        "INPUT.MIN_SIZE_TEST": side,
        "INPUT.MAX_SIZE_TEST": 4 * side,
        "INPUT.CROP.SIZE": [crop, crop],
        "INPUT.FORMAT": facts.format,
    }
    if facts.mean:
        values["MODEL.PIXEL_MEAN"] = list(facts.mean)
        values["MODEL.PIXEL_STD"] = list(facts.std)
        # These are made for 8 bits.
        values["INPUT.COLOR_AUG_SSD"] = False
    changes = {key: value for key, value in values.items() if not origin.by_user(key)}
    cfg.merge_from_list([part for pair in changes.items() for part in pair])
    logger.info(
        "Of %d training images (%dx%d, the median): %s",
        facts.images, facts.width, facts.height,
        ", ".join(f"{key} {get_value(cfg, key)}" for key in changes),
    )  # fmt: skip
    if not origin.by_user("MODEL.WEIGHTS"):  # now, not when the model has been built
        PathManager.get_local_path(cfg.MODEL.WEIGHTS)


def plan_evaluations(cfg: CfgNode, origin: Origin) -> None:
    """Evaluate a few times in a run, where there is something to evaluate on."""
    if cfg.DATASETS.TEST and not origin.by_user("TEST.EVAL_PERIOD"):
        cfg.TEST.EVAL_PERIOD = max(cfg.SOLVER.MAX_ITER // EVALUATIONS, 1)


def _multiple(side: float) -> int:
    return max(round(side / 32), 1) * 32
