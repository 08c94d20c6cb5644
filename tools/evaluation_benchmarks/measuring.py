"""Timing in turn, the table's lines, and street-like scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seg_plugins.evaluation.streaming import StreamingEvaluator

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

CITYSCAPES = (1024, 2048)


def report(work: str, peer: str, times: dict[str, float]) -> None:
    """One line per evaluator: milliseconds of peer and evaluator, and peer / evaluator."""
    for name, value in times.items():
        if name != peer:
            ratio = times[peer] / value
            print(f"| {work} | {peer} | {times[peer]:.1f} | {name} | {value:.1f} | {ratio:.1f} |")


def smooth_scores(rng: np.random.Generator, classes: int, shape: tuple[int, int]) -> np.ndarray:
    """(K, H, W) float32 scores whose argmax has regions like those of a street scene."""
    coarse = rng.normal(size=(classes, shape[0] // 43, shape[1] // 43)).astype(np.float32)
    size = shape[::-1]
    return np.stack([cv2.resize(x, size, interpolation=cv2.INTER_CUBIC) for x in coarse])


def same(name: str, ours: float, theirs: float) -> None:
    if not np.isclose(ours, theirs, rtol=1e-12, atol=1e-12, equal_nan=True):
        raise SystemExit(f"{name}: {ours} here, {theirs} there: not the same digits")


def register(name: str, records: list[dict[str, Any]], **metadata: Any) -> None:
    for catalogue in (DatasetCatalog, MetadataCatalog):
        if name in catalogue.list():
            catalogue.remove(name)
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(**metadata)


def once(evaluator: Any, given: dict[str, Any], output: dict[str, Any]) -> Callable[[], None]:
    """A run of `process` on one image from a fresh state."""

    def run() -> None:
        if isinstance(evaluator, StreamingEvaluator):
            evaluator._visits[:] = 0  # the same image again
        evaluator.process([given], [output])

    evaluator.reset()
    return run
