"""Explanations from the files that evaluators write, and files that do not fit."""

from __future__ import annotations

import json

from seg_plugins.data import Dataset
from seg_plugins.evaluation import (
    EvaluationError,
    InstanceEvaluator,
    PanopticEvaluator,
    SemanticEvaluator,
)
from seg_plugins.evaluation.explain import (
    SavedRun,
    explain_instances,
    explain_panoptic,
    explain_semantic,
)
from seg_plugins.io.panoptic import write_segment_ids

import numpy as np
import pytest
import torch
from coco_samples import as_instances, make_coco
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image


@pytest.mark.parametrize("seed", range(3))
def test_instances_of_awkward_sets(seed, coco_dataset, tmp_path):
    """Crowds, empty masks, ties: AP50 is that of the evaluation, and everything is counted."""
    content, predictions = make_coco(seed)
    name = coco_dataset(content)
    evaluator = InstanceEvaluator(name, tmp_path, save_predictions=True, distributed=False)
    for image in content["images"]:
        size = image["height"], image["width"]
        output = {"instances": as_instances(predictions[image["id"]], size)}
        evaluator.process([{"image_id": image["id"]}], [output])
    results = evaluator.evaluate()
    path = tmp_path / "coco_instances_results.json"
    found = explain_instances(SavedRun(Dataset.get(name), path, results))
    assert found["overlap"] == "segm"
    for task in ("bbox", "segm"):
        assert found["tide"][task]["AP50"] == pytest.approx(results[task]["AP50"], abs=1e-9)
    counts = np.array(found["confusion"]["counts"])
    objects = [a["category_id"] for a in content["annotations"] if not a["iscrowd"]]
    assert counts[:-1].sum(axis=1).tolist() == [objects.count(c) for c in (3, 7, 90)]
    with pytest.raises(EvaluationError, match=r"another evaluation.*SAVE_PREDICTIONS"):
        explain_instances(SavedRun(Dataset.get(name), path, {"bbox": {"AP50": 1.0}}))
    strange = {"image_id": 5, "category_id": 3, "score": 0.5, "bbox": [0, 0, 1, 1]}
    path.write_text(json.dumps([strange]))
    with pytest.raises(EvaluationError, match="image 5 is not in"):
        explain_instances(SavedRun(Dataset.get(name), path, results))
    for damaged in ("[", '{"a": 1}', '[{"image_id": 5}]', json.dumps([{**strange, "score": "x"}])):
        path.write_text(damaged)
        with pytest.raises(EvaluationError, match="cannot be read"):
            explain_instances(SavedRun(Dataset.get(name), path, results))


@pytest.mark.parametrize("mask", [
    {"size": [4, 4], "counts": "01"}, {"size": [10, 10], "counts": "0"},
])  # fmt: skip
def test_run_lengths_that_do_not_fill_their_image(mask, coco_dataset, tmp_path):
    content, _ = make_coco(0)
    image = content["images"][0]["id"]
    category = content["categories"][0]["id"]
    detection = {"image_id": image, "category_id": category, "score": 0.5, "bbox": [0, 0, 1, 1]}
    path = tmp_path / "coco_instances_results.json"
    path.write_text(json.dumps([{**detection, "segmentation": mask}]))
    run = SavedRun(Dataset.get(coco_dataset(content)), path, {"segm": {"AP50": 1.0}})
    with pytest.raises(EvaluationError, match=rf"image {image}: .*evaluate again"):
        explain_instances(run)


@pytest.fixture
def semantic(tmp_path):
    """Two images of 4 x 6 of three classes, and their predictions."""
    truth = np.zeros((2, 4, 6), np.uint8)
    truth[0, :, 3:], truth[1, :, 4:], truth[1, 0, 0] = 1, 2, 255
    guess = truth.copy()
    guess[0, 1:3, 3] = 0  # two pixels of class 1 as 0
    guess[1, :, 4:] = 1  # eight of class 2 as 1
    guess[1, 0, 0] = 0
    guess[1, 3, 0] = 255  # nothing
    records = []
    for i in range(2):
        label = tmp_path / f"label{i}.png"
        Image.fromarray(truth[i]).save(label)
        records.append(
            {"file_name": f"{i}.png", "sem_seg_file_name": str(label), "height": 4, "width": 6}
        )
    name = f"explained_semantic_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: records)
    MetadataCatalog.get(name).set(
        stuff_classes=["a", "b", "c"], ignore_label=255, evaluator_type="sem_seg"
    )
    evaluator = SemanticEvaluator(name, tmp_path, save_predictions=True, distributed=False)
    for record, labels in zip(records, guess, strict=True):
        evaluator.process([record], [{"sem_seg": torch.from_numpy(labels)}])
    yield Dataset.get(name), tmp_path / "sem_seg_predictions.json", evaluator.evaluate()
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def test_confused_classes(semantic):
    found = explain_semantic(SavedRun(*semantic))
    pairs = found["confusion_pairs"]
    assert [(p["true"], p["predicted"], p["pixels"]) for p in pairs] == [
        ("c", "b", 8),
        ("b", "a", 2),
    ]
    # The pixel for which nothing was predicted is an error as well.
    assert [p["share"] for p in pairs] == pytest.approx([800 / 11, 200 / 11])
    assert [p["share_of_class"] for p in pairs] == pytest.approx([100, 200 / 12])
    assert [p["file_name"] for p in pairs] == ["1.png", "0.png"]
    assert [p["box"] for p in pairs] == [[4, 0, 2, 4], [3, 1, 1, 2]]
    assert sum(row["wrong"] for row in found["border"]) == 11
    assert sum(row["pixels"] for row in found["border"]) == 47


def test_labels_of_another_evaluation(semantic):
    dataset, path, results = semantic
    with pytest.raises(EvaluationError, match="sem_seg/mIoU"):
        explain_semantic(SavedRun(dataset, path, {"sem_seg": {"mIoU": 1.0}}))
    records = json.loads(path.read_text())
    path.write_text(json.dumps([{**records[0], "file_name": "else.png"}]))
    with pytest.raises(EvaluationError, match=r"else\.png is no image"):
        explain_semantic(SavedRun(dataset, path, results))


def test_panoptic(tmp_path):
    """A wall that is found; two boxes in one prediction, which finds the larger one."""
    truth = np.full((4, 10), 9)
    truth[1:3, 1:6], truth[1:3, 6:8] = 1, 2
    found = np.where(truth == 2, 1, truth)
    file = tmp_path / "truth" / "0.png"
    write_segment_ids(file, truth)
    kinds = {1: (0, True), 2: (0, True), 9: (1, False)}
    segments = [
        {"id": i, "category_id": k, "isthing": thing, "iscrowd": 0, "area": int((truth == i).sum())}
        for i, (k, thing) in kinds.items()
    ]
    record = {
        "file_name": "0.jpg",
        "image_id": 5,
        "height": 4,
        "width": 10,
        "pan_seg_file_name": str(file),
        "segments_info": segments,
    }
    name = f"explained_panoptic_{tmp_path.name}"
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(
        evaluator_type="coco_panoptic_seg",
        thing_classes=["box", "wall"],
        stuff_classes=["box", "wall"],
        thing_dataset_id_to_contiguous_id={11: 0},
        stuff_dataset_id_to_contiguous_id={11: 0, 12: 1},
    )
    evaluator = PanopticEvaluator(name, tmp_path, save_predictions=True, distributed=False)
    info = [{k: s[k] for k in ("id", "category_id", "isthing")} for s in segments if s["id"] != 2]
    evaluator.process([record], [{"panoptic_seg": (torch.from_numpy(found), info)}])
    results, path = evaluator.evaluate(), tmp_path / "panoptic_predictions.json"
    explained = explain_panoptic(SavedRun(Dataset.get(name), path, results))
    box = explained["quality"]["box"]
    assert box == pytest.approx(
        {
            "PQ": 100 * (10 / 14) / 1.5,
            "SQ": 100 * 10 / 14,
            "RQ": 200 / 3,
            "precision": 100,
            "recall": 50,
        }
    )
    assert explained["not_found"]["box"] == {
        "wrong class": 0, "merged": 1, "split": 0, "inaccurate outline": 0, "missed": 0,
    }  # fmt: skip
    (entry,) = explained["merged_or_split"]
    assert (entry["reason"], entry["class"], entry["pixels"]) == ("merged", "box", 4)
    assert entry["box"] == [6, 1, 2, 2]
    assert len(entry["predicted_masks"]) == 1
    with pytest.raises(EvaluationError, match="panoptic_seg/PQ"):
        explain_panoptic(SavedRun(Dataset.get(name), path, {"panoptic_seg": {"PQ": 3.0}}))
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(EvaluationError, match="0 of the 1 images"):
        explain_panoptic(SavedRun(Dataset.get(name), path, results))
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)
