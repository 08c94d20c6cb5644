"""Stacks and animations, page by page."""

from __future__ import annotations

from seg_plugins.data import DatasetError
from seg_plugins.io.images import page_count, read_image
from seg_plugins.prediction import PredictionError
from seg_plugins.prediction.inputs import chosen_pages, find_sources
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, run

import numpy as np
import pytest
import tifffile
from PIL import Image
from stubs import RedChannel, predictor

REDS = (40, 120, 200)  # classes 0, 1, 2 of RedChannel


def pages(count=3):
    images = []
    for red in REDS[:count]:
        image = np.zeros((8, 10, 3), np.uint8)
        image[..., 0] = red
        images.append(Image.fromarray(image))
    return images


def stack(path, **more):
    first, *others = pages()
    first.save(path, save_all=True, append_images=others, **more)
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.webp", "a.png"])
def test_each_page_is_predicted(tmp_path, name):
    path = stack(tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert page_count(str(path)) == 3
    out = tmp_path / "out"
    sources = find_sources([str(path)], out, "all")
    assert [s.name for s in sources] == ["a_page0", "a_page1", "a_page2"]
    assert sources[2].file_name == f"a_page2{path.suffix}"
    summary = run(predictor(RedChannel()), sources, out, RunOptions(OutputOptions(("mask",))))
    assert (summary.done, summary.failed) == (3, [])
    for page in range(3):
        mask = np.asarray(Image.open(out / f"mask/a_page{page}.png"))
        assert np.unique(mask).tolist() == [page]
    with pytest.raises(DatasetError, match=r"3 pages where one picture is expected.*--pages all"):
        read_image(str(path))


def test_single_pictures_stay_as_they_are(tmp_path):
    pages()[0].save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    found = find_sources([str(tmp_path)], tmp_path / "out", "all")
    assert [(s.name, s.page) for s in found] == [("b", None), ("c", None)]


def test_a_file_that_is_called_as_a_page_is_refused(tmp_path):
    stack(tmp_path / "a.tif")
    pages()[0].save(tmp_path / "a_page0.tif")
    words = "'a_page0' would be the name of a page and of a file"
    with pytest.raises(PredictionError, match=words):
        find_sources([str(tmp_path)], tmp_path / "out", "all")


@pytest.mark.parametrize(("text", "expected"), [
    ("all", [0, 1, 2, 3, 4]), ("0", [0]), ("3-4, 1", [1, 3, 4]), ("2,2-3", [2, 3]),
])  # fmt: skip
def test_pages_by_number(text, expected):
    assert chosen_pages(text, 5, "a.tif") == expected


@pytest.mark.parametrize(("text", "reason"), [
    ("5", r"a\.tif: no pages 5: its 5 count from 0"), ("3-1", "no pages 3-1"),
    ("first", "write all"), ("-1", "write all"), ("", "write all"),
])  # fmt: skip
def test_pages_that_are_not_there_are_said(text, reason):
    with pytest.raises(PredictionError, match=reason):
        chosen_pages(text, 5, "a.tif")


def test_a_page_of_many_bands_is_read_by_its_number(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 60000, (2, 7, 9, 5)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for one in values:
            file.write(one, photometric="minisblack", planarconfig="contig")
    for page in range(2):
        assert np.array_equal(read_image(str(tmp_path / "a.tif"), "raw", page), values[page])


def test_overviews_do_not_shift_the_pages(tmp_path):
    """The second page stands third in the file, behind a small copy of the first."""
    values = np.arange(2 * 64 * 64, dtype=np.uint16).reshape(2, 64, 64)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values[0], metadata=None)
        file.write(values[0][::2, ::2], subfiletype=1, metadata=None)
        file.write(values[1], metadata=None)
    assert page_count(str(tmp_path / "a.tif")) == 2
    assert np.array_equal(read_image(str(tmp_path / "a.tif"), "raw", 1)[..., 0], values[1])
    with pytest.raises(DatasetError, match="no page 2: its 2 pages count from 0"):
        read_image(str(tmp_path / "a.tif"), "raw", 2)
