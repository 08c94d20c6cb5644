"""What evaluation keeps of each image, read back; figures of any weighting of the images."""

from __future__ import annotations

import hashlib
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..coco_matches import MatchedImages
from ..confusion import divide
from ..errors import EvaluationError
from .resampled_ap import resampled_ap
from .resampling import class_sums

#: Percent by which figures of the statistics may differ from the results beside them.
_TOLERANCE = 1e-6


class ImageStatistics(ABC):
    """Statistics of the I images of one evaluation.

    Attributes:
        source: the file.
        dataset: its name.
        images: I names, in an order that depends on the dataset alone.
        rows: of the largest table that a resample needs.
    """

    def __init__(self, source: Path, dataset: str, images: Sequence[str], rows: int) -> None:
        self.source, self.dataset = source, dataset
        self.images, self.rows = images, rows

    @abstractmethod
    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """``group/name`` -> (B,) percent, higher is better; NaN where there is nothing to score.

        Args:
            weights: (I, B) how often each image counts.
        """

    @abstractmethod
    def truth(self) -> Any:
        """What the statistics say of the ground truth, as JSON can hold it."""

    @property
    def fingerprint(self) -> str:
        """Digest of images, classes and truth: the same for evaluations that can be paired."""
        text = json.dumps([list(self.images), self.truth()])
        return hashlib.sha256(text.encode()).hexdigest()


class CountedImages(ImageStatistics):
    """Counts by image and class, from the lines of ``<task>_per_image.jsonl``.

    Args:
        source: the file.
        result: content of ``<task>_results.json``.
        classes: names, in the order of the indices in ``by_class``.
    """

    def __init__(self, source: Path, result: Mapping[str, Any], classes: Sequence[str]) -> None:
        lines = [json.loads(line) for line in source.read_text("utf-8").splitlines()]
        # Processes finish in any order; their lines are brought into one of the images' own.
        names = _image_names(lines)
        order = sorted(range(len(lines)), key=names.__getitem__)
        images = [names[i] for i in order]
        rows = [(i, *entry) for i, line in enumerate(order) for entry in lines[line]["by_class"]]
        rows.sort(key=lambda row: row[1])  # by class; stable, so by image within it
        self._table = np.array(rows, np.float64).reshape(len(rows), -1)
        self.classes = list(classes)
        super().__init__(source, str(result["dataset"]), images, len(rows))

    def sums(self, weights: np.ndarray, columns: int) -> list[np.ndarray]:
        """(K, B) each: the sums by class of the first `columns` counts."""
        if not len(self._table):
            return [np.zeros((len(self.classes), weights.shape[1]))] * columns
        image, category = self._table[:, :2].T.astype(np.int64)
        return [
            class_sums(values, image, category, len(self.classes), weights)
            for values in self._table[:, 2 : 2 + columns].T
        ]

    def truth(self) -> Any:
        """Classes, and (image, class, truth) of all rows with truth."""
        if not len(self._table):
            return [self.classes]
        found = np.column_stack([self._table[:, :2], self.truth_counts(self._table[:, 2:])])
        return [self.classes, found[found[:, 2] > 0].astype(np.int64).tolist()]

    def truth_counts(self, counts: np.ndarray) -> np.ndarray:
        """(N,) how much truth (N, V) counts stand for."""
        raise NotImplementedError


class SemanticImages(CountedImages):
    """Pixels of truth, of prediction and hit, by image and class."""

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """mIoU, fwIoU, mACC and pACC as :func:`..confusion.semantic_scores` defines them."""
        truth, predicted, hits = self.sums(weights, 3)
        present = truth > 0
        iou = divide(hits, np.where(present, truth + predicted - hits, 0))
        shares = divide(truth, truth.sum(axis=0))
        found = {
            "mIoU": divide(np.nansum(iou, axis=0), np.sum(truth + predicted > 0, axis=0)),
            "fwIoU": np.where(present.any(axis=0), np.nansum(iou * shares, axis=0), np.nan),
            "mACC": divide(np.nansum(divide(hits, truth), axis=0), present.sum(axis=0)),
            "pACC": divide(hits.sum(axis=0), truth.sum(axis=0)),
        }
        return {f"sem_seg/{name}": 100 * values for name, values in found.items()}

    def truth_counts(self, counts: np.ndarray) -> np.ndarray:
        """Pixels."""
        return counts[:, 0]


class PanopticImages(CountedImages):
    """Segments found, invented and missed, and summed overlap, by image and class."""

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """PQ, SQ and RQ of all classes."""
        tp, fp, fn, overlap = self.sums(weights, 4)
        seen = tp + 0.5 * fp + 0.5 * fn
        found = {
            "PQ": divide(overlap, seen),
            "SQ": np.where(seen > 0, overlap / np.maximum(tp, 1), np.nan),
            "RQ": divide(tp, seen),
        }
        classes = np.sum(seen > 0, axis=0)
        return {
            f"panoptic_seg/{name}": 100 * divide(np.nansum(values, axis=0), classes)
            for name, values in found.items()
        }

    def truth_counts(self, counts: np.ndarray) -> np.ndarray:
        """Segments."""
        return counts[:, 0] + counts[:, 2]


class InstanceImages(ImageStatistics):
    """Matches of detections, from ``instances_matches.npz``.

    Args:
        source: the file.
        result: content of ``instances_results.json``.
    """

    def __init__(self, source: Path, result: Mapping[str, Any]) -> None:
        self._found = MatchedImages.load(source)
        order = np.argsort(self._found.truth_category, kind="stable")
        self._truth = self._found.truth_image[order], self._found.truth_category[order]
        rows = [len(self._truth[0])]
        for matches in self._found.kinds.values():
            rows.append(int(np.bincount(matches.category, minlength=1).max(initial=0)))
        super().__init__(source, str(result["dataset"]), self._found.images, max(rows))

    def figures(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """AP, AP50 and AP75 of boxes and, where there are any, of masks."""
        ones = np.ones(len(self._truth[0]))
        wanted = class_sums(ones, *self._truth, len(self._found.classes), weights)
        figures: dict[str, np.ndarray] = {}
        for kind, matches in self._found.kinds.items():
            ap = 100 * resampled_ap(matches, wanted, weights)
            figures |= {f"{kind}/AP": ap.mean(axis=0), f"{kind}/AP50": ap[0], f"{kind}/AP75": ap[5]}
        return figures

    def truth(self) -> Any:
        """Classes, and (image, class) of all objects that count."""
        image, category = self._truth
        pairs = np.stack([image, category], axis=1)
        return [list(self._found.classes), pairs[np.lexsort(pairs.T)].tolist()]


def read_statistics(result_file: Path) -> ImageStatistics | None:
    """The statistics beside a ``<task>_results.json``; None where its evaluator wrote none.

    Raises:
        EvaluationError: they are damaged, or of another evaluation than the results.
    """
    task = result_file.name.removesuffix("_results.json")
    found: ImageStatistics | None = None
    source = result_file.with_name(f"{task}_per_image.jsonl")
    try:
        result = json.loads(result_file.read_text("utf-8"))
        if task == "instances":
            source = result_file.with_name("instances_matches.npz")
            found = InstanceImages(source, result) if source.is_file() else None
        elif source.is_file() and _has_counts(source):
            if task == "sem_seg":
                found = SemanticImages(source, result, result["classes"])
            elif task == "panoptic_seg":
                found = PanopticImages(source, result, list(result["counts"]))
        if found is not None:
            _check_same_evaluation(found, result["results"], result_file)
    except EvaluationError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, OSError) as error:
        raise EvaluationError(
            f"{source} is damaged ({type(error).__name__}: {error}): evaluate again."
        ) from error
    return found


def _check_same_evaluation(found: ImageStatistics, results: Mapping[str, Any], file: Path) -> None:
    for name, (value,) in found.figures(np.ones((len(found.images), 1))).items():
        group, _, metric = name.partition("/")
        stated = results.get(group, {}).get(metric)
        stated = float("nan") if stated is None else stated
        # AP of no detection at all is 0 in both; null in the file stands for NaN.
        if not np.isclose(value, stated, rtol=0, atol=_TOLERANCE, equal_nan=True):
            raise EvaluationError(
                f"{name} is {stated:.4f} in {file} and {value:.4f} of the images in "
                f"{found.source.name} beside it: they are of different evaluations. Evaluate again."
            )


def _has_counts(source: Path) -> bool:
    with source.open(encoding="utf-8") as lines:
        first = next(lines, "")
    return bool(first) and "by_class" in json.loads(first)


def _image_names(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """Id and file of each image; the folder that all files are in says nothing of the dataset."""
    files = [str(line.get("file_name") or "").replace("\\", "/") for line in lines]
    start = os.path.commonprefix(files).rfind("/") + 1  # noqa: RUF071 - cut at a folder's end
    return [
        f"{line.get('image_id')} {file[start:]}" for line, file in zip(lines, files, strict=True)
    ]
