"""The worst and the best images of an evaluation, predicted again and drawn for the report."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from ..data import Dataset
from ..tasks import TASKS
from .samples import draw, prediction_of_records

logger = logging.getLogger(__name__)

_WIDTH = 360  # pixels of a picture; larger ones are shrunk to it
_QUALITY = 84  # of JPEG
_SUFFIX = "_per_image.jsonl"


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
    with prediction_of_records(cfg, model) as predict:
        for task, key, dataset, rank, record, score in _chosen(folder.parent, count):
            drawn, segments = draw(key, record, predict(record), dataset, cfg.INPUT.FORMAT)
            names = {kind: f"{len(entries):03}_{kind}.jpg" for kind in drawn}
            for kind, picture in drawn.items():
                (folder / names[kind]).write_bytes(_jpeg(picture))
            entries.append(
                {
                    "task": task,
                    "dataset": dataset.name,
                    "rank": rank,
                    "file_name": str(record["file_name"]),
                    "score": score,
                    "pictures": names,
                    "segments": segments,
                    "legend": _legend(dataset) if key == "sem_seg" else [],
                }
            )
    (folder / "examples.json").write_text(json.dumps(entries, indent=1), encoding="utf-8")


def image_scores(inference: Path, dataset: str) -> dict[str, list[str]]:
    """File name -> what the evaluations in a folder gave that image of a dataset, in words."""
    found: dict[str, list[str]] = {}
    for task, _, scored, lines in _scored(inference):
        if scored.name == dataset:
            for line in lines:
                words = found.setdefault(str(line["file_name"]), [])
                words.append(f"{task} {line['score']:.1f}")
    return found


def _chosen(
    inference: Path, count: int
) -> Iterator[tuple[str, str, Dataset, str, dict[str, Any], float]]:
    """(task, key of the output, dataset, ``worst`` or ``best``, record, score) of each image to be
    drawn.
    """
    for task, key, dataset, ranked in _scored(inference):
        records = {str(record["file_name"]): record for record in dataset.records}
        for rank, line in _extremes(ranked, count):
            record = records.get(str(line["file_name"]))
            if record is None:  # scored on another machine, or the dataset has moved since
                logger.warning(
                    "%s is not in %s: no pictures of it", line["file_name"], dataset.name
                )
            else:
                yield task, key, dataset, rank, record, line["score"]


def _scored(inference: Path) -> Iterator[tuple[str, str, Dataset, list[dict[str, Any]]]]:
    """Of the evaluations in a folder: the task, the key of the model's output that it scores, the
    dataset, and the scores of its images from low to high.
    """
    for file in sorted(inference.rglob(f"*{_SUFFIX}")):
        task = file.name.removesuffix(_SUFFIX)
        results = json.loads(file.with_name(f"{task}_results.json").read_text(encoding="utf-8"))
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        ranked = [line for line in lines if line.get("score") is not None]
        ranked.sort(key=lambda line: (line["score"], str(line["file_name"])))
        key = results.get("output") or task
        if key not in {known.output for known in TASKS}:
            logger.warning("%s: nothing is drawn of the output '%s'", file.name, key)
        elif results.get("dataset") in DatasetCatalog.list():
            yield task, key, Dataset.get(results["dataset"]), ranked


def _extremes(ranked: list[dict[str, Any]], count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    worst = ranked[: min(count, (len(ranked) + 1) // 2)]
    best = ranked[::-1][: min(count, len(ranked) - len(worst))]
    yield from (("worst", line) for line in worst)
    yield from (("best", line) for line in best)


def _legend(dataset: Dataset) -> list[list[Any]]:
    """[class, [R, G, B]] of each semantic class."""
    return [[n, list(c)] for n, c in zip(dataset.stuff.names, dataset.stuff.colors, strict=False)]


def _jpeg(picture: np.ndarray) -> bytes:
    if picture.shape[1] > _WIDTH:
        height = max(1, round(picture.shape[0] * _WIDTH / picture.shape[1]))
        picture = cv2.resize(picture, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    return cv2.imencode(".jpg", picture[:, :, ::-1], quality)[1].tobytes()
