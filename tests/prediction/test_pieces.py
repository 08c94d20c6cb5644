"""Connected pieces of the classes of a raster: those of the whole map, however it is cut."""

from __future__ import annotations

import json
from dataclasses import replace

from seg_plugins.io.masks import to_bitmask
from seg_plugins.prediction import pieces
from seg_plugins.prediction import runs as mask_runs
from seg_plugins.prediction.inputs import Source
from seg_plugins.prediction.labels import Label, Labels
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.pieces import find_pieces
from seg_plugins.prediction.run import RunOptions, run
from seg_plugins.prediction.spool import MapSpool

import numpy as np
import pytest
from scipy import ndimage
from stubs import SEMANTIC, RedChannel, predictor
from test_rasters import GRID, read, scene, write

CORNERS = np.ones((3, 3), int)
LABELS = Labels(stuff=tuple(Label(name, (0, 0, 0), i, False)
                            for i, name in enumerate(("background", "road", "roof"))))  # fmt: skip


def found_in(values, folder, labels=LABELS):
    with MapSpool(folder, *values.shape, np.uint8) as spool:
        spool.write(values, 0, 0)
        return list(find_pieces(spool, *values.shape, labels))


def as_set(found):
    return {(one.class_id, one.runs.tobytes()) for one in found}


def of_whole_map(values, classes):
    """Each piece by an independent labelling of the map at once."""
    expected = set()
    for k in classes:
        numbers, count = ndimage.label(values == k, CORNERS)
        for number in range(1, count + 1):
            expected.add((k, mask_runs.from_bitmap(numbers == number, 0, 0).tobytes()))
    return expected


def test_by_hand(tmp_path, monkeypatch):
    """A fork whose prongs meet in the last row, a corner that connects, and what is ignored."""
    monkeypatch.setattr(pieces, "_ROWS", 2)
    values = np.array([[1, 0, 1, 0, 2, 255],
                       [1, 0, 1, 0, 0, 2],
                       [1, 0, 1, 0, 2, 0],
                       [1, 1, 1, 0, 1, 2]], np.uint8)  # fmt: skip
    found = found_in(values, tmp_path)
    areas = sorted((one.class_id, mask_runs.area(one.runs)) for one in found)
    assert areas == [(1, 1), (1, 9), (2, 4)]


@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize("seed", range(6))
def test_strips_do_not_show(tmp_path, monkeypatch, rows, seed):
    monkeypatch.setattr(pieces, "_ROWS", rows)
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, rng.integers(1, 40, 2)).astype(np.uint8)
    values[rng.random(values.shape) < 0.1] = 255
    if seed % 2:  # large pieces that wind over many strips
        values = np.repeat(np.repeat(values, 3, 0), 2, 1)
    found = found_in(values, tmp_path)
    assert len(found) == len(as_set(found))
    assert as_set(found) == of_whole_map(values, (1, 2))


def test_the_order_is_that_of_the_rows(tmp_path, monkeypatch):
    """Columns of two classes that end in different strips; those of one strip from the left."""
    monkeypatch.setattr(pieces, "_ROWS", 2)
    values = np.zeros((9, 200), np.uint8)
    for x in range(0, 200, 2):
        values[: 3 + 2 * (x % 3), x] = 1 + x % 4 // 2
    found = found_in(values, tmp_path)
    ends = [(3 + 2 * (x % 3), 1 + x % 4 // 2, x) for x in range(0, 200, 2)]
    assert [int(one.runs[0, 0]) for one in found] == [x for *_, x in sorted(ends)]


def test_a_raster_has_the_pieces_of_the_whole_image(tmp_path):
    pixels, classes = scene()
    source = Source(write(tmp_path / "a.tif", pixels), "a", "a.tif")
    labels = replace(SEMANTIC, stuff=(replace(SEMANTIC.stuff[0], name="void"), *SEMANTIC.stuff[1:]))
    outputs = OutputOptions(("mask", "json", "objects", "geojson"), components=True)
    options = RunOptions(outputs, GRID, window_pixels=0)
    summary = run(predictor(RedChannel(), labels), [source], tmp_path / "out", options)
    assert summary.failed == []
    expected = of_whole_map(classes, (1, 2))
    (objects,), _ = read(tmp_path / "out/objects/a.tif")
    found = json.loads((tmp_path / "out/records/a.json").read_text())["regions"]
    assert len(found) == len(expected) == objects.max() > 20
    names = {"grass": 1, "person": 2}
    shown, written = set(), set()
    for region in found:
        mask = to_bitmask(region["segmentation"], *classes.shape)
        assert region["area"] == mask.sum()
        assert "score" not in region
        shown.add((names[region["class"]], mask_runs.from_bitmap(mask, 0, 0).tobytes()))
        piece = mask_runs.from_bitmap(objects == region["id"], 0, 0)
        written.add((names[region["class"]], piece.tobytes()))
    assert shown == written == expected
    features = json.loads((tmp_path / "out/geojson/a.geojson").read_text())["features"]
    assert [f["properties"]["area"] for f in features] == [r["area"] for r in found]
    assert "score" not in features[0]["properties"]


def test_without_components_the_record_has_the_classes(tmp_path):
    pixels, classes = scene()
    source = Source(write(tmp_path / "a.tif", pixels), "a", "a.tif")
    options = RunOptions(OutputOptions(("objects",)), GRID, window_pixels=0)
    assert not run(predictor(RedChannel()), [source], tmp_path / "out", options).failed
    found = json.loads((tmp_path / "out/records/a.json").read_text())["regions"]
    assert [r["area"] for r in found] == np.bincount(classes.ravel()).tolist()
    (objects,), _ = read(tmp_path / "out/objects/a.tif")
    assert objects.max() == len(of_whole_map(classes, (0, 1, 2)))


def test_json_of_a_raster_needs_components(tmp_path):
    source = Source(write(tmp_path / "a.tif", scene()[0]), "a", "a.tif")
    options = RunOptions(OutputOptions(("json",)), GRID, window_pixels=0)
    (failed,) = run(predictor(RedChannel()), [source], tmp_path / "out", options).failed
    assert "not json. --instances components" in failed[1]
