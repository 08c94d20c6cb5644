"""Configuration files are read safely, and mistakes are answered with the fix."""

from __future__ import annotations

import seg_plugins
from seg_plugins.config import ConfigError, config_root, get_config_file, load_config, merge_opts

import pytest
from detectron2.config import get_cfg as detectron2_get_cfg


def write(folder, text, name="config.yaml"):
    file = folder / name
    file.write_text(text)
    return file


def test_a_leaf_overrides_its_base(tmp_path):
    write(tmp_path, "SOLVER:\n  BASE_LR: 0.5\n  MAX_ITER: 7\n", "base.yaml")
    leaf = write(tmp_path, "_BASE_: base.yaml\nSOLVER:\n  MAX_ITER: 9\n")
    cfg = load_config(leaf, ["SOLVER.STEPS", "(3, 4)"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS) == (0.5, 9, (3, 4))


@pytest.mark.parametrize("in_base", [False, True])
def test_a_python_tag_is_refused_with_file_and_line(tmp_path, in_base):
    target = tmp_path / "executed"
    text = f"SOLVER:\n  BASE_LR: !!python/object/apply:pathlib.Path.touch [{target}]\n"
    file = write(tmp_path, text, "evil.yaml")
    if in_base:
        file = write(tmp_path, "_BASE_: evil.yaml\n")
    with pytest.raises(ConfigError, match=r"evil\.yaml, line 2.*refused"):
        load_config(file)
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SOLVER:\n  BASE_LRR: 1\n", r"unknown key SOLVER\.BASE_LRR. Did you mean SOLVER\.BASE_LR"),
        ("MODEL:\n  ASPP_CHANNELS: 1\n", r"MODEL\.SEM_SEG_HEAD\.ASPP_CHANNELS"),
        ("SOVLER:\n  BASE_LR: 1\n", r"Did you mean SOLVER"),
        ("SOLVER:\n  MAX_ITER: many\n", r"config\.yaml.*SOLVER\.MAX_ITER"),
        ("SOLVER: [\n", r"config\.yaml, line 2"),
        ("_BASE_: missing.yaml\n", r"missing\.yaml"),
    ],
)
def test_mistakes_in_a_file_name_the_fix(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(tmp_path, text))


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BASE_LR"], "KEY VALUE pairs"),
        (["SOLVER.BASE_LRR", "1"], r"command line: unknown key.*SOLVER\.BASE_LR\?"),
        (["SOLVER.BASE_LR.X", "1"], "unknown key"),
        (["SOLVER.MAX_ITER", "many"], r"SOLVER\.MAX_ITER"),
    ],
)
def test_mistakes_on_the_command_line_name_the_fix(opts, message):
    with pytest.raises(ConfigError, match=message):
        merge_opts(seg_plugins.get_cfg(), opts)


def test_a_missing_file_is_named():
    with pytest.raises(ConfigError, match=r"/nowhere/a\.yaml"):
        load_config("/nowhere/a.yaml")


def test_shipped_configurations_are_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "quickstart/deeplabv3plus_r18_shapes.yaml"
    assert get_config_file(name) == str(config_root() / name)
    assert load_config(name).MODEL.META_ARCHITECTURE == "DeepLabV3Plus"
    assert load_config("configs/" + name) == load_config(name)
    with pytest.raises(ConfigError, match=r"Nearest: .*deeplabv3plus_r18_shapes"):
        get_config_file("quickstart/deeplab_r18_shapes.yaml")


def test_our_keys_agree_with_detectron2s_deeplab_project():
    """Both projects' keys may be added, in either order, and mean the same."""
    from detectron2.projects.deeplab import add_deeplab_config

    ours_first, theirs_first = seg_plugins.get_cfg(), detectron2_get_cfg()
    add_deeplab_config(ours_first)
    add_deeplab_config(theirs_first)
    seg_plugins.add_seg_config(theirs_first)
    shared = {
        key
        for key in theirs_first.MODEL.SEM_SEG_HEAD
        if key not in detectron2_get_cfg().MODEL.SEM_SEG_HEAD
    }
    assert {"ASPP_CHANNELS", "ASPP_DILATIONS", "PROJECT_CHANNELS", "LOSS_TYPE"} <= shared
    assert ours_first.MODEL.SEM_SEG_HEAD.keys() == theirs_first.MODEL.SEM_SEG_HEAD.keys()


def test_adding_keys_twice_keeps_what_the_user_set():
    cfg = seg_plugins.get_cfg()
    cfg.SOLVER.OPTIMIZER = "AdamW"
    seg_plugins.add_seg_config(cfg)
    assert cfg.SOLVER.OPTIMIZER == "AdamW"
