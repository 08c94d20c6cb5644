"""Classes of an exported file on a machine without its dataset."""

from __future__ import annotations

import logging

from seg_plugins import get_cfg
from seg_plugins.prediction.file_labels import labels_of_file

import pytest


@pytest.mark.parametrize(
    ("task", "system", "first"), [("sem_seg", "UNet", 0), ("instances", "MaskRCNNFPN", 1)]
)
def test_the_files_own_names_are_taken_and_it_is_said(task, system, first, tmp_path, caplog):
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = system
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
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


def test_a_panoptic_file_names_things_and_labels(tmp_path):
    cfg = get_cfg()
    cfg.DATASETS.CUSTOM = str(tmp_path / "gone.yaml")
    cfg.MODEL.META_ARCHITECTURE = "PanopticSegmentor"
    cfg.MODEL.ROI_HEADS.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 1, 3
    cfg.MODEL.PANOPTIC_FPN.THING_IDS = [2]
    metadata = {"task": "panoptic", "ignore_label": "255", "classes": '["cow"]',
                "colors": "[[7, 8, 9]]", "label_classes": '["sky", "grass", "cow"]',
                "label_colors": "[[1, 2, 3], [4, 5, 6], [7, 8, 9]]"}  # fmt: skip
    labels = labels_of_file(cfg, metadata)
    assert [(label.name, label.is_thing) for label in labels.stuff] == [
        ("sky", False), ("grass", False), ("cow", True)]  # fmt: skip
    assert labels.of_segment({"isthing": True, "category_id": 2}).name == "cow"
    assert labels.of_segment({"isthing": False, "category_id": 1}).color == (4, 5, 6)
