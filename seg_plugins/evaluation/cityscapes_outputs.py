"""Cityscapes' result folders, as the outputs of a model that its evaluators take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cityscapesscripts.helpers.labels import id2label
from detectron2.structures import Instances

from ..data import Dataset
from ..io.images import read_label
from .cityscapes_files import INSTANCE_LABELS, frame_name, ground_truth_files, train_id_of_id
from .errors import EvaluationError
from .file_outputs import Pair, missing_text

_KNOWN_IDS = np.array([i for i in id2label if i >= 0])


def label_id_images(dataset: Dataset, folder: Path) -> Iterator[Pair]:
    """``sem_seg`` train ids from a PNG of label ids per frame, called ``<frame>*.png``.

    Raises:
        EvaluationError: a frame has no file or two, one belongs to no frame, or an id is none of
            the label table.
    """
    frames = ground_truth_files(dataset.required("gt_dir"), "labelIds")
    files = _by_frame(dataset, folder, "*.png", frames)
    for frame, given in _inputs(dataset, frames).items():
        ids = read_label(str(files[frame]))
        unknown = np.setdiff1d(ids, _KNOWN_IDS)
        if unknown.size:
            raise EvaluationError(
                f"{files[frame]}: {unknown[0]} is no label id of Cityscapes (0 to "
                f"{_KNOWN_IDS.max()}); its result format has label ids, not train ids"
            )
        labels = cv2.LUT(ids.astype(np.uint8), train_id_of_id())
        yield given, {"sem_seg": torch.from_numpy(labels)}


def instance_lists(dataset: Dataset, folder: Path) -> Iterator[Pair]:
    """``instances`` from ``<frame>*.txt``: lines of mask file, label id and score.

    Raises:
        EvaluationError: a frame has no list or two, or a line, a mask or a label is wrong.
    """
    frames = ground_truth_files(dataset.required("gt_dir"), "instanceIds")
    files = _by_frame(dataset, folder, "*.txt", frames)
    names = list(dataset.things.names)
    classes = {x.id: names.index(x.name) for x in INSTANCE_LABELS if x.name in names}
    for frame, given in _inputs(dataset, frames).items():
        yield given, {"instances": _instances(files[frame], classes)}


def _instances(file: Path, classes: Mapping[int, int]) -> Instances:
    masks, scores, found = [], [], []
    for number, line in enumerate(_text(file).splitlines(), 1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        parts = line.split()
        try:
            name, label, score = parts[0], int(parts[1]), float(parts[2])
        except (ValueError, IndexError):
            raise EvaluationError(
                f"{where}: {line[:60]!r} should be the mask's file, label id and score"
            ) from None
        if label not in classes:
            raise EvaluationError(f"{where}: {label} is none of the label ids {sorted(classes)}")
        if np.isnan(score):
            raise EvaluationError(f"{where}: the score is NaN")
        masks.append((read_label(str(file.parent / name)) != 0).astype(np.uint8))
        if masks[-1].shape != masks[0].shape:
            raise EvaluationError(
                f"{where}: {name} is {masks[-1].shape}, the first mask {masks[0].shape}"
            )
        found.append(classes[label])
        scores.append(score)
    instances = Instances(masks[0].shape if masks else (0, 0))
    instances.scores = torch.tensor(scores, dtype=torch.float64)
    instances.pred_classes = torch.tensor(found, dtype=torch.int64)
    if masks:
        instances.pred_masks = torch.from_numpy(np.stack(masks))
    return instances


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EvaluationError(f"{file}: no readable list of instances ({error})") from None


def _by_frame(
    dataset: Dataset, folder: Path, pattern: str, frames: Mapping[str, Path]
) -> dict[str, Path]:
    """The file of each frame below a folder."""
    files: dict[str, Path] = {}
    for file in sorted(folder.rglob(pattern)):
        frame = frame_name(file)
        if frame not in frames:
            raise EvaluationError(f"{file}: {frame} is none of the {len(frames)} frames of "
                                  f"'{dataset.name}'")  # fmt: skip
        if frame in files:
            raise EvaluationError(f"{files[frame]} and {file} are both of the frame {frame}")
        files[frame] = file
    missing = [frame for frame in frames if frame not in files]
    if missing:
        raise EvaluationError(missing_text(folder, dataset.name, missing, len(frames)))
    return files


def _inputs(dataset: Dataset, frames: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """What a model would be given of each frame, in the dataset's order."""
    known = {frame_name(r["file_name"]): r for r in dataset.records if "file_name" in r}
    inputs: dict[str, dict[str, Any]] = {
        frame: {key: record[key] for key in ("file_name", "image_id") if key in record}
        for frame, record in known.items()
        if frame in frames
    }
    return inputs | {f: {"file_name": str(frames[f])} for f in frames if f not in inputs}
