"""``seg-plugins predict``: its exit status and what it says."""

from __future__ import annotations

import json
from pathlib import Path

from seg_plugins import SegPluginsError, load_config
from seg_plugins.arguments.commands import command_parser
from seg_plugins.cli.predict import main
from seg_plugins.export import export_model, load_for_export

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

OPTS = ["MODEL.UNET.WIDTH", "4", "MODEL.UNET.DEPTH", "3", "MODEL.DEVICE", "cpu",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['enc1', 'enc2', 'enc3']"]  # fmt: skip


@pytest.fixture
def command(tmp_path):
    cfg = load_config("quickstart/unet_shapes.yaml", OPTS)
    (tmp_path / "config.yaml").write_text(cfg.dump())
    torch.save({"model": build_model(cfg).state_dict()}, tmp_path / "model.pth")
    (tmp_path / "in").mkdir()
    for name in "abc":
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "in" / f"{name}.png")

    def run(*arguments):
        common = ["--config-file", str(tmp_path / "config.yaml"), "--weights",
                  str(tmp_path / "model.pth"), "--output", str(tmp_path / "out")]  # fmt: skip
        return main(command_parser("predict").parse_args([*common, *arguments]))

    return run


def test_a_folder_is_predicted(command, tmp_path, capsys):
    assert command("--input", str(tmp_path / "in"), "--save", "overlay, mask") == 0
    assert len(list((tmp_path / "out/mask").iterdir())) == 3
    assert "3 predicted, 0 there already" in capsys.readouterr().out
    assert command("--input", str(tmp_path / "in"), "--save", "overlay, mask") == 0
    assert "0 predicted, 3 there already" in capsys.readouterr().out


def test_a_bad_image_is_listed_and_the_status_is_one(command, tmp_path, capsys):
    (tmp_path / "in/b.png").write_bytes(b"")
    assert command("--input", str(tmp_path / "in")) == 1
    output = capsys.readouterr()
    assert "2 predicted" in output.out
    assert "1 could not be predicted:" in output.err
    assert "b.png: not a readable image" in output.err


def test_several_inputs_and_options_at_the_end(command, tmp_path):
    files = [str(tmp_path / "in" / f"{name}.png") for name in "ab"]
    assert command("--input", *files, "--save", "mask", "--opts", "INPUT.MIN_SIZE_TEST", "40") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "nowhere/*.png"], "nowhere/.*no such file"),
        (["--input", "{in}", "--save", "overly"], "no output 'overly'; there are: overlay, mask"),
        (["--input", "{in}", "--classes", "dics"], "no class 'dics' in this model. Nearest: disc"),
        (["--input", "{in}", "--margin", "200"], "more than twice the margin"),
        (["--input", "{in}", "--opts", "MODEL.DEVCE", "cpu"], "unknown key MODEL.DEVCE"),
    ],
)
def test_mistakes_are_named(command, tmp_path, arguments, message):
    arguments = [argument.replace("{in}", str(tmp_path / "in")) for argument in arguments]
    with pytest.raises(ValueError, match=message):
        command(*arguments)


def test_what_is_left_out_or_missing_is_told(command, tmp_path, capsys, caplog):
    (tmp_path / "in/notes.txt").touch()
    assert command("--input", str(tmp_path / "in"), "--save", "mask") == 0
    assert "1 files are no images or videos by their names and are left out: 1 .txt" in caplog.text
    (tmp_path / "empty").mkdir()
    for name in ("empty", "gone.png"):
        with pytest.raises(ValueError, match=rf"{name}: no such file, or no image or video in it"):
            command("--input", str(tmp_path / "in"), str(tmp_path / name), "--save", "mask")


def test_images_of_a_pixel_or_two_have_results_of_every_kind(command, tmp_path):
    sizes = {"wide": (2, 700), "high": (600, 1), "dot": (1, 1), "small": (3, 5)}
    for name, size in sizes.items():
        Image.new("RGB", size[::-1], "red").save(tmp_path / "in" / f"{name}.png")
    kinds = "overlay,mask,color,cutout,blur,json"
    assert command("--input", str(tmp_path / "in"), "--save", kinds) == 0
    for name, (height, width) in sizes.items():
        for kind in ("mask", "color", "cutout", "blur"):
            assert Image.open(tmp_path / "out" / kind / f"{name}.png").size == (width, height)


def test_the_shipped_model_finds_the_nuclei_of_the_readmes_picture(tmp_path, capsys):
    """Of the validation set: experts annotated 58, crumbs and an overlapping clump among them."""
    picture = Path(__file__).parents[2] / "docs" / "images" / "nuclei.png"
    arguments = ["--model", "nuclei", "--input", str(picture), "--output", str(tmp_path)]
    assert main(command_parser("predict").parse_args([*arguments, "--device", "cpu"])) == 0
    record = json.loads((tmp_path / "records" / "nuclei.json").read_text())
    nuclei = record["regions"]
    assert {found["class"] for found in nuclei} == {"nucleus"}
    assert 40 <= len(nuclei) <= 58
    # Those that stand alone: almost all in one place, of the size of a nucleus.
    assert sum(800 < found["area"] < 5000 and found["score"] > 0.9 for found in nuclei) >= 28
    assert (tmp_path / "overlay" / "nuclei.png").is_file()


@pytest.mark.parametrize("given", [[], ["--model", "nuclei", "--config-file", "c.yaml"],
                                   ["--model", "nuclei", "--weights", "w.pth"]])  # fmt: skip
def test_a_model_is_named_in_one_way(given, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = [*given, "--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]
    with pytest.raises(SegPluginsError, match="either --config-file"):
        main(command_parser("predict").parse_args(arguments))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--model", "m.onnx", "--runtime", "torch"], "leave --runtime out"),
        (["--config-file", "c.yaml", "--weights", "w.pth", "--runtime", "onnx"], "write one with"),
        (["--config-file", "c.yaml", "--weights", "m.onnx"], "give it alone, as --model"),
        (["--model", "m.onnx", "--device", "cuda"], "run on the CPU here"),
        (["--model", "m.onnx"], r"m\.onnx: no such file"),
        (["--model", "nuclei", "--threads", "-1"], "a number from 1"),
    ],
)
def test_mistakes_with_exported_files_are_named(given, message, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    arguments = [*given, "--input", str(tmp_path / "a.png"), "--output", str(tmp_path / "out")]
    with pytest.raises(SegPluginsError, match=message):
        main(command_parser("predict").parse_args(arguments))
    assert not (tmp_path / "out").exists()


def test_an_exported_file_gives_the_masks_of_its_model(command, tmp_path):
    pytest.importorskip("onnxruntime")
    weights = str(tmp_path / "model.pth")
    cfg, model = load_for_export(str(tmp_path / "config.yaml"), weights)
    path = export_model(cfg, model, "onnx", tmp_path).path
    noise = np.random.default_rng(0).integers(0, 256, (64, 91, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "in" / "d.png")
    assert command("--input", str(tmp_path / "in"), "--save", "mask") == 0
    arguments = ["--model", str(path), "--input", str(tmp_path / "in"), "--save", "mask"]
    arguments += ["--output", str(tmp_path / "of_file"), "--threads", "1"]
    assert main(command_parser("predict").parse_args(arguments)) == 0
    for name in "abcd":
        found, expected = (
            np.asarray(Image.open(tmp_path / folder / "mask" / f"{name}.png"))
            for folder in ("of_file", "out")
        )
        assert (found != expected).mean() < 1e-3
