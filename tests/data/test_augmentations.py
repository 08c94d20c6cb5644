"""Crops and sizes are drawn as configured, measured over many draws."""

from __future__ import annotations

from seg_plugins.config import ConfigError
from seg_plugins.data import SemanticMapper
from seg_plugins.data.augmentations import Content, Crop, ScaleJitter
from seg_plugins.data.geometry import Geometry

import numpy as np
import pytest
from mapper_draws import rng


def test_category_limit_holds_where_it_can(semantic):
    crop = Crop((64, 64), max_class_share=0.7)
    free = Crop((64, 64))
    shares = {}
    for name, augmentation in (("limited", crop), ("free", free)):
        mapper = SemanticMapper(is_train=True, augmentations=[augmentation])
        labels = [mapper(r, rng(i))["sem_seg"] for i, r in enumerate(semantic)]
        shares[name] = np.mean(
            [np.bincount(v[v != 255]).max() > 0.7 * (v != 255).sum() for v in labels]
        )
    assert shares["limited"] < 0.6 * shares["free"]


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("absolute", (64, 300), (64, 128), (64, 128)),
        ("relative", (0.5, 0.25), (64, 32), (64, 32)),
        ("relative_range", (0.5, 0.25), (64, 32), (128, 128)),
        ("absolute_range", (40, 60), (40, 40), (60, 60)),
    ],
)
def test_crop_sizes_of_every_kind(semantic, kind, size, low, high):
    mapper = SemanticMapper(is_train=True, augmentations=[Crop(size, kind)])
    sizes = [tuple(mapper(semantic[0], rng(i))["image"].shape[1:]) for i in range(30)]
    assert all(np.greater_equal(s, low).all() and np.less_equal(s, high).all() for s in sizes)
    assert (len(set(sizes)) > 5) == kind.endswith("range")


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("absolute", (0.9, 0.9), r"\[0\.9, 0\.9\] should be whole numbers of pixels.*is absolute"),
        ("absolute", (0, 32), "whole numbers of pixels"),
        ("absolute_range", (60, 40), "whole numbers of pixels"),
        ("relative", (256, 320), r"shares in \(0, 1\].*is relative"),
        ("relative_range", (0.0, 0.5), r"shares in \(0, 1\]"),
        ("cut", (32, 32), "should be one of absolute"),
    ],
)
def test_sizes_of_another_kind_are_errors(kind, size, message):
    with pytest.raises(ConfigError, match=message):
        Crop(size, kind)


def test_rare_classes_are_seen_as_often_as_common_ones():
    """A class on 16 of 40,000 pixels: every second crop holds it, against one in 40 by chance."""
    label = np.zeros((200, 200), np.uint8)
    label[90:94, 50:54] = 1

    def seen(chance: float) -> float:
        crop = Crop((32, 32), rare_class_chance=chance)
        crops = [
            crop(rng(i), Geometry.identity(label.shape), Content(label)).apply_label(label)
            for i in range(300)
        ]
        return np.mean([(c == 1).any() for c in crops])

    assert 0.4 < seen(1.0) < 0.65
    assert seen(0.0) < 0.1


def test_scale_jitter_fits_the_target_size(semantic):
    for factor in (0.5, 1.0, 2.0):
        mapper = SemanticMapper(
            is_train=True, augmentations=[ScaleJitter((64, 200), (factor, factor))]
        )
        assert mapper(semantic[0], rng())["image"].shape[1:] == (64 * factor, 64 * factor)
