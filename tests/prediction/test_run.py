"""Whole runs: bad inputs, runs that go on, and masks that score as the evaluator says."""

from __future__ import annotations

import json
import shutil
import threading
import time

from seg_plugins import get_cfg
from seg_plugins.data import DatasetError
from seg_plugins.evaluation import SemanticEvaluator
from seg_plugins.io.images import read_label
from seg_plugins.prediction import ClassNameError, Predictor
from seg_plugins.prediction.inputs import Preparation, find_sources
from seg_plugins.prediction.labels import Labels
from seg_plugins.prediction.outputs import OutputOptions
from seg_plugins.prediction.run import RunOptions, grid_for, run
from seg_plugins.prediction.windows import WindowGrid

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image
from stubs import SEMANTIC, Fixed, RedChannel, instances, predictor, stripes
from test_video import write_video

MASKS = RunOptions(OutputOptions(("mask", "json")))


@pytest.fixture
def folder(tmp_path):
    """Three good images of two sizes, and two bad ones among them."""
    images = tmp_path / "images"
    images.mkdir()
    for name, height in (("a", 12), ("c", 14), ("e", 12)):
        Image.fromarray(stripes(height)).save(images / f"{name}.png")
    (images / "b.png").write_bytes(b"no picture")
    (images / "d.jpg").write_bytes((images / "a.png").read_bytes()[:60])
    return images


def predict(model, folder, options=MASKS, **arguments):
    output = folder.parent / "out"
    return run(predictor(model, **arguments), find_sources([str(folder)], output), output, options)


def names(output, kind):
    return sorted(path.stem for path in (output / kind).iterdir())


def test_bad_images_are_listed_and_the_others_written(folder):
    summary = predict(RedChannel(), folder)
    assert summary.done == 3
    assert [path.name for path, _ in sorted(summary.failed)] == ["b.png", "d.jpg"]
    assert "not a readable image" in dict(summary.failed)[folder / "b.png"]
    output = folder.parent / "out"
    assert names(output, "mask") == ["a", "c", "e"]
    images = json.loads((output / "instances.json").read_bytes())["images"]
    assert [image["file_name"] for image in images] == ["a.png", "c.png", "e.png"]


def test_an_image_that_the_network_fails_on_does_not_take_its_batch_with_it(folder):
    for name in ("b.png", "d.jpg"):
        (folder / name).unlink()
    white = stripes()
    white[0, 0] = 255
    Image.fromarray(white).save(folder / "b.png")
    summary = predict(RedChannel(), folder)
    assert summary.failed == [(folder / "b.png", "a white pixel")]
    assert names(folder.parent / "out", "mask") == ["a", "c", "e"]


def test_an_image_whose_result_cannot_be_written_is_listed(folder):
    (folder.parent / "out" / "mask" / "a.png").mkdir(parents=True)
    summary = predict(RedChannel(), folder)
    assert folder / "a.png" in dict(summary.failed)
    assert summary.done == 2


def test_a_second_run_goes_on_where_the_first_stopped(folder):
    class Interrupted(RedChannel):
        def forward(self, samples):
            if len(self.batches) == 1:
                raise KeyboardInterrupt
            return super().forward(samples)

    output = folder.parent / "out"
    with pytest.raises(KeyboardInterrupt):
        predict(Interrupted(), folder, batch_size=1)
    assert names(output, "mask") == ["a"]
    before = (output / "mask/a.png").stat().st_mtime_ns
    model = RedChannel()
    summary = predict(model, folder)
    assert (summary.done, summary.skipped, len(summary.failed)) == (2, 1, 2)
    assert sum(model.batches) == 2
    assert (output / "mask/a.png").stat().st_mtime_ns == before
    images = json.loads((output / "instances.json").read_bytes())["images"]
    assert len(images) == 3


def test_an_interrupt_ends_what_is_at_hand_and_starts_nothing_else(folder, monkeypatch):
    for name in "bd":
        next(folder.glob(f"{name}.*")).unlink()
    for i in range(40):
        Image.fromarray(stripes()).save(folder / f"f{i:02}.png")
    begun = []
    read = Preparation.read

    def slow(self, path, page=None):
        begun.append(path)
        time.sleep(0.02)
        return read(self, path, page)

    class Interrupted(RedChannel):
        def forward(self, samples):
            raise KeyboardInterrupt

    monkeypatch.setattr(Preparation, "read", slow)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        predict(Interrupted(), folder, batch_size=4)
    assert threading.active_count() == threads
    assert len(begun) < 8, "reads that waited were begun after the interrupt"
    left = [path for path in (folder.parent / "out").rglob("*") if path.is_file()]
    assert left == []


@pytest.mark.parametrize("batch_size", [1, 3])
def test_files_are_those_of_images_predicted_one_by_one(folder, batch_size):
    model = RedChannel()
    predict(model, folder, batch_size=batch_size)
    alone = predictor(model)
    for name in "ace":
        expected = alone(folder / f"{name}.png").id_mask()
        found = read_label(str(folder.parent / "out/mask" / f"{name}.png"))
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("change", ["model", "options", "file", "output"])
def test_what_has_changed_is_predicted_again(folder, change):
    predict(RedChannel(), folder)
    model, options, arguments = RedChannel(), MASKS, {}
    if change == "model":
        arguments["identity"] = "another"
    elif change == "options":
        options = RunOptions(OutputOptions(("mask", "color")))
    elif change == "file":
        Image.fromarray(stripes(16)).save(folder / "a.png")
    else:
        (folder.parent / "out" / "mask" / "a.png").unlink()
    summary = predict(model, folder, options, **arguments)
    assert summary.done == (3 if change in ("model", "options") else 1)


def test_batches_hold_images_of_one_size(folder):
    model = RedChannel()
    predict(model, folder, batch_size=4)
    assert model.batches == [1, 1, 1]  # 12, 14 and 12 rows, in the order of their names
    shutil.rmtree(folder.parent / "out")
    (folder / "c.png").unlink()
    model = RedChannel()
    predict(model, folder, batch_size=4)
    assert model.batches == [2]


def test_impossible_wishes_are_refused_before_the_first_image(folder):
    model = RedChannel()
    with pytest.raises(ClassNameError, match="Nearest: person"):
        predict(model, folder, RunOptions(OutputOptions(("cutout",), ("persom",))))
    with pytest.raises(ValueError, match="panoptic output needs"):
        predict(model, folder, RunOptions(OutputOptions(("panoptic",))))
    assert model.batches == []


def test_an_instance_system_runs_too(folder):
    labels = Labels(things=(SEMANTIC.stuff[2], SEMANTIC.stuff[1]))
    (folder / "c.png").unlink()  # the stub's masks have 12 rows
    summary = predict(Fixed({"instances": instances()}), folder, labels=labels)
    assert summary.done == 2
    content = json.loads((folder.parent / "out/instances.json").read_bytes())
    assert len(content["annotations"]) == 4


def test_videos_and_large_tiffs_run_among_the_images(folder):
    pytest.importorskip("rasterio")
    write_video(folder / "v.mp4", [stripes(64, 80)] * 3)
    Image.fromarray(stripes(100, 120)).save(folder / "large.tif")
    Image.fromarray(stripes()).save(folder / "small.tif")
    options = RunOptions(OutputOptions(("color",)), WindowGrid(64, 16, 4), window_pixels=1000)
    summary = predict(RedChannel(), folder, options)
    output = folder.parent / "out"
    assert summary.done == 6
    assert sorted(path.name for path in (output / "color").iterdir()) == [
        "a.png", "c.png", "e.png", "large.tif", "small.png", "v.mp4",
    ]  # fmt: skip
    assert predict(RedChannel(), folder, options).skipped == 6
    table = (output / "statistics.csv").read_text()
    assert "large.tif,person," in table
    assert "v.mp4,grass," in table


def test_a_tiff_that_fails_without_rasterio_names_it(folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (folder / "a.tif").write_bytes(b"no picture")
    reason = dict(predict(RedChannel(), folder).failed)[folder / "a.tif"]
    assert "pip install seg_plugins[geo]" in reason


def test_windows_start_on_the_networks_grid():
    model = RedChannel()
    model.alignment = 16
    assert grid_for(model) == WindowGrid(1024, 256, 64, 16)
    assert grid_for(model, 512) == WindowGrid(512, 128, 32, 16)
    assert grid_for(torch.nn.Identity()).alignment == 64


class Thresholds(torch.nn.Module):
    """Nearly right on the tiny dataset, and at another size than the image's."""

    def forward(self, samples):
        outputs = []
        for sample in samples:
            level = sample["image"].float().mean(dim=0)
            scores = torch.stack([-((level - centre) ** 2) for centre in (25.0, 120.0, 185.0)])
            size = (sample["height"], sample["width"])
            resized = torch.nn.functional.interpolate(scores[None], size, mode="bilinear")
            outputs.append({"sem_seg": resized[0]})
        return outputs


def test_masks_read_back_score_what_the_evaluator_prints(tiny_semantic, tmp_path):
    """mask PNG -> dataset reader -> the evaluator's own mIoU, digit by digit."""
    name = tiny_semantic[1]
    records = DatasetCatalog.get(name)
    cfg = get_cfg()
    cfg.DATASETS.TEST, cfg.INPUT.MIN_SIZE_TEST = (name,), 30
    preparation = Preparation(cfg)
    model = Thresholds()

    def score(outputs):
        evaluator = SemanticEvaluator(name, distributed=False)
        evaluator.reset()
        for record, output in zip(records, outputs, strict=True):
            evaluator.process([record], [output])
        return evaluator.evaluate()["sem_seg"]

    direct = score(
        model([{"image": preparation.tensor(preparation.read(record["file_name"]).pixels),
                "height": 40, "width": 48}])[0]
        for record in records
    )  # fmt: skip
    predict = Predictor(
        model=model, preparation=preparation, labels=Labels(stuff=SEMANTIC.stuff), identity="x"
    )
    files = [record["file_name"] for record in records]
    run(predict, find_sources(files, tmp_path), tmp_path, MASKS)
    masks = (tmp_path / "mask" / f"{record['image_id']}.png" for record in records)
    stored = score({"sem_seg": torch.from_numpy(read_label(str(path)).copy())} for path in masks)
    assert 60 < direct["mIoU"] < 100
    np.testing.assert_equal(stored, direct)


def test_results_of_another_file_of_the_name_are_not_overwritten(folder):
    other = folder.parent / "others"
    other.mkdir()
    Image.fromarray(stripes(16)).save(other / "a.png")
    predict(RedChannel(), folder)
    output = folder.parent / "out"
    before = (output / "mask/a.png").read_bytes()
    with pytest.raises(DatasetError, match=r"1 inputs would overwrite .*others/a\.png those of"):
        predict(RedChannel(), other)
    assert (output / "mask/a.png").read_bytes() == before
    # A folder that was moved is the same folder.
    moved = folder.rename(folder.parent / "moved")
    assert predict(RedChannel(), moved, RunOptions(OutputOptions(("mask",)))).done == 3


def test_what_has_become_unreadable_is_in_no_summary(folder):
    predict(RedChannel(), folder)
    (folder / "a.png").write_bytes(b"no picture any more")
    summary = predict(RedChannel(), folder)
    assert len(summary.failed) == 3
    images = json.loads((folder.parent / "out/instances.json").read_bytes())["images"]
    assert [image["file_name"] for image in images] == ["c.png", "e.png"]


def test_any_failure_of_one_input_leaves_the_others(folder):
    class Picky(RedChannel):
        def forward(self, samples):
            if samples[0]["image"].shape[1] == 14:
                raise IndexError("no such class")
            return super().forward(samples)

    summary = predict(Picky(), folder)
    assert dict(summary.failed)[folder / "c.png"] == "no such class"
    assert summary.done == 2


def test_files_of_one_name_in_two_folders_have_their_own_results(folder):
    other = folder.parent / "others"
    other.mkdir()
    Image.fromarray(stripes(16)).save(other / "a.png")
    output = folder.parent / "out"
    sources = find_sources([str(folder), str(other)], output)
    run(predictor(RedChannel()), sources, output, MASKS)
    assert Image.open(output / "mask/images/a.png").size == (20, 12)
    assert Image.open(output / "mask/others/a.png").size == (20, 16)
    images = json.loads((output / "instances.json").read_bytes())["images"]
    assert len({image["id"] for image in images}) == len(images) == 4
