"""Configuration files are read safely, and mistakes are answered with the fix."""

from __future__ import annotations

import re

import seg_plugins
from seg_plugins.config import (
    ConfigError,
    Origin,
    config_root,
    get_config_file,
    get_value,
    load_config,
    merge_opts,
)

import pytest
from detectron2.config import LazyConfig, instantiate
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


def test_a_base_is_a_file_beside_or_a_shipped_one(tmp_path):
    """The shipped value of BASE_LR is 0.001; bases later in a list go before earlier ones."""
    for name in ("configs/own/semantic.yaml", "own/semantic.yaml"):
        leaf = write(tmp_path, f"_BASE_: {name}\nSOLVER: {{EPOCHS: 3}}\n")
        cfg = load_config(leaf)
        assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.EPOCHS) == (0.001, 3)
    assert not Origin(leaf).by_user("SOLVER.BASE_LR")
    (tmp_path / "own").mkdir()
    write(tmp_path, "SOLVER: {BASE_LR: 0.5, MAX_ITER: 7}\n", "own/semantic.yaml")
    assert load_config(leaf).SOLVER.BASE_LR == 0.5
    write(tmp_path, "SOLVER: {MAX_ITER: 8}\n", "other.yaml")
    both = write(tmp_path, "_BASE_: [own/semantic.yaml, other.yaml]\n", "both.yaml")
    assert (load_config(both).SOLVER.BASE_LR, load_config(both).SOLVER.MAX_ITER) == (0.5, 8)


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
        ("_BASE_: missing.yaml\n", r"missing\.yaml is not readable.*_BASE_ of .*config\.yaml"),
        ("_BASE_: config.yaml\n", r"config\.yaml is a _BASE_ of itself"),
        ("_BASE_: 3\n", r"_BASE_ 3 should be a file's name"),
        ("_BASE_: own/semantic.yaml\nOUTPUT_DIR: {A: 1}\n", r"OUTPUT_DIR has keys of its own"),
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


def test_a_lazy_configuration_is_refused_and_the_advice_works(tmp_path):
    file = tmp_path / "lazy.py"
    file.write_text(
        "from detectron2.config import LazyCall as L\n"
        "from torch.nn import Linear\n"
        "import pathlib\n"
        "pathlib.Path(__file__).with_name('ran').touch()\n"
        "model = L(Linear)(in_features=2, out_features=3)\n"
    )
    with pytest.raises(ConfigError, match="lazy configuration: Python code") as error:
        load_config(file)
    assert not (tmp_path / "ran").exists()
    (advice,) = re.findall(r"instantiate\((.*)\.model\)", str(error.value))
    model = eval(advice, {"LazyConfig": LazyConfig}).model
    assert instantiate(model).weight.shape == (3, 2)


def test_shipped_configurations_are_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "quickstart/deeplabv3plus_r18_shapes.yaml"
    assert get_config_file(name) == str(config_root() / name)
    assert load_config(name).MODEL.META_ARCHITECTURE == "DeepLabV3Plus"
    assert load_config("configs/" + name) == load_config(name)
    with pytest.raises(ConfigError, match=r"Nearest of these: .*deeplabv3plus_r18_shapes"):
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


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-3", 0.001),
        ("SOLVER.MAX_ITER", "1e4", 10000),
        ("SOLVER.STEPS", "[3, 4]", (3, 4)),
        ("SOLVER.LR_FACTORS", "[[backbone,0.05]]", [["backbone", 0.05]]),
        ("MODEL.RPN.IN_FEATURES", "[p2, p3]", ["p2", "p3"]),
        ("MODEL.WEIGHTS", "None", ""),
        ("WANDB.ID", "007", "007"),
        ("WANDB.ID", "12e3", "12e3"),
        ("MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "[1, 2]", [1, 2]),
        ("MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "inverse", "inverse"),
    ],
)
def test_values_take_the_type_of_their_key(tmp_path, key, text, value):
    parts = key.split(".")
    file = write(tmp_path, f"{{{': {'.join(parts)}: {text}{'}' * len(parts)}\n")
    for cfg in (load_config(file), load_config(write(tmp_path, "{}"), [key, text])):
        found = get_value(cfg, key)
        if (key, text) != ("WANDB.ID", "007"):  # a number to YAML
            assert found == value
            assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "spelling"),
    [
        ("DATASETS.TRAIN", "shapes_train", "('shapes_train',)"),
        ("DATASETS.TRAIN", "('shapes_train')", "('shapes_train',)"),
        ("DATASETS.TEST", "[1]", "('1',)"),
        ("INPUT.MIN_SIZE_TRAIN", "64", "(64,)"),
        ("SOLVER.STEPS", "2", "(2,)"),
        ("SOLVER.STEPS", "('2',)", "(2,)"),
        ("SOLVER.STEPS", "many", "(30000,)"),
        ("MODEL.RPN.IN_FEATURES", "res4", "('res4',)"),
        ("MODEL.RPN.IN_FEATURES", "None", "()"),
        ("MODEL.RPN.IN_FEATURES", "[p2", "('[p2',)"),
        ("SOLVER.MAX_ITER", "1.5", None),
        ("SOLVER.MAX_ITER", "None", None),
        ("SOLVER.AMP.ENABLED", "1", None),
        ("SOLVER.AMP.ENABLED", "yes please", None),
        ("SOLVER.AMP", "True", None),
        ("OUTPUT_DIR", "('a',)", None),
    ],
)
def test_values_of_another_type_name_the_key_and_a_spelling_that_works(
    tmp_path, key, text, spelling
):
    with pytest.raises(ConfigError) as error:
        merge_opts(seg_plugins.get_cfg(), [key, text])
    assert str(error.value).startswith(f"the command line: {key} ")
    if spelling is not None:
        assert f'{key} "{spelling}"' in str(error.value)
        cfg = seg_plugins.get_cfg()
        merge_opts(cfg, [key, spelling])
        in_yaml = str(error.value).rpartition(", ")[2] if key.count(".") == 1 else ""
        if in_yaml.endswith(" in a YAML file") and "[]" not in in_yaml:
            group, line = key.partition(".")[0], in_yaml.removesuffix(" in a YAML file")
            file = write(tmp_path, f"{group}:\n  {line}\n")
            assert get_value(load_config(file), key) == get_value(cfg, key)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "OUTPUT_DIR: ~/runs\nMODEL: {WEIGHTS: ~/w.pth}\n")
    opts = ["DATASETS.CUSTOM", "~/my.yaml", "INPUT.DECODED_CACHE.FOLDER", "~/cache"]
    cfg = load_config("~/config.yaml", opts)
    assert str(tmp_path / "runs") == cfg.OUTPUT_DIR
    assert str(tmp_path / "w.pth") == cfg.MODEL.WEIGHTS
    assert str(tmp_path / "my.yaml") == cfg.DATASETS.CUSTOM
    assert str(tmp_path / "cache") == cfg.INPUT.DECODED_CACHE.FOLDER


def test_who_set_a_value(tmp_path):
    write(tmp_path, "SOLVER: {BASE_LR: 0.5, IMS_PER_BATCH: 4}\n", "base.yaml")
    leaf = write(tmp_path, "_BASE_: base.yaml\nSOLVER: {IMS_PER_BATCH: 2}\n")
    origin = Origin(leaf, ["SOLVER.MAX_ITER", "9"])
    assert origin.by_user("SOLVER.MAX_ITER")
    assert origin.by_user("SOLVER.IMS_PER_BATCH")
    assert not origin.by_user("SOLVER.BASE_LR")
    assert origin.beside("SOLVER.BASE_LR", "SOLVER.IMS_PER_BATCH") == 4
    assert origin.beside("SOLVER.IMS_PER_BATCH", "SOLVER.IMS_PER_BATCH") == 2
    shipped = Origin("quickstart/deeplabv3plus_r18_shapes.yaml")
    assert not shipped.by_user("SOLVER.WARMUP_ITERS")


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "_BASE_: base.yaml\n"])
def test_a_file_without_keys_is_refused(tmp_path, text):
    write(tmp_path, "", "base.yaml")
    with pytest.raises(ConfigError, match="keys and values"):
        load_config(write(tmp_path, text))
