"""``tools/report.py RUN --explain``: from saved predictions to the page."""

from __future__ import annotations

import json

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.data import Dataset
from seg_plugins.engine.explaining import explain_run
from seg_plugins.evaluation import EvaluationError, InstanceEvaluator
from seg_plugins.visualization.errors import FOUND, INVENTED
from seg_plugins.visualization.report import build_page, read_run

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.structures import Boxes, Instances

NAME = "<b>disc</b>"


@pytest.fixture
def run(tmp_path):
    """A run on one image of 40 x 60: its one object is annotated 10 pixels beside its place."""
    cv2.imwrite(str(tmp_path / "0.png"), np.full((40, 60, 3), 90, np.uint8))
    box = [10, 10, 20, 20]
    content = {
        "images": [{"id": 1, "height": 40, "width": 60, "file_name": "0.png"}],
        "categories": [{"id": 1, "name": NAME}],
        "annotations": [
            {"id": 7, "image_id": 1, "category_id": 1, "bbox": box, "area": 400, "iscrowd": 0}
        ],
    }
    (tmp_path / "truth.json").write_text(json.dumps(content))
    name = f"explained_run_{tmp_path.name}"
    MetadataCatalog.get(name).set(
        evaluator_type="coco",
        json_file=str(tmp_path / "truth.json"),
        image_root=str(tmp_path),
        thing_dataset_id_to_contiguous_id={1: 0},
        thing_classes=[NAME],
    )
    folder = tmp_path / "run"
    (folder / "inference").mkdir(parents=True)
    cfg = seg_plugins.get_cfg()
    cfg.DATASETS.TEST = (name,)
    (folder / "config.yaml").write_text(cfg.dump())
    yield folder, name
    MetadataCatalog.remove(name)


def evaluate(folder, name, score, saved=True):
    found = Instances((40, 60))
    found.pred_boxes = Boxes(torch.tensor([[20.0, 10, 40, 30]]))
    found.scores, found.pred_classes = torch.tensor([score]), torch.tensor([0])
    evaluator = InstanceEvaluator(
        Dataset.get(name), folder / "inference", save_predictions=saved, distributed=False
    )
    evaluator.process([{"image_id": 1, "file_name": "0.png"}], [{"instances": found}])
    evaluator.evaluate()


def test_from_predictions_to_the_page(run):
    folder, name = run
    evaluate(folder, name, 0.9)
    (file,) = explain_run(folder)
    content = json.loads(file.read_text())
    assert content["tide"]["bbox"]["gain"]["localisation"] == pytest.approx(100)
    (entry,) = content["label_errors"]
    assert entry["suspicion"] == "inaccurate outline"
    assert entry["annotation_id"] == 7
    picture = cv2.imread(str(file.parent / entry["picture"]))[:, :, ::-1].astype(int)
    # The square of 60 around both boxes is cut to the image; 240 wide, 4 picture pixels each.
    assert picture.shape == (160, 240, 3)
    assert np.abs(picture[80, 160] - INVENTED).max() < 60  # right side of the predicted box
    assert np.abs(picture[80, 41] - FOUND).max() < 60  # left side of the annotated box
    page = build_page([read_run(folder)]).decode()
    for part in ("Errors by kind", "Confusion of classes", "calibration error", "label errors"):
        assert part in page, part
    assert NAME not in page
    assert "data:image/jpeg" in page


def test_explanations_of_an_earlier_evaluation_are_left_out(run):
    folder, name = run
    evaluate(folder, name, 0.9)
    explain_run(folder)
    evaluate(folder, name, 0.8, saved=False)
    results = folder / "inference" / "instances_results.json"
    results.write_text(results.read_text().replace('"AP": 0.0', '"AP": 0.1'))
    found = read_run(folder)
    assert not found.explanations
    (problem,) = found.problems
    assert "explains an earlier evaluation" in problem


def test_nothing_saved_says_how_to_save(run):
    folder, name = run
    evaluate(folder, name, 0.9, saved=False)
    with pytest.raises(EvaluationError, match=r"SAVE_PREDICTIONS True: .*train --eval-only"):
        explain_run(folder)
    with pytest.raises(ConfigError, match=r"config\.yaml is missing"):
        explain_run(folder / "inference")


def test_scores_without_classes_are_not_explained(run):
    folder, name = run
    evaluate(folder, name, 0.9)
    with (folder / "config.yaml").open("a") as file:
        file.write("\nTEST:\n  CLASS_AGNOSTIC: True\n")
    with pytest.raises(EvaluationError, match=r"config\.yaml: TEST\.CLASS_AGNOSTIC is True"):
        explain_run(folder)
