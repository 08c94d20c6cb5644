"""LVIS: the figures of the package lvis, and numbers worked out by hand."""

from __future__ import annotations

import json
from copy import deepcopy

from seg_plugins.config import add_seg_config
from seg_plugins.data import Dataset, DatasetError
from seg_plugins.evaluation import EvaluationError, LvisEvaluator, build_evaluator, score_files
from seg_plugins.evaluation.lvis import LVIS_LIMIT

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from coco_samples import make_coco
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_lvis_instances
from detectron2.structures import Boxes, Instances

FIGURES = ["AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf"]
IDS = (3, 7, 12, 90, 91)


@pytest.fixture
def registered(tmp_path):
    """Registers a dict as Detectron2's builtin LVIS is, and gives the name."""
    names = []

    def register(content, **metadata):
        name = f"lvis_of_{tmp_path.name}_{len(names)}"
        file = tmp_path / f"{name}.json"
        file.write_text(json.dumps(content))
        register_lvis_instances(name, metadata, str(file), f"{tmp_path}/coco/")
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        Dataset.forget(name)


def image(number, neg=(), incomplete=(), size=100):
    return {
        "id": number, "height": size, "width": size,
        "coco_url": f"http://images.cocodataset.org/val2017/{number:012}.jpg",
        "neg_category_ids": list(neg), "not_exhaustive_category_ids": list(incomplete),
    }  # fmt: skip


def square(number, image_id, category, x=0, side=10):
    outline = [x, 0, x + side, 0, x + side, side, x, side]
    return {
        "id": number, "image_id": image_id, "category_id": category, "area": side * side,
        "bbox": [x, 0, side, side], "segmentation": [outline],
    }  # fmt: skip


def categories(*frequencies):
    return [
        {"id": place, "name": f"class{place}", "frequency": frequency}
        for place, frequency in enumerate(frequencies, 1)
    ]


def instances(boxes, scores, classes, masks=None, size=(100, 100)):
    found = Instances(size)
    found.pred_boxes = Boxes(torch.tensor(np.asarray(boxes, np.float32).reshape(-1, 4)))
    found.scores = torch.tensor(np.asarray(scores, np.float32))
    found.pred_classes = torch.tensor(np.asarray(classes, np.int64))
    if masks is not None:
        found.pred_masks = torch.tensor(masks)
    return found


def squares(*found, masks=True):
    """Detections (x, score, class) of squares of 10 pixels."""
    boxes = [(x, 0, x + 10, 10) for x, _, _ in found]
    drawn = np.zeros((len(found), 100, 100), np.uint8)
    for mask, (x, _, _) in zip(drawn, found, strict=True):
        mask[:10, x : x + 10] = 1
    drawn = drawn if masks else None
    return instances(boxes, [s for _, s, _ in found], [c for _, _, c in found], drawn)


def score(evaluator, outputs):
    for image_id, found in outputs.items():
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()


# ---------------------------------------------------------------------------------- by hand


def test_only_what_was_looked_for_counts(registered):
    """Class 1 (rare) is found; class 2 (common) is judged where it was looked for alone."""
    content = {
        "images": [image(1, neg=[2]), image(2), image(3, incomplete=[2])],
        "annotations": [square(1, 1, 1), square(2, 3, 2, x=20)],
        "categories": categories("r", "c", "f"),
    }
    right = {1: squares((0, 0.9, 0)), 2: squares(), 3: squares((20, 0.8, 1))}
    evaluator = LvisEvaluator(registered(content))
    found = score(evaluator, right)
    assert set(found) == {"bbox", "segm"}
    for group in found.values():
        assert list(group) == FIGURES
        assert [group[f] for f in ("AP", "APr", "APc", "APs")] == [pytest.approx(100)] * 4
        assert np.isnan([group["APf"], group["APm"], group["APl"]]).all(), "no such object"
    # Image 2 was not looked through for any class, image 3 not for all objects of class 2.
    free = {
        **right,
        2: squares((5, 0.95, 0), (50, 0.95, 1)),
        3: squares((20, 0.8, 1), (60, 0.9, 1)),
    }
    evaluator.reset()
    assert score(evaluator, free)["segm"]["AP"] == pytest.approx(100)
    # In image 1 class 2 is known to be absent: a better scored mistake halves its precision.
    wrong = {**right, 1: squares((0, 0.9, 0), (50, 0.95, 1))}
    evaluator.reset()
    found = score(evaluator, wrong)
    assert found["bbox"] == pytest.approx(found["segm"], nan_ok=True)
    assert [found["bbox"][f] for f in ("APr", "APc", "AP")] == pytest.approx([100, 50, 75])
    assert evaluator.extra_json()["by_class"]["bbox"]["class2"] == pytest.approx(50)


def test_300_detections_of_an_image_over_all_classes(registered):
    content = {
        "images": [image(1, neg=[2])],
        "annotations": [square(1, 1, 1)],
        "categories": categories("f", "f"),
    }
    name = registered(content)
    crowd = [(50, 0.9, 1)] * (LVIS_LIMIT - 1)
    inside = score(LvisEvaluator(name), {1: squares(*crowd, (0, 0.5, 0))})
    assert inside["bbox"]["AP"] == pytest.approx(100)
    over = {1: squares(*crowd, (50, 0.9, 1), (0, 0.5, 0))}
    assert score(LvisEvaluator(name), over)["bbox"]["AP"] == 0
    raised = score(LvisEvaluator(name, max_dets_per_image=301), over)
    assert raised["bbox"]["AP"] == pytest.approx(100)


def test_nothing_predicted_and_boxes_alone(registered):
    content = {
        "images": [image(1), image(2)],
        "annotations": [square(1, 1, 1), square(2, 2, 2)],
        "categories": categories("r", "f"),
    }
    name = registered(content)
    for masks, groups in ((True, {"bbox", "segm"}), (False, {"bbox"})):
        evaluator = LvisEvaluator(name)
        assert set(evaluator.metrics()) >= {f"{group}/{f}" for group in groups for f in FIGURES}
        found = score(evaluator, {i: squares(masks=masks) for i in (1, 2)})
        assert set(found) == groups
        assert {found[g][f] for g in groups for f in ("AP", "APr", "APf", "APs")} == {0}


def test_what_is_written(registered, tmp_path):
    content = {
        "images": [image(1, neg=[2]), image(2, incomplete=[1])],
        "annotations": [square(1, 1, 1), square(2, 2, 1)],
        "categories": categories("r", "f"),
    }
    cfg = get_cfg()
    add_seg_config(cfg)
    cfg.TEST.SAVE_PREDICTIONS = True
    evaluator = build_evaluator(cfg, registered(content), tmp_path / "out")
    assert isinstance(evaluator, LvisEvaluator)
    outputs = {1: squares((0, 0.9, 0), (50, 0.6, 1), (30, 0.4, 1)), 2: squares((50, 0.7, 0))}
    score(evaluator, outputs)
    lines = (tmp_path / "out/instances_per_image.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    # One hit, one mistake: 2 / 3. In image 2 the detection is no mistake, and one is missed.
    assert first["score"] == pytest.approx(200 / 3)
    assert (first["tp"], first["fp"], first["fn"]) == (1, 1, 0)
    assert (second["score"], second["fp"], second["fn"]) == (0, 0, 1)
    saved = json.loads((tmp_path / "out/lvis_instances_results.json").read_text())
    assert [(d["image_id"], d["category_id"]) for d in saved] == [(1, 1), (1, 2), (1, 2), (2, 1)]
    results = json.loads((tmp_path / "out/instances_results.json").read_text())
    assert set(results["by_class"]["segm"]) == {"class1", "class2"}


@pytest.mark.parametrize("key", ["BOUNDARY_MEASURES", "CLASS_AGNOSTIC"])
def test_measures_that_are_missing_are_refused_not_left_out(registered, key):
    cfg = get_cfg()
    add_seg_config(cfg)
    cfg.TEST[key] = True
    name = registered(valid())
    with pytest.raises(EvaluationError, match=f"{key} is True.*'lvis' of '{name}' has no"):
        build_evaluator(cfg, name)


# ------------------------------------------------------------------------- the package lvis


def federated(seed):
    """Random COCO as LVIS: (content, predictions) with all that its rules are about."""
    content, predictions = make_coco(seed, categories=IDS)
    rng = np.random.default_rng(seed + 1000)
    for k, category in enumerate(content["categories"]):
        category["frequency"] = "rcfrc"[k]
    present = {entry["id"]: set() for entry in content["images"]}
    for annotation in content["annotations"]:
        annotation.pop("iscrowd", None)
        present[annotation["image_id"]].add(annotation["category_id"])
    for entry in content["images"]:
        there = present[entry["id"]]
        entry["coco_url"] = f"http://images.cocodataset.org/val2017/{entry['id']:012}.jpg"
        absent = [c for c in IDS if c not in there]
        entry["neg_category_ids"] = [c for c in absent if rng.random() < 0.5]
        entry["not_exhaustive_category_ids"] = [c for c in IDS if rng.random() < 0.3]
    return content, predictions


def expected(content, predictions, kind, limit, file):
    lvis = pytest.importorskip("lvis", reason="the package lvis is not installed")
    file.write_text(json.dumps(content))
    truth = lvis.LVIS(str(file))
    results = []
    for image_id, (masks, boxes, scores, classes) in predictions.items():
        for mask, box, one, k in zip(masks, boxes, scores, classes, strict=True):
            result = {"image_id": image_id, "category_id": IDS[k], "score": float(one)}
            if kind == "segm":  # Detectron2 leaves out the box, so that sizes are the masks'
                result["segmentation"] = coco_mask.encode(np.asfortranarray(mask))
            else:
                sides = box[2:] - box[:2]
                result["bbox"] = [float(v) for v in (*box[:2], *sides)]
            results.append(result)
    found = lvis.LVISEval(truth, lvis.LVISResults(truth, results, max_dets=limit), kind)
    with pytest.MonkeyPatch.context() as numpy_1:
        numpy_1.setattr(np, "float", float, raising=False)
        found.run()
    values = found.get_results()
    return {name: 100 * values[name] if values[name] > -1 else np.nan for name in FIGURES}


@pytest.mark.parametrize("seed", range(6))
def test_the_package_lvis_gives_the_same_digits(registered, seed, tmp_path):
    content, predictions = federated(seed)
    limit = 4 if seed % 2 else LVIS_LIMIT
    evaluator = LvisEvaluator(registered(content), max_dets_per_image=limit)
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    # In another order than that of the ids, which must not matter.
    for image_id in sorted(sizes, key=lambda i: i * 37 % 101):
        masks, boxes, scores, classes = predictions[image_id]
        found = instances(boxes, scores, classes, masks, sizes[image_id])
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    results = evaluator.evaluate()
    given = dict(sorted(predictions.items()))
    for kind in ("bbox", "segm"):
        theirs = expected(deepcopy(content), given, kind, limit, tmp_path / "truth.json")
        assert results[kind] == pytest.approx(theirs, abs=0, rel=1e-12, nan_ok=True), kind
    assert 0 < results["segm"]["AP"] < 100


def test_written_results_score_as_what_they_were_written_from(registered, tmp_path):
    content, predictions = federated(3)
    name = registered(content)
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    outputs = {i: instances(*predictions[i][1:], predictions[i][0], sizes[i]) for i in predictions}
    given = score(LvisEvaluator(name, tmp_path / "run", save_predictions=True), outputs)
    np.testing.assert_equal(score_files(name, tmp_path / "run"), given)
    assert 0 < given["segm"]["AP"] < 100


def test_any_split_over_processes_gives_the_same_digits(registered):
    content, predictions = federated(11)
    name = registered(content)
    sizes = {entry["id"]: (entry["height"], entry["width"]) for entry in content["images"]}
    outputs = {i: instances(*predictions[i][1:], predictions[i][0], sizes[i]) for i in predictions}
    whole = LvisEvaluator(name, distributed=False)
    alone = score(whole, outputs)
    parts = [LvisEvaluator(name, distributed=False) for _ in range(3)]
    for place, (image_id, found) in enumerate(outputs.items()):
        parts[place % 3].process([{"image_id": image_id}], [{"instances": found}])
    merged = whole.summarize([part.local_state() for part in parts])
    assert json.dumps(merged) == json.dumps(alone)


# ---------------------------------------------------------------------------- wrong truth


def valid():
    return {
        "images": [image(1, neg=[2]), image(2)],
        "annotations": [square(1, 1, 1), square(2, 2, 2)],
        "categories": categories("r", "f"),
    }


def test_truth_that_is_no_lvis_is_refused(registered):
    no_frequency, some, no_list, masks = (valid() for _ in range(4))
    for category in no_frequency["categories"]:
        del category["frequency"]
    del some["categories"][1]["frequency"]
    del no_list["images"][1]["neg_category_ids"]
    del masks["annotations"][0]["segmentation"]
    for content, message in (
        (no_frequency, "needs the 'frequency' .* set the evaluator_type 'coco' there"),
        (some, "category 2 'class2' has no 'frequency'"),
        (no_list, "image 2 has no 'neg_category_ids'"),
        (masks, "1 of 2 annotations have no mask"),
    ):
        with pytest.raises(EvaluationError, match=message):
            LvisEvaluator(registered(content))


def test_a_loader_of_the_users_own(registered):
    """Its records and metadata hold all of it; classes are numbered by their place."""
    records = deepcopy(Dataset.get(registered(valid())).records)
    DatasetCatalog.register("own_lvis", lambda: records)
    frequencies = {0: "r", 1: "f"}
    metadata = {"thing_classes": ["one", "two"], "thing_frequencies": frequencies}
    MetadataCatalog.get("own_lvis").set(evaluator_type="lvis", **metadata)
    try:
        # The file's id 2 for the absent class is none here: there is no mistake in image 1.
        found = score(LvisEvaluator("own_lvis"), {1: squares((0, 0.9, 0)), 2: squares((0, 1, 1))})
        assert [found["segm"][f] for f in ("AP", "APr", "APf")] == pytest.approx([100] * 3)
    finally:
        DatasetCatalog.remove("own_lvis")
        MetadataCatalog.remove("own_lvis")


def test_predictions_that_do_not_fit(registered):
    evaluator = LvisEvaluator(registered(valid()))
    with pytest.raises(EvaluationError, match="predicted class 2 is none of the 2"):
        score(evaluator, {1: squares((0, 0.9, 2))})
    evaluator.reset()
    with pytest.raises(EvaluationError, match="without pred_masks, while other images had them"):
        score(evaluator, {1: squares((0, 0.9, 0)), 2: squares((0, 0.9, 0), masks=False)})
    evaluator.reset()
    with pytest.raises(EvaluationError, match="score NaN"):
        score(evaluator, {1: squares((0, float("nan"), 0))})


def test_a_test_set_without_truth_saves_predictions(registered, tmp_path):
    content = valid()
    del content["annotations"]
    name = registered(content)
    with pytest.raises(EvaluationError, match="no annotations to score against"):
        LvisEvaluator(name)
    evaluator = LvisEvaluator(name, tmp_path / "out", save_predictions=True)
    assert score(evaluator, {1: squares((0, 0.9, 1)), 2: squares()}) == {}
    (saved,) = json.loads((tmp_path / "out/lvis_instances_results.json").read_text())
    assert (saved["image_id"], saved["category_id"], saved["bbox"]) == (1, 2, [0, 0, 10, 10])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("neg_category_ids", [1.5], r"image 1: neg_category_ids should be a list of category ids"),
        ("not_exhaustive_category_ids", 3, r"not_exhaustive_category_ids should be a list"),
        ("coco_url", None, r"image 1: file_name should be a string"),
    ],
)
def test_wrong_fields_are_named(registered, key, value, message):
    content = valid()
    content["images"][0][key] = value
    with pytest.raises(DatasetError, match=message):
        Dataset.get(registered(content))


def test_a_frequency_that_lvis_does_not_have(registered):
    content = valid()
    content["categories"][0]["frequency"] = "often"
    with pytest.raises(
        DatasetError, match=r"category 1: frequency is 'often'; LVIS has r, c and f"
    ):
        Dataset.get(registered(content))
