"""Fixtures of the evaluators' tests."""

from __future__ import annotations

import pytest
from coco_samples import write_coco
from detectron2.data import MetadataCatalog


@pytest.fixture
def coco_dataset(tmp_path):
    """Registers a COCO dict as metadata; gives the dataset's name."""
    names = []

    def register(content):
        name = f"instance_test_{tmp_path.name}_{len(names)}"
        ids = [category["id"] for category in content["categories"]]
        MetadataCatalog.get(name).set(
            evaluator_type="coco",
            json_file=write_coco(content, tmp_path / f"{name}.json"),
            thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(ids)},
            thing_classes=[category["name"] for category in content["categories"]],
        )
        names.append(name)
        return name

    yield register
    for name in names:
        MetadataCatalog.remove(name)
