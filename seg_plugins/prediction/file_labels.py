"""The classes of an exported file."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ..data import DatasetError, apply_custom_dataset
from .labels import Labels, labels_from_config, labels_from_metadata

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
        return labels_from_metadata(cfg, _as_of_a_dataset(metadata))
    return labels_from_config(cfg)


def _as_of_a_dataset(metadata: Mapping[str, str]) -> dict[str, Any]:
    """A file's classes by the names that Detectron2's catalogue has for them."""
    found: dict[str, Any] = {"ignore_label": int(metadata["ignore_label"])}
    kinds = {"sem_seg": {"stuff": ""}, "instances": {"thing": ""}}
    for kind, start in kinds.get(metadata["task"], {"thing": "", "stuff": "label_"}).items():
        found[f"{kind}_classes"] = json.loads(metadata[f"{start}classes"])
        found[f"{kind}_colors"] = json.loads(metadata[f"{start}colors"])
    return found
