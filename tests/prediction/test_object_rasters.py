"""Instances and panoptic segments of rasters: by windows what the whole image gives."""

from __future__ import annotations

import json

from seg_plugins.data import DatasetError
from seg_plugins.io.masks import to_bitmask
from seg_plugins.ops.run_length import RunLengthMasks
from seg_plugins.prediction.inputs import Source
from seg_plugins.prediction.labels import Labels
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.rasters import predict_raster
from seg_plugins.prediction.run import RunOptions, run
from seg_plugins.prediction.windows import WindowGrid

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Instances
from stubs import DOG, GRASS, PANOPTIC, PERSON, SKY, predictor
from test_rasters import PLACE, read, write
from torch import nn

pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
GRID = WindowGrid(128, 48, 8)
THINGS = Labels(things=(PERSON, DOG))


class Blobs(nn.Module):
    """Each connected piece of bright red is a person, of bright green a dog; the score is blue."""

    alignment = 1

    def __init__(self, panoptic: bool = False) -> None:
        super().__init__()
        self.panoptic = panoptic

    def forward(self, samples):
        return [self.one(sample["image"].numpy()) for sample in samples]  # BGR

    def one(self, image):
        masks, scores, classes = [], [], []
        for class_id, channel in ((0, 2), (1, 1)):
            count, pieces = cv2.connectedComponents((image[channel] > 128).astype(np.uint8))
            for i in range(1, count):
                masks.append(pieces == i)
                scores.append(image[0][pieces == i].max() / 255)
                classes.append(class_id)
        size = image.shape[1:]
        found = Instances(size)
        found.scores = torch.tensor(scores, dtype=torch.float32)
        found.pred_classes = torch.tensor(classes, dtype=torch.int64)
        stacked = np.stack(masks) if masks else np.zeros((0, *size), bool)
        found.pred_masks = RunLengthMasks.from_bitmasks(stacked)
        found.pred_boxes = BitMasks(torch.from_numpy(stacked)).get_bounding_boxes()
        if not self.panoptic:
            return {"instances": found}
        ids = np.where(image[0] > 128, 1, 2).astype(np.int32)  # sky and grass
        segments = [{"id": 1, "isthing": False, "category_id": 2}]
        segments.append({"id": 2, "isthing": False, "category_id": 3})
        for i, (mask, class_id) in enumerate(zip(masks, classes, strict=True), 3):
            ids[mask] = i
            segments.append(
                {"id": i, "isthing": True, "category_id": class_id, "score": scores[i - 3]}
            )
        return {"panoptic_seg": (torch.from_numpy(ids), segments)}


def scene(side, count, longest=90):
    """(3, side, side) RGB with up to `count` discs, bars and hooks that do not touch."""
    rng = np.random.default_rng(0)
    reach = longest + 8
    image = np.zeros((side + 2 * reach, side + 2 * reach, 3), np.uint8)
    taken = np.zeros(image.shape[:2], np.uint8)
    inside = np.zeros_like(taken)
    inside[reach:-reach, reach:-reach] = 1
    placed = 0
    for _ in range(40 * count):
        shape = np.zeros((2 * reach, 2 * reach), np.uint8)
        size, angle = int(rng.integers(3, 12)), rng.uniform(0, 2 * np.pi)
        dx, dy = (rng.integers(10, longest) * np.array([np.cos(angle), np.sin(angle)])).astype(int)
        kind = rng.integers(3)
        if kind == 0:
            cv2.circle(shape, (reach, reach), size, 1, -1)
        for end in ((dx, dy), (-dy, dx))[:kind]:
            cv2.line(shape, (reach, reach), (reach + end[0], reach + end[1]), 1, size // 3 + 2)
        y, x = rng.integers(0, side, 2)
        place = np.s_[y : y + 2 * reach, x : x + 2 * reach]
        shape &= inside[place]
        if (shape & taken[place]).any() or cv2.connectedComponents(shape)[0] != 2:
            continue
        taken[place] |= cv2.dilate(shape, np.ones((7, 7), np.uint8))
        color = [0, 0, rng.integers(130, 255)]
        color[rng.integers(2)] = 255
        image[place][shape > 0] = color
        placed += 1
        if placed == count:
            break
    return image[reach:-reach, reach:-reach].transpose(2, 0, 1), placed


def truth(pixels):
    """(class, box, area) of each object, from the whole picture."""
    found = []
    for class_id, channel in ((0, 0), (1, 1)):
        count, _, stats, _ = cv2.connectedComponentsWithStats(
            (pixels[channel] > 128).astype(np.uint8)
        )
        found += [(class_id, *map(int, stats[i])) for i in range(1, count)]
    return sorted(found)


def listed(regions):
    classes = {"person": 0, "dog": 1}
    return sorted(
        (classes[r["class"]], *map(int, r["bbox"]), r["area"]) for r in regions if r["isthing"]
    )


def test_no_object_of_a_thousand_is_cut_in_two(tmp_path):
    pixels, placed = scene(1600, 1000)
    assert placed == 1000
    path = write(tmp_path / "a.tif", pixels)
    found = predict_raster(
        predictor(Blobs(), THINGS), path, tmp_path, "a", OutputOptions(("mask", "json")), GRID
    )
    regions = found["regions"]
    assert listed(regions) == truth(pixels)
    assert [r["score"] for r in regions] == sorted((r["score"] for r in regions), reverse=True)
    assert [r["id"] for r in regions] == list(range(1, 1001))
    mask = read(tmp_path / "mask/a.tif")[0][0]
    assert mask.dtype == np.uint16
    for region in regions[::50]:
        drawn = to_bitmask(region["segmentation"], 1600, 1600)
        assert np.array_equal(mask == region["id"], drawn)
    # Objects do not overlap here: each keeps all its pixels under a number of its own.
    assert np.bincount(mask.ravel())[1:].tolist() == [r["area"] for r in regions]


def test_windows_write_what_the_whole_picture_gives(tmp_path):
    pixels, _ = scene(300, 40)
    path = write(tmp_path / "a.tif", pixels, **PLACE)
    model = predictor(Blobs(), THINGS)
    options = OutputOptions(("mask", "color", "overlay", "json", "geojson"))
    found = predict_raster(model, path, tmp_path, "a", options, GRID)
    assert all(file.is_file() for file in found["files"])
    whole = model(path)
    shapes = json.loads((tmp_path / "geojson/a.geojson").read_text())["features"]
    assert len(shapes) == len(whole.regions)
    for shape, region in zip(shapes, found["regions"], strict=True):
        x, y, width, height = region["bbox"]
        parts = shape["geometry"]["coordinates"]
        parts = [parts] if shape["geometry"]["type"] == "Polygon" else parts
        corners = np.concatenate([np.array(part[0]) for part in parts])
        assert corners.min(axis=0).tolist() == [400_000 + x / 2, 5_800_000 - (y + height) / 2]
        assert corners.max(axis=0).tolist() == [400_000 + (x + width) / 2, 5_800_000 - y / 2]
    mask, raster = read(tmp_path / "mask/a.tif")
    assert raster.crs.to_epsg() == 32633
    assert np.array_equal(mask[0] > 0, whole.id_mask() > 0)
    # Equal scores may come in another order: one number stands for one object all the same.
    pairs = np.unique(np.stack([mask[0].ravel(), whole.id_mask().ravel()]), axis=1)
    assert pairs.shape[1] == len(whole.regions) + 1
    overlay = read(tmp_path / "overlay/a.tif")[0].transpose(1, 2, 0)
    bare = mask[0] == 0
    assert np.array_equal(overlay[bare], pixels.transpose(1, 2, 0)[bare])


def test_panoptic_rasters_have_classes_and_objects(tmp_path):
    pixels, _ = scene(300, 40)
    pixels[2, :, 150:][(pixels[:2, :, 150:] == 0).all(axis=0)] = 200  # sky on the right
    path = write(tmp_path / "a.tif", pixels)
    model = predictor(Blobs(panoptic=True), PANOPTIC)
    found = predict_raster(
        model, path, tmp_path, "a", OutputOptions(("mask", "overlay", "color", "objects")), GRID
    )
    numbers = read(tmp_path / "objects/a.tif")[0][0]
    assert numbers.max() == len(truth(pixels))
    assert np.array_equal(numbers > 0, (pixels[:2] > 128).any(axis=0))
    whole = model(path)
    assert np.array_equal(read(tmp_path / "mask/a.tif")[0][0], whole.semantic)
    assert listed(found["regions"]) == truth(pixels)
    areas = {r["class"]: r["area"] for r in found["regions"] if not r["isthing"]}
    assert areas == {
        label.name: int((whole.semantic == i).sum()) for i, label in ((2, SKY), (3, GRASS))
    }


def test_pixels_without_data_belong_to_no_object(tmp_path):
    pixels = np.full((3, 100, 150), 10, np.uint8)
    pixels[0, 20:40, 20:140] = 255
    pixels[:, 30:33, 60:70] = 0
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    options = OutputOptions(("mask", "json"))
    # Filled with the mean colour, which is no red.
    [region] = predict_raster(
        predictor(Blobs(), THINGS, min_score=0), path, tmp_path, "a", options, WindowGrid(64, 24, 4)
    )["regions"]
    assert region["area"] == 20 * 120 - 30
    assert (read(tmp_path / "mask/a.tif")[0][0][30:33, 60:70] == 0).all()
    path = write(tmp_path / "b.tif", np.zeros((3, 80, 90), np.uint8), nodata=0)
    with pytest.raises(DatasetError, match=r"b\.tif: not a pixel holds data"):
        predict_raster(predictor(Blobs(), THINGS), path, tmp_path, "b", options, GRID)
    assert not list((tmp_path / "mask").glob("b*"))


def test_a_run_keeps_the_objects_of_rasters_for_coco(tmp_path):
    pixels, _ = scene(260, 20)
    path = write(tmp_path / "a.tif", pixels)
    options = RunOptions(OutputOptions(("json", "mask")), GRID, window_pixels=0)
    source = Source(path, "a", "a.tif")
    for _ in range(2):
        summary = run(predictor(Blobs(), THINGS), [source], tmp_path / "out", options)
    assert (summary.done, summary.skipped, summary.failed) == (0, 1, [])
    found = json.loads((tmp_path / "out/instances.json").read_text())["annotations"]
    assert len(found) == len(truth(pixels))
    union = sum(to_bitmask(one["segmentation"], 260, 260).astype(int) for one in found)
    assert np.array_equal(union, (pixels[:2] > 128).any(axis=0))
