"""Each image's own figures, beside the results."""

from __future__ import annotations

import json

from seg_plugins.evaluation import (
    CityscapesInstanceEvaluator,
    CityscapesSemanticEvaluator,
    InstanceEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from seg_plugins.evaluation.average_precision import RECALL_STEPS
from seg_plugins.evaluation.cityscapes_files import INSTANCE_LABELS
from seg_plugins.io.panoptic import write_segment_ids

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

NAME = "per_image"


@pytest.fixture(autouse=True)
def _forget():
    yield
    for catalogue in (DatasetCatalog, MetadataCatalog):
        if NAME in catalogue.list():
            catalogue.remove(NAME)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def boxes_of(size, boxes, scores, classes, masks=False):
    """Instances from (x0, y0, x1, y1) boxes; masks that fill them on request."""
    instances = Instances(size)
    instances.pred_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    instances.scores = torch.tensor(scores, dtype=torch.float32)
    instances.pred_classes = torch.tensor(classes, dtype=torch.long)
    if masks:
        filled = torch.zeros(len(boxes), *size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(filled, boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        instances.pred_masks = filled
    return instances


def test_semantic(tmp_path):
    truths = np.array([[[0, 0, 1, 255]], [[255, 255, 255, 255]]], np.uint8)
    records = []
    for i, truth in enumerate(truths):
        Image.fromarray(truth).save(tmp_path / f"{i}.png")
        records.append({"file_name": f"{i}.jpg", "sem_seg_file_name": str(tmp_path / f"{i}.png")})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(stuff_classes=["a", "b", "c"], ignore_label=255)
    evaluator = SemanticEvaluator(NAME, tmp_path)
    for i in (1, 0):  # in the order in which they come
        evaluator.process([records[i]], [{"sem_seg": torch.tensor([[0, 1, 1, 2]])}])
    evaluator.evaluate()
    nothing, scored = lines(tmp_path / "sem_seg_per_image.jsonl")
    names = {"file_name": "1.jpg", "image_id": None}
    assert nothing == {**names, "score": None, "pACC": None, "by_class": []}
    # a: 1 of 2, b: 1 of 2, c: neither there nor predicted where it counts.
    assert scored == {
        "file_name": "0.jpg",
        "image_id": None,
        "score": 50.0,
        "pACC": pytest.approx(200 / 3),
        # Pixels of truth, of prediction and hit: the one predicted as c is not labelled.
        "by_class": [[0, 2, 1, 1], [1, 1, 2, 1]],
    }


def test_panoptic(tmp_path):
    truth = np.repeat([[1, 2, 3, 0]], 4, axis=0)
    found = np.repeat([[1, 2, 9, 0]], 4, axis=0)
    found[3, 1] = 1
    write_segment_ids(tmp_path / "0.png", truth)
    categories = [{"id": c, "name": str(c), "isthing": 1} for c in (5, 6, 7)]
    annotation = {
        "image_id": 4,
        "file_name": "0.png",
        "segments_info": [{"id": i, "category_id": 4 + i, "area": 4} for i in (1, 2, 3)],
    }
    (tmp_path / "p.json").write_text(
        json.dumps({"categories": categories, "annotations": [annotation]})
    )
    MetadataCatalog.get(NAME).set(
        panoptic_root=str(tmp_path), panoptic_json=str(tmp_path / "p.json")
    )
    evaluator = PanopticEvaluator(NAME, tmp_path)
    segments = [{"id": id, "category_id": category} for id, category in ((1, 5), (2, 6), (9, 5))]
    output = {"panoptic_seg": (torch.from_numpy(found), segments)}
    evaluator.process([{"file_name": "a/0.jpg", "image_id": 4}], [output])
    results = evaluator.evaluate()["panoptic_seg"]
    (line,) = lines(tmp_path / "panoptic_seg_per_image.jsonl")
    # 5: IoU 4 / 5 and one false positive; 6: IoU 3 / 4; 7: missed.
    assert line["score"] == pytest.approx(100 * (0.8 / 1.5 + 0.75 + 0) / 3)
    assert line["RQ"] == pytest.approx(100 * (1 / 1.5 + 1 + 0) / 3)
    assert (line["tp"], line["fp"], line["fn"]) == (2, 1, 1)
    # Segments found, invented and missed, and the overlap of those found.
    assert line["by_class"] == [[0, 1, 1, 0, 0.8], [1, 1, 0, 0, 0.75], [2, 0, 0, 1, 0.0]]
    assert (line["file_name"], line["image_id"]) == ("a/0.jpg", 4)
    # Of a single image the figures are those of the dataset.
    assert (line["score"], line["SQ"]) == (results["PQ"], results["SQ"])


@pytest.mark.parametrize("masks", [False, True])
def test_instances_and_their_curves(tmp_path, masks):
    annotations = [
        {"id": i + 1, "image_id": 1, "category_id": k, "bbox": box, "area": 100, "iscrowd": crowd}
        for i, (k, box, crowd) in enumerate(
            [(1, [0, 0, 10, 10], 0), (1, [20, 0, 10, 10], 0), (2, [0, 20, 10, 10], 1)]
        )
    ]
    for annotation in annotations:
        x, y, w, h = annotation["bbox"]
        annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    images = [{"id": i, "file_name": f"{i}.jpg", "height": 40, "width": 40} for i in (1, 2)]
    categories = [{"id": k, "name": f"class{k}"} for k in (1, 2)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    (tmp_path / "truth.json").write_text(json.dumps(content))
    MetadataCatalog.get(NAME).set(
        json_file=str(tmp_path / "truth.json"),
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
        thing_classes=["class1", "class2"],
    )
    evaluator = InstanceEvaluator(NAME, tmp_path)
    # Found; beside; in the crowd; not sure enough.
    found = [(0, 0, 10, 10), (30, 30, 40, 40), (2, 22, 6, 26), (20, 0, 30, 10)]
    outputs = [
        boxes_of((40, 40), found, [0.9, 0.8, 0.7, 0.4], [0, 0, 1, 0], masks),
        boxes_of((40, 40), [], [], [], masks),
    ]
    inputs = [{"file_name": f"{i}.jpg", "image_id": i} for i in (1, 2)]
    evaluator.process(inputs, [{"instances": instances} for instances in outputs])
    evaluator.evaluate()
    first, second = lines(tmp_path / "instances_per_image.jsonl")
    names = {"file_name": "1.jpg", "image_id": 1}
    assert first == {**names, "score": 50.0, "tp": 1, "fp": 1, "fn": 1}
    assert (second["score"], second["fn"]) == (None, 0)
    curves = json.loads((tmp_path / "instances_results.json").read_text())["pr_curves"]
    assert list(curves) == (["bbox", "segm"] if masks else ["bbox"])
    # Hit, miss, hit: precision 1 up to recall 1/2, then 2/3.
    expected = np.where(RECALL_STEPS <= 0.5, 1, 2 / 3)
    for task in curves.values():
        np.testing.assert_allclose(task["recall"], RECALL_STEPS)
        np.testing.assert_allclose(task["AP50_by_class"]["class1"], expected, atol=1e-5)
        assert set(task["AP50_by_class"]["class2"]) == {None}
        assert task["AP"] == task["AP50"] == task["AP75"] == task["AP50_by_class"]["class1"]


def test_cityscapes(tmp_path):
    city = tmp_path / "val" / "ulm"
    city.mkdir(parents=True)
    instances = np.full((40, 40), 7, np.uint16)  # road
    instances[:20, :20], instances[20:, 20:] = 26001, 26002  # two cars
    labels = np.where(instances > 1000, 26, instances).astype(np.uint8)
    for kind, image in (("instanceIds", instances), ("labelIds", labels)):
        Image.fromarray(image).save(city / f"ulm_000000_000019_gtFine_{kind}.png")
    things = [label.name for label in INSTANCE_LABELS]
    MetadataCatalog.get(NAME).set(gt_dir=str(tmp_path / "val"), thing_classes=things)
    given = {"file_name": "ulm_000000_000019_leftImg8bit.png"}
    road_everywhere = torch.zeros(40, 40, dtype=torch.uint8)
    car = things.index("car")
    found = [(0, 0, 20, 20), (0, 0, 20, 18), (20, 20, 40, 40)]
    detections = boxes_of((40, 40), found, [0.9, 0.8, 0.3], [car, car, car], masks=True)
    output = {"sem_seg": road_everywhere, "instances": detections}
    for evaluator in (
        CityscapesSemanticEvaluator(NAME, tmp_path),
        CityscapesInstanceEvaluator(NAME, tmp_path),
    ):
        evaluator.process([given], [output])
        evaluator.evaluate()
    (semantic,) = lines(tmp_path / "sem_seg_per_image.jsonl")
    assert (semantic["score"], semantic["pACC"]) == (25.0, 50.0)
    (instance,) = lines(tmp_path / "instances_per_image.jsonl")
    assert instance["file_name"] == given["file_name"]
    curves = json.loads((tmp_path / "instances_results.json").read_text())["pr_curves"]["segm"]
    # Hit, miss, hit.
    expected = np.where(RECALL_STEPS <= 0.5, 1, 2 / 3)
    np.testing.assert_allclose(curves["AP50_by_class"]["car"], expected, atol=1e-5)
    assert curves["AP50"] == curves["AP50_by_class"]["car"]
    assert set(curves["AP50_by_class"]["bus"]) == {None}
    # One found, one found twice, one not sure enough.
    assert [instance[key] for key in ("score", "tp", "fp", "fn")] == [50.0, 1, 1, 1]
