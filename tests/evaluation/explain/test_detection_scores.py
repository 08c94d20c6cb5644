"""Calibration, best scores, confusion and label errors, with numbers worked out by hand."""

from __future__ import annotations

from seg_plugins.evaluation import EvaluationError
from seg_plugins.evaluation.explain.calibration import best_scores, calibration
from seg_plugins.evaluation.explain.instance_confusion import instance_confusion
from seg_plugins.evaluation.explain.label_errors import label_errors
from seg_plugins.evaluation.explain.slices import images_by, instance_image_slices, object_slices

import numpy as np
import pytest
from detection_tables import dataset_of, table_of

A, B, C = [0, 0, 20, 20], [60, 0, 20, 20], [0, 60, 20, 20]
FAR = [60, 60, 20, 20]


def test_calibration_by_hand(tmp_path):
    dataset = dataset_of([(0, 0, A), (0, 1, B)], ["a", "b", "c"], tmp_path)
    detections = [(0, 0, 0.95, A), (0, 0, 0.91, FAR), (0, 1, 0.35, B)]
    found = calibration(table_of(dataset, detections)[0], ["a", "b", "c"])
    # Bins 0.3..0.4 with one right, 0.9..1 with one of two: gaps 0.65 and 0.93 - 0.5.
    assert found["ECE"] == pytest.approx(100 * (0.65 + 2 * 0.43) / 3)
    assert found["MCE"] == pytest.approx(65)
    assert found["ECE_by_class"]["a"] == pytest.approx(43)
    assert found["ECE_by_class"]["c"] is None
    assert [part["detections"] for part in found["bins"]] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    assert found["bins"][9]["right"] == pytest.approx(0.5)
    assert found["bins"][0]["score"] is None


def test_scores_that_are_no_probabilities_are_not_calibrated(tmp_path):
    dataset = dataset_of([(0, 0, A)], ["a"], tmp_path)
    assert calibration(table_of(dataset, [(0, 0, 3.5, A)])[0], ["a"]) is None


def test_the_best_score_by_hand(tmp_path):
    dataset = dataset_of([(0, 0, A), (0, 0, B)], ["a", "b"], tmp_path)
    detections = [(0, 0, 0.9, A), (0, 0, 0.6, FAR), (0, 0, 0.6, B), (0, 0, 0.3, C)]
    found = best_scores(table_of(dataset, detections)[0], ["a", "b"])
    # Of 0.9: 2 * 1 / (1 + 2); of 0.6, both detections: 2 * 2 / (3 + 2); of 0.3: 4 / 6.
    assert found["a"] == pytest.approx(
        {"from_score": 0.6, "F1": 80, "precision": 200 / 3, "recall": 100, "objects": 2}
    )
    assert found["b"]["F1"] is None
    assert found["b"]["objects"] == 0


def test_confusion_by_hand(tmp_path):
    crowd = [60, 60, 40, 40]
    objects = [(0, 0, A), (0, 1, B), (0, 1, C), (0, 0, crowd, "crowd")]
    detections = [
        (0, 0, 0.9, A),  # found
        (0, 0, 0.8, B),  # b taken for a
        (0, 1, 0.4, B),  # not sure enough
        (0, 1, 0.7, [0, 30, 20, 20]),  # invented
        (0, 0, 0.6, FAR),  # in the crowd
        (0, 1, 0.6, A),  # an object that is found already: invented
    ]
    table, _, _ = table_of(dataset_of(objects, ["a", "b"], tmp_path), detections)
    assert instance_confusion(table, 0.5).tolist() == [[1, 0, 0], [1, 0, 1], [0, 2, 0]]


def test_label_errors_by_hand(tmp_path):
    objects = [(0, 0, A), (0, 1, B), (1, 0, C)]
    detections = [
        (0, 0, 0.99, A),
        (0, 1, 0.95, A),  # another detection supports the annotation
        (0, 0, 0.9, B),  # annotated as b
        (0, 1, 0.8, FAR),  # not annotated
        (1, 0, 0.7, [0, 70, 20, 20]),  # IoU 1/3
        (1, 1, 0.4, FAR),  # not sure
    ]
    dataset = dataset_of(objects, ["a", "b"], tmp_path, images=2)
    table, truth, _ = table_of(dataset, detections)
    boxes = np.array([d[3] for d in detections], float)
    found = label_errors(table, truth, boxes, confidence=0.5, most=10)
    assert [entry["suspicion"] for entry in found] == [
        "wrong class",
        "missing annotation",
        "inaccurate outline",
    ]
    assert found[0]["annotated"] == "b"
    assert found[0]["predicted"] == "a"
    assert found[0]["annotation_id"] == 2
    assert found[0]["iou"] == pytest.approx(1)
    assert "annotated" not in found[1]
    assert found[1]["iou"] == 0
    assert found[1]["box"] == FAR
    assert found[2]["image_id"] == 1
    assert found[2]["iou"] == pytest.approx(1 / 3)
    assert found[2]["file_name"].endswith("1.png")
    assert len(label_errors(table, truth, boxes, confidence=0.5, most=1)) == 1


def test_slices_by_hand(tmp_path):
    medium, edge = [10, 10, 40, 30], [80, 50, 20, 20]  # 1200 pixels; ends at the image's side
    objects = [(0, 0, medium), (0, 0, [60, 10, 10, 10]), (1, 0, edge), (1, 0, FAR, "crowd")]
    detections = [(0, 0, 0.9, medium), (1, 0, 0.4, edge), (1, 0, 0.95, A)]
    dataset = dataset_of(objects, ["a"], tmp_path, images=2)
    table, truth, _ = table_of(dataset, detections)
    rows = {row["slice"]: list(row.values())[1:] for row in object_slices(table, truth, 0.5)}
    assert rows["small"] == [2, 50, 0]
    assert rows["medium"] == [1, 100, 100]
    assert rows["large"][0] == 0
    assert rows["cut by the image's edge"] == [1, 100, 0]
    assert rows["whole"] == [2, 50, 50]
    records = [{"file_name": "0", "light": "day"}, {"file_name": "1", "light": "night"}]
    images = images_by("light", records)
    # By day one of two objects, without a mistake; by night a surer mistake before the object.
    first, second = instance_image_slices(table, images)
    assert first == {"slice": "light: day", "images": 1, "AP50": pytest.approx(100 * 51 / 101)}
    assert second == {"slice": "light: night", "images": 1, "AP50": pytest.approx(50)}
    with pytest.raises(
        EvaluationError, match=r"2 of 2 images have no 'time'.*all have file_name, light"
    ):
        images_by("time", records)
