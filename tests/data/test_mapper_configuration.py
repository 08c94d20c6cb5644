"""From a configuration to the mapper of the dataset's task."""

from __future__ import annotations

import seg_plugins
from seg_plugins.data import InstanceMapper, PanopticMapper, SemanticMapper, build_mapper
from seg_plugins.data.elastic import ElasticDeformation
from seg_plugins.data.photometric import Blur

import pytest
from detectron2.data import DatasetCatalog
from mapper_draws import rng


@pytest.mark.parametrize(
    ("dataset", "kind"),
    [
        ("shapes_train", SemanticMapper),
        ("shapes_instance_train", InstanceMapper),
        ("shapes_panoptic_train", PanopticMapper),
    ],
)
def test_the_mapper_follows_the_dataset(dataset, kind):
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.INPUT.MIN_SIZE_TRAIN = (128,)
    for is_train in (True, False):
        mapper = build_mapper(cfg, is_train)
        assert type(mapper) is kind
        sample = mapper(DatasetCatalog.get(dataset)[0], rng())
        assert ("sem_seg" in sample or "instances" in sample) == is_train
    cfg.INPUT.MAPPER = "SemanticMapper"
    assert type(build_mapper(cfg, True)) is SemanticMapper


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("CROP.TYPE", "some_range"),
        ("RANDOM_FLIP", "diagonal"),
        ("RESIZE", "longest"),
        ("FORMAT", "HSV"),
    ],
)
def test_unknown_settings_list_the_known(key, value):
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = ("shapes_train",)
    cfg.INPUT.CROP.ENABLED = True
    cfg.merge_from_list([f"INPUT.{key}", value])
    with pytest.raises(ValueError, match=rf"INPUT\.{key} is '{value}'"):
        build_mapper(cfg, True)


def test_the_configuration_reaches_every_task():
    """One builder: what the file says holds for all three, whatever the model's own keys say."""
    cfg = seg_plugins.get_cfg()
    cfg.INPUT.ELASTIC.SIGMA, cfg.INPUT.BLUR_SIGMA = 3.0, 1.0
    cfg.INPUT.MASK_FORMAT, cfg.MODEL.MASK_ON = "bitmask", False
    for dataset in ("shapes_train", "shapes_instance_train", "shapes_panoptic_train"):
        cfg.DATASETS.TRAIN = (dataset,)
        mapper = build_mapper(cfg, True)
        assert mapper.elastic == ElasticDeformation(3.0)
        assert mapper.photometric == (Blur(1.0),)
        assert build_mapper(cfg, False).elastic is None
    cfg.DATASETS.TRAIN = ("shapes_instance_train",)
    assert build_mapper(cfg, True).mask_format == "bitmask"
    cfg.INPUT.MASK_FORMAT = "polygon"
    with pytest.raises(ValueError, match=r"INPUT\.ELASTIC .* set it to 'bitmask'"):
        build_mapper(cfg, True)
