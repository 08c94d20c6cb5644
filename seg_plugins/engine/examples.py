"""The worst and the best images of an evaluation, predicted again and drawn for the report."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from ..data import Dataset, build_mapper
from ..io.images import read_image
from ..io.panoptic import read_segment_ids
from ..tasks import task_of_output
from ..visualization import errors, overlays
from ..visualization.segments import panoptic

logger = logging.getLogger(__name__)

_WIDTH = 360  # pixels of a picture; larger ones are shrunk to it
_QUALITY = 84  # of JPEG
_SUFFIX = "_per_image.jsonl"

Pictures = dict[str, np.ndarray]


def write_examples(cfg: CfgNode, model: nn.Module, folder: Path, count: int) -> None:
    """Write ``folder/examples.json`` and the pictures it names.

    Args:
        cfg: the run's configuration.
        model: in any mode, which it keeps.
        folder: ``inference/examples`` of the run; what it holds is replaced.
        count: images with the lowest score, and as many with the highest, for each task.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.jpg"):
        old.unlink()
    entries: list[dict[str, Any]] = []
    mapper = build_mapper(cfg, False)
    was_training = model.training
    model.eval()
    for task, dataset, ranked in _scored(folder.parent):
        records = {str(record["file_name"]): record for record in dataset.records}
        for rank, score in _extremes(ranked, count):
            record = records.get(str(score["file_name"]))
            if record is None:  # scored on another machine, or the dataset has moved since
                logger.warning(
                    "%s is not in %s: no pictures of it", score["file_name"], dataset.name
                )
                continue
            with torch.no_grad():
                output = model([mapper(copy.deepcopy(record))])[0]
            drawn, segments = draw(task, record, output, dataset, cfg.INPUT.FORMAT)
            names = {kind: f"{len(entries):03}_{kind}.jpg" for kind in drawn}
            for kind, picture in drawn.items():
                (folder / names[kind]).write_bytes(_jpeg(picture))
            entries.append(
                {
                    "task": task,
                    "dataset": dataset.name,
                    "rank": rank,
                    "file_name": str(score["file_name"]),
                    "score": score["score"],
                    "pictures": names,
                    "segments": segments,
                    "legend": _legend(dataset) if task == "sem_seg" else [],
                }
            )
    model.train(was_training)
    (folder / "examples.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")


def _scored(inference: Path) -> Iterator[tuple[str, Dataset, list[dict[str, Any]]]]:
    """(task, dataset, scores of its images from low to high) of the evaluations in a folder."""
    for file in sorted(inference.rglob(f"*{_SUFFIX}")):
        task = file.name.removesuffix(_SUFFIX)
        results = json.loads(file.with_name(f"{task}_results.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        ranked = [line for line in lines if line["score"] is not None]
        ranked.sort(key=lambda line: (line["score"], str(line["file_name"])))
        if results.get("dataset") in DatasetCatalog.list():
            yield task, Dataset.get(results["dataset"]), ranked


def _extremes(ranked: list[dict[str, Any]], count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    worst = ranked[: min(count, (len(ranked) + 1) // 2)]
    best = ranked[::-1][: min(count, len(ranked) - len(worst))]
    yield from (("worst", line) for line in worst)
    yield from (("best", line) for line in best)


def _legend(dataset: Dataset) -> list[list[Any]]:
    """[class, [R, G, B]] of each semantic class."""
    return [[n, list(c)] for n, c in zip(dataset.stuff.names, dataset.stuff.colors, strict=False)]


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
        dataset: for classes and colours.
        image_format: of the model's input.

    Returns:
        ``image``, ``truth``, ``prediction`` and ``error``, (H, W, 3) uint8 RGB, as far as there is
        ground truth; and (id, class, pixels, score) of each predicted panoptic segment.
    """
    image = picture_of(record, image_format)
    if task == "sem_seg":
        return {"image": image, **_semantic(image, record, output, dataset)}, []
    if task == "instances":
        return {"image": image, **_instances(image, record, output)}, []
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
    # Label files may hold other values than the class ids, or colours.
    read = record.get("sem_seg_encoding") or dataset.read_label
    truth = read(record["sem_seg_file_name"])
    scores = output["sem_seg"]
    labels = (scores.argmax(0) if len(scores) > 1 else scores[0] > 0).cpu().numpy()
    colours = np.asarray(dataset.stuff.colors, np.uint8)
    ignore = dataset.ignore_label
    return {
        "truth": overlays.semantic(image, truth, colours, ignore),
        "prediction": overlays.semantic(image, labels, colours, ignore),
        "error": errors.wrong_labels(image, truth, labels, ignore),
    }


def _instances(image: np.ndarray, record: Mapping[str, Any], output: Mapping[str, Any]) -> Pictures:
    found = output["instances"].to("cpu")
    found = found[found.scores > 0.5]
    boxes = found.pred_boxes.tensor.numpy()
    truth = _true_masks(record, image.shape[:2])
    if not found.has("pred_masks"):
        return {
            "truth": overlays.instances(image, truth),
            "prediction": overlays.instances(image, None, boxes),
        }
    masks = np.asarray(found.pred_masks).astype(bool)
    return {
        "truth": overlays.instances(image, truth),
        "prediction": overlays.instances(image, masks, boxes),
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
    colours = np.asarray(dataset.stuff.colors, np.uint8)
    # Ids of the ground truth are too long to be read.
    pictures = {
        "truth": panoptic(image, true_ids, record["segments_info"], colours, numbers=False),
        "prediction": panoptic(image, ids, infos or [], colours),
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


def _jpeg(picture: np.ndarray) -> bytes:
    if picture.shape[1] > _WIDTH:
        height = max(1, round(picture.shape[0] * _WIDTH / picture.shape[1]))
        picture = cv2.resize(picture, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    return cv2.imencode(".jpg", picture[:, :, ::-1], quality)[1].tobytes()
