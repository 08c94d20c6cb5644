"""Objects as GeoJSON, labelme files, numbers and tables."""

from __future__ import annotations

import csv
import json

from seg_plugins.data.datasets.class_table import ClassTable
from seg_plugins.data.datasets.labelme import Labelme
from seg_plugins.io.masks import to_bitmask
from seg_plugins.ops.run_length import RunLengthMasks
from seg_plugins.prediction.errors import PredictionError
from seg_plugins.prediction.image_result import ImageResult
from seg_plugins.prediction.inputs import Source
from seg_plugins.prediction.measures import measures, perimeter
from seg_plugins.prediction.objects import object_map, object_regions
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.place import Place, place_of
from seg_plugins.prediction.prediction import Prediction
from seg_plugins.prediction.run import RunOptions, run
from seg_plugins.prediction.vectors import features, geojson, labelme, write_geopackage

import numpy as np
import pytest
import tifffile
from PIL import Image
from stubs import PANOPTIC, SEMANTIC, Fixed, RedChannel, instances, panoptic, predictor, stripes

SHAPE = (12, 20)


def semantic_result():
    """Two people that touch at a corner, one apart, on sky."""
    ids = np.zeros(SHAPE, np.uint8)
    ids[2:4, 2:4], ids[4:6, 4:6], ids[8:11, 10:13] = 2, 2, 2
    return ImageResult(np.zeros((*SHAPE, 3), np.uint8), SEMANTIC, semantic=ids)


def as_geojson(result, place):
    return json.loads(b"".join(geojson(features(object_regions(result), place), place)))


def ring():
    """A ring of 8 pixels around one, and a dot, in class person."""
    ids = np.full(SHAPE, 255, np.uint8)
    ids[3:6, 5:8] = 2
    ids[4, 6] = 255
    ids[9, 15] = 2
    return ImageResult(np.zeros((*SHAPE, 3), np.uint8), SEMANTIC, semantic=ids)


def test_the_objects_of_a_semantic_system_are_connected_pieces():
    regions = object_regions(semantic_result())
    found = [(r.label.name, r.area, r.box) for r in regions]
    # Sky has one piece; the corner joins two squares.
    assert found == [("sky", 223, [0, 0, 20, 12]), ("person", 8, [2, 2, 4, 4]),
                     ("person", 9, [10, 8, 3, 3])]  # fmt: skip
    numbers = object_map(regions, *SHAPE)
    assert numbers.dtype == np.uint8
    assert numbers[2, 2] == numbers[5, 5] == 2
    assert numbers[9, 11] == 3
    assert numbers[0, 0] == 1


def test_the_objects_of_the_others_are_what_they_find():
    image = np.zeros((*SHAPE, 3), np.uint8)
    found = Prediction.from_output({"instances": instances()}, image, PANOPTIC, 0.5)
    assert [r.score for r in object_regions(found)] == pytest.approx([0.9, 0.6])
    assert np.array_equal(object_map(object_regions(found), *SHAPE), found.id_mask())
    found = Prediction.from_output({"panoptic_seg": panoptic()}, image, PANOPTIC, 0.5)
    assert {r.label.name for r in object_regions(found)} == {"person"}


def test_geojson_keeps_holes_and_map_units():
    affine = pytest.importorskip("affine")
    rasterio = pytest.importorskip("rasterio")
    [loop, dot] = as_geojson(ring(), Place())["features"]
    assert loop["geometry"]["type"] == "Polygon"
    outer, hole = loop["geometry"]["coordinates"]
    assert sorted(map(tuple, outer[:-1])) == [(5, 3), (5, 6), (8, 3), (8, 6)]
    assert sorted(map(tuple, hole[:-1])) == [(6, 4), (6, 5), (7, 4), (7, 5)]
    assert dot["properties"] == {"id": 2, "class": "person", "category_id": 2, "area": 1}
    place = Place(affine.Affine(0.5, 0, 400, 0, -0.5, 900), rasterio.crs.CRS.from_epsg(32633))
    content = as_geojson(ring(), place)
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    corners = content["features"][1]["geometry"]["coordinates"][0][:-1]
    # Column 15 and row 9: 400 + 7.5, 900 - 4.5.
    assert sorted(map(tuple, corners)) == [(407.5, 895), (407.5, 895.5), (408, 895), (408, 895.5)]


def test_geojson_names_the_authority_of_the_coordinates():
    rasterio = pytest.importorskip("rasterio")
    affine = pytest.importorskip("affine")
    albers = rasterio.crs.CRS.from_string("ESRI:102003")
    content = as_geojson(ring(), Place(affine.Affine.identity(), albers))
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:ESRI::102003"
    own = rasterio.crs.CRS.from_string("+proj=tmerc +lat_0=1.5 +lon_0=33.25 +k=0.77 +x_0=5")
    with pytest.raises(PredictionError, match="by its code, and that of the image has none"):
        as_geojson(ring(), Place(affine.Affine.identity(), own))


def test_parts_of_one_object_are_one_feature():
    pytest.importorskip("rasterio")
    [sky, pair, square] = as_geojson(semantic_result(), Place())["features"]
    assert pair["geometry"]["type"] == "MultiPolygon"
    assert len(pair["geometry"]["coordinates"]) == 2
    assert (sky["geometry"]["type"], square["geometry"]["type"]) == ("Polygon", "Polygon")


def test_labelme_files_are_read_back_as_they_were(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(tmp_path / "images" / "a.png")
    regions = object_regions(ring())
    (tmp_path / "labels" / "a.json").write_bytes(labelme(regions, "photos/a.png", *SHAPE))
    [record] = Labelme("labels", "images").records(tmp_path, ClassTable.of_names(("sky", "person")))
    for annotation, region in zip(record["annotations"], regions, strict=True):
        assert annotation["category_id"] == 1
        assert np.array_equal(to_bitmask(annotation["segmentation"], *SHAPE), region.bitmask)


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (np.ones((3, 3), bool), 8.0),  # eight steps along the centres of the border
        (np.ones((4, 6), bool), 16.0),
        (np.ones((1, 1), bool), 0.0),
        (np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool), 4 * np.sqrt(2)),
    ],
)
def test_perimeters_by_hand(mask, expected):
    assert perimeter(mask) == pytest.approx(expected)


def test_the_table_has_pixels_units_and_brightness():
    values = np.arange(240, dtype=np.float32).reshape(12, 20, 1)
    place = Place(size=(0.5, 0.5), unit="um")
    rows = list(
        csv.DictReader(measures(object_regions(ring()), values, place).decode().splitlines())
    )
    assert [row["object"] for row in rows] == ["1", "2"]
    loop = rows[0]
    assert (loop["x"], loop["y"], loop["area_px"], loop["area"]) == ("6.00", "4.00", "8", "2")
    assert float(loop["diameter_px"]) == pytest.approx(np.sqrt(32 / np.pi), abs=1e-3)
    assert float(loop["diameter"]) == pytest.approx(np.sqrt(32 / np.pi) / 2, rel=1e-4)
    assert loop["unit"] == "um"
    assert float(loop["mean_1"]) == 86  # of 4 x 20 + 6, around which the ring lies
    assert float(rows[1]["mean_1"]) == 195
    flat = Place(size=(0.5, 0.25), unit="um")
    [row, _] = csv.DictReader(measures(object_regions(ring()), values, flat).decode().splitlines())
    assert (row["area"], row["perimeter"], row["diameter"]) == ("1", "", "")


def test_what_files_say_of_their_pixels(tmp_path):
    picture = np.zeros((5, 6), np.uint8)
    tifffile.imwrite(
        tmp_path / "a.tif", picture, imagej=True, resolution=(4, 4), metadata={"unit": "um"}
    )
    assert place_of(tmp_path / "a.tif") == Place(size=(0.25, 0.25), unit="um")
    tifffile.imwrite(tmp_path / "b.tif", picture, resolution=(100, 50), resolutionunit="CENTIMETER")
    assert place_of(tmp_path / "b.tif") == Place(size=(0.01, 0.02), unit="cm")
    tifffile.imwrite(tmp_path / "c.tif", picture, resolution=(72, 72), resolutionunit="INCH")
    Image.fromarray(picture).save(tmp_path / "d.png", dpi=(300, 300))
    for name in ("c.tif", "d.png", "missing.tif"):
        assert place_of(tmp_path / name) == Place()
    assert place_of(None) == Place()


def test_a_geotiff_is_measured_on_earth(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from test_rasters import PLACE, write

    place = place_of(write(tmp_path / "a.tif", np.zeros((3, 9, 9), np.uint8), **PLACE))
    assert (place.size, place.unit) == ((0.5, 0.5), "metre")
    assert place.crs == rasterio.crs.CRS.from_epsg(32633)
    degrees = {**PLACE, "crs": "EPSG:4326"}
    place = place_of(write(tmp_path / "b.tif", np.zeros((3, 9, 9), np.uint8), **degrees))
    assert (place.size, place.unit) == (None, "")


def test_a_run_writes_them_all(tmp_path):
    pytest.importorskip("rasterio")
    Image.fromarray(stripes()).save(tmp_path / "a.png")
    options = RunOptions(OutputOptions(("objects", "geojson", "labelme", "measures")))
    source = Source(tmp_path / "a.png", "a", "a.png")
    for model in (predictor(RedChannel()), predictor(Fixed({"instances": instances()}), PANOPTIC)):
        out = tmp_path / type(model.model).__name__
        summary = run(model, [source], out, options)
        assert (summary.done, summary.failed) == (1, [])
        numbers = np.asarray(Image.open(out / "objects/a.png"))
        features = json.loads((out / "geojson/a.geojson").read_text())["features"]
        table = list(csv.DictReader((out / "measures/a.csv").read_text().splitlines()))
        assert len(features) == len(table) == numbers.max()
        assert json.loads((out / "labelme/a.json").read_text())["imagePath"] == "a.png"
        assert run(model, [source], out, options).skipped == 1


def test_an_instance_without_a_pixel_is_no_object(tmp_path):
    pytest.importorskip("rasterio")
    found = instances()
    masks = found.pred_masks.to_bitmasks()
    masks[1] = 0
    found.pred_masks = RunLengthMasks.from_bitmasks(masks)
    Image.fromarray(stripes()).save(tmp_path / "a.png")
    options = RunOptions(OutputOptions(("objects", "geojson", "labelme", "measures")))
    model = predictor(Fixed({"instances": found}), PANOPTIC)
    summary = run(model, [Source(tmp_path / "a.png", "a", "a.png")], tmp_path / "out", options)
    assert (summary.done, summary.failed) == (1, [])
    [row] = csv.DictReader((tmp_path / "out/measures/a.csv").read_text().splitlines())
    assert (row["object"], row["area_px"]) == ("1", "16")


def test_a_geopackage_holds_what_the_geojson_does(tmp_path):
    fiona = pytest.importorskip("fiona")
    affine = pytest.importorskip("affine")
    rasterio = pytest.importorskip("rasterio")
    place = Place(affine.Affine(0.5, 0, 400, 0, -0.5, 900), rasterio.crs.CRS.from_epsg(32633))
    for number, result in enumerate((ring(), semantic_result())):
        regions = object_regions(result)
        path = tmp_path / f"{number}.gpkg"
        write_geopackage(path, features(regions, place), place)
        with fiona.open(path, layer="objects") as file:
            assert file.crs.to_epsg() == 32633
            rows = [(dict(row.properties), row.geometry.__geo_interface__) for row in file]
        wanted = as_geojson(result, place)["features"]
        assert len(rows) == len(wanted)
        for (values, shape), one in zip(rows, wanted, strict=True):
            assert values == {"score": None, **one["properties"]}
            parts = one["geometry"]["coordinates"]
            parts = [parts] if one["geometry"]["type"] == "Polygon" else parts
            assert json.loads(json.dumps(shape["coordinates"])) == parts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.gpkg", "1.gpkg"]


def test_a_geopackage_without_its_writer_names_the_way_out(monkeypatch):
    monkeypatch.setattr(
        "seg_plugins.prediction.vectors.importlib.util.find_spec", lambda name: None
    )
    with pytest.raises(PredictionError, match=r"fiona.*--save geojson and ogr2ogr -f GPKG"):
        OutputOptions(("geopackage",)).check(SEMANTIC)
