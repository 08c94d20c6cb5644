"""InstanceEvaluator against pycocotools, on everything that is awkward about COCO."""

from __future__ import annotations

import json

from seg_plugins.evaluation import EvaluationError, InstanceEvaluator
from seg_plugins.evaluation.boundary_precision import RECORD, pack_flags, unpack_flags
from seg_plugins.ops.run_length import RunLengthMasks

import cv2
import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from coco_samples import as_coco_results, as_instances, make_coco, pycocotools_evaluation, run
from pycocotools.cocoeval import COCOeval

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
RECALLS = ["AR@1", "AR@10", "AR@100", "ARs@100", "ARm@100", "ARl@100"]


def official(content, results, task):
    """pycocotools' twelve numbers and the AP of each category, in percent."""
    evaluation = pycocotools_evaluation(content, results, task)
    precision = evaluation.eval["precision"]
    per_class = []
    for k in range(precision.shape[2]):
        values = precision[:, :, k, 0, -1]
        values = values[values > -1]
        per_class.append(100 * values.mean() if values.size else np.nan)
    stats = np.where(evaluation.stats == -1, np.nan, 100 * evaluation.stats)
    return stats, per_class


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("masks", ["bitmasks", "coco"])
def test_same_numbers_as_pycocotools(coco_dataset, seed, masks):
    content, predictions = make_coco(seed)
    found = run(InstanceEvaluator(coco_dataset(content)), content, predictions, masks)
    results = as_coco_results(content, predictions)
    for task in ("bbox", "segm"):
        stats, per_class = official(content, results, task)
        ours = [found[task][name] for name in NAMES + RECALLS]
        np.testing.assert_array_equal(ours, stats, err_msg=task)
        ours = [found[task][f"AP-{c['name']}"] for c in content["categories"]]
        np.testing.assert_allclose(ours, per_class, rtol=1e-12)
    assert 0 < found["segm"]["AP"] < 100


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [100, 1000])
def test_class_agnostic_equals_pycocotools_without_categories(coco_dataset, seed, limit, tmp_path):
    content, predictions = make_coco(seed)
    rng = np.random.default_rng(seed)
    for image_id, (masks, boxes, scores, classes) in predictions.items():
        scores = np.float32(rng.random(len(scores))).astype(float)  # no ties
        predictions[image_id] = (masks, boxes, scores, rng.permutation(classes))
    options = {"class_agnostic": True, "max_dets_per_image": limit, "save_predictions": True}
    evaluator = InstanceEvaluator(coco_dataset(content), tmp_path, **options)
    found = run(evaluator, content, predictions)
    results = as_coco_results(content, predictions)
    for task in ("bbox", "segm"):
        limits = sorted({1, 10, 100, limit})
        evaluation = pycocotools_evaluation(content, results, task, limits, use_categories=False)
        curves = evaluator.curves[task]
        np.testing.assert_array_equal(curves.precision, evaluation.eval["precision"])
        np.testing.assert_array_equal(curves.recall, evaluation.eval["recall"])
        assert found[task]["AP-object"] == found[task]["AP"]
        assert f"AR@{limit}" in found[task]
    # The classes that were predicted are saved as they are.
    saved = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert sorted(d["category_id"] for d in saved) == sorted(d["category_id"] for d in results)


def test_more_detections_than_count(coco_dataset):
    content, predictions = make_coco(1, images=2, categories=(5,), size=40)
    masks, boxes, _, _ = predictions[content["images"][1]["id"]]
    rng = np.random.default_rng(0)
    many = rng.integers(0, len(masks), 230)
    scores = np.float32(rng.integers(0, 40, 230) / 40).astype(float)
    crowded = (masks[many], boxes[many], scores, np.zeros(230, int))
    predictions[content["images"][1]["id"]] = crowded
    found = run(InstanceEvaluator(coco_dataset(content)), content, predictions)
    for task in ("bbox", "segm"):
        stats, _ = official(content, as_coco_results(content, predictions), task)
        np.testing.assert_array_equal([found[task][n] for n in NAMES + RECALLS], stats)


def test_scores_in_bfloat16_are_those_numbers(coco_dataset):
    content, predictions = make_coco(5)
    evaluator = InstanceEvaluator(coco_dataset(content))
    found = run(evaluator, content, predictions, scores=torch.bfloat16)
    rounded = {
        key: (masks, boxes, torch.tensor(scores).float().bfloat16().double().numpy(), classes)
        for key, (masks, boxes, scores, classes) in predictions.items()
    }
    stats, _ = official(content, as_coco_results(content, rounded), "segm")
    np.testing.assert_array_equal([found["segm"][n] for n in NAMES + RECALLS], stats)


def test_boxes_alone(coco_dataset):
    content, predictions = make_coco(2)
    found = run(InstanceEvaluator(coco_dataset(content)), content, predictions, masks=None)
    assert list(found) == ["bbox"]
    stats, _ = official(content, as_coco_results(content, predictions), "bbox")
    np.testing.assert_array_equal([found["bbox"][n] for n in NAMES + RECALLS], stats)


def test_no_truth_is_nan_and_no_prediction_is_zero(coco_dataset):
    content, predictions = make_coco(3, images=3)
    empty = {**content, "annotations": []}
    found = run(InstanceEvaluator(coco_dataset(empty)), empty, predictions)
    assert all(np.isnan(value) for value in found["bbox"].values())
    nothing = {key: (m[:0], b[:0], s[:0], c[:0]) for key, (m, b, s, c) in predictions.items()}
    found = run(InstanceEvaluator(coco_dataset(content)), content, nothing)
    assert found["bbox"]["AP"] == found["bbox"]["AR@100"] == 0


def test_an_annotation_with_id_zero_counts(coco_dataset):
    content, predictions = make_coco(4)
    expected = run(InstanceEvaluator(coco_dataset(content)), content, predictions)
    for annotation in content["annotations"]:
        annotation["id"] -= 1
    found = run(InstanceEvaluator(coco_dataset(content)), content, predictions)
    np.testing.assert_equal(found, expected)


class BoundaryCOCOeval(COCOeval):
    """pycocotools with the overlap of boundary-iou-api: erosions one after the other, by OpenCV."""

    def computeIoU(self, imgId, catId):
        masks = super().computeIoU(imgId, catId)
        if not len(masks):
            return masks
        order = np.argsort([-d["score"] for d in self._dts[imgId, catId]], kind="mergesort")
        found = [self._dts[imgId, catId][i] for i in order[: self.params.maxDets[-1]]]
        bands = [[self._band(a) for a in side] for side in (found, self._gts[imgId, catId])]
        crowd = [int(a["iscrowd"]) for a in self._gts[imgId, catId]]
        return np.minimum(masks, coco_mask.iou(*bands, crowd))

    def _band(self, annotation):
        mask = coco_mask.decode(annotation["segmentation"])
        steps = max(1, round(0.02 * np.hypot(*mask.shape)))
        padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=steps)[1:-1, 1:-1]
        return coco_mask.encode(np.asfortranarray(mask - inner))


@pytest.mark.parametrize("seed", range(4))
def test_boundary_ap_equals_pycocotools_with_the_overlap_of_boundary_iou_api(coco_dataset, seed):
    content, predictions = make_coco(seed)
    evaluator = InstanceEvaluator(coco_dataset(content), boundary=True)
    found = run(evaluator, content, predictions)
    results = as_coco_results(content, predictions)
    expected = pycocotools_evaluation(content, results, "segm", engine=BoundaryCOCOeval)
    curves = evaluator.curves["boundary"]
    np.testing.assert_array_equal(curves.precision, expected.eval["precision"])
    np.testing.assert_array_equal(curves.recall, expected.eval["recall"])
    assert 0 < found["boundary"]["AP"] < found["segm"]["AP"]


def test_boundary_ap_is_at_most_mask_ap_and_perfect_on_the_truth(coco_dataset):
    content, predictions = make_coco(5)
    evaluator = InstanceEvaluator(coco_dataset(content), boundary=True)
    found = run(evaluator, content, predictions)
    assert 0 < found["boundary"]["AP"] <= found["segm"]["AP"]
    assert RECORD.itemsize <= 64


def test_files(coco_dataset, tmp_path):
    content, predictions = make_coco(6)
    name = coco_dataset(content)
    found = run(InstanceEvaluator(name, tmp_path, save_predictions=True), content, predictions)
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert written == as_coco_results(content, predictions)
    summary = json.loads((tmp_path / "instances_results.json").read_text())
    assert summary["results"]["segm"]["AP"] == found["segm"]["AP"]
    by_size = summary["by_class_and_size"]["segm"]["class7"]
    assert by_size["AP"] == found["segm"]["AP-class7"]
    curves = np.load(tmp_path / "segm_curves.npz")
    assert curves["precision"].shape == (10, 101, 3, 4)
    precision = curves["precision"][..., 0]
    assert 100 * precision[precision > -1].mean() == found["segm"]["AP"]


def test_run_length_masks_and_detectron2_dataset_dicts(coco_dataset):
    content, predictions = make_coco(7)
    name = coco_dataset(content)
    expected = run(InstanceEvaluator(name), content, predictions)
    evaluator = InstanceEvaluator(name)
    for image in content["images"]:
        instances = as_instances(predictions[image["id"]], (image["height"], image["width"]))
        instances.pred_masks = RunLengthMasks.from_bitmasks(instances.pred_masks)
        evaluator.process([{"image_id": image["id"]}], [{"instances": instances}])
    np.testing.assert_equal(evaluator.evaluate(), expected)


def test_wrong_input_names_the_image(coco_dataset):
    content, predictions = make_coco(8, images=3)
    evaluator = InstanceEvaluator(coco_dataset(content))
    image = content["images"][1]
    size = image["height"], image["width"]
    good = as_instances(predictions[image["id"]], size)

    def fails(message, instances, image_id=image["id"]):
        with pytest.raises(EvaluationError, match=message):
            evaluator.process([{"image_id": image_id}], [{"instances": instances}])
        evaluator.reset()

    fails("image_id=5 is not in dataset", good, image_id=5)
    wrong = as_instances(predictions[image["id"]], size)
    wrong.pred_classes = wrong.pred_classes + 3
    fails(f"{image['id']}: predicted class . is none of the 3", wrong)
    wrong = as_instances(predictions[image["id"]], size)
    wrong.scores = wrong.scores * torch.nan
    fails(f"{image['id']}: a detection has the score NaN", wrong)
    wrong = as_instances(predictions[image["id"]], size)
    wrong.pred_masks = torch.zeros(len(wrong), size[0] + 1, size[1])
    fails(f"{image['id']}: masks are {size[0] + 1}x{size[1]}", wrong)
    evaluator.process([{"image_id": image["id"]}], [{"instances": good}])
    with pytest.raises(EvaluationError, match=f"{image['id']}: a second prediction"):
        evaluator.process([{"image_id": image["id"]}], [{"instances": good}])
    with pytest.raises(EvaluationError, match="2 of the 3 images"):
        evaluator.evaluate()


def test_flags_survive_packing():
    flags = np.random.default_rng(0).random((4, 10, 7)) < 0.5
    np.testing.assert_array_equal(unpack_flags(pack_flags(flags)), flags)


def test_a_truth_without_annotations_only_writes_predictions(coco_dataset, tmp_path):
    content, predictions = make_coco(9, images=2)
    del content["annotations"]
    name = coco_dataset(content)
    with pytest.raises(EvaluationError, match="has no annotations"):
        InstanceEvaluator(name)
    assert run(InstanceEvaluator(name, tmp_path, save_predictions=True), content, predictions) == {}
    assert (tmp_path / "coco_instances_results.json").exists()
