"""``seg-plugins evaluate``: the table, the JSON, and what it says of mistakes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from seg_plugins import SegPluginsError
from seg_plugins.arguments.commands import command_parser
from seg_plugins.cli.evaluate import run
from seg_plugins.data import Dataset
from seg_plugins.evaluation import format_results, score_files

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools" / "evaluate.py"


def evaluate(*arguments: object) -> None:
    run(command_parser("evaluate").parse_args(list(map(str, arguments))))


@pytest.fixture
def labels(tmp_path):
    """Three images, their masks, and predictions that have one pixel of four wrong."""
    for folder in ("images", "masks", "found"):
        (tmp_path / folder).mkdir()
    for name in "abc":
        Image.new("RGB", (2, 2)).save(tmp_path / "images" / f"{name}.png")
        mask = np.array([[0, 0], [1, 1]], np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / f"{name}.png")
        mask[1, 1] = 0
        Image.fromarray(mask).save(tmp_path / "found" / f"{name}.png")
    known = set(DatasetCatalog.list())
    yield tmp_path
    for name in set(DatasetCatalog.list()) - known:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
        Dataset.forget(name)


def test_two_folders_without_any_file(labels, capsys):
    dataset = f"folder:{labels / 'images'},{labels / 'masks'}"
    arguments = ("--dataset", dataset, "--predictions", labels / "found")
    evaluate(*arguments, "--json", labels / "scores.json", "--output", labels / "out")
    results = score_files(dataset, labels / "found")
    assert results["sem_seg"]["IoU-class_0"] == pytest.approx(200 / 3)
    assert results["sem_seg"]["IoU-class_1"] == 50
    assert format_results(results) in capsys.readouterr().out
    content = json.loads((labels / "scores.json").read_text())
    assert content["results"] == results
    assert content["dataset"] == dataset
    assert (labels / "out" / "sem_seg_results.json").is_file()
    evaluate(*arguments, "TEST.BOUNDARY_MEASURES", "True")
    assert "mBoundaryIoU" in capsys.readouterr().out


def test_a_description_and_its_validation_set(labels, capsys):
    (labels / "my.yaml").write_text(
        "name: mine\ntask: semantic\nclasses: [low, high]\nimages: images\nmasks: masks\n"
        "split: {val_fraction: 0.4, seed: 0}\n"
    )
    arguments = ("--custom", labels / "my.yaml", "--predictions", labels / "found")
    with pytest.raises(SegPluginsError, match=r"is none of the 1 images of 'mine_val'"):
        evaluate(*arguments)
    record = Dataset.get("mine_val").records[0]
    for file in (labels / "found").iterdir():
        if file.name != Path(record["file_name"]).name:
            file.unlink()
    evaluate(*arguments)
    assert "on mine_val:\ntask" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dataset", "camvid_tets"), "'camvid_tets' is not registered; similar names: camvid"),
        (("--dataset", "folder:a"), "expected 'folder:path/to/images,path/to/masks'"),
        (("--dataset", "shapes_val", "TEST.BOUNDRY", "1"), "unknown key TEST.BOUNDRY. Did you"),
        (("--config-file", "quickstart/unet_shapes.yaml"), "none of the 100 images of"),
    ],
)
def test_mistakes_are_named(labels, arguments, message):
    with pytest.raises(SegPluginsError, match=message):
        evaluate("--predictions", labels / "found", *arguments)


def test_an_error_is_one_line_and_the_status_is_one(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOL), "--dataset", "shapes_val", "--predictions", "nowhere"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: nowhere: no such file or folder"
    assert "Traceback" not in done.stderr
