"""GeoTIFFs by windows: their pixels, their place on Earth, and what is wrong with them."""

from __future__ import annotations

import warnings

from seg_plugins.data import DatasetError
from seg_plugins.io.rasters import raster_size
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.rasters import predict_raster
from seg_plugins.prediction.windows import WindowGrid

import numpy as np
import pytest
from PIL import Image
from stubs import RedChannel, predictor
from test_windows import unet

rasterio = pytest.importorskip("rasterio")
from affine import Affine  # noqa: E402
from rasterio.control import GroundControlPoint  # noqa: E402

# Of the pictures that these tests write without a place on Earth.
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
GRID = WindowGrid(64, 16, 4)
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)}


def scene(bands=3, dtype="uint8", height=150, width=210):
    """(bands, H, W): each class of RedChannel in blocks, in the first band."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (bands, height, width)).astype(dtype)
    blocks = rng.integers(0, 3, (height // 7 + 1, width // 7 + 1))
    classes = np.kron(blocks, np.ones((7, 7), int))[:height, :width]
    pixels[0] = 40 + 80 * classes
    return pixels, classes


def write(path, pixels, **more):
    bands, height, width = pixels.shape
    with rasterio.open(
        path, "w", driver="GTiff", count=bands, height=height, width=width, dtype=pixels.dtype,
        **more,
    ) as raster:  # fmt: skip
        raster.write(pixels)
    return path


def read(path):
    with rasterio.open(path) as raster:
        return raster.read(), raster


@pytest.mark.parametrize("layout", [{"tiled": True, "blockxsize": 64, "blockysize": 64,
                                     "compress": "deflate"}, {}])  # fmt: skip
def test_ids_colors_and_overlay_lie_where_the_image_does(tmp_path, layout):
    pixels, classes = scene()
    path = write(tmp_path / "a.tif", pixels, **PLACE, **layout)
    found = predict_raster(
        predictor(RedChannel()), path, tmp_path / "out", "a",
        OutputOptions(("mask", "color", "overlay")), GRID,
    )  # fmt: skip
    mask, raster = read(tmp_path / "out/mask/a.tif")
    assert np.array_equal(mask[0], classes)
    assert mask.dtype == np.uint8
    assert raster.crs.to_epsg() == 32633
    assert raster.transform == PLACE["transform"]
    assert raster.nodata == 255
    assert [r["area"] for r in found["regions"]] == np.bincount(classes.ravel()).tolist()
    colors, raster = read(tmp_path / "out/color/a.tif")
    assert colors[:, classes == 2].T.tolist() == [[200, 0, 0]] * (classes == 2).sum()
    assert raster.crs.to_epsg() == 32633
    overlay, _ = read(tmp_path / "out/overlay/a.tif")
    expected = 0.45 * pixels + 0.55 * colors
    assert np.abs(overlay - expected).max() <= 1


def test_windows_give_the_pixels_of_the_whole_image(tmp_path):
    """A convolutional network from the file to the file, against the same file read at once."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 150, 217)).astype(np.uint8)
    path = write(tmp_path / "a.tif", pixels)
    predict = predictor(unet())
    whole = predict(path).semantic
    assert len(np.unique(whole)) > 1
    grid = WindowGrid(64, 32, 12, predict.model.alignment)
    predict_raster(predict, path, tmp_path, "a", OutputOptions(("mask",)), grid)
    assert np.array_equal(read(tmp_path / "mask/a.tif")[0][0], whole)


def test_the_mask_shows_in_the_classes_colors(tmp_path):
    path = write(tmp_path / "a.tif", scene()[0])
    predict_raster(predictor(RedChannel()), path, tmp_path, "a", OutputOptions(("mask",)), GRID)
    with rasterio.open(tmp_path / "mask/a.tif") as raster:
        assert raster.colormap(1)[2] == (200, 0, 0, 255)
        assert raster.transform.is_identity  # no place is invented


def test_ground_control_points_are_kept(tmp_path):
    points = [GroundControlPoint(0, 0, 10.0, 50.0), GroundControlPoint(0, 200, 10.1, 50.0),
              GroundControlPoint(140, 0, 10.0, 49.9)]  # fmt: skip
    path = write(tmp_path / "a.tif", scene()[0], gcps=points, crs="EPSG:4326")
    predict_raster(predictor(RedChannel()), path, tmp_path, "a", OutputOptions(("mask",)), GRID)
    with rasterio.open(tmp_path / "mask/a.tif") as raster:
        found, crs = raster.gcps
    assert crs.to_epsg() == 4326
    assert [(p.row, p.col, p.x, p.y) for p in found] == [(p.row, p.col, p.x, p.y) for p in points]


def test_pixels_without_data_are_ignored(tmp_path):
    pixels, classes = scene()
    pixels[:, :20] = 0
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    predict_raster(predictor(RedChannel()), path, tmp_path, "a", OutputOptions(("mask",)), GRID)
    mask, _ = read(tmp_path / "mask/a.tif")
    assert (mask[0, :20] == 255).all()
    assert np.array_equal(mask[0, 20:], classes[20:])


def test_sixteen_bits_and_many_bands_go_to_models_that_take_them(tmp_path):
    pixels, classes = scene(bands=5, dtype="uint16")
    path = write(tmp_path / "a.tif", pixels)
    model = predictor(RedChannel(channel=0), image_format="raw")
    predict_raster(model, path, tmp_path, "a", OutputOptions(("mask", "overlay")), GRID)
    assert np.array_equal(read(tmp_path / "mask/a.tif")[0][0], classes)
    assert read(tmp_path / "overlay/a.tif")[0].std() > 10
    with pytest.raises(DatasetError, match=r"uint16 values where INPUT\.FORMAT BGR"):
        predict_raster(predictor(RedChannel()), path, tmp_path, "b", OutputOptions(), GRID)


def test_a_damaged_file_leaves_nothing_behind(tmp_path):
    path = write(tmp_path / "a.tif", scene()[0], compress="deflate", tiled=True, blockxsize=64,
                 blockysize=64)  # fmt: skip
    content = bytearray(path.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.tif: not a readable raster"):
        predict_raster(
            predictor(RedChannel()), path, tmp_path / "out", "a", OutputOptions(("mask",)), GRID
        )
    assert not [file for file in (tmp_path / "out").rglob("*") if file.is_file()]


def test_what_windows_cannot_give_is_said(tmp_path):
    path = write(tmp_path / "a.tif", scene()[0])
    with pytest.raises(
        ValueError,
        match="by windows give overlay, mask, color, objects, geojson, geopackage, not cutout",
    ):
        predict_raster(
            predictor(RedChannel()), path, tmp_path, "a", OutputOptions(("cutout",)), GRID
        )


def test_a_picture_without_a_place_is_written_without_a_warning(tmp_path):
    path = tmp_path / "a.tif"
    Image.fromarray(scene()[0].transpose(1, 2, 0)).save(path)
    model = predictor(RedChannel())
    with warnings.catch_warnings():
        warnings.simplefilter("error", rasterio.errors.NotGeoreferencedWarning)
        predict_raster(model, path, tmp_path, "a", OutputOptions(("mask",)), GRID)
    assert (tmp_path / "mask/a.tif").is_file()


def test_the_size_comes_from_the_header(tmp_path):
    assert raster_size(write(tmp_path / "a.tif", scene()[0])) == 150 * 210
    (tmp_path / "b.tif").write_bytes(b"no picture")
    assert raster_size(tmp_path / "b.tif") == 0


@pytest.mark.parametrize("nodata", [np.nan, -9999.0, float(np.finfo("float32").min)])
def test_gaps_in_float_images_do_not_reach_their_neighbours(tmp_path, nodata):
    """The network sees the mean colour there: far from them it says what it says without them."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (3, 130, 150)).astype(np.float32)
    clean = pixels.copy()
    clean[:, 40:60, 50:90] = np.array([[[103.53]], [[116.28]], [[123.675]]], np.float32)
    pixels[:, 40:60, 50:90] = nodata
    predict = predictor(unet(), image_format="raw")
    options = OutputOptions(("mask", "overlay"))
    for name, values, declared in (("gaps", pixels, nodata), ("clean", clean, None)):
        path = write(tmp_path / f"{name}.tif", values, nodata=declared)
        found = predict_raster(predict, path, tmp_path / "out", name, options, GRID)
    expected, mask = (read(tmp_path / f"out/mask/{n}.tif")[0][0] for n in ("clean", "gaps"))
    hole = np.zeros(mask.shape, bool)
    hole[40:60, 50:90] = True
    assert (mask[hole] == 255).all()
    assert np.array_equal(mask[~hole], expected[~hole])
    assert sum(r["area"] for r in found["regions"]) == mask.size
    assert read(tmp_path / "out/overlay/gaps.tif")[0].std() > 10  # not stretched to -9999


def test_nan_that_is_not_declared_is_refused_before_anything_is_written(tmp_path):
    pixels = np.ones((2, 100, 90), np.float32)
    pixels[0, :7, :3], pixels[1, 99, 89] = np.nan, np.inf
    predict = predictor(RedChannel(channel=0), image_format="raw")
    for nodata, words in ((None, "no value is declared"), (-1.0, "declared for no data is -1")):
        path = write(tmp_path / "a.tif", pixels, nodata=nodata)
        with pytest.raises(DatasetError, match=rf"a\.tif: 22 of 9000 pixels are NaN .*{words}"):
            predict_raster(predict, path, tmp_path / "out", "a", OutputOptions(("mask",)), GRID)
    assert not list((tmp_path / "out").rglob("*.tif"))


def test_a_raster_without_data_is_an_error(tmp_path):
    path = write(tmp_path / "a.tif", np.zeros((3, 80, 90), np.uint8), nodata=0)
    with pytest.raises(DatasetError, match=r"a\.tif: not a pixel holds data"):
        predict_raster(predictor(RedChannel()), path, tmp_path, "a", OutputOptions(("mask",)), GRID)
    assert not list((tmp_path / "mask").iterdir())


def test_a_stack_of_pages_is_refused_by_windows(tmp_path):
    pages = [Image.fromarray(np.zeros((80, 90), np.uint8))] * 3
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(DatasetError, match=r"a\.tif: 3 pages where one picture is expected"):
        predict_raster(
            predictor(RedChannel()), tmp_path / "a.tif", tmp_path, "a", OutputOptions(), GRID
        )
