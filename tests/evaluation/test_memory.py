"""Memory does not grow with the number of images."""

from __future__ import annotations

import tracemalloc

from seg_plugins.evaluation import SemanticEvaluator
from seg_plugins.evaluation.panoptic_quality import PanopticCounts

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog


def growth(step, first=100, then=1500):
    """Bytes by which the traced peak of `then` further calls exceeds that of the first ones."""
    tracemalloc.start()
    try:
        for i in range(first):
            step(i)
        before = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        for i in range(first, first + then):
            step(i)
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("save", [False, True])
def test_semantic_evaluator(tmp_path, save):
    truth = np.zeros((32, 32), np.uint8)
    records = [{"file_name": str(i), "sem_seg_file_name": str(i)} for i in range(1600)]
    DatasetCatalog.register("flat", lambda: records)
    MetadataCatalog.get("flat").set(
        stuff_classes=["a", "b"], ignore_label=255, sem_seg_loading_fn=lambda path: truth
    )
    try:
        evaluator = SemanticEvaluator("flat", tmp_path, save_predictions=save)
        output = {"sem_seg": torch.rand(2, 32, 32)}
        assert growth(lambda i: evaluator.process([records[i]], [output])) < 64_000
        assert evaluator.evaluate()["sem_seg"]["pACC"] > 0
    finally:
        DatasetCatalog.remove("flat")
        MetadataCatalog.remove("flat")


def test_panoptic_counts():
    counts = PanopticCounts([1])
    ids = np.ones((32, 32), np.int32)
    segments = [{"id": 1, "category_id": 1, "area": ids.size}]
    assert growth(lambda i: counts.add(ids, segments, ids, segments)) < 64_000
    assert counts.tp[0] == 1600
