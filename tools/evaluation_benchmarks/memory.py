"""Peak memory of scoring masks of many images: ours against hotcoco alone.

Each in a process of its own, of which the peak after the imports counts.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seg_plugins.evaluation import InstanceEvaluator
from seg_plugins.ops.run_length import RunLengthMasks

import hotcoco
import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from .measuring import register, same

SIZE, TRUTHS, DETECTIONS, CLASSES = 96, 3, 20, 10


def write_truth(file: Path, images: int) -> None:
    """COCO's JSON: squares, as polygons."""
    annotations = []
    for image in range(images):
        for place in range(TRUTHS):
            x, y, side = _square(image, place)
            outline = [x, y, x + side, y, x + side, y + side, x, y + side]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image + 1, "area": side * side,
                 "category_id": place % CLASSES + 1, "bbox": [x, y, side, side], "iscrowd": 0,
                 "segmentation": [outline]}
            )  # fmt: skip
    content = {
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "height": SIZE, "width": SIZE}
            for i in range(images)
        ],
        "categories": [{"id": k + 1, "name": f"c{k}"} for k in range(CLASSES)],
        "annotations": annotations,
    }
    file.write_text(json.dumps(content))


def detections(images: int) -> Iterator[Instances]:
    """Squares near the true ones, image by image."""
    for image in range(images):
        squares = [_square(image, d % TRUTHS, d // TRUTHS) for d in range(DETECTIONS)]
        masks = np.zeros((DETECTIONS, SIZE, SIZE), bool)
        for mask, (x, y, side) in zip(masks, squares, strict=True):
            mask[y : y + side, x : x + side] = True
        found = Instances((SIZE, SIZE))
        corners = [[x, y, x + side, y + side] for x, y, side in squares]
        found.pred_boxes = Boxes(torch.tensor(corners, dtype=torch.float32))
        found.scores = 1 - torch.arange(DETECTIONS) / 32 - image % 7 / 256
        found.pred_classes = torch.arange(DETECTIONS) % TRUTHS % CLASSES
        found.pred_masks = RunLengthMasks.from_bitmasks(masks)
        yield found


def _square(image: int, place: int, shift: int = 0) -> tuple[int, int, int]:
    """x, y and side in pixels."""
    x, y = (image * 13 + place * 29) % 40, (image * 5 + place * 17) % 40
    return x + shift % 4, y + shift // 4, 10 + (image * 7 + place * 11) % 40


def memory_instances(folder: Path, images: int) -> None:
    """One line: MiB and seconds of both, and that their AP is the same."""
    truth, results = folder / "truth.json", folder / "results.json"
    write_truth(truth, images)
    with results.open("w") as file:
        for image, found in enumerate(detections(images)):
            boxes = found.pred_boxes.tensor.tolist()
            rows = zip(boxes, found.scores.tolist(), found.pred_classes.tolist(),
                       found.pred_masks.to_coco(), strict=True)  # fmt: skip
            records = [
                {"image_id": image + 1, "category_id": k + 1, "score": score, "segmentation": rle}
                for _, score, k, rle in rows
            ]
            file.write(("," if image else "[") + json.dumps(records)[1:-1])
        file.write("]")
    ours = _measured(_score_here, truth, results, images)
    peer = _measured(_score_by_hotcoco, truth, results, images)
    same("AP", ours["AP"], peer["AP"])
    print(
        f"| masks of {images} images x {DETECTIONS} detections, peak memory above the imports' | "
        f"hotcoco, from files | {peer['MiB']:.0f} MiB, {peer['seconds']:.0f} s | InstanceEvaluator "
        f"| {ours['MiB']:.0f} MiB, {ours['seconds']:.0f} s | {peer['MiB'] / ours['MiB']:.1f} |"
    )


def _score_here(truth: Path, results: Path, images: int) -> float:
    ids = {k + 1: k for k in range(CLASSES)}
    register("memory_masks", [], json_file=str(truth), thing_dataset_id_to_contiguous_id=ids)
    evaluator = InstanceEvaluator("memory_masks")
    for image, found in enumerate(detections(images)):
        evaluator.process([{"image_id": image + 1}], [{"instances": found}])
    return evaluator.evaluate()["segm"]["AP"]


def _score_by_hotcoco(truth: Path, results: Path, images: int) -> float:
    known = hotcoco.COCO(str(truth))
    found = known.load_res(str(results))
    for task in ("bbox", "segm"):
        run = hotcoco.COCOeval(known, found, task)
        run.evaluate()
        run.accumulate()
    precision = np.asarray(run.eval["precision"])[..., 0, -1]
    return 100 * float(np.mean(precision[precision > -1]))


def _measured(score: Callable[..., float], *arguments: Any) -> dict[str, float]:
    """AP, MiB and seconds of a score in a new process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_in_child, (score, arguments))


def _in_child(score: Callable[..., float], arguments: tuple[Any, ...]) -> dict[str, float]:
    before, start = _peak(), time.perf_counter()
    found = score(*arguments)
    return {"AP": found, "MiB": _peak() - before, "seconds": time.perf_counter() - start}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
