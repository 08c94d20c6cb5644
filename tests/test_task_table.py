"""The table of tasks: every name in it is one that the package knows, and no other is used."""

from __future__ import annotations

from seg_plugins.data import MAPPER_REGISTRY
from seg_plugins.evaluation import EVALUATOR_REGISTRY
from seg_plugins.tasks import (
    TASKS,
    UnknownTaskError,
    known_evaluators,
    main_metrics,
    outputs_of,
    task_named,
    task_of_evaluator,
    task_of_output,
    task_of_record,
    trained_for,
)

import pytest
from detectron2.modeling import PanopticFPN


def test_every_evaluator_type_has_a_task_and_every_task_a_mapper():
    assert set(known_evaluators()) == {name for name, _ in EVALUATOR_REGISTRY}
    for task in TASKS:
        assert task.mapper in MAPPER_REGISTRY
        assert task.evaluator in task.evaluators
        assert {metric.partition("/")[0] for metric in task.metrics} <= set(task.groups)


def test_looking_up():
    assert task_named("panoptic").output == "panoptic_seg"
    assert task_of_output("instances") is task_named("instance")
    assert task_of_evaluator("sem_seg_em").mapper == "SemanticMapper"
    # A panoptic record holds a semantic label, too: the one with most counts.
    record = {"file_name": "a", "sem_seg_file_name": "b", "pan_seg_file_name": "c"}
    assert task_of_record(record) is task_named("panoptic")
    assert task_of_record({"file_name": "a"}) is None


def test_what_a_model_puts_out():
    assert outputs_of(["sem_seg"]) == ("sem_seg",)
    assert outputs_of(["instances", "sem_seg"]) == ("panoptic_seg", "instances", "sem_seg")
    assert main_metrics()[0] == "panoptic_seg/PQ"


@pytest.mark.parametrize(
    ("look_up", "name"),
    [(task_named, "detection"), (task_of_evaluator, "oid"), (task_of_output, "proposals")],
)
def test_unknown_names_list_the_known_ones(look_up, name):
    known = {task_named: "instance", task_of_evaluator: "coco", task_of_output: "sem_seg"}
    with pytest.raises(
        UnknownTaskError, match=f"'{name}' is unknown; known are .*{known[look_up]}"
    ):
        look_up(name)


def test_what_a_system_is_trained_for():
    """Its own word counts, then the class of Detectron2's that it extends."""
    mine = type("Mine", (), {"tasks": ("instances",)})
    assert trained_for(mine) == ("instances",)
    assert trained_for(type("Extended", (PanopticFPN,), {})) == ("sem_seg", "instances")
    assert trained_for(type("Silent", (), {})) == trained_for(lambda cfg: None) == ()
    with pytest.raises(UnknownTaskError, match=r"'depth' is unknown; known are .*sem_seg"):
        trained_for(type("Wrong", (), {"tasks": ("depth",)}))
