"""The class tables beside their official sources."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins.data.datasets.class_table import load_class_table

import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels


def test_cityscapes_table_is_the_official_one():
    classes = load_class_table("cityscapes").classes
    official = {lab.trainId: lab for lab in cityscapes_labels if 0 <= lab.trainId < 19}
    assert len(classes) == 19
    for i, c in enumerate(classes):
        assert (c.name, c.color, c.is_thing) == (
            official[i].name, official[i].color, official[i].hasInstances
        )  # fmt: skip


@pytest.mark.parametrize("name", ["kitti", "gta5"])
def test_tables_with_cityscapes_ids_map_all_of_them(name):
    classes = enumerate(load_class_table(name).classes)
    values = {value: i for i, c in classes for value in c.label_values}
    assert values == {lab.id: lab.trainId for lab in cityscapes_labels if 0 <= lab.trainId < 19}


def test_coco_stuff_counts_of_the_paper():
    classes = load_class_table("coco_stuff").classes
    assert sum(c.is_thing for c in classes) == 80
    assert sum(not c.is_thing for c in classes) == 91


def test_class_tables_are_complete():
    folder = Path(__file__).parents[3] / "seg_plugins/data/datasets/class_tables"
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        table = load_class_table(path.stem)
        assert content["source"], path
        assert isinstance(content["verified"], bool), path
        assert len(set(table.names)) == len(table.names), path
        assert len(set(map(tuple, table.colors))) >= len(table.names) // 2, path
