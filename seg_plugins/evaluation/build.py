"""From a dataset's ``evaluator_type`` to its evaluator."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import DatasetEvaluator
from fvcore.common.registry import Registry

from ..data import Dataset
from ..tasks import TASKS, declare_evaluator
from .boundary import BoundaryMeasures
from .cityscapes_instance import CityscapesInstanceEvaluator
from .cityscapes_semantic import CityscapesSemanticEvaluator
from .electron_microscopy import ElectronMicroscopyEvaluator
from .errors import EvaluationError
from .instance import COCO_LIMIT, InstanceEvaluator
from .lvis import LvisEvaluator
from .panoptic import PanopticEvaluator
from .semantic import SemanticEvaluator
from .tasks import TaskEvaluators
from .volume import VolumeEvaluator

EvaluatorBuilder = Callable[[CfgNode, Dataset, "Path | None"], DatasetEvaluator]


class EvaluatorRegistry(Registry):
    """fvcore's, with builders of evaluators by ``evaluator_type`` and the task that each measures.

    .. code-block:: python

        @EVALUATOR_REGISTRY.register("my_type", task="semantic")
        def build_mine(cfg, dataset, output_dir):
            return MyEvaluator(dataset, output_dir)
    """

    def register(
        self, evaluator_type: str, builder: EvaluatorBuilder | None = None, *, task: str = ""
    ) -> Any:
        """Add ``builder(cfg, dataset, output_dir)``, in a call or as a decorator.

        The same builder again changes nothing.

        Args:
            evaluator_type: as in the metadata of datasets.
            builder: None where this decorates it.
            task: ``semantic``, ``instance`` or ``panoptic``: datasets of the type are mapped,
                drawn and predicted as such.

        Raises:
            ValueError: no or an unknown task; the type belongs to another builder.
        """
        if builder is None:
            return partial(self._keep, evaluator_type, task)
        return self._keep(evaluator_type, task, builder)

    def _keep(self, evaluator_type: str, task: str, builder: EvaluatorBuilder) -> EvaluatorBuilder:
        known = self._obj_map.get(evaluator_type, builder)
        if known is not builder:
            raise ValueError(
                f"evaluator_type '{evaluator_type}' is registered already, by "
                f"{known.__module__}.{known.__qualname__}."
            )
        if not task:
            names = " or ".join(repr(known.name) for known in TASKS)
            raise ValueError(
                f"evaluator_type '{evaluator_type}': say which task it measures, "
                f"register('{evaluator_type}', task=...) with {names}"
            )
        declare_evaluator(evaluator_type, task)
        self._obj_map[evaluator_type] = builder
        return builder

    def get(self, name: str) -> EvaluatorBuilder:
        """The builder of a type; an unknown one lists the known ones in its error."""
        if name not in self:
            raise EvaluationError(
                f"No evaluator for evaluator_type '{name}'. Known: "
                f"{', '.join(sorted(self._obj_map))}. Set another in the dataset's metadata, or "
                "register a builder in EVALUATOR_REGISTRY."
            )
        return self._obj_map[name]


EVALUATOR_REGISTRY = EvaluatorRegistry("EVALUATOR")
# Keys of TEST that not every evaluator of their task measures, and the types that do.
_MEASURED_BY = {"BOUNDARY_MEASURES": ("sem_seg", "coco"), "CLASS_AGNOSTIC": ("coco",)}


def build_evaluator(
    cfg: CfgNode, dataset_name: str | Dataset, output_dir: str | Path | None = None
) -> DatasetEvaluator:
    """The evaluator for a dataset, from its metadata's ``evaluator_type``.

    Args:
        cfg: the configuration; builders read their own keys of it.
        dataset_name: registered name, or the :class:`~seg_plugins.data.Dataset`; its
            ``evaluator_type`` is one name, or a list of them for a dataset with several tasks,
            and where it names none that of what its records hold.
        output_dir: folder for result files; None writes nothing.

    Raises:
        EvaluationError: an unknown evaluator_type, or one without the measures that
            ``TEST.BOUNDARY_MEASURES`` or ``TEST.CLASS_AGNOSTIC`` asks for.
        DatasetError: the dataset is not readable.
    """
    dataset = Dataset.get(dataset_name)
    types = dataset.evaluator_types
    folder = Path(output_dir) if output_dir else None
    evaluators = [EVALUATOR_REGISTRY.get(name)(cfg, dataset, folder) for name in types]
    return evaluators[0] if len(evaluators) == 1 else TaskEvaluators(evaluators)


def build_semantic(cfg: CfgNode, dataset: Dataset, output_dir: Path | None) -> SemanticEvaluator:
    """``sem_seg``: label maps."""
    return SemanticEvaluator(dataset, output_dir, **_semantic_options(cfg, dataset))


def build_electron_microscopy(
    cfg: CfgNode, dataset: Dataset, output_dir: Path | None
) -> ElectronMicroscopyEvaluator:
    """``sem_seg_em``: label maps of membranes, with the errors of ISBI 2012."""
    options = _semantic_options(cfg, dataset)
    return ElectronMicroscopyEvaluator(dataset, output_dir, **options)


def build_volume(cfg: CfgNode, dataset: Dataset, output_dir: Path | None) -> VolumeEvaluator:
    """``sem_seg_volume``: label maps of slices, with Dice per volume."""
    return VolumeEvaluator(dataset, output_dir, **_semantic_options(cfg, dataset))


def build_instance(cfg: CfgNode, dataset: Dataset, output_dir: Path | None) -> InstanceEvaluator:
    """``coco``: boxes and masks."""
    return InstanceEvaluator(
        dataset,
        output_dir,
        max_dets_per_image=max(COCO_LIMIT, cfg.TEST.DETECTIONS_PER_IMAGE),
        boundary=cfg.TEST.BOUNDARY_MEASURES,
        save_predictions=cfg.TEST.SAVE_PREDICTIONS,
        keep_matches=cfg.TEST.BOOTSTRAP > 0,
        class_agnostic=cfg.TEST.CLASS_AGNOSTIC,
    )


def build_lvis(cfg: CfgNode, dataset: Dataset, output_dir: Path | None) -> LvisEvaluator:
    """``lvis``: boxes and masks, at LVIS's own limit of detections."""
    _refuse_missing_measures(cfg, dataset, *_MEASURED_BY)
    return LvisEvaluator(dataset, output_dir, save_predictions=cfg.TEST.SAVE_PREDICTIONS)


def build_panoptic(cfg: CfgNode, dataset: Dataset, output_dir: Path | None) -> TaskEvaluators:
    """``coco_panoptic_seg``: PQ and, where the dataset has their truth, label maps and masks."""
    evaluators: list[DatasetEvaluator] = []
    if dataset.records and "sem_seg_file_name" in dataset.records[0]:
        evaluators.append(build_semantic(cfg, dataset, output_dir))
    if dataset.separated or dataset.metadata.get("json_file"):
        evaluators.append(build_instance(cfg, dataset, output_dir))
    saved = cfg.TEST.SAVE_PREDICTIONS
    evaluators.append(PanopticEvaluator(dataset, output_dir, save_predictions=saved))
    return TaskEvaluators(evaluators)


def build_cityscapes_semantic(
    cfg: CfgNode, dataset: Dataset, output_dir: Path | None
) -> CityscapesSemanticEvaluator:
    """``cityscapes_sem_seg``: Cityscapes' pixel-level scores."""
    _refuse_missing_measures(cfg, dataset, "BOUNDARY_MEASURES")
    saved = cfg.TEST.SAVE_PREDICTIONS
    return CityscapesSemanticEvaluator(dataset, output_dir, save_predictions=saved)


def build_cityscapes_instance(
    cfg: CfgNode, dataset: Dataset, output_dir: Path | None
) -> CityscapesInstanceEvaluator:
    """``cityscapes_instance``: Cityscapes' instance-level AP."""
    _refuse_missing_measures(cfg, dataset, *_MEASURED_BY)
    saved = cfg.TEST.SAVE_PREDICTIONS
    return CityscapesInstanceEvaluator(dataset, output_dir, save_predictions=saved)


def build_cityscapes_panoptic(
    cfg: CfgNode, dataset: Dataset, output_dir: Path | None
) -> TaskEvaluators:
    """``cityscapes_panoptic_seg``: PQ, and the two above where the model predicts them."""
    saved = cfg.TEST.SAVE_PREDICTIONS
    return TaskEvaluators(
        [
            build_cityscapes_semantic(cfg, dataset, output_dir),
            build_cityscapes_instance(cfg, dataset, output_dir),
            PanopticEvaluator(dataset, output_dir, save_predictions=saved),
        ]
    )


def _semantic_options(cfg: CfgNode, dataset: Dataset) -> dict[str, Any]:
    return {
        "boundary": BoundaryMeasures(len(dataset.stuff)) if cfg.TEST.BOUNDARY_MEASURES else None,
        "save_predictions": cfg.TEST.SAVE_PREDICTIONS,
    }


def _refuse_missing_measures(cfg: CfgNode, dataset: Dataset, *keys: str) -> None:
    """For evaluators that lack some: what is asked for is measured, or said to be missing."""
    for key in keys:
        if cfg.TEST[key]:
            others = " or ".join(map(repr, _MEASURED_BY[key]))
            raise EvaluationError(
                f"TEST.{key} is True, and evaluator_type "
                f"{' and '.join(map(repr, dataset.evaluator_types))} of '{dataset.name}' has no "
                f"such measures. Set it to False, or evaluate with the evaluator_type {others}, "
                "which has them."
            )
