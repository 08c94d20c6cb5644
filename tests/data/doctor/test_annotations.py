"""What the doctor says of boxes, areas, masks and crowds, by the ids of the file."""

from __future__ import annotations

from pathlib import Path

from seg_plugins.data import register_custom_dataset
from seg_plugins.data.datasets.catalogue import load_dataset
from seg_plugins.data.doctor import DatasetReport, check_dataset

import cv2
import numpy as np
import pytest
from coco_files import annotation, content, write
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from PIL import Image

BOX = (8, 8, 16, 12)


def check(folder: Path, file: dict) -> DatasetReport:
    names = register_custom_dataset(write(folder, file, "annotated"))
    return check_dataset(names["train"])


def messages(report: DatasetReport, kind: str, *, is_error: bool) -> list[str]:
    found = [p for p in report.problems if (p.kind, p.is_error) == (kind, is_error)]
    return [p.message for p in found]


def test_boxes_given_by_their_corners_are_one_error(tmp_path):
    """With a mask by contradiction to it, without one by leaving the image."""
    near, far = (8, 8, 24, 20), (40, 40, 60, 60)  # x0, y0, x1, y1
    file = content([annotation(1, 1, BOX, bbox=near), annotation(2, 2, BOX, bbox=near)])
    (message,) = messages(check(tmp_path, file), "box", is_error=True)
    assert message.startswith("2 of 2 boxes fit image and mask as [x0, y0, x1, y1] alone")
    assert "annotation 1: the box [8.0, 8.0, 24.0, 20.0] is not that of its mask" in message
    assert "[8.0, 8.0, 16.0, 12.0]" in message
    alone = [annotation(i, i, b, segmentation=..., area=...) for i, b in ((1, near), (2, far))]
    (message,) = messages(check(tmp_path, content(alone)), "box", is_error=True)
    assert message.startswith("1 of 2 boxes fit")
    assert "annotation 2: the box [40.0, 40.0, 60.0, 60.0] leaves the 64x64 image" in message
    # The same file, mended as the message says.
    mended = [annotation(1, 1, (8, 8, 16, 12)), annotation(2, 2, (40, 40, 20, 20))]
    assert check(tmp_path, content(mended)).problems == []


def test_a_single_box_that_is_not_its_masks_is_suspicious(tmp_path):
    file = content([annotation(1, 1, BOX), annotation(7, 2, BOX, bbox=[8, 8, 30, 12])])
    report = check(tmp_path, file)
    (message,) = messages(report, "box", is_error=False)
    assert "annotation 7: the box [8.0, 8.0, 30.0, 12.0] is not that of its mask" in message
    assert report.errors == 0


def test_annotations_are_named_by_their_own_ids(tmp_path):
    file = content(
        [
            annotation(501, 1, BOX),
            annotation(502, 1, (60, 60, 30, 30), segmentation=...),
            annotation(0, 1, (10, 12, 20, 0), segmentation=[[10, 12, 30, 12, 30, 28]]),
            annotation(1, 1, BOX),
        ]
    )
    found = messages(check(tmp_path, file), "box", is_error=True)
    assert ["annotation 502: " in found[0], "annotation 0: " in found[1]] == [True, True]
    assert len(found) == 2


def test_areas_that_contradict_masks_and_the_advice(tmp_path):
    square = (4, 4, 40, 40)
    file = content([annotation(i, i, square, area=1.0) for i in (1, 2)])
    report = check(tmp_path, file)
    (message,) = messages(report, "area", is_error=False)
    assert message.startswith("2 of 2 areas contradict their masks, e.g. ")
    assert "annotation 1: area 1, the mask has 1600 pixels" in message
    assert report.errors == 0
    for found in file["annotations"]:
        del found["area"]
    report = check(tmp_path, file)
    assert report.problems == []
    areas = [a["area"] for r in load_dataset("annotated_train") for a in r["annotations"]]
    assert areas == [1600.0, 1600.0]


def test_areas_of_polygons_and_of_masks_of_boxes_are_no_contradiction(tmp_path):
    triangle = [[8, 8, 24, 8, 8, 20]]
    file = content(
        [
            annotation(1, 1, BOX, segmentation=triangle, area=96),  # by hand; fewer pixels
            annotation(2, 2, BOX, segmentation=..., area=96),  # its mask was taken out
        ]
    )
    assert messages(check(tmp_path, file), "area", is_error=False) == []
    file["annotations"][1]["area"] = 64 * 64
    (message,) = messages(check(tmp_path, file), "area", is_error=False)
    assert "annotation 2: area 4096, the box has 192 pixels" in message


def test_masks_beside_boxes_alone_are_counted(tmp_path):
    file = content([annotation(1, 1, BOX), annotation(9, 2, BOX, segmentation=None)])
    report = check(tmp_path, file)
    (message,) = messages(report, "no mask", is_error=False)
    assert message.startswith("1 of 2 annotations have no mask (segmentation), e.g. ")
    assert "annotation 9" in message
    assert "MODEL.MASK_ON False" in message
    assert report.errors == 0


def test_crowds_and_classes_without_an_object(tmp_path):
    run_lengths = {"size": [64, 64], "counts": [64 * 8 + 8, 12, 64 * 56 - 20]}
    crowd = {"iscrowd": 1, "segmentation": run_lengths, "bbox": [8, 8, 1, 12]}
    file = content(
        [annotation(1, 1, BOX, **crowd), annotation(2, 2, BOX), annotation(3, 2, BOX)],
        ("cell", "debris"),
    )
    report = check(tmp_path, file)
    (message,) = messages(report, "crowds", is_error=False)
    assert message.startswith("1 of 3 annotations are crowds (iscrowd 1)")
    (message,) = messages(report, "absent class", is_error=False)
    assert message == "1 of 2 classes have no object: debris"
    assert report.errors == 0
    (message,) = messages(check(tmp_path, content([])), "absent class", is_error=False)
    assert message == "1 of 1 classes have no object: cell"


def test_files_named_by_the_exporters_folders(tmp_path):
    """The last part of the name, as it stands or as a browser writes it, is there."""
    file = content([annotation(1, 1, BOX), annotation(2, 2, BOX)])
    write(tmp_path, file)
    (tmp_path / "2.png").rename(tmp_path / "my photo.png")
    file["images"][0]["file_name"] = "images\\1.png"
    file["images"][1]["file_name"] = "upload/my%20photo.png"
    (tmp_path / "images").mkdir()  # for the pictures that `write` draws
    (tmp_path / "upload").mkdir()
    path = write(tmp_path, file)
    for name in ("images\\1.png", "upload/my%20photo.png"):
        (tmp_path / name).unlink()
    names = register_custom_dataset(path)
    found = messages(check_dataset(names["train"]), "missing", is_error=True)
    assert len(found) == 3
    assert f"2 of 2 missing images lie in {tmp_path} itself" in found[-1]


def test_sizes_measured_before_an_exif_rotation(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.zeros((40, 64, 3), np.uint8))
    stored.save(tmp_path / "1.png", exif=exif)
    file = content([annotation(1, 1, (10, 40, 20, 20))], images=1)
    file["images"][0] |= {"height": 40, "width": 64}
    (message,) = messages(check(tmp_path, file), "size", is_error=True)
    assert "is 64x40 (height x width), its annotation says 40x64" in message
    assert "EXIF tag" in message
    file["images"][0] |= {"height": 64, "width": 40}  # as the message says
    assert check(tmp_path, file).problems == []


# -------------------------------------------------------------------- other people's loaders

GOOD = {"bbox": [1, 1, 4, 4], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "a dict without 'file_name'"),
        ({"height": 3}, "a dict without 'file_name'"),
        ({"annotations": {}}, "'annotations' should be a list"),
        ({"annotations": [5]}, "annotation 0: should be a dict"),
        ({"annotations": [GOOD | {"category_id": 1}]}, "annotation 0: category 1 is unknown"),
        ({"annotations": [GOOD | {"category_id": "0"}]}, "'category_id' should be an integer"),
        ({"annotations": [GOOD | {"bbox": [1, 2]}]}, "'bbox' should be four numbers"),
        ({"annotations": [GOOD | {"bbox": None}]}, "'bbox' should be four numbers"),
        ({"annotations": [GOOD | {"id": 4, "bbox_mode": 9}]}, "annotation 4: 'bbox_mode' should"),
        ({"annotations": [GOOD | {"segmentation": [[1, 1]]}]}, "'segmentation' should be"),
        ({"annotations": [GOOD | {"segmentation": [["a"] * 6]}]}, "'segmentation' should be"),
        ({"annotations": [GOOD | {"segmentation": {"size": [8, 8]}}]}, "'segmentation' should be"),
        ({"pan_seg_file_name": "a.png"}, "'segments_info' is missing"),
        ({"pan_seg_file_name": "a.png", "segments_info": [{"id": 3}]}, "'category_id' should be"),
        ({"sem_seg_file_name": 3}, "'sem_seg_file_name' should be a path"),
    ],
)
def test_dicts_of_other_loaders_become_problems(tmp_path, record, message):
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    if record is not None and "height" not in record:
        record = {"file_name": str(tmp_path / "a.png"), **record}
    DatasetCatalog.register("someones", lambda: [record])
    MetadataCatalog.get("someones").set(thing_classes=["cell"])
    try:
        errors = [p.message for p in check_dataset("someones").problems if p.is_error]
    finally:
        DatasetCatalog.remove("someones")
        MetadataCatalog.remove("someones")
    assert len(errors) == 1
    assert message in errors[0]


def test_segments_beyond_the_classes(tmp_path):
    ids = np.zeros((8, 8, 3), np.uint8)
    ids[:4, :, 2], ids[4:, :, 2] = 7, 9  # the red channel of OpenCV's order
    assert cv2.imwrite(str(tmp_path / "a.png"), ids)
    name = str(tmp_path / "a.png")
    segments = [{"id": 7, "category_id": 0, "isthing": True}, {"id": 9, "category_id": 1}]
    record = {"file_name": name, "pan_seg_file_name": name, "segments_info": segments}
    DatasetCatalog.register("segmented", lambda: [record])
    MetadataCatalog.get("segmented").set(stuff_classes=["cell"], thing_classes=["cell"])
    try:
        report = check_dataset("segmented")
    finally:
        DatasetCatalog.remove("segmented")
        MetadataCatalog.remove("segmented")
    (problem,) = report.problems
    assert "segment 9: category 1 is none of the 1 classes" in problem.message
    assert report.class_pixels == {"cell": 32}
