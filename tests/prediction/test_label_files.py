"""Labels in TIFF, read as Fiji and napari read them, and the values of masks."""

from __future__ import annotations

import json
from dataclasses import replace

from seg_plugins.io.images import read_label
from seg_plugins.io.label_encoding import LabelEncoding
from seg_plugins.prediction.errors import PredictionError
from seg_plugins.prediction.inputs import find_sources
from seg_plugins.prediction.labels import Labels, _stored
from seg_plugins.prediction.mask_values import mask_values
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.prediction import Prediction
from seg_plugins.prediction.rasters import predict_raster
from seg_plugins.prediction.run import RunOptions, run
from seg_plugins.prediction.windows import WindowGrid

import numpy as np
import pytest
import torch
from PIL import Image
from stubs import PANOPTIC, SEMANTIC, Fixed, RedChannel, instances, predictor, stripes

tifffile = pytest.importorskip("tifffile")
pytestmark = pytest.mark.filterwarnings("ignore:Dataset has no geotransform")

IMAGEJ = {"unit": "um", "spacing": 0.5}
TWO = Labels(stuff=SEMANTIC.stuff[:2])


def save(tmp_path, source, save=("mask",), labels=SEMANTIC, model=None, pages="", **options):
    """Predict a file with a model that sees red; the summary."""
    outputs = OutputOptions(save, **options)
    together = options.get("label_files") == "tif"
    sources = find_sources([str(source)], tmp_path / "out", pages, together=together)
    model = model or RedChannel(len(labels.stuff))
    summary = run(predictor(model, labels), sources, tmp_path / "out", RunOptions(outputs))
    assert (summary.failed, summary.done) == ([], 1)
    return summary


def stack(path):
    """Three pages of colour by ImageJ, 0.25 micrometres a pixel; their classes."""
    classes = np.random.default_rng(0).integers(0, 3, (3, 9, 14))
    pixels = np.zeros((3, 9, 14, 3), np.uint8)
    pixels[..., 0] = 40 + 80 * classes
    tifffile.imwrite(
        path, pixels, imagej=True, resolution=(4, 4), metadata={**IMAGEJ, "axes": "ZYXS"}
    )
    return classes


def test_a_stack_of_imagej_has_its_labels_in_one_file(tmp_path):
    classes = stack(tmp_path / "a.tif")
    save(
        tmp_path, tmp_path / "a.tif", ("mask", "objects", "overlay"), pages="all", label_files="tif"
    )
    for kind, kind_of_numbers in (("mask", np.uint8), ("objects", np.uint16)):
        with tifffile.TiffFile(tmp_path / f"out/{kind}/a.tif") as file:
            [series] = file.series
            assert (series.axes, series.shape, series.dtype) == ("ZYX", (3, 9, 14), kind_of_numbers)
            assert file.is_imagej
            kept = file.imagej_metadata
            assert (kept["unit"], kept["spacing"], kept["slices"]) == ("um", 0.5, 3)
            page = file.pages[2]
            assert page.tags["XResolution"].value == (4, 1)
            assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            assert not page.is_tiled  # ImageJ opens none
    assert np.array_equal(tifffile.imread(tmp_path / "out/mask/a.tif"), classes)
    # What is no label stays a file for each page.
    assert len(list((tmp_path / "out/overlay").iterdir())) == 3
    names = [line.split(",")[0] for line in (tmp_path / "out/statistics.csv").open()]
    assert sorted(set(names[1:])) == ["a_page0.tif", "a_page1.tif", "a_page2.tif"]
    sources = find_sources([str(tmp_path / "a.tif")], tmp_path / "out", "all", together=True)
    options = OutputOptions(("mask", "objects", "overlay"), label_files="tif")
    again = run(predictor(RedChannel()), sources, tmp_path / "out", RunOptions(options))
    assert (again.done, again.skipped) == (0, 1)


def test_some_pages_of_a_stack(tmp_path):
    classes = stack(tmp_path / "a.tif")
    save(tmp_path, tmp_path / "a.tif", pages="0,2", label_files="tif")
    with tifffile.TiffFile(tmp_path / "out/mask/a.tif") as file:
        assert file.imagej_metadata["slices"] == file.imagej_metadata["images"] == 2
        assert np.array_equal(file.asarray(), classes[[0, 2]])


def test_a_page_that_cannot_be_predicted_leaves_no_labels(tmp_path):
    stack(tmp_path / "a.tif")
    pixels = tifffile.imread(tmp_path / "a.tif")
    pixels[2, 0, 0] = 255  # of which the stand-in dies
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb")
    sources = find_sources([str(tmp_path / "a.tif")], tmp_path / "out", "all", together=True)
    options = RunOptions(OutputOptions(("mask",), label_files="tif"))
    summary = run(predictor(RedChannel(), batch_size=1), sources, tmp_path / "out", options)
    assert [reason for _, reason in summary.failed] == ["a white pixel"]
    assert list((tmp_path / "out/mask").iterdir()) == []


def test_one_picture_keeps_resolution_and_shows_its_classes(tmp_path):
    image = stripes()
    tifffile.imwrite(
        tmp_path / "a.tif", image, photometric="rgb", resolution=(50, 100),
        resolutionunit="CENTIMETER", description="by hand",
    )  # fmt: skip
    save(tmp_path, tmp_path / "a.tif", label_files="tif")
    with tifffile.TiffFile(tmp_path / "out/mask/a.tif") as file:
        page = file.pages[0]
        assert page.tags["XResolution"].value == (50, 1)
        assert page.tags["YResolution"].value == (100, 1)
        assert page.tags["ResolutionUnit"].value == 3
        assert page.tags["GDAL_NODATA"].value == "255"
        assert (page.colormap[:, 2] >> 8).tolist() == [200, 0, 0]  # person
        assert np.array_equal(page.asarray(), image[..., 0] // 80)
    assert np.array_equal(read_label(str(tmp_path / "out/mask/a.tif")), image[..., 0] // 80)


def test_a_picture_on_earth_stays_there(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from test_rasters import PLACE, read, scene, write

    pixels, classes = scene()
    path = write(tmp_path / "a.tif", pixels[:3], **PLACE)
    save(tmp_path, path, ("mask", "objects"), label_files="tif")
    for kind in ("mask", "objects"):
        found, raster = read(tmp_path / f"out/{kind}/a.tif")
        assert raster.crs == rasterio.crs.CRS.from_epsg(32633)
        assert raster.transform == PLACE["transform"]
        with rasterio.open(tmp_path / f"out/{kind}/a.tif") as file:
            assert file.profile["tiled"]
    found, raster = read(tmp_path / "out/mask/a.tif")
    assert np.array_equal(found[0], classes)
    assert raster.nodata == 255


def test_windows_keep_what_imagej_says(tmp_path):
    pytest.importorskip("rasterio")
    classes = np.random.default_rng(0).integers(0, 3, (70, 90))
    pixels = np.zeros((70, 90, 3), np.uint8)
    pixels[..., 0] = 40 + 80 * classes
    metadata = {"unit": "um", "axes": "YXS", "min": 3.0}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, resolution=(4, 4), metadata=metadata)
    predict_raster(
        predictor(RedChannel()), tmp_path / "a.tif", tmp_path / "out", "a",
        OutputOptions(("mask",)), WindowGrid(64, 16, 4),
    )  # fmt: skip
    with tifffile.TiffFile(tmp_path / "out/mask/a.tif") as file:
        assert file.imagej_metadata["unit"] == "um"
        assert "min" not in file.imagej_metadata
        assert file.pages[0].tags["XResolution"].value == (4, 1)
        assert np.array_equal(file.pages[0].asarray(), classes)


def test_masks_of_two_classes_as_0_and_255(tmp_path):
    image = np.full((6, 8, 3), 40, np.uint8)
    image[2:4, 3:5, 0] = 120
    Image.fromarray(image).save(tmp_path / "a.png")
    save(tmp_path, tmp_path / "a.png", labels=TWO, values="255")
    mask = np.asarray(Image.open(tmp_path / "out/mask/a.png"))
    assert np.array_equal(mask, np.where(image[..., 0] == 120, 255, 0))
    # Instances are something or nothing.
    Image.fromarray(stripes()).save(tmp_path / "b.png")
    model = Fixed({"instances": instances()})
    things = Labels(things=PANOPTIC.things)
    save(tmp_path, tmp_path / "b.png", labels=things, model=model, values="255")
    mask = np.asarray(Image.open(tmp_path / "out/mask/b.png"))
    assert np.unique(mask).tolist() == [0, 255]
    assert (mask == 255).sum() == 48  # 16 + 36 pixels, 4 of both


def test_masks_hold_the_values_of_the_dataset(tmp_path):
    image = stripes()
    Image.fromarray(image).save(tmp_path / "a.png")
    labels = replace(SEMANTIC, stored=(255, 11, 300))
    save(tmp_path, tmp_path / "a.png", labels=labels, values="dataset")
    mask = read_label(str(tmp_path / "out/mask/a.png"))
    assert mask.dtype == np.uint16
    assert np.array_equal(mask, np.array([255, 11, 300])[image[..., 0] // 80])
    values = mask_values(labels, "dataset")
    # 255 is a class: pixels of none need another number.
    assert (values.nothing, values(np.array([[1, 255]], np.uint8)).tolist()) == (
        65535,
        [[11, 65535]],
    )
    assert mask_values(replace(SEMANTIC, stored=(0, 255, 7)), "dataset").nothing == 254
    assert mask_values(PANOPTIC, "dataset").of_class.tolist() == [1, 2, 7, 8]


def test_values_of_datasets_are_those_of_their_encoding():
    names = {"stuff_classes": ["a", "b"]}
    encoding = LabelEncoding(values=((7, 1), (9, 0), (3, 1)))
    assert _stored({**names, "sem_seg_loading_fn": encoding}, 2) == (9, 3)
    assert _stored({**names, "sem_seg_loading_fn": LabelEncoding()}, 2) == ()
    assert _stored(names, 2) == ()
    colours = LabelEncoding(colors=(((1, 2, 3), 0), ((4, 5, 6), 1)))
    assert _stored({**names, "sem_seg_loading_fn": colours}, 2) is None


@pytest.mark.parametrize(("labels", "choice", "reason"), [
    (SEMANTIC, "255", "this model has 3: take --mask-values class"),
    (replace(SEMANTIC, stored=None), "dataset", "hold colours.*--save color"),
    (Labels(things=PANOPTIC.things), "dataset", "finds instances"),
    (replace(SEMANTIC, stored=(1, 1, 2)), "dataset", "several classes have the id 1"),
    (SEMANTIC, "ids", "there are: class, dataset, 255"),
])  # fmt: skip
def test_values_that_cannot_be_had_are_said(labels, choice, reason):
    with pytest.raises(PredictionError, match=reason):
        OutputOptions(values=choice).check(labels)


def with_background():
    """Background above, grass below; and what is drawn of them."""
    labels = Labels(stuff=(replace(SEMANTIC.stuff[0], name="background"), *SEMANTIC.stuff[1:]))
    scores = torch.zeros(3, 12, 20)
    scores[0, :6], scores[1, 6:] = 1, 1
    image = np.full((12, 20, 3), 100, np.uint8)
    return Prediction.from_output({"sem_seg": scores}, image, labels, 0.5), labels


def test_overlays_leave_the_background_clear():
    found, _ = with_background()
    picture = found.draw(with_legend=False)
    assert (picture[:6] == 100).all()
    assert (picture[6:] == [45, 155, 45]).all()  # 0.45 x 100 + 0.55 x (0, 200, 0)
    assert [text.split()[0] for _, text in found.legend(frozenset({"background"}))] == ["grass"]
    assert not (found.draw(with_legend=False, clear=())[:6] == 100).all()
    assert (found.draw(with_legend=False, clear=("Grass",))[6:] == 100).all()
    assert (found.color_mask()[0, 0] == (0, 0, 200)).all()
    with pytest.raises(PredictionError, match=r"no class 'gras'.*Nearest: grass"):
        found.draw(clear=("gras",))


def test_overlays_by_windows_leave_the_background_clear(tmp_path):
    pytest.importorskip("rasterio")
    from test_rasters import read, scene, write

    pixels, classes = scene()
    _, labels = with_background()
    path = write(tmp_path / "a.tif", pixels)
    options = OutputOptions(("overlay", "mask"), values="dataset")
    stored = replace(labels, stored=(4, 9, 2))
    grid = WindowGrid(64, 16, 4)
    predict_raster(predictor(RedChannel(), stored), path, tmp_path / "out", "a", options, grid)
    overlay, _ = read(tmp_path / "out/overlay/a.tif")
    clear = classes == 0
    assert np.array_equal(overlay[:, clear], pixels[:, clear])
    assert (overlay[:, ~clear] != pixels[:, ~clear]).any(axis=0).mean() > 0.9
    with tifffile.TiffFile(tmp_path / "out/mask/a.tif") as file:
        assert np.array_equal(file.asarray(), np.array([4, 9, 2])[classes])
        assert (file.pages[0].colormap[:, 9] >> 8).tolist() == [0, 200, 0]


def test_the_pieces_of_a_class_are_instances_on_demand(tmp_path):
    image = np.full((12, 20, 3), 40, np.uint8)
    image[2:4, 2:4, 0] = image[8:11, 10:13, 0] = 200
    Image.fromarray(image).save(tmp_path / "a.png")
    for components, areas in ((False, [227, 13]), (True, [227, 4, 9])):
        save(tmp_path, tmp_path / "a.png", ("json",), components=components)
        content = json.loads((tmp_path / "out/instances.json").read_bytes())
        assert [one["area"] for one in content["annotations"]] == areas
    with pytest.raises(PredictionError, match="finds things itself: leave it out"):
        OutputOptions(components=True).check(PANOPTIC)
