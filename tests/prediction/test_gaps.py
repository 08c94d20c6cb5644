"""Pixels without data: declared ones are filled and left out, others are errors."""

from __future__ import annotations

import csv
import shlex

from seg_plugins import get_cfg
from seg_plugins.data import DatasetError
from seg_plugins.io.gaps import filled, find_gaps
from seg_plugins.prediction import Prediction
from seg_plugins.prediction.inputs import Preparation, Source
from seg_plugins.prediction.labels import Labels
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, run
from seg_plugins.prediction.windows import WindowGrid

import numpy as np
import pytest
import torch
from PIL import Image
from stubs import PANOPTIC, SEMANTIC, RedChannel, instances, panoptic, predictor, stripes

THINGS = Labels(things=PANOPTIC.things)
HOLE = np.zeros((12, 20), bool)
HOLE[:4, :5] = True


def test_a_pixel_lacks_data_where_a_channel_does():
    pixels = np.ones((2, 3, 2), np.float32)
    pixels[0, 1, 0] = pixels[1, 2] = np.nan
    gaps = find_gaps(pixels, np.nan, "a.tif")
    assert np.argwhere(gaps).tolist() == [[0, 1], [1, 2]]
    assert find_gaps(pixels[:, :1], np.nan, "a.tif") is None


def test_of_eight_bits_it_lacks_data_where_all_channels_do():
    pixels = np.zeros((1, 3, 3), np.uint8)
    pixels[0, 0, 0] = pixels[0, 1] = 7  # red, grey, nothing
    assert find_gaps(pixels, 0.0, "a.tif").tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    ("dtype", "value", "declared"),
    [("float32", -3.4e38, -3.4e38), ("float32", -np.inf, np.finfo("float64").min),
     ("int16", -9999, -9999.0), ("float32", -9999, -9999.0)],
)  # fmt: skip
def test_the_declared_value_is_found_in_the_images_own_type(dtype, value, declared):
    pixels = np.ones((1, 2, 1), dtype)
    pixels[0, 1] = value
    assert find_gaps(pixels, declared, "a.tif").tolist() == [[False, True]]
    if dtype == "int16":
        assert find_gaps(pixels, -32769.0, "a.tif") is None  # no such value can be stored


def test_gaps_take_the_mean_color():
    pixels = np.full((1, 2, 2), 9, np.uint8)
    gaps = np.array([[False, True]])
    assert filled(pixels, gaps, [100.6, 300.0]).tolist() == [[[9, 9], [101, 255]]]
    assert filled(pixels, gaps, [1.0, 2.0, 6.0]).tolist() == [[[9, 9], [3, 3]]]
    assert pixels.max() == 9


@pytest.mark.parametrize(
    ("name", "nodata", "fix"),
    [("a.npy", None, r"numpy\.nan_to_num"),
     ("a.tif", -9999.0, "declared for no data is -9999: store that there")],
)  # fmt: skip
def test_nan_that_is_not_declared_is_counted(name, nodata, fix):
    pixels = np.ones((3, 4, 2), np.float32)
    pixels[0, 0], pixels[2, 1, 1] = np.nan, np.inf
    with pytest.raises(DatasetError, match=rf"{name}: 2 of 12 pixels are NaN .*{fix}"):
        find_gaps(pixels, nodata, name)


def test_an_image_without_data_is_an_error():
    with pytest.raises(DatasetError, match=r"a\.tif: not a pixel holds data"):
        find_gaps(np.zeros((2, 2, 1), np.uint8), 0.0, "a.tif")


def test_nan_is_an_error_in_files_arrays_and_pillow_images(tmp_path):
    values = np.ones((3, 4), np.float32)
    values[1, 1] = np.nan
    np.save(tmp_path / "a.npy", values)
    Image.fromarray(values).save(tmp_path / "a.tif")
    predict = predictor(RedChannel(), image_format="raw")
    for image in (tmp_path / "a.npy", tmp_path / "a.tif", values, Image.fromarray(values)):
        with pytest.raises(DatasetError, match="1 of 12 pixels are NaN"):
            predict(image)


def write(path, image, nodata):
    rasterio = pytest.importorskip("rasterio")
    with rasterio.open(path, "w", driver="GTiff", count=3, height=12, width=20,
                       dtype=image.dtype, nodata=nodata) as raster:  # fmt: skip
        raster.write(image.transpose(2, 0, 1))
    return path


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
@pytest.mark.parametrize(
    ("image_format", "dtype", "nodata"),
    [("raw", "float32", np.nan), ("raw", "int16", -9999), ("BGR", "uint8", 255)],
)
def test_a_small_tiff_with_gaps_gives_the_ignore_label_there(tmp_path, image_format, dtype, nodata):
    image = stripes().astype(dtype)
    image[HOLE] = nodata
    path = write(tmp_path / "a.tif", image, nodata)
    seen = []

    class Seeing(RedChannel):
        def forward(self, samples):
            seen.append(samples[0]["image"])
            return super().forward(samples)

    channel = 0 if image_format == "raw" else 2
    predict = predictor(Seeing(channel=channel), image_format=image_format)
    whole = predict(stripes().astype(dtype)).semantic
    for given in (path, Image.open(path) if dtype == "uint8" else path):
        found = predict(given)
        assert (found.semantic[HOLE] == 255).all()
        assert np.array_equal(found.semantic[~HOLE], whole[~HOLE])
        mean = torch.tensor(get_cfg().MODEL.PIXEL_MEAN)
        assert torch.allclose(seen[-1].float()[:, 0, 0], mean, atol=0.5)
        assert sum(region.area for region in found.regions) == (~HOLE).sum()


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")
def test_the_command_in_the_message_helps(tmp_path):
    rio = pytest.importorskip("rasterio.rio.main")
    testing = pytest.importorskip("click.testing")  # rasterio's own command line is made of it
    image = stripes().astype(np.float32)
    image[HOLE] = np.nan
    path = write(tmp_path / "a.tif", image, None)
    preparation = Preparation(predictor_config("raw"))
    with pytest.raises(DatasetError, match=r"20 of 240 pixels are NaN") as caught:
        preparation.read(path)
    command = str(caught.value).split("declare NaN with ")[1].split(" (pip")[0]
    program, *arguments = shlex.split(command)
    assert program == "rio"
    assert testing.CliRunner().invoke(rio.main_group, arguments).exit_code == 0
    assert np.array_equal(preparation.read(path).gaps, HOLE)


def predictor_config(image_format):
    cfg = get_cfg()
    cfg.INPUT.FORMAT, cfg.INPUT.MIN_SIZE_TEST = image_format, 0
    return cfg


def test_segments_and_instances_leave_gaps_out():
    image = stripes()
    gaps = np.zeros((12, 20), bool)
    gaps[2:6, 2:6] = True  # all of one instance, a corner of the other
    found = Prediction.from_output({"instances": instances()}, image, THINGS, 0.5, gaps=gaps)
    assert [region.area for region in found.regions] == [32]
    assert not (found.masks & gaps).any()
    output = {"panoptic_seg": panoptic(), "instances": instances()}
    found = Prediction.from_output(output, image, PANOPTIC, 0.5, gaps=gaps)
    assert (found.semantic[gaps] == 255).all()
    assert (found.panoptic[0][gaps] == 0).all()
    assert not (found.color_mask()[gaps]).any()


def test_a_model_that_gives_nothing_to_draw_is_named():
    with pytest.raises(ValueError, match="the model gives proposals for an image; pictures are"):
        Prediction.from_output({"proposals": None}, stripes(), SEMANTIC, 0.5)


@pytest.mark.parametrize("windows", [False, True])
@pytest.mark.parametrize("system", ["classes", "segments"])
def test_the_statistics_say_how_much_has_no_data(tmp_path, windows, system):
    pytest.importorskip("rasterio")
    from test_rasters import write

    pixels = np.full((3, 150, 210), 40, np.uint8)
    pixels[:, 30:130, 50:110] = 7
    write(tmp_path / "a.tif", pixels, nodata=7)
    labels = SEMANTIC if system == "classes" else PANOPTIC
    model = predictor(RedChannel() if system == "classes" else Skies(), labels)
    options = RunOptions(
        OutputOptions(("mask",)), WindowGrid(64, 16, 4), window_pixels=0 if windows else 10**6
    )
    source = Source(tmp_path / "a.tif", "a", "a.tif")
    assert run(model, [source], tmp_path / "out", options).failed == []
    rows = list(csv.reader((tmp_path / "out/statistics.csv").open(newline="")))
    assert rows[1:] == [
        ["a.tif", "sky", str(150 * 210 - 6000), f"{1 - 6000 / 31500:.6f}", "1", ""],
        ["a.tif", "(no data)", "6000", f"{6000 / 31500:.6f}", "", ""],
    ]


class Skies(torch.nn.Module):
    """Sky everywhere, as a panoptic system."""

    alignment = 1

    def forward(self, samples):
        sky = {"id": 1, "isthing": False, "category_id": 2}
        sizes = [sample["image"].shape[1:] for sample in samples]
        return [
            {
                "panoptic_seg": (torch.ones(size, dtype=torch.int32), [sky]),
                "instances": nothing(size),
            }
            for size in sizes
        ]


def nothing(size):
    return instances(*size)[:0]
