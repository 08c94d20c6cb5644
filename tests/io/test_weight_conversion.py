import runpy
import subprocess
import sys
from pathlib import Path

from seg_plugins.io.weights.conversion import convert
from seg_plugins.modeling.backbones.segnet_basic import SegNetBasicBackbone
from seg_plugins.modeling.backbones.timm import TimmBackbone
from seg_plugins.modeling.backbones.vgg import VGGBackbone
from seg_plugins.modeling.sem_seg_heads.fcn import SemSegFCNHead
from seg_plugins.modeling.sem_seg_heads.segnet import SemSegSegNetHead

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

ROOT = Path(__file__).resolve().parents[2]


def model(backbone: nn.Module, head: nn.Module | None = None) -> nn.Module:
    parts = {"backbone": backbone} | ({"sem_seg_head": head} if head else {})
    return nn.ModuleDict(parts)


def fcn(names: list[str]) -> nn.Module:
    backbone = VGGBackbone(width=2, fc_channels=6, input_pad=100, out_features=names)
    return model(backbone, SemSegFCNHead(backbone.output_shape(), num_classes=3))


@pytest.mark.parametrize("norm", ["", "BN"])
def test_torchvisions_names_and_ours_are_alike(norm: str) -> None:
    with torch.device("meta"):
        peer = torchvision.models.vgg16_bn() if norm else torchvision.models.vgg16()
        own = model(VGGBackbone(norm=norm, out_features=["fc7"]))
    result = convert(peer.state_dict(), own.state_dict())
    assert result.missing == result.misfits == []
    assert result.unused == ["classifier.6.weight", "classifier.6.bias"]
    assert result.weights["backbone.fc.fc6.weight"].shape == (4096, 512, 7, 7)


def test_timms_vgg() -> None:
    with torch.device("meta"):
        peer, own = timm.create_model("vgg11"), model(VGGBackbone(depth=11, out_features=["fc7"]))
    result = convert(peer.state_dict(), own.state_dict())
    assert result.missing == result.misfits == []
    assert result.unused == ["head.fc.weight", "head.fc.bias"]


def test_fully_connected_layer_becomes_the_same_function() -> None:
    own = fcn(["fc7"])
    linear = nn.Linear(16 * 7 * 7, 6)
    source = {
        "classifier.0.weight": linear.weight.detach(),
        "classifier.0.bias": linear.bias.detach(),
    }
    own.load_state_dict(convert(source, own.state_dict()).weights, strict=False)
    x = torch.randn(1, 16, 7, 7)
    torch.testing.assert_close(own["backbone"].fc.fc6(x).flatten(), linear(x.flatten()))


@pytest.mark.parametrize("name", ["resnet18", "xception41", "efficientnet_b0"])
def test_timm_models(name: str) -> None:
    peer, own = timm.create_model(name).eval(), model(TimmBackbone(name=name)).eval()
    result = convert(peer.state_dict(), own.state_dict())
    assert result.missing == result.misfits == []
    own.load_state_dict(result.weights, strict=False)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = peer.forward_intermediates(x, intermediates_only=True)[-1]
        torch.testing.assert_close(own["backbone"](x)["res5"], expected)


def caffe_fcn8s() -> dict[str, torch.Tensor]:
    state = fcn(["pool3", "pool4", "fc7"]).state_dict()
    convs = [k for k in state if k.startswith("backbone.features") and k.endswith("weight")]
    counts, names = (2, 2, 3, 3, 3), []
    for stage, count in enumerate(counts, start=1):
        names += [f"conv{stage}_{i + 1}" for i in range(count)]
    pairs = {key.removesuffix(".weight"): name for key, name in zip(convs, names, strict=True)}
    pairs |= {
        "backbone.fc.fc6": "fc6", "backbone.fc.fc7": "fc7",
        "sem_seg_head.score.fc7": "score_fr", "sem_seg_head.score.pool4": "score_pool4",
        "sem_seg_head.score.pool3": "score_pool3", "sem_seg_head.upscore.fc7_x2": "upscore2",
        "sem_seg_head.upscore.pool4_x2": "upscore_pool4",
        "sem_seg_head.upscore.pool3_x8": "upscore8",
    }  # fmt: skip
    return {
        f"{pairs[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": torch.randn(value.shape)
        for key, value in state.items()
    }


def test_caffe_layers_of_fcn8s() -> None:
    source, target = caffe_fcn8s(), fcn(["pool3", "pool4", "fc7"])
    result = convert(source, target.state_dict())
    assert result.unused == result.misfits == result.missing == []
    assert torch.equal(result.weights["backbone.features.28.weight"], source["conv5_3.weight"])
    swapped = convert(source, target.state_dict(), from_bgr=True).weights[
        "backbone.features.0.weight"
    ]
    assert torch.equal(swapped, source["conv1_1.weight"].flip(1))


def test_caffe_layers_of_segnet_with_folded_statistics() -> None:
    backbone = VGGBackbone(width=2, norm="BN", pooling_indices=True)
    own = model(backbone, SemSegSegNetHead(backbone.output_shape(), num_classes=3)).state_dict()
    source = {}
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        width = 2 * min(2 ** (stage - 1), 8)
        for i in range(1, count + 1):
            below = 3 if stage == i == 1 else width if i > 1 else 2 * min(2 ** (stage - 2), 8)
            up = 3 if stage == i == 1 else below
            for name, shape in (
                (f"conv{stage}_{i}", (width, below)),
                (f"conv{stage}_{i}_D", (up, width)),
            ):
                source[f"{name}.0"] = torch.randn(*shape, 3, 3)
                source[f"{name}.1"] = torch.randn(shape[0])
                if name != "conv1_1_D":
                    source[f"{name}_bn.0"] = torch.randn(1, shape[0], 1, 1)
                    source[f"{name}_bn.1"] = torch.randn(1, shape[0], 1, 1)
    result = convert(source, own)
    assert result.unused == result.misfits == result.missing == []
    # conv5_3_D is the first convolution after the deepest unpooling.
    assert torch.equal(result.weights["sem_seg_head.stages.0.0.weight"], source["conv5_3_D.0"])
    assert result.weights["backbone.features.1.running_var"].eq(1).all()


def test_caffe_layers_of_segnet_basic() -> None:
    backbone = SegNetBasicBackbone(width=2)
    head = SemSegSegNetHead(
        backbone.output_shape(), num_classes=3, convs=(1, 1, 1, 1), kernel_size=7, relu=False,
        extra_classifier=True,
    )  # fmt: skip
    source = {f"conv{i}.weight": torch.randn(2, 3 if i == 1 else 2, 7, 7) for i in range(1, 5)}
    source |= {f"conv_decode{i}.weight": torch.randn(2, 2, 7, 7) for i in range(1, 5)}
    source |= {"conv_classifier.weight": torch.randn(3, 2, 1, 1)}
    result = convert(source, model(backbone, head).state_dict())
    assert result.unused == result.misfits == []
    assert torch.equal(
        result.weights["sem_seg_head.stages.3.0.weight"], source["conv_decode1.weight"]
    )


def test_other_sizes_are_reported() -> None:
    result = convert({"features.0.weight": torch.zeros(64, 3, 3, 3)}, fcn(["fc7"]).state_dict())
    assert result.misfits == [
        "features.0.weight -> backbone.features.0.weight: (64, 3, 3, 3) in the file, "
        "(2, 3, 3, 3) in the model"
    ]
    assert "backbone.features.0.weight" in result.missing


def test_a_kernel_in_another_order_of_axes_is_no_kernel() -> None:
    """TensorFlow's (h, w, in, out) has as many values as (out, in, h, w)."""
    own = fcn(["fc7"]).state_dict()
    result = convert({"conv1_2.weight": torch.zeros(3, 3, 2, 2)}, own)
    assert result.weights == {}
    assert result.misfits == [
        "conv1_2.weight -> backbone.features.2.weight: (3, 3, 2, 2) in the file, "
        "(2, 2, 3, 3) in the model"
    ]


def test_the_second_of_two_names_for_one_tensor_is_reported() -> None:
    own = fcn(["fc7"]).state_dict()
    result = convert({"conv1_1.1": torch.ones(2), "features.0.bias": torch.zeros(2)}, own)
    assert result.weights["backbone.features.0.bias"].eq(1).all()
    assert result.misfits == ["features.0.bias -> backbone.features.0.bias: given before"]


def test_statistics_are_folded_only_where_the_source_has_none_at_all() -> None:
    own = model(VGGBackbone(depth=11, width=2, norm="BN")).state_dict()
    mean, folded = "backbone.features.1.running_mean", {"conv1_1_bn.weight": torch.ones(2)}
    # What shows a Caffe release; another library's file without statistics is not whole.
    release = {f"conv{i}_1.weight": torch.zeros(1) for i in (1, 2)}
    assert mean not in convert({**release, **folded}, own).missing
    statistics = {"features.5.running_mean": torch.zeros(4)}
    assert mean in convert({**release, **folded, **statistics}, own).missing
    assert mean in convert({"features.1.weight": torch.ones(2)}, own).missing


def test_the_command_refuses_a_file_of_which_next_to_nothing_fits(tmp_path, monkeypatch) -> None:
    state = torchvision.models.resnet18(num_classes=2).state_dict()
    torch.save({**state, "features.0.bias": torch.zeros(2)}, tmp_path / "resnet.pth")
    words = [str(tmp_path / "resnet.pth"), str(tmp_path / "out.pth"), "MODEL.VGG.WIDTH", "2"]
    monkeypatch.setattr(
        "sys.argv", ["convert_weights.py", "--config-file", "voc/fcn8s_vgg16.yaml", *words]
    )
    with pytest.raises(
        SystemExit, match=r"error: .*resnet\.pth: 1 of its 123 tensors have a place"
    ):
        runpy.run_path(str(ROOT / "tools" / "convert_weights.py"), run_name="__main__")
    assert not (tmp_path / "out.pth").exists()


@pytest.mark.slow
def test_command_writes_what_detectron2_loads(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "caffe.npz", **{name: value.numpy() for name, value in caffe_fcn8s().items()}
    )
    small = [
        "MODEL.VGG.WIDTH",
        "2",
        "MODEL.VGG.FC_CHANNELS",
        "6",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES",
        "3",
    ]
    command = [sys.executable, "tools/convert_weights.py", "--config-file", "voc/fcn8s_vgg16.yaml",
               str(tmp_path / "caffe.npz"), str(tmp_path / "out.pth"), *small]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    written = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(written["model"]) == set(fcn(["pool3", "pool4", "fc7"]).state_dict())
