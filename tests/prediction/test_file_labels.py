"""Classes of an exported file on a machine without its dataset."""

from __future__ import annotations

import logging

from seg_plugins import get_cfg
from seg_plugins.prediction.file_labels import labels_of_file

import pytest


@pytest.mark.parametrize(("task", "first"), [("sem_seg", 0), ("instances", 1)])
def test_the_files_own_names_are_taken_and_it_is_said(task, first, tmp_path, caplog):
    cfg = get_cfg()
    cfg.DATASETS.CUSTOM = str(tmp_path / "gone.yaml")
    metadata = {"task": task, "classes": '["a", "b"]', "colors": "[[1, 2, 3], [4, 5, 6]]",
                "ignore_label": "254"}  # fmt: skip
    with caplog.at_level(logging.WARNING):
        labels = labels_of_file(cfg, metadata)
    found = labels.things if task == "instances" else labels.stuff
    assert [(label.name, label.color) for label in found] == [("a", (1, 2, 3)), ("b", (4, 5, 6))]
    assert [label.category_id for label in found] == [first, first + 1]
    assert labels.ignore_label == 254
    assert "gone.yaml" in caplog.text
