"""SemanticEvaluator against hand-made numbers, Detectron2's evaluator and wrong input."""

from __future__ import annotations

import json

import seg_plugins
from seg_plugins.evaluation import (
    EVALUATOR_REGISTRY,
    EvaluationError,
    SemanticEvaluator,
    VolumeEvaluator,
    build_evaluator,
)
from seg_plugins.evaluation.boundary import BoundaryMeasures
from seg_plugins.ops.segmentation_metrics import argmax_confusion, label_confusion

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator, inference_on_dataset
from PIL import Image

IGNORE = 255


@pytest.fixture
def semantic_dataset(tmp_path):
    """Registers label maps as a dataset; gives its name and the inputs in order."""
    names = []

    def register(targets, classes=("road", "car", "sky"), ignore_label=IGNORE, **metadata):
        name = f"evaluation_test_{tmp_path.name}_{len(names)}"
        records = []
        for i, target in enumerate(targets):
            path = tmp_path / f"{name}_{i}.png"
            Image.fromarray(target).save(path)
            records.append({"file_name": f"{name}/{i}.jpg", "sem_seg_file_name": str(path)})
        DatasetCatalog.register(name, lambda: records)
        MetadataCatalog.get(name).set(
            stuff_classes=list(classes),
            ignore_label=ignore_label,
            evaluator_type="sem_seg",
            **metadata,
        )
        names.append(name)
        return name, [{"file_name": record["file_name"]} for record in records]

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def one_hot_scores(labels, num_classes):
    scores = torch.zeros(num_classes, *labels.shape)
    return scores.scatter_(0, torch.from_numpy(labels.astype(np.int64))[None], 1.0)


def run(evaluator, inputs, predictions):
    evaluator.reset()
    for given, prediction in zip(inputs, predictions, strict=True):
        evaluator.process([given], [{"sem_seg": prediction}])
    return evaluator.evaluate()


def test_hand_made_scores(semantic_dataset):
    # truth: road 4, car 3, ignored 1; prediction: road 5 of which 4 right, car 2 right.
    truth = np.array([[0, 0, 0, 0], [1, 1, 1, 255]], np.uint8)
    prediction = np.array([[0, 0, 0, 0], [0, 1, 1, 2]])
    name, inputs = semantic_dataset([truth])
    scores = run(SemanticEvaluator(name), inputs, [one_hot_scores(prediction, 3)])["sem_seg"]
    assert scores["IoU-road"] == pytest.approx(100 * 4 / 5)
    assert scores["IoU-car"] == pytest.approx(100 * 2 / 3)
    assert np.isnan(scores["IoU-sky"])
    assert scores["mIoU"] == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)
    assert scores["fwIoU"] == pytest.approx(100 * (4 / 5 * 4 / 7 + 2 / 3 * 3 / 7))
    assert scores["ACC-car"] == pytest.approx(100 * 2 / 3)
    assert scores["Precision-road"] == pytest.approx(100 * 4 / 5)
    assert scores["mACC"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert scores["pACC"] == pytest.approx(100 * 6 / 7)


def test_a_class_without_truth_that_is_predicted_enters_the_mean_as_zero(semantic_dataset):
    name, inputs = semantic_dataset([np.array([[0, 0]], np.uint8)])
    scores = run(SemanticEvaluator(name), inputs, [one_hot_scores(np.array([[0, 2]]), 3)])[
        "sem_seg"
    ]
    assert scores["IoU-road"] == 50
    assert np.isnan(scores["IoU-sky"])
    assert scores["mIoU"] == 25


def adversarial_pairs():
    rng = np.random.default_rng(0)
    yield rng.integers(0, 3, (7, 9), dtype=np.uint8), torch.randn(3, 7, 9)
    yield np.full((4, 5), IGNORE, np.uint8), torch.randn(3, 4, 5)
    yield np.zeros((1, 1), np.uint8), torch.randn(3, 1, 1)
    yield np.full((3, 4), 2, np.uint8), torch.zeros(3, 3, 4)  # every score ties
    yield np.full((3, 4), 1, np.uint8), torch.full((3, 3, 4), -torch.inf)
    yield rng.choice(np.array([0, 1, IGNORE], np.uint8), (33, 65)), torch.randn(3, 33, 65)


def test_equals_detectron2(semantic_dataset):
    targets, predictions = zip(*adversarial_pairs(), strict=True)
    name, inputs = semantic_dataset(targets)
    ours = run(SemanticEvaluator(name), inputs, predictions)["sem_seg"]
    theirs = run(SemSegEvaluator(name, distributed=False), inputs, predictions)["sem_seg"]
    # Upstream's newer figures of boundaries are defined otherwise (docs/evaluation.md).
    newer = {key for key in theirs if key.startswith(("BoundaryIoU-", "min(IoU, B-Iou)-"))}
    assert theirs.keys() - newer >= {"mIoU", "fwIoU", "mACC", "pACC", "IoU-road", "ACC-road"}
    for key in theirs.keys() - newer:
        np.testing.assert_array_equal(ours[key], theirs[key], err_msg=key)


def test_all_ignored_is_nan_everywhere(semantic_dataset):
    name, inputs = semantic_dataset([np.full((4, 4), IGNORE, np.uint8)])
    scores = run(SemanticEvaluator(name), inputs, [torch.randn(3, 4, 4)])["sem_seg"]
    assert all(np.isnan(value) for value in scores.values())


def test_sixteen_bit_labels_and_ignore_value(semantic_dataset):
    truth = np.array([[0, 1, 2, 65535]], np.uint16)
    name, inputs = semantic_dataset([truth], ignore_label=65535)
    scores = run(SemanticEvaluator(name), inputs, [one_hot_scores(np.array([[0, 1, 2, 0]]), 3)])[
        "sem_seg"
    ]
    assert scores["mIoU"] == scores["pACC"] == 100


def test_label_map_prediction_counts_void_as_missed(semantic_dataset):
    name, inputs = semantic_dataset([np.array([[0, 0, 1, 1]], np.uint8)])
    prediction = torch.tensor([[0, 255, 1, 1]])
    scores = run(SemanticEvaluator(name), inputs, [prediction])["sem_seg"]
    assert scores["IoU-road"] == 50
    assert scores["IoU-car"] == 100


def test_results_file_is_strict_json(semantic_dataset, tmp_path):
    name, inputs = semantic_dataset([np.array([[0, 1]], np.uint8)])
    run(SemanticEvaluator(name, tmp_path), inputs, [one_hot_scores(np.array([[0, 1]]), 3)])
    text = (tmp_path / "sem_seg_results.json").read_text()
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["results"]["sem_seg"]["mIoU"] == 100
    assert content["results"]["sem_seg"]["IoU-sky"] is None
    assert content["confusion"][1] == [0, 1, 0, 0]
    assert content["images"] == {"expected": 1, "scored": 1}


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (torch.zeros(3, 2, 3), "2x3 but the ground truth is 2x2"),
        (torch.zeros(4, 2, 2), r"expected \(3, H, W\)"),
        (torch.zeros(2, 2), "must hold integer labels"),
        (torch.full((2, 2), 7), "predicted label 7 at row 0, column 0"),
        (torch.full((2, 2), 3), "predicted label 3 at row 0, column 0"),
        (torch.full((2, 2), -1), "predicted label -1 at row 0, column 0"),
    ],
)
def test_wrong_prediction_names_the_image(semantic_dataset, prediction, message):
    name, inputs = semantic_dataset([np.zeros((2, 2), np.uint8)])
    with pytest.raises(EvaluationError, match=f"{name}/0.jpg: .*{message}"):
        run(SemanticEvaluator(name), inputs, [prediction])


def test_truth_outside_the_classes_names_the_image_and_the_pixel(semantic_dataset):
    name, inputs = semantic_dataset([np.array([[0, 0], [0, 3]], np.uint8)])
    with pytest.raises(EvaluationError, match=f"{name}/0.jpg: .*label 3 at row 1, column 1"):
        run(SemanticEvaluator(name), inputs, [torch.zeros(3, 2, 2)])


def test_color_label_image_names_the_file(semantic_dataset):
    name, inputs = semantic_dataset([np.arange(12, dtype=np.uint8).reshape(2, 2, 3)])
    with pytest.raises(EvaluationError, match=r"0\.png: a RGB picture where a label with"):
        run(SemanticEvaluator(name), inputs, [torch.zeros(3, 2, 2)])


def test_ids_in_equal_channels_are_scored_as_the_mappers_read_them(semantic_dataset):
    truth = np.array([[0, 1, 2, 255]], np.uint8)
    name, inputs = semantic_dataset([np.repeat(truth[..., None], 3, axis=2)])
    scores = run(SemanticEvaluator(name), inputs, [one_hot_scores(truth % 255, 3)])["sem_seg"]
    assert scores["mIoU"] == scores["pACC"] == 100


def test_unknown_duplicate_and_missing_images(semantic_dataset):
    name, inputs = semantic_dataset([np.zeros((2, 2), np.uint8)] * 2)
    evaluator = SemanticEvaluator(name)
    good = {"sem_seg": torch.zeros(3, 2, 2)}
    with pytest.raises(EvaluationError, match=r"elsewhere\.jpg"):
        evaluator.process([{"file_name": "elsewhere.jpg"}], [good])
    evaluator.process(inputs[:1], [good])
    with pytest.raises(EvaluationError, match=r"0\.jpg: a second prediction"):
        evaluator.process(inputs[:1], [good])
    with pytest.raises(EvaluationError, match=r"1 of the 2 images .* 1\.jpg|/1\.jpg"):
        evaluator.evaluate()
    partial = SemanticEvaluator(name, allow_missing=True)
    partial.process(inputs[:1], [good])
    assert partial.evaluate()["sem_seg"]["pACC"] == 100
    with pytest.raises(EvaluationError, match="no 'sem_seg'"):
        partial.process(inputs[1:], [{"instances": None}])


def test_build_evaluator_by_type(semantic_dataset, tmp_path):
    cfg = seg_plugins.get_cfg()
    name, _ = semantic_dataset([np.zeros((2, 2), np.uint8)])
    evaluator = build_evaluator(cfg, name)
    assert type(evaluator) is SemanticEvaluator
    assert evaluator.boundary is evaluator.predictions is None
    cfg.TEST.BOUNDARY_MEASURES = cfg.TEST.SAVE_PREDICTIONS = True
    evaluator = build_evaluator(cfg, name, tmp_path)
    assert evaluator.boundary is not None
    assert evaluator.predictions is not None
    vars(MetadataCatalog.get(name))["evaluator_type"] = ["sem_seg", "sem_seg_volume"]
    both = build_evaluator(cfg, name, tmp_path).evaluators
    assert [type(e) for e in both] == [SemanticEvaluator, VolumeEvaluator]
    vars(MetadataCatalog.get(name))["evaluator_type"] = "nonsense"
    with pytest.raises(EvaluationError, match=r"'nonsense'\. Known: .*sem_seg"):
        build_evaluator(cfg, name)
    with pytest.raises(ValueError, match="'sem_seg' is registered already"):
        EVALUATOR_REGISTRY.register("sem_seg", print)


def test_ops_equal_a_slow_count():
    rng = np.random.default_rng(1)
    target = rng.choice(np.array([0, 1, 2, 3, IGNORE], np.uint8), (13, 21))
    scores = torch.randn(4, 13, 21)
    labels, confusion = argmax_confusion(scores, target, IGNORE)
    expected = np.zeros((5, 5), np.int64)
    for y in range(13):
        for x in range(21):
            best = max(range(4), key=lambda k, y=y, x=x: scores[k, y, x])
            assert labels[y, x] == best
            expected[4 if target[y, x] == IGNORE else target[y, x], best] += 1
    np.testing.assert_array_equal(confusion, expected)
    np.testing.assert_array_equal(label_confusion(labels, target, 4, IGNORE), expected)


def test_streamed_predictions_equal_detectron2s(semantic_dataset, tmp_path):
    targets, predictions = zip(*adversarial_pairs(), strict=True)
    name, inputs = semantic_dataset(targets, stuff_dataset_id_to_contiguous_id={7: 0, 11: 1, 8: 2})
    run(SemanticEvaluator(name, tmp_path / "ours", save_predictions=True), inputs, predictions)
    theirs = SemSegEvaluator(name, distributed=False, output_dir=str(tmp_path / "theirs"))
    run(theirs, inputs, predictions)
    file = "sem_seg_predictions.json"
    ours = json.loads((tmp_path / "ours" / file).read_text())
    assert ours == json.loads((tmp_path / "theirs" / file).read_text())
    names = ["sem_seg_per_image.jsonl", file, "sem_seg_results.json"]
    assert sorted(p.name for p in (tmp_path / "ours").iterdir()) == names


def test_boundary_measures_on_request(semantic_dataset):
    name, inputs = semantic_dataset([np.zeros((4, 4), np.uint8)])
    evaluator = SemanticEvaluator(name, boundary=BoundaryMeasures(3))
    first = run(evaluator, inputs, [torch.rand(3, 4, 4)])["sem_seg"]
    second = run(evaluator, inputs, [one_hot_scores(np.zeros((4, 4)), 3)])["sem_seg"]
    assert first["mBoundaryIoU"] < second["mBoundaryIoU"] == 100  # reset forgets the first round


def test_one_logit_for_two_classes(semantic_dataset):
    name, inputs = semantic_dataset([np.array([[0, 1, 1]], np.uint8)], classes=("other", "skin"))
    logits = torch.tensor([[[-1.0, 0.5, 0.0]]])
    scores = run(SemanticEvaluator(name), inputs, [logits])["sem_seg"]
    assert scores["IoU-skin"] == 50
    with pytest.raises(EvaluationError, match=r"expected \(2, H, W\)"):
        run(SemanticEvaluator(name), inputs, [torch.zeros(3, 1, 3)])


def test_runs_in_detectron2s_own_loop(semantic_dataset):
    class Echo(torch.nn.Module):
        def forward(self, batch):
            return [{"sem_seg": torch.eye(3)[[0, 1]].T[:, None]} for _ in batch]

    name, inputs = semantic_dataset([np.array([[0, 1]], np.uint8)] * 3)
    loader = [inputs[:2], inputs[2:]]
    results = inference_on_dataset(Echo(), loader, SemanticEvaluator(name))
    assert results["sem_seg"]["pACC"] == 100
