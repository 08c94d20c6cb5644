"""The pictures that the command draws show image and label side by side."""

from __future__ import annotations

import json

from seg_plugins.cli.main import main

import cv2
import numpy as np
import pytest


@pytest.mark.parametrize("dataset", ["shapes_val", "shapes_instance_val", "shapes_panoptic_val"])
def test_a_folder_of_pictures(tmp_path, dataset, dataset_root):
    arguments = ["--dataset", dataset, "--count", "2", "--output", str(tmp_path / "out")]
    main("visualize", arguments)
    files = sorted((tmp_path / "out").iterdir())
    assert len(files) == 2
    picture = cv2.imread(str(files[0]))
    assert picture.shape == (128, 256, 3)
    original = cv2.imread(str(dataset_root / "shapes/images/val/0000.png"))
    assert np.array_equal(picture[:, :128], original)
    assert not np.array_equal(picture[:, 128:], original)


def test_an_unknown_dataset_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: .*shapes_val"):
        main("visualize", ["--dataset", "shape_val", "--output", str(tmp_path)])


def test_an_unknown_key_is_an_error(tmp_path):
    wanted = ["--dataset", "shapes_val", "--output", str(tmp_path / "x.png"), "INPUT.FROMAT", "L"]
    with pytest.raises(SystemExit, match=r"^error: .*FROMAT"):
        main("visualize", wanted)


def test_polygons_and_wrong_arguments(tmp_path, capsys):
    base = ["--dataset", "shapes_instance_val", "--count", "1"]
    sheet = str(tmp_path / "new/sheet.png")
    main("visualize", [*base, "--output", sheet, "INPUT.MASK_FORMAT", "polygon"])
    assert cv2.imread(sheet) is not None
    with pytest.raises(SystemExit):
        main("visualize", [*base, "--output", str(tmp_path / "sheet.xyz")])
    assert "--output should be a .png" in capsys.readouterr().err


def test_boxes_alone_are_drawn(tmp_path):
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 20, 10], "segmentation": []}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 32, "width": 40}],
        "annotations": [box],
        "categories": [{"id": 1, "name": "cell"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 40, 3), np.uint8))
    custom = tmp_path / "my.yaml"
    custom.write_text(
        "{name: boxed, task: instance, classes: [cell], train: {images: ., json: a.json}}"
    )
    out = tmp_path / "out"
    main("visualize", ["--custom", str(custom), "--output", str(out)])
    picture = cv2.imread(str(out / "000000.png"))
    rows, columns = np.nonzero(picture[:, 40:].any(axis=2))
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [6, 16, 5, 25]


def test_a_configuration_for_own_data_is_fitted_to_it(tmp_path, dataset_root):
    """Images of 128 pixels: crops of 128, from images of 96, 128 or 160."""
    opts = [
        "DATASETS.TRAIN",
        "('shapes_val',)",
        "MODEL.WEIGHTS",
        "",
        "INPUT.MIN_SIZE_TRAIN",
        "(160,)",
    ]
    out = ["--count", "1", "--output", str(tmp_path / "out")]
    main("visualize", ["--config-file", "own/semantic.yaml", *out, *opts])
    assert cv2.imread(str(tmp_path / "out/000000.png")).shape == (128, 256, 3)
