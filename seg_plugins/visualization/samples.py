"""Samples of a dataset drawn: image, ground truth, prediction and what is wrong in it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from torch import nn

from ..data import Dataset, build_mapper
from ..io.images import read_image
from ..io.panoptic import read_segment_ids
from ..tasks import TASKS, task_of_output
from . import errors, overlays
from .segments import panoptic

Pictures = dict[str, np.ndarray]


@contextlib.contextmanager
def prediction_of_records(
    cfg: CfgNode, model: nn.Module
) -> Iterator[Callable[[Mapping[str, Any]], dict[str, Any]]]:
    """A function that gives the model's output for a record; afterwards the model has its mode."""
    mapper = build_mapper(cfg, False)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield lambda record: model([mapper(copy.deepcopy(record))])[0]
    finally:
        model.train(was_training)


def has_truth(task: str, record: Mapping[str, Any]) -> bool:
    """Whether a record has what a task is drawn beside: the key of a model's output names it."""
    key = task_of_output(task).record_key
    return key in record or (task == "instances" and "pan_seg_file_name" in record)


def draw(
    task: str,
    record: Mapping[str, Any],
    output: Mapping[str, Any],
    dataset: Dataset,
    image_format: str,
) -> tuple[Pictures, list[list[Any]]]:
    """Draw one sample.

    Args:
        task: ``sem_seg``, ``instances`` or ``panoptic_seg``.
        record: of the dataset.
        output: of the model, at the image's size.
        dataset: for classes and colors.
        image_format: of the model's input.

    Returns:
        ``image``, ``truth``, ``prediction`` and ``error``, (H, W, 3) uint8 RGB, as far as there is
        ground truth; and (id, class, pixels, score) of each predicted panoptic segment.
    """
    image = picture_of(record, image_format)
    if task == "sem_seg":
        return {"image": image, **_semantic(image, record, output, dataset)}, []
    if task == "instances":
        return {"image": image, **_instances(image, record, output, dataset)}, []
    pictures, segments = _panoptic(image, record, output, dataset)
    return {"image": image, **pictures}, segments


def picture_of(record: Mapping[str, Any], image_format: str) -> np.ndarray:
    """A sample's image, (H, W, 3) uint8 RGB."""
    # Only "raw" reads every kind of file, where the model takes that.
    stored = read_image(record["file_name"], "raw" if image_format == "raw" else "RGB")
    return overlays.displayable(stored)


def _semantic(
    image: np.ndarray, record: Mapping[str, Any], output: Mapping[str, Any], dataset: Dataset
) -> Pictures:
    # Label files may hold other values than the class ids, or colors.
    read = record.get("sem_seg_encoding") or dataset.read_label
    truth = read(record["sem_seg_file_name"])
    scores = output["sem_seg"]
    labels = (scores.argmax(0) if len(scores) > 1 else scores[0] > 0).cpu().numpy()
    colors = np.asarray(dataset.stuff.colors, np.uint8)
    ignore = dataset.ignore_label
    return {
        "truth": overlays.semantic(image, truth, colors, ignore),
        "prediction": overlays.semantic(image, labels, colors, ignore),
        "error": errors.wrong_labels(image, truth, labels, ignore),
    }


def _instances(
    image: np.ndarray, record: Mapping[str, Any], output: Mapping[str, Any], dataset: Dataset
) -> Pictures:
    found = output["instances"].to("cpu")
    found = found[found.scores > 0.5]
    boxes = found.pred_boxes.tensor.numpy()
    truth = _true_masks(record, image.shape[:2])
    names = [
        f"{dataset.things.names[kind]} {score:.2f}"
        for kind, score in zip(found.pred_classes.tolist(), found.scores.tolist(), strict=True)
    ]
    if not found.has("pred_masks"):
        return {
            "truth": overlays.instances(image, truth),
            "prediction": overlays.instances(image, None, boxes, names),
        }
    masks = np.asarray(found.pred_masks).astype(bool)
    return {
        "truth": overlays.instances(image, truth),
        "prediction": overlays.instances(image, masks, boxes, names),
        "error": errors.wrong_regions(image, truth, masks),
    }


def _true_masks(record: Mapping[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """(N, H, W) bool: of the annotations, or in a panoptic dataset of the segments of things."""
    if "annotations" in record or "pan_seg_file_name" not in record:
        return overlays.annotation_masks(record, shape)
    ids = read_segment_ids(record["pan_seg_file_name"])
    things = [
        info["id"]
        for info in record["segments_info"]
        if info.get("isthing", True) and not info.get("iscrowd", 0)
    ]
    return ids == np.array(things, ids.dtype).reshape(-1, 1, 1)


def _panoptic(
    image: np.ndarray, record: Mapping[str, Any], output: Mapping[str, Any], dataset: Dataset
) -> tuple[Pictures, list[list[Any]]]:
    ids, infos = output["panoptic_seg"]
    ids = ids.cpu().numpy()
    true_ids = read_segment_ids(record["pan_seg_file_name"])
    found = _segments(ids, infos or [], dataset)
    truth = _segments(true_ids, record["segments_info"], dataset)
    void = -1
    names = [name for name, _ in (*truth, *found)]
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    maps = []
    for segments in (truth, found):
        labels = np.full(image.shape[:2], void, np.int32)
        for name, mask in segments:
            labels[mask] = numbers[name]
        maps.append(labels)
    rows = [
        [str(info["id"]), name, int(mask.sum()), info.get("score")]
        for (name, mask), info in zip(found, infos or [], strict=True)
    ]
    colors = np.asarray(dataset.stuff.colors, np.uint8)
    # Ids of the ground truth are too long to be read.
    pictures = {
        "truth": panoptic(image, true_ids, record["segments_info"], colors, numbers=False),
        "prediction": panoptic(image, ids, infos or [], colors),
        "error": errors.wrong_labels(image, maps[0], maps[1], void),
    }
    return pictures, rows


def _segments(
    ids: np.ndarray, infos: list[dict[str, Any]], dataset: Dataset
) -> list[tuple[str, np.ndarray]]:
    """(class name, (H, W) bool) of each segment."""
    segments = []
    for info in infos:
        number = info["category_id"]
        kind = "thing" if info.get("isthing", True) else "stuff"
        names = (dataset.things if kind == "thing" else dataset.stuff).names
        name = names[number] if number < len(names) else f"{kind} {number}"
        segments.append((name, ids == info["id"]))
    return segments


def draw_row(
    record: Mapping[str, Any], prediction: Mapping[str, Any], dataset: Dataset, image_format: str
) -> Pictures:
    """The image, and truth and prediction of each task that both have, by their titles."""
    row = {"image": picture_of(record, image_format)}
    keys = [task.output for task in TASKS if task.output in prediction]
    shown = [key for key in keys if has_truth(key, record)]
    if "panoptic_seg" in shown:  # which shows the instances too
        shown = [key for key in shown if key != "instances"]
    for key in reversed(shown):
        drawn, _ = draw(key, record, prediction, dataset, image_format)
        title = task_of_output(key).title.lower()
        row |= {f"{title} truth": drawn["truth"], f"{title} prediction": drawn["prediction"]}
    return row
