"""Windows that training draws: where they may lie, how often each class, and the same again."""

from __future__ import annotations

import seg_plugins
from seg_plugins.data import apply_custom_dataset, build_mapper
from seg_plugins.data.samplers import sample_order
from seg_plugins.data.training_records import training_records
from seg_plugins.data.training_window import TrainingWindow
from seg_plugins.engine.train_loader import build_train_loader
from seg_plugins.io.window_names import Area, split_name

import numpy as np
import pytest

pytest.importorskip("rasterio")
from raster_scenes import describe, write_scene


@pytest.fixture
def cfg(tmp_path, monkeypatch):
    """Of the scene with balanced windows, without augmentation."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return config(tmp_path, windows={"size": 48, "class_balanced": True})


def config(folder, **content):
    cfg = seg_plugins.get_cfg()
    folder.mkdir(exist_ok=True)
    cfg.DATASETS.CUSTOM = str(describe(folder, **content))
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (0,), 0
    cfg.INPUT.FORMAT = "RGB"
    cfg.SOLVER.IMS_PER_BATCH, cfg.DATALOADER.NUM_WORKERS = 4, 0
    cfg.SEED = 5
    return cfg


def drawn(cfg, batches, first=0):
    """The names of the windows, and the samples."""
    loader = build_train_loader(cfg, build_mapper(cfg, True))
    loader.start_at(first)
    samples = [s for _, batch in zip(range(batches), loader, strict=False) for s in batch]
    return [sample["file_name"] for sample in samples], samples


def test_samples_are_windows_of_the_area_that_trains(tmp_path, cfg):
    pixels, labels = write_scene(tmp_path)
    apply_custom_dataset(cfg)
    names, samples = drawn(cfg, 15)
    areas = [split_name(name)[1] for name in names]
    assert len(set(areas)) > 50  # not the tiles again and again
    for sample, area in zip(samples, areas, strict=True):
        assert (area.width, area.height) == (48, 48)
        assert area.columns[1] <= 168  # a fifth of 210 columns validates
        rows, columns = slice(*area.rows), slice(*area.columns)
        assert np.array_equal(sample["image"].numpy(), pixels[:, rows, columns])
        assert np.array_equal(sample["sem_seg"].numpy(), labels[rows, columns])


def test_a_resumed_training_draws_the_same_windows(tmp_path, cfg):
    write_scene(tmp_path)
    apply_custom_dataset(cfg)
    whole, _ = drawn(cfg, 4)
    assert drawn(cfg, 2, first=2)[0] == whole[8:]
    cfg.DATALOADER.NUM_WORKERS = 2
    assert drawn(cfg, 4)[0] == whole
    cfg.SEED = 6
    assert drawn(cfg, 4)[0] != whole


def test_every_class_is_drawn_as_often(tmp_path, cfg):
    """Trees are 20 of 25,200 pixels, in one of 16 tiles: a third of the windows hold them."""
    _, labels = write_scene(tmp_path)
    apply_custom_dataset(cfg)
    records, order = sample_order(cfg, training_records(cfg))
    factors = order.repeat_factors
    shares = factors / factors.sum()
    per_class = np.zeros(3)
    for record, share in zip(records, shares, strict=True):
        area = split_name(record["file_name"])[1]
        shown = np.unique(labels[slice(*area.rows), slice(*area.columns)])
        chances = np.array(record["training_window"].class_chances)[shown]
        per_class[shown] += share * chances / chances.sum()
    assert np.allclose(per_class, 1 / 3)
    _, samples = drawn(cfg, 30)
    with_trees = np.mean([bool((sample["sem_seg"] == 2).any()) for sample in samples])
    assert with_trees > 0.3  # besides, other windows hold some by chance
    cfg = config(tmp_path)
    apply_custom_dataset(cfg)
    _, samples = drawn(cfg, 30)
    assert np.mean([bool((sample["sem_seg"] == 2).any()) for sample in samples]) < 0.2


def test_a_window_holds_the_pixel_of_its_class():
    label = np.zeros((20, 20), np.uint8)
    label[3, 17] = 1
    window = TrainingWindow(Area(100, 50, 60, 40), Area(120, 60, 20, 20), 16, True, (0.0, 1.0))
    found = {window.draw(np.random.default_rng(i), lambda: label) for i in range(400)}
    for area in found:
        assert area.x <= 137 < area.columns[1]
        assert area.y <= 63 < area.rows[1]
        assert area.shared(window.area) == 16 * 16
    assert {area.x for area in found} == set(range(122, 138))
    assert {area.y for area in found} == set(range(50, 64))  # not above the area's first row


def test_without_classes_the_centre_is_in_the_tile():
    window = TrainingWindow(Area(0, 0, 200, 10), Area(40, 0, 40, 10), 32)
    found = {window.draw(np.random.default_rng(i), lambda: None) for i in range(800)}
    assert {area.x for area in found} == set(range(24, 64))
    assert {(area.y, area.width, area.height) for area in found} == {(0, 32, 10)}


def test_a_test_set_is_tiled_not_drawn(tmp_path, cfg):
    pixels, _ = write_scene(tmp_path)
    apply_custom_dataset(cfg)
    cfg.INPUT.MIN_SIZE_TEST = 0
    mapper = build_mapper(cfg, False)
    seen = np.zeros((150, 210), int)
    for record in seg_plugins.data.Dataset.get(cfg.DATASETS.TEST[0]).records:
        sample = mapper(record)
        area = split_name(sample["file_name"])[1]
        part = slice(*area.rows), slice(*area.columns)
        assert np.array_equal(sample["image"].numpy(), pixels[(slice(None), *part)])
        seen[part] += 1
    assert (seen[:, 168:] == 1).all()
    assert not seen[:, :168].any()


def test_balanced_windows_do_not_mix(tmp_path, cfg):
    write_scene(tmp_path)
    apply_custom_dataset(cfg)
    records = training_records(cfg)
    with pytest.raises(seg_plugins.config.ConfigError, match="class_balanced windows cannot be"):
        sample_order(cfg, [*records, {"file_name": "a.png"}])
    cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.1
    with pytest.raises(seg_plugins.config.ConfigError, match="does not fit windows"):
        sample_order(cfg, records)
