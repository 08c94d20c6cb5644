"""Files: they hold what was predicted, and the tools that they are made for read them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

from seg_plugins.evaluation import InstanceEvaluator, PanopticEvaluator
from seg_plugins.prediction import Prediction, coco_files, join
from seg_plugins.prediction.known_images import KnownImages
from seg_plugins.prediction.labels import Labels
from seg_plugins.prediction.outputs import OutputOptions, save_prediction, whole_file

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from stubs import PANOPTIC, Fixed, instances, panoptic, predictor

IMAGE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
THINGS = Labels(things=PANOPTIC.things)


@pytest.fixture
def saved_instances(tmp_path):
    predict = predictor(Fixed({"instances": instances()}), THINGS)
    for name in ("000000000139", "000000000285"):
        predict(IMAGE).save(tmp_path, name, save=("json", "mask", "overlay"))
    return tmp_path


@pytest.fixture
def saved_panoptic(tmp_path):
    output = {"panoptic_seg": panoptic(), "instances": instances()}
    Prediction.from_output(output, IMAGE, PANOPTIC, 0.5).save(tmp_path, "7", save=("panoptic",))
    return tmp_path, output


def test_pycocotools_reads_the_instances_as_annotations_and_as_results(saved_instances):
    truth = COCO(str(saved_instances / "instances.json"))
    assert sorted(truth.imgs) == [139, 285]
    assert [category["name"] for category in truth.loadCats([1, 2])] == ["person", "dog"]
    first = truth.loadAnns(truth.getAnnIds(imgIds=[139]))
    assert [annotation["area"] for annotation in first] == [36, 16]
    assert truth.annToMask(first[0]).sum() == 36
    results = truth.loadRes(truth.dataset["annotations"])
    scores = COCOeval(truth, results, "segm")
    scores.evaluate()
    scores.accumulate()
    scores.summarize()
    assert scores.stats[0] == pytest.approx(1.0)


def test_our_evaluator_takes_the_instances_as_ground_truth(saved_instances):
    name = "prediction_as_truth_instances"
    path = str(saved_instances / "instances.json")
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(
        json_file=path,
        image_root=str(saved_instances),
        thing_classes=["person", "dog"],
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
    )
    evaluator = InstanceEvaluator(name, distributed=False)
    evaluator.reset()
    found = instances()
    samples = [{"image_id": i, "height": 12, "width": 20} for i in (139, 285)]
    evaluator.process(samples, [{"instances": found[found.scores > 0.5]}] * 2)
    assert evaluator.evaluate()["segm"]["AP"] == pytest.approx(100)


def test_the_panoptic_evaluator_takes_png_and_json(saved_panoptic):
    folder, output = saved_panoptic
    output["panoptic_seg"][0][0, 0] = 0  # the evaluator takes no ids that are listed nowhere
    name = "prediction_as_truth_panoptic"
    DatasetCatalog.register(name, list)
    MetadataCatalog.get(name).set(
        panoptic_root=str(folder / "panoptic"),
        panoptic_json=str(folder / "panoptic.json"),
        thing_dataset_id_to_contiguous_id={1: 0, 2: 1},
        stuff_dataset_id_to_contiguous_id={1: 0, 2: 1, 7: 2, 8: 3},
    )
    evaluator = PanopticEvaluator(name, distributed=False)
    evaluator.reset()
    evaluator.process([{"image_id": 7, "file_name": "7.jpg"}], [output])
    scores = evaluator.evaluate()["panoptic_seg"]
    assert scores["PQ"] == pytest.approx(100)
    assert scores["PQ-person"] == pytest.approx(100)


def test_the_panoptic_png_codes_ids_in_three_bytes(saved_panoptic):
    folder, _ = saved_panoptic
    colors = np.asarray(Image.open(folder / "panoptic/7.png")).astype(int)
    ids = colors @ (1, 256, 65536)
    assert set(np.unique(ids)) == {0, 3, 4, 300, 70000}
    content = json.loads((folder / "panoptic.json").read_bytes())
    assert content["images"] == [{"id": 7, "file_name": "7", "height": 12, "width": 20}]
    for segment in content["annotations"][0]["segments_info"]:
        assert segment["area"] == (ids == segment["id"]).sum()


def test_names_that_are_no_numbers_are_counted(tmp_path):
    predict = predictor(Fixed({"instances": instances()}), THINGS)
    for name in ("b", "7", "a"):
        predict(IMAGE).save(tmp_path, name, save=("json",))
    images = json.loads((tmp_path / "instances.json").read_bytes())["images"]
    assert [(image["id"], image["file_name"]) for image in images] == [(1, "7"), (2, "a"), (3, "b")]


def test_statistics_of_each_class(saved_instances):
    with (saved_instances / "statistics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    assert rows[0]["class"] == "person"
    assert rows[0]["pixels"] == "52"
    assert rows[0]["regions"] == "2"
    assert float(rows[0]["share"]) == pytest.approx(52 / 240, abs=1e-6)
    assert float(rows[0]["mean_score"]) == pytest.approx(0.75)


def test_a_cut_out_is_transparent_and_a_blur_is_not(tmp_path):
    found = Prediction.from_output({"instances": instances()}, IMAGE, THINGS, 0.5)
    save_prediction(found, tmp_path, "a", OutputOptions(("cutout", "blur"), edge=0))
    cut = np.asarray(Image.open(tmp_path / "cutout/a.png"))
    assert np.array_equal(cut[:, :, 3] > 0, found.foreground())
    assert np.array_equal(cut[:, :, :3], IMAGE)
    blurred = np.asarray(Image.open(tmp_path / "blur/a.png"))
    assert blurred.shape == (12, 20, 3)
    assert np.array_equal(blurred[found.foreground()], IMAGE[found.foreground()])


def test_nothing_found_is_a_result_too(tmp_path):
    empty = instances()[:0]
    found = predictor(Fixed({"instances": empty}), THINGS)(IMAGE)
    found.save(tmp_path, "a", save=("overlay", "mask", "color", "cutout", "blur", "json"))
    content = json.loads((tmp_path / "instances.json").read_bytes())
    assert content["annotations"] == []
    assert len(content["images"]) == 1
    assert not np.asarray(Image.open(tmp_path / "mask/a.png")).any()
    assert not np.asarray(Image.open(tmp_path / "cutout/a.png"))[:, :, 3].any()


def test_a_file_that_is_not_finished_is_not_there(tmp_path):
    path = tmp_path / "a" / "b.tif"

    def stop(file):
        file.write_bytes(b"half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"), whole_file(path) as temporary:
        stop(temporary)
    assert not list((tmp_path / "a").iterdir())
    with whole_file(path) as temporary:
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"


def test_saving_an_image_does_not_read_all_others(tmp_path, monkeypatch, caplog):
    reads = []
    read = coco_files._read
    monkeypatch.setattr(coco_files, "_read", lambda path: reads.append(path) or read(path))
    monkeypatch.setattr(coco_files, "_AT_ONCE", 5)
    found = predictor(Fixed({"instances": instances()}), THINGS)(IMAGE)
    for i in range(5):
        found.save(tmp_path, f"x/{i}", save=("json",))
    assert len(json.loads((tmp_path / "instances.json").read_bytes())["images"]) == 5
    reads.clear()
    caplog.clear()
    for i in range(5, 10):
        assert found.save(tmp_path, f"x/{i}", save=("json",)) == []
    assert reads == []
    # Nothing out of date is left, and what the warning names brings all back.
    assert not list(tmp_path.glob("*.*"))
    assert "seg_plugins.prediction.join(folder, predictor.labels)" in caplog.text
    paths = join(tmp_path, found.labels)
    assert [path.name for path in paths] == ["statistics.csv", "instances.json"]
    assert len(json.loads(paths[1].read_bytes())["images"]) == 10
    with pytest.raises(ValueError, match="no predictions were saved there"):
        join(tmp_path / "x", found.labels)


def test_images_of_the_test_set_keep_its_ids(tmp_path):
    """And a photo that it does not list gets none of them."""
    size = {"height": 12, "width": 20}
    listed = [{"id": i, "file_name": f"{n}.png", **size} for i, n in ((7, "a"), (5, "b"))]
    content = {"images": listed, "annotations": [], "categories": []}
    (tmp_path / "val.json").write_text(json.dumps(content))
    name = "known_images_test"
    MetadataCatalog.get(name).set(json_file=str(tmp_path / "val.json"), image_root=str(tmp_path))
    try:
        labels = replace(THINGS, images=KnownImages((name,)))
        predict = predictor(Fixed({"instances": instances()}), labels)
        for stem in ("3", "a", "b"):
            save_prediction(
                predict(IMAGE), tmp_path / "out", stem, OutputOptions(save=("json",)),
                file_name=f"{stem}.png", source=tmp_path / f"{stem}.png",
            )  # fmt: skip
        path = tmp_path / "out" / "instances.json"
        images = {i["file_name"]: i["id"] for i in json.loads(path.read_bytes())["images"]}
    finally:
        MetadataCatalog.remove(name)
    assert images == {"a.png": 7, "b.png": 5, "3.png": 8}
