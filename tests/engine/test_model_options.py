"""Ways to run a model that change neither results nor names."""

from __future__ import annotations

import copy
import shutil

from seg_plugins.config import ConfigError, load_config
from seg_plugins.engine import Trainer, setup
from seg_plugins.engine.evaluating import loss_mode
from seg_plugins.modeling.model_options import (
    checkpoint_activations,
    compile_parts,
    unused_features,
)

import pytest
import timm
import torch
from detectron2.modeling import build_model
from torch import nn


def gradients(model, x):
    torch.manual_seed(0)
    model.zero_grad()
    model(x).square().mean().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters()}


def test_activations_computed_again_give_the_same_gradients_and_statistics():
    torch.manual_seed(1)
    plain = timm.create_model("test_resnet", num_classes=0, drop_path_rate=0.3).train()
    again = copy.deepcopy(plain)
    assert checkpoint_activations(again) >= 4
    x = torch.randn(2, 3, 48, 48)
    expected, found = gradients(plain, x), gradients(again, x)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    for (name, a), b in zip(plain.named_buffers(), again.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert plain.state_dict().keys() == again.state_dict().keys()


class System(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        self.sem_seg_head = Head()

    def forward(self, x):
        return self.sem_seg_head(self.backbone(x))


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.score = nn.Conv2d(4, 2, 1)

    def layers(self, x):
        return self.score(x)

    def forward(self, x):
        return self.layers(x)


def test_compiled_parts_give_the_same_and_keep_their_names():
    model = System()
    x = torch.randn(1, 3, 8, 8)
    expected, names = model(x), list(model.state_dict())
    compile_parts(model, "eager")
    torch.testing.assert_close(model(x), expected)
    assert list(model.state_dict()) == names


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_system_trains_the_same_when_compiled_by_inductor(tiny_args, tmp_path, monkeypatch):
    """PyTorch's own compiler, on the CPU; nothing of it may fall back to plain execution."""
    from torch._dynamo.utils import counters
    from torch._inductor import metrics

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    # SGD: Adam turns the rounding of a gradient that is almost zero into a whole step.
    opts = ("DATASETS.TEST", "()", "TEST.PICTURES", "0", "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT", "0.0",
            "SOLVER.OPTIMIZER", "SGD", "SOLVER.BASE_LR", "0.01")  # fmt: skip
    plain = Trainer(setup(tiny_args(*opts, "OUTPUT_DIR", str(tmp_path / "plain"))))
    plain.train()
    torch._dynamo.reset()
    metrics.reset()
    counters.clear()
    suppressed = torch._dynamo.config.suppress_errors
    try:
        compiled = Trainer(setup(tiny_args(*opts, "MODEL.COMPILE", "inductor")))
        torch._dynamo.config.suppress_errors = False  # here an error is one
        compiled.train()
    finally:
        torch._dynamo.config.suppress_errors = suppressed
        torch._dynamo.reset()
    assert metrics.generated_kernel_count > 10
    assert not counters["graph_break"], dict(counters["graph_break"])
    expected, found = plain.model.state_dict(), compiled.model.state_dict()
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_what_cannot_be_compiled_runs_as_before():
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    torch._dynamo.register_backend(broken, name="broken_in_test")
    model = System()
    x = torch.randn(1, 3, 8, 8)
    expected = model(x)
    compile_parts(model, "broken_in_test")
    torch.testing.assert_close(model(x), expected)
    with pytest.raises(ConfigError, match=r"MODEL\.COMPILE nvfuser2 is not one of .*inductor"):
        compile_parts(model, "nvfuser2")


def test_losses_are_given_while_layers_are_as_in_inference():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5))
    model.train()
    with loss_mode(model):
        assert model.training
        assert not any(layer.training for layer in model)
    assert all(layer.training for layer in model)


@pytest.mark.parametrize(
    ("name", "opts", "expected"),
    [
        ("quickstart/deeplabv3plus_r18_shapes.yaml", [], []),
        (
            "quickstart/deeplabv3plus_r18_shapes.yaml",
            ["MODEL.TIMM.OUT_FEATURES", "['res2', 'res4', 'res5']",
             "MODEL.SEM_SEG_HEAD.IN_FEATURES", "['res2', 'res4']"],
            ["res5"],
        ),
        ("shapes/mask_rcnn_r18_fpn.yaml", [], []),
        (
            "shapes/mask_rcnn_r18_fpn.yaml",
            ["MODEL.FPN.IN_FEATURES", "['res2', 'res3', 'res4']",
             "MODEL.ROI_HEADS.IN_FEATURES", "['p2', 'p3', 'p4']",
             "MODEL.RPN.IN_FEATURES", "['p2', 'p3', 'p4', 'p5']",
             "MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16], [32], [64]]"],
            ["res5"],
        ),
        ("shapes/mask_rcnn_r18_c4.yaml", [], []),
        ("shapes/panoptic_segnet.yaml", [], []),
    ],
)  # fmt: skip
def test_features_of_the_backbone_that_no_part_takes(name, opts, expected):
    model = build_model(load_config(name, ["MODEL.DEVICE", "cpu", *opts]))
    assert unused_features(model) == expected
