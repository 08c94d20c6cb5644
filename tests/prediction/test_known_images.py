"""What predictions take from datasets: only what is there, and never by drawing one."""

from __future__ import annotations

from seg_plugins.data import Dataset, DatasetError
from seg_plugins.prediction.known_images import KnownImages
from seg_plugins.prediction.labels import _known_ids

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def absent(tmp_path):
    """A dataset of COCO's kind whose file is not there; loading it would make it."""
    loaded = []
    DatasetCatalog.register("absent", lambda: loaded.append(True) or [])
    MetadataCatalog.get("absent").set(
        json_file=str(tmp_path / "instances.json"), image_root=str(tmp_path), evaluator_type="coco"
    )
    yield loaded
    DatasetCatalog.remove("absent")
    MetadataCatalog.remove("absent")
    Dataset.forget("absent")


def test_image_ids_of_a_dataset_that_is_not_there_are_not_looked_for(absent, tmp_path):
    assert KnownImages(("absent",)).id_of(str(tmp_path / "a.png")) is None
    assert not absent


def test_category_ids_of_a_dataset_that_is_not_there_are_missed_by_name(absent):
    with pytest.raises(DatasetError, match=r"instances\.json: no such file"):
        _known_ids("absent")
    assert not absent
