"""The catalogue in Detectron2's: its names, its colours, and what is missing on disk."""

from __future__ import annotations

from seg_plugins.data import DatasetError
from seg_plugins.data.datasets.catalogue import register_datasets
from seg_plugins.data.datasets.rows import ROWS

import pytest
from cityscapesscripts.helpers.labels import labels as cityscapes_labels
from detectron2.data import DatasetCatalog, MetadataCatalog
from miniatures import put_text


def test_registration_is_idempotent_and_leaves_detectron2_its_names():
    before = len(DatasetCatalog.list())
    register_datasets()
    assert len(DatasetCatalog.list()) == before
    assert not {row.name for row in ROWS} & {"coco_2017_train", "cityscapes_fine_sem_seg_train"}


def test_detectron2s_own_datasets_get_their_colors():
    official = {lab.trainId: list(lab.color) for lab in cityscapes_labels if 0 <= lab.trainId < 19}
    colors = MetadataCatalog.get("cityscapes_fine_sem_seg_val").stuff_colors
    assert colors == [official[i] for i in range(19)]
    assert len(MetadataCatalog.get("ade20k_sem_seg_train").stuff_colors) == 150


def test_a_missing_dataset_names_the_file_and_the_root(root):
    with pytest.raises(DatasetError, match=r"camvid_train.*train\.txt.*DETECTRON2_DATASETS"):
        DatasetCatalog.get("camvid_train")


def test_lists_cannot_leave_the_folder(root):
    listed = root / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    for path in ("../../../secret", "/etc/passwd", "C:/secret"):
        put_text(listed, f"{path}\n")
        with pytest.raises(DatasetError, match=r"leaves the dataset's folder"):
            DatasetCatalog.get("voc_2012_sem_seg_val")
