"""The classes of an exported file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping

from detectron2.config import CfgNode

from ..data import DatasetError, apply_custom_dataset
from .labels import Label, Labels, labels_from_config

logger = logging.getLogger(__name__)


def labels_of_file(cfg: CfgNode, metadata: Mapping[str, str]) -> Labels:
    """By the dataset, as for the model itself; by the names in the file where that is not at hand.

    Args:
        cfg: the file's configuration.
        metadata: of the file.

    Returns:
        The classes; without the dataset, COCO's ids count from 0, those of things from 1.
    """
    try:
        apply_custom_dataset(cfg)
    except DatasetError as error:  # a file is taken to other machines than its dataset
        logger.warning(
            "The dataset of the file is not here (%s): classes are those that the file names, and "
            "ids of categories in COCO files count them",
            error,
        )
        return _named(metadata, int(metadata["ignore_label"]))
    return labels_from_config(cfg)


def _named(metadata: Mapping[str, str], ignore_label: int) -> Labels:
    things = metadata["task"] == "instances"
    names, colors = json.loads(metadata["classes"]), json.loads(metadata["colors"])
    found = tuple(
        Label(name, (color[0], color[1], color[2]), number + things, things)
        for number, (name, color) in enumerate(zip(names, colors, strict=True))
    )
    return Labels(found, (), ignore_label) if things else Labels((), found, ignore_label)
