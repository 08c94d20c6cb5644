"""All of pycocotools' arrays, bit for bit, on sets made to be awkward; and bad input refused."""

from __future__ import annotations

import copy
import pickle
from types import SimpleNamespace

from seg_plugins.evaluation import (
    EvaluationError,
    InstanceEvaluator,
    coco_engine,
    found_instances,
)
from seg_plugins.evaluation.coco_truth import CocoTruth
from seg_plugins.evaluation.found_instances import FoundInstances
from seg_plugins.ops._extension import load_extension
from seg_plugins.ops.run_length import RunLengthMasks

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from coco_samples import as_coco_results, as_instances, make_coco, pycocotools_evaluation, run

# Sides of boxes whose areas lie on the borders of COCO's sizes, 32**2 and 96**2, or beside them.
SIDES = [0, 1, 16, 31, 32, 33, 48, 64, 95, 96, 97, 108, 144]


def rectangle(rng, height, width):
    """x, y, width, height, whole numbers; often of an area that ends a range of sizes."""
    w, h = (int(v) for v in rng.choice(SIDES, 2))
    if rng.random() < 0.4:  # 1024, 1024, 9216, 9216 square pixels
        w, h = [(32, 32), (16, 64), (96, 96), (64, 144)][rng.integers(4)]
    x, y = int(rng.integers(max(1, width - w))), int(rng.integers(max(1, height - h)))
    return [x, y, min(w, width - x), min(h, height - y)]


def filled(box, height, width):
    x, y, w, h = box
    mask = np.zeros((height, width), np.uint8)
    mask[y : y + h, x : x + w] = 1
    return mask


def awkward(seed):
    """A COCO dict and predictions as of :func:`coco_samples.make_coco`.

    Holds ties of score within and between images, infinite and negative scores, crowds, images
    without truth, without detections and without both, areas on the borders of the sizes, ids 0
    of images, classes and annotations, more than 100 detections of a class, boxes of size zero,
    classes without truth, and annotated areas that contradict their mask.
    """
    rng = np.random.default_rng(seed)
    categories = [0, 2, 5, 900][: int(rng.integers(1, 5))]
    content = {
        "images": [], "annotations": [],
        "categories": [{"id": c, "name": f"class{c}"} for c in categories],
    }  # fmt: skip
    predictions = {}
    levels = np.float32([0, 0.25, 0.5, 0.75, 1, -1, np.inf, 1e-30])
    levels = levels[: int(rng.integers(1, len(levels) + 1))]
    for i in rng.permutation(int(rng.integers(1, 7))).tolist():
        height, width = (int(v) for v in rng.choice([1, 40, 160, 220], 2))
        content["images"].append(
            {"id": i, "height": height, "width": width, "file_name": f"{i}.png"}
        )
        boxes = [rectangle(rng, height, width) for _ in range(int(rng.integers(0, 7)))]
        classes = rng.integers(len(categories), size=len(boxes))
        for box, k in zip(boxes, classes, strict=True):
            x, y, w, h = box
            crowd = int(rng.random() < 0.2)
            mask = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            if crowd or rng.random() < 0.3:
                flat = filled(box, height, width).T.reshape(-1)
                counts = np.diff(np.flatnonzero(np.diff(flat)) + 1, prepend=0, append=len(flat))
                counts = counts.tolist() if not flat[0] else [0, *counts.tolist()]
                mask = {"size": [height, width], "counts": counts}
            area = rng.choice([w * h, 0, 1023.5, 1024, 1024.5, 9216, 9216.5]) if i % 2 else w * h
            content["annotations"].append(
                {
                    "id": len(content["annotations"]), "image_id": i, "iscrowd": crowd,
                    "category_id": categories[k], "bbox": box, "area": float(area),
                    "segmentation": mask,
                }
            )  # fmt: skip
        many = int(rng.choice([0, 1, 5, 20, 130], p=[0.2, 0.2, 0.3, 0.2, 0.1]))
        found = [
            boxes[rng.integers(len(boxes))]
            if boxes and rng.random() < 0.8
            else rectangle(rng, height, width)
            for _ in range(many)
        ]
        shift = rng.choice([0, 0, 0, 1, 3], (many, 2))
        found = np.array(found, int).reshape(-1, 4)
        found[:, :2] += shift
        masks = [filled(box, height, width) for box in found.tolist()]
        corners = found.astype(np.float32)
        corners[:, 2:] += corners[:, :2]
        corners += rng.choice(np.float32([0, 0, 0.25, 1e-3]), (many, 4))
        corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2])
        predicted = rng.choice(classes if len(classes) else len(categories), many)
        predictions[i] = (
            np.array(masks, np.uint8).reshape(-1, height, width),
            corners,
            rng.choice(levels, many),
            np.asarray(predicted, int),
        )
    return content, predictions


def assert_same_arrays(coco_dataset, seed):
    content, predictions = awkward(seed)
    limits = [(1, 10, 100), (1, 10, 100, 300), (1, 3)][seed % 3]
    evaluator = InstanceEvaluator(coco_dataset(content), max_dets_per_image=limits[-1])
    found = run(evaluator, content, predictions)
    counted_from_one = copy.deepcopy(content)
    for annotation in counted_from_one["annotations"]:
        annotation["id"] += 1  # pycocotools takes a match with id 0 for none
    results = as_coco_results(content, predictions)
    for task in ("bbox", "segm") if content["annotations"] else ("bbox",):
        official = pycocotools_evaluation(counted_from_one, results, task, limits)
        for name in ("precision", "recall"):
            ours, theirs = getattr(evaluator.curves[task], name), official.eval[name]
            assert ours.dtype == theirs.dtype == np.float64
            assert ours.shape == theirs.shape
            assert ours.tobytes() == theirs.tobytes(), f"{task} {name}"
        curves = evaluator.curves[task]
        one_by_one = [curves.average_precision(category=k) for k in range(len(curves.by_class()))]
        np.testing.assert_array_equal(curves.by_class(), one_by_one)
        if limits == (1, 10, 100):
            names = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
            names += ["AR@1", "AR@10", "AR@100", "ARs@100", "ARm@100", "ARl@100"]
            stats = np.where(official.stats == -1, np.nan, 100 * official.stats)
            np.testing.assert_array_equal([found[task][n] for n in names], stats)
    return found


@pytest.mark.parametrize("seed", range(15))
def test_same_arrays_as_pycocotools(coco_dataset, seed):
    assert_same_arrays(coco_dataset, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", [coco_engine.PART, 5])
@pytest.mark.parametrize("seed", range(15, 315))
def test_same_arrays_as_pycocotools_on_three_hundred_sets(coco_dataset, monkeypatch, seed, part):
    monkeypatch.setattr(coco_engine, "PART", part)
    assert_same_arrays(coco_dataset, seed)


@pytest.mark.parametrize("seed", range(15))
def test_part_by_part_and_from_disk(coco_dataset, monkeypatch, tmp_path, seed):
    content, predictions = awkward(seed)
    dataset = coco_dataset(content)
    run(InstanceEvaluator(dataset, tmp_path / "whole"), content, predictions)
    monkeypatch.setattr(coco_engine, "PART", 5)
    monkeypatch.setattr(found_instances, "IN_MEMORY", 100)
    assert_same_arrays(coco_dataset, seed)
    run(InstanceEvaluator(dataset, tmp_path / "parts"), content, predictions)
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert "instances_matches.npz" in files
    for name in files:
        written = (tmp_path / folder / name for folder in ("parts", "whole"))
        assert next(written).read_bytes() == next(written).read_bytes(), name


def test_the_engine_is_handed_no_damaged_masks(coco_dataset):
    """hotcoco scores run lengths that do not cover the image, or are none, without a word."""
    if not load_extension().loaded:
        pytest.skip("pycocotools reads malformed strings without a check")
    content, predictions = make_coco(1, size=60)
    image = max(content["images"], key=lambda image: len(predictions[image["id"]][0]))
    size = image["height"], image["width"]
    for counts in (b"11", b"\x01\x02"):
        instances = as_instances(predictions[image["id"]], size, "coco")
        instances.pred_masks[2]["counts"] = counts
        evaluator = InstanceEvaluator(coco_dataset(content))
        with pytest.raises(EvaluationError, match=f"{image['id']}: run-length mask 2"):
            evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])


@pytest.mark.parametrize("first", ["bitmasks", None])
def test_masks_in_some_images_only(coco_dataset, first):
    content, predictions = make_coco(2, size=60)
    evaluator = InstanceEvaluator(coco_dataset(content))
    one, two = [image for image in content["images"] if len(predictions[image["id"]][0])][:2]

    def process(image, masks):
        instances = as_instances(predictions[image["id"]], (image["height"], image["width"]), masks)
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])

    process(one, first)
    with pytest.raises(EvaluationError, match=f"{two['id']}: detections with"):
        process(two, None if first else "bitmasks")


def test_one_process_with_masks_and_one_without():
    with_masks, without = FoundInstances(), FoundInstances()
    boxes, scores, categories = np.ones((1, 4)), np.ones(1), np.zeros(1, np.int64)
    masks = RunLengthMasks.from_bitmasks(np.ones((1, 4, 4), np.uint8))
    with_masks.add(0, boxes, scores, categories, masks)
    without.add(1, boxes, scores, categories, None)
    with pytest.raises(EvaluationError, match="without pred_masks"):
        FoundInstances.merged([with_masks, without])
    nothing = FoundInstances()
    nothing.add(1, boxes[:0], scores[:0], categories[:0], None)
    for states in ([with_masks, nothing], [nothing, with_masks]):
        merged = FoundInstances.merged([pickle.loads(pickle.dumps(found)) for found in states])
        assert merged.with_masks
        assert merged.whole().rle_masks({0: (4, 4), 1: (9, 9)}) == [
            {"size": (4, 4), "counts": "0`0"}
        ]


def test_truth_of_another_size_than_its_image():
    mask = coco_mask.encode(np.asfortranarray(np.ones((4, 5), np.uint8)))
    annotation = {"bbox": [0, 0, 5, 4], "bbox_mode": 1, "category_id": 0, "segmentation": mask}
    record = {"file_name": "a.png", "image_id": "a", "height": 5, "width": 4}
    records = [{**record, "annotations": [{**annotation, "id": 7}]}]
    truth = CocoTruth(SimpleNamespace(source="mine", instance_records=records,
                                      instance_classes=[(0, 1, "thing")]))  # fmt: skip
    with pytest.raises(EvaluationError, match=r"mine: annotation 7 of image a: .*\(4, 5\)"):
        truth.engine_dataset()
