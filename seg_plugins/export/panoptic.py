"""The merging of panoptic systems beside their files: settings, function, and its check."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from ..modeling.meta_arch.panoptic_bottom_up import BottomUpPanopticSegmentor
from ..modeling.meta_arch.panoptic_output import PanopticOutput
from . import panoptic_centers, panoptic_outlines, panoptic_regions

#: Name of the function's file in the folder of an export.
FILE = "panoptic.py"
#: Share of the pixels that may be another segment's: those whose two best classes are equal but
#: for rounding, and those on the borders of masks.
TOLERANCE = 1e-3

Segments = tuple[np.ndarray, list[dict[str, Any]]]


def is_panoptic(model: nn.Module) -> bool:
    """Whether a system gives ``panoptic_seg``."""
    return isinstance(model, PanopticOutput | BottomUpPanopticSegmentor)


def merging_settings(
    model: nn.Module, names: tuple[str, ...], mask_threshold: float = 0.5
) -> dict[str, Any]:
    """What the function of a panoptic system takes as ``settings``; JSON can hold it.

    Args:
        model: see :func:`is_panoptic`.
        names: of the file's outputs.
        mask_threshold: of the probabilities of masks of the image's size.
    """
    if isinstance(model, BottomUpPanopticSegmentor):
        return {"thing_ids": model.thing_ids, **model.grouping}
    thresholds = model.merging()
    of_objects = set(thresholds.pop("thing_ids") or [0])
    return {
        "masks": "boxes" if names[0] == "boxes" else "image" if "masks" in names else "outlines",
        "mask_threshold": mask_threshold,
        "categories": model.thing_ids or list(range(model.num_things)),
        "stuff": [label for label in range(model.num_classes) if label not in of_objects],
        **thresholds,
    }


def merging_module(names: tuple[str, ...]) -> Any:
    """The module with the function ``panoptic``; its file is handed out with the exported one.

    Args:
        names: of the exported file's outputs.
    """
    if "outlines" in names:
        return panoptic_outlines
    return panoptic_centers if "heatmaps" in names else panoptic_regions


def differing_share(found: Segments, expected: Segments) -> float:
    """Share of the pixels that two results put into different segments; 0 to 1.

    Segments correspond where they share most pixels; their kind and category must be equal. Their
    numbers need not be.
    """
    (ids, segments), (wanted, described) = found, expected
    if ids.shape != wanted.shape:
        return 1.0
    kinds = {0: None} | {s["id"]: (s["isthing"], s["category_id"]) for s in segments}
    wanted_kinds = {0: None} | {s["id"]: (s["isthing"], s["category_id"]) for s in described}
    pairs, counts = np.unique(
        np.stack([ids.ravel(), wanted.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    same, used = 0, set()
    for index in np.argsort(-counts, kind="stable"):
        mine, other = (int(number) for number in pairs[:, index])
        if (0, mine) in used or (1, other) in used or (mine == 0) != (other == 0):
            continue
        used |= {(0, mine), (1, other)}
        same += int(counts[index]) if kinds[mine] == wanted_kinds[other] else 0
    return 1 - same / max(ids.size, 1)
