"""The one table of tasks: what each is called wherever it appears, and what measures it.

Mapper, evaluators, best checkpoint, pictures, report, predict and doctor look here. Names alone:
nothing above io is imported, so that every part of the package may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .io.errors import SegPluginsError

__all__ = [
    "TASKS",
    "Task",
    "UnknownTaskError",
    "known_evaluators",
    "main_metrics",
    "outputs_of",
    "task_named",
    "task_of_evaluator",
    "task_of_output",
    "task_of_record",
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
        evaluators: every ``evaluator_type`` of the task.
        groups: those of an evaluation's results that the task has.
        metrics: its main metrics, ``group/name``, the first that is measured counts.
        record_key: what a record of a dataset has for the task.
    """

    name: str
    title: str
    output: str
    mapper: str
    evaluator: str
    evaluators: tuple[str, ...]
    groups: tuple[str, ...]
    metrics: tuple[str, ...]
    record_key: str


# From the one that holds most to the one that holds least: the first that fits decides.
TASKS = (
    Task(
        name="panoptic",
        title="Panoptic",
        output="panoptic_seg",
        mapper="PanopticMapper",
        evaluator="coco_panoptic_seg",
        evaluators=("coco_panoptic_seg", "ade20k_panoptic_seg", "cityscapes_panoptic_seg"),
        groups=("panoptic_seg",),
        metrics=("panoptic_seg/PQ",),
        record_key="pan_seg_file_name",
    ),
    Task(
        name="instance",
        title="Instance",
        output="instances",
        mapper="InstanceMapper",
        evaluator="coco",
        evaluators=("coco", "cityscapes_instance"),
        groups=("segm", "boundary", "bbox"),
        metrics=("segm/AP", "bbox/AP"),
        record_key="annotations",
    ),
    Task(
        name="semantic",
        title="Semantic",
        output="sem_seg",
        mapper="SemanticMapper",
        evaluator="sem_seg",
        evaluators=("sem_seg", "sem_seg_em", "sem_seg_volume", "cityscapes_sem_seg"),
        groups=("sem_seg", "em", "volume"),
        metrics=("sem_seg/mIoU",),
        record_key="sem_seg_file_name",
    ),
)


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


def known_evaluators() -> dict[str, Task]:
    """Every ``evaluator_type`` of the table, and its task."""
    return {kind: task for task in TASKS for kind in task.evaluators}


def task_of_record(record: Mapping) -> Task | None:
    """The task that a dataset's record has truth for; None where it has none."""
    return next((task for task in TASKS if task.record_key in record), None)


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
