"""The records that training draws its samples from."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode
from detectron2.data.build import print_instances_class_histogram

from .build import reads_masks
from .dataset import Dataset
from .errors import CollectedErrors, DatasetError
from .samplers import subset_size

__all__ = ["has_object", "training_records", "training_size"]

logger = logging.getLogger(__name__)


def training_size(cfg: CfgNode) -> int:
    """The number of :func:`training_records` that are drawn from, with nothing in the log.

    Those that a sampler repeats count once.
    """
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return subset_size(cfg, len(_chosen(cfg)[0]))
    finally:
        logger.setLevel(level)


def training_records(cfg: CfgNode) -> list[dict[str, Any]]:
    """The dicts of ``DATASETS.TRAIN`` without what cannot be trained on; the log counts that.

    Wrong annotations are left out up to ``DATALOADER.MAX_DAMAGED``, so are annotations without a
    mask where others of the set have one and ``MODEL.MASK_ON`` wants it. With
    ``DATALOADER.FILTER_EMPTY_ANNOTATIONS``, images without an object are left out.

    Raises:
        DatasetError: an unreadable file, more wrong annotations, no mask at all where masks are
            wanted, or nothing to train on.
    """
    chosen, has_annotations = _chosen(cfg)
    things = Dataset.get(cfg.DATASETS.TRAIN[0]).things
    if has_annotations and things:
        annotated = [record for record in chosen if "annotations" in record]
        print_instances_class_histogram(annotated, things.names)
    return chosen


def _chosen(cfg: CfgNode) -> tuple[list[dict[str, Any]], bool]:
    """The records, and whether there are annotations in any of them or of those left out."""
    needs_masks = cfg.MODEL.MASK_ON and reads_masks(cfg)
    chosen: list[dict[str, Any]] = []
    for name in cfg.DATASETS.TRAIN:
        records = Dataset.get(name, cfg.DATALOADER.MAX_DAMAGED).records
        if needs_masks:
            found = CollectedErrors()
            records = _with_masks(records, name, found)
            found.check(cfg.DATALOADER.MAX_DAMAGED, name, records)
        chosen += records
    names = ", ".join(cfg.DATASETS.TRAIN)
    if not chosen:
        raise DatasetError(f"{names}: there is no sample to train on")
    has_annotations = any("annotations" in record for record in chosen)
    if has_annotations:
        chosen = _with_objects(chosen, names, drop=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS)
    return chosen, has_annotations


def _with_masks(
    records: list[dict[str, Any]], name: str, found: CollectedErrors
) -> list[dict[str, Any]]:
    """The records without the objects that lack a mask, which are noted as errors."""
    objects = [
        (record, annotation)
        for record in records
        for annotation in record.get("annotations", ())
        if not annotation.get("iscrowd", 0)
    ]
    lacking = [(r, a) for r, a in objects if not a.get("segmentation")]
    if not lacking:
        return records
    if len(lacking) == len(objects):
        raise DatasetError(
            f"{name}: none of the {len(objects)} annotations has a mask (segmentation), which "
            "MODEL.MASK_ON True trains on: set MODEL.MASK_ON False to train on boxes alone"
        )
    left_out = {id(annotation) for _, annotation in lacking}
    for record, annotation in lacking:
        found(
            DatasetError(
                f"{record['file_name']}: annotation {annotation.get('id', '?')} has no mask "
                f"(segmentation), as {len(lacking)} of {len(objects)}; MODEL.MASK_ON False trains "
                "on boxes alone"
            )
        )
    return [
        {**r, "annotations": [a for a in r["annotations"] if id(a) not in left_out]}
        if "annotations" in r
        else r
        for r in records
    ]


def _with_objects(records: list[dict[str, Any]], names: str, *, drop: bool) -> list[dict[str, Any]]:
    """Count crowds and images without an object, and drop these images if `drop`."""
    crowds = [[bool(a.get("iscrowd", 0)) for a in r.get("annotations", ())] for r in records]
    count, total = sum(map(sum, crowds)), sum(map(len, crowds))
    if count:
        logger.info(
            "%s: %d of %d annotations are crowds (iscrowd 1), which training leaves out",
            names, count, total,
        )  # fmt: skip
    kept = [r for r in records if "annotations" in r and has_object(r)]
    if not drop or len(kept) == len(records):
        return records
    if not kept:
        raise DatasetError(
            f"{names}: no image has an object to train on: {count} of the {total} annotations are "
            "crowds (iscrowd 1), which training leaves out. Give single objects iscrowd 0, or set "
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS False to train on background alone"
        )
    logger.info(
        "%s: %d of %d images have no object and are left out "
        "(DATALOADER.FILTER_EMPTY_ANNOTATIONS False keeps them)",
        names, len(records) - len(kept), len(records),
    )  # fmt: skip
    return kept


def has_object(record: Mapping[str, Any]) -> bool:
    """Whether a record has an object that is no crowd, or is not one of objects at all."""
    if "annotations" not in record:
        return True
    return not all(a.get("iscrowd", 0) for a in record["annotations"])
