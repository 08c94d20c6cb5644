"""Scoring files of predictions, without a model: by the evaluators that score a model's outputs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator

from ..config import get_cfg
from ..data import Dataset, DatasetError
from ..data.result_files.label_maps import find_label_files
from ..data.result_files.listed import (
    DETECTIONS,
    PANOPTIC,
    SEMANTIC,
    ResultFile,
    read_result_file,
)
from .build import build_evaluator
from .cityscapes_instance import CityscapesInstanceEvaluator
from .cityscapes_outputs import instance_lists, label_id_images
from .cityscapes_semantic import CityscapesSemanticEvaluator
from .electron_microscopy import ElectronMicroscopyEvaluator
from .errors import EvaluationError
from .file_outputs import Pair, detections, label_maps, panoptic_segments, semantic_masks
from .results import write_results
from .tasks import TaskEvaluators

__all__ = ["score_files"]

logger = logging.getLogger(__name__)

# What evaluations and the command predict write, in the order in which they are looked for.
_FILES = (
    "coco_instances_results.json", "lvis_instances_results.json", "sem_seg_predictions.json",
    "panoptic_predictions.json", "instances.json", "panoptic.json",
)  # fmt: skip
LABEL_MAPS, LABEL_IDS, INSTANCE_LISTS = "label maps", "label-id images", "lists of instances"
_FOLDERS = {
    "mask": LABEL_MAPS,
    "cityscapes_sem_seg": LABEL_IDS,
    "cityscapes_instances": INSTANCE_LISTS,
}
# Folders of a name that tells nothing hold one of these, by the dataset.
UNNAMED = "label maps or label-id images"


@dataclass
class Found:
    """A file or folder of predictions, and whether an evaluator has taken it.

    Attributes:
        kind: what it holds; "" of an empty list, which any evaluator of instances may take.
        source: the file as it was read, or the folder.
        taken: it has been scored.
    """

    kind: str
    source: ResultFile | Path
    taken: bool = False

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.source if isinstance(self.source, Path) else self.source.path


def score_files(
    dataset_name: str | Dataset,
    predictions: str | Path,
    output_dir: str | Path | None = None,
    *,
    cfg: CfgNode | None = None,
) -> dict[str, dict[str, float]]:
    """Score predictions that lie in files; the digits are those of the run that wrote them.

    Args:
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`.
        predictions: a file or folder: COCO's or LVIS's results, Detectron2's
            ``sem_seg_predictions.json``, a folder of label maps, COCO's panoptic results,
            Cityscapes' result folders; or the folder of an evaluation with
            ``TEST.SAVE_PREDICTIONS``, or of the command ``predict``, all of which is scored.
        output_dir: folder for the evaluators' result files; None writes nothing.
        cfg: options of the evaluators: ``TEST.BOUNDARY_MEASURES``, ``TEST.DETECTIONS_PER_IMAGE``;
            the defaults unless given.

    Returns:
        ``{task: {metric: value}}``, as of an evaluation.

    Raises:
        EvaluationError: there is no prediction, none that the dataset can score, or one that
            contradicts it; the message names file and image.
        DatasetError: the dataset cannot be read.
    """
    dataset = Dataset.get(dataset_name)
    path = Path(predictions)
    found = _find(path)
    _check_output(found, output_dir)
    cfg = (cfg or get_cfg()).clone()
    cfg.defrost()
    cfg.TEST.SAVE_PREDICTIONS = False  # they are there
    evaluator = build_evaluator(cfg, dataset, output_dir)
    evaluators = evaluator.evaluators if isinstance(evaluator, TaskEvaluators) else [evaluator]
    results: dict[str, dict[str, float]] = {}
    for each in evaluators:
        taken = _choose(each, found)
        if taken is not None:
            taken.taken = True
            results |= _score(each, dataset, taken)
    left = [each for each in found if not each.taken]
    if len(left) == len(found):
        keys = ", ".join(str(getattr(each, "output_key", "?")) for each in evaluators)
        raise EvaluationError(
            f"{found[0].path} holds {found[0].kind}, and '{dataset.name}' is scored by {keys}: "
            f"give predictions of that kind, or another dataset"
        )
    for each in left:
        logger.warning("%s: %s, which nothing scores here", each.path, each.kind)
    if output_dir is not None:
        write_results(results, Path(output_dir), dataset.name)
    return results


def _find(path: Path) -> list[Found]:
    """The predictions at a path.

    Raises:
        EvaluationError: there are none, or one cannot be read.
    """
    if not path.exists():
        raise EvaluationError(f"{path}: no such file or folder")
    try:
        if path.is_file():
            return [_read(path)]
        known = [_read(path / name) for name in _FILES if (path / name).is_file()]
        known += [Found(k, path / name) for name, k in _FOLDERS.items() if (path / name).is_dir()]
        if known:
            return known
        files = [f for f in sorted(path.glob("*.json")) if not f.stem.endswith("_results")]
        if len(files) == 1:
            return [_read(files[0])]
    except DatasetError as error:
        raise EvaluationError(str(error)) from error
    if path.name in _FOLDERS:
        return [Found(_FOLDERS[path.name], path)]
    if any(path.rglob("*_pred.txt")):
        return [Found(INSTANCE_LISTS, path)]
    if find_label_files(path):
        return [Found(UNNAMED, path)]
    scored = ", ".join(file.name for file in sorted(path.glob("*_results.json")))
    raise EvaluationError(
        f"{path}: no predictions in this folder"
        + (f", only scores ({scored}): evaluate with TEST.SAVE_PREDICTIONS True" if scored else "")
        + ". Looked for are label maps (PNG, TIFF, NPY), Cityscapes' lists of instances (*.txt), "
        f"{', '.join(_FILES)}, or one other JSON file"
    )


def _read(path: Path) -> Found:
    file = read_result_file(path)
    by_name = {"panoptic": PANOPTIC, "sem_seg": SEMANTIC}
    kinds = [kind for name, kind in by_name.items() if name in path.name]
    return Found(file.kind or (kinds[0] if kinds else ""), file)


def _check_output(found: list[Found], output_dir: str | Path | None) -> None:
    for each in found if output_dir is not None else ():
        folder = each.path if isinstance(each.source, Path) else each.path.parent
        if Path(str(output_dir)).resolve() in (folder.resolve(), folder.parent.resolve()):
            raise EvaluationError(
                f"{output_dir} holds the predictions: the results of the run that wrote them would "
                "be overwritten. Give another folder for the results"
            )


def _choose(evaluator: DatasetEvaluator, found: list[Found]) -> Found | None:
    """The predictions that an evaluator scores, if there are any."""
    wanted: tuple[str, ...] = {
        "instances": (DETECTIONS, ""),
        "sem_seg": (SEMANTIC, LABEL_MAPS, UNNAMED),
        "panoptic_seg": (PANOPTIC,),
    }.get(getattr(evaluator, "output_key", ""), ())
    if isinstance(evaluator, CityscapesSemanticEvaluator):
        wanted = (LABEL_IDS, UNNAMED, SEMANTIC, LABEL_MAPS)
    if isinstance(evaluator, CityscapesInstanceEvaluator):
        wanted = (INSTANCE_LISTS,)
    chosen = [each for kind in wanted for each in found if each.kind == kind]
    return chosen[0] if chosen else None


def _score(evaluator: DatasetEvaluator, dataset: Dataset, found: Found) -> dict[str, Any]:
    if isinstance(evaluator, ElectronMicroscopyEvaluator):
        logger.warning(
            "%s: label maps hold no probabilities, so the figures of 'em' are those of one "
            "threshold, not the best of nine as for a model's outputs",
            found.path,
        )
    evaluator.reset()
    try:
        for given, output in _pairs(evaluator, dataset, found):
            evaluator.process([given], [output])
    except (DatasetError, EvaluationError) as error:
        text = str(error)
        shown = text if str(found.path) in text else f"{found.path}: {text}"
        raise EvaluationError(shown) from error
    return evaluator.evaluate() or {}


def _pairs(evaluator: DatasetEvaluator, dataset: Dataset, found: Found) -> Iterator[Pair]:
    if isinstance(found.source, Path):
        if found.kind == INSTANCE_LISTS:
            return instance_lists(dataset, found.source)
        if found.kind == LABEL_IDS or (
            found.kind == UNNAMED and isinstance(evaluator, CityscapesSemanticEvaluator)
        ):
            return label_id_images(dataset, found.source)
        return label_maps(dataset, found.source)
    if found.kind == SEMANTIC:
        return semantic_masks(dataset, found.source)
    if found.kind == PANOPTIC:
        return panoptic_segments(dataset, found.source)
    return detections(dataset, found.source)
