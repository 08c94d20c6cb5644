"""The one table of tasks: what each is called wherever it appears, and what measures it.

Mapper, evaluators, best checkpoint, pictures, report, predict and doctor look here. Names alone:
nothing above io is imported, so that every part of the package may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .io.errors import SegPluginsError

__all__ = [
    "DETECTRON2_SYSTEMS",
    "TASKS",
    "Task",
    "UnknownTaskError",
    "declare_evaluator",
    "known_evaluators",
    "main_metrics",
    "outputs_of",
    "task_named",
    "task_of_evaluator",
    "task_of_output",
    "task_of_record",
    "trained_for",
]


class UnknownTaskError(SegPluginsError, ValueError):
    """A task, an evaluator type or an output that the table does not list; the message does."""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: in descriptions of datasets.
        title: for people.
        output: key of a model's output, and stem of the evaluator's files.
        mapper: name in the mappers' registry.
        evaluator: ``evaluator_type`` of a dataset that names none.
        groups: those of an evaluation's results that the task has.
        metrics: its main metrics, ``group/name``, the first that is measured counts.
        figures: those of the results, ``group/name``, that a list of models shows.
        record_key: what a record of a dataset has for the task.
        class_list: the classes of the task in a dataset's metadata.
    """

    name: str
    title: str
    output: str
    mapper: str
    evaluator: str
    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    figures: tuple[str, ...]
    record_key: str
    class_list: str

    @property
    def evaluators(self) -> tuple[str, ...]:
        """Every ``evaluator_type`` of the task, in the order of their registration."""
        return tuple(kind for kind, task in _EVALUATORS.items() if task is self)


# From the one that holds most to the one that holds least: the first that fits decides.
TASKS = (
    Task(
        name="panoptic",
        title="Panoptic",
        output="panoptic_seg",
        mapper="PanopticMapper",
        evaluator="coco_panoptic_seg",
        groups=("panoptic_seg",),
        metrics=("panoptic_seg/PQ",),
        figures=("panoptic_seg/PQ", "panoptic_seg/SQ", "panoptic_seg/RQ"),
        record_key="pan_seg_file_name",
        class_list="stuff_classes",
    ),
    Task(
        name="instance",
        title="Instance",
        output="instances",
        mapper="InstanceMapper",
        evaluator="coco",
        groups=("segm", "boundary", "bbox"),
        metrics=("segm/AP", "bbox/AP"),
        figures=("bbox/AP", "bbox/AP50", "segm/AP", "segm/AP50"),
        record_key="annotations",
        class_list="thing_classes",
    ),
    Task(
        name="semantic",
        title="Semantic",
        output="sem_seg",
        mapper="SemanticMapper",
        evaluator="sem_seg",
        groups=("sem_seg", "em", "volume"),
        metrics=("sem_seg/mIoU",),
        figures=(
            "sem_seg/mIoU",
            "sem_seg/pACC",
            "em/PixelError",
            "em/RandErrorThinned",
            "em/WarpingError",
        ),
        record_key="sem_seg_file_name",
        class_list="stuff_classes",
    ),
)

# What Detectron2's own meta-architectures are trained for; others say it themselves (`tasks`).
DETECTRON2_SYSTEMS = {
    "SemanticSegmentor": ("sem_seg",),
    "GeneralizedRCNN": ("instances",),
    "ProposalNetwork": ("instances",),
    "RetinaNet": ("instances",),
    "PanopticFPN": ("sem_seg", "instances"),
    "PanopticDeepLab": ("sem_seg",),
}

_EVALUATORS: dict[str, Task] = {}


def task_named(name: str) -> Task:
    """The task of that name.

    Raises:
        UnknownTaskError: there is none.
    """
    return _find(name, {task.name: task for task in TASKS}, "task")


def task_of_output(key: str) -> Task:
    """The task that a key of a model's output belongs to.

    Raises:
        UnknownTaskError: there is none.
    """
    return _find(key, {task.output: task for task in TASKS}, "output")


def task_of_evaluator(evaluator_type: str) -> Task:
    """The task that an ``evaluator_type`` measures.

    Raises:
        UnknownTaskError: there is none.
    """
    return _find(evaluator_type, known_evaluators(), "evaluator_type")


def declare_evaluator(evaluator_type: str, task: str) -> None:
    """Enter an ``evaluator_type``; the registry of evaluators does, which also has its builder.

    Raises:
        UnknownTaskError: there is no such task.
    """
    _EVALUATORS[evaluator_type] = task_named(task)


def known_evaluators() -> dict[str, Task]:
    """Every registered ``evaluator_type``, and its task."""
    return dict(_EVALUATORS)


def task_of_record(record: Mapping) -> Task | None:
    """The task that a dataset's record has truth for; None where it has none."""
    return next((task for task in TASKS if task.record_key in record), None)


def trained_for(system: Any) -> tuple[str, ...]:
    """What a meta-architecture is trained for: ``sem_seg``, ``instances`` or both.

    Args:
        system: the class; what it says in ``tasks`` counts, or else which of Detectron2's it
            extends.

    Returns:
        Empty where neither tells.

    Raises:
        UnknownTaskError: ``tasks`` names no key of a model's output.
    """
    for key in (own := tuple(getattr(system, "tasks", ()))):
        task_of_output(key)
    bases = [base.__name__ for base in getattr(system, "__mro__", ())]
    theirs = (DETECTRON2_SYSTEMS[name] for name in bases if name in DETECTRON2_SYSTEMS)
    return own or next(theirs, ())


def outputs_of(trained_for: Iterable[str]) -> tuple[str, ...]:
    """The keys of a model's output, from those it is trained for (``sem_seg``, ``instances``)."""
    keys = set(trained_for)
    if {"sem_seg", "instances"} <= keys:
        keys.add("panoptic_seg")
    return tuple(task.output for task in TASKS if task.output in keys)


def main_metrics() -> tuple[str, ...]:
    """The main metric of every task; the first that an evaluation gives is the model's."""
    return tuple(metric for task in TASKS for metric in task.metrics)


def _find(key: str, known: Mapping[str, Task], what: str) -> Task:
    if key not in known:
        raise UnknownTaskError(f"{what} '{key}' is unknown; known are {', '.join(sorted(known))}")
    return known[key]


#: Files of saved detections, as Detectron2 calls them: results by their names, and no scores.
SAVED_DETECTIONS = ("coco_instances_results.json", "lvis_instances_results.json")
