"""Files of predictions score as the outputs that they were written from; wrong ones are named."""

from __future__ import annotations

import json
import logging
import math

import seg_plugins
from seg_plugins.data import Dataset
from seg_plugins.data.result_files.listed import read_result_file
from seg_plugins.evaluation import EvaluationError, build_evaluator, score_files
from seg_plugins.evaluation.file_outputs import detections
from seg_plugins.evaluation.instance_predictions import predicted_boxes
from seg_plugins.ops._extension import load_extension

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from coco_samples import as_coco_results, make_coco, pycocotools_evaluation, run
from noisy_outputs import noisy_instances, noisy_scores, noisy_segments
from PIL import Image

NAMES = ["AP", "AP50", "AP75", "APs", "APm", "APl"]
NAMES += ["AR@1", "AR@10", "AR@100", "ARs@100", "ARm@100", "ARl@100"]
PREDICTIONS = ("coco_instances_results.json", "sem_seg_predictions.json",
               "panoptic_predictions.json")  # fmt: skip


def test_an_evaluations_folder_gives_its_digits_and_its_files(tmp_path):
    """Boxes, masks, label maps and panoptic segments of the embedded dataset."""
    name = "shapes_panoptic_val"
    dataset = Dataset.get(name)
    cfg = seg_plugins.get_cfg()
    cfg.TEST.SAVE_PREDICTIONS = True
    evaluator = build_evaluator(cfg, name, tmp_path / "run")
    evaluator.reset()
    sources = noisy_instances(dataset), noisy_scores(dataset), noisy_segments(dataset)
    for (given, found), (_, scores), (_, segments) in zip(*sources, strict=True):
        output = {"instances": found, "sem_seg": scores, "panoptic_seg": segments}
        evaluator.process([given], [output])
    expected = evaluator.evaluate()
    assert 30 < expected["segm"]["AP"] < expected["panoptic_seg"]["PQ"] < 90
    found = score_files(name, tmp_path / "run", tmp_path / "files")
    assert list(found) == ["sem_seg", "bbox", "segm", "panoptic_seg"]
    np.testing.assert_equal(found, expected)
    written = {path.name for path in (tmp_path / "files").iterdir()}
    predictions = {*PREDICTIONS, "panoptic_predictions"}
    assert written == {path.name for path in (tmp_path / "run").iterdir()} - predictions
    for file in written:
        assert (tmp_path / "files" / file).read_bytes() == (tmp_path / "run" / file).read_bytes()
    for file in PREDICTIONS:
        alone = score_files(name, tmp_path / "run" / file)
        np.testing.assert_equal(alone, {task: expected[task] for task in alone})
        assert alone


# ------------------------------------------------------------------------------ detections


@pytest.fixture
def coco_file(coco_dataset, tmp_path):
    """A dataset with awkward truth, its content, and a file of results to change."""
    content, predictions = make_coco(5)
    name, path = coco_dataset(content), tmp_path / "found.json"

    def write(change=lambda results: results):
        results = change(as_coco_results(content, predictions))
        path.write_text(json.dumps(results))
        return path

    return name, content, write


@pytest.mark.parametrize("form", ["both", "boxes", "masks"])
def test_detections_of_any_tool_score_as_with_pycocotools(coco_file, form):
    """Boxes of 64 bits, whose corners could not hold their sides."""
    name, content, write = coco_file
    rng = np.random.default_rng(0)

    def change(results):
        for result in results:
            result["bbox"] = [side + rng.random() / 7 for side in result["bbox"]]
            if form == "boxes":
                del result["segmentation"]
            if form == "masks":
                del result["bbox"]
        return results

    path = write(change)
    results = json.loads(path.read_text())
    found = score_files(name, path)
    assert set(found) == ({"bbox"} if form == "boxes" else {"bbox", "segm"})
    if form == "masks":  # the boxes around the masks
        for result in results:
            result["bbox"] = coco_mask.toBbox(result["segmentation"]).tolist()
    for task, figures in found.items():
        stats = pycocotools_evaluation(content, results, task).stats
        expected = np.where(stats == -1, np.nan, 100 * stats)
        np.testing.assert_array_equal([figures[n] for n in NAMES], expected, err_msg=task)


def test_boxes_are_those_of_the_file_bit_for_bit(coco_file):
    name, _, write = coco_file
    rng = np.random.default_rng(1)

    def change(results):
        return [{**r, "bbox": (1000 * rng.random(4)).tolist()} for r in results]

    path = write(change)
    stated: dict[int, list] = {}
    for result in json.loads(path.read_text()):
        stated.setdefault(result["image_id"], []).append(result["bbox"])
    for given, output in detections(Dataset.get(name), read_result_file(path)):
        boxes = predicted_boxes(output["instances"])
        assert boxes.tolist() == stated.get(given["image_id"], [])


def test_images_without_a_detection_are_counted(coco_file, caplog):
    name, content, write = coco_file
    with caplog.at_level(logging.WARNING):
        score_files(name, write())
    listed = {result["image_id"] for result in json.loads(write().read_text())}
    missing = len(content["images"]) - len(listed)
    assert f"{missing} of the {len(content['images'])} images" in caplog.text
    nothing = score_files(name, write(lambda results: []))
    assert nothing["bbox"]["AP"] == nothing["segm"]["AP"] == 0


def test_a_file_with_images_and_categories_of_its_own_numbers(coco_file, coco_dataset):
    """As tools/predict.py writes it: images are told by name, classes too."""
    name, content, write = coco_file
    expected = score_files(name, write())
    images = {image["id"]: place for place, image in enumerate(content["images"], 1)}
    categories = {c["id"]: place for place, c in enumerate(reversed(content["categories"]))}
    named = {c["id"]: c["name"] for c in content["categories"]}

    def renumber(results):
        for result in results:
            result["image_id"] = images[result["image_id"]]
            result["category_id"] = categories[result["category_id"]]
        return {
            "images": [{"id": i, "file_name": f"elsewhere/{old}.png"} for old, i in images.items()],
            "categories": [{"id": i, "name": named[old]} for old, i in categories.items()],
            "annotations": results,
        }

    np.testing.assert_equal(score_files(name, write(renumber)), expected)

    def with_another(results):
        """A class that the dataset has not, of which there are no results."""
        content = renumber(results)
        content["categories"].append({"id": 1000, "name": "background"})
        return content

    np.testing.assert_equal(score_files(name, write(with_another)), expected)

    def of_another(results):
        content = with_another(results)
        content["annotations"][0]["category_id"] = 1000
        return content

    with pytest.raises(ValueError, match="category_id 1000 is none of"):
        score_files(name, write(of_another))


def test_more_than_100_detections_count_where_the_run_had_them_count(coco_dataset, tmp_path):
    content, predictions = make_coco(1, images=3, categories=(1,))
    predictions = {key: tuple(np.repeat(part, 60, axis=0) for part in value)
                   for key, value in predictions.items()}  # fmt: skip
    name, cfg = coco_dataset(content), seg_plugins.get_cfg()
    cfg.TEST.DETECTIONS_PER_IMAGE, cfg.TEST.SAVE_PREDICTIONS = 300, True
    expected = run(build_evaluator(cfg, name, tmp_path), content, predictions)
    np.testing.assert_equal(score_files(name, tmp_path, cfg=cfg), expected)
    assert "AP@100" in expected["bbox"]


def first(**change):
    """A change of the first result; ... takes a key out."""

    def apply(results):
        results[0] = {k: v for k, v in (results[0] | change).items() if v is not ...}
        return results

    return apply


RLE = {"size": [2, 2], "counts": "04"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (first(image_id=5), r"found\.json: image_id 5 of 1 results is none of the 12 images of"),
        (first(category_id=4), r"category_id 4 is none of the 3 of '.*' \(3 class3, 7 class7, 90"),
        (first(score=math.nan), r"found\.json: result 0 .*: the score is NaN"),
        (first(score="0.5"), "result 0 .*: score should be a number, not '0.5'"),
        (first(score=...), "the first result has the keys bbox, category_id, image_id"),
        (first(bbox=...), "result 0 .*: it has no bbox, which .* others have"),
        (first(bbox=[1, 2, 3]), r"bbox should be x, y, width and height, not \[1, 2, 3\]"),
        (first(bbox=[1, 2, 3, math.inf]), r"result 0 .*: bbox \[1, 2, 3, inf\] is not finite"),
        (first(segmentation=[[1, 1, 2, 2, 3, 1]]), "segmentation should be run lengths"),
        (first(segmentation=RLE), "run-length mask . is 2x2, its image"),
        (lambda results: {"annotations": 3}, "an object without a list of annotations"),
        (lambda results: [7], "result 0 .* is '7', not an object"),
    ],
)  # fmt: skip
def test_wrong_detections_are_named(coco_file, change, message):
    name, _, write = coco_file
    with pytest.raises(EvaluationError, match=message):
        score_files(name, write(change))


def test_files_that_are_none(coco_file, tmp_path):
    name, _, write = coco_file
    broken = write()
    broken.write_text(broken.read_text()[:-20])
    (tmp_path / "empty").mkdir()
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "instances_results.json").write_text("{}")
    for path, message in (
        (tmp_path / "gone.json", "gone.json: no such file or folder"),
        (broken, r"found\.json: not readable as JSON"),
        (tmp_path / "empty", "no predictions in this folder. Looked for are label maps"),
        (tmp_path / "scores", r"only scores \(instances_results.json\): evaluate with TEST.SAVE_P"),
    ):
        with pytest.raises(EvaluationError, match=message):
            score_files(name, path)
    with pytest.raises(EvaluationError, match="would be overwritten"):
        score_files(name, write(), tmp_path)


# ------------------------------------------------------------------------------ label maps


@pytest.fixture
def labels(tiny_semantic, tmp_path):
    """A dataset of four images, their records, and a folder with label maps of noise."""
    dataset = Dataset.get(tiny_semantic[1])
    folder = tmp_path / "labels"
    folder.mkdir()
    for record, (_, scores) in zip(dataset.records, noisy_scores(dataset), strict=True):
        Image.fromarray(scores.argmax(0).byte().numpy()).save(folder / f"{record['image_id']}.png")
    return dataset, folder


def test_a_folder_of_label_maps(labels, tmp_path):
    dataset, folder = labels
    evaluator = build_evaluator(seg_plugins.get_cfg(), dataset)
    evaluator.reset()
    for given, scores in noisy_scores(dataset):
        evaluator.process([given], [{"sem_seg": scores}])
    expected = evaluator.evaluate()
    assert 50 < expected["sem_seg"]["mIoU"] < 90
    np.testing.assert_equal(score_files(dataset.name, folder), expected)
    folder.rename(tmp_path / "mask")  # as tools/predict.py calls it
    np.testing.assert_equal(score_files(dataset, tmp_path), expected)


def test_pixels_without_a_class_are_missed_and_counted(labels, caplog):
    dataset, folder = labels
    file = folder / f"{dataset.records[0]['image_id']}.png"
    labels = np.array(Image.open(file))
    labels[20:24] = 255
    Image.fromarray(labels).save(file)
    before = score_files(dataset, folder)["sem_seg"]
    assert f"{4 * 48} pixels have the ignore label 255" in caplog.text
    Image.fromarray(np.full_like(labels, 255)).save(file)
    assert score_files(dataset, folder)["sem_seg"]["pACC"] < before["pACC"]


def test_pixels_without_a_mask_are_of_no_class(labels, tmp_path):
    """Detectron2's list holds the true pixels of the last class alone."""
    dataset, _ = labels
    records = []
    for record in dataset.records:
        mask = np.asfortranarray(np.array(Image.open(record["sem_seg_file_name"])) == 2)
        rle = coco_mask.encode(mask.astype(np.uint8))
        rle["counts"] = rle["counts"].decode()
        name = f"/another/place/{record['image_id']}.png"
        records.append({"file_name": name, "category_id": 2, "segmentation": rle})
    path = tmp_path / "masks.json"
    path.write_text(json.dumps(records))
    scores = score_files(dataset, path)["sem_seg"]
    assert scores["IoU-bright"] == 100
    assert scores["IoU-dark"] == scores["ACC-dark"] == 0
    assert math.isnan(scores["Precision-dark"])
    for change, message in (
        ({"category_id": 3}, "result 0 .*: category_id 3 is none of the 3 classes"),
        ({"file_name": "gone.png"}, r"gone\.png is none of the 4 images"),
        ({"segmentation": {"size": [40, 48], "counts": "11"}}, "result 0 .*: segmentation: "),
    ):
        if "segmentation" in change and not load_extension().loaded:
            continue  # pycocotools reads malformed strings without a check
        path.write_text(json.dumps([records[0] | change, *records[1:]]))
        with pytest.raises(EvaluationError, match=message):
            score_files(dataset, path)
    path.write_text(json.dumps([*records, records[0]]))
    with pytest.raises(EvaluationError, match="shares pixels with another one of the image"):
        score_files(dataset, path)


def test_wrong_label_maps_are_named(labels):
    dataset, folder = labels
    name, stem = dataset.name, dataset.records[1]["image_id"]
    file = folder / f"{stem}.png"
    good = np.array(Image.open(file))

    def fails(message, pixels, suffix=""):
        Image.fromarray(pixels).save(folder / f"{stem}{suffix}.png")
        with pytest.raises(EvaluationError, match=message):
            score_files(name, folder)
        Image.fromarray(good).save(file)

    wrong = good.copy()
    wrong[3, 4] = 9
    fails(rf"{stem}.*predicted label 9 at row 3, column 4 is outside the 3 classes", wrong)
    fails(rf"{stem}.*the prediction is 40x47 but the ground truth is 40x48", good[:, 1:])
    fails(rf"{stem}\.png: a RGB picture", np.dstack([good, good, good + 1]))
    file.unlink()
    with pytest.raises(EvaluationError, match=rf"nothing was predicted for 1 of the 4.*{stem}"):
        score_files(name, folder)
    fails("other.png is none of the 4 images", good, suffix="_other")
    (folder / f"{stem}_other.png").unlink()
    (folder / "more").mkdir()
    Image.fromarray(good).save(folder / "more" / f"{stem}.png")
    with pytest.raises(
        EvaluationError, match=rf"more/{stem}\.png and .*{stem}\.png are both of the image"
    ):
        score_files(name, folder)


def test_predictions_of_another_task(labels, coco_file):
    dataset, folder = labels
    name, _, write = coco_file
    with pytest.raises(EvaluationError, match=r"holds label maps .*is scored by instances"):
        score_files(name, folder)
    with pytest.raises(EvaluationError, match=r"holds detections, and '.*' is scored by sem_seg"):
        score_files(dataset, write())
