"""The cache of decoded images changes no sample, and is bounded."""

from __future__ import annotations

import seg_plugins
from seg_plugins.data import SemanticMapper, build_mapper
from seg_plugins.data.decoded_cache import DecodedCache

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from mapper_draws import GEOMETRY, rng


def test_the_cache_gives_the_same_sample_and_notices_changes(semantic, tmp_path):
    plain = SemanticMapper(is_train=True, augmentations=GEOMETRY)
    cache = DecodedCache(tmp_path / "cache", max_bytes=1 << 20)
    cached = SemanticMapper(is_train=True, augmentations=GEOMETRY, cache=cache)
    for _ in range(2):
        a, b = plain(semantic[0], rng()), cached(semantic[0], rng())
        assert torch.equal(a["image"], b["image"])
        assert torch.equal(a["sem_seg"], b["sem_seg"])
    files = list((tmp_path / "cache").rglob("*.npy"))
    assert len(files) == 2
    files[0].write_bytes(b"damaged")
    assert torch.equal(cached(semantic[0], rng())["image"], plain(semantic[0], rng())["image"])
    picture = tmp_path / "a.png"
    record = {"file_name": str(picture)}
    mapper = SemanticMapper(is_train=False, cache=cache)
    cv2.imwrite(str(picture), np.zeros((4, 4, 3), np.uint8))
    assert mapper(record)["image"].max() == 0
    cv2.imwrite(str(picture), np.full((5, 5, 3), 9, np.uint8))
    assert mapper(record)["image"].max() == 9


@pytest.mark.parametrize(
    ("dataset", "files"), [("shapes_instance_train", 1), ("shapes_panoptic_train", 2)]
)
def test_every_task_reads_from_the_cache(dataset, files, tmp_path):
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TRAIN = (dataset,)
    cfg.INPUT.MIN_SIZE_TRAIN = (96,)
    cfg.INPUT.MASK_FORMAT = "bitmask"
    record = DatasetCatalog.get(dataset)[0]
    plain = build_mapper(cfg, True)(record, rng())
    cfg.INPUT.DECODED_CACHE.FOLDER = str(tmp_path)
    assert build_mapper(cfg, False).cache is None
    for _ in range(2):
        cached = build_mapper(cfg, True)(record, rng())
        assert torch.equal(cached["image"], plain["image"])
        found, expected = cached["instances"], plain["instances"]
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)
        assert torch.equal(found.gt_boxes.tensor, expected.gt_boxes.tensor)
        assert len(list(tmp_path.rglob("*.npy"))) == files


def test_the_cache_is_bounded(semantic, tmp_path):
    mapper = SemanticMapper(
        is_train=False, cache=DecodedCache(tmp_path / "cache", max_bytes=120_000)
    )
    for record in semantic[:10]:
        mapper(record)
    used = sum(p.stat().st_size for p in (tmp_path / "cache").rglob("*.npy"))
    assert 90_000 < used < 121_000
