"""What is trained on, what is left out and counted, and what is refused before training."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sysconfig
from pathlib import Path

import seg_plugins
from seg_plugins.config import ConfigError
from seg_plugins.data import Dataset, DatasetError, apply_custom_dataset
from seg_plugins.data.doctor import check_before_training
from seg_plugins.data.errors import CollectedErrors, allowed, share_to_allow
from seg_plugins.data.training_records import training_records
from seg_plugins.engine.checks.consistency import check_datasets

import pytest
from coco_files import annotation, content, write

BOX = (10, 12, 20, 16)
ROOT = Path(__file__).parents[2]
CROWD = {
    "iscrowd": 1, "bbox": [8, 8, 1, 12],
    "segmentation": {"size": [64, 64], "counts": [64 * 8 + 8, 12, 64 * 56 - 20]},
}  # fmt: skip


def config(path: Path, *opts: str):
    cfg = seg_plugins.load_config(
        "shapes/mask_rcnn_r18_fpn.yaml", ["DATASETS.CUSTOM", str(path), *opts]
    )
    apply_custom_dataset(cfg)
    return cfg


def kept(cfg) -> list[list[int]]:
    """The ids of the annotations of each image."""
    return [[a["id"] for a in record["annotations"]] for record in training_records(cfg)]


def advice(error: pytest.ExceptionInfo) -> list[str]:
    """The keys and values that a message says to set."""
    return re.findall(r"[A-Z][A-Z_.]*\.[A-Z_]+ (?:[0-9.e-]+|False)", str(error.value))


@pytest.mark.parametrize(
    "bad",
    [
        annotation(3, 1, BOX, segmentation=[[32.0, 32.0]]),
        annotation(3, 1, BOX, segmentation=[10, 12, 30, 12, 30, 28]),
        annotation(3, 1, (0, 0, 0, 0), segmentation=[], area=0),
        annotation(3, 1, (9, 9, -4, 4)),
        annotation(3, 1, BOX, segmentation=None),
    ],
)
def test_one_wrong_annotation_and_the_key_that_leaves_it_out(tmp_path, bad, caplog):
    good = [annotation(1, 1, BOX), annotation(2, 2, BOX)]
    path = write(tmp_path, content([*good, bad]), "one_bad")
    with pytest.raises(DatasetError, match=r"one_bad_train: 1 of 3 .*\n.*annotation 3") as error:
        check_before_training(config(path))
    share = next(key for key in advice(error) if key.startswith("DATALOADER.MAX_DAMAGED "))
    cfg = config(path, *share.split())
    with caplog.at_level(logging.WARNING):
        check_before_training(cfg)
        assert kept(cfg) == [[1], [2]]
    assert "1 of 3 annotations are wrong and left out" in caplog.text


def test_the_share_is_a_bound(tmp_path):
    wrong = [annotation(i, 1, BOX, iscrowd=7) for i in range(10, 13)]
    path = write(tmp_path, content([*(annotation(i, 2, BOX) for i in range(9)), *wrong]))
    with pytest.raises(DatasetError, match=r"3 of 12 annotations are wrong") as error:
        training_records(config(path, "DATALOADER.MAX_DAMAGED", "0.2"))
    assert advice(error) == ["DATALOADER.MAX_DAMAGED 0.25"]
    assert len(kept(config(path, *advice(error)[0].split()))[0]) == 9


def test_the_share_that_a_message_names_suffices():
    for total in (1, 3, 7, 40, 999, 860_001):
        for count in {1, 2, total // 3 + 1, max(total - 1, 1)}:
            if count <= total:
                share = float(share_to_allow(count, total))
                assert count <= allowed(share, total)
                assert share <= 1.2 * count / total
    assert [allowed(0.0, 9), allowed(0.01, 9), allowed(0.5, 9)] == [0, 1, 4]


def test_many_errors_are_shown_in_part():
    found = CollectedErrors()
    for number in range(8):
        found(DatasetError(f"a.json: annotation {number}: wrong"))
    with pytest.raises(DatasetError, match=r"8 of 10 [\s\S]*annotation 4: wrong\n  ... and 3 more"):
        found.check(0.1, "a", [{"annotations": [1, 2]}, {"annotations": []}])


@pytest.mark.parametrize("empty", [[], None, ...])
def test_boxes_alone_name_the_key_for_them(tmp_path, empty):
    boxes = [annotation(i, i, BOX, segmentation=empty) for i in (1, 2)]
    path = write(tmp_path, content(boxes), "boxes_alone")
    with pytest.raises(DatasetError, match="none of the 2 annotations has a mask") as error:
        check_before_training(config(path))
    assert advice(error) == ["MODEL.MASK_ON False"]
    cfg = config(path, *advice(error)[0].split())
    check_before_training(cfg)
    records = training_records(cfg)
    (found,) = seg_plugins.data.build_mapper(cfg, True)(records[0])["instances"].gt_boxes
    assert (found > 0).all()


def test_masks_and_boxes_alone_together(tmp_path):
    mixed = [annotation(1, 1, BOX), annotation(2, 2, BOX), annotation(99, 2, BOX, segmentation=[])]
    path = write(tmp_path, content(mixed))
    message = r"annotation 99 has no mask \(segmentation\), as 1 of 3"
    with pytest.raises(DatasetError, match=message) as error:
        training_records(config(path))
    assert advice(error) == ["MODEL.MASK_ON False", "DATALOADER.MAX_DAMAGED 0.34"]
    assert kept(config(path, *advice(error)[0].split())) == [[1], [2, 99]]
    assert kept(config(path, *advice(error)[1].split())) == [[1], [2]]


def test_images_without_an_object_are_counted(tmp_path, caplog):
    file = content([annotation(1, 1, BOX), annotation(2, 2, BOX, **CROWD)], images=3)
    path = write(tmp_path, file)
    with caplog.at_level(logging.INFO):
        assert kept(config(path)) == [[1]]
    assert "1 of 2 annotations are crowds (iscrowd 1), which training leaves out" in caplog.text
    assert "2 of 3 images have no object and are left out" in caplog.text
    assert kept(config(path, "DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False")) == [[1], [2], []]


def test_crowds_alone_are_refused_with_the_key_for_them(tmp_path):
    path = write(tmp_path, content([annotation(i, i, BOX, **CROWD) for i in (1, 2)]))
    with pytest.raises(DatasetError, match=r"2 of the 2 annotations are crowds") as error:
        check_before_training(config(path))
    assert kept(config(path, *advice(error)[0].split())) == [[1], [2]]


def test_damaged_samples_name_the_keys_that_train_all_the_same(tmp_path, monkeypatch):
    """A missing image and a box that leaves its image: each needs a key of its own."""
    folder = sysconfig.get_path("scripts")
    monkeypatch.setattr(shutil, "which", lambda name: os.path.join(folder, name))
    file = content([annotation(i, i, BOX) for i in range(1, 9)], images=8)
    file["annotations"][0] = annotation(1, 1, (50, 50, 30, 30))
    path = write(tmp_path, file, "damaged")
    (tmp_path / "8.png").unlink()
    with pytest.raises(ConfigError, match=r"2 errors in 8 of 8 samples[\s\S]*8\.png") as error:
        check_before_training(config(path))
    assert f"seg-plugins check --custom {path} lists all" in str(error.value)
    assert advice(error) == ["DATALOADER.MAX_DAMAGED 0.13", "DATASETS.CHECK_SAMPLES 0"]
    check_before_training(config(path, *" ".join(advice(error)).split()))
    (tmp_path / "8.png").write_bytes((tmp_path / "7.png").read_bytes())
    with pytest.raises(ConfigError) as error:
        check_before_training(config(path))
    assert advice(error) == ["DATASETS.CHECK_SAMPLES 0"]


def test_a_wrong_test_set_is_told_before_training(tmp_path):
    good = [annotation(1, 1, BOX), annotation(2, 2, BOX)]
    wrong = content([*good, annotation(3, 1, BOX, iscrowd=7)])
    path = write(tmp_path, content(good), "wrong_val", wrong)
    cfg = config(path)
    with pytest.raises(DatasetError, match=r"(?s)wrong_val_val: 1 of 3 .*annotation 3") as error:
        check_datasets(cfg)
    (advised,) = advice(error)
    assert advised.startswith("DATALOADER.MAX_DAMAGED ")
    cfg.merge_from_list(advised.split())
    check_datasets(cfg)
    check_before_training(cfg)
    kept = [a["id"] for r in Dataset.get("wrong_val_val").records for a in r["annotations"]]
    assert kept == [1, 2]
