"""Labels of rasters from polygons: GeoJSON and shapefiles."""

from __future__ import annotations

from seg_plugins.data import DatasetError

import numpy as np
import pytest

rasterio = pytest.importorskip("rasterio")
from raster_scenes import (  # noqa: E402
    PLACE,
    area_of,
    describe,
    records_of,
    scene,
    shown,
    write_polygons,
    write_raster,
    write_scene,
)
from rasterio.features import rasterize  # noqa: E402
from rasterio.warp import transform_geom  # noqa: E402


def random_polygons(number=12):
    """Rings in map units, of which some overlap, and some reach over the raster."""
    rng = np.random.default_rng(3)
    found = []
    for i in range(number):
        centre, angles = rng.uniform([-5, -5], [110, 80]), np.sort(rng.uniform(0, 2 * np.pi, 7))
        ring = centre + rng.uniform(4, 25, (7, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
        points = [[400_000 + x, 5_800_000 - y] for x, y in ring]
        found.append((("field", "tree")[i % 2], [*points, points[0]]))
    return found


def test_labels_from_polygons_are_those_of_rasterize(tmp_path):
    write_scene(tmp_path)
    polygons = random_polygons()
    write_polygons(tmp_path / "a.geojson", polygons)
    ids = {"field": 1, "tree": 2}
    truth = rasterize(
        [({"type": "Polygon", "coordinates": [ring]}, ids[name]) for name, ring in polygons],
        out_shape=(150, 210), transform=PLACE["transform"],
    )  # fmt: skip
    assert np.bincount(truth.ravel()).min() > 500
    records = records_of(describe(tmp_path, labels="a.geojson", outside="ground"))
    for record in records["train"] + records["val"]:
        area = area_of(record)
        assert np.array_equal(shown(record)[1], truth[slice(*area.rows), slice(*area.columns)])


def test_polygons_in_degrees_are_brought_onto_the_raster(tmp_path):
    write_scene(tmp_path)
    ring = [[x, y] for x, y in ((400_010.1, 5_799_990.1), (400_030.1, 5_799_990.1),
                                (400_030.1, 5_799_970.1), (400_010.1, 5_799_990.1))]  # fmt: skip
    known = {"type": "Polygon", "coordinates": [ring]}
    moved = transform_geom("EPSG:32633", "EPSG:4326", known)
    write_polygons(tmp_path / "a.geojson", [("tree", moved["coordinates"][0])], crs=None)
    truth = rasterize([(known, 2)], out_shape=(150, 210), transform=PLACE["transform"])
    records = records_of(describe(tmp_path, labels=["a.geojson"], outside="ignore"))
    for record in records["train"]:
        area = area_of(record)
        part = truth[slice(*area.rows), slice(*area.columns)]
        assert np.array_equal(shown(record)[1], np.where(part == 2, 2, 255))


def test_without_a_place_polygons_are_in_columns_and_rows(tmp_path):
    pixels, _ = scene()
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning):
        write_raster(tmp_path / "a.tif", pixels, crs=None, transform=None)
    square = [[10, 20], [30, 20], [30, 25], [10, 25], [10, 20]]
    write_polygons(tmp_path / "a.geojson", [("tree", square)], crs=None)
    records = records_of(describe(tmp_path, labels="a.geojson", outside="ground"))["train"]
    label = shown(records[0])[1]
    expected = np.zeros(label.shape, bool)
    expected[20:25, 10:30] = True
    assert np.array_equal(label == 2, expected)
    write_polygons(tmp_path / "a.geojson", [("tree", square)])
    with pytest.raises(DatasetError, match=r"a\.tif: .*a\.geojson names a coordinate system, and"):
        records_of(describe(tmp_path, labels="a.geojson", outside="ground"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"outside": None}, "outside is missing"),
        ({"outside": "sea"}, "outside is 'sea'; it should be ignore or one of ground"),
        ({"class_property": "kind"}, r"feature 0 has no property 'kind' \(it has class\)"),
        ({"classes": ["ground", "tree"]}, "feature 0: class 'field' is none of the classes"),
    ],
)
def test_what_polygons_lack_is_said(tmp_path, change, words):
    write_scene(tmp_path)
    write_polygons(tmp_path / "a.geojson", random_polygons())
    with pytest.raises(DatasetError, match=rf"my\.yaml: .*{words}|a\.geojson: .*{words}|{words}"):
        records_of(describe(tmp_path, **{"labels": "a.geojson", "outside": "ground"} | change))


def test_polygons_elsewhere_or_of_another_kind_are_refused(tmp_path):
    write_scene(tmp_path)
    path = describe(tmp_path, labels="a.geojson", outside="ground")
    far = [[0, 0], [1, 0], [1, 1], [0, 0]]
    write_polygons(tmp_path / "a.geojson", [("tree", far)])
    with pytest.raises(DatasetError, match="none of its 1 polygons lies on the raster"):
        records_of(path)
    write_polygons(tmp_path / "a.geojson", random_polygons(), crs=None)
    with pytest.raises(DatasetError, match=r"names no coordinate system, .*degrees"):
        records_of(path)
    write_polygons(tmp_path / "a.geojson", [("tree", far[:3])])
    with pytest.raises(DatasetError, match="feature 0: no valid polygon: a ring needs four"):
        records_of(path)
    write_polygons(tmp_path / "a.geojson", random_polygons(), crs=None)
    content = (tmp_path / "a.geojson").read_text().replace("Polygon", "LineString", 1)
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(DatasetError, match="feature 0: a LineString geometry where a polygon"):
        records_of(path)
    (tmp_path / "a.geojson").write_text("{")
    with pytest.raises(DatasetError, match=r"a\.geojson: not readable as GeoJSON"):
        records_of(path)


def test_a_shapefile_without_its_reader_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr("seg_plugins.io.vectors.importlib.util.find_spec", lambda name: None)
    from seg_plugins.io.vectors import read_features

    with pytest.raises(DatasetError, match=r"a\.shp: .*fiona.*ogr2ogr a\.geojson a\.shp"):
        read_features(str(tmp_path / "a.shp"), "")


def test_what_fiona_gives_of_a_shapefile_is_read(tmp_path, monkeypatch):
    """By a stand-in with fiona's documented interface, where the package is not installed."""
    import contextlib
    import sys
    import types

    from seg_plugins.io.vectors import read_features

    ring = [(400_000 + x, 5_800_000 - y, 7.0) for x, y in ((0, 0), (10, 0), (10, 10))]
    geometry = types.SimpleNamespace(
        __geo_interface__={"type": "Polygon", "coordinates": [[*ring, ring[0]]]}
    )

    @contextlib.contextmanager
    def opened(name):
        feature = {"id": "0", "geometry": geometry, "properties": {"class": "tree"}}
        yield Source([feature])

    class Source(list):
        crs_wkt = PLACE["crs"]

    module = types.ModuleType("fiona")
    module.open, module.errors = opened, types.SimpleNamespace(FionaError=OSError)
    module.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "fiona", module)
    found = read_features(str(tmp_path / "a.shp"), rasterio.crs.CRS.from_epsg(32633).to_wkt())
    assert found.properties == [{"class": "tree"}]
    assert found.bounds.tolist() == [[400_000, 5_799_990, 400_010, 5_800_000]]
