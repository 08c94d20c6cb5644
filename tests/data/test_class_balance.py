"""Class weights by hand-made labels, and against the list released for CamVid."""

from __future__ import annotations

from seg_plugins.data import DatasetError, class_weights
from seg_plugins.data import class_weights as weights_function
from seg_plugins.data.class_balance import count_pixels

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Two labels of 100 pixels: class 0 has 60 and 80, class 1 40 and 0, class 2 none, void 20."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, second = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    first[:4], second[:2] = 1, 255
    records = []
    for name, label in (("a", first), ("b", second)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), label)
        records.append({"file_name": name, "sem_seg_file_name": str(tmp_path / f"{name}.png")})
    DatasetCatalog.register("weights_test", lambda: records)
    MetadataCatalog.get("weights_test").set(stuff_classes=["x", "y", "z"], ignore_label=255)
    yield tmp_path
    DatasetCatalog.remove("weights_test")
    MetadataCatalog.remove("weights_test")


def test_median_frequency_by_hand(dataset):
    # Frequencies: x 140/200, y 40/100, void 20/100; the median of the three is 0.4.
    assert class_weights("weights_test", "median_frequency") == pytest.approx([0.4 / 0.7, 1.0, 1.0])


def test_inverse_by_hand(dataset):
    # The classes that occur have 90 pixels on average.
    assert class_weights("weights_test", "inverse") == pytest.approx([90 / 140, 90 / 40, 1.0])


def test_counts_are_cached_until_a_label_changes(dataset):
    before = count_pixels("weights_test")
    files = list((dataset / "cache").rglob("*.json"))
    assert len(files) == 1
    assert np.array_equal(count_pixels("weights_test"), before)
    cv2.imwrite(str(dataset / "a.png"), np.ones((11, 10), np.uint8))
    assert count_pixels("weights_test")[0].tolist() == [0, 110, 0, 0]


def test_a_value_outside_the_classes_names_the_file(dataset):
    cv2.imwrite(str(dataset / "a.png"), np.full((10, 10), 3, np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png: the value 3 \(100 pixels\) stands"):
        weights_function("weights_test", "inverse")


def test_classes_without_a_pixel_are_named(dataset, caplog):
    class_weights("weights_test", "inverse")
    assert "no pixel of 1 classes, whose weight is 1: z" in caplog.text
    for name in ("a", "b"):
        cv2.imwrite(str(dataset / f"{name}.png"), np.full((10, 10), 255, np.uint8))
    with pytest.raises(DatasetError, match="no pixel of its labels has a class"):
        class_weights("weights_test", "median_frequency")


def test_a_damaged_cache_is_counted_anew(dataset):
    before = count_pixels("weights_test")
    (file,) = (dataset / "cache").rglob("*.json")
    file.write_text("[[1, 2")
    assert np.array_equal(count_pixels("weights_test"), before)
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_unknown_scheme_lists_the_known(dataset):
    with pytest.raises(ValueError, match="median_frequency, inverse, published"):
        class_weights("weights_test", "median")
    with pytest.raises(ValueError, match="no published class weights"):
        class_weights("weights_test", "published")


def test_camvid_comes_near_the_released_list(shared_data, monkeypatch, tmp_path):
    """Within 12% of SegNet's list but for SignSymbol, which the release has 2.5 times as high."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(shared_data))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counted = np.array(class_weights("camvid_train", "median_frequency"))
    ratio = counted / class_weights("camvid_train", "published")
    sign = MetadataCatalog.get("camvid_train").stuff_classes.index("SignSymbol")
    assert counted[sign] == pytest.approx(3.85, abs=0.4)
    assert np.abs(np.delete(ratio, sign) - 1).max() < 0.12
