"""Perfect predictions score 100, whatever the ids, the split and the order in which things load."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import seg_plugins
from seg_plugins.data import register_custom_dataset
from seg_plugins.evaluation import EvaluationError, InstanceEvaluator, build_evaluator

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

NAMES = ["ant", "bee", "cat"]
SIZE = (64, 96)


def box_of(k):
    return [4 + 28 * k, 10, 20, 24]


def write(folder, split, ids, *, objects=NAMES, masks=True):
    """One image per two classes of `objects`; `ids` numbers and orders the classes of the file."""
    (folder / "images").mkdir(exist_ok=True)
    images, annotations = [], []
    for i in range(2):
        Image.new("RGB", SIZE[::-1]).save(folder / f"images/{split}{i}.png")
        images.append({"id": 40 + i, "file_name": f"{split}{i}.png", "height": 64, "width": 96})
        for name in objects:
            x, y, w, h = box_of(NAMES.index(name))
            annotation = {
                "id": len(annotations), "image_id": 40 + i, "category_id": ids[name],
                "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0,
            }  # fmt: skip
            if masks is True or (masks == "some" and not annotations):
                annotation["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotations.append(annotation)
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / f"{split}.json").write_text(json.dumps(content))


@pytest.fixture
def described(tmp_path):
    """Registers train.json and val.json; gives the names of the two."""
    text = "name: insects\ntask: instance\nclasses: [ant, bee, cat]\n"
    text += "".join(f"{s}: {{images: images, json: {s}.json}}\n" for s in ("train", "val"))
    (tmp_path / "insects.yaml").write_text(text)
    yield lambda: register_custom_dataset(tmp_path / "insects.yaml")
    for name in ("insects_train", "insects_val"):
        for catalogue in (DatasetCatalog, MetadataCatalog):
            if name in catalogue.list():
                catalogue.remove(name)


def perfect(objects=NAMES, *, masks=True):
    boxes = torch.tensor([box_of(NAMES.index(n)) for n in objects], dtype=torch.float32)
    boxes = boxes.reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    found = Instances(SIZE, pred_boxes=Boxes(boxes), scores=torch.full((len(boxes),), 0.9))
    found.pred_classes = torch.tensor([NAMES.index(n) for n in objects], dtype=torch.int64)
    if masks:
        found.pred_masks = torch.zeros(len(boxes), *SIZE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(found.pred_masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
    return found


def score(evaluator, *instances):
    evaluator.reset()
    for image_id, found in zip((40, 41), instances, strict=True):
        evaluator.process([{"image_id": image_id}], [{"instances": found}])
    return evaluator.evaluate()


@pytest.mark.parametrize(
    "ids",
    [
        {"ant": 1, "bee": 2, "cat": 3},
        {"cat": 0, "ant": 1, "bee": 2},
        {"bee": 90, "cat": 7, "ant": 1000},
    ],
)
@pytest.mark.parametrize("loaded_before", [False, True])
def test_ids_and_order_of_the_file(tmp_path, described, ids, loaded_before):
    write(tmp_path, "train", {"ant": 1, "bee": 2, "cat": 3})
    write(tmp_path, "val", ids)
    names = described()
    if loaded_before:
        DatasetCatalog.get(names["val"])
    found = score(InstanceEvaluator(names["val"]), perfect(), perfect())
    for task in ("bbox", "segm"):
        assert [found[task][f"AP-{name}"] for name in NAMES] == [100, 100, 100]


def test_predictions_are_written_with_the_ids_of_the_file(tmp_path, described):
    write(tmp_path, "train", {"ant": 1, "bee": 2, "cat": 3})
    write(tmp_path, "val", {"cat": 5, "ant": 11, "bee": 4})
    evaluator = InstanceEvaluator(described()["val"], tmp_path / "out", save_predictions=True)
    score(evaluator, perfect(["bee"]), perfect(["cat"]))
    written = json.loads((tmp_path / "out/coco_instances_results.json").read_text())
    assert [(r["image_id"], r["category_id"]) for r in written] == [(40, 4), (41, 5)]


def test_a_split_that_lacks_a_class(tmp_path, described):
    write(tmp_path, "train", {"ant": 1, "bee": 2, "cat": 3})
    write(tmp_path, "val", {"ant": 1, "cat": 2}, objects=["ant", "cat"])
    found = score(InstanceEvaluator(described()["val"]), perfect(), perfect())
    assert found["segm"]["AP"] == 100, "a class without truth counts nowhere"
    assert np.isnan(found["segm"]["AP-bee"])


def test_a_model_that_finds_nothing_has_the_same_figures(tmp_path, described):
    write(tmp_path, "train", {"ant": 1, "bee": 2, "cat": 3})
    write(tmp_path, "val", {"ant": 1, "bee": 2, "cat": 3})
    evaluator = InstanceEvaluator(described()["val"])
    all_of_them = score(evaluator, perfect(), perfect())
    nothing = score(evaluator, perfect([]), perfect([]))
    assert {t: set(f) for t, f in nothing.items()} == {t: set(f) for t, f in all_of_them.items()}
    assert nothing["segm"]["AP"] == nothing["bbox"]["AP"] == 0
    assert set(score(evaluator, perfect(masks=False), perfect(masks=False))) == {"bbox"}
    declared = evaluator.metrics()
    assert declared == {f"{t}/{name}": True for t, f in all_of_them.items() for name in f}


def test_boxes_alone_and_masks_for_some(tmp_path, described):
    ids = {"ant": 1, "bee": 2, "cat": 3}
    write(tmp_path, "train", ids)
    write(tmp_path, "val", ids, masks=False)
    found = score(InstanceEvaluator(described()["val"]), perfect(), perfect())
    assert set(found) == {"bbox"}
    assert found["bbox"]["AP"] == 100
    write(tmp_path, "val", ids, masks="some")
    with pytest.raises(
        EvaluationError, match=r"5 of 6 annotations have no mask, the first is 1 of"
    ):
        InstanceEvaluator(described()["val"])


def test_more_detections_than_cocos_100_count_where_the_model_gives_them(tmp_path, described):
    """150 perfect detections of 150: AP 100; the first 100 reach 67 of 101 steps of recall."""
    ids = {"ant": 1, "bee": 2, "cat": 3}
    write(tmp_path, "train", ids)
    write(tmp_path, "val", ids, objects=[])
    content = json.loads((tmp_path / "val.json").read_text())
    boxes = [[6 * (i % 15), 6 * (i // 15), 4, 4] for i in range(150)]
    content["annotations"] = [
        {"id": i, "image_id": 40, "category_id": 1, "bbox": b, "area": 16, "iscrowd": 0}
        for i, b in enumerate(boxes)
    ]
    (tmp_path / "val.json").write_text(json.dumps(content))
    corners = torch.tensor(boxes, dtype=torch.float32)
    corners[:, 2:] += corners[:, :2]
    found = Instances(SIZE, pred_boxes=Boxes(corners), scores=torch.linspace(1, 0.5, 150))
    found.pred_classes = torch.zeros(150, dtype=torch.int64)
    config = "configs/shapes/mask_rcnn_r18_fpn.yaml"
    for limit, ap in ((300, 100), (100, 100 * 67 / 101)):
        cfg = seg_plugins.load_config(config, ["TEST.DETECTIONS_PER_IMAGE", limit])
        results = score(build_evaluator(cfg, described()["val"]), found, perfect([], masks=False))
        assert results["bbox"]["AP"] == pytest.approx(ap)
        assert ("AP@100" in results["bbox"]) is (limit > 100)
        if limit > 100:
            assert results["bbox"]["AP@100"] == pytest.approx(100 * 67 / 101)
            assert results["bbox"]["AR@300"] == 100


def test_evaluator_before_loader_in_a_process_of_its_own(tmp_path, described):
    """As in Detectron2's usual order; nothing else has touched the dataset."""
    write(tmp_path, "train", {"ant": 1, "bee": 2, "cat": 3})
    write(tmp_path, "val", {"ant": 1, "bee": 2, "cat": 3})
    code = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_instance_truth as t
        from seg_plugins.data import register_custom_dataset
        from seg_plugins.evaluation import InstanceEvaluator
        names = register_custom_dataset({str(tmp_path / "insects.yaml")!r})
        evaluator = InstanceEvaluator(names["val"])
        print("AP", t.score(evaluator, t.perfect(["bee"]), t.perfect(["bee"]))["segm"]["AP-bee"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True
    )
    assert "AP 100.0" in done.stdout
