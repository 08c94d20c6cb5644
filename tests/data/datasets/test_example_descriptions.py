"""The descriptions of published datasets in `datasets/`, on miniatures of their layouts."""

from __future__ import annotations

import json
from pathlib import Path

import seg_plugins
from seg_plugins.data import Dataset, apply_custom_dataset, build_mapper, register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.io.images import read_image

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from miniatures import put
from PIL import Image

EXAMPLES = Path(__file__).parents[3] / "datasets"
TABLES = Path(seg_plugins.__file__).parent / "data/datasets/class_tables"


@pytest.mark.parametrize(
    ("data", "table", "value", "name"),
    [
        ("stanford", "stanford_background", 2, "road"),
        ("msrc21", "msrc21", (0, 0, 128), "cow"),
        ("voc", "voc2012", 2, "bicycle"),
    ],
)
def test_descriptions_of_published_data(tmp_path, data, table, value, name):
    """Images in the published layout, of which one pixel in four has the value of a class."""
    text = (EXAMPLES / f"{data}.example.yaml").read_text()
    content = yaml.safe_load(text)
    root = tmp_path / content["root"]
    channels = () if isinstance(value, int) else (3,)
    label = np.full((2, 2, *channels), 255, np.uint8)
    label[0, 0] = value if isinstance(value, int) else value[::-1]
    for i in range(5):
        put(root / content["images"] / f"{i}.jpg", np.zeros((2, 2, 3), np.uint8))
        put(root / content["masks"] / f"{i}{content.get('mask_suffix', '.png')}", label)
    if "split" not in content:
        for split, names in (("train", "0\n1\n"), ("val", "2\n")):
            (root / content[split]).parent.mkdir(parents=True, exist_ok=True)
            (root / content[split]).write_text(names)
    (tmp_path / "my.yaml").write_text(text)
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.CUSTOM = str(tmp_path / "my.yaml")
    apply_custom_dataset(cfg)
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (2,), "none"
    published = json.loads((TABLES / f"{table}.json").read_text())["classes"]
    classes = [entry["name"] for entry in published]
    assert MetadataCatalog.get(cfg.DATASETS.TRAIN[0]).stuff_classes == classes
    sample = build_mapper(cfg, True)(DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[0])
    assert sample["sem_seg"].tolist() == [[classes.index(name), 255], [255, 255]]


def test_the_description_of_chase_takes_the_first_observer(tmp_path):
    """Images and the masks of two observers, of one bit, in one folder."""
    for i in range(5):
        put(tmp_path / f"CHASEDB1/Image_0{i}L.jpg", np.zeros((2, 2, 3), np.uint8))
        for observer, vessel in (("1st", (0, 1)), ("2nd", (1, 1))):
            mask = np.zeros((2, 2), bool)
            mask[vessel] = True
            Image.fromarray(mask).save(tmp_path / f"CHASEDB1/Image_0{i}L_{observer}HO.png")
    path = tmp_path / "my.yaml"
    path.write_text((EXAMPLES / "chase.example.yaml").read_text())
    register_custom_dataset(path)
    train, val = (Dataset.get(f"chase_{split}") for split in ("train", "val"))
    assert (len(train.records), len(val.records)) == (4, 1)
    record = train.records[0]
    label = record["sem_seg_encoding"](record["sem_seg_file_name"])
    assert label.tolist() == [[0, 1], [0, 0]]


def test_the_description_of_landsat_leaves_what_is_not_labelled(tmp_path):
    """Eight bands of 16 bits; 0 of the label raster is none of its classes, 5 is the last."""
    pytest.importorskip("rasterio")
    from raster_scenes import write_raster

    example = EXAMPLES / "landsat.example.yaml"
    content = yaml.safe_load(example.read_text())
    bands = np.arange(8 * 20 * 20).reshape(8, 20, 20).astype(np.int16)
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, 3, 4], labels[0, 5, 6] = 1, 5
    write_raster(tmp_path / "landsat" / content["rasters"][0], bands)
    write_raster(tmp_path / "landsat" / content["labels"][0], labels)
    (tmp_path / "my.yaml").write_text(example.read_text())
    register_custom_dataset(tmp_path / "my.yaml")
    (record,) = load_dataset("landsat_train")
    label = record["sem_seg_encoding"](record["sem_seg_file_name"])
    image = read_image(record["file_name"], "raw")
    assert np.array_equal(image, bands[:, :, :14].transpose(1, 2, 0))
    expected = np.full((20, 14), 255)
    expected[3, 4], expected[5, 6] = 0, 4
    assert np.array_equal(label, expected)
