"""What files of predictions hold, as the outputs of a model that an evaluator takes."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from seg_plugins.ops.run_length import RunLengthMasks, mask_areas
from seg_plugins.ops.segmentation_metrics import as_tensor

import numpy as np
import torch
from detectron2.structures import Instances

from ..data import Dataset, DatasetError
from ..data.result_files.detections import detections_of, unknown_error
from ..data.result_files.image_names import ImageNames
from ..data.result_files.label_maps import (
    VOLUMES,
    find_label_files,
    label_map,
    masks_by_image,
    volume_places,
)
from ..data.result_files.listed import ResultFile
from ..data.result_files.segments import panoptic_results
from ..io.arrays import as_label
from ..io.images import read_label
from ..io.nifti import nifti_slices, read_nifti
from ..io.panoptic import read_segment_ids
from .errors import EvaluationError
from .instance_predictions import StatedBoxes

logger = logging.getLogger(__name__)

#: An input of an evaluator and what a model would have given for it.
Pair = tuple[dict[str, Any], dict[str, Any]]

_SHOWN = 5


def detections(dataset: Dataset, file: ResultFile) -> Iterator[Pair]:
    """``instances`` of every image of a dataset, from COCO's or LVIS's results.

    An image that the file does not list has no detections, as in pycocotools; their number is in
    a warning.

    Raises:
        DatasetError: an unknown image or category, or a field that is wrong.
    """
    found = detections_of(file)
    records = dataset.instance_records
    id_in_file = _ids_in_file(dataset, records, file, list(found.by_image))
    classes = {category: place for place, category, _ in dataset.instance_classes}
    names = {category: name for _, category, name in dataset.instance_classes}
    listed = [np.zeros(0, np.int64), *(image.categories for image in found.by_image.values())]
    used = np.unique(np.concatenate(listed))
    category_ids = file.category_ids(names, used.tolist())
    _check_categories(file, category_ids, used, names, dataset)
    class_of = {own: classes[category] for own, category in category_ids.items()}
    empty = [r["image_id"] for r in records if id_in_file[r["image_id"]] not in found.by_image]
    if empty:
        logger.warning(
            "%s: %d of the %d images of '%s' have no detection (%s): they count as images where "
            "nothing was found",
            file.path, len(empty), len(records), dataset.name, _first(empty),
        )  # fmt: skip
    for record in records:
        image = found.of(id_in_file[record["image_id"]])
        instances = Instances((record.get("height", 0), record.get("width", 0)))
        instances.pred_boxes = StatedBoxes(image.boxes)
        instances.scores = torch.from_numpy(image.scores)
        instances.pred_classes = torch.tensor(
            [class_of[c] for c in image.categories.tolist()], dtype=torch.int64
        )
        if image.masks is not None:
            instances.pred_masks = image.masks
        yield _given(record), {"instances": instances}


def semantic_masks(dataset: Dataset, file: ResultFile) -> Iterator[Pair]:
    """``sem_seg`` label maps from ``sem_seg_predictions.json``, as Detectron2 writes it.

    Raises:
        DatasetError: an unknown image or category, or a field that is wrong.
        EvaluationError: images of the dataset have no mask.
    """
    by_name = masks_by_image(file)
    names = ImageNames(dataset.name, dataset.records)
    places: dict[int, list[int]] = {}
    for name, own in by_name.items():
        places.setdefault(names.find(name), []).extend(own)
    _check_missing(file.path, dataset, places)
    classes = {category: place for place, category in dataset.label_category_ids.items()}
    if len(classes) < len(dataset.stuff):
        raise EvaluationError(
            f"{file.path}: '{dataset.name}' has one category id for several of its classes, so "
            "masks by category id do not tell them apart: give label maps"
        )
    for position, record in enumerate(dataset.records):
        check_run_lengths(file, places[position])
        labels = label_map(file, places[position], classes, dataset.ignore_label)
        yield _given(record), {"sem_seg": torch.from_numpy(labels)}


def label_maps(dataset: Dataset, folder: Path) -> Iterator[Pair]:
    """``sem_seg`` from a folder with a file of class ids per image, called as the image.

    Or NIfTI files called as the volumes whose slices are the images, ``<volume>_<number>``.

    Pixels with the dataset's ignore label were given no class: they count as missed, and their
    number is in a warning.

    Raises:
        DatasetError: a file that is no label map, or belongs to no image.
        EvaluationError: images of the dataset have no file, or one has two.
    """
    names = ImageNames(dataset.name, dataset.records)
    files: dict[int, tuple[Path, int | None]] = {}  # with the slice of a volume
    for file in find_label_files(folder):
        if file.name.lower().endswith(VOLUMES):
            slices = nifti_slices(file)
            places = volume_places(file, slices, dataset.records, dataset.name)
            found: list[tuple[int, int | None]] = [(p, number) for number, p in enumerate(places)]
        else:
            found = [(names.find(file.relative_to(folder).as_posix()), None)]
        for position, number in found:
            if position in files:
                raise EvaluationError(
                    f"{files[position][0]} and {file} are both of the image "
                    f"{dataset.records[position]['file_name']}: leave one of them"
                )
            files[position] = file, number
    _check_missing(folder, dataset, files)
    nothing = 0
    volume = lru_cache(maxsize=1)(read_nifti)  # its slices come one after another
    for position, record in enumerate(dataset.records):
        file, number = files[position]
        if number is None:
            labels = read_label(str(file))
        else:
            labels = as_label(str(file), volume(str(file))[number], color=False)
        nothing += int(np.count_nonzero(labels == dataset.ignore_label))
        yield _given(record), {"sem_seg": as_tensor(labels)}
    if nothing:
        logger.warning(
            "%s: %d pixels have the ignore label %d: nothing was predicted there, which counts as "
            "missed",
            folder, nothing, dataset.ignore_label,
        )  # fmt: skip


def panoptic_segments(dataset: Dataset, file: ResultFile) -> Iterator[Pair]:
    """``panoptic_seg`` of every image, from COCO's panoptic results.

    Raises:
        DatasetError: an unknown image or category, or a field or PNG that is wrong.
        EvaluationError: images of the dataset are missing, or one is there twice.
    """
    truth = dataset.panoptic
    results = panoptic_results(file)
    ids = [result.image_id for result in results]
    id_in_file = _ids_in_file(dataset, truth.records, file, list(dict.fromkeys(ids)))
    found = {result.image_id: result for result in results}
    if len(found) < len(ids):
        twice = next(i for i in found if ids.count(i) > 1)
        raise EvaluationError(f"{file.path}: image_id {twice!r} is there {ids.count(twice)} times")
    keys = [record["image_id"] for record in truth.records]
    missing = [key for key in keys if id_in_file[key] not in found]
    if missing:
        raise EvaluationError(missing_text(file.path, dataset.name, missing, len(keys)))
    used = np.unique([category for result in results for _, category in result.segments])
    names = {category["id"]: category["name"] for category in truth.categories}
    category_ids = file.category_ids(names, used.astype(np.int64).tolist())
    _check_categories(file, category_ids, used, names, dataset)
    # The image's own name, for the line of the image: segments of a file alone have none.
    own_names = {r["image_id"]: r["file_name"] for r in dataset.records if "image_id" in r}
    for record in truth.records:
        result = found[id_in_file[record["image_id"]]]
        segments = [{"id": i, "category_id": category_ids[c]} for i, c in result.segments]
        pixels = read_segment_ids(str(result.png)).astype(np.int64)
        given = _given({**record, "file_name": own_names.get(record["image_id"])})
        yield given, {"panoptic_seg": (torch.from_numpy(pixels), segments)}


def _given(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: record.get(key) for key in ("file_name", "image_id") if record.get(key) is not None
    }


def _ids_in_file(
    dataset: Dataset,
    records: Sequence[Mapping[str, Any]],
    file: ResultFile,
    used: Sequence[Hashable],
) -> dict[Hashable, Hashable]:
    """Image id of the dataset -> id in the file.

    By file name where the file lists images, for those who predict a folder number its images as
    they like; else the ids are the dataset's.

    Raises:
        DatasetError: results of an image that the dataset has not.
    """
    ids = {record["image_id"]: record["image_id"] for record in records}
    if not file.images:
        unknown = [image_id for image_id in used if image_id not in ids]
        if unknown:
            raise unknown_error(file, unknown[0], len(ids), dataset.name)
        return ids
    names = ImageNames(dataset.name, records)
    found: dict[Hashable, Hashable] = {}
    for image_id in used:
        try:
            own = records[names.find(file.images[image_id])]["image_id"]
        except KeyError:
            raise DatasetError(
                f"{file.path}: results of image_id {image_id!r}, which is none of its images"
            ) from None
        except DatasetError:
            if image_id not in ids:  # of a dataset whose images have no names of their own
                raise
            own = image_id
        if own in found:
            raise DatasetError(f"{file.path}: {found[own]!r} and {image_id!r} are one image: {own}")
        found[own] = image_id
    return {key: found.get(key, _NOTHING) for key in ids}


#: Stands for the id of an image that a file has no results of.
_NOTHING = object()


def _check_categories(
    file: ResultFile,
    known: Mapping[int, int],
    used: np.ndarray,
    names: Mapping[int, str],
    dataset: Dataset,
) -> None:
    unknown = [int(category) for category in used if int(category) not in known]
    if unknown:
        raise DatasetError(
            f"{file.path}: category_id {unknown[0]} is none of the {len(names)} of "
            f"'{dataset.name}' ({', '.join(f'{i} {n}' for i, n in list(names.items())[:_SHOWN])}"
            f"{', ...' if len(names) > _SHOWN else ''})"
        )


def _check_missing(source: Path, dataset: Dataset, found: Mapping[int, Any]) -> None:
    names = [record["file_name"] for record in dataset.records]
    missing = [name for position, name in enumerate(names) if position not in found]
    if missing:
        raise EvaluationError(missing_text(source, dataset.name, missing, len(names)))


def missing_text(source: Path, dataset: str, missing: Sequence[Any], count: int) -> str:
    """What to say of images of a dataset for which files hold no prediction."""
    return (
        f"{source}: nothing was predicted for {len(missing)} of the {count} images of "
        f"'{dataset}' ({_first(missing)}): predict them, or score a dataset without them"
    )


def _first(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")


def check_run_lengths(file: ResultFile, places: Sequence[int]) -> None:
    """Refuse run lengths that do not fill their image, which pycocotools draws without a word.

    Raises:
        DatasetError: the message names the result.
    """
    for place in places:
        rle = file.records[place].get("segmentation")
        if not (isinstance(rle, Mapping) and isinstance(rle.get("counts"), str)):
            continue  # refused where it is read
        try:
            mask_areas(RunLengthMasks.from_strings([rle["counts"]], *rle["size"]))
        except (ValueError, TypeError, KeyError) as error:
            raise file.fail(place, f"segmentation: {error}") from None
