"""Dice per volume, from slices in any order."""

from __future__ import annotations

from seg_plugins.evaluation import EvaluationError, VolumeEvaluator
from seg_plugins.evaluation.volume import volume_of

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image


@pytest.fixture
def volumes(tmp_path):
    """Two volumes of two slices; truth and prediction of each."""
    name = f"volume_test_{tmp_path.name}"
    rng = np.random.default_rng(0)
    records, maps = [], {}
    for i in range(4):
        truth, found = (rng.integers(0, 3, (8, 9)).astype(np.uint8) for _ in range(2))
        if i >= 2:  # the second volume has no tumour, true or predicted
            truth[truth == 2], found[found == 2] = 1, 0
        truth[0, 0] = 255
        Image.fromarray(truth).save(tmp_path / f"{i}.png")
        maps[str(i)] = truth, found
        records.append(
            {
                "file_name": str(i),
                "sem_seg_file_name": str(tmp_path / f"{i}.png"),
                "volume_id": "ab"[i // 2],
            }
        )
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(stuff_classes=["other", "liver", "tumour"], ignore_label=255)
    yield name, records, maps
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_dice_is_the_mean_over_volumes(volumes):
    name, _, maps = volumes
    evaluator = VolumeEvaluator(name)
    for key in ("3", "0", "2", "1"):
        found = torch.from_numpy(maps[key][1].astype(np.int64))
        evaluator.process([{"file_name": key}], [{"sem_seg": found}])
    scores = evaluator.evaluate()["volume"]

    def dice(keys, k):
        truth, found = (np.stack([maps[key][j] for key in keys]) for j in (0, 1))
        found = found[truth != 255]
        truth = truth[truth != 255]
        both = np.count_nonzero((truth == k) & (found == k))
        return 200 * both / (np.count_nonzero(truth == k) + np.count_nonzero(found == k))

    liver = (dice("01", 1) + dice("23", 1)) / 2
    assert scores["Dice-liver"] == pytest.approx(liver)
    assert scores["Dice-tumour"] == pytest.approx(dice("01", 2))
    assert scores["DiceGlobal-liver"] == pytest.approx(dice("0123", 1))
    other = (dice("01", 0) + dice("23", 0)) / 2
    assert scores["mDice"] == pytest.approx((other + liver + dice("01", 2)) / 3)


def test_a_record_without_a_volume_is_named(volumes):
    name, records, maps = volumes
    del records[1]["volume_id"]
    found = torch.from_numpy(maps["1"][1].astype(np.int64))
    with pytest.raises(EvaluationError, match=r"1: its record has no volume_id, and its file"):
        VolumeEvaluator(name).process([{"file_name": "1"}], [{"sem_seg": found}])


def test_the_volume_stands_in_the_name_of_a_slice():
    assert volume_of({"file_name": "slices/val/volume-105_0012.npy"}) == "volume-105"
    assert volume_of({"file_name": "volume-105_0012.npy", "volume_id": 7}) == 7
