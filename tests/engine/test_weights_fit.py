"""Weights of a file are a start, a run that goes on, or the model: counted, or refused."""

from __future__ import annotations

import logging
import pickle
import runpy
from pathlib import Path

from seg_plugins import load_config
from seg_plugins.cli.train import evaluate
from seg_plugins.engine import Checkpointer, WeightsError
from seg_plugins.engine.training_state import ModelEMA
from seg_plugins.export import load_for_export
from seg_plugins.prediction import Predictor

import numpy as np
import pytest
import timm
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from torch import nn
from torchvision.models import resnet18

ROOT = Path(__file__).resolve().parents[2]


class System(nn.Module):
    """A backbone of blocks and a head, named as Detectron2's systems are."""

    def __init__(self, classes: int = 3, blocks: int = 3, norm: type[nn.Module] = nn.BatchNorm2d):
        super().__init__()
        layers = [nn.Sequential(nn.Conv2d(4, 4, 1), norm(4)) for _ in range(blocks)]
        self.backbone = nn.ModuleDict({"res2": nn.Sequential(*layers)})
        self.sem_seg_head = nn.ModuleDict({"predictor": nn.Conv2d(4, classes, 1)})


def saved(content: object, path: Path) -> str:
    torch.save(content, path)
    return str(path)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def same(model: nn.Module, other: nn.Module) -> bool:
    pairs = zip(model.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_whole_model_is_loaded(file):
    model, other = System(), System()
    Checkpointer(other).load(saved({"model": model.state_dict()}, file), complete=True)
    assert same(model, other)


def test_a_start_is_counted_in_one_line(file, caplog):
    """3 blocks of 2 + 4 tensors and a head of 2 are 20; the head has another size."""
    state = System(classes=5).state_dict()
    del state["backbone.res2.0.1.running_mean"]
    state["queue"] = torch.zeros(1)
    model = System()
    with caplog.at_level(logging.WARNING):
        Checkpointer(model).load(saved({"model": state}, file))
    assert (
        f"17 of 20 tensors loaded from {file}: 2 of another size (sem_seg_head.predictor.weight: "
        "(5, 4, 1, 1) in the file, (3, 4, 1, 1) in the model, sem_seg_head.predictor.bias: (5,) in "
        "the file, (3,) in the model), 1 missing (backbone.res2.0.1.running_mean), 1 of the file "
        "are not the model's (queue)"
    ) in caplog.text
    assert torch.equal(model.backbone["res2"][1][0].weight, state["backbone.res2.1.0.weight"])


def without(*ends: str):
    return lambda state: {k: v for k, v in state.items() if not k.endswith(ends)}


def as_integers(state):
    name = "sem_seg_head.predictor.weight"
    return {**state, name: state[name].to(torch.int8)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: System(classes=5).state_dict(), "2 of another size .sem_seg_head.predictor"),
        (lambda _: System(blocks=2).state_dict(), r"6 missing \(backbone\.res2\.2\.0\.weight"),
        (without("predictor.bias"), r"1 missing \(sem_seg_head\.predictor\.bias\)"),
        # A deeper network holds every tensor of this one, and gives other results.
        (lambda _: System(blocks=5).state_dict(), "14 of the file are not the model's"),
        (as_integers, r"torch\.int8 in the file, torch\.float32 in the model"),
    ],
)
def test_the_model_is_whole_or_refused_with_counts(file, change, message):
    weights = saved({"model": change(System().state_dict())}, file)
    with pytest.raises(WeightsError, match=message) as caught:
        Checkpointer(System()).load(weights, complete=True)
    assert str(file) in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_statistics_of_another_norm_are_not_left_out(file):
    """Batch norm's scale and shift fit a group norm, which would take them without a word."""

    def groups(channels: int) -> nn.Module:
        return nn.GroupNorm(2, channels)

    weights = saved({"model": System().state_dict()}, file)
    with pytest.raises(WeightsError, match="running_mean"):
        Checkpointer(System(norm=groups)).load(weights, complete=True)
    Checkpointer(System(norm=groups)).load(weights)  # a start, counted


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, FrozenBatchNorm2d])
def test_counters_and_parts_that_the_model_lacks_do_not_matter(file, norm):
    state = {k: v for k, v in System().state_dict().items() if "num_batches" not in k}
    state["aux_head.0.weight"] = torch.zeros(3, 4)
    state["sem_seg_head.point_head.weight"] = torch.zeros(3, 4)
    model = System(norm=norm)
    Checkpointer(model).load(saved({"model": state}, file), complete=True)
    assert torch.equal(
        model.sem_seg_head["predictor"].weight, state["sem_seg_head.predictor.weight"]
    )


def test_frozen_statistics_that_are_missing_are_no_zeros(file):
    """Detectron2's frozen norm fills in 0 and 1 for a file without versions."""
    state = {k: v for k, v in System().state_dict().items() if "running" not in k}
    with pytest.raises(WeightsError, match="6 missing"):
        Checkpointer(System(norm=FrozenBatchNorm2d)).load(
            saved({"model": dict(state)}, file), complete=True
        )


def test_next_to_nothing_is_no_start(file):
    weights = saved(resnet18().state_dict(), file)
    with pytest.raises(WeightsError) as caught:
        Checkpointer(System()).load(weights)
    assert "0 of the model's 20 tensors are in it" in str(caught.value)
    assert "has 122, such as conv1.weight (64, 3, 7, 7)" in str(caught.value)
    assert "the model wants backbone.res2.0.0.weight (4, 4, 1, 1)" in str(caught.value)


def test_weights_with_nan_are_refused(file):
    state = System().state_dict()
    state["sem_seg_head.predictor.bias"][1] = float("nan")
    with pytest.raises(WeightsError, match=r"NaN or infinity in 1 tensors: sem_seg_head"):
        Checkpointer(System()).load(saved({"model": state}, file))


def test_without_weights_there_is_no_whole_model(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights: set MODEL\.WEIGHTS"):
        Checkpointer(System(), str(tmp_path)).resume_or_load("", complete=True)
    Checkpointer(System(), str(tmp_path)).resume_or_load("")


def test_averaged_weights_are_whole_as_well(file):
    model = System()
    average = ModelEMA(model, 0.5).state_dict()
    for value in average["average"].values():
        value += 1
    other = System()
    content = {"model": model.state_dict(), "ema": average}
    Checkpointer(other).load(saved(content, file), complete=True)
    assert torch.equal(
        other.sem_seg_head["predictor"].weight, model.sem_seg_head["predictor"].weight + 1
    )
    del average["average"]["sem_seg_head.predictor.bias"]
    with pytest.raises(WeightsError, match=r"sem_seg_head\.predictor\.bias have no partner"):
        Checkpointer(other).load(saved(content, file), complete=True)


def test_an_average_of_another_library_is_left_out_with_a_line(file, caplog):
    model, other = System(), System()
    content = {"model": model.state_dict(), "ema": {"module": System().state_dict()}}
    Checkpointer(other).load(saved(content, file), complete=True)
    assert same(model, other)
    assert "'ema'" in caplog.text


def test_a_run_goes_on_with_every_tensor(tmp_path, caplog):
    """Of another size some may be, since the number of classes may change; none may be missing."""
    states = {"trainer": nn.Module()}
    Checkpointer(System(classes=5), str(tmp_path), **states).save("model_0000000", iteration=0)
    Checkpointer(System(), str(tmp_path), **states).resume_or_load("")
    assert "2 of another size (sem_seg_head.predictor.weight" in caplog.text
    with pytest.raises(WeightsError, match=r"6 missing.*another folder, without --resume"):
        Checkpointer(System(blocks=4), str(tmp_path), **states).resume_or_load("")


def test_a_state_that_the_file_lacks_is_told(tmp_path, caplog):
    torch.save({"model": System().state_dict()}, tmp_path / "model_0000000.pth")
    Checkpointer(System(), str(tmp_path), trainer=nn.Module()).resume_or_load("")
    assert "holds no state of the trainer, which starts anew" in caplog.text


def test_a_compiled_model_has_plain_names_in_files(tmp_path):
    model, other = System(), System()
    model.backbone = torch.compile(model.backbone, backend="eager")
    assert any("_orig_mod" in name for name in model.state_dict())
    average = ModelEMA(model, 0.5)
    Checkpointer(model, str(tmp_path), ema=average).save("model_0000000")
    content = torch.load(tmp_path / "model_0000000.pth", weights_only=True)
    assert list(content["model"]) == list(other.state_dict()) == list(content["ema"]["average"])
    Checkpointer(other).load(str(tmp_path / "model_0000000.pth"), complete=True)
    assert torch.equal(
        other.backbone["res2"][0][0].weight, content["model"]["backbone.res2.0.0.weight"]
    )
    # ... and is loaded from them, with its average.
    Checkpointer(model, str(tmp_path), ema=average).resume_or_load("")


SMALL = [
    *("MODEL.DEVICE", "cpu", "MODEL.TIMM.NAME", "test_resnet", "MODEL.TIMM.PRETRAINED", "False"),
    *("MODEL.SEM_SEG_HEAD.ASPP_CHANNELS", "8", "MODEL.SEM_SEG_HEAD.CONVS_DIM", "8"),
]
CONFIG = "quickstart/deeplabv3plus_r18_shapes.yaml"


@pytest.fixture(scope="module")
def backbone_only(tmp_path_factory):
    state = build_model(load_config(CONFIG, SMALL)).state_dict()
    file = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.save({k: v for k, v in state.items() if k.startswith("backbone.")}, file)
    return str(file)


def test_prediction_and_export_take_the_whole_model_only(backbone_only):
    for load in (
        lambda: Predictor.from_config(CONFIG, backbone_only, opts=SMALL),
        lambda: load_for_export(CONFIG, backbone_only, SMALL),
    ):
        with pytest.raises(WeightsError, match=r"missing \(sem_seg_head\."):
            load()


@pytest.mark.parametrize("resume", [False, True])
def test_evaluation_takes_the_whole_model_only(backbone_only, tmp_path, resume):
    for weights, message in ((backbone_only, r"missing \(sem_seg_head\."), ("", "no weights")):
        opts = [*SMALL, "OUTPUT_DIR", str(tmp_path / "run"), "MODEL.WEIGHTS", weights]
        with pytest.raises(WeightsError, match=message):
            evaluate(load_config(CONFIG, opts), resume)


def test_timms_own_names_are_a_start_and_the_tool_writes_the_same(file, tmp_path, monkeypatch):
    source = dict(timm.create_model("test_resnet").state_dict())
    model, other = (build_model(load_config(CONFIG, SMALL)) for _ in range(2))
    other.load_state_dict(model.state_dict())
    Checkpointer(model).load(saved(source, file))
    new = str(tmp_path / "new.pth")
    words = ["--config-file", CONFIG, str(file), new, *SMALL]
    monkeypatch.setattr("sys.argv", ["convert_weights.py", *words])
    runpy.run_path(str(ROOT / "tools" / "convert_weights.py"), run_name="__main__")
    Checkpointer(other).load(new)
    assert same(model, other)
    name = next(iter(source))
    assert torch.equal(model.state_dict()[f"backbone.model.{name}"], source[name])


def test_a_zoo_file_of_detectron2_is_the_whole_model(tmp_path):
    """Arrays in a pickle, with buffers that its releases had once."""
    model, other = System(norm=FrozenBatchNorm2d), System(norm=FrozenBatchNorm2d)
    state = {k: v.numpy() for k, v in model.state_dict().items()}
    state["pixel_mean"] = np.zeros((3, 1, 1), np.float32)
    state["proposal_generator.anchor_generator.cell_anchors.0"] = np.zeros((3, 4), np.float32)
    content = {"model": state, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps(content))
    Checkpointer(other).load(str(tmp_path / "zoo.pkl"), complete=True)
    assert same(model, other)


def test_statistics_that_caffe2_folds_are_not_missing(tmp_path, caplog):
    """conv1 and its norm under Caffe2's names; the classifier has no place here."""
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"stem": nn.Module()})})
    model.backbone.stem.conv1 = nn.Conv2d(3, 4, 7, bias=False)
    model.backbone.stem.conv1.norm = FrozenBatchNorm2d(4)
    kernel = np.random.default_rng(0).normal(size=(4, 3, 7, 7)).astype(np.float32)
    arrays = {
        "conv1_w": kernel, "conv1_w_momentum": kernel, "fc1000_w": np.ones((10, 4), np.float32),
        "res_conv1_bn_s": np.full(4, 2, np.float32), "res_conv1_bn_b": np.full(4, 3, np.float32),
    }  # fmt: skip
    (tmp_path / "R.pkl").write_bytes(pickle.dumps({"blobs": arrays}))
    with caplog.at_level(logging.INFO):
        Checkpointer(model).load(str(tmp_path / "R.pkl"), complete=True)
    np.testing.assert_array_equal(model.backbone.stem.conv1.weight.detach().numpy(), kernel)
    assert model.backbone.stem.conv1.norm.weight.eq(2).all()
    assert model.backbone.stem.conv1.norm.running_mean.eq(0).all()
    assert "5 of 5 tensors loaded" in caplog.text
    arrays["conv1_w"] = kernel[:, :2]
    (tmp_path / "R.pkl").write_bytes(pickle.dumps({"blobs": arrays}))
    with pytest.raises(WeightsError, match=r"1 of another size .backbone\.stem\.conv1\.weight"):
        Checkpointer(model).load(str(tmp_path / "R.pkl"), complete=True)
