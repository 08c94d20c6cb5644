"""Panoptic quality against panopticapi's way through PNG files."""

from __future__ import annotations

import contextlib
import copy
import importlib
import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seg_plugins.evaluation import PanopticEvaluator
from seg_plugins.io.panoptic import write_segment_ids

import cv2
import hotcoco.panoptic
import numpy as np
import torch
from cityscapesscripts.evaluation import evalPanopticSemanticLabeling as pq_reference
from timing import medians

from .measuring import CITYSCAPES, once, register, report, same


def cells(rng: np.random.Generator, count: int, shape: tuple[int, int]) -> np.ndarray:
    """(H, W) int32 map of `count` segments: the pixels nearest to random points."""
    seeds = np.ones(shape, np.uint8)
    seeds[tuple(rng.integers(side, size=count) for side in shape)] = 0
    _, nearest = cv2.distanceTransformWithLabels(
        seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    return nearest.astype(np.int32) * 700 + 1


def segments_of(ids: np.ndarray) -> list[dict[str, Any]]:
    """COCO segments_info of an id map, categories 1..11 by id."""
    values, areas = (x.tolist() for x in np.unique(ids, return_counts=True))
    return [
        {"id": v, "category_id": v // 700 % 11 + 1, "iscrowd": 0, "area": n}
        for v, n in zip(values, areas, strict=True)
    ]


def pq(folder: Path, repeats: int) -> None:
    if importlib.util.find_spec("panopticapi") is None:
        print("panopticapi cannot be imported; its pq_compute as shipped in cityscapesscripts:")
    for shape, count in (((480, 640), 20), (CITYSCAPES, 80)):
        pq_of_size(folder, repeats, shape, count)


def pq_of_size(folder: Path, repeats: int, shape: tuple[int, int], count: int) -> None:
    categories = {i: {"id": i, "name": f"c{i}", "isthing": i % 2} for i in range(1, 12)}
    truth = cells(np.random.default_rng(4), count, shape)
    found = np.roll(truth, 5, axis=(0, 1))
    write_segment_ids(folder / "truth" / "0.png", truth)
    annotation = {"image_id": 0, "file_name": "0.png", "segments_info": segments_of(truth)}
    file = folder / "panoptic.json"
    content = {"categories": list(categories.values()), "annotations": [annotation]}
    file.write_text(json.dumps(content))
    roots = [str(folder / "truth"), str(folder / "found")]
    register("pq", [], panoptic_json=str(file), panoptic_root=roots[0])
    ours = PanopticEvaluator("pq")
    predicted = segments_of(found)
    output = {"panoptic_seg": (torch.from_numpy(found), predicted)}
    stats = []

    def reference() -> None:
        write_segment_ids(folder / "found" / "0.png", found)
        pairs = [(annotation, {**annotation, "segments_info": copy.deepcopy(predicted)})]
        with contextlib.redirect_stdout(io.StringIO()):
            stats.append(pq_reference.pq_compute_single_core(0, pairs, *roots, categories))

    peer = "PNG + pq_compute_single_core"
    runs = {peer: reference, "PanopticEvaluator": once(ours, {"image_id": 0}, output)}
    times = medians(runs, repeats)
    expected, _ = stats[-1].pq_average(categories, None)
    same("PQ", ours.evaluate()["panoptic_seg"]["PQ"], 100 * expected["pq"])
    report(f"PQ, {shape[1]}x{shape[0]}, {count} segments", peer, times)
    # Both read the truth's PNG as well; hotcoco the prediction's, too, which lies there already.
    work = f"PQ, {shape[1]}x{shape[0]}, {count} segments, no PNG written"
    for name, score in _libraries(folder, file, annotation, predicted, found, content).items():
        times = medians({name: score, "PanopticEvaluator": runs["PanopticEvaluator"]}, repeats)
        same(f"{name} PQ", ours.evaluate()["panoptic_seg"]["PQ"], 100 * score())
        report(work, name, times)


def _libraries(
    folder: Path,
    file: Path,
    annotation: dict[str, Any],
    predicted: list[dict[str, Any]],
    found: np.ndarray,
    content: dict[str, Any],
) -> dict[str, Callable[[], float]]:
    """Name -> PQ of the image by a library; those that cannot be imported are named."""
    results = folder / "found.json"
    results.write_text(json.dumps({"annotations": [{**annotation, "segments_info": predicted}]}))

    def by_hotcoco() -> float:
        folders = {"gt_folder": folder / "truth", "pred_folder": folder / "found"}
        run = hotcoco.panoptic.PanopticEval(file, results, **folders)
        run.evaluate()
        return run.results()["All"]["pq"]

    libraries = {"hotcoco": by_hotcoco}
    try:
        panoptic = importlib.import_module("vernier.panoptic")
    except ImportError as error:
        print(f"vernier cannot be imported: {error}")
        return libraries
    categories = json.dumps(content["categories"]).encode()
    true_segments, found_segments = (
        json.dumps({"0": segments}).encode()
        for segments in (annotation["segments_info"], predicted)
    )

    def by_vernier() -> float:
        truth = panoptic.decode_label_map_png(folder / "truth" / "0.png")
        arrays = {0: truth}, {0: found.astype(np.uint32)}
        dataset = panoptic.Dataset.from_arrays(arrays[0], true_segments, categories)
        predictions = panoptic.Predictions.from_arrays(arrays[1], found_segments)
        return panoptic.Evaluator(parity_mode="strict").evaluate(dataset, predictions).pq

    return {**libraries, "vernier": by_vernier}
