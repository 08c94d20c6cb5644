"""Evaluators with Detectron2's interface, found by a dataset's ``evaluator_type``."""

from .build import EVALUATOR_REGISTRY, build_evaluator
from .cityscapes_instance import CityscapesInstanceEvaluator
from .cityscapes_semantic import CityscapesSemanticEvaluator
from .electron_microscopy import ElectronMicroscopyEvaluator
from .errors import EvaluationError
from .files import score_files
from .instance import InstanceEvaluator
from .lvis import LvisEvaluator
from .panoptic import PanopticEvaluator
from .results import format_results
from .semantic import SemanticEvaluator
from .tasks import declared_metrics
from .volume import VolumeEvaluator

__all__ = [
    "EVALUATOR_REGISTRY",
    "CityscapesInstanceEvaluator",
    "CityscapesSemanticEvaluator",
    "ElectronMicroscopyEvaluator",
    "EvaluationError",
    "InstanceEvaluator",
    "LvisEvaluator",
    "PanopticEvaluator",
    "SemanticEvaluator",
    "VolumeEvaluator",
    "build_evaluator",
    "declared_metrics",
    "format_results",
    "score_files",
]
